// Which type each tensor gets when a model is quantised: "Q4_K_M" names a mix, not one type. The
// choices are llama.cpp's, so that files made here behave like those people know.
#pragma once

#include <ggml.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/file.h"

namespace ollama::gguf {

struct QuantMix {
  std::string_view name;    // as Ollama shows it: "Q4_K_M"
  std::uint32_t file_type;  // general.file_type
  ggml_type type;           // of most matrices
};

std::span<const QuantMix> quant_mixes();
// By name, in any case; Q3_K, Q4_K and Q5_K mean their medium mixes. nullptr if there is none.
const QuantMix* find_quant_mix(std::string_view name);

// What the choices depend on besides the tensor.
struct MixModel {
  std::string architecture;
  std::uint32_t layers = 0;
  std::uint32_t heads_per_kv_head = 1;
  std::uint32_t experts = 0;
  bool tied_output = false;  // no output.weight: the embedding serves as output too
  // The layers that have values of attention, and a down projection, ascending; empty: all of them.
  // Where only some have, the choices go by their number among these.
  std::vector<std::uint32_t> value_layers;
  std::vector<std::uint32_t> down_layers;
};
MixModel mix_model_of(const File& file);

// Whether a tensor is quantised at all. One-dimensional tensors, norms, small helpers and what
// belongs to images or sound keep the type they have.
bool is_quantisable(std::string_view tensor, std::span<const std::int64_t> shape);

// The type for a tensor; F32 for one that is not quantised. A row that is no whole number of the
// type's blocks falls back to a type that it fits.
ggml_type choose_type(const QuantMix& mix, const MixModel& model, std::string_view tensor,
                      std::span<const std::int64_t> shape);

}  // namespace ollama::gguf
