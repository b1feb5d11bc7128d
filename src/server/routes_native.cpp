// Ollama's own API: /api/...
#include <boost/json/serialize.hpp>
#include <cmath>

#include "base/log.h"
#include "engine/pooling.h"
#include "server/services.h"
#include "store/digest.h"
#include "store/name.h"

namespace ollama::server {

namespace {

using Clock = std::chrono::steady_clock;
using api::Duration;

// Go's time.Since.
Duration since(Clock::time_point start) { return Clock::now() - start; }

std::string_view reason_name(engine::DoneReason reason) {
  return reason == engine::DoneReason::kLength ? "length" : "stop";
}

api::Metrics metrics_of(const engine::Stats& stats, Clock::time_point start,
                        Clock::time_point loaded) {
  api::Metrics metrics;
  metrics.total_duration = since(start);
  metrics.load_duration = loaded - start;
  metrics.prompt_eval_count = stats.prompt_tokens;
  metrics.prompt_eval_cached_count = stats.cached_tokens;
  metrics.prompt_eval_duration = Duration(stats.prompt_ns);
  metrics.eval_count = stats.generated_tokens;
  metrics.eval_duration = Duration(stats.generate_ns);
  return metrics;
}

std::string json_quoted(std::string_view text) {
  return boost::json::serialize(boost::json::string(text));
}

// A request's body as the type that `parse` makes.
template <typename T>
Result<T> parse_body(const Request& request, Result<T> (*parse)(const api::Json&)) {
  if (request.body.find_first_not_of(" \t\r\n") == std::string::npos) {
    return fail(ErrorCode::kInvalidArgument, "missing request body");
  }
  OLLAMA_ASSIGN(const api::Json json, api::parse_json(request.body));
  return parse(json);
}

class Native {
 public:
  explicit Native(Services& services) : services_(services) {}

  std::vector<Route> routes(const std::shared_ptr<Native>& self);

 private:
  // ---- General

  static Task<> root(Exchange& x) { co_await x.respond(200, kText, "Ollama is running"); }
  static Task<> version(Exchange& x) {
    co_await x.respond_json(
        200, api::to_json(api::VersionResponse{.version = std::string(api::kApiLevel)}));
  }
  static Task<> status(Exchange& x) {
    co_await x.respond_json(200, {{"cloud", {{"disabled", true}, {"source", "none"}}}});
  }
  static Task<> no_cloud(Exchange& x) {
    co_await x.respond_error(501,
                             "this server has no connection to Ollama's cloud: signing in, "
                             "remote models and web search are not available");
  }

  // ---- Models

  Task<> tags(Exchange& x) {
    auto list = co_await services_.blocking.run([this] { return services_.store.list(); });
    if (!list) {
      co_await x.respond_error(list.error());
    } else {
      co_await x.respond_json(200, api::to_json(*list));
    }
  }

  Task<> show(Exchange& x) {
    auto request = parse_body(x.request(), api::parse_show_request);
    if (request && request->model.empty()) {
      request = fail(ErrorCode::kInvalidArgument, "model is required");
    }
    if (!request) {
      co_await x.respond_error(request.error());
      co_return;
    }
    auto shown = co_await services_.blocking.run(
        [this, &request = *request] { return services_.store.show(request); });
    if (shown && request->plan) {
      auto plan = co_await plan_of(x, *request);
      if (!plan) {
        shown = fail(plan);
      } else {
        shown->plan = std::move(*plan);
      }
    }
    if (!shown) {
      co_await x.respond_error(shown.error());
    } else {
      co_await x.respond_json(200, api::to_json(*shown));
    }
  }

  // As long as it lives, one more.
  class Counted {
   public:
    explicit Counted(int& count) : count_(count) { ++count_; }
    ~Counted() { --count_; }
    Counted(const Counted&) = delete;
    Counted& operator=(const Counted&) = delete;

   private:
    int& count_;
  };

  // Where the model would be loaded with the request's options, beside what is loaded now. A
  // process of its own finds out: drivers are not this one's to load.
  Task<Result<api::MemoryPlan>> plan_of(Exchange& x, const api::ShowRequest& request) {
    auto model = services_.store.resolve(request.model);
    if (!model) co_return fail(model);
    const auto options = api::parse_options(request.options);
    if (!options) co_return fail(options);
    if (plans_ == kMostPlans) co_return fail(sched::kQueueFull);
    const Counted counted(plans_);
    auto runner = services_.runners.start();
    if (!runner) co_return fail(runner);
    sched::Model wanted = to_load(services_, *model, merged_options(*model, *options));
    std::erase_if(wanted.options.devices.rpc_servers,
                  [held = services_.scheduler.remote_in_use()](const std::string& server) {
                    return held.contains(server);
                  });
    using Answer = Result<api::MemoryPlan>;
    auto box = std::make_shared<Mailbox<Answer>>(services_.blocking.loop());
    x.on_disconnect([box] { box->push(fail(ErrorCode::kCancelled, "nobody waits for it")); });
    (*runner)->explain({.path = wanted.path, .options = wanted.options},
                       [box](Answer plan) { box->push(std::move(plan)); });
    boost::asio::steady_timer timer(services_.blocking.loop(), kLongestPlan);
    timer.async_wait([box](const boost::system::error_code& stopped) {
      if (!stopped) box->push(fail(ErrorCode::kTimeout, "the devices do not answer"));
    });
    co_return co_await box->pop();
  }

  Task<> copy(Exchange& x) {
    auto request = parse_body(x.request(), api::parse_copy_request);
    if (!request) {
      co_await x.respond_error(request.error());
      co_return;
    }
    for (const auto& [what, name] :
         {std::pair("source", &request->source), std::pair("destination", &request->destination)}) {
      if (!store::Name::parse(*name)) {
        co_await x.respond_error(400, std::format("{} {} is invalid", what, json_quoted(*name)));
        co_return;
      }
    }
    auto done = co_await services_.blocking.run([this, &request = *request] {
      return services_.store.copy(request.source, request.destination);
    });
    if (!done && done.error().code() == ErrorCode::kNotFound) {
      co_await x.respond_error(404,
                               std::format("model {} not found", json_quoted(request->source)));
    } else if (!done) {
      co_await x.respond_error(done.error());
    } else {
      co_await x.respond(200, {}, {});
    }
  }

  Task<> remove(Exchange& x) {
    auto request = parse_body(x.request(), api::parse_delete_request);
    if (!request) {
      co_await x.respond_error(request.error());
      co_return;
    }
    if (!store::Name::parse(request->model)) {
      co_await x.respond_error(400, std::format("name {} is invalid", json_quoted(request->model)));
      co_return;
    }
    auto done = co_await services_.blocking.run(
        [this, &request = *request] { return services_.store.remove(request.model); });
    if (!done && done.error().code() == ErrorCode::kNotFound) {
      co_await x.respond_error(404, std::format("model '{}' not found", request->model));
    } else if (!done) {
      co_await x.respond_error(done.error());
    } else {
      co_await x.respond(200, {}, {});
    }
  }

  Task<> create(Exchange& x) {
    auto request = parse_body(x.request(), api::parse_create_request);
    if (request && request->model.empty()) {
      request = fail(ErrorCode::kInvalidArgument, "model is required");
    }
    if (!request) {
      co_await x.respond_error(request.error());
      co_return;
    }
    using Event = std::variant<api::ProgressResponse, Result<>>;
    const auto& loop = services_.blocking.loop();
    auto box = std::make_shared<Mailbox<Event>>(loop);
    const auto cancelled = std::make_shared<std::atomic<bool>>(false);
    x.on_disconnect([cancelled] { *cancelled = true; });
    // Not awaited itself: its progress is, and its end is the last event.
    services_.making.start([this, request = *request, box, cancelled, loop] {
      auto result = services_.store.create(request, [&](const api::ProgressResponse& progress) {
        boost::asio::post(loop, [box, progress] { box->push(progress); });
        return !cancelled->load();
      });
      auto shared = std::make_shared<Result<>>(std::move(result));
      boost::asio::post(loop, [box, shared] { box->push(std::move(*shared)); });
    });
    const bool stream = request->streaming();
    while (true) {
      Event event = co_await box->pop();
      if (auto* progress = std::get_if<api::ProgressResponse>(&event)) {
        if (!stream) continue;
        if (!x.started()) co_await x.begin_stream(kNdjson);
        co_await x.write(api::to_string(api::to_json(*progress)) + "\n");
        continue;
      }
      co_await finish_progress(x, std::get<Result<>>(event), stream);
      co_return;
    }
  }
  // The last line of a progress, or the only one. The store has streamed its own "success".
  static Task<> finish_progress(Exchange& x, const Result<>& result, bool stream) {
    if (!result && !x.started()) {
      co_await x.respond_error(result.error());
      co_return;
    }
    api::JsonObject last;
    if (result) {
      last = api::to_json(
          api::ProgressResponse{.status = "success", .digest = {}, .total = 0, .completed = 0});
    } else {
      last = api::to_json(api::status_error(result.error()));
    }
    if (!stream) {
      co_await x.respond_json(200, last);
      co_return;
    }
    if (!x.started()) co_await x.begin_stream(kNdjson);
    if (!result) co_await x.write(api::to_string(last) + "\n");
    co_await x.end_stream();
  }

  // ---- Blobs

  Task<> head_blob(Exchange& x) {
    const std::string& digest = x.request().parameters.at("digest");
    auto found = services_.store.has_blob(digest);
    if (!found) {
      co_await x.respond_error(found.error());
    } else if (!*found) {
      co_await x.respond_error(404, std::format("blob {} not found", json_quoted(digest)));
    } else {
      co_await x.respond(200, {}, {});
    }
  }

  Task<> create_blob(Exchange& x) {
    const std::string text = x.request().parameters.at("digest");
    auto digest = store::Digest::parse(text);
    if (!digest) {
      co_await x.respond_error(digest.error());
      co_return;
    }
    if (auto found = services_.store.has_blob(text); found && *found) {
      co_await x.respond(200, {}, {});
      co_return;
    }
    if (const auto length = x.content_length()) {
      std::error_code ignored;
      std::filesystem::path folder = services_.store.directory();
      while (!folder.empty() && folder != "/" && !std::filesystem::exists(folder, ignored)) {
        folder = folder.parent_path();
      }
      const auto space = std::filesystem::space(folder, ignored);
      if (!ignored && space.available < *length) {
        co_await x.respond_error(
            507, std::format("the blob of {} bytes does not fit on the disk of {}, which has {} "
                             "bytes free",
                             *length, services_.store.directory().string(), space.available));
        co_return;
      }
    }
    auto writer = services_.store.begin_blob(*digest);
    if (!writer) {
      co_await x.respond_error(writer.error());
      co_return;
    }
    std::vector<char> buffer(1U << 20);
    while (true) {
      // As much as fits is hashed and written at once, off the loop.
      std::size_t filled = 0;
      while (filled < buffer.size()) {
        auto got = co_await x.read_body(std::span(buffer).subspan(filled));
        if (!got) {
          co_await x.respond_error(400, got.error().message());
          co_return;
        }
        if (*got == 0) break;
        filled += *got;
      }
      if (filled == 0) break;
      auto appended = co_await services_.blocking.run([&writer, &buffer, filled] {
        return writer->append(std::string_view(buffer.data(), filled));
      });
      if (!appended) {
        co_await x.respond_error(appended.error());
        co_return;
      }
    }
    auto committed = co_await services_.blocking.run([&writer] { return writer->commit(); });
    if (!committed) {
      co_await x.respond_error(committed.error());
    } else {
      co_await x.respond(201, {}, {});
    }
  }

  // ---- Running models

  Task<> ps(Exchange& x) {
    api::ProcessResponse response;
    for (const sched::Loaded& loaded : services_.scheduler.loaded()) {
      api::ProcessModel model;
      model.name = model.model = loaded.model.name;
      model.digest = loaded.model.digest;
      model.details = loaded.model.details;
      model.size = loaded.info.weight_bytes + loaded.info.cache_bytes + loaded.info.graph_bytes;
      model.size_vram = loaded.info.device_bytes;
      // With every layer on GPUs the CPU only looks up rows of tables, in the mapped file.
      if (loaded.info.gpu_layers == loaded.info.layers + 1) model.size = model.size_vram;
      model.context_length = loaded.info.context;
      // Far enough for "forever", which Ollama shows from about a century on.
      const Duration left = loaded.expires_in.value_or(std::chrono::years(200));
      model.expires_at = api::now() + left;
      if (loaded.loading) {
        // All that is known yet.
        std::error_code ignored;
        const auto size = std::filesystem::file_size(loaded.model.path, ignored);
        if (!ignored) model.size = size;
        model.loading = std::min(static_cast<double>(loaded.progress), 0.999);
      }
      response.models.push_back(std::move(model));
    }
    co_await x.respond_json(200, api::to_json(response));
  }

  // The model that a request names. Without one: the answer that was given.
  Task<std::optional<store::Model>> find_model(Exchange& x, const std::string& name,
                                               api::StatusError when_missing,
                                               std::string_view not_found) {
    if (name.empty()) {
      co_await x.respond_error(when_missing.status, when_missing.message);
      co_return std::nullopt;
    }
    auto model = services_.store.resolve(name);
    if (!model && model.error().code() == ErrorCode::kNotFound) {
      co_await x.respond_error(404, not_found);
      co_return std::nullopt;
    }
    if (!model) {
      co_await x.respond_error(model.error());
      co_return std::nullopt;
    }
    if (!model->config.remote_host.empty()) {
      co_await x.respond_error(501, std::format("model '{}' runs in Ollama's cloud, which this "
                                                "server has no connection to",
                                                name));
      co_return std::nullopt;
    }
    co_return std::move(*model);
  }

  // What is not understood is refused: an answer without it would be wrong in silence.
  static std::optional<api::StatusError> unsupported(const api::InferenceRequest& request) {
    if (!request.format.is_null() &&
        !(request.format.is_string() && request.format.get_string().empty())) {
      return api::StatusError{501,
                              "format is not available yet: leave it out, and describe the "
                              "wanted form in the prompt"};
    }
    if (request.logprobs) return api::StatusError{501, "logprobs are not available yet"};
    return std::nullopt;
  }

  // What a request asks of its model beyond text.
  struct Wants {
    bool tools = false;
    bool insert = false;
    bool thinking = false;
  };
  // The first of them that the model has not.
  Task<std::optional<api::StatusError>> lacking(const store::Model& model, std::string_view name,
                                                Wants wants) {
    if (!wants.tools && !wants.insert && !wants.thinking) co_return std::nullopt;
    const auto has =
        co_await services_.blocking.run([&] { return services_.store.capabilities(model); });
    if (!has) co_return api::status_error(has.error());
    const auto lacks = [&](bool wanted, std::string_view what) {
      return wanted && !std::ranges::contains(*has, what);
    };
    const auto without = [](std::string_view who, std::string_view what) {
      return api::StatusError{400, std::format("{} does not support {}", who, what)};
    };
    if (lacks(wants.tools, "tools")) co_return without(model.name.full(), "tools");
    if (lacks(wants.insert, "insert")) co_return without(model.name.full(), "insert");
    if (lacks(wants.thinking, "thinking")) co_return without(json_quoted(name), "thinking");
    co_return std::nullopt;
  }
  static bool wants_thinking(const api::InferenceRequest& request) {
    return request.think && request.think->enabled;
  }
  // The model with the request's template, whose capabilities are its own.
  static store::Model with_template(store::Model model, const api::InferenceRequest& request) {
    if (!request.template_text.empty()) model.template_text = request.template_text;
    return model;
  }

  // A lease on the model, or nothing when the request has been answered already or nobody waits.
  Task<std::optional<sched::Lease>> lease(Exchange& x, const store::Model& model,
                                          const api::Options& options,
                                          std::optional<Duration> keep_alive) {
    auto outcome = co_await acquire(
        services_, x,
        {.model = to_load(services_, model, options), .keep_alive = keep_alive, .progress = {}});
    if (auto* granted = std::get_if<sched::Lease>(&outcome)) co_return std::move(*granted);
    if (const auto* error = std::get_if<Error>(&outcome)) {
      // Its queue and shutdown are 503; a runner that died while loading is the server's trouble.
      const bool busy = error->message() == sched::kQueueFull.message ||
                        error->message() == sched::kShuttingDown.message;
      const api::StatusError status = busy ? api::status_error(*error) : answer_error(*error);
      co_await x.respond_error(status.status == 404 ? 500 : status.status, status.message);
    }
    co_return std::nullopt;
  }

  // As `lease`, for a model that is to answer with text; `purpose` is what an embedding model
  // cannot do.
  Task<std::optional<sched::Lease>> lease_for(Exchange& x, const api::InferenceRequest& request,
                                              const store::Model& model,
                                              const api::Options& options,
                                              std::string_view purpose) {
    auto granted = co_await lease(x, model, options, request.keep_alive);
    if (granted && granted->info().is_embedding) {
      co_await x.respond_error(
          400, std::format("{} does not support {}", json_quoted(request.model), purpose));
      co_return std::nullopt;
    }
    co_return granted;
  }

  // All but the messages or the prompt.
  static runner::Generate to_generate(const api::InferenceRequest& request,
                                      const store::Model& model, const api::Options& options) {
    runner::Generate generate;
    apply_options(options, generate);
    generate.shift = request.shift.value_or(true);
    generate.truncate = request.truncate.value_or(true);
    generate.template_text =
        request.template_text.empty() ? model.template_text : request.template_text;
    generate.think = request.think;
    return generate;
  }

  // Streams or collects an answer. `line` makes a response's JSON of a piece, `last` of the end,
  // with all of the text when it was collected.
  Task<> answer(Exchange& x, const sched::Lease& lease, runner::Generate generate, bool stream,
                std::function<api::JsonObject(std::string text)> line,
                std::function<api::JsonObject(runner::Done& done, std::string text)> last) {
    Answer events(x, lease, std::move(generate), services_.blocking.loop());
    std::string text;
    while (true) {
      Answer::Event event = co_await events.next();
      if (std::holds_alternative<Gone>(event)) co_return;
      if (auto* piece = std::get_if<runner::Piece>(&event)) {
        if (!stream) {
          text += piece->text;
          continue;
        }
        text += api::to_string(line(std::move(piece->text)));
        text += '\n';
        // Lines that wait already go out together.
        if (events.ready() && text.size() < (64U << 10)) continue;
        if (!x.started()) co_await x.begin_stream(kNdjson);
        if (!co_await x.write(std::exchange(text, {}))) co_return;
        continue;
      }
      if (const auto* error = std::get_if<Error>(&event)) {
        const api::StatusError status = answer_error(*error);
        if (!stream || (!x.started() && text.empty())) {
          co_await x.respond_error(status.status, status.message);
          co_return;
        }
        text += api::to_string(api::to_json(status)) + '\n';
      } else {
        auto& done = std::get<runner::Done>(event);
        if (!stream) {
          co_await x.respond_json(200, last(done, std::move(text)));
          co_return;
        }
        text += api::to_string(last(done, {})) + '\n';
      }
      if (!x.started()) co_await x.begin_stream(kNdjson);
      co_await x.write(text);
      co_await x.end_stream();
      co_return;
    }
  }

  // The prompt as it would be, instead of an answer.
  Task<> respond_rendered(Exchange& x, const sched::Lease& lease, runner::Generate generate,
                          std::string_view model) {
    auto box = std::make_shared<Mailbox<Result<std::string>>>(services_.blocking.loop());
    lease.runner().render(std::move(generate),
                          [box](Result<std::string> text) { box->push(std::move(text)); });
    auto text = co_await box->pop();
    if (!text) {
      const api::StatusError status = answer_error(text.error());
      co_await x.respond_error(status.status, status.message);
      co_return;
    }
    api::GenerateResponse response;
    response.model = model;
    response.created_at = api::now();
    response.debug_info = api::DebugInfo{.rendered_template = std::move(*text), .image_count = 0};
    co_await x.respond_json(200, api::to_json(response));
  }

  Task<> generate(Exchange& x) {
    const auto start = Clock::now();
    auto parsed = parse_body(x.request(), api::parse_generate_request);
    if (!parsed) {
      co_await x.respond_error(parsed.error());
      co_return;
    }
    const api::GenerateRequest request = std::move(*parsed);
    const std::string not_found = std::format("model '{}' not found", request.model);
    const auto model = co_await find_model(x, request.model, {404, not_found}, not_found);
    if (!model) co_return;

    api::GenerateResponse response;
    response.model = request.model;
    response.done = true;
    response.created_at = api::now();
    const api::Options options = merged_options(*model, request.parsed_options);
    if (request.prompt.empty() && request.keep_alive == Duration::zero()) {
      services_.scheduler.unload(to_load(services_, *model, options).key);
      response.done_reason = "unload";
      co_await x.respond_json(200, api::to_json(response));
      co_return;
    }
    if (request.raw &&
        (!request.template_text.empty() || !request.system.empty() || !request.context.empty())) {
      co_await x.respond_error(400, "raw mode does not support template, system, or context");
      co_return;
    }
    auto problem = unsupported(request);
    if (!problem) {
      problem = co_await lacking(
          with_template(*model, request), request.model,
          {.insert = !request.suffix.empty() && !request.raw, .thinking = wants_thinking(request)});
    }
    if (!request.images.empty()) {
      problem = {400, std::format("{} does not support images", json_quoted(request.model))};
    }
    if (problem) {
      co_await x.respond_error(problem->status, problem->message);
      co_return;
    }
    const auto granted = co_await lease_for(x, request, *model, options, "generate");
    if (!granted) co_return;
    const auto loaded = Clock::now();
    if (request.prompt.empty()) {
      response.created_at = api::now();
      response.done_reason = "load";
      co_await x.respond_json(200, api::to_json(response));
      co_return;
    }

    runner::Generate generate = to_generate(request, *model, options);
    generate.raw = request.raw;
    generate.want_context = !request.raw;
    if (request.raw) {
      generate.prompt = request.prompt;
    } else if (!request.suffix.empty()) {
      generate.prompt = request.prompt;
      generate.suffix = request.suffix;
      generate.context = request.context;
    } else {
      generate.context = request.context;
      const std::string& system = request.system.empty() ? model->system : request.system;
      if (!system.empty()) generate.messages.push_back(message_of("system", system));
      if (request.context.empty()) {
        generate.messages.insert(generate.messages.end(), model->messages.begin(),
                                 model->messages.end());
      }
      generate.messages.push_back(message_of("user", request.prompt));
    }
    if (request.debug_render_only) {
      co_await respond_rendered(x, *granted, std::move(generate), request.model);
      co_return;
    }
    co_await answer(
        x, *granted, std::move(generate), request.streaming(),
        [&](std::string text) {
          api::GenerateResponse piece;
          piece.model = request.model;
          piece.created_at = api::now();
          piece.response = std::move(text);
          return api::to_json(piece);
        },
        [&](runner::Done& done, std::string text) {
          response.created_at = api::now();
          response.response = std::move(text);
          response.done_reason = reason_name(done.reason);
          response.context = std::move(done.context);
          response.metrics = metrics_of(done.stats, start, loaded);
          return api::to_json(response);
        });
  }

  static api::Message message_of(std::string_view role, std::string_view content) {
    api::Message message;
    message.role = role;
    message.content = content;
    return message;
  }

  Task<> chat(Exchange& x) {
    const auto start = Clock::now();
    auto parsed = parse_body(x.request(), api::parse_chat_request);
    if (!parsed) {
      co_await x.respond_error(parsed.error());
      co_return;
    }
    const api::ChatRequest request = std::move(*parsed);
    const auto model = co_await find_model(x, request.model, {400, "model is required"},
                                           std::format("model '{}' not found", request.model));
    if (!model) co_return;

    api::ChatResponse response;
    response.model = request.model;
    response.message.role = "assistant";
    response.done = true;
    response.created_at = api::now();
    const api::Options options = merged_options(*model, request.parsed_options);
    if (request.messages.empty() && request.keep_alive == Duration::zero()) {
      services_.scheduler.unload(to_load(services_, *model, options).key);
      response.done_reason = "unload";
      co_await x.respond_json(200, api::to_json(response));
      co_return;
    }
    auto problem = unsupported(request);
    const bool has_tools = request.tools.is_array() && !request.tools.get_array().empty();
    if (!problem) {
      problem = co_await lacking(with_template(*model, request), request.model,
                                 {.tools = has_tools, .thinking = wants_thinking(request)});
    }
    if (std::ranges::any_of(request.messages, [](const auto& m) { return !m.images.empty(); })) {
      problem = {400, std::format("{} does not support images", json_quoted(request.model))};
    }
    if (problem) {
      co_await x.respond_error(problem->status, problem->message);
      co_return;
    }
    const auto granted = co_await lease_for(x, request, *model, options, "chat");
    if (!granted) co_return;
    const auto loaded = Clock::now();
    if (request.messages.empty()) {
      response.created_at = api::now();
      response.done_reason = "load";
      co_await x.respond_json(200, api::to_json(response));
      co_return;
    }

    runner::Generate generate = to_generate(request, *model, options);
    if (has_tools) generate.tools = request.tools;
    if (request.messages.front().role != "system" && !model->system.empty()) {
      generate.messages.push_back(message_of("system", model->system));
    }
    for (const auto* messages : {&model->messages, &request.messages}) {
      generate.messages.insert(generate.messages.end(), messages->begin(), messages->end());
    }
    if (request.debug_render_only) {
      co_await respond_rendered(x, *granted, std::move(generate), request.model);
      co_return;
    }
    co_await answer(
        x, *granted, std::move(generate), request.streaming(),
        [&](std::string text) {
          api::ChatResponse piece;
          piece.model = request.model;
          piece.created_at = api::now();
          piece.message.role = "assistant";
          piece.message.content = std::move(text);
          return api::to_json(piece);
        },
        [&](runner::Done& done, std::string text) {
          response.created_at = api::now();
          response.message.content = std::move(text);
          response.done_reason = reason_name(done.reason);
          response.metrics = metrics_of(done.stats, start, loaded);
          return api::to_json(response);
        });
  }

  // ---- Embeddings

  using EmbedEvent = std::variant<std::pair<std::size_t, Result<runner::Embedded>>, Gone>;

  // All texts at once: the engine puts them into common batches. Gone: nobody waits any more.
  Task<std::variant<std::vector<runner::Embedded>, Error, Gone>> embed_all(
      Exchange& x, const sched::Lease& lease, const std::vector<std::string>& texts,
      bool truncate) {
    auto box = std::make_shared<Mailbox<EmbedEvent>>(services_.blocking.loop());
    x.on_disconnect([box] { box->push(Gone{}); });
    std::vector<runner::Embedded> results(texts.size());
    for (std::size_t i = 0; i < texts.size(); ++i) {
      lease.runner().embed({.id = 0, .text = texts[i], .truncate = truncate},
                           [box, i](Result<runner::Embedded> result) {
                             box->push(std::pair(i, std::move(result)));
                           });
    }
    for (std::size_t left = texts.size(); left > 0; --left) {
      EmbedEvent event = co_await box->pop();
      if (std::holds_alternative<Gone>(event)) co_return Gone{};
      auto& [index, result] = std::get<0>(event);
      if (!result) co_return result.error();
      results[index] = std::move(*result);
    }
    co_return results;
  }

  Task<> embed(Exchange& x) {
    const auto start = Clock::now();
    auto parsed = parse_body(x.request(), api::parse_embed_request);
    if (!parsed) {
      co_await x.respond_error(parsed.error());
      co_return;
    }
    const api::EmbedRequest request = std::move(*parsed);
    const auto model = co_await find_model(
        x, request.model, {404, "model '' not found"},
        std::format("model {} not found, try pulling it first", json_quoted(request.model)));
    if (!model) co_return;
    const api::Options options = merged_options(*model, request.parsed_options);
    const auto granted = co_await lease(x, *model, options, request.keep_alive);
    if (!granted) co_return;
    const auto loaded = Clock::now();
    std::vector<std::string> input = request.input;
    if (request.single_input && input.size() == 1 && input[0].empty()) input.clear();
    auto outcome = co_await embed_all(x, *granted, input, request.truncate.value_or(true));
    if (std::holds_alternative<Gone>(outcome)) co_return;
    if (const auto* error = std::get_if<Error>(&outcome)) {
      const api::StatusError status = answer_error(*error);
      co_await x.respond_error(status.status, status.message);
      co_return;
    }
    api::EmbedResponse response;
    response.model = request.model;
    for (runner::Embedded& embedded : std::get<0>(outcome)) {
      if (!std::ranges::all_of(embedded.values, [](float v) { return std::isfinite(v); })) {
        co_await x.respond_error(500, "embedding contains NaN or Inf values");
        co_return;
      }
      if (request.dimensions > 0 && std::cmp_less(request.dimensions, embedded.values.size())) {
        embedded.values.resize(static_cast<std::size_t>(request.dimensions));
      }
      engine::normalize(embedded.values);
      response.prompt_eval_count += embedded.tokens;
      response.embeddings.push_back(std::move(embedded.values));
    }
    response.load_duration = loaded - start;
    response.total_duration = since(start);
    co_await x.respond_json(200, api::to_json(response));
  }

  Task<> embeddings(Exchange& x) {
    auto parsed = parse_body(x.request(), api::parse_embeddings_request);
    if (!parsed) {
      co_await x.respond_error(parsed.error());
      co_return;
    }
    const api::EmbeddingsRequest request = std::move(*parsed);
    const auto model = co_await find_model(
        x, request.model, {400, "model is required"},
        std::format("model {} not found, try pulling it first", json_quoted(request.model)));
    if (!model) co_return;
    const api::Options options = merged_options(*model, request.parsed_options);
    const auto granted = co_await lease(x, *model, options, request.keep_alive);
    if (!granted) co_return;
    std::vector<std::string> input;
    if (!request.prompt.empty()) input.push_back(request.prompt);
    auto outcome = co_await embed_all(x, *granted, input, true);
    if (std::holds_alternative<Gone>(outcome)) co_return;
    if (const auto* error = std::get_if<Error>(&outcome)) {
      const api::StatusError status = answer_error(*error);
      co_await x.respond_error(status.status, status.message);
      co_return;
    }
    api::EmbeddingsResponse response;
    for (const runner::Embedded& embedded : std::get<0>(outcome)) {
      response.embedding.assign(embedded.values.begin(), embedded.values.end());
    }
    co_await x.respond_json(200, api::to_json(response));
  }

  static constexpr int kMostPlans = 4;  // processes that make one
  static constexpr std::chrono::seconds kLongestPlan{60};
  int plans_ = 0;
  Services& services_;
};

std::vector<Route> Native::routes(const std::shared_ptr<Native>& self) {
  const auto bind = [&self](Task<> (Native::*method)(Exchange&)) -> Handler {
    return [self, method](Exchange& x) { return (*self.*method)(x); };
  };
  std::vector<Route> routes;
  const auto add = [&](std::string_view method, std::string_view pattern, Handler handler,
                       Body body = Body::kWhole) {
    routes.push_back({.method = std::string(method),
                      .pattern = std::string(pattern),
                      .handler = std::move(handler),
                      .body = body});
  };
  for (const char* method : {"GET", "HEAD"}) {
    add(method, "/", root);
    add(method, "/api/version", version);
    add(method, "/api/tags", bind(&Native::tags));
  }
  add("GET", "/api/status", status);
  add("GET", "/api/ps", bind(&Native::ps));
  add("POST", "/api/show", bind(&Native::show));
  add("POST", "/api/generate", bind(&Native::generate));
  add("POST", "/api/chat", bind(&Native::chat));
  add("POST", "/api/embed", bind(&Native::embed));
  add("POST", "/api/embeddings", bind(&Native::embeddings));
  add("POST", "/api/create", bind(&Native::create));
  add("POST", "/api/copy", bind(&Native::copy));
  add("DELETE", "/api/delete", bind(&Native::remove));
  add("HEAD", "/api/blobs/:digest", bind(&Native::head_blob));
  add("POST", "/api/blobs/:digest", bind(&Native::create_blob), Body::kPieces);
  add("POST", "/api/me", no_cloud);
  add("POST", "/api/signout", no_cloud);
  add("DELETE", "/api/user/keys/:key", no_cloud);
  add("POST", "/api/experimental/web_search", no_cloud);
  add("POST", "/api/experimental/web_fetch", no_cloud);
  add("POST", "/api/web_search", no_cloud);
  add("POST", "/api/web_fetch", no_cloud);
  return routes;
}

}  // namespace

std::vector<Route> native_routes(Services& services) {
  const auto native = std::make_shared<Native>(services);
  return native->routes(native);
}

}  // namespace ollama::server
