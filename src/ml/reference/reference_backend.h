// A slow, obvious implementation of ml::Backend: every tensor is f32 (weights are converted when
// they are loaded), every operation is the loop that its definition says. What a storage or a
// cast keeps in a smaller type is rounded through that type. A softmax row that is masked whole
// gives zeros. No fused attention. Misuse of a graph is kInternal: see reference_context.h. The
// oracle that tests hold the others against.
#pragma once

#include "ml/backend.h"

namespace ollama::ml::reference {

Result<std::unique_ptr<Backend>> new_backend(const BackendOptions& options);

}  // namespace ollama::ml::reference
