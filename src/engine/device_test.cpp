// Models on other devices than the CPU. Here these are two that a software Vulkan driver offers as
// GPUs, which the environment of these tests brings into sight.
#include <unistd.h>

#include <cmath>

#include "engine/cross_encoder.h"
#include "engine/executor.h"
#include "engine/fixture.h"
#include "engine/placing.h"
#include "gguf/synthetic.h"

namespace ollama::engine {
namespace {

using fixture::Way;

// Skips where GGML's Vulkan backend is not installed; scripts/install-deps installs it.
bool has_gpus() {
  const auto devices = ml::list_devices({});
  return devices && devices->size() == 3;
}
#define OLLAMA_NEEDS_GPUS() \
  if (!has_gpus()) GTEST_SKIP() << "no software Vulkan device: see scripts/install-deps"

const std::vector<Way> kWays{
    {.name = "all_layers", .gpu_layers = -1},
    {.name = "some_layers", .gpu_layers = 2},
    {.name = "no_layers", .gpu_layers = 0},
    {.name = "two_gpus", .chunk = 4, .gpu_layers = -1, .spread = true},
    {.name = "without_flash_attention", .flash = ml::FlashAttention::kOff, .gpu_layers = -1},
    {.name = "native_beside_a_gpu",
     .chunk = 3,
     .interleaved = 2,
     .kernels = ml::CpuKernels::kNative,
     .gpu_layers = 2},
};

class OnDevices : public testing::TestWithParam<std::string> {};

TEST_P(OnDevices, MatchesLlamaCpp) {
  OLLAMA_NEEDS_GPUS();
  for (const Way& way : kWays) {
    SCOPED_TRACE(way.name);
    fixture::expect_matches(fixture::model(GetParam()), GetParam(), way);
  }
}

INSTANTIATE_TEST_SUITE_P(Architectures, OnDevices, testing::ValuesIn(fixture::names()),
                         [](const auto& info) { return fixture::test_name(info.param); });

// Where else than on llama.cpp's tiny models: weights that are quantised, and caches that are.
struct Kind {
  std::string weights;
  ml::DType cache;
};

TEST(OnGpus, GivesTheCpusLogitsOfQuantisedModels) {
  OLLAMA_NEEDS_GPUS();
  for (const auto& [weights, cache] :
       {Kind{"q4_k_m", ml::DType::kF16}, Kind{"q8_0", ml::DType::kQ8_0},
        Kind{"q8_0", ml::DType::kQ4_0}}) {
    SCOPED_TRACE(std::format("{} weights, {} cache", weights, ml::dtype_name(cache)));
    const auto path = std::filesystem::path(testing::TempDir()) /
                      std::format("devices-{}-{}.gguf", weights, ::getpid());
    ASSERT_TRUE(gguf::make_model({.shape = "tiny", .type = weights, .out = path}));
    EvaluateOptions options{.tokens = {5, 17, 200, 31, 77, 9, 130, 64},
                            .n_greedy = 0,
                            .kv_type = cache,
                            .kernels = ml::CpuKernels::kGgml};
    const auto cpu = evaluate(path, options);
    options.gpu_layers = -1;
    const auto gpu = evaluate(path, options);
    std::filesystem::remove(path);
    ASSERT_TRUE(cpu) << cpu.error().message();
    ASSERT_TRUE(gpu) << gpu.error().message();
    const float largest =
        std::ranges::max(cpu->last_logits, {}, [](float v) { return std::abs(v); });
    double squares = 0;
    for (std::size_t i = 0; i < cpu->last_logits.size(); ++i) {
      const double difference = cpu->last_logits[i] - gpu->last_logits[i];
      squares += difference * difference;
    }
    const double mean = std::sqrt(squares / static_cast<double>(cpu->last_logits.size()));
    // The CPU rounds activations to 8 bits, the GPU does not; a cache of 4 bits makes more of it.
    EXPECT_LT(mean, 0.02 * static_cast<double>(std::abs(largest)));
  }
}

// A cache's memory is zero, wherever it lies: cells that were never written are multiplied by zero.
TEST(OnGpus, GiveZeroedStorage) {
  OLLAMA_NEEDS_GPUS();
  const auto backend =
      ml::new_backend(ml::BackendKind::kGgml, {.gpus = {ml::list_devices({})->front().name}});
  ASSERT_TRUE(backend) << backend.error().message();
  const ml::Storage::Request request{
      .dtype = ml::DType::kF16, .shape = {64, 2, 8, 1}, .name = "cache", .layer = 0};
  const auto storage =
      (*backend)->allocate({&request, 1}, {.layers = {0}, .output = 0}, ml::Purpose::kUse);
  ASSERT_TRUE(storage) << storage.error().message();
  const auto context = (*backend)->new_context(ml::Phase::kDecode, 16, 1);
  ASSERT_TRUE(context);
  const ml::Tensor cells =
      (*context)->output((*context)->cast((*storage)->tensors()[0], ml::DType::kF32), "cells");
  ASSERT_TRUE((*context)->prepare());
  ASSERT_TRUE((*context)->compute());
  std::vector<float> values(static_cast<std::size_t>(cells.elements()), 1.0F);
  ASSERT_TRUE((*context)->download(cells, std::as_writable_bytes(std::span(values))));
  EXPECT_EQ(std::ranges::count(values, 0.0F), std::ssize(values));
}

std::unique_ptr<Executor> executor_of(const LoadOptions& options, const char* model = "llama") {
  auto executor = Executor::load(fixture::model(model), options, {});
  EXPECT_TRUE(executor) << executor.error().message();
  return executor ? std::move(*executor) : nullptr;
}

StepBatch some_tokens(std::int32_t first, std::int32_t count) {
  StepBatch batch;
  for (std::int32_t i = first; i < first + count; ++i)
    batch.add(7 + i, i, 0, i + 1 == first + count);
  return batch;
}

// What is moved on a GPU serves as on the CPU: cached keys are turned to other positions.
TEST(OnGpus, ShiftsTheContext) {
  OLLAMA_NEEDS_GPUS();
  std::vector<std::vector<float>> logits;
  for (const std::int32_t gpu_layers : {0, -1}) {
    const auto executor =
        executor_of({.context = 64, .gpu_layers = gpu_layers, .kernels = ml::CpuKernels::kGgml});
    ASSERT_TRUE(executor);
    ASSERT_TRUE(executor->run(some_tokens(0, 20)));
    executor->cache()->remove(0, 4, 10);
    const auto moved = executor->move(0, 10, -6);
    ASSERT_TRUE(moved) << moved.error().message();
    const auto row = executor->run(some_tokens(14, 1));
    ASSERT_TRUE(row) << row.error().message();
    logits.emplace_back(row->begin(), row->end());
  }
  const float largest = std::ranges::max(logits[0], {}, [](float v) { return std::abs(v); });
  for (std::size_t i = 0; i < logits[0].size(); ++i) {
    ASSERT_NEAR(logits[0][i], logits[1][i], 1e-2F * std::abs(largest)) << i;
  }
}

// What a plan says is what is taken: weights and cache by the byte, and graphs as the steps then
// need them, so that nothing is allocated on a GPU after loading.
TEST(OnGpus, TakeWhatWasPlanned) {
  OLLAMA_NEEDS_GPUS();
  for (const bool spread : {false, true}) {
    const LoadOptions options{.context = 256, .parallel = 2, .spread = spread};
    const auto explained = explain_plan(fixture::model("gemma3"), options);
    ASSERT_TRUE(explained) << explained.error().message();
    const auto executor = executor_of(options, "gemma3");
    ASSERT_TRUE(executor);
    const ModelInfo& info = executor->info();
    EXPECT_EQ(info.devices.size(), spread ? 3U : 2U);
    std::uint64_t on_gpus = 0;
    for (std::size_t i = 0; i < info.devices.size(); ++i) {
      const api::PlannedDevice& planned = explained->devices[i];
      EXPECT_EQ(info.devices[i].name, planned.name);
      const double taken = static_cast<double>(info.devices[i].bytes);
      const double wanted = static_cast<double>(planned.weights + planned.cache + planned.graph);
      EXPECT_NEAR(taken, wanted, 0.03 * wanted) << planned.name;
      if (info.devices[i].gpu) on_gpus += info.devices[i].bytes;
    }
    EXPECT_EQ(info.device_bytes, on_gpus);
    EXPECT_EQ(info.gpu_layers, info.layers + 1);
    ASSERT_TRUE(executor->run(some_tokens(0, 40)));
    ASSERT_TRUE(executor->run(some_tokens(40, 1)));
    const std::vector<std::uint64_t> used = executor->graph_bytes();
    for (std::size_t i = 0; i < info.devices.size(); ++i) {
      if (!info.devices[i].gpu) continue;
      EXPECT_LE(used[i], explained->devices[i].graph * 103 / 100) << info.devices[i].name;
      EXPECT_GE(used[i], explained->devices[i].graph * 97 / 100) << info.devices[i].name;
    }
  }
}

// A text that is embedded is one step, however small the batch of a prompt is.
TEST(OnGpus, TakeWhatWasPlannedForTheLongestText) {
  OLLAMA_NEEDS_GPUS();
  const LoadOptions options{.context = 256, .batch = 16};
  const auto explained = explain_plan(fixture::model("bert"), options);
  ASSERT_TRUE(explained) << explained.error().message();
  const auto executor = executor_of(options, "bert");
  ASSERT_TRUE(executor);
  StepBatch text = some_tokens(0, static_cast<int>(executor->info().context));
  text.states = true;
  ASSERT_TRUE(executor->run(text));
  EXPECT_TRUE(explained->devices[0].name.starts_with("Vulkan"));
  EXPECT_LE(executor->graph_bytes()[0], explained->devices[0].graph * 103 / 100);
}

// The classifier goes where the output goes, and segments are one more input.
TEST(OnGpus, RankAsTheCpuDoes) {
  OLLAMA_NEEDS_GPUS();
  const auto path =
      std::filesystem::path(testing::TempDir()) / std::format("ranks-{}.gguf", ::getpid());
  fixture::CrossEncoder().draft().write(path);
  StepBatch pairs;
  for (kvcache::Sequence pair = 0; pair < 4; ++pair) {
    for (std::int32_t i = 0; i < 12; ++i) {
      const Token token = i == 0 ? 101 : 1000 + 97 * i + static_cast<Token>(13 * pair);
      pairs.add(token, i, pair, i == 0, i < 5 ? 0 : 1);
    }
  }
  std::vector<float> cpu;
  for (const std::int32_t layers : {0, -1, 1, 2}) {
    const auto executor = Executor::load(path, {.gpu_layers = layers}, {});
    ASSERT_TRUE(executor) << executor.error().message();
    const auto scores = (*executor)->run(pairs);
    ASSERT_TRUE(scores) << scores.error().message();
    ASSERT_EQ(scores->size(), 4U);
    if (layers == 0) cpu.assign(scores->begin(), scores->end());
    EXPECT_EQ((*executor)->info().gpu_layers, layers < 0 ? 3U : static_cast<unsigned>(layers));
    for (std::size_t i = 0; i < cpu.size(); ++i) {
      EXPECT_NEAR((*scores)[i], cpu[i], 1e-2) << layers << " layers, pair " << i;
    }
  }
  std::filesystem::remove(path);
}

// A plan that turned out too large is made again with less, until nothing is left to place.
TEST(OnGpus, AreAskedForLessWhenTheyRefuse) {
  OLLAMA_NEEDS_GPUS();
  auto file = gguf::File::open(fixture::model("llama"));
  ASSERT_TRUE(file);
  auto placing = Placing::begin(std::make_shared<const gguf::File>(std::move(*file)), {});
  ASSERT_TRUE(placing) << placing.error().message();
  int rounds = 0;
  for (;; ++rounds) {
    ASSERT_LT(rounds, 20);
    const auto plan = placing->plan();
    ASSERT_TRUE(plan) << plan.error().message();
    if (plan->placed == 0) break;
    placing->refused(*plan, ml::Shortage{.device = 0, .bytes = 1});
  }
  EXPECT_GE(rounds, 2) << "each of the two GPUs was asked";
}

}  // namespace
}  // namespace ollama::engine
