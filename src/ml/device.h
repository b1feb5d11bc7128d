// Devices: what there is to compute on, and which part of a model goes where.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace ollama::envconfig {
struct Config;
}  // namespace ollama::envconfig

namespace ollama::ml {

enum class DeviceKind : std::uint8_t {
  kCpu,
  kGpu,            // memory of its own
  kIntegratedGpu,  // shares the CPU's memory
};

struct Device {
  std::string name;         // "CPU", "Vulkan0"; unique
  std::string description;  // "AMD EPYC ..."
  std::string library;      // "cpu", "vulkan", "cuda", "rpc", ...
  std::string id;           // PCI address, or host:port of a remote one; empty where there is none
  DeviceKind kind = DeviceKind::kCpu;
  std::uint64_t total_bytes = 0;
  std::uint64_t free_bytes = 0;  // when it was listed

  bool is_gpu() const { return kind != DeviceKind::kCpu; }
  bool is_remote() const { return library == "rpc"; }
  bool operator==(const Device&) const = default;
};

// Which devices may be used.
struct DeviceOptions {
  std::string library;             // only GPUs of this library ("cuda_v12", "vulkan"); "cpu": none
  bool vulkan = true;              // Vulkan's may be
  std::optional<bool> integrated;  // integrated GPUs may be; unset: where there is no other GPU
  std::vector<std::string> rpc_servers;  // "host:port": their devices are used like this machine's
  bool operator==(const DeviceOptions&) const = default;
};
DeviceOptions device_options_of(const envconfig::Config& config);

// The devices there are, GPUs first, the CPU last. Loads the libraries of GPUs that GGML has here,
// and with them their drivers: a process that must not die of a broken one asks a runner (see
// runner/runner.h). A remote server that does not answer is left out, with a warning. Errors:
// kUnsupported (GGML has no CPU backend here).
Result<std::vector<Device>> list_devices(const DeviceOptions& options);

// Where each layer of a model and its cache live, and the output matrix: indices of
// Backend::devices(). Without layers everything is on the CPU.
struct Placement {
  std::vector<int> layers;
  int output = 0;
};

// This machine's memory, in bytes, within the limits of the process's control group.
struct SystemMemory {
  std::uint64_t total = 0;
  std::uint64_t available = 0;  // without swapping
};
SystemMemory system_memory();

}  // namespace ollama::ml
