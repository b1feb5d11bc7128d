#include "ml/dtype.h"

#include <ggml.h>

#include <array>

namespace ollama::ml {
namespace {

struct Name {
  DType type;
  std::string_view name;
};

constexpr std::array kNames{
    Name{DType::kF32, "f32"},   Name{DType::kF16, "f16"},       Name{DType::kBF16, "bf16"},
    Name{DType::kQ4_0, "q4_0"}, Name{DType::kQ4_1, "q4_1"},     Name{DType::kQ5_0, "q5_0"},
    Name{DType::kQ5_1, "q5_1"}, Name{DType::kQ8_0, "q8_0"},     Name{DType::kQ2_K, "q2_k"},
    Name{DType::kQ3_K, "q3_k"}, Name{DType::kQ4_K, "q4_k"},     Name{DType::kQ5_K, "q5_k"},
    Name{DType::kQ6_K, "q6_k"}, Name{DType::kIQ4_NL, "iq4_nl"}, Name{DType::kMXFP4, "mxfp4"},
    Name{DType::kI32, "i32"},   Name{DType::kI64, "i64"},
};

}  // namespace

std::string_view dtype_name(DType type) {
  for (const Name& entry : kNames) {
    if (entry.type == type) return entry.name;
  }
  return ggml_type_name(static_cast<ggml_type>(type));
}

std::optional<DType> parse_dtype(std::string_view name) {
  for (const Name& entry : kNames) {
    if (entry.name == name) return entry.type;
  }
  return std::nullopt;
}

std::size_t row_size(DType type, std::int64_t elements) {
  return ggml_row_size(static_cast<ggml_type>(type), elements);
}
std::int64_t block_size(DType type) { return ggml_blck_size(static_cast<ggml_type>(type)); }
bool is_quantized(DType type) { return ggml_is_quantized(static_cast<ggml_type>(type)); }
bool is_weight_type(DType type) {
  return type == DType::kF32 ||
         ggml_get_type_traits(static_cast<ggml_type>(type))->to_float != nullptr;
}

}  // namespace ollama::ml
