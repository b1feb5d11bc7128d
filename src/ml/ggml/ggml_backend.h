// The GGML implementation of ml::Backend: GGML's devices, its scheduler, its kernels.
#pragma once

#include "ml/backend.h"

namespace ollama::ml::ggml {

Result<std::unique_ptr<Backend>> new_backend(const BackendOptions& options);

}  // namespace ollama::ml::ggml
