#include "convert/blocks.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

namespace ollama::convert {
namespace {

constexpr std::size_t kSuper = 256;

std::vector<std::byte> by_ggml(ggml_type type, const std::vector<float>& values) {
  const auto count = static_cast<std::int64_t>(values.size());
  std::vector<std::byte> out(ggml_row_size(type, count));
  ggml_quantize_chunk(type, values.data(), out.data(), 0, 1, count, nullptr);
  return out;
}
std::vector<std::byte> by_us(ggml_type type, const std::vector<float>& values) {
  std::vector<std::byte> out(ggml_row_size(type, static_cast<std::int64_t>(values.size())));
  quantise_blocks(type, values, out);
  return out;
}

class Blocks : public testing::TestWithParam<ggml_type> {
 protected:
  void expect_same(const std::vector<float>& values, const char* what) {
    EXPECT_EQ(by_us(GetParam(), values), by_ggml(GetParam(), values)) << what;
  }
  std::mt19937 random_{7};
};

TEST_P(Blocks, AreThoseOfGgml) {
  std::normal_distribution<float> normal(0.0F, 1.0F);
  std::student_t_distribution<float> heavy(2.0F);
  std::uniform_int_distribution<int> exponent(-12, 4);
  std::vector<float> gaussian(400 * kSuper), outliers(gaussian.size()), uneven(gaussian.size());
  for (std::size_t i = 0; i < gaussian.size(); ++i) {
    gaussian[i] = 0.02F * normal(random_);
    outliers[i] = 0.01F * heavy(random_);
  }
  // Sub-blocks of very different sizes: the smaller ones' scales become zero.
  for (std::size_t i = 0; i < uneven.size(); i += 16) {
    const float size = std::pow(10.0F, static_cast<float>(exponent(random_)));
    for (std::size_t j = 0; j < 16; ++j) uneven[i + j] = size * normal(random_);
  }
  expect_same(gaussian, "gaussian");
  expect_same(outliers, "outliers");
  expect_same(uneven, "uneven");
}

TEST_P(Blocks, OddOnesToo) {
  std::normal_distribution<float> normal(0.0F, 1.0F);
  std::vector<float> values(kSuper);
  const auto fill = [&](auto&& value) {
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = value(i);
  };
  fill([](std::size_t) { return 0.0F; });
  expect_same(values, "zeros");
  fill([](std::size_t) { return -0.0F; });
  expect_same(values, "negative zeros");
  fill([](std::size_t) { return 1.5F; });
  expect_same(values, "all the same");
  fill([](std::size_t) { return -1.5F; });
  expect_same(values, "all the same and negative");
  fill([](std::size_t i) { return i == 77 ? 3.0F : 0.0F; });
  expect_same(values, "one");
  fill([](std::size_t i) { return i < 128 ? 0.0F : static_cast<float>(i) - 190.0F; });
  expect_same(values, "half zeros");
  fill([&](std::size_t) { return 5.0F + normal(random_); });
  expect_same(values, "positive");
  fill([&](std::size_t) { return -5.0F + normal(random_); });
  expect_same(values, "negative");
  fill([&](std::size_t) { return 1e-16F * normal(random_); });
  expect_same(values, "tiny");
  fill([&](std::size_t) { return 1e-42F * normal(random_); });
  expect_same(values, "denormal");
  fill([&](std::size_t) { return 1e6F * normal(random_); });
  expect_same(values, "large");
  fill([&](std::size_t) { return 1e25F * normal(random_); });
  expect_same(values, "beyond what f32 can square");
  fill([](std::size_t i) { return static_cast<float>(i % 16) / 16.0F; });
  expect_same(values, "steps");
}

INSTANTIATE_TEST_SUITE_P(, Blocks,
                         testing::Values(GGML_TYPE_Q4_K, GGML_TYPE_Q5_K, GGML_TYPE_Q6_K,
                                         GGML_TYPE_Q3_K, GGML_TYPE_Q8_0),
                         [](const auto& info) { return ggml_type_name(info.param); });

// Where the machine can, it must: else it is twice as slow, and nobody would notice.
TEST(FastBlocks, AreUsedWhereTheyCanBe) {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx2")) GTEST_SKIP() << "the machine has no AVX2";
  EXPECT_TRUE(has_fast_blocks(GGML_TYPE_Q4_K));
  EXPECT_TRUE(has_fast_blocks(GGML_TYPE_Q5_K));
  EXPECT_TRUE(has_fast_blocks(GGML_TYPE_Q6_K));
#endif
  EXPECT_FALSE(has_fast_blocks(GGML_TYPE_Q8_0));
}

}  // namespace
}  // namespace ollama::convert
