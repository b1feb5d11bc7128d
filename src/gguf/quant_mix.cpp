#include "gguf/quant_mix.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/units.h"

namespace ollama::gguf {
namespace {

constexpr std::array<QuantMix, 20> kMixes = {{
    {"F32", 0, GGML_TYPE_F32},        {"F16", 1, GGML_TYPE_F16},
    {"BF16", 32, GGML_TYPE_BF16},     {"Q8_0", 7, GGML_TYPE_Q8_0},
    {"Q4_0", 2, GGML_TYPE_Q4_0},      {"Q4_1", 3, GGML_TYPE_Q4_1},
    {"Q5_0", 8, GGML_TYPE_Q5_0},      {"Q5_1", 9, GGML_TYPE_Q5_1},
    {"Q2_K", 10, GGML_TYPE_Q2_K},     {"Q3_K_S", 11, GGML_TYPE_Q3_K},
    {"Q3_K_M", 12, GGML_TYPE_Q3_K},   {"Q3_K_L", 13, GGML_TYPE_Q3_K},
    {"Q4_K_S", 14, GGML_TYPE_Q4_K},   {"Q4_K_M", 15, GGML_TYPE_Q4_K},
    {"Q5_K_S", 16, GGML_TYPE_Q5_K},   {"Q5_K_M", 17, GGML_TYPE_Q5_K},
    {"Q6_K", 18, GGML_TYPE_Q6_K},     {"IQ4_NL", 25, GGML_TYPE_IQ4_NL},
    {"IQ4_XS", 30, GGML_TYPE_IQ4_XS}, {"MXFP4", 38, GGML_TYPE_MXFP4},
}};

bool same_name(std::string_view a, std::string_view b) {
  return std::ranges::equal(
      a, b, [](unsigned char x, unsigned char y) { return std::toupper(x) == std::toupper(y); });
}

// A layer's number among those that have such a tensor, and how many have.
struct Rank {
  std::uint32_t layer = 0;
  std::uint32_t layers = 0;
};

Rank rank_of(std::string_view tensor, std::uint32_t layers,
             const std::vector<std::uint32_t>& having) {
  const std::uint32_t layer = layer_of(tensor).value_or(0);
  if (having.empty()) return {layer, layers};
  const auto at = std::ranges::lower_bound(having, layer);
  return {static_cast<std::uint32_t>(at - having.begin()),
          static_cast<std::uint32_t>(having.size())};
}

// The first and last eighth of the layers, and every third between, lose most by fewer bits.
bool sensitive(Rank rank) {
  const std::uint32_t eighth = rank.layers / 8;
  return rank.layer < eighth || rank.layer >= 7 * rank.layers / 8 || (rank.layer - eighth) % 3 == 2;
}

bool is_output(std::string_view tensor, const MixModel& model) {
  return tensor == "output.weight" ||
         (model.tied_output &&
          (tensor == "token_embd.weight" || tensor == "per_layer_token_embd.weight"));
}

// Models of 70 thousand million weights: eight heads share their values, which are small then.
bool is_70b(const MixModel& model) {
  if (model.layers != 80) return false;
  const std::string_view architecture = model.architecture;
  return architecture == "qwen2" || architecture == "qwen2vl" || architecture == "deci" ||
         (architecture == "llama" && model.heads_per_kv_head > 1);
}

bool holds_values(std::string_view tensor) {
  return tensor.contains("attn_v.weight") || tensor.contains("attn_qkv.weight") ||
         tensor.contains("attn_kv_b.weight");
}

ggml_type value_type(const QuantMix& mix, const MixModel& model, std::string_view tensor) {
  if (model.experts == 8) return GGML_TYPE_Q8_0;  // small beside the experts
  const Rank rank = rank_of(tensor, model.layers, model.value_layers);
  const bool shared = model.heads_per_kv_head >= 4;
  ggml_type type = mix.type;
  if (mix.name == "Q2_K") {
    type = shared ? GGML_TYPE_Q4_K : GGML_TYPE_Q3_K;
  } else if (mix.name == "Q3_K_M") {
    type = rank.layer < 2 ? GGML_TYPE_Q5_K : GGML_TYPE_Q4_K;
  } else if (mix.name == "Q3_K_L" || (mix.name == "Q4_K_S" && rank.layer < 4) ||
             (mix.name.starts_with("IQ4") && shared)) {
    type = GGML_TYPE_Q5_K;
  } else if ((mix.name == "Q4_K_M" || mix.name == "Q5_K_M") && sensitive(rank)) {
    type = GGML_TYPE_Q6_K;
  }
  const bool few_bits = type == GGML_TYPE_Q3_K || type == GGML_TYPE_Q4_K;
  return few_bits && is_70b(model) ? GGML_TYPE_Q5_K : type;
}

// Falcon's layers have no attention output of their own kind to spend bits on, and fewer go here.
ggml_type falcon_down_type(const QuantMix& mix, Rank rank) {
  const bool first = rank.layer < rank.layers / 16;
  if (mix.name == "Q3_K_M") {
    if (first) return GGML_TYPE_Q5_K;
    return sensitive(rank) ? GGML_TYPE_Q4_K : GGML_TYPE_Q3_K;
  }
  if (mix.name == "Q3_K_L") return GGML_TYPE_Q4_K;
  if (mix.name == "Q4_K_M") {
    if (first) return GGML_TYPE_Q6_K;
    return sensitive(rank) ? GGML_TYPE_Q5_K : GGML_TYPE_Q4_K;
  }
  return mix.type;
}

ggml_type down_type(const QuantMix& mix, const MixModel& model, std::string_view tensor) {
  // Experts of a layer come as several tensors: there it is the layer itself that counts.
  const Rank rank = model.experts > 1
                        ? rank_of(tensor, model.layers, {})
                        : Rank{rank_of(tensor, 0, model.down_layers).layer, model.layers};
  const bool first = rank.layer < rank.layers / 8;
  if (model.architecture == "falcon" &&
      (mix.name.starts_with("Q3_K") || mix.name.starts_with("Q4_K")))
    return falcon_down_type(mix, rank);
  if (mix.name == "Q2_K") return GGML_TYPE_Q3_K;
  if (mix.name == "Q3_K_M") return rank.layer < rank.layers / 16 ? GGML_TYPE_Q5_K : GGML_TYPE_Q4_K;
  if (mix.name == "Q3_K_L") return GGML_TYPE_Q5_K;
  if (first && (mix.name == "Q4_K_S" || mix.name.starts_with("IQ4"))) return GGML_TYPE_Q5_K;
  if ((mix.name == "Q4_K_M" || mix.name == "Q5_K_M") && sensitive(rank)) return GGML_TYPE_Q6_K;
  return mix.type;
}

ggml_type attention_output_type(const QuantMix& mix, const MixModel& model) {
  if (model.architecture == "falcon") return mix.name == "Q3_K_L" ? GGML_TYPE_Q4_K : mix.type;
  if (model.experts == 8) {
    for (const std::string_view name :
         {"Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M", "IQ4_NL", "IQ4_XS"}) {
      if (mix.name == name) return GGML_TYPE_Q5_K;
    }
    return mix.type;
  }
  if (mix.name == "Q2_K") return GGML_TYPE_Q3_K;
  if (mix.name == "Q3_K_M") return GGML_TYPE_Q4_K;
  if (mix.name == "Q3_K_L") return GGML_TYPE_Q5_K;
  return mix.type;
}

ggml_type output_type(const QuantMix& mix, const MixModel& model) {
  const bool eight = mix.type == GGML_TYPE_Q8_0 || mix.type == GGML_TYPE_MXFP4;
  return eight || model.architecture == "falcon" ? GGML_TYPE_Q8_0 : GGML_TYPE_Q6_K;
}

ggml_type mixed_type(const QuantMix& mix, const MixModel& model, std::string_view tensor,
                     std::span<const std::int64_t> shape) {
  if (is_output(tensor, model)) return output_type(mix, model);
  if (mix.type == GGML_TYPE_MXFP4) {  // only the experts of such a file are MXFP4
    return shape.size() > 2 && shape[2] > 1 ? GGML_TYPE_MXFP4 : GGML_TYPE_Q8_0;
  }
  if (tensor == "token_embd.weight" || tensor == "per_layer_token_embd.weight") return mix.type;
  if (holds_values(tensor)) return value_type(mix, model, tensor);
  if (tensor.contains("attn_k.weight")) return model.experts == 8 ? GGML_TYPE_Q8_0 : mix.type;
  if (tensor.contains("attn_output.weight")) return attention_output_type(mix, model);
  if (tensor.contains("ffn_down")) return down_type(mix, model, tensor);
  return mix.type;
}

ggml_type fitting_type(ggml_type type, std::int64_t row) {
  if (row % ggml_blck_size(type) == 0) return type;
  switch (type) {
    case GGML_TYPE_IQ4_XS:
      type = GGML_TYPE_IQ4_NL;
      break;
    case GGML_TYPE_Q2_K:
    case GGML_TYPE_Q3_K:
      type = GGML_TYPE_Q4_0;
      break;
    case GGML_TYPE_Q4_K:
      type = GGML_TYPE_Q5_0;
      break;
    case GGML_TYPE_Q5_K:
      type = GGML_TYPE_Q5_1;
      break;
    case GGML_TYPE_Q6_K:
      type = GGML_TYPE_Q8_0;
      break;
    default:
      break;
  }
  return row % ggml_blck_size(type) == 0 ? type : GGML_TYPE_F16;
}

// Parts of the names of matrices that are small, or that images or sound go through.
constexpr std::array<std::string_view, 25> kKept = {"_norm.weight",
                                                    "ffn_gate_inp",
                                                    "altup",
                                                    "laurel",
                                                    "per_layer_model_proj",
                                                    "ssm_conv1d",
                                                    "shortconv.conv.weight",
                                                    "time_mix_first.",
                                                    "time_mix_w0.",
                                                    "time_mix_w1.",
                                                    "time_mix_w2.",
                                                    "time_mix_v0.",
                                                    "time_mix_v1.",
                                                    "time_mix_v2.",
                                                    "time_mix_a0.",
                                                    "time_mix_a1.",
                                                    "time_mix_a2.",
                                                    "time_mix_g1.",
                                                    "time_mix_g2.",
                                                    "time_mix_decay_w",
                                                    "time_mix_lerp_fused.",
                                                    "attn_rel_b.",
                                                    "position_embd",
                                                    "token_types.",
                                                    "rel_pos"};
// What models with more than text name these parts.
constexpr std::array<std::string_view, 4> kOtherSenses = {"v.", "mm.", "a.", "s."};

// The layers in which `has` finds a tensor of its kind that is quantised.
template <typename Has>
std::vector<std::uint32_t> layers_with(const File& file, Has has) {
  std::vector<std::uint32_t> layers;
  for (const TensorInfo& tensor : file.tensors()) {
    const auto layer = layer_of(tensor.name);
    if (layer && has(tensor.name) && is_quantisable(tensor.name, tensor.shape))
      layers.push_back(*layer);
  }
  std::ranges::sort(layers);
  const auto repeated = std::ranges::unique(layers);
  layers.erase(repeated.begin(), repeated.end());
  return layers;
}

}  // namespace

std::span<const QuantMix> quant_mixes() { return kMixes; }

const QuantMix* find_quant_mix(std::string_view name) {
  for (const QuantMix& mix : kMixes) {
    if (same_name(mix.name, name)) return &mix;
    if (mix.name.ends_with("_K_M") && same_name(mix.name.substr(0, 4), name)) return &mix;
  }
  return nullptr;
}

MixModel mix_model_of(const File& file) {
  MixModel model;
  model.architecture = file.architecture();
  model.layers = file.u32(".block_count").value_or(0);
  // Where heads differ between layers, the first layer's count.
  const auto heads = file.i32s(".attention.head_count");
  const auto kv_heads = file.i32s(".attention.head_count_kv");
  if (!heads.empty() && !kv_heads.empty()) {
    const bool some = heads.front() > 0 && kv_heads.front() > 0;
    model.heads_per_kv_head =
        some ? static_cast<std::uint32_t>(heads.front() / kv_heads.front()) : 0;
  }
  model.experts = file.u32(".expert_count").value_or(0);
  model.tied_output = file.find_tensor("output.weight") == nullptr;
  model.value_layers = layers_with(file, holds_values);
  model.down_layers =
      layers_with(file, [](std::string_view name) { return name.contains("ffn_down"); });
  return model;
}

bool is_quantisable(std::string_view tensor, std::span<const std::int64_t> shape) {
  const auto wide = std::ranges::count_if(shape, [](std::int64_t length) { return length > 1; });
  if (wide < 2 || !tensor.ends_with("weight")) return false;
  if (std::ranges::any_of(kOtherSenses, [&](auto part) { return tensor.starts_with(part); }))
    return false;
  return std::ranges::none_of(kKept, [&](auto part) { return tensor.contains(part); });
}

ggml_type choose_type(const QuantMix& mix, const MixModel& model, std::string_view tensor,
                      std::span<const std::int64_t> shape) {
  if (!is_quantisable(tensor, shape)) return GGML_TYPE_F32;
  if (!ggml_is_quantized(mix.type)) return mix.type;
  return fitting_type(mixed_type(mix, model, tensor, shape), shape[0]);
}

}  // namespace ollama::gguf
