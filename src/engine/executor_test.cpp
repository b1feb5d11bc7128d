#include "engine/executor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/draft.h"
#include "engine/fixture.h"

namespace ollama::engine {
namespace {

const std::filesystem::path kModel =
    std::filesystem::path(OLLAMA_TEST_DATA) / "models/stories260K-f32.gguf";

std::unique_ptr<Executor> load_executor(std::uint32_t parallel) {
  return Executor::load(kModel, {.context = 512, .batch = 64, .parallel = parallel}, {}).value();
}

// `count` tokens of a sequence from `position` on; the last one's logits are wanted.
StepBatch batch_of(kvcache::Sequence sequence, kvcache::Position position, int count) {
  StepBatch batch;
  for (int i = 0; i < count; ++i) {
    batch.add(1 + (position + i) * 7 % 500, position + i, sequence, i + 1 == count);
  }
  return batch;
}

TEST(Executor, BuildsAGraphOncePerPaddedLength) {
  const auto executor = load_executor(1);
  ASSERT_TRUE(executor->run(batch_of(0, 0, 10)));
  EXPECT_EQ(executor->counters().graph_builds, 1U);
  for (kvcache::Position position = 10; position < 500; ++position) {
    ASSERT_TRUE(executor->run(batch_of(0, position, 1)));
  }
  // The prompt's, and one for each of the lengths 256 and 512.
  EXPECT_EQ(executor->counters().graph_builds, 3U);
  EXPECT_EQ(executor->counters().steps, 491U);
  // One submission of inputs and one of a graph for each step.
  EXPECT_EQ(executor->counters().backend.uploads, 491U);
  EXPECT_EQ(executor->counters().backend.computes, 491U);
}

TEST(Executor, AlternatingPromptsAndAnswersBuildsNothing) {
  const auto executor = load_executor(2);
  ASSERT_TRUE(executor->run(batch_of(0, 0, 8)));
  ASSERT_TRUE(executor->run(batch_of(0, 8, 1)));
  const std::uint64_t before = executor->counters().graph_builds;
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(executor->run(batch_of(1, i * 8, 8)));
    ASSERT_TRUE(executor->run(batch_of(0, 9 + i, 1)));
  }
  EXPECT_EQ(executor->counters().graph_builds, before);
}

// A mask that is only sent in parts must still be whole: steps on other graphs come between, and
// sequences change.
TEST(Executor, MasksSentInPartsChangeNothing) {
  const auto logits_of = [](Executor& executor, const StepBatch& batch) {
    const auto logits = executor.run(batch);
    EXPECT_TRUE(logits);
    return std::vector<float>(logits->begin(), logits->end());
  };
  const auto busy = load_executor(1);
  const auto calm = load_executor(1);
  (void)logits_of(*calm, batch_of(0, 0, 40));
  (void)logits_of(*busy, batch_of(0, 0, 20));
  for (int i = 20; i < 40; ++i) {
    (void)logits_of(*busy, batch_of(0, i, 1));
    if (i % 3 == 0) {  // another sequence comes and goes
      (void)logits_of(*busy, batch_of(1, 0, 5));
      (void)logits_of(*busy, batch_of(1, 5, 1));
      busy->cache()->remove(1, 0, kvcache::kNoEnd);
    }
  }
  const auto expected = logits_of(*calm, batch_of(0, 40, 1));
  const auto actual = logits_of(*busy, batch_of(0, 40, 1));
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(actual[i], expected[i], 1e-2);
}

TEST(Executor, AsksTheBackendOnceAboutAttention) {
  const auto executor = load_executor(1);
  ASSERT_TRUE(executor->run(batch_of(0, 0, 8)));
  const std::uint64_t probes = executor->counters().attention_probes;
  EXPECT_GE(probes, 1U);
  EXPECT_LE(probes, 2U);  // whether it has the interface, and whether that serves these heads
  for (int i = 8; i < 300; ++i) ASSERT_TRUE(executor->run(batch_of(0, i, 1)));
  EXPECT_EQ(executor->counters().attention_probes, probes);
}

// With a single layer, keys and values depend on nothing but their token and position: moved, they
// must give what evaluating at the new positions gives. Every way of rotating: neighbours and
// halves, parts of a head, factors, YaRN, none; windows, sinks, norms.
class Moved : public testing::TestWithParam<std::string> {};

INSTANTIATE_TEST_SUITE_P(Architectures, Moved,
                         testing::Values("command-r", "gemma2", "gemma3", "glm4", "gpt-oss",
                                         "granite", "llama", "llama-moe", "llama3", "olmo2", "phi3",
                                         "qwen2", "qwen3", "qwen3moe", "starcoder2"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

TEST_P(Moved, KeysServeAsIfEvaluatedThere) {
  fixture::Draft draft(fixture::model(GetParam()));
  const std::string architecture(
      gguf::File::open(fixture::model(GetParam())).value().architecture());
  draft.set(std::format("{}.block_count", architecture), std::int64_t{1});
  const auto path = std::filesystem::temp_directory_path() /
                    std::format("ollama-moved-{}-{}.gguf", GetParam(), getpid());
  draft.write(path);
  const LoadOptions options{.context = 128, .batch = 64, .kv_type = ml::DType::kF32};
  const auto moved = Executor::load(path, options, {}).value();
  const auto fresh = Executor::load(path, options, {}).value();
  std::filesystem::remove(path);
  constexpr int kKept = 4;
  constexpr int kDropped = 10;
  constexpr int kCount = 40;
  StepBatch all;
  StepBatch rest;
  for (int i = 0; i < kCount; ++i) {
    const Token token = 1 + i * 7 % 300;
    all.add(token, i, 0, i + 1 == kCount);
    if (i < kKept) rest.add(token, i, 0, false);
    if (i >= kKept + kDropped) rest.add(token, i - kDropped, 0, i + 1 == kCount);
  }
  ASSERT_TRUE(moved->run(all));
  moved->cache()->remove(0, kKept, kKept + kDropped);
  const auto result = moved->move(0, kKept + kDropped, -kDropped);
  ASSERT_TRUE(result) << result.error().message();
  EXPECT_EQ(moved->cache()->resume_point(0, 1000), kCount - kDropped);
  ASSERT_TRUE(fresh->run(rest));
  StepBatch next;
  next.add(77, kCount - kDropped, 0, true);
  const auto actual = moved->run(next);
  const auto expected = fresh->run(next);
  ASSERT_TRUE(actual && expected);
  double largest = 0;
  double difference = 0;
  for (std::size_t i = 0; i < expected->size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>((*expected)[i])));
    difference = std::max(difference, std::abs(static_cast<double>((*expected)[i] - (*actual)[i])));
  }
  EXPECT_LE(difference, 1e-4 * largest);
}

TEST(Executor, LatentKeysAreNotMoved) {
  const auto executor =
      Executor::load(fixture::model("deepseek2"), {.context = 64, .batch = 32}, {}).value();
  ASSERT_TRUE(executor->run(batch_of(0, 0, 20)));
  const auto moved = executor->move(0, 10, -5);
  ASSERT_FALSE(moved);
  EXPECT_EQ(moved.error().code(), ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace ollama::engine
