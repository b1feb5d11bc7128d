// `ollama debug tensors` and `ollama debug stats`: what a model computes for a prompt, and what
// that costs.
#include <print>
#include <regex>

#include "api/types.h"
#include "cmd/checked.h"
#include "cmd/commands.h"
#include "cmd/in_process.h"
#include "cmd/json_array.h"
#include "cmd/model_path.h"
#include "cmd/table.h"
#include "engine/evaluate.h"
#include "gguf/file.h"
#include "ml/summary.h"

namespace ollama::cmd {
namespace {

const Flag kModel{.name = "model",
                  .letter = 'm',
                  .kind = FlagKind::kString,
                  .help = "Name of a model, or a .gguf file"};
const Flag kPrompt{.name = "prompt",
                   .letter = 'p',
                   .kind = FlagKind::kString,
                   .help = "The text to evaluate",
                   .fallback = "Once upon a time"};
const Flag kThreads{.name = "threads",
                    .letter = 't',
                    .kind = FlagKind::kInt,
                    .help = "Threads; 0 chooses",
                    .fallback = "0"};
const Flag kJson{.name = "json", .help = "Print JSON"};

struct Subject {
  std::filesystem::path path;
  engine::EvaluateOptions options;  // of the prompt's tokens
};

Result<Subject> read_subject(const envconfig::Config& config, const Arguments& arguments) {
  if (arguments.text("model").empty()) {
    return fail(ErrorCode::kInvalidArgument, "--model is needed: a model's name or a .gguf file");
  }
  Subject subject;
  OLLAMA_ASSIGN(subject.path, resolve_model(arguments.text("model"), config));
  OLLAMA_ASSIGN(const gguf::File file, gguf::File::open(subject.path));
  OLLAMA_ASSIGN(const auto tokenizer, tokenizer::load(file));
  subject.options.tokens =
      tokenizer->encode(arguments.text("prompt"), {.add_special = true, .parse_special = true});
  OLLAMA_ASSIGN(subject.options.threads, checked_number(arguments, "threads", 0, 4096));
  subject.options.kv_type = ml::DType::kF16;  // as it runs
  subject.options.kernels = ml::cpu_kernels_of(config.cpu_kernels);
  subject.options.validation = nn::validation_of(config.validation);
  return subject;
}

std::string shape_text(const ml::Shape& shape) {
  std::string text = std::format("{}", shape[0]);
  std::size_t used = 4;
  while (used > 1 && shape[used - 1] == 1) --used;
  for (std::size_t i = 1; i < used; ++i) text += std::format(" x {}", shape[i]);
  return text;
}

std::string edge_text(const ml::TensorSummary& summary) {
  std::string text;
  for (const float value : summary.first) text += std::format("{:.4g} ", value);
  if (!summary.last.empty()) text += "...";
  for (const float value : summary.last) text += std::format(" {:.4g}", value);
  return text;
}

api::JsonObject to_json(const ml::TensorSummary& s) {
  return {{"name", s.name},
          {"type", ml::dtype_name(s.dtype)},
          {"shape", array_of(s.shape)},
          {"min", s.min},
          {"max", s.max},
          {"mean", s.mean},
          {"not_finite", s.not_finite},
          {"first", array_of(s.first)},
          {"last", array_of(s.last)}};
}

Result<int> tensors(const envconfig::Config& config, const Arguments& arguments) {
  std::regex filter;
  try {
    filter = std::regex(arguments.text("filter"), std::regex::ECMAScript | std::regex::icase);
  } catch (const std::regex_error&) {
    return fail(ErrorCode::kInvalidArgument, "--filter: '{}' is no regular expression",
                arguments.text("filter"));
  }
  OLLAMA_ASSIGN(Subject subject, read_subject(config, arguments));
  OLLAMA_ASSIGN(const std::uint32_t edge, checked_number(arguments, "edge", 0, 64));
  prepare_in_process(subject.options.threads);
  std::vector<ml::TensorSummary> seen;
  subject.options.n_greedy = 0;
  subject.options.observer = [&](const ml::Observed& tensor) {
    if (!std::regex_search(tensor.name.begin(), tensor.name.end(), filter)) return;
    seen.push_back(ml::summarize(tensor, edge));
  };
  OLLAMA_TRY(engine::evaluate(subject.path, subject.options));
  if (arguments.boolean("json")) {
    boost::json::array list;
    for (const auto& summary : seen) list.push_back(to_json(summary));
    std::println("{}", api::to_string(list));
    return 0;
  }
  std::vector<Row> rows;
  for (const auto& s : seen) {
    rows.push_back({s.name, std::string(ml::dtype_name(s.dtype)), shape_text(s.shape),
                    std::format("{:.4g}", s.min), std::format("{:.4g}", s.max),
                    std::format("{:.4g}", s.mean),
                    s.not_finite > 0 ? std::format("{} not finite: {}", s.not_finite, edge_text(s))
                                     : edge_text(s)});
  }
  std::print("{}", format_table({"NAME", "TYPE", "SHAPE", "MIN", "MAX", "MEAN", "VALUES"}, rows,
                                {.max_cell = 1000}));
  return 0;
}

api::JsonObject to_json(const engine::Counters& c) {
  boost::json::array tiers;
  for (const auto& tier : c.pool.tiers) {
    tiers.push_back({{"buffer_bytes", tier.buffer_bytes},
                     {"hits", tier.hits},
                     {"misses", tier.misses},
                     {"bytes_in_use", tier.bytes_in_use},
                     {"bytes_cached", tier.bytes_cached}});
  }
  return {{"steps", c.steps},
          {"graph_builds", c.graph_builds},
          {"attention_probes", c.attention_probes},
          {"uploads", c.backend.uploads},
          {"downloads", c.backend.downloads},
          {"computes", c.backend.computes},
          {"prepares", c.backend.prepares},
          {"pool",
           {{"tiers", std::move(tiers)},
            {"pass_throughs", c.pool.pass_throughs},
            {"pass_through_bytes_in_use", c.pool.pass_through_bytes_in_use},
            {"bytes_trimmed", c.pool.bytes_trimmed}}}};
}

Result<int> stats(const envconfig::Config& config, const Arguments& arguments) {
  OLLAMA_ASSIGN(Subject subject, read_subject(config, arguments));
  OLLAMA_ASSIGN(subject.options.n_greedy, checked_number(arguments, "n-gen", 0, 65536));
  prepare_in_process(subject.options.threads);
  OLLAMA_ASSIGN(const engine::Evaluation evaluation,
                engine::evaluate(subject.path, subject.options));
  const engine::Counters& c = evaluation.counters;
  if (arguments.boolean("json")) {
    std::println("{}", api::to_string(to_json(c)));
    return 0;
  }
  std::println("{} tokens of prompt in one step, then one a step", subject.options.tokens.size());
  std::print("{}", format_table({}, {{"steps", std::to_string(c.steps)},
                                     {"graphs built", std::to_string(c.graph_builds)},
                                     {"submissions of inputs", std::to_string(c.backend.uploads)},
                                     {"submissions of graphs", std::to_string(c.backend.computes)},
                                     {"results fetched", std::to_string(c.backend.downloads)},
                                     {"attention probes", std::to_string(c.attention_probes)}}));
  std::vector<Row> rows;
  for (const auto& tier : c.pool.tiers) {
    rows.push_back({std::format("{} KiB", tier.buffer_bytes >> 10), std::to_string(tier.hits),
                    std::to_string(tier.misses), std::to_string(tier.bytes_in_use >> 10),
                    std::to_string(tier.bytes_cached >> 10)});
  }
  rows.push_back({"larger", "", std::to_string(c.pool.pass_throughs),
                  std::to_string(c.pool.pass_through_bytes_in_use >> 10), ""});
  std::println("");
  std::print("{}", format_table({"POOL", "HITS", "MISSES", "KIB IN USE", "KIB CACHED"}, rows));
  return 0;
}

}  // namespace

Command debug_tensors_command(const envconfig::Config& config) {
  return {.name = "tensors",
          .usage = "--model MODEL --prompt TEXT",
          .summary = "Print the intermediate results of a prompt",
          .flags = {kModel,
                    kPrompt,
                    {.name = "filter",
                     .kind = FlagKind::kString,
                     .help = "Only names that this regular expression finds: attn_norm|logits"},
                    {.name = "edge",
                     .kind = FlagKind::kInt,
                     .help = "Values shown at either end",
                     .fallback = "3"},
                    kThreads,
                    kJson},
          .environment = {"OLLAMA_MODELS"},
          .run = [&config](const Arguments& arguments) { return tensors(config, arguments); }};
}

Command debug_stats_command(const envconfig::Config& config) {
  return {
      .name = "stats",
      .usage = "--model MODEL",
      .summary = "Print what evaluating a prompt and an answer costs: graphs, submissions, buffers",
      .flags = {kModel,
                kPrompt,
                {.name = "n-gen",
                 .letter = 'n',
                 .kind = FlagKind::kInt,
                 .help = "Tokens to go on with",
                 .fallback = "64"},
                kThreads,
                kJson},
      .environment = {"OLLAMA_MODELS", "OLLAMA_VALIDATION"},
      .run = [&config](const Arguments& arguments) { return stats(config, arguments); }};
}

}  // namespace ollama::cmd
