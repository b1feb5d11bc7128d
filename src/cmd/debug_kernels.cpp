// `ollama debug kernels`: how near the native kernels' results are to GGML's.
#include <print>
#include <random>

#include "api/types.h"
#include "cmd/checked.h"
#include "cmd/commands.h"
#include "cmd/in_process.h"
#include "cmd/model_path.h"
#include "engine/evaluate.h"
#include "gguf/file.h"
#include "ml/kernels/available.h"
#include "tokenizer/tokenizer.h"

namespace ollama::cmd {
namespace {

Result<int> kernels(const envconfig::Config& config, const Arguments& arguments) {
  if (!ml::kernels::available()) {
    std::println("native kernels: none for this machine; GGML's are used");
    return 0;
  }
  if (arguments.text("model").empty()) {
    std::println("native kernels: {}", ml::kernels::instruction_set());
    return 0;
  }
  engine::EvaluateOptions options;
  OLLAMA_ASSIGN(const std::uint32_t count, checked_number(arguments, "tokens", 1, 4096));
  OLLAMA_ASSIGN(options.threads, checked_number(arguments, "threads", 0, 4096));
  OLLAMA_ASSIGN(options.kv_type, checked_kv_type(arguments, "kv-type"));
  OLLAMA_ASSIGN(const auto path, resolve_model(arguments.text("model"), config));
  prepare_in_process(options.threads);
  OLLAMA_ASSIGN(const gguf::File file, gguf::File::open(path));
  OLLAMA_ASSIGN(const auto tokenizer, tokenizer::load(file));
  std::mt19937 random(1);
  for (std::uint32_t i = 0; i < count; ++i) {
    options.tokens.push_back(static_cast<engine::Token>(random() % tokenizer->vocab_size()));
  }
  OLLAMA_ASSIGN(const engine::Divergence result, engine::compare_kernels(path, options));
  if (arguments.boolean("json")) {
    std::println("{}",
                 api::to_string(api::JsonObject{{"instructions", ml::kernels::instruction_set()},
                                                {"type", gguf::file_type_name(file)},
                                                {"tokens", count},
                                                {"mean_kl", result.mean},
                                                {"largest_kl", result.largest},
                                                {"same_best", result.same_best}}));
    return 0;
  }
  std::println("native kernels:  {}", ml::kernels::instruction_set());
  std::println("weights:         {}", gguf::file_type_name(file));
  std::println("KL divergence from GGML's logits over {} random tokens", count);
  std::println("  mean:          {:.3g}", result.mean);
  std::println("  largest:       {:.3g}", result.largest);
  std::println("same best token: {:.1f} %", 100 * result.same_best);
  return 0;
}

}  // namespace

Command debug_kernels_command(const envconfig::Config& config) {
  return {.name = "kernels",
          .usage = "[--model MODEL]",
          .summary =
              "Print which native kernels this machine runs, and how near a model's logits are "
              "to those of GGML's kernels",
          .flags = {{.name = "model",
                     .letter = 'm',
                     .kind = FlagKind::kString,
                     .help = "Name of a model, or a .gguf file"},
                    {.name = "tokens",
                     .kind = FlagKind::kInt,
                     .help = "Random tokens to evaluate",
                     .fallback = "64"},
                    {.name = "kv-type",
                     .kind = FlagKind::kString,
                     .help = "Type of the KV cache: f16, q8_0, q4_0, f32, bf16",
                     .fallback = "f16"},
                    {.name = "threads",
                     .letter = 't',
                     .kind = FlagKind::kInt,
                     .help = "Threads; 0 chooses",
                     .fallback = "0"},
                    {.name = "json", .help = "Print JSON"}},
          .environment = {"OLLAMA_MODELS"},
          .run = [&config](const Arguments& arguments) { return kernels(config, arguments); }};
}

}  // namespace ollama::cmd
