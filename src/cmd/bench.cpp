#include "cmd/bench.h"

#include <algorithm>
#include <print>
#include <ranges>

#include "cmd/checked.h"
#include "cmd/commands.h"
#include "cmd/in_process.h"
#include "cmd/model_path.h"
#include "cmd/progress.h"
#include "cmd/table.h"

namespace ollama::cmd {
namespace {

constexpr std::int64_t kMaxTokens = 1 << 20;

// "native", "ggml" or both; empty: those that the environment chooses.
Result<std::vector<ml::CpuKernels>> parse_kernels(std::string_view text,
                                                  const envconfig::Config& config) {
  if (text.empty()) return std::vector{ml::cpu_kernels_of(config.cpu_kernels)};
  std::vector<ml::CpuKernels> kernels;
  for (const auto part : std::views::split(text, ',')) {
    const std::string_view name(part);
    const bool native = name == kernels_name(ml::CpuKernels::kNative);
    if (!native && name != kernels_name(ml::CpuKernels::kGgml)) {
      return fail(ErrorCode::kInvalidArgument, "--kernels must be native, ggml or native,ggml");
    }
    const auto kind = native ? ml::CpuKernels::kNative : ml::CpuKernels::kGgml;
    if (!std::ranges::contains(kernels, kind)) kernels.push_back(kind);
  }
  return kernels;
}

Result<BenchOptions> parse_options(const Arguments& arguments, const envconfig::Config& config) {
  BenchOptions options;
  options.load = engine::load_options_of(config);
  options.model = arguments.text("model");
  if (options.model.empty()) {
    return fail(ErrorCode::kInvalidArgument, "--model is needed: a model's name or a .gguf file");
  }
  OLLAMA_ASSIGN(options.kernels, parse_kernels(arguments.text("kernels"), config));
  OLLAMA_ASSIGN(options.n_prompt, checked_number(arguments, "n-prompt", 0, kMaxTokens));
  OLLAMA_ASSIGN(options.n_gen, checked_number(arguments, "n-gen", 0, kMaxTokens));
  OLLAMA_ASSIGN(options.depth, checked_number(arguments, "depth", 0, kMaxTokens));
  OLLAMA_ASSIGN(options.parallel, checked_number(arguments, "parallel", 1, 64));
  OLLAMA_ASSIGN(options.repetitions, checked_number(arguments, "repetitions", 1, 1000));
  OLLAMA_ASSIGN(options.seed, checked_number(arguments, "seed", 0, 0xFFFFFFFF));
  OLLAMA_ASSIGN(options.load.threads, checked_number(arguments, "threads", 0, 4096));
  OLLAMA_ASSIGN(options.load.batch, checked_number(arguments, "batch", 1, 65536));
  OLLAMA_ASSIGN(options.load.kv_type, checked_kv_type(arguments, "kv-type"));
  options.load.gpu_layers = static_cast<std::int32_t>(arguments.number("num-gpu"));
  OLLAMA_ASSIGN(options.load.flash_attention, checked_flash_attention(arguments, "fa"));
  OLLAMA_ASSIGN(options.path, resolve_model(options.model, config));
  return options;
}

std::string rate(const std::optional<Phase>& phase) {
  if (!phase) return "-";
  const Rates& rates = phase->rates;
  return std::format("{:.2f} ({:.2f} to {:.2f})", rates.median, rates.min, rates.max);
}

// Which attention the rates were reached with: of prompts, of generation.
std::string attention(const BenchResult& result) {
  const auto name = [](const std::optional<Phase>& phase) {
    if (!phase) return "";
    switch (phase->flash_attention) {
      case ml::FlashAttention::kOn:
        return "on";
      case ml::FlashAttention::kOff:
        return "off";
      case ml::FlashAttention::kAuto:
        return "auto";
    }
    return "";
  };
  const std::string_view prompt = name(result.prompt);
  const std::string_view generation = name(result.generation);
  if (prompt == generation || generation.empty()) return std::string(prompt);
  return prompt.empty() ? std::string(generation) : std::format("{}, {}", prompt, generation);
}

std::string ratio(const std::optional<Phase>& a, const std::optional<Phase>& b) {
  return a && b ? std::format("{:.2f} x", a->rates.median / b->rates.median) : "-";
}

std::vector<std::vector<std::string>> table_rows(const BenchOptions& options,
                                                 const std::vector<BenchResult>& results) {
  std::vector<std::vector<std::string>> rows;
  for (const BenchResult& result : results) {
    rows.push_back({options.model, result.type, std::string(kernels_name(result.kernels)),
                    attention(result), std::to_string(result.gpu_layers),
                    std::to_string(result.threads), std::to_string(options.depth),
                    std::to_string(options.parallel), std::format("{:.2f}", result.load_seconds),
                    rate(result.prompt), rate(result.generation)});
  }
  if (results.size() == 2) {
    rows.push_back(
        {"", "",
         std::format("{} / {}", kernels_name(results[0].kernels), kernels_name(results[1].kernels)),
         "", "", "", "", "",
         std::format("{:.2f} x", results[0].load_seconds / results[1].load_seconds),
         ratio(results[0].prompt, results[1].prompt),
         ratio(results[0].generation, results[1].generation)});
  }
  return rows;
}

Result<int> bench(const envconfig::Config& config, const Arguments& arguments) {
  OLLAMA_ASSIGN(const BenchOptions options, parse_options(arguments, config));
  prepare_in_process(options.load.threads);

  Progress spinner(Progress::Style::kQuiet);
  const auto results = run_bench(options, [&](std::string_view text) { spinner.status(text); });
  spinner.stop_and_clear();
  if (!results) return fail(results);
  if (arguments.boolean("json")) {
    boost::json::array array;
    for (const BenchResult& result : *results) array.push_back(bench_json(options, result));
    std::println("{}", api::to_string(api::Json(std::move(array))));
    return 0;
  }
  std::print("{}",
             format_table({"MODEL", "TYPE", "KERNELS", "FA", "GPU LAYERS", "THREADS", "DEPTH",
                           "PARALLEL", "LOAD S", std::format("PP{} TOKENS/S", options.n_prompt),
                           std::format("TG{} TOKENS/S", options.n_gen)},
                          table_rows(options, *results), {.max_cell = 60}));
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
                    number("num-gpu", 'g', "-1", "Layers on GPUs; -1: as many as fit, 0: none"),
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
                     .help = "Kernels to measure: native, ggml, or native,ggml to compare them "
                             "in turns (default: OLLAMA_CPU_KERNELS)"},
                    number("seed", 0, "1", "Seed of the random prompts"),
                    {.name = "json", .help = "Print a JSON array"}},
          .environment = {"OLLAMA_MODELS", "OLLAMA_CPU_KERNELS"},
          .run = [&config](const Arguments& arguments) { return bench(config, arguments); }};
}

}  // namespace ollama::cmd
