// C[m, n] = W[k, m]^T X[k, n] of packed weights and packed activations (packed.h).
//
// A column's result does not depend on n, on its neighbours, or on how rows are dealt out to
// threads: every column is accumulated in f32 over blocks of 32 in ascending order.
#pragma once

#include "ml/kernels/packed.h"

namespace ollama::ml::kernels {

struct GemmArguments {
  PackedWeights weights;
  const std::byte* activations = nullptr;  // of activation_kind(weights.type)
  std::int64_t n = 0;
  float* c = nullptr;
  std::int64_t c_stride = 0;  // floats from one column to the next
  // Column j of the result is the one numbered order[j]; null: j.
  const std::int32_t* order = nullptr;
};

// Computes the rows of the groups [first, last). Needs no memory but 40 KiB of stack.
void gemm(const GemmArguments& arguments, std::int64_t first, std::int64_t last);

}  // namespace ollama::ml::kernels
