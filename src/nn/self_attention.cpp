#include "nn/self_attention.h"

namespace ollama::nn {
namespace {

// Normalises whole rows before the split into heads, or each head after it.
Tensor split_and_norm(Context& ctx, Tensor x, const RmsNorm& norm, std::int64_t head_dim,
                      std::int64_t heads) {
  const bool whole = norm.weight && norm.weight.dim(0) != head_dim;
  if (whole) x = norm.forward(ctx, x);
  x = split_heads(ctx, x, head_dim, heads);
  return whole ? x : norm.forward(ctx, x);
}

}  // namespace

Result<Tensor> SelfAttention::forward(Step& step, int layer, Tensor x) const {
  return attend(step, layer, q.forward(step.ctx, x), k.forward(step.ctx, x),
                v.forward(step.ctx, x));
}

Tensor SelfAttention::turn_keys(Context& ctx, Tensor keys, Tensor by) const {
  return rope.options.dimensions > 0 ? rope.turn(ctx, keys, by) : keys;
}

Result<Tensor> SelfAttention::attend(Step& step, int layer, Tensor queries, Tensor keys,
                                     Tensor values) const {
  Context& ctx = step.ctx;
  queries = split_and_norm(ctx, queries, q_norm, head_dim_k, heads);
  keys = split_and_norm(ctx, keys, k_norm, head_dim_k, kv_heads);
  values = ctx.named(split_heads(ctx, values, head_dim_v, kv_heads), "v", layer);
  if (rope.options.dimensions > 0) {
    queries = rope.forward(ctx, queries, step.positions);
    keys = rope.forward(ctx, keys, step.positions);
  }
  queries = ctx.named(queries, "q", layer);
  keys = ctx.named(keys, "k", layer);
  const kvcache::KeysValues kv =
      step.cache != nullptr ? step.cache->update(ctx, step.cache_inputs, layer, keys, values)
                            : kvcache::KeysValues{.k = keys, .v = values, .mask = step.mask};
  OLLAMA_ASSIGN(const Tensor attended, attention(ctx, step.attention, queries, kv, options));
  return output.forward(ctx, ctx.named(attended, "attn", layer));
}

}  // namespace ollama::nn
