#include "nn/moe.h"

#include <cmath>

namespace ollama::nn {
namespace {

// gpt-oss: the gate's slope and where both sides are clamped.
constexpr float kOaiAlpha = 1.702F;
constexpr float kOaiLimit = 7.0F;

}  // namespace

// The mixing weights [1, used, tokens] and the chosen experts' ids [used, tokens].
Tensor Moe::weights(Context& ctx, Tensor logits, Tensor* chosen) const {
  const std::int64_t experts = logits.dim(0);
  const std::int64_t tokens = logits.dim(1);
  Tensor probabilities = logits;
  if (gating == Gating::kSoftmax) probabilities = ctx.softmax(logits, {}, {}, 1.0F);
  if (gating == Gating::kSigmoid) {
    probabilities = ctx.activate(logits, ml::Activation::kSigmoid);
  }
  const Tensor ranked = selection_bias ? ctx.add(probabilities, selection_bias) : probabilities;
  *chosen = ctx.top_k(ranked, used);
  Tensor mix = ctx.get_rows(ctx.reshape(probabilities, {1, experts, tokens, 1}), *chosen);
  mix = ctx.reshape(mix, {used, tokens, 1, 1});
  if (gating == Gating::kSoftmaxOfChosen) {
    mix = ctx.softmax(mix, {}, {}, 1.0F);
  } else if (normalize) {
    // The floor keeps a token whose experts all say zero from dividing by it.
    mix = ctx.div(mix, ctx.clamp(ctx.sum_rows(mix), 6.103515625e-5F, INFINITY));
  }
  if (scale != 1.0F) mix = ctx.scale(mix, scale);
  return ctx.reshape(mix, {1, used, tokens, 1});
}

Tensor Moe::forward(Context& ctx, Tensor x) const {
  const std::int64_t width = x.dim(0);
  const std::int64_t tokens = x.dim(1);
  Tensor chosen;
  const Tensor mix = weights(ctx, router.forward(ctx, x), &chosen);

  const auto product = [&](Tensor weight, Tensor bias, Tensor input) {
    const Tensor y = ctx.mul_mat_id(weight, input, chosen);
    return bias ? ctx.add_id(y, bias, chosen) : y;
  };
  const Tensor input = ctx.reshape(x, {width, 1, tokens, 1});
  const Tensor g = product(gate, gate_bias, input);
  const Tensor u = product(up, up_bias, input);
  const Tensor hidden =
      oai ? ctx.swiglu_oai(g, u, kOaiAlpha, kOaiLimit) : ctx.gated(g, u, ml::Activation::kSilu);
  const Tensor outputs = ctx.mul(product(down, down_bias, hidden), mix);  // [width, used, tokens]

  Tensor sum = ctx.slice(outputs, 1, 0, 1);
  for (std::int64_t i = 1; i < used; ++i) sum = ctx.add(sum, ctx.slice(outputs, 1, i, 1));
  if (used == 1) sum = ctx.contiguous(sum);
  sum = ctx.reshape(sum, {width, tokens, 1, 1});
  return shared.up.weight ? ctx.add(sum, shared.forward(ctx, x)) : sum;
}

}  // namespace ollama::nn
