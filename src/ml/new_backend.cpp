#include "ml/backend.h"
#include "ml/ggml/ggml_backend.h"
#include "ml/reference/reference_backend.h"

namespace ollama::ml {

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
