// The architectures' fixtures: logits and greedy tokens that llama.cpp computed, by the rule that
// tests/data/README.md states.
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <fstream>

#include "engine/evaluate.h"

namespace ollama::engine {
namespace {

namespace json = boost::json;

const std::filesystem::path kArch = std::filesystem::path(OLLAMA_TEST_DATA) / "arch";

struct Way {
  std::string name;
  std::uint32_t chunk = 0;
  ml::BackendKind backend = ml::BackendKind::kGgml;
  ml::FlashAttention flash = ml::FlashAttention::kAuto;
  std::uint32_t interleaved = 1;
};

const std::vector<Way> kWays{
    {.name = "at_once"},
    {.name = "chunked", .chunk = 3},
    {.name = "token_by_token", .chunk = 1},
    {.name = "without_flash_attention", .flash = ml::FlashAttention::kOff},
    {.name = "two_sequences", .chunk = 5, .interleaved = 2},
    {.name = "reference", .backend = ml::BackendKind::kReference},
    {.name = "reference_chunked", .chunk = 4, .backend = ml::BackendKind::kReference},
};

void PrintTo(const Way& way, std::ostream* out) { *out << way.name; }

std::vector<std::string> fixtures() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kArch)) {
    if (entry.path().extension() == ".json") names.push_back(entry.path().stem());
  }
  std::ranges::sort(names);
  return names;
}

json::value read_json(const std::filesystem::path& path) {
  std::ifstream in(path);
  const std::string text(std::istreambuf_iterator<char>(in), {});
  return json::parse(text);
}

// By the rule of tests/data/README.md; gives the largest absolute value.
double expect_close(std::span<const float> values, const json::array& expected) {
  EXPECT_EQ(values.size(), expected.size());
  double largest = 0;
  double difference = 0;
  for (std::size_t i = 0; i < std::min(values.size(), expected.size()); ++i) {
    const double value = expected[i].to_number<double>();
    largest = std::max(largest, std::abs(value));
    difference = std::max(difference, std::abs(value - static_cast<double>(values[i])));
  }
  EXPECT_LE(difference, 1e-3 * largest);
  return largest;
}

class Fixture : public testing::TestWithParam<std::tuple<std::string, Way>> {};

TEST_P(Fixture, MatchesLlamaCpp) {
  const auto& [name, way] = GetParam();
  const json::value expected = read_json(kArch / (name + ".json"));
  EvaluateOptions options;
  for (const json::value& token : expected.at("tokens").as_array()) {
    options.tokens.push_back(token.to_number<Token>());
  }
  options.chunk = way.chunk;
  options.backend = way.backend;
  options.flash_attention = way.flash;
  options.interleaved = way.interleaved;
  const auto result = evaluate(kArch / (name + ".gguf"), options);
  ASSERT_TRUE(result) << result.error().message();

  if (const json::value* embedding = expected.as_object().if_contains("embedding_normalized")) {
    expect_close(result->embedding_normalized, embedding->as_array());
    return;
  }
  const double largest = expect_close(result->last_logits, expected.at("last_logits").as_array());

  const json::array& top5 = expected.at("top5").as_array();
  ASSERT_EQ(result->top5.size(), top5.size());
  for (std::size_t position = 0; position < top5.size(); ++position) {
    for (std::size_t rank = 0; rank < 5; ++rank) {
      const double value = top5[position].at(rank).at(1).to_number<double>();
      EXPECT_NEAR(static_cast<double>(result->top5[position][rank].second), value,
                  1e-3 * std::max(largest, std::abs(value)))
          << "position " << position << ", rank " << rank;
    }
  }

  const json::array& greedy = expected.at("greedy").as_array();
  ASSERT_EQ(result->greedy.size(), greedy.size());
  for (std::size_t i = 0; i < greedy.size(); ++i) {
    EXPECT_EQ(result->greedy[i], greedy[i].to_number<Token>()) << "greedy token " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Architectures, Fixture,
                         testing::Combine(testing::ValuesIn(fixtures()), testing::ValuesIn(kWays)),
                         [](const auto& info) {
                           std::string name =
                               std::get<0>(info.param) + "_" + std::get<1>(info.param).name;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace ollama::engine
