// Element types of tensors. The values are GGML's, so that a file's types need no translation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>

namespace ollama::ml {

enum class DType : std::int32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kI32 = 26,
  kI64 = 27,
  kBF16 = 30,
  kMXFP4 = 39,
};

// f16 values of masks, by their bits.
inline constexpr std::uint16_t kHalfZero = 0;
inline constexpr std::uint16_t kHalfMinusInfinity = 0xFC00;

// Calls write(visible, hidden) with a mask's two values, in the type of its elements: f16, by bits,
// or f32.
template <typename Write>
void with_mask_values(DType type, Write&& write) {
  if (type == DType::kF16) {
    write(kHalfZero, kHalfMinusInfinity);
  } else {
    write(0.0F, -std::numeric_limits<float>::infinity());
  }
}

std::string_view dtype_name(DType type);
// "f16", "q8_0", ...; nullopt for a name that is not one of the types above.
std::optional<DType> parse_dtype(std::string_view name);
// Bytes of `elements` consecutive elements (a whole number of blocks).
std::size_t row_size(DType type, std::int64_t elements);
std::int64_t block_size(DType type);
bool is_quantized(DType type);
// Not integers, nor doubles: GGML computes nothing with these as weights.
bool is_weight_type(DType type);

}  // namespace ollama::ml
