// GGML's devices as ours.
#pragma once

#include <ggml-backend.h>

#include <span>
#include <string>
#include <vector>

#include "ml/device.h"

namespace ollama::ml::ggml {

Result<std::vector<Device>> list_devices(const DeviceOptions& options);

// As list_devices, of one device whose library has been loaded.
Device describe(ggml_backend_dev_t device);

// A GPU that list_devices has named. Errors: kNotFound.
Result<ggml_backend_dev_t> find_gpu(const std::string& name);

// The RPC servers that lend these devices.
std::vector<std::string> endpoints_of(std::span<const ggml_backend_dev_t> devices);

}  // namespace ollama::ml::ggml
