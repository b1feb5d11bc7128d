// Attention over a cache: the backend's fused interface where it serves, else the plain
// composition. Source: Vaswani et al. 2017; grouped heads: Ainslie et al. 2023.
#pragma once

#include <array>
#include <atomic>
#include <mutex>

#include "kvcache/cache.h"
#include "ml/context.h"
#include "nn/validation.h"

namespace ollama::nn {

struct AttentionOptions {
  float scale = 1.0F;     // of q k^T; usually 1 / sqrt(head_dim)
  float soft_cap = 0.0F;  // logits become cap * tanh(logits / cap); 0: off
  ml::Tensor sinks;       // f32 [heads] or none
};

// Remembers what a backend's fused attention serves: whether the interface exists is asked once,
// whether it serves a configuration once for each. Also remembers which shapes were checked.
// Thread-safe: what is known already takes no lock. One an engine: all contexts that it sees are of
// one backend.
class AttentionSupport {
 public:
  explicit AttentionSupport(Validation validation = Validation::kOnce) : validation_(validation) {}

  // The fused interface, if it serves `config`; else nullptr.
  const ml::ScaledDotProductAttention* find(const ml::Context& context,
                                            const ml::AttentionConfig& config);
  // Errors are constants: nothing is formatted or allocated.
  Result<> validate(ml::Tensor q, const kvcache::KeysValues& kv, const AttentionOptions& options);

  Validation validation() const { return validation_; }
  std::uint64_t probes() const { return probes_; }  // questions that reached the backend
  // Shapes that kOnce has checked and found right; one that was forgotten counts again.
  std::uint64_t shapes() const { return shapes_; }

 private:
  struct Answer {
    ml::AttentionConfig config;
    const ml::ScaledDotProductAttention* fused = nullptr;
  };
  // A model has one to three configurations. What exceeds this is asked for again.
  static constexpr std::size_t kMaxAnswers = 16;
  // Shapes that share a slot take turns in it and are checked again.
  static constexpr std::size_t kSlots = 256;

  const ml::ScaledDotProductAttention* ask(const ml::Context& context,
                                           const ml::AttentionConfig& config);

  const Validation validation_;
  std::mutex mutex_;  // who asks and writes an answer
  bool asked_ = false;
  const ml::ScaledDotProductAttention* interface_ = nullptr;
  std::array<Answer, kMaxAnswers> answers_;
  std::atomic<std::size_t> answer_count_ = 0;  // answers before this one do not change any more
  std::atomic<std::uint64_t> probes_ = 0;
  std::array<std::atomic<std::uint64_t>, kSlots> checked_{};  // fingerprints of shapes; 0: none
  std::atomic<std::uint64_t> shapes_ = 0;
};

// q [head_dim_k, heads, tokens], kv as the cache gives it. Gives [head_dim_v * heads, tokens].
Result<ml::Tensor> attention(ml::Context& ctx, AttentionSupport& support, ml::Tensor q,
                             const kvcache::KeysValues& kv, const AttentionOptions& options);

}  // namespace ollama::nn
