// The products, once for every target.
//
// A piece of a group of rows, or of two, is unpacked into a panel in the first-level cache: quads
// of unsigned bytes, and for every block a scale and a minimum of each row, w = scale * u + minimum
// (an offset is a minimum, too). Then every tile of columns is multiplied with the panel. The types
// differ in the unpacking alone, and one kernel for every width of quants serves all:
//
//   c += scale * dx * dot(u, x) + minimum * (dx * sum(x))
//
// or, where products come in 32 bits and all weights have one offset, w = scale * (u - offset):
//
//   c += scale * dx * (dot(u, x) - offset * sum(x))
//
// A single tile of columns is multiplied while the weights are unpacked, without a panel: that is
// bound by memory. Both ways give the same bits: dot products of a block are integers, and blocks
// are added up in the same order.

#if defined(OLLAMA_ML_KERNELS_GEMM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef OLLAMA_ML_KERNELS_GEMM_INL_H_
#undef OLLAMA_ML_KERNELS_GEMM_INL_H_
#else
#define OLLAMA_ML_KERNELS_GEMM_INL_H_
#endif

#include <algorithm>
#include <bit>
#include <cstring>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "ml/kernels/gemm.h"
#include "ml/kernels/layout.h"

// Only gemm.cpp includes this; a namespace for each target keeps the copies apart.
// NOLINTBEGIN(misc-definitions-in-headers)
HWY_BEFORE_NAMESPACE();
namespace ollama::ml::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// A group's quad is one vector, or several where vectors are narrower.
constexpr std::size_t kBytes = HWY_MAX_BYTES < kQuadBytes ? HWY_MAX_BYTES : kQuadBytes;
constexpr std::size_t kGroupVectors = kQuadBytes / kBytes;
constexpr std::size_t kLanes = kBytes / 4;  // rows of a vector
// Groups that are multiplied together. Every product wants a piece of a column in all lanes, which
// takes a load; a processor that loads one vector of 64 bytes a cycle and multiplies one has no
// time left for the weights, unless two vectors of them use the piece. (The emulation does it too,
// so that it is tested everywhere.)
constexpr std::size_t kGroups = HWY_TARGET <= HWY_AVX3 || HWY_TARGET == HWY_EMU128 ? 2 : 1;
constexpr std::size_t kVectors = kGroups * kGroupVectors;

using Bytes8 = hn::FixedTag<std::uint8_t, kBytes>;
using Signed8 = hn::FixedTag<std::int8_t, kBytes>;
using Signed16 = hn::FixedTag<std::int16_t, kBytes / 2>;
using Unsigned16 = hn::FixedTag<std::uint16_t, kBytes / 2>;
using Signed32 = hn::FixedTag<std::int32_t, kLanes>;
using Float = hn::FixedTag<float, kLanes>;
using Half = hn::FixedTag<hwy::float16_t, kLanes>;
using Brain = hn::FixedTag<hwy::bfloat16_t, kLanes>;
using FewBytes = hn::FixedTag<std::uint8_t, kLanes>;
using FewSigned = hn::FixedTag<std::int8_t, kLanes>;

using VBytes = hn::Vec<Bytes8>;
using VInt = hn::Vec<Signed32>;
using VFloat = hn::Vec<Float>;

// AVX2 multiplies u8 by i8 and adds pairs, in 16 bits; others have four products in 32 bits.
#if HWY_TARGET == HWY_AVX2
constexpr bool kPairs = true;
#else
constexpr bool kPairs = false;
#endif

// Keeps sums in registers in the order that they are written in: GCC would make all the products of
// a block before it adds the first two, and store them meanwhile (a third slower).
template <typename V>
HWY_INLINE void pin([[maybe_unused]] V& v) {
#if HWY_ARCH_X86 && HWY_COMPILER_GCC && HWY_TARGET != HWY_EMU128
  asm("" : "+x"(v.raw));
#endif
}

// How wide quants are: how many quads fit into 16 bits before they are added up in 32.
enum class Width { kFour, kFive, kSix, kEight };

constexpr int quads_at_once(Width width) {
  switch (width) {
    case Width::kFour:
      return 8;  // 16 * 15 * 127
    case Width::kFive:
      return 4;  // 8 * 31 * 127
    case Width::kSix:
      return 2;  // 4 * 63 * 127
    case Width::kEight:
      return 1;  // by absolute values: 2 * 127 * 127
  }
  return 1;
}

constexpr Width width_of(DType type) {
  switch (type) {
    case DType::kQ5_0:
    case DType::kQ5_1:
    case DType::kQ5_K:
    case DType::kMXFP4:
      return Width::kFive;
    case DType::kQ6_K:
      return Width::kSix;
    case DType::kQ8_0:
    case DType::kIQ4_NL:
      return Width::kEight;
    default:
      return Width::kFour;
  }
}

// Q6_K has a scale for each half of a block.
constexpr int parts_of(DType type) { return type == DType::kQ6_K ? 2 : 1; }
// Whether the panel's bytes are signed and have no minimum: where the product is by absolute value,
// or takes a sign.
constexpr bool is_signed(DType type) {
  return (kPairs || HWY_ARCH_ARM) && width_of(type) == Width::kEight;
}
// What is subtracted from all unsigned quants of a type; 0: a minimum says it for each block.
constexpr int offset_of(DType type) {
  switch (type) {
    case DType::kQ4_0:
      return 8;
    case DType::kQ5_0:
      return 16;
    case DType::kQ6_K:
      return 32;
    case DType::kMXFP4:
      return 12;
    case DType::kQ8_0:
    case DType::kIQ4_NL:
      return is_signed(type) ? 0 : 128;
    default:
      return 0;
  }
}
// Whether the offset is part of the integers' sums, which saves a product and an addition in
// floating point. Sums in 16 bits have no room for it.
constexpr bool folds_offset(DType type) { return !kPairs && offset_of(type) != 0; }
constexpr bool has_minimum(DType type) { return !is_signed(type) && !folds_offset(type); }

// Calls work<0>() to work<3>().
template <typename Work>
HWY_INLINE void for_four(const Work& work) {
  work.template operator()<0>();
  work.template operator()<1>();
  work.template operator()<2>();
  work.template operator()<3>();
}

// --- the panel ---

constexpr std::int64_t kPanelBlocks = 32 / kGroups;
constexpr std::size_t kRowsOfGroup = static_cast<std::size_t>(kGroupRows);
constexpr std::size_t kRows = kGroups * kRowsOfGroup;

struct alignas(64) Panel {
  std::uint8_t quads[kPanelBlocks * kQuads * kRows * 4];  // [4][rows][8 quads][blocks]
  float scales[kPanelBlocks * 2 * kRows];                 // [rows][1 or 2][blocks]
  float minima[kPanelBlocks * 2 * kRows];
};

// The packed groups that are multiplied together.
using Groups = const std::uint8_t* const (&)[kGroups];

HWY_INLINE VFloat load_halves(const std::uint8_t* at, std::size_t v) {
  const Half d;
  return hn::PromoteTo(Float(),
                       hn::LoadU(d, reinterpret_cast<const hwy::float16_t*>(at) + v * kLanes));
}
HWY_INLINE VFloat load_bytes(const std::uint8_t* at, std::size_t v) {
  return hn::ConvertTo(Float(), hn::PromoteTo(Signed32(), hn::LoadU(FewBytes(), at + v * kLanes)));
}
HWY_INLINE VFloat load_signed_bytes(const std::uint8_t* at, std::size_t v) {
  const auto* from = reinterpret_cast<const std::int8_t*>(at);
  return hn::ConvertTo(Float(),
                       hn::PromoteTo(Signed32(), hn::LoadU(FewSigned(), from + v * kLanes)));
}

template <int kBits>
HWY_INLINE VBytes shift_right(VBytes v) {
  const Unsigned16 d16;
  return hn::BitCast(Bytes8(), hn::ShiftRight<kBits>(hn::BitCast(d16, v)));
}
template <int kBits>
HWY_INLINE VBytes shift_left(VBytes v) {
  const Unsigned16 d16;
  return hn::BitCast(Bytes8(), hn::ShiftLeft<kBits>(hn::BitCast(d16, v)));
}
// Bit `kFrom` and, with a wider mask, those above it, moved to bit 4.
template <int kFrom>
HWY_INLINE VBytes to_bit_four(VBytes v, VBytes mask) {
  if constexpr (kFrom < 4) return hn::And(shift_left<4 - kFrom>(v), mask);
  if constexpr (kFrom > 4) return hn::And(shift_right<kFrom - 4>(v), mask);
  return hn::And(v, mask);
}

// The values that a 4-bit code stands for.
alignas(16) constexpr std::uint8_t kMxfp4[16] = {12, 13, 14, 15, 16, 18, 20, 24,
                                                 12, 11, 10, 9,  8,  6,  4,  0};
alignas(16) constexpr std::int8_t kIq4Nl[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                1,    13,   25,  38,  53,  69,  89,  113};

template <DType kType>
HWY_INLINE VBytes code_value(VBytes codes) {
  const Bytes8 d;
  if constexpr (kType == DType::kMXFP4) {
    return hn::TableLookupBytes(hn::LoadDup128(d, kMxfp4), codes);
  }
  if constexpr (kType == DType::kIQ4_NL) {
    const VBytes table = hn::LoadDup128(d, reinterpret_cast<const std::uint8_t*>(kIq4Nl));
    const VBytes value = hn::TableLookupBytes(table, codes);
    return is_signed(kType) ? value : hn::Xor(value, hn::Set(d, 0x80));
  }
  return codes;
}

// Vector v of quad g and of quad g + 4 of a block.
struct QuadPair {
  VBytes low;
  VBytes high;
};
template <DType kType, int kQuad>
HWY_INLINE QuadPair unpack_quads(const std::uint8_t* block, std::size_t v) {
  const Bytes8 d;
  const std::size_t at = kQuad * kQuadBytes + v * kBytes;
  VBytes low = hn::LoadU(d, block + at);
  VBytes high;
  if constexpr (kType == DType::kQ8_0) {
    high = hn::LoadU(d, block + 4 * kQuadBytes + at);
    if constexpr (!is_signed(kType)) {
      low = hn::Xor(low, hn::Set(d, 0x80));
      high = hn::Xor(high, hn::Set(d, 0x80));
    }
  } else {
    const VBytes low_mask = hn::Set(d, 0x0F);
    high = hn::And(shift_right<4>(low), low_mask);
    low = hn::And(low, low_mask);
    low = code_value<kType>(low);
    high = code_value<kType>(high);
  }
  if constexpr (kType == DType::kQ5_0 || kType == DType::kQ5_1 || kType == DType::kQ5_K) {
    const VBytes bits = hn::LoadU(d, block + 4 * kQuadBytes + v * kBytes);
    const VBytes mask = hn::Set(d, 0x10);
    low = hn::Or(low, to_bit_four<kQuad>(bits, mask));
    high = hn::Or(high, to_bit_four<kQuad + 4>(bits, mask));
  }
  if constexpr (kType == DType::kQ6_K) {
    const VBytes mask = hn::Set(d, 0x30);
    const std::uint8_t* bits = block + 4 * kQuadBytes + v * kBytes;
    low = hn::Or(low, to_bit_four<2 * kQuad>(hn::LoadU(d, bits), mask));
    high = hn::Or(high, to_bit_four<2 * kQuad>(hn::LoadU(d, bits + kQuadBytes), mask));
  }
  return {low, high};
}

// 2^(e - 128): what MXFP4's exponents mean for values that are doubled.
HWY_INLINE VFloat exponents(const std::uint8_t* at, std::size_t v) {
  const Signed32 d;
  const VInt e = hn::PromoteTo(d, hn::LoadU(FewBytes(), at + v * kLanes));
  // The two smallest are denormal.
  const VInt normal = hn::ShiftLeft<23>(hn::Sub(e, hn::Set(d, 1)));
  const VInt small = hn::Shl(hn::Set(d, 0x00200000), hn::Min(e, hn::Set(d, 1)));
  return hn::BitCast(Float(), hn::IfThenElse(hn::Lt(e, hn::Set(d, 2)), small, normal));
}

// Scale and minimum of part kPart of a block (number i of its unit), for the rows of vector v of
// the group.
struct ScalePair {
  VFloat scale;
  VFloat minimum;  // meaningless without has_minimum()
};
template <DType kType, int kPart>
HWY_INLINE ScalePair unpack_scales(const std::uint8_t* unit, std::int64_t i, std::size_t v) {
  constexpr Layout kLayout = layout_of(kType);
  const Float d;
  if constexpr (kType == DType::kQ4_K || kType == DType::kQ5_K) {
    const std::uint8_t* low = unit + kLayout.small + static_cast<std::size_t>(i) * kRowsOfGroup;
    const std::uint8_t* high =
        unit + kLayout.small + kSmallLow + static_cast<std::size_t>(i / 2) * kRowsOfGroup;
    const Signed32 d32;
    const VInt l = hn::PromoteTo(d32, hn::LoadU(FewBytes(), low + v * kLanes));
    const VInt both = hn::PromoteTo(d32, hn::LoadU(FewBytes(), high + v * kLanes));
    const VInt h = hn::ShiftRightSame(both, i % 2 == 0 ? 0 : 4);
    const VInt scale =
        hn::Or(hn::And(l, hn::Set(d32, 15)), hn::ShiftLeft<4>(hn::And(h, hn::Set(d32, 3))));
    const VInt minimum =
        hn::Or(hn::ShiftRight<4>(l), hn::ShiftLeft<2>(hn::And(h, hn::Set(d32, 12))));
    return {hn::Mul(hn::ConvertTo(d, scale), load_halves(unit + kLayout.scales, v)),
            hn::Neg(hn::Mul(hn::ConvertTo(d, minimum), load_halves(unit + kLayout.minima, v)))};
  } else if constexpr (kType == DType::kQ6_K) {
    const std::uint8_t* small =
        unit + kLayout.small + (2 * static_cast<std::size_t>(i) + kPart) * kRowsOfGroup;
    const VFloat scale =
        hn::Mul(load_halves(unit + kLayout.scales, v), load_signed_bytes(small, v));
    return {scale, hn::Mul(scale, hn::Set(d, -static_cast<float>(offset_of(kType))))};
  } else {
    const VFloat scale = kType == DType::kMXFP4 ? exponents(unit + kLayout.scales, v)
                                                : load_halves(unit + kLayout.scales, v);
    if constexpr (kLayout.minima != 0) return {scale, load_halves(unit + kLayout.minima, v)};
    return {scale, has_minimum(kType)
                       ? hn::Mul(scale, hn::Set(d, -static_cast<float>(offset_of(kType))))
                       : scale};
  }
}

// Block number b of the groups, whose vectors are numbered through.
template <DType kType>
struct BlockAt {
  static constexpr Layout kLayout = layout_of(kType);
  Groups groups;
  std::size_t unit;  // its offset in each group
  std::int64_t i;    // of the unit's blocks
  HWY_INLINE BlockAt(Groups from, std::int64_t b)
      : groups(from),
        unit(static_cast<std::size_t>(b / kLayout.blocks) * kLayout.unit),
        i(b % kLayout.blocks) {}
  template <int kQuad>
  HWY_INLINE QuadPair quads(std::size_t v) const {
    const std::uint8_t* quants = groups[v / kGroupVectors] + unit + kLayout.quants +
                                 static_cast<std::size_t>(i) * kLayout.block;
    return unpack_quads<kType, kQuad>(quants, v % kGroupVectors);
  }
  // Fetches the block that comes so many later. (There may be none: then nothing is fetched.)
  template <int kAhead>
  HWY_INLINE void fetch() const {
    constexpr std::size_t kSize = kLayout.unit / static_cast<std::size_t>(kLayout.blocks);
    for (const std::uint8_t* group : groups) {
      const std::uint8_t* at = group + unit + (static_cast<std::size_t>(i) + kAhead) * kSize;
      for (std::size_t line = 0; line < kSize; line += 64) hwy::Prefetch(at + line);
    }
  }
  template <int kPart>
  HWY_INLINE ScalePair scales(std::size_t v) const {
    return unpack_scales<kType, kPart>(groups[v / kGroupVectors] + unit, i, v % kGroupVectors);
  }
};

template <DType kType>
HWY_INLINE void unpack(Groups groups, std::int64_t first, std::int64_t count, Panel& panel) {
  constexpr int kParts = parts_of(kType);
  const Bytes8 d8;
  const Float df;
  std::uint8_t* quads = panel.quads;
  float* scales = panel.scales;
  float* minima = panel.minima;
  for (std::int64_t b = 0; b < count; ++b) {
    const BlockAt<kType> at(groups, first + b);
    for (std::size_t v = 0; v < kVectors; ++v) {
      for_four([&]<int kQuad>() HWY_ATTR {
        const QuadPair pair = at.template quads<kQuad>(v);
        hn::Store(pair.low, d8, quads + kQuad * kRows * 4 + v * kBytes);
        hn::Store(pair.high, d8, quads + (kQuad + 4) * kRows * 4 + v * kBytes);
      });
      const auto store_scales = [&]<int kPart>() HWY_ATTR {
        const ScalePair pair = at.template scales<kPart>(v);
        hn::Store(pair.scale, df, scales + kPart * kRows + v * kLanes);
        hn::Store(pair.minimum, df, minima + kPart * kRows + v * kLanes);
      };
      store_scales.template operator()<0>();
      if constexpr (kParts == 2) store_scales.template operator()<1>();
    }
    quads += kQuads * kRows * 4;
    scales += kParts * kRows;
    minima += kParts * kRows;
  }
}

// --- the kernel ---

HWY_INLINE hn::Vec<Signed8> broadcast_piece(const std::int8_t* at) {
  std::int32_t piece = 0;
  std::memcpy(&piece, at, 4);
  return hn::BitCast(Signed8(), hn::Set(Signed32(), piece));
}

HWY_INLINE VInt dot4(VInt sum, VBytes w, hn::Vec<Signed8> x) {
#if HWY_ARCH_ARM
  // Bytes are signed or below 128, where they mean the same with a sign: then Arm has one
  // instruction for it, or four, where Highway has fourteen.
  const hn::Vec<Signed8> by = hn::BitCast(Signed8(), w);
#if HWY_ARCH_ARM_A64 && HWY_TARGET == HWY_NEON_BF16
  return VInt(vdotq_s32(sum.raw, by.raw, x.raw));
#elif HWY_ARCH_ARM_A64 && HWY_TARGET_IS_NEON
  // Two products fit into 16 bits: 2 * 128 * 127.
  const int16x8_t low = vmull_s8(vget_low_s8(by.raw), vget_low_s8(x.raw));
  const int16x8_t high = vmull_high_s8(by.raw, x.raw);
  return VInt(vpadalq_s16(sum.raw, vpaddq_s16(low, high)));
#else
  return hn::SumOfMulQuadAccumulate(Signed32(), by, x, sum);
#endif
#else
  return hn::SumOfMulQuadAccumulate(Signed32(), w, x, sum);
#endif
}

// Sums of a tile's columns for the groups' rows each. Plain arrays, never members: GCC keeps only
// these in registers.
template <int kColumns>
using Ints = VInt[kColumns][kVectors];
template <int kColumns>
using Pairs = hn::Vec<Signed16>[kColumns][kVectors];
template <int kColumns>
using Floats = VFloat[kColumns][kVectors];

// Multiplies a quad with every column. `x`: the columns' pieces of this quad. kBegin: the first
// since the sums were flushed. With kPairs into `pairs`, else into `t`, which holds something then.
template <int kColumns, Width kWidth, bool kBegin>
HWY_INLINE void add_quad(const VBytes (&w)[kVectors], const std::int8_t* x,
                         [[maybe_unused]] Ints<kColumns>& t,
                         [[maybe_unused]] Pairs<kColumns>& pairs) {
  if constexpr (kPairs) {
    const Signed16 d16;
    VBytes by[kVectors];
    for (std::size_t v = 0; v < kVectors; ++v) {
      by[v] = w[v];
      if constexpr (kWidth == Width::kEight) {
        by[v] = hn::BitCast(Bytes8(), hn::Abs(hn::BitCast(Signed8(), w[v])));
      }
    }
    for (int j = 0; j < kColumns; ++j) {
      const auto piece = broadcast_piece(x + j * 4);
      for (std::size_t v = 0; v < kVectors; ++v) {
        hn::Vec<Signed8> signed_piece = piece;
        if constexpr (kWidth == Width::kEight) {
          signed_piece = hn::IfNegativeThenNegOrUndefIfZero(hn::BitCast(Signed8(), w[v]), piece);
        }
        const auto product = hn::SatWidenMulPairwiseAdd(d16, by[v], signed_piece);
        pairs[j][v] = kBegin ? product : hn::Add(pairs[j][v], product);
        pin(pairs[j][v]);
      }
    }
  } else {
    for (int j = 0; j < kColumns; ++j) {
      const auto piece = broadcast_piece(x + j * 4);
      for (std::size_t v = 0; v < kVectors; ++v) {
        t[j][v] = dot4(t[j][v], w[v], piece);
      }
    }
  }
}

// The pairs' sums into those of 32 bits; kBegin: which hold nothing yet.
template <int kColumns, bool kBegin>
HWY_INLINE void flush([[maybe_unused]] Ints<kColumns>& t,
                      [[maybe_unused]] const Pairs<kColumns>& pairs) {
  if constexpr (kPairs) {
    const auto ones = hn::Set(Signed16(), 1);
    for (int j = 0; j < kColumns; ++j) {
      for (std::size_t v = 0; v < kVectors; ++v) {
        const VInt sum = hn::WidenMulPairwiseAdd(Signed32(), pairs[j][v], ones);
        t[j][v] = kBegin ? sum : hn::Add(t[j][v], sum);
        pin(t[j][v]);
      }
    }
  }
}

// Quads kAt to kEnd - 1 of a block of the panel; kFirst is the first of its part.
template <int kColumns, Width kWidth, int kFirst, int kAt, int kEnd>
HWY_INLINE void dot_panel(const std::uint8_t* quads, const std::int8_t* x, Ints<kColumns>& t,
                          Pairs<kColumns>& pairs) {
  if constexpr (kAt < kEnd) {
    constexpr int kAtOnce = kPairs ? std::min(quads_at_once(kWidth), kEnd - kFirst) : kEnd - kFirst;
    constexpr int kSince = (kAt - kFirst) % kAtOnce;
    VBytes w[kVectors];
    for (std::size_t v = 0; v < kVectors; ++v) {
      w[v] = hn::Load(Bytes8(), quads + kAt * kRows * 4 + v * kBytes);
    }
    add_quad<kColumns, kWidth, kSince == 0>(w, x + kAt * kColumns * 4, t, pairs);
    if constexpr (kSince == kAtOnce - 1) flush < kColumns, kAt - kFirst<kAtOnce>(t, pairs);
    dot_panel<kColumns, kWidth, kFirst, kAt + 1, kEnd>(quads, x, t, pairs);
  }
}

// Adds a block's dot products to the columns' sums, for the rows of vector v.
template <int kColumns, bool kHasMinimum>
HWY_INLINE void add_scaled(const Ints<kColumns>& t, std::size_t v, const ScalePair& scales,
                           const float* dx, const float* sums, Floats<kColumns>& acc) {
  const Float d;
  for (int j = 0; j < kColumns; ++j) {
    acc[j][v] =
        hn::MulAdd(hn::ConvertTo(d, t[j][v]), hn::Mul(scales.scale, hn::Set(d, dx[j])), acc[j][v]);
  }
  if constexpr (kHasMinimum) {
    for (int j = 0; j < kColumns; ++j) {
      acc[j][v] = hn::MulAdd(scales.minimum, hn::Set(d, sums[j]), acc[j][v]);
    }
  }
}

// A tile's activations from block `first` on.
template <int kColumns, int kParts>
struct TileAt {
  const std::int8_t* x;
  const float* dx;
  // Of each part of a block: with its scale, or as integers.
  const float* sums;
  const std::int32_t* counts;

  HWY_INLINE TileAt(const std::byte* tile, std::int64_t k, std::int64_t first) {
    const TileLayout layout = tile_layout(k, kColumns);
    const std::int64_t at = first * kColumns * kParts;
    x = reinterpret_cast<const std::int8_t*>(tile) + first * kBlock * kColumns;
    dx = reinterpret_cast<const float*>(tile + layout.scales) + first * kColumns;
    const std::size_t halves = layout.half_sums;
    sums = reinterpret_cast<const float*>(tile + (kParts == 2 ? halves : layout.sums)) + at;
    counts =
        reinterpret_cast<const std::int32_t*>(tile + (kParts == 2 ? halves : layout.counts)) + at;
  }
  HWY_INLINE void next() {
    x += kBlock * kColumns;
    dx += kColumns;
    sums += kColumns * kParts;
    counts += kColumns * kParts;
  }
};

// What a block's dot products begin with: nothing, or the offset's share. `counts`: of the part.
template <int kColumns, DType kType>
HWY_INLINE void begin_block([[maybe_unused]] const std::int32_t* counts,
                            [[maybe_unused]] Ints<kColumns>& t) {
  if constexpr (!kPairs) {
    const Signed32 d;
    for (int j = 0; j < kColumns; ++j) {
      VInt start = hn::Zero(d);
      if constexpr (kType == DType::kMXFP4) {
        const VInt count = hn::Set(d, counts[j]);
        start = hn::Sub(hn::Neg(hn::ShiftLeft<3>(count)), hn::ShiftLeft<2>(count));
      } else if constexpr (folds_offset(kType)) {
        constexpr int kShift = std::countr_zero(static_cast<unsigned>(offset_of(kType)));
        start = hn::Neg(hn::ShiftLeft<kShift>(hn::Set(d, counts[j])));
      }
      for (std::size_t v = 0; v < kVectors; ++v) t[j][v] = start;
    }
  }
}

template <int kColumns>
HWY_INLINE void load_sums(float* const* c, bool fresh, Floats<kColumns>& acc) {
  const Float d;
  for (int j = 0; j < kColumns; ++j) {
    for (std::size_t v = 0; v < kVectors; ++v) {
      acc[j][v] = fresh ? hn::Zero(d) : hn::LoadU(d, c[j] + v * kLanes);
    }
  }
}
template <int kColumns>
HWY_INLINE void store_sums(const Floats<kColumns>& acc, float* const* c) {
  for (int j = 0; j < kColumns; ++j) {
    for (std::size_t v = 0; v < kVectors; ++v) hn::StoreU(acc[j][v], Float(), c[j] + v * kLanes);
  }
}

template <int kColumns, DType kType, int kPart>
HWY_INLINE void multiply_part(const std::uint8_t* quads, const float* scales, const float* minima,
                              const TileAt<kColumns, parts_of(kType)>& at, Floats<kColumns>& acc) {
  constexpr int kQuadsOfPart = static_cast<int>(kQuads) / parts_of(kType);
  constexpr int kFirst = kPart * kQuadsOfPart;
  const Float d;
  Ints<kColumns> t;
  Pairs<kColumns> pairs;
  begin_block<kColumns, kType>(at.counts + kPart * kColumns, t);
  dot_panel<kColumns, width_of(kType), kFirst, kFirst, kFirst + kQuadsOfPart>(quads, at.x, t,
                                                                              pairs);
  for (std::size_t v = 0; v < kVectors; ++v) {
    const std::size_t row = kPart * kRows + v * kLanes;
    const VFloat scale = hn::Load(d, scales + row);
    const VFloat minimum = has_minimum(kType) ? hn::Load(d, minima + row) : scale;
    add_scaled<kColumns, has_minimum(kType)>(t, v, {scale, minimum}, at.dx,
                                             at.sums + kPart * kColumns, acc);
  }
}

// A tile's columns with the panel's blocks, the tile's [first, first + count): adds to c[j], the
// groups' rows each.
template <int kColumns, DType kType>
HWY_INLINE void multiply_tile(const Panel& panel, std::int64_t k, const std::byte* tile,
                              std::int64_t first, std::int64_t count, float* const* c, bool fresh) {
  constexpr int kParts = parts_of(kType);
  TileAt<kColumns, kParts> at(tile, k, first);
  const std::uint8_t* quads = panel.quads;
  const float* scales = panel.scales;
  const float* minima = panel.minima;
  Floats<kColumns> acc;
  load_sums<kColumns>(c, fresh, acc);
  for (std::int64_t b = 0; b < count; ++b) {
    multiply_part<kColumns, kType, 0>(quads, scales, minima, at, acc);
    if constexpr (kParts == 2) {
      multiply_part<kColumns, kType, 1>(quads, scales, minima, at, acc);
    }
    quads += kQuads * kRows * 4;
    scales += kParts * kRows;
    minima += kParts * kRows;
    at.next();
  }
  store_sums<kColumns>(acc, c);
}

// Quads kQuad and kQuad + 4 of a block, which come together: into the sums of one part, or of one
// each.
template <int kColumns, DType kType, int kQuad>
HWY_INLINE void add_quad_pair(const BlockAt<kType>& block, const std::int8_t* x,
                              Ints<kColumns> (&t)[parts_of(kType)],
                              Pairs<kColumns> (&pairs)[parts_of(kType)]) {
  constexpr Width kWidth = width_of(kType);
  constexpr int kLast = parts_of(kType) - 1;
  VBytes low[kVectors];
  VBytes high[kVectors];
  for (std::size_t v = 0; v < kVectors; ++v) {
    const QuadPair pair = block.template quads<kQuad>(v);
    low[v] = pair.low;
    high[v] = pair.high;
  }
  const std::int8_t* x_low = x + kQuad * kColumns * 4;
  const std::int8_t* x_high = x_low + 4 * kColumns * 4;
  // Quads that each part's sums take before a flush.
  constexpr int kAtOnce = kPairs ? quads_at_once(kWidth) : 8;
  if constexpr (kLast == 1) {
    constexpr bool kBegin = kQuad % kAtOnce == 0;
    constexpr bool kEnd = kQuad % kAtOnce == std::min(kAtOnce, 4) - 1;
    add_quad<kColumns, kWidth, kBegin>(low, x_low, t[0], pairs[0]);
    add_quad<kColumns, kWidth, kBegin>(high, x_high, t[kLast], pairs[kLast]);
    if constexpr (kEnd) {
      flush < kColumns, kQuad<kAtOnce>(t[0], pairs[0]);
      flush < kColumns, kQuad<kAtOnce>(t[kLast], pairs[kLast]);
    }
  } else if constexpr (kAtOnce == 1) {
    add_quad<kColumns, kWidth, true>(low, x_low, t[0], pairs[0]);
    flush<kColumns, kQuad == 0>(t[0], pairs[0]);
    add_quad<kColumns, kWidth, true>(high, x_high, t[0], pairs[0]);
    flush<kColumns, false>(t[0], pairs[0]);
  } else {
    constexpr int kSince = 2 * kQuad % kAtOnce;
    add_quad<kColumns, kWidth, kSince == 0>(low, x_low, t[0], pairs[0]);
    add_quad<kColumns, kWidth, false>(high, x_high, t[0], pairs[0]);
    if constexpr (kSince == kAtOnce - 2) flush < kColumns, 2 * kQuad<kAtOnce>(t[0], pairs[0]);
  }
}

// All of the groups' blocks with one tile.
template <int kColumns, DType kType>
HWY_INLINE void multiply_directly(Groups groups, std::int64_t k, const std::byte* tile,
                                  float* const* c) {
  constexpr int kParts = parts_of(kType);
  TileAt<kColumns, kParts> at(tile, k, 0);
  Floats<kColumns> acc;
  load_sums<kColumns>(c, true, acc);
  for (std::int64_t b = 0; b < k / kBlock; ++b) {
    const BlockAt<kType> block(groups, b);
    // While blocks are multiplied, the processor sees no further than the next one.
    block.template fetch<8>();
    Ints<kColumns> t[kParts];
    Pairs<kColumns> pairs[kParts];
    begin_block<kColumns, kType>(at.counts, t[0]);
    if constexpr (kParts == 2) begin_block<kColumns, kType>(at.counts + kColumns, t[1]);
    add_quad_pair<kColumns, kType, 0>(block, at.x, t, pairs);
    add_quad_pair<kColumns, kType, 1>(block, at.x, t, pairs);
    add_quad_pair<kColumns, kType, 2>(block, at.x, t, pairs);
    add_quad_pair<kColumns, kType, 3>(block, at.x, t, pairs);
    for (std::size_t v = 0; v < kVectors; ++v) {
      add_scaled<kColumns, has_minimum(kType)>(t[0], v, block.template scales<0>(v), at.dx, at.sums,
                                               acc);
    }
    if constexpr (kParts == 2) {
      for (std::size_t v = 0; v < kVectors; ++v) {
        add_scaled<kColumns, has_minimum(kType)>(t[1], v, block.template scales<1>(v), at.dx,
                                                 at.sums + kColumns, acc);
      }
    }
    at.next();
  }
  store_sums<kColumns>(acc, c);
}

// --- floating-point weights ---

constexpr std::int64_t kFloatPanel = 256 / kGroups;  // elements of k

struct alignas(64) FloatPanel {
  float rows[kGroups][kFloatPanel * kGroupRows];
};

// Element i of the packed rows of vector v.
template <DType kType>
HWY_INLINE VFloat load_rows(Groups groups, std::int64_t i, std::size_t v) {
  const Float d;
  const std::uint8_t* group = groups[v / kGroupVectors];
  const std::size_t at = static_cast<std::size_t>(i) * kRowsOfGroup + v % kGroupVectors * kLanes;
  if constexpr (kType == DType::kF16) {
    return hn::PromoteTo(d, hn::LoadU(Half(), reinterpret_cast<const hwy::float16_t*>(group) + at));
  } else if constexpr (kType == DType::kBF16) {
    return hn::PromoteTo(d,
                         hn::LoadU(Brain(), reinterpret_cast<const hwy::bfloat16_t*>(group) + at));
  } else {
    return hn::LoadU(d, reinterpret_cast<const float*>(group) + at);
  }
}

// Elements [first, first + count) of the groups' rows as f32: in the panel, or where they are.
template <DType kType>
HWY_INLINE void unpack_floats(Groups groups, std::int64_t first, std::int64_t count,
                              FloatPanel& panel, const std::uint8_t* (&to)[kGroups]) {
  if constexpr (kType == DType::kF32) {
    for (std::size_t g = 0; g < kGroups; ++g) {
      to[g] = groups[g] + static_cast<std::size_t>(first * kGroupRows) * sizeof(float);
    }
    return;
  }
  for (std::int64_t i = 0; i < count; ++i) {
    for (std::size_t v = 0; v < kVectors; ++v) {
      hn::Store(load_rows<kType>(groups, first + i, v), Float(),
                panel.rows[v / kGroupVectors] + static_cast<std::size_t>(i) * kRowsOfGroup +
                    v % kGroupVectors * kLanes);
    }
  }
  for (std::size_t g = 0; g < kGroups; ++g) {
    to[g] = reinterpret_cast<const std::uint8_t*>(panel.rows[g]);
  }
}

// Fetches what comes so many bytes after element i of the groups' rows.
constexpr std::size_t kFloatsAhead = 4096;
template <DType kType>
HWY_INLINE void fetch_rows(Groups groups, std::int64_t i) {
  constexpr std::size_t kElement = kRowsOfGroup * (kType == DType::kF32 ? sizeof(float) : 2);
  if (kElement < 64 && i % 2 != 0) return;  // two elements to a line
  const std::size_t at = static_cast<std::size_t>(i) * kElement + kFloatsAhead;
  for (const std::uint8_t* group : groups) {
    for (std::size_t line = 0; line < kElement; line += 64) hwy::Prefetch(group + at + line);
  }
}

// Sums of 64 products each are added up: long sums would lose bits that shorter ones keep.
constexpr std::int64_t kFloatSum = 64;

// `count` elements of k, from a panel (kF32) or, kDirect, as they are packed.
template <int kColumns, DType kType, bool kDirect>
HWY_INLINE void multiply_float_tile(Groups rows, const float* x, std::int64_t count,
                                    float* const* c, bool fresh) {
  const Float d;
  Floats<kColumns> total;
  load_sums<kColumns>(c, fresh, total);
  for (std::int64_t begin = 0; begin < count; begin += kFloatSum) {
    const std::int64_t end = std::min(begin + kFloatSum, count);
    Floats<kColumns> acc;
    for (int j = 0; j < kColumns; ++j) {
      for (std::size_t v = 0; v < kVectors; ++v) acc[j][v] = hn::Zero(d);
    }
    for (std::int64_t i = begin; i < end; ++i) {
      if constexpr (kDirect) fetch_rows<kType>(rows, i);
      VFloat w[kVectors];
      for (std::size_t v = 0; v < kVectors; ++v) w[v] = load_rows<kType>(rows, i, v);
      for (int j = 0; j < kColumns; ++j) {
        const VFloat by = hn::Set(d, x[i * kColumns + j]);
        for (std::size_t v = 0; v < kVectors; ++v) acc[j][v] = hn::MulAdd(w[v], by, acc[j][v]);
      }
    }
    for (int j = 0; j < kColumns; ++j) {
      for (std::size_t v = 0; v < kVectors; ++v) total[j][v] = hn::Add(total[j][v], acc[j][v]);
    }
  }
  store_sums<kColumns>(total, c);
}

// --- loops ---

// Columns whose activations stay in the second-level cache beside a panel.
constexpr std::int64_t kColumnsAtOnce = 128;

// Where the columns of a tile go: the result, or for incomplete groups a buffer.
struct Destination {
  const GemmArguments& arguments;
  std::int64_t group;
  float* buffer;  // [rows][kColumnsAtOnce]; null for complete groups
  std::int64_t first_column;

  HWY_INLINE float* column(std::int64_t j) const {
    if (buffer != nullptr) return buffer + (j - first_column) * static_cast<std::int64_t>(kRows);
    const std::int64_t to = arguments.order != nullptr ? arguments.order[j] : j;
    return arguments.c + to * arguments.c_stride + group * kGroupRows;
  }
};

// Calls work<columns>(first column) for the tiles of [first, last).
template <typename Work>
HWY_INLINE void for_each_tile(std::int64_t first, std::int64_t last, const Work& work) {
  std::int64_t j = first;
  for (; j + 4 <= last; j += 4) work.template operator()<4>(j);
  if (j + 2 <= last) {
    work.template operator()<2>(j);
    j += 2;
  }
  if (j < last) work.template operator()<1>(j);
}

// Up to so many columns weights are unpacked anew for every tile, while they are multiplied.
constexpr std::int64_t kDirectColumns = 16;

template <DType kType>
HWY_NOINLINE void gemm_of(const GemmArguments& a, std::int64_t first, std::int64_t last) {
  constexpr ActivationKind kKind = activation_kind(kType);
  constexpr bool kIsFloat = kKind == ActivationKind::kFloat;
  constexpr std::int64_t kUnit = kIsFloat ? 1 : kBlock;
  constexpr std::int64_t kStep = kIsFloat ? kFloatPanel : kPanelBlocks;
  const std::int64_t k = a.weights.k;
  const std::int64_t units = k / kUnit;
  const std::size_t group_bytes = packed_group_size(kType, k);
  const bool direct = a.n <= kDirectColumns;
  const std::int64_t step = direct ? units : kStep;
  std::conditional_t<kIsFloat, FloatPanel, Panel> panel;
  alignas(64) float partial[kRows * kColumnsAtOnce];
  // The last groups may be fewer than kGroups, and the last one not have all its rows.
  constexpr auto kAtOnce = static_cast<std::int64_t>(kGroups);
  const std::int64_t tail = last - (last - first + kAtOnce - 1) % kAtOnce - 1;
  const bool whole_tail = tail + kAtOnce == last && last * kGroupRows <= a.weights.m;

  for (std::int64_t begin = 0; begin < a.n; begin += kColumnsAtOnce) {
    const std::int64_t end = std::min(begin + kColumnsAtOnce, a.n);
    for (std::int64_t unit = 0; unit < units; unit += step) {
      const std::int64_t count = std::min(step, units - unit);
      for (std::int64_t group = first; group < last; group += kAtOnce) {
        const std::uint8_t* packed[kGroups];
        for (std::int64_t g = 0; g < kAtOnce; ++g) {
          // One that is not there is another once more, and goes nowhere.
          packed[g] = reinterpret_cast<const std::uint8_t*>(a.weights.data) +
                      static_cast<std::size_t>(std::min(group + g, last - 1)) * group_bytes;
        }
        const bool whole = group != tail || whole_tail;
        const Destination to{a, group, whole ? nullptr : partial, begin};
        const std::uint8_t* rows[kGroups];
        if (!direct) {
          if constexpr (kIsFloat) {
            unpack_floats<kType>(packed, unit, count, panel, rows);
          } else {
            unpack<kType>(packed, unit, count, panel);
          }
        }
        for_each_tile(begin, end, [&]<int kColumns>(std::int64_t j) HWY_ATTR {
          float* c[kColumns];
          for (int i = 0; i < kColumns; ++i) c[i] = to.column(j + i);
          const std::byte* tile = a.activations + activation_size(kKind, k, j);
          if constexpr (kIsFloat) {
            const auto* x = reinterpret_cast<const float*>(tile) + unit * kColumns;
            if (direct) {
              multiply_float_tile<kColumns, kType, true>(packed, x, count, c, true);
            } else {
              multiply_float_tile<kColumns, DType::kF32, false>(rows, x, count, c, unit == 0);
            }
          } else if (direct) {
            multiply_directly<kColumns, kType>(packed, k, tile, c);
          } else {
            multiply_tile<kColumns, kType>(panel, k, tile, unit, count, c, unit == 0);
          }
        });
      }
    }
    if (!whole_tail && last > first) {
      const std::int64_t row = tail * kGroupRows;
      for (std::int64_t j = begin; j < end; ++j) {
        const std::int64_t to = a.order != nullptr ? a.order[j] : j;
        std::copy_n(partial + (j - begin) * static_cast<std::int64_t>(kRows),
                    std::min(last * kGroupRows, a.weights.m) - row, a.c + to * a.c_stride + row);
      }
    }
  }
}

void gemm_rows(const GemmArguments& a, std::int64_t first, std::int64_t last) {
  switch (a.weights.type) {
    case DType::kQ4_0:
      return gemm_of<DType::kQ4_0>(a, first, last);
    case DType::kQ4_1:
      return gemm_of<DType::kQ4_1>(a, first, last);
    case DType::kQ5_0:
      return gemm_of<DType::kQ5_0>(a, first, last);
    case DType::kQ5_1:
      return gemm_of<DType::kQ5_1>(a, first, last);
    case DType::kQ8_0:
      return gemm_of<DType::kQ8_0>(a, first, last);
    case DType::kQ4_K:
      return gemm_of<DType::kQ4_K>(a, first, last);
    case DType::kQ5_K:
      return gemm_of<DType::kQ5_K>(a, first, last);
    case DType::kQ6_K:
      return gemm_of<DType::kQ6_K>(a, first, last);
    case DType::kIQ4_NL:
      return gemm_of<DType::kIQ4_NL>(a, first, last);
    case DType::kMXFP4:
      return gemm_of<DType::kMXFP4>(a, first, last);
    case DType::kF16:
      return gemm_of<DType::kF16>(a, first, last);
    case DType::kBF16:
      return gemm_of<DType::kBF16>(a, first, last);
    case DType::kF32:
      return gemm_of<DType::kF32>(a, first, last);
    default:
      return;  // can_pack() says no
  }
}

// --- activations ---

// 32 elements to int8 with one scale: the quants, and the sums of both halves.
struct QuantizedBlock {
  std::int8_t quants[kBlock];
  float scale;
  std::int32_t sums[2];
};

HWY_INLINE void quantize_block(const float* x, QuantizedBlock& block) {
  const Float d;
  const hn::Rebind<std::int32_t, Float> d32;
  const FewSigned d8;
  VFloat largest = hn::Zero(d);
  for (std::size_t i = 0; i < kBlock; i += kLanes) {
    largest = hn::Max(largest, hn::Abs(hn::LoadU(d, x + i)));
  }
  const float most = hn::ReduceMax(d, largest);
  block.scale = most / 127.0F;
  const VFloat inverse = hn::Set(d, most > 0 ? 127.0F / most : 0.0F);
  VInt sums[2] = {hn::Zero(d32), hn::Zero(d32)};
  for (std::size_t i = 0; i < kBlock; i += kLanes) {
    const VInt q = hn::NearestInt(hn::Mul(hn::LoadU(d, x + i), inverse));
    sums[i / (kBlock / 2)] = hn::Add(sums[i / (kBlock / 2)], q);
    hn::StoreU(hn::DemoteTo(d8, q), d8, block.quants + i);
  }
  for (int half = 0; half < 2; ++half) block.sums[half] = hn::ReduceSum(d32, sums[half]);
}

HWY_INLINE void quantize_column(const float* x, std::int64_t k, std::byte* tile, std::int64_t w,
                                std::int64_t j) {
  const TileLayout layout = tile_layout(k, w);
  auto* quants = reinterpret_cast<std::int8_t*>(tile) + j * 4;
  auto* scales = reinterpret_cast<float*>(tile + layout.scales) + j;
  auto* sums = reinterpret_cast<float*>(tile + layout.sums) + j;
  auto* half_sums = tile + layout.half_sums + 4 * j;
  auto* counts = reinterpret_cast<std::int32_t*>(tile + layout.counts) + j;
  QuantizedBlock block;
  for (std::int64_t b = 0; b < k / kBlock; ++b) {
    quantize_block(x + b * kBlock, block);
    for (std::int64_t g = 0; g < kQuads; ++g) {
      std::memcpy(quants + (b * kQuads + g) * w * 4, block.quants + g * 4, 4);
    }
    scales[b * w] = block.scale;
    counts[b * w] = block.sums[0] + block.sums[1];
    sums[b * w] = block.scale * static_cast<float>(counts[b * w]);
    for (std::int64_t half = 0; half < 2; ++half) {
      const std::int32_t count = block.sums[half];
      const float sum = block.scale * static_cast<float>(count);
      std::memcpy(half_sums + 4 * (2 * b + half) * w,
                  folds_offset(DType::kQ6_K) ? static_cast<const void*>(&count) : &sum, 4);
    }
  }
}

void pack_tiles(ActivationKind kind, std::int64_t k, std::int64_t n, const Columns& columns,
                std::byte* packed, std::int64_t first, std::int64_t last) {
  const std::int64_t end = std::min(last * kTileColumns, n);
  for_each_tile(first * kTileColumns, end, [&]<int kColumns>(std::int64_t begin) HWY_ATTR {
    std::byte* to = packed + activation_size(kind, k, begin);
    for (int j = 0; j < kColumns; ++j) {
      const float* x = columns.column(begin + j);
      if (kind == ActivationKind::kInt8) {
        quantize_column(x, k, to, kColumns, j);
      } else {
        auto* floats = reinterpret_cast<float*>(to) + j;
        for (std::int64_t i = 0; i < k; ++i) floats[i * kColumns] = x[i];
      }
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace ollama::ml::kernels
HWY_AFTER_NAMESPACE();
// NOLINTEND(misc-definitions-in-headers)

#endif  // toggle
