// Metadata that the fixtures do not have, against a model that says the same by other means.
#include <cmath>

#include "engine/draft.h"
#include "engine/fixture.h"

namespace ollama::engine {
namespace {

using fixture::Draft;

// With every frequency extrapolated YaRN turns nothing otherwise; what is left is that DeepSeek's
// logits grow with the factor, which larger query weights do as well.
TEST(Metadata, YarnMakesDeepseeksLogitsGrow) {
  constexpr double kFactor = 4;
  constexpr double kMultiplier = 0.0707;
  const auto folder =
      std::filesystem::temp_directory_path() / std::format("ollama-metadata-{}", getpid());
  std::filesystem::create_directory(folder);

  Draft yarn(fixture::model("deepseek2"));
  yarn.set("deepseek2.rope.scaling.type", std::string("yarn"));
  yarn.set("deepseek2.rope.scaling.factor", kFactor);
  yarn.set("deepseek2.rope.scaling.original_context_length", std::int64_t{128});
  yarn.set("deepseek2.rope.scaling.yarn_beta_fast", 1e-9);
  yarn.set("deepseek2.rope.scaling.yarn_beta_slow", 1e-9);
  yarn.set("deepseek2.rope.scaling.yarn_log_multiplier", kMultiplier);
  yarn.write(folder / "yarn.gguf");

  Draft scaled(fixture::model("deepseek2"));
  const double magnitude = 1 + kMultiplier * std::log(kFactor);
  std::size_t changed = 0;
  for (Draft::Tensor& tensor : scaled.tensors()) {
    if (!tensor.name.ends_with("attn_q_b.weight") && !tensor.name.ends_with("attn_q.weight")) {
      continue;
    }
    for (float& weight : tensor.floats()) weight *= static_cast<float>(magnitude * magnitude);
    ++changed;
  }
  ASSERT_GT(changed, 0U);
  scaled.write(folder / "scaled.gguf");

  const EvaluateOptions options{.tokens = {5, 9, 2, 77, 31, 8, 120, 4, 66, 13}};
  const auto expected = evaluate(folder / "scaled.gguf", options).value();
  const auto actual = evaluate(folder / "yarn.gguf", options).value();
  const auto plain = evaluate(fixture::model("deepseek2"), options).value();
  double largest = 0;
  double difference = 0;
  double without = 0;
  for (std::size_t i = 0; i < expected.last_logits.size(); ++i) {
    const double value = expected.last_logits[i];
    largest = std::max(largest, std::abs(value));
    difference = std::max(difference, std::abs(value - actual.last_logits[i]));
    without = std::max(without, std::abs(value - plain.last_logits[i]));
  }
  EXPECT_LE(difference, 1e-3 * largest);
  EXPECT_GT(without, 1e-3 * largest) << "the factor makes no difference to this model";
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace ollama::engine
