// A slow, obvious implementation of ml::Backend: every tensor is f32 (weights are converted when
// they are loaded), every operation is the loop that its definition says. No fused attention. The
// oracle that tests hold the others against.
#pragma once

#include "ml/backend.h"

namespace ollama::ml::reference {

Result<std::unique_ptr<Backend>> new_backend(const BackendOptions& options);

}  // namespace ollama::ml::reference
