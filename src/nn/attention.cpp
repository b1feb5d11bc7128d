#include "nn/attention.h"

#include <algorithm>

#include "nn/layers.h"

namespace ollama::nn {
namespace {

using ml::Tensor;

constexpr ErrorConstant kHeadDims{ErrorCode::kInternal, "attention: q and k have other head sizes"};
constexpr ErrorConstant kHeads{ErrorCode::kInternal,
                               "attention: query heads are no multiple of key heads"};
constexpr ErrorConstant kLengths{ErrorCode::kInternal, "attention: k and v have other lengths"};
constexpr ErrorConstant kMask{ErrorCode::kInternal, "attention: the mask does not fit"};
constexpr ErrorConstant kSinks{ErrorCode::kInternal, "attention: one sink a head is expected"};

Result<> check(Tensor q, const kvcache::KeysValues& kv, const AttentionOptions& options) {
  if (q.dim(0) != kv.k.dim(0)) return fail(kHeadDims);
  if (kv.k.dim(1) == 0 || q.dim(1) % kv.k.dim(1) != 0 || kv.k.dim(1) != kv.v.dim(1)) {
    return fail(kHeads);
  }
  if (kv.k.dim(2) != kv.v.dim(2)) return fail(kLengths);
  if (kv.mask && (kv.mask.dim(0) != kv.k.dim(2) || kv.mask.dim(1) < q.dim(2))) return fail(kMask);
  if (options.sinks && options.sinks.elements() != q.dim(1)) return fail(kSinks);
  return {};
}

// softmax(q k^T) v in separate operations.
Tensor composed(ml::Context& ctx, Tensor q, Tensor k, Tensor v, Tensor mask,
                const AttentionOptions& options) {
  Tensor scores = ctx.mul_mat(k, q);  // [length, tokens, heads]
  float scale = options.scale;
  if (options.soft_cap > 0) {
    scores = soft_capped(ctx, scores, scale, options.soft_cap);
    scale = 1.0F;
  }
  const Tensor weights = ctx.softmax(scores, mask, options.sinks, scale);
  // v [head_dim, length, heads] to [length, head_dim, heads]
  const Tensor transposed = ctx.contiguous(ctx.permute(v, {1, 0, 2, 3}));
  const Tensor result = ctx.mul_mat(transposed, weights);  // [head_dim, tokens, heads]
  return ctx.contiguous(ctx.permute(result, {0, 2, 1, 3}));
}

}  // namespace

const ml::ScaledDotProductAttention* AttentionSupport::find(const ml::Context& context,
                                                            const ml::AttentionConfig& config) {
  const std::scoped_lock lock(mutex_);
  if (!asked_) {
    interface_ = context.fused_attention();
    asked_ = true;
    ++probes_;
  }
  if (interface_ == nullptr) return nullptr;
  const auto known =
      std::ranges::find(served_, config, [](const auto& entry) { return entry.first; });
  if (known != served_.end()) return known->second ? interface_ : nullptr;
  ++probes_;
  served_.emplace_back(config, interface_->supports(config));
  return served_.back().second ? interface_ : nullptr;
}

Result<> AttentionSupport::validate(Tensor q, const kvcache::KeysValues& kv,
                                    const AttentionOptions& options) {
  if (validation_ == Validation::kDisabled) return {};
  if (validation_ == Validation::kEnabled) return check(q, kv, options);
  const ShapeKey key{q.shape(), kv.k.shape(), kv.v.shape(), kv.mask.shape()};
  const std::scoped_lock lock(mutex_);
  const auto place = std::ranges::lower_bound(checked_, key);
  if (place != checked_.end() && *place == key) return {};
  OLLAMA_TRY(check(q, kv, options));
  checked_.insert(place, key);
  return {};
}

Result<Tensor> attention(ml::Context& ctx, AttentionSupport& support, Tensor q,
                         const kvcache::KeysValues& kv, const AttentionOptions& options) {
  OLLAMA_TRY(support.validate(q, kv, options));
  const std::int64_t heads = q.dim(1);
  const std::int64_t tokens = q.dim(2);
  const ml::AttentionConfig config{.head_dim_k = static_cast<std::int32_t>(q.dim(0)),
                                   .head_dim_v = static_cast<std::int32_t>(kv.v.dim(0)),
                                   .k_type = kv.k.dtype(),
                                   .v_type = kv.v.dtype(),
                                   .sinks = static_cast<bool>(options.sinks),
                                   .soft_cap = options.soft_cap > 0};
  // Heads move behind the tokens: [head_dim, tokens, heads].
  const Tensor queries = ctx.permute(q, {0, 2, 1, 3});
  const Tensor keys = ctx.permute(kv.k, {0, 2, 1, 3});
  const Tensor values = ctx.permute(kv.v, {0, 2, 1, 3});
  const ml::ScaledDotProductAttention* fused = support.find(ctx, config);
  const Tensor result = fused != nullptr ? fused->scaled_dot_product_attention(
                                               ctx, queries, keys, values, kv.mask, options.sinks,
                                               options.scale, options.soft_cap)
                                         : composed(ctx, queries, keys, values, kv.mask, options);
  return ctx.reshape(result, {result.dim(0) * heads, tokens, 1, 1});
}

}  // namespace ollama::nn
