// The architectures' fixtures for tests: tiny models, and logits and greedy tokens that llama.cpp
// computed from them, by the rule that tests/data/README.md states.
#pragma once

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <filesystem>
#include <fstream>
#include <ostream>
#include <span>
#include <string>

#include "engine/evaluate.h"

namespace ollama::engine::fixture {

inline const std::filesystem::path kFolder = std::filesystem::path(OLLAMA_TEST_DATA) / "arch";

// How a model is run.
struct Way {
  std::string name;
  std::uint32_t chunk = 0;
  ml::BackendKind backend = ml::BackendKind::kGgml;
  ml::FlashAttention flash = ml::FlashAttention::kAuto;
  std::uint32_t interleaved = 1;
  ml::CpuKernels kernels = ml::CpuKernels::kAuto;  // native, but beside a GPU
  std::int32_t gpu_layers = 0;
  bool spread = false;

  // On other devices than llama.cpp's CPU sums come in another order, and some are of 16 bits: a
  // greedy token that another one nearly equals may be that one.
  bool other_device() const { return gpu_layers != 0; }
};

inline constexpr float kNearlyEqual = 1e-3F;

// How far a logit may be from llama.cpp's, as a share of the largest one.
inline double tolerance(const Way& way) { return way.other_device() ? 1e-2 : 1e-3; }

// As GoogleTest looks for it.
// NOLINTNEXTLINE(readability-identifier-naming)
inline void PrintTo(const Way& way, std::ostream* out) { *out << way.name; }

// Of all fixtures, sorted.
inline std::vector<std::string> names() {
  std::vector<std::string> result;
  for (const auto& entry : std::filesystem::directory_iterator(kFolder)) {
    if (entry.path().extension() == ".json") result.push_back(entry.path().stem());
  }
  std::ranges::sort(result);
  return result;
}

// As a part of a test's name.
inline std::string test_name(std::string name) {
  std::ranges::replace(name, '-', '_');
  return name;
}

inline std::filesystem::path model(std::string_view name) {
  return kFolder / std::format("{}.gguf", name);
}

inline boost::json::value read_json(const std::filesystem::path& path) {
  std::ifstream in(path);
  const std::string text(std::istreambuf_iterator<char>(in), {});
  return boost::json::parse(text);
}

inline boost::json::value expectation(std::string_view name) {
  return read_json(kFolder / std::format("{}.json", name));
}

inline Result<Evaluation> run(const std::filesystem::path& path, const Way& way,
                              const boost::json::value& tokens) {
  return evaluate(path, {.tokens = boost::json::value_to<std::vector<Token>>(tokens),
                         .flash_attention = way.flash,
                         .chunk = way.chunk,
                         .backend = way.backend,
                         .kernels = way.kernels,
                         .gpu_layers = way.gpu_layers,
                         .spread = way.spread,
                         .interleaved = way.interleaved});
}

// By the rule of tests/data/README.md; gives the largest absolute value.
inline double expect_close(std::span<const float> values, const boost::json::array& expected,
                           double tolerated) {
  EXPECT_EQ(values.size(), expected.size());
  double largest = 0;
  double difference = 0;
  for (std::size_t i = 0; i < std::min(values.size(), expected.size()); ++i) {
    const double value = expected[i].to_number<double>();
    largest = std::max(largest, std::abs(value));
    difference = std::max(difference, std::abs(value - static_cast<double>(values[i])));
  }
  EXPECT_LE(difference, tolerated * largest);
  return largest;
}

// Runs the model file at `path` and compares it with what llama.cpp says of the fixture `name`.
inline void expect_matches(const std::filesystem::path& path, std::string_view name,
                           const Way& way) {
  const boost::json::value expected = expectation(name);
  const auto result = run(path, way, expected.at("tokens"));
  ASSERT_TRUE(result) << result.error().message();

  if (const auto* embedding = expected.as_object().if_contains("embedding_normalized")) {
    expect_close(result->embedding_normalized, embedding->as_array(), tolerance(way));
    return;
  }
  const double largest =
      expect_close(result->last_logits, expected.at("last_logits").as_array(), tolerance(way));

  const boost::json::array& top5 = expected.at("top5").as_array();
  ASSERT_EQ(result->top5.size(), top5.size());
  for (std::size_t position = 0; position < top5.size(); ++position) {
    for (std::size_t rank = 0; rank < 5; ++rank) {
      const double value = top5[position].at(rank).at(1).to_number<double>();
      EXPECT_NEAR(static_cast<double>(result->top5[position][rank].second), value,
                  tolerance(way) * std::max(largest, std::abs(value)))
          << "position " << position << ", rank " << rank;
    }
  }

  const boost::json::array& greedy = expected.at("greedy").as_array();
  ASSERT_EQ(result->greedy.size(), greedy.size());
  for (std::size_t i = 0; i < greedy.size(); ++i) {
    if (way.other_device() && result->greedy_margins[i] < kNearlyEqual) break;
    EXPECT_EQ(result->greedy[i], greedy[i].to_number<Token>()) << "greedy token " << i;
  }
}

}  // namespace ollama::engine::fixture
