#include "convert/metadata.h"

#include <boost/json/array.hpp>
#include <cmath>
#include <format>
#include <limits>

#include "gguf/parse.h"

namespace ollama::convert {
namespace {

constexpr std::int64_t kMaxInt = std::numeric_limits<std::int32_t>::max();
// llama.cpp's numbers for how the states of tokens become an embedding, or a score.
constexpr std::uint32_t kMean = 1, kFirst = 2, kLast = 3, kRank = 4;

// Every n-th layer of these sees everything, which is part of the architecture in a model file.
std::int64_t window_period(const Family& family) { return family.architecture == "gemma2" ? 2 : 6; }

void check_activation(Config& config, const Family& family) {
  // Gemma's "hidden_act" says what was published first, "hidden_activation" what is computed.
  const bool newer = member(config.json(), "hidden_activation") != nullptr;
  const std::string activation =
      config.text(newer ? "hidden_activation" : "hidden_act", family.activation);
  if (activation == family.activation) return;
  if (family.windowed && !newer && activation == "gelu") return;
  config.fail_with(ErrorCode::kUnsupported,
                   std::format("config.json: a {} model with the activation '{}' cannot be run, "
                               "only with '{}'",
                               family.name, gguf::printable(activation), family.activation));
}

// Which layers see a window cannot be said in a model file: it must be the usual ones.
void check_windows(Config& config, const Family& family, std::int64_t layers) {
  const std::int64_t period = window_period(family);
  for (const std::string_view key : {"sliding_window_pattern", "_sliding_window_pattern"}) {
    if (config.integer(key, period) != period) {
      config.fail_with(ErrorCode::kUnsupported,
                       std::format("config.json: {} must be {}", key, period));
    }
  }
  const auto* types = array_member(config.json(), "layer_types");
  if (types == nullptr) return;
  bool usual = std::ssize(*types) == layers;
  for (std::size_t i = 0; usual && i < types->size(); ++i) {
    const bool full = (static_cast<std::int64_t>(i) + 1) % period == 0;
    const auto* type = (*types)[i].if_string();
    usual = type != nullptr && view_of(*type) == (full ? "full_attention" : "sliding_attention");
  }
  if (!usual) {
    config.fail_with(ErrorCode::kUnsupported,
                     std::format("config.json: layer_types must have a layer of full attention "
                                 "after every {} with a sliding window",
                                 period - 1));
  }
}

std::int64_t rotated_dimensions(Config& config, const Family& family, std::int64_t head) {
  const auto* parameters = object_member(config.json(), "rope_parameters");
  const double nested = parameters == nullptr
                            ? 1.0
                            : number_member(*parameters, "partial_rotary_factor").value_or(1.0);
  const double share = config.number("partial_rotary_factor", nested);
  const auto rotated =
      static_cast<std::int64_t>(share > 0 && share <= 1 ? share * static_cast<double>(head) : 0.0);
  if (rotated < 2 || rotated % 2 != 0 || (share != 1 && family.name != "phi3")) {
    config.fail_with(ErrorCode::kUnsupported,
                     std::format("config.json: partial_rotary_factor is {}, which a {} model "
                                 "cannot have here",
                                 share, family.name));
    return head;
  }
  return rotated;
}

// Keys that begin with the architecture's name.
class Keys {
 public:
  Keys(gguf::Writer& writer, std::string_view architecture)
      : writer_(writer), architecture_(architecture) {}

  void set(std::string_view key, std::int64_t value) {
    writer_.set_u32(name(key), static_cast<std::uint32_t>(value));
  }
  void set_float(std::string_view key, double value) {
    writer_.set_f32(name(key), static_cast<float>(value));
  }
  void set_text(std::string_view key, std::string_view value) {
    writer_.set_string(name(key), value);
  }
  void set_texts(std::string_view key, std::vector<std::string> values) {
    writer_.set_strings(name(key), std::move(values));
  }
  void set_flag(std::string_view key, bool value) { writer_.set_bool(name(key), value); }

 private:
  std::string name(std::string_view key) const { return std::format("{}.{}", architecture_, key); }

  gguf::Writer& writer_;
  std::string_view architecture_;
};

void write_rope(Keys& keys, const Family& family, const Hyperparameters& hyper) {
  const Rope& rope = hyper.rope;
  keys.set("rope.dimension_count", hyper.rotated);
  keys.set_float("rope.freq_base", rope.base);
  if (family.name == "gemma3") keys.set_float("rope.freq_base_swa", rope.local_base);
  if (!rope.scaling.empty()) {
    keys.set_text("rope.scaling.type", rope.scaling);
    keys.set_float("rope.scaling.factor", rope.factor);
  }
  if (rope.scaling == "yarn" || family.rope.longrope) {
    keys.set("rope.scaling.original_context_length", rope.original_context);
  }
  if (rope.attention_factor > 0) keys.set_float("rope.scaling.attn_factor", rope.attention_factor);
  if (rope.beta_fast > 0) keys.set_float("rope.scaling.yarn_beta_fast", rope.beta_fast);
  if (rope.beta_slow > 0) keys.set_float("rope.scaling.yarn_beta_slow", rope.beta_slow);
}

void write_gemma(Keys& keys, Config& config, const Family& family, const Hyperparameters& hyper) {
  const bool second = family.name == "gemma2";
  keys.set("attention.sliding_window", config.integer("sliding_window", 4096, 1, kMaxInt));
  // A cap that is null is none; one that is missing is the usual one.
  const auto cap = [&](std::string_view from, std::string_view to, double usual) {
    const double value = config.json().contains(from) || !second ? config.number(from, 0) : usual;
    if (value > 0) keys.set_float(to, value);
  };
  cap("attn_logit_softcapping", "attn_logit_softcapping", 50);
  cap("final_logit_softcapping", "final_logit_softcapping", 30);
  const double scalar = config.number("query_pre_attn_scalar", 256);
  if (scalar > 0 && scalar != static_cast<double>(hyper.head)) {
    keys.set_float("attention.scale", 1 / std::sqrt(scalar));
  }
}

void write_classifier(Keys& keys, const Config& config, const Hyperparameters& hyper) {
  const auto* names = object_member(config.json(), "id2label");
  std::vector<std::string> labels;
  for (std::int64_t i = 0; i < hyper.labels; ++i) {
    const auto name = names == nullptr ? std::nullopt : string_member(*names, std::to_string(i));
    labels.emplace_back(name ? std::string(*name) : std::format("LABEL_{}", i));
  }
  keys.set("pooling_type", kRank);
  keys.set_texts("classifier.output_labels", std::move(labels));
}

// How states become an embedding, where sentence-transformers says so or the model gives nothing
// else.
Result<> write_pooling(Keys& keys, const Source& source, const Family& family) {
  OLLAMA_ASSIGN(const api::JsonObject pooling, source.json("1_Pooling/config.json"));
  if (pooling.empty() && !family.encoder) return {};
  const auto wants = [&](std::string_view key) {
    return bool_member(pooling, key).value_or(false);
  };
  keys.set("pooling_type", wants("pooling_mode_cls_token")   ? kFirst
                           : wants("pooling_mode_lasttoken") ? kLast
                                                             : kMean);
  return {};
}

}  // namespace

std::int64_t Hyperparameters::length(Length which) const {
  switch (which) {
    case Length::kNone:
      return 0;
    case Length::kWidth:
      return width;
    case Length::kVocabulary:
      return vocabulary;
    case Length::kQueries:
      return heads * head;
    case Length::kKeys:
      return kv_heads * head;
    case Length::kQkv:
      return (heads + 2 * kv_heads) * head;
    case Length::kHead:
      return head;
    case Length::kInner:
      return inner;
    case Length::kGateAndUp:
      return 2 * inner;
    case Length::kPositions:
      return context;
    case Length::kSegments:
      return segments;
    case Length::kLabels:
      return labels;
  }
  return 0;
}

Result<Hyperparameters> read_hyperparameters(Config& config, const Family& family) {
  // Gemma 3's are often left out where they are those of its smallest model.
  const auto usual = [&](std::int64_t value) {
    return family.name == "gemma3" ? std::optional(value) : std::nullopt;
  };
  Hyperparameters h;
  h.layers = config.integer("num_hidden_layers", usual(26), 1, 4096);
  h.context = config.integer("max_position_embeddings", usual(131072), 1, kMaxInt);
  if (family.padded_positions) {
    h.padding = config.integer("pad_token_id", 1, 0, h.context - 2) + 1;
    h.context -= h.padding;
  }
  h.width = config.integer("hidden_size", usual(2304));
  h.inner = config.integer("intermediate_size", usual(9216), 1, 1 << 24);
  h.heads = config.integer("num_attention_heads", usual(8), 1, 4096);
  h.kv_heads = config.integer("num_key_value_heads", usual(4).value_or(h.heads), 1, h.heads);
  h.head = config.integer(
      "head_dim", family.default_head > 0 ? family.default_head : h.width / h.heads, 1, 8192);
  h.segments = config.integer("type_vocab_size", 2, 1, 1 << 16);
  h.epsilon =
      config.number(family.encoder ? "layer_norm_eps" : "rms_norm_eps", family.default_epsilon);
  if (member(config.json(), "tie_word_embeddings") != nullptr || family.tied) {
    h.tied = config.flag("tie_word_embeddings", family.tied);
  }
  // Models without a head ("Qwen3Model") give embeddings only.
  if (config.architecture().ends_with("Model")) h.tied.reset();
  if (h.heads % h.kv_heads != 0) {
    config.fail_with(ErrorCode::kCorrupt,
                     std::format("config.json: {} attention heads are no multiple of {} key heads",
                                 h.heads, h.kv_heads));
  }
  check_activation(config, family);
  if (family.windowed) check_windows(config, family, h.layers);
  if (family.encoder) {
    if (config.text("position_embedding_type", "absolute") != "absolute") {
      config.fail_with(ErrorCode::kUnsupported,
                       "config.json: position_embedding_type must be absolute");
    }
  } else {
    h.rotated = rotated_dimensions(config, family, h.head);
    h.rope = read_rope(config, family.rope, h.rotated, h.context);
  }
  OLLAMA_TRY(config.status());
  return h;
}

Result<> write_metadata(gguf::Writer& writer, Config& config, const Source& source,
                        const Family& family, const Hyperparameters& hyper) {
  writer.set_string("general.architecture", family.architecture);
  writer.set_string("general.type", "model");
  Keys keys(writer, family.architecture);
  keys.set("block_count", hyper.layers);
  keys.set("context_length", hyper.context);
  keys.set("embedding_length", hyper.width);
  keys.set("feed_forward_length", hyper.inner);
  keys.set("attention.head_count", hyper.heads);
  keys.set("vocab_size", hyper.vocabulary);
  if (hyper.labels > 0) {
    write_classifier(keys, config, hyper);
  } else {
    OLLAMA_TRY(write_pooling(keys, source, family));
  }
  if (family.encoder) {
    keys.set_float("attention.layer_norm_epsilon", hyper.epsilon);
    keys.set_flag("attention.causal", false);
    writer.set_u32("tokenizer.ggml.token_type_count", static_cast<std::uint32_t>(hyper.segments));
    return config.status();
  }
  keys.set("attention.head_count_kv", hyper.kv_heads);
  keys.set_float("attention.layer_norm_rms_epsilon", hyper.epsilon);
  keys.set("attention.key_length", hyper.head);
  keys.set("attention.value_length", hyper.head);
  write_rope(keys, family, hyper);
  if (family.windowed) write_gemma(keys, config, family, hyper);
  if (family.name == "phi3") {
    keys.set("attention.sliding_window", config.integer("sliding_window", 0, 0, kMaxInt));
  }
  return config.status();
}

}  // namespace ollama::convert
