#include "memory/plan.h"

#include <gtest/gtest.h>

namespace ollama::memory {
namespace {

const std::filesystem::path kData = OLLAMA_TEST_DATA;

TEST(Demand, CountsEveryTensorOnce) {
  const auto file = gguf::File::open(kData / "models/stories260K-f16.gguf");
  ASSERT_TRUE(file);
  const std::vector<kvcache::LayerSpec> layers(5,
                                               {.head_dim_k = 8, .head_dim_v = 8, .kv_heads = 4});
  const Demand need = demand(*file, layers, {.cells = 512});
  std::uint64_t total = 0;
  for (const auto& tensor : file->tensors()) total += tensor.size;
  EXPECT_EQ(need.total_weights(), total);
  EXPECT_GT(need.weights[0], 0U);
  EXPECT_EQ(need.weights[0], need.weights[4]);
  // 512 cells of 4 heads of 8 f16 keys and as many values.
  EXPECT_EQ(need.cache[0], 512U * 4 * 8 * 2 * 2);
}

TEST(Demand, WindowsAndLatentKeysCostLess) {
  const auto file = gguf::File::open(kData / "models/stories260K-f16.gguf");
  ASSERT_TRUE(file);
  const kvcache::CacheOptions options{.cells = 65536, .parallel = 2, .max_batch = 512};
  const std::vector<kvcache::LayerSpec> layers{
      {.head_dim_k = 64, .head_dim_v = 64, .kv_heads = 2},
      {.head_dim_k = 64, .head_dim_v = 64, .kv_heads = 2, .window = 1024},
      {.head_dim_k = 64, .head_dim_v = 32, .kv_heads = 2, .values_in_keys = true}};
  const Demand need = demand(*file, layers, options);
  EXPECT_EQ(need.cache[0], 65536U * 2 * 64 * 2 * 2);
  EXPECT_EQ(need.cache[1], (1024U + 512) * 2 * 2 * 64 * 2 * 2);
  EXPECT_EQ(need.cache[2], need.cache[0] / 2);
}

TEST(Fit, PlacesAllOnTheCpuOrSaysWhatIsMissing) {
  const Demand need{.weights = {100, 200}, .cache = {10, 10}, .output_weights = 50};
  const std::vector<ml::Device> roomy{{.name = "CPU", .total_bytes = 1000}};
  const auto plan = fit(need, roomy);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->placement.layers, (std::vector<int>{0, 0}));
  EXPECT_EQ(plan->weight_bytes, 350U);
  EXPECT_EQ(plan->cache_bytes, 20U);
  const std::vector<ml::Device> small{{.name = "CPU", .total_bytes = 349}};
  const auto refused = fit(need, small);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message(),
            "model requires more system memory (350 B) than is available (349 B)");
}

}  // namespace
}  // namespace ollama::memory
