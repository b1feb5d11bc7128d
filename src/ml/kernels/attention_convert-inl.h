// Rows of a cache, of any type that it may have, to f32. Compiled once for each target.
#if defined(OLLAMA_ML_KERNELS_ATTENTION_CONVERT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef OLLAMA_ML_KERNELS_ATTENTION_CONVERT_INL_H_
#undef OLLAMA_ML_KERNELS_ATTENTION_CONVERT_INL_H_
#else
#define OLLAMA_ML_KERNELS_ATTENTION_CONVERT_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "ml/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace ollama::ml::kernels::attention::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// At most 16 lanes, half a block of q4_0.
using DF = hn::CappedTag<float, 16>;
using VF = hn::Vec<DF>;

// A vector of values of any type that needs no scales.
template <class T>
HWY_INLINE VF load_plain(const T* from) {
  const DF d;
  const auto loaded = hn::LoadU(hn::Rebind<T, DF>(), from);
  if constexpr (sizeof(T) == sizeof(float)) {
    return loaded;
  } else {
    return hn::PromoteTo(d, loaded);
  }
}

// A zero where a value is finite, NaN where it is not. (A chain of sums of these would take longer
// than all the rest of a conversion; their bits are collected instead.)
HWY_INLINE VF not_finite(VF value) { return hn::Sub(value, value); }

// Writes `count` elements and zeros up to whole vectors. Where kProbe, bits of `probe` tell whether
// some are not finite.
template <class T, bool kProbe>
HWY_INLINE void convert_plain(const std::byte* HWY_RESTRICT from, std::size_t count,
                              float* HWY_RESTRICT to, VF& probe) {
  const DF d;
  const hn::Rebind<T, DF> dt;
  const std::size_t lanes = hn::Lanes(d);
  const T* HWY_RESTRICT elements = reinterpret_cast<const T*>(from);
  std::size_t i = 0;
  const auto put = [&](VF value) HWY_ATTR {
    if constexpr (kProbe) probe = hn::Or(probe, not_finite(value));
    hn::Store(value, d, to + i);
  };
  for (; i + lanes <= count; i += lanes) put(load_plain(elements + i));
  if (i < count) {
    const auto rest = hn::LoadN(dt, elements + i, count - i);
    if constexpr (sizeof(T) == sizeof(float)) {
      put(rest);
    } else {
      put(hn::PromoteTo(d, rest));
    }
  }
}

HWY_INLINE float load_half(const std::byte* from) {
  const hn::CappedTag<float, 1> d;
  const hn::Rebind<hwy::float16_t, decltype(d)> dh;
  return hn::GetLane(
      hn::PromoteTo(d, hn::LoadU(dh, reinterpret_cast<const hwy::float16_t*>(from))));
}

inline constexpr std::size_t kBlock = 32;  // elements

template <bool kProbe>
HWY_INLINE void convert_q8_0(const std::byte* HWY_RESTRICT from, std::size_t count,
                             float* HWY_RESTRICT to, VF& probe) {
  const DF d;
  const hn::RebindToSigned<DF> di;
  const hn::Rebind<std::int8_t, DF> d8;
  for (std::size_t b = 0; b < count; b += kBlock, from += sizeof(hwy::float16_t) + kBlock) {
    const VF scale = hn::Set(d, load_half(from));
    const auto* quants = reinterpret_cast<const std::int8_t*>(from + sizeof(hwy::float16_t));
    if constexpr (kProbe) probe = hn::Or(probe, not_finite(scale));
    for (std::size_t i = 0; i < kBlock; i += hn::Lanes(d)) {
      const VF value = hn::ConvertTo(d, hn::PromoteTo(di, hn::LoadU(d8, quants + i)));
      hn::Store(hn::Mul(value, scale), d, to + b + i);
    }
  }
}

template <bool kProbe>
HWY_INLINE void convert_q4_0(const std::byte* HWY_RESTRICT from, std::size_t count,
                             float* HWY_RESTRICT to, VF& probe) {
  const DF d;
  const hn::RebindToSigned<DF> di;
  const hn::Rebind<std::uint8_t, DF> d8;
  for (std::size_t b = 0; b < count; b += kBlock, from += sizeof(hwy::float16_t) + kBlock / 2) {
    const VF scale = hn::Set(d, load_half(from));
    const auto* quants = reinterpret_cast<const std::uint8_t*>(from + sizeof(hwy::float16_t));
    if constexpr (kProbe) probe = hn::Or(probe, not_finite(scale));
    for (std::size_t i = 0; i < kBlock / 2; i += hn::Lanes(d)) {
      const auto pairs = hn::PromoteTo(di, hn::LoadU(d8, quants + i));
      const auto low = hn::Sub(hn::And(pairs, hn::Set(di, 15)), hn::Set(di, 8));
      const auto high = hn::Sub(hn::ShiftRight<4>(pairs), hn::Set(di, 8));
      hn::Store(hn::Mul(hn::ConvertTo(d, low), scale), d, to + b + i);
      hn::Store(hn::Mul(hn::ConvertTo(d, high), scale), d, to + b + kBlock / 2 + i);
    }
  }
}

template <DType kType>
HWY_INLINE std::size_t row_bytes(std::size_t count) {
  if constexpr (kType == DType::kQ8_0) return count / kBlock * (sizeof(hwy::float16_t) + kBlock);
  if constexpr (kType == DType::kQ4_0)
    return count / kBlock * (sizeof(hwy::float16_t) + kBlock / 2);
  return count * (kType == DType::kF32 ? sizeof(float) : sizeof(hwy::float16_t));
}

template <DType kType, bool kProbe>
HWY_INLINE void convert_row(const std::byte* from, std::size_t count, float* to, VF& probe) {
  if constexpr (kType == DType::kF32) {
    convert_plain<float, kProbe>(from, count, to, probe);
  } else if constexpr (kType == DType::kF16) {
    convert_plain<hwy::float16_t, kProbe>(from, count, to, probe);
  } else if constexpr (kType == DType::kBF16) {
    convert_plain<hwy::bfloat16_t, kProbe>(from, count, to, probe);
  } else if constexpr (kType == DType::kQ8_0) {
    convert_q8_0<kProbe>(from, count, to, probe);
  } else {
    convert_q4_0<kProbe>(from, count, to, probe);
  }
}

}  // namespace ollama::ml::kernels::attention::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
