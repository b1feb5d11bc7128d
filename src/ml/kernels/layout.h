// Where what belongs to a block lies within a packed group; shared by what packs and what reads.
#pragma once

#include "ml/kernels/packed.h"

namespace ollama::ml::kernels {

inline constexpr std::size_t kQuadBytes = 64;  // 4 elements of 16 rows
inline constexpr std::int64_t kQuads = kBlock / 4;
inline constexpr std::int64_t kSuperBlocks = 8;  // blocks of a K-quant's 256 elements

// Offsets in bytes from the beginning of a unit: one block, or the 8 blocks of a K-quant. A unit's
// blocks have their quants one after the other, `block` bytes each; a block's high bits follow its
// low ones.
struct Layout {
  std::int64_t blocks = 1;  // of a unit
  std::size_t quants = 0;   // where they begin
  std::size_t block = 0;    // bytes of a block's quants
  std::size_t scales = 0;   // f16 [16], MXFP4: exponents u8 [16]
  std::size_t minima = 0;   // f16 [16]
  std::size_t small = 0;    // K-quants: the blocks' own scales and minima
  std::size_t unit = 0;     // bytes of a unit
};

// Q4_K and Q5_K: scale and minimum of a block have 6 bits each. The low 4 of both are a byte, [8
// blocks][16 rows], the scale's below; the upper 2 of two consecutive blocks are another, [4][16]:
// scale, minimum, scale, minimum from the lowest bit up.
inline constexpr std::size_t kSmallLow = std::size_t{kSuperBlocks * kGroupRows};

constexpr Layout layout_of(DType type) {
  constexpr std::size_t kHalves = 2 * kGroupRows;  // an f16 for each row
  constexpr std::size_t kNibbles = 4 * kQuadBytes;
  switch (type) {
    case DType::kQ4_0:
    case DType::kIQ4_NL:
      return {.block = kNibbles, .scales = kNibbles, .unit = kNibbles + kHalves};
    case DType::kQ4_1:
      return {.block = kNibbles,
              .scales = kNibbles,
              .minima = kNibbles + kHalves,
              .unit = kNibbles + 2 * kHalves};
    case DType::kQ5_0:
      return {.block = kNibbles + kQuadBytes,
              .scales = kNibbles + kQuadBytes,
              .unit = kNibbles + kQuadBytes + kHalves};
    case DType::kQ5_1:
      return {.block = kNibbles + kQuadBytes,
              .scales = kNibbles + kQuadBytes,
              .minima = kNibbles + kQuadBytes + kHalves,
              .unit = kNibbles + kQuadBytes + 2 * kHalves};
    case DType::kQ8_0:
      return {.block = 2 * kNibbles, .scales = 2 * kNibbles, .unit = 2 * kNibbles + kHalves};
    case DType::kMXFP4:
      return {.block = kNibbles, .scales = kNibbles, .unit = kNibbles + kGroupRows};
    case DType::kQ4_K:
      return {.blocks = kSuperBlocks,
              .quants = 256,
              .block = kNibbles,
              .minima = kHalves,
              .small = 2 * kHalves,
              .unit = 256 + kSuperBlocks * kNibbles};
    case DType::kQ5_K:
      return {.blocks = kSuperBlocks,
              .quants = 256,
              .block = kNibbles + kQuadBytes,
              .minima = kHalves,
              .small = 2 * kHalves,
              .unit = 256 + kSuperBlocks * (kNibbles + kQuadBytes)};
    case DType::kQ6_K:
      return {.blocks = kSuperBlocks,
              .quants = kHalves + 256,
              .block = kNibbles + 2 * kQuadBytes,
              .small = kHalves,
              .unit = kHalves + 256 + kSuperBlocks * (kNibbles + 2 * kQuadBytes)};
    default:
      return {};
  }
}

// Packed activations of a tile of w columns: int8 [4][w][8 quads][blocks], then f32 [w][blocks]
// scales and f32 [w][blocks] sums (scale times the sum of the quants), [w][2][blocks] sums of both
// halves of each block (as f32 with the scale, or i32, as the products want them), and i32
// [w][blocks] counts (the sum of the quants).
struct TileLayout {
  std::size_t scales;
  std::size_t sums;
  std::size_t half_sums;
  std::size_t counts;
};
constexpr TileLayout tile_layout(std::int64_t k, std::int64_t w) {
  const auto quants = static_cast<std::size_t>(k * w);
  const std::size_t floats = quants / kBlock * sizeof(float);
  return {.scales = quants,
          .sums = quants + floats,
          .half_sums = quants + 2 * floats,
          .counts = quants + 4 * floats};
}

}  // namespace ollama::ml::kernels
