#include "model/model.h"

#include <cmath>
#include <limits>

namespace ollama::model {

std::vector<kvcache::LayerSpec> Model::cache_layers() const {
  if (!config_.causal) return {};
  return std::vector<kvcache::LayerSpec>(
      static_cast<std::size_t>(config_.layers),
      {.head_dim_k = static_cast<std::int32_t>(config_.head_dim_k),
       .head_dim_v = static_cast<std::int32_t>(config_.head_dim_v),
       .kv_heads = static_cast<std::int32_t>(config_.kv_heads)});
}

// A block of the architectures here takes 30 to 80 tensors, views included.
std::size_t Model::max_nodes() const {
  return 256 + 128 * static_cast<std::size_t>(config_.layers);
}

ml::Tensor Binder::optional(std::string_view name, const ml::Shape& shape) {
  const ml::Tensor tensor = weights_.find(name);
  if (tensor && !ml::is_weight_type(tensor.dtype()) && !error_) {
    error_.emplace(ErrorCode::kCorrupt,
                   std::format("tensor {} has type {}, which no weight can have", name,
                               ml::dtype_name(tensor.dtype())));
  }
  if (tensor && tensor.shape() != shape && !error_) {
    const auto text = [](const ml::Shape& s) {
      return std::format("[{}, {}, {}, {}]", s[0], s[1], s[2], s[3]);
    };
    error_.emplace(ErrorCode::kCorrupt, std::format("tensor {} has shape {}, expected {}", name,
                                                    text(tensor.shape()), text(shape)));
  }
  return tensor;
}

ml::Tensor Binder::require(std::string_view name, const ml::Shape& shape) {
  const ml::Tensor tensor = optional(name, shape);
  if (!tensor && !error_) {
    error_.emplace(ErrorCode::kCorrupt, std::format("tensor {} is missing", name));
  }
  return tensor;
}

nn::Linear Binder::linear(std::string_view prefix, std::int64_t in, std::int64_t out) {
  return {.weight = require(std::format("{}.weight", prefix), {in, out, 1, 1}),
          .bias = optional(std::format("{}.bias", prefix), {out, 1, 1, 1})};
}

nn::Linear Binder::optional_linear(std::string_view prefix, std::int64_t in, std::int64_t out) {
  return {.weight = optional(std::format("{}.weight", prefix), {in, out, 1, 1}),
          .bias = optional(std::format("{}.bias", prefix), {out, 1, 1, 1})};
}

nn::RmsNorm Binder::rms_norm(std::string_view prefix, std::int64_t width, float epsilon) {
  return {.weight = require(std::format("{}.weight", prefix), {width, 1, 1, 1}),
          .epsilon = epsilon};
}

nn::RmsNorm Binder::optional_rms_norm(std::string_view prefix, std::int64_t width, float epsilon) {
  return {.weight = optional(std::format("{}.weight", prefix), {width, 1, 1, 1}),
          .epsilon = epsilon};
}

nn::LayerNorm Binder::layer_norm(std::string_view prefix, std::int64_t width, float epsilon) {
  return {.weight = require(std::format("{}.weight", prefix), {width, 1, 1, 1}),
          .bias = optional(std::format("{}.bias", prefix), {width, 1, 1, 1}),
          .epsilon = epsilon};
}

nn::Embedding Binder::embedding(std::string_view name, std::int64_t width, std::int64_t rows) {
  return {.weight = require(name, {width, rows, 1, 1})};
}

Result<> Binder::status() const {
  if (error_) return std::unexpected(*error_);
  return {};
}

std::string layer_name(std::int64_t layer, std::string_view name) {
  return std::format("blk.{}.{}", layer, name);
}

// A key's value within bounds that any real model keeps; hostile ones must not overflow what is
// computed from them.
Result<std::int64_t> read_bounded(const gguf::File& file, std::string_view key,
                                  std::optional<std::int64_t> fallback, std::int64_t low,
                                  std::int64_t high) {
  std::optional<std::int64_t> value = file.i64(key);
  if (!value) {
    // Per-layer arrays are accepted where every layer says the same.
    const std::vector<std::int32_t> list = file.i32s(key);
    if (!list.empty()) {
      for (const std::int32_t entry : list) {
        if (entry != list.front()) {
          return fail(ErrorCode::kUnsupported, "{}: differs between layers", key);
        }
      }
      value = list.front();
    }
  }
  if (!value) value = fallback;
  if (!value) return fail(ErrorCode::kCorrupt, "missing key {}{}", file.architecture(), key);
  if (*value < low || *value > high) {
    return fail(ErrorCode::kCorrupt, "{}{} is {}, expected {} to {}", file.architecture(), key,
                *value, low, high);
  }
  return *value;
}

namespace {

Result<ml::RopeOptions> read_rope(const gguf::File& file, const Config& config) {
  ml::RopeOptions rope;
  OLLAMA_ASSIGN(
      const std::int64_t dimensions,
      read_bounded(file, ".rope.dimension_count", config.head_dim_k, 0, config.head_dim_k));
  if (dimensions % 2 != 0) {
    return fail(ErrorCode::kCorrupt, "{}.rope.dimension_count is odd", config.architecture);
  }
  rope.dimensions = static_cast<std::int32_t>(dimensions);
  rope.base = file.f32(".rope.freq_base").value_or(10000.0F);
  const std::string_view scaling = file.string(".rope.scaling.type").value_or("linear");
  const float factor =
      file.f32(".rope.scaling.factor").value_or(file.f32(".rope.scale_linear").value_or(0.0F));
  if (scaling != "none" && factor > 0.0F) rope.scale = 1.0F / factor;
  if (scaling == "yarn") {
    rope.extrapolation = file.f32(".rope.scaling.yarn_ext_factor").value_or(1.0F);
    rope.beta_fast = file.f32(".rope.scaling.yarn_beta_fast").value_or(32.0F);
    rope.beta_slow = file.f32(".rope.scaling.yarn_beta_slow").value_or(1.0F);
  }
  rope.attention_factor = file.f32(".rope.scaling.attn_factor").value_or(1.0F);
  OLLAMA_ASSIGN(const std::int64_t original,
                read_bounded(file, ".rope.scaling.original_context_length", config.context_length,
                             1, std::numeric_limits<std::int32_t>::max()));
  rope.original_context = static_cast<std::int32_t>(original);
  return rope;
}

// The numbers are llama.cpp's. 0, none, means for Ollama what generating models do without the key.
Result<Pooling> read_pooling(const gguf::File& file, bool causal) {
  OLLAMA_ASSIGN(const std::int64_t type, read_bounded(file, ".pooling_type", causal ? 3 : 1, 0, 4));
  if (gguf::ranks_texts(file)) return Pooling::kRank;
  switch (type) {
    case 1:
      return Pooling::kMean;
    case 2:
      return Pooling::kFirst;
    default:
      return Pooling::kLast;
  }
}

}  // namespace

Result<Config> read_config(const gguf::File& file) {
  constexpr std::int64_t kMaxWidth = 1 << 20;
  Config c;
  c.architecture = file.architecture();
  OLLAMA_ASSIGN(c.layers, read_bounded(file, ".block_count", std::nullopt, 1, 4096));
  OLLAMA_ASSIGN(c.context_length, read_bounded(file, ".context_length", std::nullopt, 1,
                                               std::numeric_limits<std::int32_t>::max()));
  OLLAMA_ASSIGN(c.embedding_length,
                read_bounded(file, ".embedding_length", std::nullopt, 1, kMaxWidth));
  OLLAMA_ASSIGN(c.feed_forward_length,
                read_bounded(file, ".feed_forward_length", 0, 0, kMaxWidth * 16));
  OLLAMA_ASSIGN(c.heads, read_bounded(file, ".attention.head_count", std::nullopt, 1, 4096));
  OLLAMA_ASSIGN(c.kv_heads, read_bounded(file, ".attention.head_count_kv", c.heads, 1, c.heads));
  if (c.heads % c.kv_heads != 0) {
    return fail(ErrorCode::kCorrupt, "{} heads are no multiple of {} key heads", c.heads,
                c.kv_heads);
  }
  const std::int64_t head_dim = c.embedding_length / c.heads;
  OLLAMA_ASSIGN(c.head_dim_k, read_bounded(file, ".attention.key_length", head_dim, 1, 8192));
  OLLAMA_ASSIGN(c.head_dim_v, read_bounded(file, ".attention.value_length", head_dim, 1, 8192));
  c.norm_epsilon = file.f32(".attention.layer_norm_rms_epsilon")
                       .value_or(file.f32(".attention.layer_norm_epsilon").value_or(1e-5F));
  OLLAMA_ASSIGN(c.experts, read_bounded(file, ".expert_count", 0, 0, 4096));
  OLLAMA_ASSIGN(c.experts_used, read_bounded(file, ".expert_used_count", 0, 0, c.experts));
  if (c.experts > 0 && c.experts_used == 0) {
    return fail(ErrorCode::kCorrupt, "{}.expert_used_count is missing", c.architecture);
  }
  OLLAMA_ASSIGN(
      c.expert_feed_forward_length,
      read_bounded(file, ".expert_feed_forward_length", c.feed_forward_length, 0, kMaxWidth * 16));
  OLLAMA_ASSIGN(c.sliding_window, read_bounded(file, ".attention.sliding_window", 0, 0,
                                               std::numeric_limits<std::int32_t>::max()));
  c.causal = file.boolean(".attention.causal").value_or(true);
  OLLAMA_ASSIGN(c.pooling, read_pooling(file, c.causal));
  const float scale = file.f32(".attention.scale").value_or(0.0F);
  c.attention_scale = scale != 0.0F ? scale : 1.0F / std::sqrt(static_cast<float>(c.head_dim_k));
  OLLAMA_ASSIGN(c.rope, read_rope(file, c));
  // The embedding table is the truth about the vocabulary's size.
  const gguf::TensorInfo* table = file.find_tensor("token_embd.weight");
  if (table == nullptr) return fail(ErrorCode::kCorrupt, "tensor token_embd.weight is missing");
  c.vocab_size = table->shape[1];
  return c;
}

}  // namespace ollama::model
