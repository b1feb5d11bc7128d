#include "cmd/bench.h"

#include <print>

#include "cmd/checked.h"
#include "cmd/commands.h"
#include "cmd/in_process.h"
#include "cmd/model_path.h"
#include "cmd/progress.h"
#include "cmd/table.h"

namespace ollama::cmd {
namespace {

constexpr std::int64_t kMaxTokens = 1 << 20;

Result<BenchOptions> parse_options(const Arguments& arguments, const envconfig::Config& config) {
  BenchOptions options;
  options.model = arguments.text("model");
  if (options.model.empty()) {
    return fail(ErrorCode::kInvalidArgument, "--model is needed: a model's name or a .gguf file");
  }
  const std::string& kernels = arguments.text("kernels");
  if (kernels != "ggml") {
    return fail(ErrorCode::kUnsupported, "--kernels {}: there are only ggml's", kernels);
  }
  OLLAMA_ASSIGN(options.n_prompt, checked_number(arguments, "n-prompt", 0, kMaxTokens));
  OLLAMA_ASSIGN(options.n_gen, checked_number(arguments, "n-gen", 0, kMaxTokens));
  OLLAMA_ASSIGN(options.depth, checked_number(arguments, "depth", 0, kMaxTokens));
  OLLAMA_ASSIGN(options.parallel, checked_number(arguments, "parallel", 1, 64));
  OLLAMA_ASSIGN(options.repetitions, checked_number(arguments, "repetitions", 1, 1000));
  OLLAMA_ASSIGN(options.seed, checked_number(arguments, "seed", 0, 0xFFFFFFFF));
  OLLAMA_ASSIGN(options.load.threads, checked_number(arguments, "threads", 0, 4096));
  OLLAMA_ASSIGN(options.load.batch, checked_number(arguments, "batch", 1, 65536));
  OLLAMA_ASSIGN(options.load.kv_type, checked_kv_type(arguments, "kv-type"));
  OLLAMA_ASSIGN(options.load.flash_attention, checked_flash_attention(arguments, "fa"));
  OLLAMA_ASSIGN(options.path, resolve_model(options.model, config));
  return options;
}

std::string rate(const std::optional<Rates>& rates) {
  if (!rates) return "-";
  return std::format("{:.2f} ({:.2f} to {:.2f})", rates->median, rates->min, rates->max);
}

Result<int> bench(const envconfig::Config& config, const Arguments& arguments) {
  OLLAMA_ASSIGN(const BenchOptions options, parse_options(arguments, config));
  prepare_in_process(options.load.threads);

  Progress spinner(Progress::Style::kQuiet);
  const auto result = run_bench(options, [&](std::string_view text) { spinner.status(text); });
  spinner.stop_and_clear();
  if (!result) return fail(result);
  if (arguments.boolean("json")) {
    std::println("{}", api::to_string(
                           api::Json(boost::json::array{api::Json(bench_json(options, *result))})));
    return 0;
  }
  std::print("{}",
             format_table({"MODEL", "TYPE", "KERNELS", "THREADS", "DEPTH", "PARALLEL",
                           std::format("PP{} TOKENS/S", options.n_prompt),
                           std::format("TG{} TOKENS/S", options.n_gen)},
                          {{options.model, result->type, "ggml", std::to_string(result->threads),
                            std::to_string(options.depth), std::to_string(options.parallel),
                            rate(result->prompt), rate(result->generation)}},
                          {.max_cell = 60}));
  return 0;
}

}  // namespace

Command bench_command(const envconfig::Config& config) {
  const auto number = [](std::string name, char letter, std::string fallback, std::string help) {
    return Flag{.name = std::move(name),
                .letter = letter,
                .kind = FlagKind::kInt,
                .help = std::move(help),
                .fallback = std::move(fallback)};
  };
  return {.name = "bench",
          .usage = "--model MODEL",
          .summary = "Measure how fast a model reads and writes, without a server",
          .flags = {{.name = "model",
                     .letter = 'm',
                     .kind = FlagKind::kString,
                     .help = "Name of a model, or a .gguf file"},
                    number("n-prompt", 'p', "512", "Tokens of each prompt; 0 skips prompts"),
                    number("n-gen", 'n', "64", "Tokens to generate; 0 skips generation"),
                    number("depth", 'd', "0", "Tokens in the cache before"),
                    number("parallel", 0, "1", "Streams at once"),
                    number("repetitions", 'r', "5", "Repetitions, after a warm-up"),
                    number("threads", 't', "0", "Threads; 0 chooses what serves each kind of work"),
                    number("batch", 'b', "512", "Tokens evaluated in one step, at most"),
                    {.name = "kv-type",
                     .kind = FlagKind::kString,
                     .help = "Type of the KV cache: f16, q8_0, q4_0, f32, bf16",
                     .fallback = "f16"},
                    {.name = "fa",
                     .kind = FlagKind::kString,
                     .help = "Flash attention: on, off, auto",
                     .fallback = "auto"},
                    {.name = "kernels",
                     .kind = FlagKind::kString,
                     .help = "Matrix kernels to measure",
                     .fallback = "ggml"},
                    number("seed", 0, "1", "Seed of the random prompts"),
                    {.name = "json", .help = "Print a JSON array"}},
          .environment = {"OLLAMA_MODELS"},
          .run = [&config](const Arguments& arguments) { return bench(config, arguments); }};
}

}  // namespace ollama::cmd
