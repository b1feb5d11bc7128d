#include "ml/context.h"

namespace ollama::ml {

Result<> batch_tensor_op(Context& context, std::span<const Upload> uploads) {
  OLLAMA_TRY(context.prepare());
  OLLAMA_TRY(context.upload(uploads));
  return context.compute();
}

}  // namespace ollama::ml
