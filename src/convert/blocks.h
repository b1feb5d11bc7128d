// Quantising blocks of weights to the bytes that GGML makes of them, faster where that is possible.
// GGML searches the scales of K-quants one sub-block after the other, in code for any x86-64; here
// eight sub-blocks are searched side by side, each by the same operations in the same order.
#pragma once

#include <ggml.h>

#include <cstddef>
#include <span>

namespace ollama::convert {

// As ggml_quantize_chunk without an importance matrix. `values` are finite and a whole number of
// the type's blocks, `out` as large as their encoding. Thread-safe.
void quantise_blocks(ggml_type type, std::span<const float> values, std::span<std::byte> out);

// Whether this machine has a faster way for a type, and the installed GGML makes the same bytes.
bool has_fast_blocks(ggml_type type);

}  // namespace ollama::convert
