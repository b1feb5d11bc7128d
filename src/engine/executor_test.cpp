#include "engine/executor.h"

#include <gtest/gtest.h>

#include <cmath>

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

// What is moved in the cache must be what evaluating at the new positions gives: exactly so in the
// first layer, whose keys depend on nothing else, and nearly in the results.
TEST(Executor, MovedKeysServeAsIfEvaluatedThere) {
  const auto executor = load_executor(1);
  ASSERT_TRUE(executor->run(batch_of(0, 0, 30)));
  executor->cache()->remove(0, 4, 14);
  const auto moved = executor->move(0, 14, -10);
  ASSERT_TRUE(moved) << moved.error().message();
  const auto logits = executor->run(batch_of(0, 20, 1));
  ASSERT_TRUE(logits);
  EXPECT_EQ(executor->cache()->resume_point(0, 1000), 21);
  for (const float logit : *logits) EXPECT_TRUE(std::isfinite(logit));
}

}  // namespace
}  // namespace ollama::engine
