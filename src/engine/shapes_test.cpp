// The shapes that plans are tested on (memory/shapes.h) are what the program would make of such
// models: their caches, their weights, and the sizes of graphs that are recorded there.
#include <gtest/gtest.h>
#include <unistd.h>

#include "engine/executor.h"
#include "engine/hollow_model.h"
#include "engine/placing.h"

namespace ollama::engine {
namespace {

constexpr std::uint32_t kShort = memory::GraphSize::kShort;
constexpr std::uint32_t kLong = memory::GraphSize::kLong;
constexpr std::int32_t kAll = 1000;

std::shared_ptr<const gguf::File> hollow_file(const memory::Shape& shape) {
  const auto path = std::filesystem::path(testing::TempDir()) /
                    std::format("hollow-{}-{}.gguf", shape.name, ::getpid());
  EXPECT_TRUE(HollowModel(shape).write(path));
  auto opened = gguf::File::open(path);
  std::filesystem::remove(path);
  EXPECT_TRUE(opened) << opened.error().message();
  return opened ? std::make_shared<const gguf::File>(std::move(*opened)) : nullptr;
}

class Shapes : public testing::TestWithParam<memory::Shape> {
 protected:
  void SetUp() override {
    file_ = hollow_file(shape_);
    ASSERT_TRUE(file_);
    auto devices = ml::list_devices({});
    ASSERT_TRUE(devices) << devices.error().message();
    devices_ = std::move(*devices);
    // What there is does not matter: nothing is loaded.
    for (ml::Device& device : devices_) device.total_bytes = device.free_bytes = 1024 * kGiB;
  }

  // Of a GPU, where there is one with a part, and of the CPU.
  struct Measured {
    std::uint64_t gpu = 0;
    std::uint64_t cpu = 0;
  };
  Measured measure(std::uint32_t context, std::int32_t gpu_layers) {
    const memory::Demand need = memory::demand_of(shape_, {.context = context});
    const auto plan = memory::plan(need, devices_, {.gpu_layers = gpu_layers});
    EXPECT_TRUE(plan) << plan.error().message();
    std::optional<std::size_t> unfit;
    const auto sizes = Executor::measure(file_, {.context = context}, *plan, unfit);
    EXPECT_TRUE(sizes) << sizes.error().message();
    return {.gpu = sizes->front(), .cpu = sizes->back()};
  }

  memory::Shape shape_ = GetParam();
  std::shared_ptr<const gguf::File> file_;
  std::vector<ml::Device> devices_;
};

// GGML allocates a little otherwise from version to version. Sizes that are further off are to be
// measured and recorded again.
void expect_recorded(std::uint64_t measured, std::uint64_t recorded) {
  EXPECT_GT(measured, recorded * 3 / 4);
  EXPECT_LT(measured, recorded * 5 / 4);
}

TEST_P(Shapes, DemandWhatTheirModelsDo) {
  const auto backend = ml::new_backend(ml::BackendKind::kGgml, {});
  const auto weights = (*backend)->load_weights(*file_, {}, ml::Purpose::kMeasure, {});
  ASSERT_TRUE(weights) << weights.error().message();
  const auto model = model::new_model(*file_, **weights);
  ASSERT_TRUE(model) << model.error().message();
  const kvcache::CacheOptions cache{.cells = kShort, .max_batch = 512};
  const memory::Demand real = memory::demand(*file_, (*model)->cache_layers(), cache);
  const memory::Demand need = memory::demand_of(shape_, {.context = kShort});
  EXPECT_EQ(need.cache, real.cache);
  EXPECT_EQ(need.output_copy, real.output_copy);
  // Layers' weights are a file's on average.
  expect_recorded(real.total_weights(), need.total_weights());
}

TEST_P(Shapes, TakeTheGraphsThatAreRecordedOnTheCpu) {
  for (const std::uint32_t context : {kShort, kLong}) {
    SCOPED_TRACE(context);
    expect_recorded(measure(context, 0).cpu, shape_.graphs.cpu.bytes(context));
  }
}

TEST_P(Shapes, TakeTheGraphsThatAreRecordedOnAGpu) {
  if (devices_.size() < 2) GTEST_SKIP() << "no software Vulkan device: see scripts/install-deps";
  const Measured whole = measure(kShort, kAll);
  const std::uint64_t embedded = 512 * shape_.hidden * sizeof(float);
  if (whole.cpu > embedded * 5 / 4) GTEST_SKIP() << "this device does not take all of its weights";
  expect_recorded(whole.gpu, shape_.graphs.whole.bytes(kShort));
  const auto half = static_cast<std::int32_t>(shape_.layers / 2);
  expect_recorded(measure(kShort, half).gpu, shape_.graphs.part.bytes(kShort));
}

// GGML's Vulkan backend ends the process where a tensor is larger than what a shader may see, here
// 128 MiB, as keys of long contexts are.
TEST(OnGpus, AreLeftOutWhereTheyCannotHoldALayersCache) {
  const auto devices = ml::list_devices({});
  if (!devices || devices->size() < 2) {
    GTEST_SKIP() << "no software Vulkan device: see scripts/install-deps";
  }
  auto placing = Placing::begin(hollow_file(memory::shape_named("llama-1b")),
                                {.context = 131072, .parallel = 2, .vram_min_free = 0});
  ASSERT_TRUE(placing) << placing.error().message();
  const auto plan = placing->plan();
  ASSERT_TRUE(plan) << plan.error().message();
  if (plan->placed > 0) GTEST_SKIP() << "this device takes it";
  ASSERT_EQ(plan->unused.size(), devices->size() - 1);
  EXPECT_EQ(plan->unused[0].reason,
            plan->unused[0].device.name + " cannot hold 256.0 MiB of a layer's cache in one piece");
}

INSTANTIATE_TEST_SUITE_P(Real, Shapes, testing::ValuesIn(memory::real_shapes()),
                         [](const auto& info) {
                           std::string name(info.param.name);
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace ollama::engine
