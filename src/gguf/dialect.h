// Files in Ollama's own library do not always follow llama.cpp's naming. They are translated right
// after parsing, so that nobody else has to know; files that follow llama.cpp pass unchanged.
#pragma once

#include <cstddef>
#include <span>

#include "base/error.h"
#include "gguf/parse.h"

namespace ollama::gguf {

// Rewrites metadata and tensor table in place. Errors: kCorrupt when two tensors or keys would end
// up with one name.
Result<> translate_dialect(Header& header);

// Gives the blocks of a tensor marked ollama_mxfp4 the order that GGML reads. Both are whole
// blocks, of one size; they may be the same memory.
void reorder_mxfp4(std::span<const std::byte> from, std::span<std::byte> to);

}  // namespace ollama::gguf
