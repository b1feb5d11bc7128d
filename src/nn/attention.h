// Attention over a cache: the backend's fused interface where it serves, else the plain
// composition. Source: Vaswani et al. 2017; grouped heads: Ainslie et al. 2023.
#pragma once

#include <mutex>
#include <vector>

#include "kvcache/cache.h"
#include "ml/context.h"

namespace ollama::nn {

// When shapes are checked: at every call, at the first call of each combination of shapes, or
// never.
enum class Validation : std::uint8_t { kEnabled, kOnce, kDisabled };

struct AttentionOptions {
  float scale = 1.0F;     // of q k^T; usually 1 / sqrt(head_dim)
  float soft_cap = 0.0F;  // logits become cap * tanh(logits / cap); 0: off
  ml::Tensor sinks;       // f32 [heads] or none
};

// Remembers what a backend's fused attention serves: whether the interface exists is asked once,
// whether it serves a configuration once for each. Also remembers which shapes were checked.
// Thread-safe; one an engine.
class AttentionSupport {
 public:
  explicit AttentionSupport(Validation validation = Validation::kOnce) : validation_(validation) {}

  // The fused interface, if it serves `config`; else nullptr.
  const ml::ScaledDotProductAttention* find(const ml::Context& context,
                                            const ml::AttentionConfig& config);
  // Errors are constants: nothing is formatted or allocated after a shape's first check.
  Result<> validate(ml::Tensor q, const kvcache::KeysValues& kv, const AttentionOptions& options);

  std::uint64_t probes() const { return probes_; }  // questions that reached the backend

 private:
  struct ShapeKey {
    ml::Shape q, k, v, mask;
    auto operator<=>(const ShapeKey&) const = default;
  };

  const Validation validation_;
  std::mutex mutex_;
  bool asked_ = false;
  const ml::ScaledDotProductAttention* interface_ = nullptr;
  std::vector<std::pair<ml::AttentionConfig, bool>> served_;
  std::vector<ShapeKey> checked_;
  std::uint64_t probes_ = 0;
};

// q [head_dim_k, heads, tokens], kv as the cache gives it. Gives [head_dim_v * heads, tokens].
Result<ml::Tensor> attention(ml::Context& ctx, AttentionSupport& support, ml::Tensor q,
                             const kvcache::KeysValues& kv, const AttentionOptions& options);

}  // namespace ollama::nn
