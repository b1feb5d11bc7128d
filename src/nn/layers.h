// The building blocks of model files: small structs that hold weights and add their operations to a
// graph. A block without a weight (an optional one that the file does not have) passes its input
// through.
#pragma once

#include "ml/context.h"

namespace ollama::nn {

using ml::Context;
using ml::Tensor;

// y = W x + b. W [in, out], b [out] or none.
struct Linear {
  Tensor weight;
  Tensor bias;
  Tensor forward(Context& ctx, Tensor x) const;
};

// Rows of a table. W [width, rows]; ids i32 [tokens] to [width, tokens].
struct Embedding {
  Tensor weight;
  Tensor forward(Context& ctx, Tensor ids) const;
};

// x / sqrt(mean(x^2) + epsilon) * w. Source: Zhang & Sennrich 2019.
struct RmsNorm {
  Tensor weight;
  float epsilon = 1e-5F;
  Tensor forward(Context& ctx, Tensor x) const;
};

// (x - mean) / sqrt(var + epsilon) * w + b, b or none.
struct LayerNorm {
  Tensor weight;
  Tensor bias;
  float epsilon = 1e-5F;
  Tensor forward(Context& ctx, Tensor x) const;
};

// down(activation(gate x) * up x); without a gate: down(activation(up x)).
struct Mlp {
  Linear gate;
  Linear up;
  Linear down;
  ml::Activation activation = ml::Activation::kSilu;
  Tensor forward(Context& ctx, Tensor x) const;
};

// The same with gate and up in one matrix: [in, 2 * inside], gate first.
struct FusedMlp {
  Linear gate_up;
  Linear down;
  Tensor forward(Context& ctx, Tensor x) const;
};

// Rotary positions for heads [head_dim, heads, tokens].
struct Rope {
  ml::RopeOptions options;
  Tensor factors;  // f32 [dimensions / 2], divides the frequencies; or none
  Tensor forward(Context& ctx, Tensor x, Tensor positions) const;
  // Moves heads that were rotated already by so many positions more: their size stays.
  Tensor turn(Context& ctx, Tensor x, Tensor by) const;
};

// cap * tanh(scale * x / cap).
Tensor soft_capped(Context& ctx, Tensor x, float scale, float cap);

// [head_dim * heads, tokens] as [head_dim, heads, tokens].
Tensor split_heads(Context& ctx, Tensor x, std::int64_t head_dim, std::int64_t heads);

}  // namespace ollama::nn
