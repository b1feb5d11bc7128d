#include <print>

#include "base/units.h"
#include "cmd/commands.h"
#include "cmd/progress.h"
#include "gguf/synthetic.h"

namespace ollama::cmd {
namespace {

Result<int> make_model(const Arguments& arguments) {
  gguf::SyntheticOptions options;
  options.shape = arguments.text("shape");
  options.type = arguments.text("type");
  options.out = arguments.text("out");
  if (options.shape.empty() || options.out.empty()) {
    return fail(ErrorCode::kInvalidArgument, "--shape and --out are needed");
  }
  if (arguments.number("seed") < 0) {
    return fail(ErrorCode::kInvalidArgument, "--seed must not be negative");
  }
  options.seed = static_cast<std::uint64_t>(arguments.number("seed"));

  Progress progress(Progress::Style::kQuiet);
  std::uint64_t size = 0;
  const auto made = gguf::make_model(options, [&](std::uint64_t done, std::uint64_t total) {
    size = total;
    progress.bar("model", "writing", done, total);
  });
  progress.stop_and_clear();
  if (!made) return fail(made);
  std::println("wrote {} ({} of {} weights, {})", options.out.string(), options.shape, options.type,
               human_bytes(size));
  return 0;
}

}  // namespace

Command debug_make_model_command(const envconfig::Config& /*config*/) {
  std::string shapes;
  for (const std::string_view shape : gguf::synthetic_shapes()) {
    shapes += std::format("{}{}", shapes.empty() ? "" : ", ", shape);
  }
  return {.name = "make-model",
          .usage = "--shape SHAPE --type TYPE --out FILE",
          .summary = "Write a model with random weights, for benchmarks",
          .flags = {{.name = "shape", .kind = FlagKind::kString, .help = "One of " + shapes},
                    {.name = "type",
                     .kind = FlagKind::kString,
                     .help = "Type of the weights: f32, f16, bf16, q8_0, q4_0, q4_k_m, ...",
                     .fallback = "f16"},
                    {.name = "out",
                     .letter = 'o',
                     .kind = FlagKind::kString,
                     .help = "The file to write"},
                    {.name = "seed",
                     .kind = FlagKind::kInt,
                     .help = "The same seed gives the same file",
                     .fallback = "1"}},
          .run = make_model};
}

}  // namespace ollama::cmd
