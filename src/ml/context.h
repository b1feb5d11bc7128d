// A graph of tensor operations: built once, then run as often as its shapes serve, with new inputs.
//
//   context->reset();                                  // start a new graph
//   Tensor x = context->input(DType::kF32, {4, 2}, "x");
//   Tensor y = context->output(context->scale(x, 2.0F), "y");
//   context->prepare();                                // allocate
//   context->upload({{x, bytes}});                     // one submission for all inputs of a step
//   context->compute();
//   context->download(y, bytes);
//
// Operations follow GGML's shape rules: [a, b] has a as its fastest dimension. Where a comment says
// "broadcast", the second operand's dimensions may be 1 or divide the first's.
// Shapes are the caller's duty (nn checks them by validation mode); a Context is used by one
// thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "ml/tensor.h"

namespace ollama::ml {

// Rotary position embedding. Source: Su et al. 2021 (RoFormer); YaRN: Peng et al. 2023.
struct RopeOptions {
  std::int32_t dimensions = 0;  // of each head that are rotated
  bool neox = false;            // pairs (i, i + dimensions / 2) instead of (2i, 2i + 1)
  float base = 10000.0F;
  float scale = 1.0F;  // frequency scale: 1 / the linear scaling factor
  std::int32_t original_context = 0;
  float extrapolation = 0.0F;  // YaRN's mix, 0: off
  float attention_factor = 1.0F;
  float beta_fast = 32.0F;
  float beta_slow = 1.0F;
};

enum class Activation : std::uint8_t {
  kSilu,
  kGelu,
  kGeluQuick,
  kGeluErf,
  kRelu,
  kTanh,
  kSigmoid,
  kSoftplus
};

// What fused attention is asked to serve.
struct AttentionConfig {
  std::int32_t head_dim_k = 0;
  std::int32_t head_dim_v = 0;
  DType k_type = DType::kF16;
  DType v_type = DType::kF16;
  bool sinks = false;
  bool soft_cap = false;
  auto operator<=>(const AttentionConfig&) const = default;
};

class Context;

// Which keys a token sees.
struct AttentionMask {
  Tensor visible;    // f16 [cells, tokens]: 0, or -inf where a cell is hidden
  Tensor positions;  // i32 [cells]: each cell's position in its sequence, where the backend wants
                     // to know (CacheConfig::cell_positions); else none
};

// The optional fused interface of a backend. See nn/attention.h for who asks when.
class ScaledDotProductAttention {
 public:
  virtual ~ScaledDotProductAttention() = default;
  virtual bool supports(const AttentionConfig& config) const = 0;
  // softmax(soft_cap(scale * q k^T) + mask) v, softmax over the keys and, where given, one sink
  // logit a head. q [head_dim_k, tokens, heads], k [head_dim_k, cells, kv_heads], v [head_dim_v,
  // cells, kv_heads], sinks f32 [heads] or none, soft_cap 0: off. Gives [head_dim_v, heads,
  // tokens].
  virtual Tensor scaled_dot_product_attention(Context& context, Tensor q, Tensor k, Tensor v,
                                              const AttentionMask& mask, Tensor sinks, float scale,
                                              float soft_cap) const = 0;
};

struct Upload {
  Tensor tensor;                     // an input
  std::span<const std::byte> bytes;  // of all of it, or of what lies at `offset`; read before
                                     // upload() returns
  std::size_t offset = 0;            // in bytes
};

// An intermediate result that has a name.
struct Observed {
  std::string_view name;  // "attn_norm-3": with its layer
  DType dtype;            // as computed
  Shape shape;
  std::span<const float> values;  // all of them, the fastest dimension first
};
using Observer = std::function<void(const Observed& tensor)>;

class Context {
 public:
  virtual ~Context() = default;

  // --- life cycle ---
  virtual void reset() = 0;
  // Allocates the graph that was built. Errors: kOutOfMemory.
  virtual Result<> prepare() = 0;
  // Bytes that the graph that was built would take on each of Backend::devices(), without
  // allocating it; inputs are not counted. Start a new graph after it.
  virtual Result<std::vector<std::uint64_t>> measure() = 0;
  // Bytes that graphs have taken on each of them.
  virtual std::vector<std::uint64_t> allocated() const = 0;
  // In one submission. What it leaves out keeps what it held.
  virtual Result<> upload(std::span<const Upload> uploads) = 0;
  // Runs the graph to its end. Errors: kInternal; kCancelled by the backend's abort check.
  virtual Result<> compute() = 0;
  virtual Result<> download(Tensor tensor, std::span<std::byte> bytes) = 0;

  // Hands every named result to `observer` during compute(), in the graph's order; slow. For graphs
  // that are begun (reset) after this call.
  virtual void observe(Observer observer) = 0;

  // --- structure ---
  virtual Tensor input(DType dtype, const Shape& shape, std::string_view name) = 0;
  // Marks a result that stays readable after compute().
  virtual Tensor output(Tensor tensor, std::string_view name) = 0;
  // Makes `tensor` part of the graph although nothing reads it (writes into a cache).
  virtual void keep(Tensor tensor) = 0;
  // A name for `ollama debug tensors`; `layer` < 0: none.
  virtual Tensor named(Tensor tensor, std::string_view name, int layer = -1) = 0;
  // The layer that following operations belong to, for placement on devices; < 0: none.
  virtual void set_layer(int layer) = 0;

  // --- arithmetic ---
  virtual Tensor add(Tensor a, Tensor b) = 0;  // broadcast
  virtual Tensor sub(Tensor a, Tensor b) = 0;  // broadcast
  virtual Tensor mul(Tensor a, Tensor b) = 0;  // broadcast
  virtual Tensor div(Tensor a, Tensor b) = 0;  // broadcast
  virtual Tensor scale(Tensor a, float factor) = 0;
  virtual Tensor clamp(Tensor a, float low, float high) = 0;
  virtual Tensor sum_rows(Tensor a) = 0;  // [n, ...] to [1, ...]
  virtual Tensor activate(Tensor a, Activation activation) = 0;
  // activation(gate) * up for silu, gelu and relu. Same shapes.
  virtual Tensor gated(Tensor gate, Tensor up, Activation activation) = 0;
  // gpt-oss: g = min(gate, limit), u = clamp(up, +-limit): g * sigmoid(alpha g) * (u + 1).
  virtual Tensor swiglu_oai(Tensor gate, Tensor up, float alpha, float limit) = 0;
  virtual Tensor rms_norm(Tensor a, float epsilon) = 0;    // over dimension 0
  virtual Tensor layer_norm(Tensor a, float epsilon) = 0;  // over dimension 0, mean removed
  // softmax over dimension 0 of (a * scale + mask); mask broadcast over dimension 2, may be none;
  // sinks: one more logit a head (dimension 2), may be none.
  virtual Tensor softmax(Tensor a, Tensor mask, Tensor sinks, float scale) = 0;
  // x [head_dim, heads, tokens], positions i32 [tokens], factors f32 [dimensions / 2] or none.
  virtual Tensor rope(Tensor x, Tensor positions, Tensor factors, const RopeOptions& options) = 0;

  // --- products ---
  // w [k, m, ...], x [k, n, ...] to f32 [m, n, ...]; w's dimensions 2 and 3 broadcast over x's.
  virtual Tensor mul_mat(Tensor w, Tensor x) = 0;
  // w [k, m, experts], x [k, used or 1, tokens], ids i32 [used, tokens] to [m, used, tokens].
  virtual Tensor mul_mat_id(Tensor w, Tensor x, Tensor ids) = 0;
  // a [n, used, tokens] plus the rows of b [n, experts] that ids [used, tokens] names.
  virtual Tensor add_id(Tensor a, Tensor b, Tensor ids) = 0;
  // Indices of the k largest of each row: i32 [k, rows], in no particular order.
  virtual Tensor top_k(Tensor a, std::int64_t k) = 0;

  // --- rows ---
  // a [n, rows, ...], ids i32 [count, ...] to f32 [n, count, ...].
  virtual Tensor get_rows(Tensor a, Tensor ids) = 0;
  // Writes src f32 [n, count] into the rows of dst that ids (i64 [count]) names, converting to its
  // type. Gives dst; keep() it.
  virtual Tensor set_rows(Tensor dst, Tensor src, Tensor ids) = 0;

  // --- shapes ---
  virtual Tensor reshape(Tensor a, const Shape& shape) = 0;  // a must be contiguous
  // Dimension i of `a` becomes dimension order[i] of the result.
  virtual Tensor permute(Tensor a, const std::array<int, 4>& order) = 0;
  virtual Tensor contiguous(Tensor a) = 0;
  // `length` indices of dimension `dim` from `start`, as a view.
  virtual Tensor slice(Tensor a, int dim, std::int64_t start, std::int64_t length) = 0;
  virtual Tensor concat(Tensor a, Tensor b, int dim) = 0;
  virtual Tensor repeat(Tensor a, const Shape& shape) = 0;
  virtual Tensor cast(Tensor a, DType dtype) = 0;
  // A copy of src's values into dst (same number of elements, any types). Gives dst; keep() it.
  virtual Tensor copy(Tensor src, Tensor dst) = 0;

  // The fused attention of this backend type; nullptr where it has none.
  virtual const ScaledDotProductAttention* fused_attention() const { return nullptr; }
};

// Runs the operations that were added to the context since reset() as one submission: one
// allocation, one upload of all inputs, one computation. For what would otherwise be many small
// ones, such as a change of every layer's cache.
Result<> batch_tensor_op(Context& context, std::span<const Upload> uploads);

}  // namespace ollama::ml
