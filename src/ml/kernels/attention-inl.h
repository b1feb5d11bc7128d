// The arithmetic of attention. Both ways through it (blocks of a long run, splits of a short one)
// call these functions (for caches in bf16 also attention_bf16-inl.h's) and nothing else, so that a
// row's result is the same either way. None of them lets one row's or one key's values meet
// another's, however many it works on at once. Where a compiler could contract a product and a sum,
// they are not inlined: one function, one result. Compiled once for each target.
#if defined(OLLAMA_ML_KERNELS_ATTENTION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef OLLAMA_ML_KERNELS_ATTENTION_INL_H_
#undef OLLAMA_ML_KERNELS_ATTENTION_INL_H_
#else
#define OLLAMA_ML_KERNELS_ATTENTION_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "ml/kernels/attention_convert-inl.h"
#include "ml/kernels/attention_plan.h"

// Only attention.cpp includes this; a namespace for each target keeps the copies apart.
// NOLINTBEGIN(misc-definitions-in-headers)
HWY_BEFORE_NAMESPACE();
namespace ollama::ml::kernels::attention::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Rows that a kernel holds in registers, each with four vectors: 12 of 16 registers, or 24 of 32.
#if HWY_TARGET <= HWY_AVX3 || HWY_TARGET_IS_NEON
inline constexpr std::size_t kMaxRows = 6;
#else
inline constexpr std::size_t kMaxRows = 3;
#endif

// e^x for x <= 0, within 1e-7 of it, 0 below -88; exactly 1 for 0. NaN stays NaN.
HWY_INLINE VF exp_nonpositive(VF x) {
  const DF d;
  const hn::RebindToUnsigned<DF> du;
  // Adding 1.5 * 2^23 leaves the rounded integer in the lowest bits, here with the exponent's bias.
  const VF magic = hn::Set(d, 12582912.0F + 127.0F);
  x = hn::Max(hn::Set(d, -88.0F), x);  // x is second: then NaN passes on x86
  const VF shifted = hn::MulAdd(x, hn::Set(d, 1.44269504F), magic);
  const VF n = hn::Sub(shifted, magic);
  VF r = hn::NegMulAdd(n, hn::Set(d, 0x1.62e4p-1F), x);
  r = hn::NegMulAdd(n, hn::Set(d, 0x1.7f7d1cp-20F), r);
  // (e^r - 1 - r) / r^2 at Chebyshev's points of +-ln(2)/2.
  VF p = hn::Set(d, 0.0013926213466332444F);
  p = hn::MulAdd(p, r, hn::Set(d, 0.008363202971575855F));
  p = hn::MulAdd(p, r, hn::Set(d, 0.04166655443768594F));
  p = hn::MulAdd(p, r, hn::Set(d, 0.16666576845993977F));
  p = hn::MulAdd(p, r, hn::Set(d, 0.5F));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0F));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0F));
  const VF power = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(du, shifted)));
  return hn::Mul(p, power);
}

HWY_INLINE float exp_nonpositive(float x) { return hn::GetLane(exp_nonpositive(hn::Set(DF(), x))); }

// e^(x - max) where nothing is visible yet (max is minus infinity): 0.
HWY_INLINE float decay(float x, float max) { return exp_nonpositive(x - max); }

// The sums of the lanes of four vectors.
template <class D, class V = hn::Vec<D>>
HWY_INLINE hn::Vec128<float> fold(D d, V sums) {
  if constexpr (hn::MaxLanes(d) > 4) {
    const hn::Half<D> dh;
    return fold(dh, hn::Add(hn::LowerHalf(dh, sums), hn::UpperHalf(dh, sums)));
  } else {
    return sums;
  }
}

HWY_INLINE hn::Vec128<float> sum_of_lanes(VF a, VF b, VF c, VF e) {
  const DF d;
  const hn::Repartition<std::uint64_t, DF> d64;
  const auto ab =
      hn::BitCast(d64, hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b)));
  const auto ce =
      hn::BitCast(d64, hn::Add(hn::InterleaveLower(d, c, e), hn::InterleaveUpper(d, c, e)));
  return fold(d, hn::Add(hn::BitCast(d, hn::InterleaveLower(d64, ab, ce)),
                         hn::BitCast(d, hn::InterleaveUpper(d64, ab, ce))));
}

// scores[r][0..4) = q[r] . keys[0..4), lane by lane along the dimensions; strides in elements.
template <std::size_t kRows, class T>
HWY_INLINE void dot_rows(const float* HWY_RESTRICT q, std::size_t q_stride, const T* k0,
                         const T* k1, const T* k2, const T* k3, std::size_t dims,
                         float* HWY_RESTRICT scores) {
  const DF d;
  VF sums[kRows][4];
  HWY_UNROLL(6)
  for (auto& row : sums) {
    for (VF& sum : row) sum = hn::Zero(d);
  }
  for (std::size_t i = 0; i < dims; i += hn::Lanes(d)) {
    VF qs[kRows];
    HWY_UNROLL(6)
    for (std::size_t r = 0; r < kRows; ++r) qs[r] = hn::Load(d, q + r * q_stride + i);
    const T* const keys[] = {k0, k1, k2, k3};
    HWY_UNROLL(4)
    for (std::size_t j = 0; j < 4; ++j) {
      const VF key = load_plain(keys[j] + i);
      HWY_UNROLL(6)
      for (std::size_t r = 0; r < kRows; ++r) sums[r][j] = hn::MulAdd(qs[r], key, sums[r][j]);
    }
  }
  HWY_UNROLL(6)
  for (std::size_t r = 0; r < kRows; ++r) {
    hn::Store(sum_of_lanes(sums[r][0], sums[r][1], sums[r][2], sums[r][3]),
              hn::FixedTag<float, 4>(), scores + r * kTile);
  }
}

// Calls work<kRows>(row) for blocks of rows.
template <class Work>
HWY_INLINE void for_rows(std::size_t rows, Work&& work) {
  std::size_t r = 0;
  const auto block = [&]<std::size_t kRows>() HWY_ATTR {
    work.template operator()<kRows>(r);
    r += kRows;
  };
  while (rows - r >= kMaxRows) block.template operator()<kMaxRows>();
  if constexpr (kMaxRows > 3) {
    if (rows - r >= 3) block.template operator()<3>();
  }
  if (rows - r >= 2) block.template operator()<2>();
  if (rows - r >= 1) block.template operator()<1>();
}

// Calls work<kVectors>(i) for panels of up to four vectors of `count` elements, from the element i
// on; the last vector may go beyond them.
template <class Work>
HWY_INLINE void for_panels(std::size_t count, Work&& work) {
  const std::size_t lanes = hn::Lanes(DF());
  std::size_t i = 0;
  const std::size_t end = (count + lanes - 1) / lanes * lanes;
  for (; i + 4 * lanes <= end; i += 4 * lanes) work.template operator()<4>(i);
  if (i + 2 * lanes <= end) {
    work.template operator()<2>(i);
    i += 2 * lanes;
  }
  if (i < end) work.template operator()<1>(i);
}

// Scores [kTile, rows] of queries [dims, rows] with the keys key_of(0..slots), slots a multiple of
// 4. Rows of both are read up to whole vectors.
template <class KeyOf>
HWY_INLINE void dot(const float* q, std::size_t q_stride, std::size_t rows, KeyOf&& key_of,
                    std::size_t slots, std::size_t dims, float* scores) {
  for_rows(rows, [&]<std::size_t kRows>(std::size_t r) HWY_ATTR {
    for (std::size_t s = 0; s < slots; s += 4) {
      dot_rows<kRows>(q + r * q_stride, q_stride, key_of(s), key_of(s + 1), key_of(s + 2),
                      key_of(s + 3), dims, scores + r * kTile + s);
    }
  });
}

// What was accumulated so far, corrected.
template <std::size_t kRows, std::size_t kVectors>
HWY_INLINE void load_sums(const float* HWY_RESTRICT acc, std::size_t stride,
                          const float* HWY_RESTRICT corrections, VF (&sums)[kRows][kVectors]) {
  const DF d;
  HWY_UNROLL(6)
  for (std::size_t r = 0; r < kRows; ++r) {
    const VF correction = hn::Set(d, corrections[r]);
    HWY_UNROLL(4)
    for (std::size_t j = 0; j < kVectors; ++j) {
      sums[r][j] = hn::Mul(hn::Load(d, acc + r * stride + j * hn::Lanes(d)), correction);
    }
  }
}

template <std::size_t kRows, std::size_t kVectors>
HWY_INLINE void store_sums(const VF (&sums)[kRows][kVectors], float* HWY_RESTRICT to,
                           std::size_t stride) {
  const DF d;
  HWY_UNROLL(6)
  for (std::size_t r = 0; r < kRows; ++r) {
    HWY_UNROLL(4)
    for (std::size_t j = 0; j < kVectors; ++j) {
      hn::Store(sums[r][j], d, to + r * stride + j * hn::Lanes(d));
    }
  }
}

// acc[r] = acc[r] * corrections[r] + sum over the slots, in order, of p[r][slot] * value_of(slot),
// from the dimension `begin` on.
template <std::size_t kRows, std::size_t kVectors, class ValueOf>
HWY_INLINE void add_values(const float* HWY_RESTRICT p, const ValueOf& value_of, std::size_t begin,
                           std::size_t slots, const float* HWY_RESTRICT corrections,
                           float* HWY_RESTRICT acc, std::size_t acc_stride) {
  const DF d;
  const std::size_t lanes = hn::Lanes(d);
  VF sums[kRows][kVectors];
  load_sums<kRows, kVectors>(acc, acc_stride, corrections, sums);
  for (std::size_t s = 0; s < slots; ++s) {
    VF ps[kRows];
    HWY_UNROLL(6)
    for (std::size_t r = 0; r < kRows; ++r) ps[r] = hn::Set(d, p[r * kTile + s]);
    const auto* from = value_of(s) + begin;
    HWY_UNROLL(4)
    for (std::size_t j = 0; j < kVectors; ++j) {
      const VF value = load_plain(from + j * lanes);
      HWY_UNROLL(6)
      for (std::size_t r = 0; r < kRows; ++r) sums[r][j] = hn::MulAdd(ps[r], value, sums[r][j]);
    }
  }
  store_sums<kRows, kVectors>(sums, acc, acc_stride);
}

// p [kTile, rows], value_of(slot) [dims], corrections [rows], acc [dims, rows].
template <class ValueOf>
HWY_INLINE void accumulate(const float* p, std::size_t rows, const ValueOf& value_of,
                           std::size_t slots, std::size_t dims, const float* corrections,
                           float* acc, std::size_t acc_stride) {
  for_panels(dims, [&]<std::size_t kVectors>(std::size_t i) HWY_ATTR {
    for_rows(rows, [&]<std::size_t kRows>(std::size_t r) HWY_ATTR {
      add_values<kRows, kVectors>(p + r * kTile, value_of, i, slots, corrections + r,
                                  acc + r * acc_stride + i, acc_stride);
    });
  });
}

// The same sum of one row over those slots alone that it sees (bits from slot 0 on): for values
// that are not all finite, since 0 times infinity would reach the others. Adding 0 times a finite
// value changes nothing but the sign of a zero, which write_output() drops.
inline void accumulate_visible(const float* p, const float* v, std::size_t v_stride,
                               std::uint64_t visible, std::size_t dims, float correction,
                               float* acc) {
  const DF d;
  for (std::size_t i = 0; i < dims; i += hn::Lanes(d)) {
    VF sum = hn::Mul(hn::Load(d, acc + i), hn::Set(d, correction));
    for (std::uint64_t word = visible; word != 0; word &= word - 1) {
      const auto s = static_cast<std::size_t>(std::countr_zero(word));
      sum = hn::MulAdd(hn::Set(d, p[s]), hn::Load(d, v + s * v_stride + i), sum);
    }
    hn::Store(sum, d, acc + i);
  }
}

// Turns a tile's scores into their weights relative to the maximum so far; gives the factor for
// what was accumulated before. Hidden slots weigh 0; their scores may be anything.
HWY_NOINLINE float weigh_tile(float* HWY_RESTRICT scores, std::uint64_t visible, float soft_cap,
                              Softmax& state) {
  const DF d;
  const hn::RebindToUnsigned<DF> du;
  const std::size_t lanes = hn::Lanes(d);
  if (visible == 0) {
    for (std::size_t i = 0; i < kTile; i += lanes) hn::Store(hn::Zero(d), d, scores + i);
    return 1.0F;
  }
  const auto lane_bits = hn::Shl(hn::Set(du, 1), hn::Iota(du, 0));
  VF max = hn::Set(d, kNothing);
  for (std::size_t i = 0; i < kTile; i += lanes) {
    VF score = hn::Load(d, scores + i);
    if (soft_cap != 0.0F) {
      score = hn::Div(score, hn::Set(d, soft_cap));
      score = hn::Mul(hn::Set(d, soft_cap), hn::Tanh(d, score));
    }
    if (visible != ~std::uint64_t{0}) {
      const auto bits = hn::Set(du, static_cast<std::uint32_t>((visible >> i) & 0xFFFF));
      const auto mask = hn::RebindMask(d, hn::TestBit(bits, lane_bits));
      score = hn::IfThenElse(mask, score, hn::Set(d, kNothing));
    }
    max = hn::Max(max, score);
    hn::Store(score, d, scores + i);
  }
  const float before = state.max;
  const float now = hn::ReduceMax(d, max);
  state.max = now > before ? now : before;
  // Scores of minus infinity that are visible weigh 0 as well.
  const float base = state.max == kNothing ? 0.0F : state.max;
  VF sum = hn::Zero(d);
  for (std::size_t i = 0; i < kTile; i += lanes) {
    const VF weight = exp_nonpositive(hn::Sub(hn::Load(d, scores + i), hn::Set(d, base)));
    sum = hn::Add(sum, weight);
    hn::Store(weight, d, scores + i);
  }
  const float correction = decay(before, base);
  const VF total =
      hn::MulAdd(hn::Set(d, state.sum), hn::Set(d, correction), hn::Set(d, hn::ReduceSum(d, sum)));
  state.sum = hn::GetLane(total);
  return correction;
}

// Adds a split to the splits before it: total and values [dims].
HWY_NOINLINE void merge_split(const Softmax& split, const float* HWY_RESTRICT values,
                              std::size_t dims, Softmax& total, float* HWY_RESTRICT total_values) {
  if (is_empty(split)) return;
  const DF d;
  const std::size_t lanes = hn::Lanes(d);
  const float max = split.max > total.max ? split.max : total.max;
  const VF old_factor = hn::Set(d, decay(total.max, max));
  const VF new_factor = hn::Set(d, decay(split.max, max));
  total.sum = hn::GetLane(
      hn::MulAdd(hn::Set(d, split.sum), new_factor, hn::Mul(hn::Set(d, total.sum), old_factor)));
  total.max = max;
  std::size_t i = 0;
  for (; i + lanes <= dims; i += lanes) {
    const VF old_part = hn::Mul(hn::LoadU(d, total_values + i), old_factor);
    hn::StoreU(hn::MulAdd(hn::Load(d, values + i), new_factor, old_part), d, total_values + i);
  }
  if (i < dims) {
    const VF old_part = hn::Mul(hn::LoadN(d, total_values + i, dims - i), old_factor);
    hn::StoreN(hn::MulAdd(hn::Load(d, values + i), new_factor, old_part), d, total_values + i,
               dims - i);
  }
}

// Divides by the sum, which a sink (minus infinity: none) adds to. `output` may be `values`.
HWY_NOINLINE void write_output(const Softmax& total, float sink, const float* values,
                               std::size_t dims, float* output) {
  const DF d;
  const std::size_t lanes = hn::Lanes(d);
  float factor = 0.0F;
  if (!is_empty(total)) {
    const float max = sink > total.max ? sink : total.max;
    const float own = decay(total.max, max);
    const VF sum = hn::MulAdd(hn::Set(d, total.sum), hn::Set(d, own), hn::Set(d, decay(sink, max)));
    factor = own / hn::GetLane(sum);
  }
  // Adding zero makes -0 a 0: see accumulate_visible().
  const VF factors = hn::Set(d, factor);
  std::size_t i = 0;
  for (; i + lanes <= dims; i += lanes) {
    hn::StoreU(hn::MulAdd(hn::LoadU(d, values + i), factors, hn::Zero(d)), d, output + i);
  }
  if (i < dims) {
    hn::StoreN(hn::MulAdd(hn::LoadN(d, values + i, dims - i), factors, hn::Zero(d)), d, output + i,
               dims - i);
  }
}

}  // namespace ollama::ml::kernels::attention::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
// NOLINTEND(misc-definitions-in-headers)
#endif
