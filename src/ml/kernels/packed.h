// Weights and activations as the products of gemm.h read them. Both are packed once and then read
// in order.
//
// Weights [k, m] lie in groups of 16 rows. Within a group every 32 elements of k are a block, its
// quants in "quads": 4 consecutive k of each of the 16 rows, 64 bytes, so that one register of any
// width holds whole 4-element pieces of consecutive rows. What a block has beside its quants
// (scales, minima, high bits) lies beside them, one value for each of the 16 rows. A row takes as
// many bytes as in the file; only the rows of an incomplete last group come on top.
//
// Activations [k, n] lie in tiles of 4 columns (then of 2 and 1, as n wants) that interleave their
// columns: for the quantised types of weights as int8 with a scale for every 32 elements, for
// floating-point weights as f32.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "ml/dtype.h"

namespace ollama::ml::kernels {

inline constexpr std::int64_t kGroupRows = 16;
inline constexpr std::int64_t kTileColumns = 4;
inline constexpr std::int64_t kBlock = 32;  // elements that share an activation's scale

// Whether weights of this type are packed, with rows of k elements.
bool can_pack(DType type, std::int64_t k);

// A packed matrix [k, m]; a view.
struct PackedWeights {
  DType type = DType::kF32;
  std::int64_t k = 0;
  std::int64_t m = 0;
  const std::byte* data = nullptr;  // packed_size() bytes

  std::int64_t groups() const { return (m + kGroupRows - 1) / kGroupRows; }
};

// Bytes of one group of 16 rows, and of all groups.
std::size_t packed_group_size(DType type, std::int64_t k);
std::size_t packed_size(DType type, std::int64_t k, std::int64_t m);

// Packs the groups [first, last) of m rows that lie in GGML's block format at `rows`, into `packed`
// (where group 0 begins). Rows beyond m become zero. Groups may be packed by several threads.
void pack_weights(DType type, std::int64_t k, std::int64_t m, std::span<const std::byte> rows,
                  std::byte* packed, std::int64_t first, std::int64_t last);

// What a type of weights is multiplied with.
enum class ActivationKind : std::uint8_t { kInt8, kFloat };
constexpr ActivationKind activation_kind(DType weight_type) {
  return weight_type == DType::kF32 || weight_type == DType::kF16 || weight_type == DType::kBF16
             ? ActivationKind::kFloat
             : ActivationKind::kInt8;
}

// Bytes of n packed columns; those of column j begin at activation_size(kind, k, j) where j is a
// multiple of the tile's width.
std::size_t activation_size(ActivationKind kind, std::int64_t k, std::int64_t n);

// Columns of f32 activations.
struct Columns {
  const float* data = nullptr;
  std::int64_t stride = 0;  // floats from one column to the next
  // Column j is the one numbered order[j] / divisor; null: j.
  const std::int32_t* order = nullptr;
  std::int32_t divisor = 1;

  const float* column(std::int64_t j) const {
    return data + (order != nullptr ? order[j] / divisor : j) * stride;
  }
};

// Packs the tiles [first, last) of n columns of k elements into `packed` (where tile 0 begins).
void pack_activations(ActivationKind kind, std::int64_t k, std::int64_t n, const Columns& columns,
                      std::byte* packed, std::int64_t first, std::int64_t last);

}  // namespace ollama::ml::kernels
