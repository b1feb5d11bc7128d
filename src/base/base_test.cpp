#include <gtest/gtest.h>

#include "base/error.h"
#include "base/units.h"

namespace ollama {
namespace {

constexpr ErrorConstant kFull{ErrorCode::kOutOfMemory, "the cache is full"};

Result<int> half(int value) {
  if (value % 2 != 0) return fail(ErrorCode::kInvalidArgument, "{} is odd", value);
  return value / 2;
}

Result<int> quarter(int value) {
  OLLAMA_ASSIGN(const int first, half(value));
  OLLAMA_ASSIGN(const int second, half(first));
  return second;
}

TEST(Error, PassesThroughTheMacros) {
  EXPECT_EQ(quarter(8).value(), 2);
  ASSERT_FALSE(quarter(6));
  EXPECT_EQ(quarter(6).error().message(), "3 is odd");
  EXPECT_EQ(quarter(6).error().with_context("quarter").message(), "quarter: 3 is odd");
}

TEST(Error, ConstantsKeepTheirLiteral) {
  const Result<int> result = fail(kFull);
  EXPECT_EQ(result.error().message().data(), kFull.message.data());
  EXPECT_EQ(result.error().code(), ErrorCode::kOutOfMemory);
}

TEST(Error, ErrnoHasItsText) {
  const Result<> result = fail_errno("open x", ENOENT);
  EXPECT_EQ(result.error().code(), ErrorCode::kNotFound);
  EXPECT_EQ(result.error().message(), "open x: No such file or directory");
}

TEST(Units, PrintAsOllamaDoes) {
  EXPECT_EQ(human_bytes(999), "999 B");
  EXPECT_EQ(human_bytes(535936), "535 KB");
  EXPECT_EQ(human_bytes(4'700'000'000), "4.7 GB");
  EXPECT_EQ(human_bytes(1'000'000), "1 MB");
  EXPECT_EQ(human_bytes(2'020'000'000), "2.0 GB");
  EXPECT_EQ(human_number(999), "999");
  EXPECT_EQ(human_number(260'032), "260K");
  EXPECT_EQ(human_number(1'235'814'432), "1.2B");
  EXPECT_EQ(human_number(596'049'920), "596.05M");
  EXPECT_EQ(human_number(8'000'000'000), "8B");
  EXPECT_EQ(human_bytes_binary(457 * kMiB), "457.0 MiB");
}

TEST(Units, NumbersAreReadStrictly) {
  EXPECT_EQ(parse_number<int>("42"), 42);
  EXPECT_EQ(parse_number<int>("42 "), std::nullopt);
  EXPECT_EQ(parse_number<unsigned>("-1"), std::nullopt);
  EXPECT_EQ(parse_number<std::uint8_t>("256"), std::nullopt);
  EXPECT_EQ(parse_number<float>("0.5"), 0.5F);
  EXPECT_EQ(parse_number<int>(""), std::nullopt);
}

}  // namespace
}  // namespace ollama
