// Attention over a cache of keys and values, on the CPU.
//
//   out = softmax(soft_cap(scale * q k^T) + mask) v
//
// with the softmax over the keys and, where given, one more logit a head (a sink, which takes part
// in the maximum and the sum only). The result of a token and head is the same bit for bit whatever
// else is in the batch, wherever in the cache its cells lie and however many threads compute: what
// is added to what, and in which order, follows from the positions of the keys alone. They fall
// into tiles of 64 positions and splits of 256. Within a split the softmax runs online, tile by
// tile; the splits are then merged in their order. (Milakov & Gimelshein 2018, Online normalizer
// calculation for softmax; Dao 2023, Flash-Decoding.)
//
//   plan_attention(...)                        once a step and mask, on one thread
//   attend(args, thread, threads, scratch)     of every layer, on every thread
//   merge_attention(args, thread, threads)     after all threads have returned from attend()
//
// The functions allocate nothing, take no locks and do not throw. Shapes are the caller's duty.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "ml/dtype.h"

namespace ollama::ml::kernels {

// Memory that the functions are given starts at a multiple of this many bytes.
inline constexpr std::size_t kAttentionAlignment = 64;

// heads is a multiple of kv_heads: query head h reads kv head h / (heads / kv_heads). Quantized
// keys or values have whole blocks, thus dimensions that are multiples of 32.
struct AttentionShape {
  std::int64_t head_dim_k = 0;
  std::int64_t head_dim_v = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t tokens = 0;
  std::int64_t cells = 0;
};

// Keys or values [head_dim, kv_heads, cells]; strides in bytes. The values of multi-head latent
// attention are a prefix of its keys: both views then start at the same address.
struct CacheView {
  DType type = DType::kF16;
  const std::byte* data = nullptr;
  std::size_t head_stride = 0;
  std::size_t cell_stride = 0;
};

// What each token sees.
struct AttentionMask {
  DType type = DType::kF16;  // or kF32
  // [cells, tokens]: 0 where visible, minus infinity where hidden, nothing else.
  const std::byte* data = nullptr;
  std::size_t token_stride = 0;  // in bytes
  // [cells]: where each cell stands in its sequence, at least 0, anything for cells that nobody
  // sees. None: the cell's index. Should two cells that a token sees have one position, or should
  // its positions spread over more than about `cells` numbers, then the cells' indices serve that
  // token: still correct, but no longer reproducible from place to place.
  const std::int32_t* positions = nullptr;
};

struct AttentionArgs {
  AttentionShape shape;
  const float* q = nullptr;        // [head_dim_k, heads, tokens]
  std::size_t q_head_stride = 0;   // in bytes
  std::size_t q_token_stride = 0;  // in bytes
  CacheView k;                     // cells that a token does not see may hold anything
  CacheView v;
  AttentionMask mask;            // the one that was planned
  const float* sinks = nullptr;  // [heads] or none
  float scale = 1.0F;
  float soft_cap = 0.0F;  // c: c * tanh(x / c); 0: off
  // Round to bf16 what is multiplied with keys or values in bf16. Sums stay f32.
  bool bf16_products = false;
  float* output = nullptr;          // [head_dim_v, heads, tokens], contiguous
  const std::byte* plan = nullptr;  // what plan_attention() wrote
  std::byte* partials = nullptr;    // attention_partials_bytes()
};

// f32, f16, bf16, q8_0, q4_0; of keys and values each by itself.
bool attention_supports(DType type);

// Whether this machine has instructions for products of bf16, which take half as long.
bool attention_multiplies_bf16_fast();

// How many (token, split) pairs attention of this shape has room to evaluate apart from each other,
// so that several threads share a token that decodes. Of several shapes that share a plan the
// smallest counts.
std::int64_t attention_partials(const AttentionShape& shape);
// Bytes of partial results, shared by all threads.
std::size_t attention_partials_bytes(const AttentionShape& shape);
// Bytes of scratch memory for each thread.
std::size_t attention_scratch_bytes(const AttentionShape& shape);
// Bytes of a plan: at most. It has no pointers and may be copied.
std::size_t attention_plan_bytes(std::int64_t tokens, std::int64_t cells);

// Finds what the tokens see, for any number of calls of attend() with this mask. `partials`: at
// most attention_partials() of each of them. `memory` holds attention_plan_bytes().
void plan_attention(const AttentionMask& mask, std::int64_t tokens, std::int64_t cells,
                    std::int64_t partials, std::span<std::byte> memory);

// Does the share of `thread`, one of 0..threads-1, each to be called once, in any order. With
// `next`, which is 0 before the first call, threads take tasks as they get free; else each has its
// own. The results are the same.
void attend(const AttentionArgs& args, std::int64_t thread, std::int64_t threads,
            std::span<std::byte> scratch, std::atomic<std::int64_t>* next = nullptr);

// Completes the output. Its share of `thread` likewise; `threads` may differ from attend()'s.
void merge_attention(const AttentionArgs& args, std::int64_t thread, std::int64_t threads);

}  // namespace ollama::ml::kernels
