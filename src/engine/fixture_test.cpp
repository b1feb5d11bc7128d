// The architectures' fixtures: logits and greedy tokens that llama.cpp computed, by the rule that
// tests/data/README.md states.
#include "engine/fixture.h"

namespace ollama::engine {
namespace {

using fixture::Way;

const std::vector<Way> kWays{
    {.name = "at_once"},
    {.name = "chunked", .chunk = 3},
    {.name = "token_by_token", .chunk = 1},
    {.name = "without_flash_attention", .flash = ml::FlashAttention::kOff},
    {.name = "two_sequences", .chunk = 5, .interleaved = 2},
    {.name = "ggml", .kernels = ml::CpuKernels::kGgml},
    {.name = "ggml_chunked", .chunk = 3, .kernels = ml::CpuKernels::kGgml},
    {.name = "reference", .backend = ml::BackendKind::kReference},
    {.name = "reference_chunked", .chunk = 4, .backend = ml::BackendKind::kReference},
};

class Fixture : public testing::TestWithParam<std::tuple<std::string, Way>> {};

TEST_P(Fixture, MatchesLlamaCpp) {
  const auto& [name, way] = GetParam();
  fixture::expect_matches(fixture::model(name), name, way);
}

INSTANTIATE_TEST_SUITE_P(Architectures, Fixture,
                         testing::Combine(testing::ValuesIn(fixture::names()),
                                          testing::ValuesIn(kWays)),
                         [](const auto& info) {
                           return fixture::test_name(std::get<0>(info.param) + "_" +
                                                     std::get<1>(info.param).name);
                         });

}  // namespace
}  // namespace ollama::engine
