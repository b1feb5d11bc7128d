// GGML's block formats to groups of rows: the same bits, other places.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "ml/kernels/layout.h"

namespace ollama::ml::kernels {
namespace {

using Bytes = const std::uint8_t*;
using Words = std::array<std::uint64_t, 2>;  // 16 bytes

constexpr std::uint64_t kLowNibbles = 0x0F0F0F0F0F0F0F0F;
constexpr std::uint64_t kTwoBits = 0x0303030303030303;
constexpr std::uint64_t kOneBit = 0x0101010101010101;

Words load(Bytes bytes) {
  Words words;
  std::memcpy(words.data(), bytes, sizeof words);
  return words;
}

// Spreads 16 bytes, the elements of 4 quads of a row, over these quads.
void store_quads(std::uint8_t* quads, std::size_t row, const Words& words) {
  for (std::size_t g = 0; g < 4; ++g) {
    const auto piece = static_cast<std::uint32_t>(words[g / 2] >> (32 * (g % 2)));
    std::memcpy(quads + g * kQuadBytes + row * 4, &piece, 4);
  }
}

// 32 elements in order: those of 0 to 15 into the low nibbles, the others above.
Words nibbles(const Words& first, const Words& second) {
  Words result;
  for (std::size_t i = 0; i < 2; ++i) {
    result[i] = (first[i] & kLowNibbles) | (second[i] & kLowNibbles) << 4U;
  }
  return result;
}

Words shifted(const Words& words, unsigned bits) { return {words[0] >> bits, words[1] >> bits}; }
Words masked(const Words& words, std::uint64_t mask) { return {words[0] & mask, words[1] & mask}; }

// Adds high bits, already masked, of 16 elements (quads 4 * half to 4 * half + 3) to a block's:
// quad g's at bit width * (g % per_vector) of vector g / per_vector.
void store_high(std::uint8_t* high, std::size_t row, const Words& bits, std::size_t half,
                std::size_t width) {
  const std::size_t per_vector = 8 / width;
  for (std::size_t i = 0; i < 4; ++i) {
    const std::size_t g = 4 * half + i;
    const auto piece = static_cast<std::uint32_t>(bits[i / 2] >> (32 * (i % 2)));
    std::uint8_t* to = high + g / per_vector * kQuadBytes + row * 4;
    std::uint32_t word = 0;
    std::memcpy(&word, to, 4);
    word |= piece << (width * (g % per_vector));
    std::memcpy(to, &word, 4);
  }
}

// 16 bits as 16 bytes of 0 or 1.
Words spread_bits(std::uint32_t bits) {
  const auto eight = [](std::uint64_t byte) {
    // A copy of the byte in each byte, each keeping its own bit.
    const std::uint64_t own = (byte * kOneBit) & 0x8040201008040201;
    return (own + 0x7F7F7F7F7F7F7F7F) >> 7U & kOneBit;
  };
  return {eight(bits & 0xFF), eight(bits >> 8U & 0xFF)};
}

void copy_half(std::uint8_t* to, std::size_t row, Bytes from) {
  std::memcpy(to + 2 * row, from, 2);
}

// One row's block of a type without super-blocks.
void pack_block(DType type, const Layout& layout, std::uint8_t* unit, std::size_t row, Bytes from) {
  Bytes quants = from + 2;
  const auto high_bits = [&](Bytes at) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, at, 4);
    std::uint8_t* high = unit + 4 * kQuadBytes;
    store_high(high, row, spread_bits(bits), 0, 1);
    store_high(high, row, spread_bits(bits >> 16U), 1, 1);
  };
  switch (type) {
    case DType::kQ4_1:
      copy_half(unit + layout.minima, row, from + 2);
      quants = from + 4;
      break;
    case DType::kQ5_0:
      high_bits(from + 2);
      quants = from + 6;
      break;
    case DType::kQ5_1:
      copy_half(unit + layout.minima, row, from + 2);
      high_bits(from + 4);
      quants = from + 8;
      break;
    case DType::kMXFP4:
      unit[layout.scales + row] = from[0];
      store_quads(unit, row, load(from + 1));
      return;
    default:
      break;
  }
  copy_half(unit + layout.scales, row, from);
  store_quads(unit, row, load(quants));
  if (type == DType::kQ8_0) store_quads(unit + 4 * kQuadBytes, row, load(quants + 16));
}

// Scale and minimum of block i of a Q4_K or Q5_K, of 6 bits each.
std::array<unsigned, 2> small_scales(Bytes s, std::size_t i) {
  if (i < 4) return {s[i] & 63U, s[i + 4] & 63U};
  const unsigned low = s[i + 4];
  const unsigned scale_high = s[i - 4] >> 6U;
  const unsigned minimum_high = s[i] >> 6U;
  return {(low & 15U) | scale_high << 4U, low >> 4U | minimum_high << 4U};
}

// One row's super-block of Q4_K or Q5_K: f16 scale, f16 minimum, 12 bytes of small scales, with
// Q5_K 32 bytes of high bits, 128 of low ones: 32 bytes for two blocks.
void pack_q45(bool five, const Layout& layout, std::uint8_t* unit, std::size_t row, Bytes from) {
  copy_half(unit + layout.scales, row, from);
  copy_half(unit + layout.minima, row, from + 2);
  std::uint8_t* low = unit + layout.small;
  std::uint8_t* high = low + kSmallLow;
  for (std::size_t i = 0; i < kSuperBlocks; ++i) {
    const auto [scale, minimum] = small_scales(from + 4, i);
    low[i * kGroupRows + row] = static_cast<std::uint8_t>((scale & 15U) | (minimum & 15U) << 4U);
    high[i / 2 * kGroupRows + row] |=
        static_cast<std::uint8_t>(((scale >> 4U) | (minimum >> 4U) << 2U) << (4 * (i % 2)));
  }
  Bytes bits = from + 16;
  Bytes quants = from + (five ? 48 : 16);
  for (std::size_t pair = 0; pair < kSuperBlocks / 2; ++pair, quants += 32) {
    const Words first = load(quants);
    const Words second = load(quants + 16);
    std::uint8_t* block = unit + layout.quants + 2 * pair * layout.block;
    store_quads(block, row, nibbles(first, second));
    store_quads(block + layout.block, row, nibbles(shifted(first, 4), shifted(second, 4)));
    if (!five) continue;
    for (std::size_t i = 0; i < 2; ++i) {
      const auto bit = static_cast<unsigned>(2 * pair + i);
      std::uint8_t* to = block + i * layout.block + 4 * kQuadBytes;
      store_high(to, row, masked(shifted(load(bits), bit), kOneBit), 0, 1);
      store_high(to, row, masked(shifted(load(bits + 16), bit), kOneBit), 1, 1);
    }
  }
}

// One row's super-block of Q6_K: 128 bytes of low bits, 64 of high ones, 16 scales, an f16 scale.
// Each half (128 elements) has 64 and 32 of these bytes: low nibbles of bytes 0 to 31 are elements
// 0 to 31, of bytes 32 to 63 the next 32, high nibbles the following ones.
void pack_q6(const Layout& layout, std::uint8_t* unit, std::size_t row, Bytes from) {
  copy_half(unit + layout.scales, row, from + 208);
  for (std::size_t i = 0; i < 16; ++i) unit[layout.small + i * kGroupRows + row] = from[192 + i];
  for (std::size_t half = 0; half < 2; ++half) {
    Bytes low = from + 64 * half;
    Bytes high = from + 128 + 32 * half;
    for (std::size_t i = 0; i < 4; ++i) {
      std::uint8_t* block = unit + layout.quants + (4 * half + i) * layout.block;
      const unsigned nibble = i < 2 ? 0 : 4;
      Bytes at = low + 32 * (i % 2);
      store_quads(block, row, nibbles(shifted(load(at), nibble), shifted(load(at + 16), nibble)));
      const auto bit = static_cast<unsigned>(2 * i);
      std::uint8_t* to = block + 4 * kQuadBytes;
      store_high(to, row, masked(shifted(load(high), bit), kTwoBits), 0, 2);
      store_high(to, row, masked(shifted(load(high + 16), bit), kTwoBits), 1, 2);
    }
  }
}

// Element by element: [16][k].
template <typename T>
void pack_floats(std::int64_t k, std::size_t rows, const std::byte* from, std::byte* group) {
  const auto columns = static_cast<std::size_t>(k);
  T* to = reinterpret_cast<T*>(group);  // groups are aligned for their elements
  // Blocks of the transposition that stay in the first-level cache.
  constexpr std::size_t kStep = 64;
  for (std::size_t begin = 0; begin < columns; begin += kStep) {
    const std::size_t end = std::min(begin + kStep, columns);
    for (std::size_t row = 0; row < rows; ++row) {
      for (std::size_t i = begin; i < end; ++i) {
        std::memcpy(to + i * kGroupRows + row, from + (row * columns + i) * sizeof(T), sizeof(T));
      }
    }
  }
}

void pack_group(DType type, std::int64_t k, std::size_t rows, const std::byte* from,
                std::byte* group) {
  if (type == DType::kF32) return pack_floats<std::uint32_t>(k, rows, from, group);
  if (type == DType::kF16 || type == DType::kBF16) {
    return pack_floats<std::uint16_t>(k, rows, from, group);
  }
  const Layout layout = layout_of(type);
  const std::size_t row_bytes = row_size(type, k);
  const std::int64_t unit_elements = layout.blocks * kBlock;
  const std::size_t units = static_cast<std::size_t>(k / unit_elements);
  const std::size_t unit_bytes = row_size(type, unit_elements);
  auto* to = reinterpret_cast<std::uint8_t*>(group);
  for (std::size_t i = 0; i < units; ++i, to += layout.unit) {
    for (std::size_t row = 0; row < rows; ++row) {
      const auto* at = reinterpret_cast<Bytes>(from + row * row_bytes + i * unit_bytes);
      switch (type) {
        case DType::kQ4_K:
          pack_q45(false, layout, to, row, at);
          break;
        case DType::kQ5_K:
          pack_q45(true, layout, to, row, at);
          break;
        case DType::kQ6_K:
          pack_q6(layout, to, row, at);
          break;
        default:
          pack_block(type, layout, to, row, at);
      }
    }
  }
}

// Parts of a group are put together bit by bit.
bool adds_bits(DType type) {
  return type == DType::kQ5_0 || type == DType::kQ5_1 || type == DType::kQ4_K ||
         type == DType::kQ5_K || type == DType::kQ6_K;
}

}  // namespace

bool can_pack(DType type, std::int64_t k) {
  if (k <= 0) return false;
  if (activation_kind(type) == ActivationKind::kFloat) return true;
  const Layout layout = layout_of(type);
  return layout.unit != 0 && k % (layout.blocks * kBlock) == 0;
}

std::size_t packed_group_size(DType type, std::int64_t k) { return row_size(type, k) * kGroupRows; }

std::size_t packed_size(DType type, std::int64_t k, std::int64_t m) {
  return packed_group_size(type, k) * static_cast<std::size_t>((m + kGroupRows - 1) / kGroupRows);
}

void pack_weights(DType type, std::int64_t k, std::int64_t m, std::span<const std::byte> rows,
                  std::byte* packed, std::int64_t first, std::int64_t last) {
  const std::size_t group_bytes = packed_group_size(type, k);
  for (std::int64_t group = first; group < last; ++group) {
    const std::int64_t row = group * kGroupRows;
    const auto count = static_cast<std::size_t>(std::min(kGroupRows, m - row));
    std::byte* to = packed + static_cast<std::size_t>(group) * group_bytes;
    if (count < kGroupRows || adds_bits(type)) std::memset(to, 0, group_bytes);
    pack_group(type, k, count, rows.data() + static_cast<std::size_t>(row) * row_size(type, k), to);
  }
}

std::size_t activation_size(ActivationKind kind, std::int64_t k, std::int64_t n) {
  const auto elements = static_cast<std::size_t>(k * n);
  return kind == ActivationKind::kFloat ? elements * sizeof(float)
                                        : elements + elements / kBlock * 5 * sizeof(float);
}

}  // namespace ollama::ml::kernels
