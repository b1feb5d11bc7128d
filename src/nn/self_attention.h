// Self-attention with its projections, as most architectures have it. What a model lacks stays
// empty.
#pragma once

#include "nn/layers.h"
#include "nn/step.h"

namespace ollama::nn {

struct SelfAttention {
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim_k = 0;
  std::int64_t head_dim_v = 0;
  Linear q, k, v;
  Linear output;
  // Over each head ([head_dim_k]), or over all heads at once ([head_dim_k * heads], before the
  // split).
  RmsNorm q_norm, k_norm;
  Rope rope;  // with 0 dimensions: none
  AttentionOptions options;

  // x [width, tokens] to [width, tokens]. Stores the layer's keys and values in the step's cache,
  // or lets all tokens that the step's mask allows see one another.
  Result<Tensor> forward(Step& step, int layer, Tensor x) const;
  // The same from projections that were made elsewhere, each [head_dim * heads, tokens],
  // contiguous.
  Result<Tensor> attend(Step& step, int layer, Tensor queries, Tensor keys, Tensor values) const;
  // Cached keys f32 [head_dim_k, kv_heads, cells], each moved by its own number of positions (i32
  // [cells]).
  Tensor turn_keys(Context& ctx, Tensor keys, Tensor by) const;
};

}  // namespace ollama::nn
