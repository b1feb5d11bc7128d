// Which type each tensor gets when a model is quantised: "Q4_K_M" names a mix, not one type. The
// choices are llama.cpp's, so that files made here behave like those people know.
#pragma once

#include <ggml.h>

#include <cstdint>
#include <span>
#include <string_view>

namespace ollama::gguf {

struct QuantMix {
  std::string_view name;    // as Ollama shows it: "Q4_K_M"
  std::uint32_t file_type;  // general.file_type
  ggml_type type;           // of most matrices
};

std::span<const QuantMix> quant_mixes();
// By name, in any case; Q3_K, Q4_K and Q5_K mean their medium mixes. nullptr if there is none.
const QuantMix* find_quant_mix(std::string_view name);

// What the choice depends on besides the tensor.
struct MixModel {
  std::uint32_t layers = 0;
  std::uint32_t heads_per_kv_head = 1;
  std::uint32_t experts = 0;
  bool tied_output = false;  // no output.weight: the embedding serves as output too
};

// The type for a tensor. One-dimensional tensors, norms and small helpers stay F32; a row that is
// no whole number of the type's blocks falls back to a type it fits.
ggml_type choose_type(const QuantMix& mix, const MixModel& model, std::string_view tensor,
                      std::span<const std::int64_t> shape);

}  // namespace ollama::gguf
