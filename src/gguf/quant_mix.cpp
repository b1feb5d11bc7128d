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

// The layer in "blk.7.attn_v.weight"; 0 for tensors outside the layers.
std::uint32_t layer_of(std::string_view tensor) {
  if (!tensor.starts_with("blk.")) return 0;
  tensor.remove_prefix(4);
  return parse_number<std::uint32_t>(tensor.substr(0, tensor.find('.'))).value_or(0);
}

// The first and last eighth of the layers, and every third between, lose most by fewer bits.
bool sensitive(std::uint32_t layer, std::uint32_t layers) {
  return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
}

bool is_output(std::string_view tensor, const MixModel& model) {
  return tensor == "output.weight" || (model.tied_output && tensor == "token_embd.weight");
}

ggml_type value_type(const QuantMix& mix, const MixModel& model, std::uint32_t layer) {
  if (model.experts == 8) return GGML_TYPE_Q8_0;  // small beside the experts
  const bool shared = model.heads_per_kv_head >= 4;
  if (mix.name == "Q2_K") return shared ? GGML_TYPE_Q4_K : GGML_TYPE_Q3_K;
  if (mix.name == "Q3_K_M") return layer < 2 ? GGML_TYPE_Q5_K : GGML_TYPE_Q4_K;
  if (mix.name == "Q3_K_L") return GGML_TYPE_Q5_K;
  if (mix.name == "Q4_K_S" && layer < 4) return GGML_TYPE_Q5_K;
  if ((mix.name == "Q4_K_M" || mix.name == "Q5_K_M") && sensitive(layer, model.layers))
    return GGML_TYPE_Q6_K;
  if (mix.name.starts_with("IQ4") && shared) return GGML_TYPE_Q5_K;
  return mix.type;
}

ggml_type down_type(const QuantMix& mix, const MixModel& model, std::uint32_t layer) {
  const bool first = layer < model.layers / 8;
  if (mix.name == "Q2_K") return GGML_TYPE_Q3_K;
  if (mix.name == "Q3_K_M") return layer < model.layers / 16 ? GGML_TYPE_Q5_K : GGML_TYPE_Q4_K;
  if (mix.name == "Q3_K_L") return GGML_TYPE_Q5_K;
  if (mix.name == "Q4_K_S" && first) return GGML_TYPE_Q5_K;
  if ((mix.name == "Q4_K_M" || mix.name == "Q5_K_M") && sensitive(layer, model.layers))
    return GGML_TYPE_Q6_K;
  if (mix.name.starts_with("IQ4") && first) return GGML_TYPE_Q5_K;
  return mix.type;
}

ggml_type attention_output_type(const QuantMix& mix, const MixModel& model) {
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

ggml_type fused_qkv_type(const QuantMix& mix) {
  if (mix.name == "Q3_K_M" || mix.name == "Q3_K_L") return GGML_TYPE_Q4_K;
  if (mix.name == "Q4_K_M") return GGML_TYPE_Q5_K;
  if (mix.name == "Q5_K_M") return GGML_TYPE_Q6_K;
  return mix.type;
}

ggml_type mixed_type(const QuantMix& mix, const MixModel& model, std::string_view tensor) {
  const auto has = [tensor](std::string_view part) { return tensor.contains(part); };
  if (is_output(tensor, model)) {
    return mix.type == GGML_TYPE_Q8_0 || mix.type == GGML_TYPE_MXFP4 ? GGML_TYPE_Q8_0
                                                                     : GGML_TYPE_Q6_K;
  }
  // Only the experts of such a file are MXFP4.
  if (mix.type == GGML_TYPE_MXFP4) return has("_exps.") ? GGML_TYPE_MXFP4 : GGML_TYPE_Q8_0;
  const std::uint32_t layer = layer_of(tensor);
  if (has("attn_v.")) return value_type(mix, model, layer);
  if (has("attn_k.") && model.experts == 8) return GGML_TYPE_Q8_0;
  if (has("attn_output.")) return attention_output_type(mix, model);
  if (has("attn_qkv.")) return fused_qkv_type(mix);
  if (has("ffn_down")) return down_type(mix, model, layer);
  return mix.type;
}

ggml_type fitting_type(ggml_type type, std::int64_t row) {
  if (row % ggml_blck_size(type) == 0) return type;
  switch (type) {
    case GGML_TYPE_Q2_K:
    case GGML_TYPE_Q3_K:
    case GGML_TYPE_IQ4_XS:
      type = GGML_TYPE_IQ4_NL;
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

}  // namespace

std::span<const QuantMix> quant_mixes() { return kMixes; }

const QuantMix* find_quant_mix(std::string_view name) {
  for (const QuantMix& mix : kMixes) {
    if (same_name(mix.name, name)) return &mix;
    if (mix.name.ends_with("_K_M") && same_name(mix.name.substr(0, 4), name)) return &mix;
  }
  return nullptr;
}

ggml_type choose_type(const QuantMix& mix, const MixModel& model, std::string_view tensor,
                      std::span<const std::int64_t> shape) {
  const auto wide = std::ranges::count_if(shape, [](std::int64_t length) { return length > 1; });
  const auto has = [tensor](std::string_view part) { return tensor.contains(part); };
  if (wide < 2 || !tensor.ends_with("weight") || has("_norm.") || has("ffn_gate_inp.") ||
      has("ssm_conv1d.") || has("position_embd.") || has("token_types."))
    return GGML_TYPE_F32;
  if (!ggml_is_quantized(mix.type)) return mix.type;
  return fitting_type(mixed_type(mix, model, tensor), shape[0]);
}

}  // namespace ollama::gguf
