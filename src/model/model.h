// A model: weights of one architecture and the graph of its forward pass. Each architecture is one
// file under arch/ that reads like the paper; here is what they share.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "gguf/file.h"
#include "kvcache/cache.h"
#include "ml/backend.h"
#include "nn/layers.h"
#include "nn/self_attention.h"
#include "nn/step.h"

namespace ollama::model {

// How the states of a text's tokens become its embedding. kRank: they do not, but the first one
// becomes a score of the pair of texts that it begins.
enum class Pooling : std::uint8_t { kMean, kFirst, kLast, kRank };

// What most architectures say of themselves, read and bounded once. Keys are those that llama.cpp's
// converters write.
struct Config {
  std::string architecture;
  std::int64_t vocab_size = 0;
  std::int64_t context_length = 0;
  std::int64_t embedding_length = 0;
  std::int64_t layers = 0;
  std::int64_t feed_forward_length = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim_k = 0;
  std::int64_t head_dim_v = 0;
  std::int64_t experts = 0;  // of mixture-of-experts models; 0: none
  std::int64_t experts_used = 0;
  std::int64_t expert_feed_forward_length = 0;
  std::int64_t sliding_window = 0;
  bool causal = true;  // tokens see only those before them; else all of their text
  Pooling pooling = Pooling::kLast;
  float norm_epsilon = 1e-5F;
  float attention_scale = 0.0F;  // 1 / sqrt(head_dim_k) unless the file says otherwise
  ml::RopeOptions rope;
};

// Errors: kCorrupt with the key that is missing or out of its range.
Result<Config> read_config(const gguf::File& file);

// An integer of the file's, or `fallback`; kCorrupt outside [low, high] or when it is missing
// without a fallback. For keys that only some architectures have.
Result<std::int64_t> read_bounded(const gguf::File& file, std::string_view key,
                                  std::optional<std::int64_t> fallback, std::int64_t low,
                                  std::int64_t high);

using nn::Step;

class Model {
 public:
  explicit Model(Config config) : config_(std::move(config)) {}
  virtual ~Model() = default;

  const Config& config() const { return config_; }
  // What each layer keeps in the cache; nothing of a model that is not causal.
  virtual std::vector<kvcache::LayerSpec> cache_layers() const;
  // Adds the forward pass to the step's graph: logits f32 [vocab, outputs]; for models without an
  // output matrix the last states [embedding_length, outputs]; for those that rank what their
  // classifier makes of them, [output_width, outputs].
  virtual Result<ml::Tensor> forward(Step& step) const = 0;
  virtual std::int64_t output_width() const { return config_.vocab_size; }
  // Whether it tells the two texts of a pair apart by Step::segments.
  virtual bool reads_segments() const { return false; }
  // The state before the output matrix instead: f32 [embedding_length, outputs].
  virtual Result<ml::Tensor> hidden_states(Step& step) const = 0;
  // How a layer makes its keys, for turning cached ones to other positions; null where that cannot
  // be done.
  virtual const nn::SelfAttention* attention(int /*layer*/) const { return nullptr; }
  // Upper bound of tensors in a forward graph.
  virtual std::size_t max_nodes() const;

 protected:
  Config config_;
};

// Binds a model's tensors by name, checking each one's shape; keeps the first error.
class Binder {
 public:
  explicit Binder(const ml::Weights& weights) : weights_(weights) {}

  // The tensor, whatever its shape, or none.
  ml::Tensor find(std::string_view name) const { return weights_.find(name); }
  // The tensor, which must exist with this shape.
  ml::Tensor require(std::string_view name, const ml::Shape& shape);
  // The tensor or none; when it exists its shape must be this.
  ml::Tensor optional(std::string_view name, const ml::Shape& shape);

  // "PREFIX.weight" [in, out] and, where the file has it, "PREFIX.bias" [out].
  nn::Linear linear(std::string_view prefix, std::int64_t in, std::int64_t out);
  nn::Linear optional_linear(std::string_view prefix, std::int64_t in, std::int64_t out);
  nn::RmsNorm rms_norm(std::string_view prefix, std::int64_t width, float epsilon);
  nn::RmsNorm optional_rms_norm(std::string_view prefix, std::int64_t width, float epsilon);
  // "PREFIX.weight" and, where the file has it, "PREFIX.bias".
  nn::LayerNorm layer_norm(std::string_view prefix, std::int64_t width, float epsilon);
  nn::Embedding embedding(std::string_view name, std::int64_t width, std::int64_t rows);

  // The first error: kCorrupt, with the tensor's name and what is wrong with it.
  Result<> status() const;

 private:
  const ml::Weights& weights_;
  std::optional<Error> error_;
};

// "blk.LAYER.NAME"
std::string layer_name(std::int64_t layer, std::string_view name);

// Makes the model that a file describes on weights that were loaded from it. Errors: kUnsupported
// for an architecture that is not known (it is named), kCorrupt for missing keys and tensors.
Result<std::unique_ptr<Model>> new_model(const gguf::File& file, const ml::Weights& weights);
// The architectures that new_model knows, sorted.
std::span<const std::string_view> architectures();

}  // namespace ollama::model
