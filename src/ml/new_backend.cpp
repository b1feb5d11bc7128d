#include "envconfig/config.h"
#include "ml/backend.h"
#include "ml/ggml/ggml_backend.h"
#include "ml/reference/reference_backend.h"

namespace ollama::ml {

CpuKernels cpu_kernels_of(envconfig::CpuKernels value) {
  return value == envconfig::CpuKernels::kGgml ? CpuKernels::kGgml : CpuKernels::kNative;
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
