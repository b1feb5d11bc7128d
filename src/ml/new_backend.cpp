#include "envconfig/config.h"
#include "ml/backend.h"
#include "ml/ggml/devices.h"
#include "ml/ggml/ggml_backend.h"
#include "ml/reference/reference_backend.h"

namespace ollama::ml {

CpuKernels cpu_kernels_of(std::optional<envconfig::CpuKernels> value) {
  if (!value) return CpuKernels::kAuto;
  return *value == envconfig::CpuKernels::kGgml ? CpuKernels::kGgml : CpuKernels::kNative;
}

DeviceOptions device_options_of(const envconfig::Config& config) {
  return {.library = config.llm_library,
          .vulkan = config.vulkan,
          .integrated = config.igpu_enable,
          .rpc_servers = config.rpc_servers};
}

Result<std::vector<Device>> list_devices(const DeviceOptions& options) {
  return ggml::list_devices(options);
}

Result<std::unique_ptr<Backend>> new_backend(BackendKind kind, const BackendOptions& options) {
  switch (kind) {
    case BackendKind::kGgml:
      return ggml::new_backend(options);
    case BackendKind::kReference:
      return reference::new_backend(options);
  }
  return fail(ErrorCode::kInvalidArgument, "no such backend");
}

}  // namespace ollama::ml
