// Files in Ollama's own library do not always follow llama.cpp's naming. They are translated right
// after parsing, so that nobody else has to know; files that follow llama.cpp pass unchanged.
#pragma once

#include "base/error.h"
#include "gguf/parse.h"

namespace ollama::gguf {

// Rewrites metadata and tensor table in place. Errors: kCorrupt when two tensors or keys would end
// up with one name.
Result<> translate_dialect(Header& header);

}  // namespace ollama::gguf
