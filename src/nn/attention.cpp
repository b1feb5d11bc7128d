#include "nn/attention.h"

#include <bit>
#include <span>

#include "nn/layers.h"

namespace ollama::nn {
namespace {

using ml::Tensor;

constexpr ErrorConstant kHeadDims{ErrorCode::kInternal, "attention: q and k have other head sizes"};
constexpr ErrorConstant kHeads{ErrorCode::kInternal,
                               "attention: query heads are no multiple of key heads"};
constexpr ErrorConstant kValueHeads{ErrorCode::kInternal, "attention: k and v have other heads"};
constexpr ErrorConstant kLengths{ErrorCode::kInternal, "attention: k and v have other lengths"};
constexpr ErrorConstant kMask{ErrorCode::kInternal, "attention: the mask does not fit"};
constexpr ErrorConstant kSinks{ErrorCode::kInternal, "attention: one sink a head is expected"};

Result<> check(Tensor q, const kvcache::KeysValues& kv, const AttentionOptions& options) {
  if (q.dim(0) != kv.k.dim(0)) return fail(kHeadDims);
  if (kv.k.dim(1) == 0 || q.dim(1) % kv.k.dim(1) != 0) return fail(kHeads);
  if (kv.k.dim(1) != kv.v.dim(1)) return fail(kValueHeads);
  if (kv.k.dim(2) != kv.v.dim(2)) return fail(kLengths);
  if (kv.mask && (kv.mask.dim(0) != kv.k.dim(2) || kv.mask.dim(1) < q.dim(2))) return fail(kMask);
  if (options.sinks && options.sinks.elements() != q.dim(1)) return fail(kSinks);
  return {};
}

constexpr std::uint64_t kOdd = 0x9E3779B97F4A7C15;  // 2^64 over the golden ratio

std::uint64_t mixed(std::uint64_t mark, std::int64_t size) {
  mark = (mark ^ static_cast<std::uint64_t>(size)) * kOdd;
  return mark ^ (mark >> 32U);
}
std::uint64_t mixed(std::uint64_t mark, std::int64_t a, std::int64_t b, std::int64_t c) {
  return mixed(mixed(mixed(mark, a), b), c);
}

// 64 bits that stand for all sizes that check() reads; not 0. Four chains, of which none waits for
// another.
std::uint64_t fingerprint(const Tensor& q, const kvcache::KeysValues& kv,
                          const AttentionOptions& options) {
  std::uint64_t mark = mixed(1, q.dim(0), q.dim(1), q.dim(2));
  mark = std::rotl(mark, 16) ^ mixed(2, kv.k.dim(0), kv.k.dim(1), kv.k.dim(2));
  mark = std::rotl(mark, 16) ^ mixed(3, kv.v.dim(1), kv.v.dim(2), options.sinks ? 1 : 0);
  mark = std::rotl(mark, 16) ^
         mixed(4, kv.mask ? kv.mask.dim(0) : -1, kv.mask.dim(1), options.sinks.elements());
  mark *= kOdd;
  mark ^= mark >> 32U;
  return mark == 0 ? 1 : mark;
}

// softmax(q k^T) v in separate operations.
Tensor composed(ml::Context& ctx, Tensor q, Tensor k, Tensor v, bool permuted_v, Tensor mask,
                const AttentionOptions& options) {
  Tensor scores = ctx.mul_mat(k, q);  // [length, tokens, heads]
  float scale = options.scale;
  if (options.soft_cap > 0) {
    scores = soft_capped(ctx, scores, scale, options.soft_cap);
    scale = 1.0F;
  }
  const Tensor weights = ctx.softmax(scores, mask, options.sinks, scale);
  // A block of a quantised type cannot be turned on its side.
  if (ml::is_quantized(v.dtype())) v = ctx.cast(v, ml::DType::kF32);
  // v [head_dim, length, heads] to [length, head_dim, heads]
  Tensor transposed = ctx.permute(v, {1, 0, 2, 3});
  if (!permuted_v) transposed = ctx.contiguous(transposed);
  const Tensor result = ctx.mul_mat(transposed, weights);  // [head_dim, tokens, heads]
  return ctx.contiguous(ctx.permute(result, {0, 2, 1, 3}));
}

}  // namespace

const ml::ScaledDotProductAttention* AttentionSupport::find(const ml::Context& context,
                                                            const ml::AttentionConfig& config) {
  const std::size_t known = answer_count_.load(std::memory_order_acquire);
  for (const Answer& answer : std::span(answers_).first(known)) {
    if (answer.config == config) return answer.fused;
  }
  return ask(context, config);
}

const ml::ScaledDotProductAttention* AttentionSupport::ask(const ml::Context& context,
                                                           const ml::AttentionConfig& config) {
  const std::scoped_lock lock(mutex_);
  // Another thread may have asked meanwhile.
  const std::size_t known = answer_count_.load(std::memory_order_relaxed);
  for (const Answer& answer : std::span(answers_).first(known)) {
    if (answer.config == config) return answer.fused;
  }
  if (!asked_) {
    interface_ = context.fused_attention();
    asked_ = true;
    ++probes_;
  }
  const ml::ScaledDotProductAttention* fused = nullptr;
  if (interface_ != nullptr) {
    fused = interface_->supports(config) ? interface_ : nullptr;
    ++probes_;
  }
  if (known < kMaxAnswers) {
    answers_[known] = {config, fused};
    answer_count_.store(known + 1, std::memory_order_release);
  }
  return fused;
}

Result<> AttentionSupport::validate(Tensor q, const kvcache::KeysValues& kv,
                                    const AttentionOptions& options) {
  if (validation_ == Validation::kOff) return {};
  if (validation_ == Validation::kAlways) return check(q, kv, options);
  const std::uint64_t mark = fingerprint(q, kv, options);
  std::atomic<std::uint64_t>& slot = checked_[mark % kSlots];
  if (slot.load(std::memory_order_relaxed) == mark) return {};
  OLLAMA_TRY(check(q, kv, options));
  slot.store(mark, std::memory_order_relaxed);
  ++shapes_;
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
  // Permuted values are there for the composition.
  const ml::ScaledDotProductAttention* fused = kv.permuted_v ? nullptr : support.find(ctx, config);
  const Tensor result =
      fused != nullptr
          ? fused->scaled_dot_product_attention(ctx, queries, keys, values, {kv.mask, kv.positions},
                                                options.sinks, options.scale, options.soft_cap)
          : composed(ctx, queries, keys, values, kv.permuted_v, kv.mask, options);
  return ctx.reshape(result, {result.dim(0) * heads, tokens, 1, 1});
}

}  // namespace ollama::nn
