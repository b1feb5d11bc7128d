#include "nn/layers.h"

#include <cmath>

namespace ollama::nn {

Tensor Linear::forward(Context& ctx, Tensor x) const {
  Tensor y = ctx.mul_mat(weight, x);
  return bias ? ctx.add(y, bias) : y;
}

Tensor Embedding::forward(Context& ctx, Tensor ids) const { return ctx.get_rows(weight, ids); }

Tensor RmsNorm::forward(Context& ctx, Tensor x) const {
  return weight ? ctx.mul(ctx.rms_norm(x, epsilon), weight) : x;
}

Tensor LayerNorm::forward(Context& ctx, Tensor x) const {
  if (!weight) return x;
  Tensor y = ctx.mul(ctx.layer_norm(x, epsilon), weight);
  return bias ? ctx.add(y, bias) : y;
}

Tensor Mlp::forward(Context& ctx, Tensor x) const {
  if (!gate.weight) return down.forward(ctx, ctx.activate(up.forward(ctx, x), activation));
  return down.forward(ctx, ctx.gated(gate.forward(ctx, x), up.forward(ctx, x), activation));
}

Tensor FusedMlp::forward(Context& ctx, Tensor x) const {
  const Tensor both = gate_up.forward(ctx, x);
  const std::int64_t inside = both.dim(0) / 2;
  const Tensor gate = ctx.contiguous(ctx.slice(both, 0, 0, inside));
  const Tensor up = ctx.contiguous(ctx.slice(both, 0, inside, inside));
  return down.forward(ctx, ctx.gated(gate, up, ml::Activation::kSilu));
}

Tensor Rope::forward(Context& ctx, Tensor x, Tensor positions) const {
  return ctx.rope(x, positions, factors, options);
}

Tensor Rope::turn(Context& ctx, Tensor x, Tensor by) const {
  ml::RopeOptions turning = options;
  // YaRN scales what it rotates: this undoes that.
  turning.attention_factor =
      options.extrapolation != 0.0F ? 1.0F / (1.0F - 0.1F * std::log(options.scale)) : 1.0F;
  return ctx.rope(x, by, factors, turning);
}

Tensor soft_capped(Context& ctx, Tensor x, float scale, float cap) {
  return ctx.scale(ctx.activate(ctx.scale(x, scale / cap), ml::Activation::kTanh), cap);
}

Tensor split_heads(Context& ctx, Tensor x, std::int64_t head_dim, std::int64_t heads) {
  return ctx.reshape(x, {head_dim, heads, x.elements() / (head_dim * heads), 1});
}

}  // namespace ollama::nn
