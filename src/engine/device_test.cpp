// Models on other devices than the CPU. Here these are two that a software Vulkan driver offers as
// GPUs, which the environment of these tests brings into sight.
#include "engine/executor.h"
#include "engine/fixture.h"
#include "engine/placing.h"

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
    {.name = "all_layers", .gpu_layers = -1, .other_device = true},
    {.name = "some_layers", .gpu_layers = 2, .other_device = true},
    {.name = "no_layers", .gpu_layers = 0},
    {.name = "two_gpus", .chunk = 4, .gpu_layers = -1, .spread = true, .other_device = true},
    {.name = "without_flash_attention",
     .flash = ml::FlashAttention::kOff,
     .gpu_layers = -1,
     .other_device = true},
    {.name = "native_beside_a_gpu",
     .chunk = 3,
     .interleaved = 2,
     .kernels = ml::CpuKernels::kNative,
     .gpu_layers = 2,
     .other_device = true},
};

std::vector<std::string> fixtures() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(fixture::kFolder)) {
    if (entry.path().extension() == ".json") names.push_back(entry.path().stem());
  }
  std::ranges::sort(names);
  return names;
}

class OnDevices : public testing::TestWithParam<std::string> {};

TEST_P(OnDevices, MatchesLlamaCpp) {
  OLLAMA_NEEDS_GPUS();
  for (Way way : kWays) {
    SCOPED_TRACE(way.name);
    if (way.name != "native_beside_a_gpu") way.kernels = ml::CpuKernels::kAuto;
    fixture::expect_matches(fixture::model(GetParam()), GetParam(), way);
  }
}

INSTANTIATE_TEST_SUITE_P(Architectures, OnDevices, testing::ValuesIn(fixtures()),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace ollama::engine
