#include <print>

#include "api/types.h"
#include "base/units.h"
#include "cmd/checked.h"
#include "cmd/commands.h"
#include "cmd/in_process.h"
#include "cmd/json_array.h"
#include "cmd/model_path.h"
#include "engine/evaluate.h"

namespace ollama::cmd {
namespace {

using engine::Token;

Result<std::vector<Token>> parse_tokens(std::string_view text) {
  std::vector<Token> tokens;
  while (true) {
    const std::size_t comma = text.find(',');
    std::string_view word = text.substr(0, comma);
    while (word.starts_with(' ')) word.remove_prefix(1);
    while (word.ends_with(' ')) word.remove_suffix(1);
    const auto token = parse_number<Token>(word);
    if (!token || *token < 0) {
      return fail(ErrorCode::kInvalidArgument, "--tokens must be token ids: 1,2,3");
    }
    tokens.push_back(*token);
    if (comma == std::string_view::npos) return tokens;
    text.remove_prefix(comma + 1);
  }
}

Result<ml::BackendKind> parse_backend(const std::string& name) {
  if (name == "ggml") return ml::BackendKind::kGgml;
  if (name == "reference") return ml::BackendKind::kReference;
  return fail(ErrorCode::kInvalidArgument, "--backend must be ggml or reference");
}

api::JsonObject to_json(const std::vector<Token>& tokens, const engine::Evaluation& evaluation) {
  api::JsonObject object;
  object["tokens"] = array_of(tokens);
  if (!evaluation.embedding_normalized.empty()) {
    object["embedding_normalized"] = array_of(evaluation.embedding_normalized);
    return object;
  }
  object["n_vocab"] = evaluation.last_logits.size();
  boost::json::array rows;
  for (const auto& top5 : evaluation.top5) {
    boost::json::array row;
    for (const auto& [token, logit] : top5) row.push_back(boost::json::array{token, logit});
    rows.push_back(std::move(row));
  }
  object["top5"] = std::move(rows);
  object["last_logits"] = array_of(evaluation.last_logits);
  object["greedy"] = array_of(evaluation.greedy);
  return object;
}

void print_text(const std::vector<Token>& tokens, const engine::Evaluation& evaluation) {
  if (!evaluation.embedding_normalized.empty()) {
    for (const float value : evaluation.embedding_normalized) std::println("{}", value);
    return;
  }
  for (std::size_t i = 0; i < evaluation.top5.size() && i < tokens.size(); ++i) {
    std::print("{:>5} {:>7} ", i, tokens[i]);
    for (const auto& [token, logit] : evaluation.top5[i]) std::print("  {}: {:.4f}", token, logit);
    std::println("");
  }
  std::print("greedy:");
  for (const Token token : evaluation.greedy) std::print(" {}", token);
  std::println("");
}

Result<int> logits(const envconfig::Config& config, const Arguments& arguments) {
  if (arguments.text("model").empty() || arguments.text("tokens").empty()) {
    return fail(ErrorCode::kInvalidArgument, "--model and --tokens are needed");
  }
  engine::EvaluateOptions options;
  OLLAMA_ASSIGN(options.tokens, parse_tokens(arguments.text("tokens")));
  OLLAMA_ASSIGN(options.n_greedy, checked_number(arguments, "n-greedy", 0, 65536));
  OLLAMA_ASSIGN(options.chunk, checked_number(arguments, "chunk", 0, 65536));
  OLLAMA_ASSIGN(options.threads, checked_number(arguments, "threads", 0, 4096));
  OLLAMA_ASSIGN(options.kv_type, checked_kv_type(arguments, "kv-type"));
  OLLAMA_ASSIGN(options.flash_attention, checked_flash_attention(arguments, "fa"));
  OLLAMA_ASSIGN(options.backend, parse_backend(arguments.text("backend")));
  options.kernels = ml::cpu_kernels_of(config.cpu_kernels);
  options.gpu_layers = static_cast<std::int32_t>(arguments.number("num-gpu"));
  options.spread = config.sched_spread;
  options.devices = ml::device_options_of(config);
  OLLAMA_ASSIGN(const auto path, resolve_model(arguments.text("model"), config));
  prepare_in_process(options.threads);

  OLLAMA_ASSIGN(const engine::Evaluation evaluation, engine::evaluate(path, options));
  if (arguments.boolean("json")) {
    std::println("{}", api::to_string(to_json(options.tokens, evaluation)));
  } else {
    print_text(options.tokens, evaluation);
  }
  return 0;
}

}  // namespace

Command debug_logits_command(const envconfig::Config& config) {
  return {.name = "logits",
          .usage = "--model MODEL --tokens IDS",
          .summary = "Print the logits of given tokens, and what follows them greedily",
          .flags = {{.name = "model",
                     .letter = 'm',
                     .kind = FlagKind::kString,
                     .help = "Name of a model, or a .gguf file"},
                    {.name = "tokens", .kind = FlagKind::kString, .help = "Token ids: 1,2,3"},
                    {.name = "n-greedy",
                     .kind = FlagKind::kInt,
                     .help = "Tokens to go on with",
                     .fallback = "24"},
                    {.name = "kv-type",
                     .kind = FlagKind::kString,
                     .help = "Type of the KV cache: f32, f16, bf16, q8_0, q4_0",
                     .fallback = "f32"},
                    {.name = "chunk",
                     .kind = FlagKind::kInt,
                     .help = "Tokens evaluated in one step; 0: all at once",
                     .fallback = "0"},
                    {.name = "backend",
                     .kind = FlagKind::kString,
                     .help = "ggml, or reference (slow and obvious)",
                     .fallback = "ggml"},
                    {.name = "fa",
                     .kind = FlagKind::kString,
                     .help = "Flash attention: on, off, auto",
                     .fallback = "auto"},
                    {.name = "num-gpu",
                     .letter = 'g',
                     .kind = FlagKind::kInt,
                     .help = "Layers on GPUs; -1: as many as fit",
                     .fallback = "0"},
                    {.name = "threads",
                     .letter = 't',
                     .kind = FlagKind::kInt,
                     .help = "Threads; 0 chooses",
                     .fallback = "0"},
                    {.name = "json", .help = "Print a JSON object"}},
          .environment = {"OLLAMA_MODELS"},
          .run = [&config](const Arguments& arguments) { return logits(config, arguments); }};
}

}  // namespace ollama::cmd
