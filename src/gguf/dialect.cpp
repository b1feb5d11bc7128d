#include "gguf/dialect.h"

namespace ollama::gguf {

Result<> translate_dialect(Header&) { return {}; }

}  // namespace ollama::gguf
