// Products of bf16 with sums in f32, which some processors do twice as fast as those of f32. Two
// neighbouring values are one lane of 32 bits: of a query and a key two dimensions, of weights and
// values two slots. Both ways through attention pack what they read and call these functions, so
// that here, too, a row's result is the same either way. Compiled once for each target.
#if defined(OLLAMA_ML_KERNELS_ATTENTION_BF16_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef OLLAMA_ML_KERNELS_ATTENTION_BF16_INL_H_
#undef OLLAMA_ML_KERNELS_ATTENTION_BF16_INL_H_
#else
#define OLLAMA_ML_KERNELS_ATTENTION_BF16_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "ml/kernels/attention-inl.h"

// Only attention.cpp includes this; a namespace for each target keeps the copies apart.
// NOLINTBEGIN(misc-definitions-in-headers)
HWY_BEFORE_NAMESPACE();
namespace ollama::ml::kernels::attention::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using DPair = hn::RebindToUnsigned<DF>;              // a lane is two values, the first below
using DHalf = hn::Repartition<hwy::bfloat16_t, DF>;  // the same as single values
using VPair = hn::Vec<DPair>;

// Targets whose products of bf16 are one instruction. (Highway's own macro is left set for the Arm
// targets that are compiled after the one that has it.)
#undef OLLAMA_NATIVE_BF16
#if HWY_TARGET == HWY_AVX3_ZEN4 || HWY_TARGET == HWY_AVX3_SPR || HWY_TARGET == HWY_NEON_BF16
#define OLLAMA_NATIVE_BF16 1
#else
#define OLLAMA_NATIVE_BF16 0
#endif
inline constexpr bool kFastBf16 = OLLAMA_NATIVE_BF16 != 0;

// Of each lane: sum + a's first * b's first + a's second * b's second.
HWY_INLINE VF add_products(VPair a, VPair b, VF sum) {
  const DF d;
  const DHalf dh;
#if OLLAMA_NATIVE_BF16
  VF unused = hn::Zero(d);
  return hn::ReorderWidenMulAccumulate(d, hn::BitCast(dh, a), hn::BitCast(dh, b), sum, unused);
#else
  const VF first = hn::MulEvenAdd(d, hn::BitCast(dh, a), hn::BitCast(dh, b), sum);
  return hn::MulOddAdd(d, hn::BitCast(dh, a), hn::BitCast(dh, b), first);
#endif
}

// A vector of packed pairs. It stays apart from the product, whose operands in memory the emulator
// that tests run on looks for in the wrong place; with several rows it is used several times
// anyway.
HWY_INLINE VPair load_packed(const std::uint32_t* from) {
  VPair pairs = hn::Load(DPair(), from);
#if OLLAMA_NATIVE_BF16 && HWY_ARCH_X86
  asm("" : "+v"(pairs.raw));
#endif
  return pairs;
}

// Rounds the elements of two vectors, which follow one another.
// (Not by OrderedDemote2To, whose instruction the emulator that tests run on gets wrong.)
HWY_INLINE VPair round_to_pairs(VF lower, VF upper) {
  const DHalf d;
  const hn::Half<DHalf> half;
  return hn::BitCast(DPair(), hn::Combine(d, hn::DemoteTo(half, upper), hn::DemoteTo(half, lower)));
}

// A query's pairs, times `scale`. Zeros up to whole vectors.
HWY_INLINE void pack_query(const float* from, std::size_t dims, float scale, std::uint32_t* to) {
  const DF d;
  const std::size_t lanes = hn::Lanes(d);
  const VF factor = hn::Set(d, scale);
  for (std::size_t i = 0; i < dims; i += 2 * lanes, to += lanes) {
    const VF lower = hn::LoadN(d, from + i, dims - i);
    const VF upper = hn::LoadN(d, from + i + lanes, std::max(dims - i, lanes) - lanes);
    hn::Store(round_to_pairs(hn::Mul(lower, factor), hn::Mul(upper, factor)), DPair(), to);
  }
}

// Weights [kTile] as pairs, in their place.
HWY_INLINE void pack_weights(float* weights) {
  const DF d;
  const std::size_t lanes = hn::Lanes(d);
  auto* to = reinterpret_cast<std::uint32_t*>(weights);
  for (std::size_t i = 0; i < kTile; i += 2 * lanes, to += lanes) {
    const VF lower = hn::Load(d, weights + i);
    const VF upper = hn::Load(d, weights + i + lanes);
    hn::Store(round_to_pairs(lower, upper), DPair(), to);
  }
}

// A vector of a row's pairs from element i on, zeros past its end and where there is no row.
HWY_INLINE VPair load_pairs(const hwy::bfloat16_t* row, std::size_t i, std::size_t dims) {
  const DHalf d;
  if (row == nullptr) return hn::Zero(DPair());
  return hn::BitCast(
      DPair(), dims - i >= hn::Lanes(d) ? hn::LoadU(d, row + i) : hn::LoadN(d, row + i, dims - i));
}

// Four keys become four columns of pairs [kTile, dims / 2].
HWY_INLINE void pack_four_keys(const hwy::bfloat16_t* const (&keys)[4], std::size_t dims,
                               std::uint32_t* to) {
  const DPair d;
  const hn::Repartition<std::uint64_t, DPair> d64;
  for (std::size_t i = 0; i < dims; i += 2 * hn::Lanes(d), to += hn::Lanes(d) * kTile) {
    const VPair a = load_pairs(keys[0], i, dims);
    const VPair b = load_pairs(keys[1], i, dims);
    const VPair c = load_pairs(keys[2], i, dims);
    const VPair e = load_pairs(keys[3], i, dims);
    const auto ab_lower = hn::BitCast(d64, hn::InterleaveLower(d, a, b));
    const auto ab_upper = hn::BitCast(d64, hn::InterleaveUpper(d, a, b));
    const auto ce_lower = hn::BitCast(d64, hn::InterleaveLower(d, c, e));
    const auto ce_upper = hn::BitCast(d64, hn::InterleaveUpper(d, c, e));
    // Of each 128 bits: the four keys' first pair, second, ...
    const auto put = [&](VPair pairs, std::size_t first) HWY_ATTR {
      const hn::BlockDFromD<DPair> block;
      hn::StoreU(hn::ExtractBlock<0>(pairs), block, to + first * kTile);
      if constexpr (hn::MaxLanes(d) >= 8) {
        hn::StoreU(hn::ExtractBlock<1>(pairs), block, to + (first + 4) * kTile);
      }
      if constexpr (hn::MaxLanes(d) >= 16) {
        hn::StoreU(hn::ExtractBlock<2>(pairs), block, to + (first + 8) * kTile);
        hn::StoreU(hn::ExtractBlock<3>(pairs), block, to + (first + 12) * kTile);
      }
    };
    put(hn::BitCast(d, hn::InterleaveLower(d64, ab_lower, ce_lower)), 0);
    put(hn::BitCast(d, hn::InterleaveUpper(d64, ab_lower, ce_lower)), 1);
    put(hn::BitCast(d, hn::InterleaveLower(d64, ab_upper, ce_upper)), 2);
    put(hn::BitCast(d, hn::InterleaveUpper(d64, ab_upper, ce_upper)), 3);
  }
}

// Two values (none: zeros) become a row of pairs. `largest` collects their exponents.
HWY_INLINE void pack_two_values(const hwy::bfloat16_t* first, const hwy::bfloat16_t* second,
                                std::size_t dims, std::uint32_t* to, VPair& largest) {
  const DPair d;
  const hn::Repartition<std::uint16_t, DPair> d16;
  const auto exponents = hn::Set(d16, 0x7F80);
  for (std::size_t i = 0; i < dims; i += 2 * hn::Lanes(d), to += 2 * hn::Lanes(d)) {
    const auto a = hn::BitCast(d16, load_pairs(first, i, dims));
    const auto b = hn::BitCast(d16, load_pairs(second, i, dims));
    auto most = hn::BitCast(d16, largest);
    most = hn::Max(most, hn::Max(hn::And(a, exponents), hn::And(b, exponents)));
    largest = hn::BitCast(d, most);
    hn::Store(hn::BitCast(d, hn::InterleaveWholeLower(d16, a, b)), d, to);
    hn::Store(hn::BitCast(d, hn::InterleaveWholeUpper(d16, a, b)), d, to + hn::Lanes(d));
  }
}
HWY_INLINE bool all_finite(VPair largest) {
  const hn::Repartition<std::uint16_t, DPair> d16;
  return hn::AllTrue(d16, hn::Lt(hn::BitCast(d16, largest), hn::Set(d16, 0x7F80)));
}

// sums[r] += the products of by[r][i] with all lanes of vectors[i], pair by pair in order.
template <std::size_t kRows, std::size_t kVectors>
HWY_INLINE void multiply_pairs(const std::uint32_t* HWY_RESTRICT by, std::size_t by_stride,
                               const std::uint32_t* HWY_RESTRICT vectors, std::size_t stride,
                               std::size_t pairs, VF (&sums)[kRows][kVectors]) {
  const DPair d;
  for (std::size_t i = 0; i < pairs; ++i, vectors += stride) {
    VPair loaded[kVectors];
    HWY_UNROLL(4)
    for (std::size_t j = 0; j < kVectors; ++j) loaded[j] = load_packed(vectors + j * hn::Lanes(d));
    HWY_UNROLL(6)
    for (std::size_t r = 0; r < kRows; ++r) {
      const VPair factors = hn::Set(d, by[r * by_stride + i]);
      HWY_UNROLL(4)
      for (std::size_t j = 0; j < kVectors; ++j) {
        sums[r][j] = add_products(factors, loaded[j], sums[r][j]);
      }
    }
  }
}

// scores[r][0..kVectors * lanes) = q[r] . keys, pair by pair in order.
template <std::size_t kRows, std::size_t kVectors>
HWY_INLINE void dot_pairs(const std::uint32_t* HWY_RESTRICT q, std::size_t q_stride,
                          const std::uint32_t* HWY_RESTRICT keys, std::size_t pairs,
                          float* HWY_RESTRICT scores) {
  const DF d;
  VF sums[kRows][kVectors];
  HWY_UNROLL(6)
  for (auto& row : sums) {
    for (VF& sum : row) sum = hn::Zero(d);
  }
  multiply_pairs<kRows, kVectors>(q, q_stride, keys, kTile, pairs, sums);
  store_sums<kRows, kVectors>(sums, scores, kTile);
}

// Scores [kTile, rows] of queries [dims / 2, rows] with keys [kTile, dims / 2], all of pairs, of
// which `slots`, whole vectors, are looked at. Strides in pairs.
HWY_INLINE void dot_packed(const std::uint32_t* q, std::size_t q_stride, std::size_t rows,
                           const std::uint32_t* keys, std::size_t slots, std::size_t dims,
                           float* scores) {
  for_panels(slots, [&]<std::size_t kVectors>(std::size_t s) HWY_ATTR {
    for_rows(rows, [&]<std::size_t kRows>(std::size_t r) HWY_ATTR {
      dot_pairs<kRows, kVectors>(q + r * q_stride, q_stride, keys + s, (dims + 1) / 2,
                                 scores + r * kTile + s);
    });
  });
}

// acc[r] = acc[r] * corrections[r] + sum over the pairs of slots, in order, of p[r] * values.
template <std::size_t kRows, std::size_t kVectors>
HWY_INLINE void add_value_pairs(const std::uint32_t* HWY_RESTRICT p,
                                const std::uint32_t* HWY_RESTRICT values, std::size_t stride,
                                std::size_t pairs, const float* HWY_RESTRICT corrections,
                                float* HWY_RESTRICT acc, std::size_t acc_stride) {
  VF sums[kRows][kVectors];
  load_sums<kRows, kVectors>(acc, acc_stride, corrections, sums);
  multiply_pairs<kRows, kVectors>(p, kTile, values, stride, pairs, sums);
  store_sums<kRows, kVectors>(sums, acc, acc_stride);
}

// Weights of packed rows of scores (a row has kTile lanes), values [dims, pairs] of pairs,
// corrections [rows], acc [dims, rows].
HWY_INLINE void accumulate_packed(const std::uint32_t* p, std::size_t rows,
                                  const std::uint32_t* values, std::size_t stride,
                                  std::size_t pairs, std::size_t dims, const float* corrections,
                                  float* acc, std::size_t acc_stride) {
  for_panels(dims, [&]<std::size_t kVectors>(std::size_t i) HWY_ATTR {
    for_rows(rows, [&]<std::size_t kRows>(std::size_t r) HWY_ATTR {
      add_value_pairs<kRows, kVectors>(p + r * kTile, values + i, stride, pairs, corrections + r,
                                       acc + r * acc_stride + i, acc_stride);
    });
  });
}

// The same sum of one row where values are not all finite, without those that the row does not see
// (bits from slot 0 on): see accumulate_visible().
inline void accumulate_packed_visible(const std::uint32_t* p, const std::uint32_t* values,
                                      std::size_t stride, std::size_t pairs, std::uint64_t visible,
                                      std::size_t dims, float correction, float* acc) {
  const DF d;
  const DPair dp;
  for (std::size_t i = 0; i < dims; i += hn::Lanes(d)) {
    VF sum = hn::Mul(hn::Load(d, acc + i), hn::Set(d, correction));
    for (std::size_t s = 0; s < pairs; ++s) {
      const std::uint64_t bits = visible >> (2 * s);
      const std::uint32_t seen =
          ((bits & 1) != 0 ? 0xFFFFU : 0U) | ((bits & 2) != 0 ? 0xFFFF0000U : 0U);
      const VPair value = hn::And(hn::Load(dp, values + s * stride + i), hn::Set(dp, seen));
      sum = add_products(hn::Set(dp, p[s]), value, sum);
    }
    hn::Store(sum, d, acc + i);
  }
}

}  // namespace ollama::ml::kernels::attention::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
// NOLINTEND(misc-definitions-in-headers)
#endif
