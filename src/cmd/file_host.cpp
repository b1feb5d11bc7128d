#include <cstdlib>
#include <format>

#include "base/log.h"
#include "cmd/model_host.h"
#include "gguf/file.h"
#include "ml/dtype.h"
#include "runner/local.h"
#include "runner/options.h"
#include "store/store.h"

namespace ollama::cmd {
namespace {

using Clock = std::chrono::steady_clock;

engine::LoadOptions load_options(const api::Options& options, const envconfig::Config& config,
                                 const gguf::File& file) {
  engine::LoadOptions load = engine::load_options_of(config);
  load.parallel = 1;  // one caller
  // More than the model's own limit is worth a warning only to those who asked for it.
  load.context =
      std::min(config.context_length, file.u32(".context_length").value_or(config.context_length));
  if (options.num_ctx) load.context = static_cast<std::uint32_t>(std::max(1, *options.num_ctx));
  if (options.num_batch) load.batch = static_cast<std::uint32_t>(std::max(1, *options.num_batch));
  runner::apply_options(options, load);
  return load;
}

runner::Generate make_generate(const api::InferenceRequest& request, const api::Options& options) {
  runner::Generate generate;
  generate.template_text = request.template_text;
  generate.think = request.think;
  generate.take_apart = true;
  generate.shift = request.shift.value_or(true);
  generate.truncate = request.truncate.value_or(true);
  if (!request.format.is_null()) generate.format = api::to_string(request.format);
  runner::apply_options(options, generate);
  return generate;
}

api::Message make_message(std::string role, std::string content) {
  api::Message message;
  message.role = std::move(role);
  message.content = std::move(content);
  return message;
}

// Serves one model file by a runner of our own.
class FileHost final : public ModelHost {
 public:
  FileHost(std::filesystem::path path, const envconfig::Config& config)
      : path_(std::move(path)), config_(config) {}

  Result<api::ShowResponse> show(const api::ShowRequest& request) override {
    OLLAMA_TRY(open());
    api::ShowResponse model;
    model.modelfile = std::format("FROM {}\n", path_.string());
    model.template_text = template_;
    model.system = request.system;
    model.details.format = "gguf";
    model.details.family = file_->architecture();
    model.details.quantization_level = gguf::file_type_name(*file_);
    model.capabilities = capabilities_;
    api::JsonObject& info = model.model_info;
    info["general.architecture"] = file_->architecture();
    info["general.parameter_count"] = file_->parameter_count();
    for (const char* key : {"context_length", "embedding_length", "block_count"}) {
      if (const auto value = file_->u32(std::format(".{}", key))) {
        info[std::format("{}.{}", file_->architecture(), key)] = *value;
      }
    }
    return model;
  }

  Result<> load(const api::GenerateRequest& request, const LoadProgress& progress) override {
    OLLAMA_ASSIGN(const api::Options options, api::parse_options(request.options));
    return prepare(options, progress);
  }

  Result<> generate(const api::GenerateRequest& request, std::stop_token stop,
                    const std::function<bool(const api::GenerateResponse&)>& callback) override {
    std::vector<api::Message> messages;
    if (!request.system.empty()) messages.push_back(make_message("system", request.system));
    messages.push_back(make_message("user", request.prompt));
    api::GenerateResponse response;
    response.model = request.model;
    OLLAMA_ASSIGN(response.metrics,
                  answer(request, std::move(messages), stop, [&](runner::Piece&& piece) {
                    response.response = std::move(piece.text);
                    response.thinking = std::move(piece.thinking);
                    return callback(response);
                  }));
    response.response.clear();
    response.thinking.clear();
    response.done = true;
    callback(response);
    return {};
  }

  Result<> chat(const api::ChatRequest& request, std::stop_token stop,
                const std::function<bool(const api::ChatResponse&)>& callback) override {
    api::ChatResponse response;
    response.model = request.model;
    response.message.role = "assistant";
    OLLAMA_ASSIGN(response.metrics,
                  answer(request, request.messages, stop, [&](runner::Piece&& piece) {
                    response.message.content = std::move(piece.text);
                    response.message.thinking = std::move(piece.thinking);
                    return callback(response);
                  }));
    response.message.content.clear();
    response.message.thinking.clear();
    response.done = true;
    callback(response);
    return {};
  }

  Result<> create(const api::CreateRequest& /*request*/) override {
    return fail(ErrorCode::kUnsupported,
                "a model that runs from a file cannot be saved; `ollama create` makes one of it");
  }
  Result<api::EmbedResponse> embed(const api::EmbedRequest& /*request*/) override {
    return fail(ErrorCode::kUnsupported,
                "embeddings need a model of the server; `ollama create` makes one of a file");
  }

 private:
  Result<> open() {
    if (file_) return {};
    OLLAMA_ASSIGN(auto file, gguf::File::open(path_));
    template_ = file.string("tokenizer.chat_template").value_or("");
    file_ = std::move(file);
    capabilities_ = store::capabilities_of(*file_);
    return {};
  }

  // A runner with these options; loading can take a while.
  Result<> prepare(const api::Options& options, const LoadProgress& progress = {}) {
    OLLAMA_TRY(open());
    const engine::LoadOptions wanted = load_options(options, config_, *file_);
    if (runner_ && wanted == loaded_) return {};
    runner_.reset();
    const std::uint64_t total = file_->file_size();
    OLLAMA_ASSIGN(runner_, runner::LocalRunner::load({path_.string(), wanted}, [&](float fraction) {
                    if (!progress) return;
                    progress(
                        static_cast<std::uint64_t>(static_cast<double>(total) * double{fraction}),
                        total);
                  }));
    loaded_ = wanted;
    return {};
  }

  Result<api::Metrics> answer(const api::InferenceRequest& request,
                              std::vector<api::Message> messages, const std::stop_token& stop,
                              const std::function<bool(runner::Piece&&)>& told) {
    const Clock::time_point begin = Clock::now();
    OLLAMA_ASSIGN(const api::Options options, api::parse_options(request.options));
    OLLAMA_TRY(open());
    if (request.think && request.think->enabled &&
        !std::ranges::contains(capabilities_, "thinking")) {
      return fail(ErrorCode::kInvalidArgument, "\"{}\" does not support thinking", request.model);
    }
    OLLAMA_TRY(prepare(options));
    const Clock::time_point ready = Clock::now();

    runner::Generate generate = make_generate(request, options);
    generate.messages = std::move(messages);
    OLLAMA_ASSIGN(
        const runner::Done done,
        runner_->generate(
            std::move(generate),
            [&](runner::Piece&& piece) { return !stop.stop_requested() && told(std::move(piece)); },
            [&] { return stop.stop_requested(); }));
    if (stop.stop_requested()) return fail(ErrorCode::kCancelled, "cancelled");
    api::Metrics metrics = runner::metrics_of(done);
    metrics.total_duration = Clock::now() - begin;
    metrics.load_duration = ready - begin;
    return metrics;
  }

  std::filesystem::path path_;
  const envconfig::Config& config_;
  std::optional<gguf::File> file_;
  std::string template_;
  std::vector<std::string> capabilities_;
  std::optional<runner::LocalRunner> runner_;
  engine::LoadOptions loaded_;
};

}  // namespace

std::unique_ptr<ModelHost> file_host(std::filesystem::path path, const envconfig::Config& config) {
  return std::make_unique<FileHost>(std::move(path), config);
}

}  // namespace ollama::cmd
