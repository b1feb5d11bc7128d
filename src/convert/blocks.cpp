#include "convert/blocks.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace ollama::convert {
namespace {

void by_ggml(ggml_type type, std::span<const float> values, std::span<std::byte> out) {
  ggml_quantize_chunk(type, values.data(), out.data(), 0, 1,
                      static_cast<std::int64_t>(values.size()), nullptr);
}

#if defined(__x86_64__)

// AVX2 without FMA: a contracted multiplication and addition would round once, GGML's rounds twice.
#define OLLAMA_AVX2 __attribute__((target("avx2")))
#define OLLAMA_INLINE __attribute__((always_inline, target("avx2"))) inline

constexpr int kLanes = 8;  // sub-blocks side by side
constexpr int kSuper = 256;
using Floats = float __attribute__((vector_size(32)));
using Ints = std::int32_t __attribute__((vector_size(32)));

OLLAMA_INLINE Floats all(float value) { return Floats{} + value; }
OLLAMA_INLINE Floats to_float(Ints values) { return __builtin_convertvector(values, Floats); }
OLLAMA_INLINE Floats absolute(Floats values) {
  return reinterpret_cast<Floats>(reinterpret_cast<Ints>(values) & 0x7fffffff);
}
OLLAMA_INLINE Ints clamped(Ints values, int low, int high) {
  values = values < low ? Ints{} + low : values;
  return values > high ? Ints{} + high : values;
}
OLLAMA_INLINE bool any(Ints mask) {
  int bits = 0;
  for (int lane = 0; lane < kLanes; ++lane) bits |= mask[lane];
  return bits != 0;
}

// GGML's rounding: beyond 2^22 its results are no numbers near the value, and must be the same.
OLLAMA_INLINE Ints nearest(Floats values) {
  return (reinterpret_cast<Ints>(values + 12582912.0F) & 0x007fffff) - 0x00400000;
}
int nearest(float value) {
  const float shifted = value + 12582912.0F;
  std::int32_t bits = 0;
  std::memcpy(&bits, &shifted, sizeof bits);
  return (bits & 0x007fffff) - 0x00400000;
}

// The elements of eight sub-blocks of N: element i of all of them in column[i].
template <int N>
struct Columns {
  Floats column[N];

  OLLAMA_AVX2 explicit Columns(const float* values) {
    float turned[N][kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
      for (int i = 0; i < N; ++i) turned[i][lane] = values[lane * N + i];
    }
    std::memcpy(column, turned, sizeof column);
  }
};

// ---- Q4_K, Q5_K: x = scale * q - minimum, eight sub-blocks of 32

// What the search for a sub-block's scale depends on.
struct MinSearch {
  int most;     // of a quant
  float begin;  // the steps around `most`
  float step;
  int steps;
};

struct MinResult {
  Floats scale, minimum;  // the latter positive
  // The quants found: nearest(inverse * (x - from)); none where flat.
  Floats inverse, from;
  Ints flat;
};

OLLAMA_AVX2 OLLAMA_INLINE Ints quants(const Columns<32>& x, const MinResult& r, int i, int most) {
  const Ints found = clamped(nearest(r.inverse * (x.column[i] - r.from)), 0, most);
  return r.flat ? Ints{} : found;
}

// What all steps of the search have in common.
struct Weighed {
  Floats weight[32];
  Floats sum_w, sum_x;
  Floats low, high;  // the least and the greatest element; low is not above zero
};

OLLAMA_AVX2 OLLAMA_INLINE Weighed weigh(const Columns<32>& x) {
  Floats squares{};
  for (int i = 0; i < 32; ++i) squares += x.column[i] * x.column[i];
  squares /= 32.0F;
  Floats average;
  for (int lane = 0; lane < kLanes; ++lane) average[lane] = __builtin_sqrtf(squares[lane]);

  Weighed w;
  for (int i = 0; i < 32; ++i) w.weight[i] = average + absolute(x.column[i]);
  w.low = w.high = x.column[0];
  w.sum_w = w.weight[0];
  w.sum_x = w.weight[0] * x.column[0];
  for (int i = 1; i < 32; ++i) {
    w.low = x.column[i] < w.low ? x.column[i] : w.low;
    w.high = x.column[i] > w.high ? x.column[i] : w.high;
    w.sum_w += w.weight[i];
    w.sum_x += w.weight[i] * x.column[i];
  }
  w.low = w.low > 0.0F ? Floats{} : w.low;
  return w;
}

// The quants nearest to the elements, and what is off where they stand for scale * q + least.
OLLAMA_AVX2 OLLAMA_INLINE void round_all(const Columns<32>& x, Floats inverse, Floats low, int most,
                                         Floats* quant) {
  for (int i = 0; i < 32; ++i)
    quant[i] = to_float(clamped(nearest(inverse * (x.column[i] - low)), 0, most));
}
OLLAMA_AVX2 OLLAMA_INLINE Floats error_of(const Columns<32>& x, const Weighed& w,
                                          const Floats* quant, Floats scale, Floats least) {
  Floats error{};
  for (int i = 0; i < 32; ++i) {
    const Floats off = scale * quant[i] + least - x.column[i];
    error += w.weight[i] * (off * off);
  }
  return error;
}

// Scale and least element that fit the quants best; `sound` where there are such.
struct Fit {
  Floats scale, least;
  Ints sound;
};

OLLAMA_AVX2 OLLAMA_INLINE Fit fit(const Columns<32>& x, const Weighed& w, const Floats* quant) {
  Floats sum_l{}, sum_l2{}, sum_xl{};
  for (int i = 0; i < 32; ++i) {
    const Floats weighted = w.weight[i] * quant[i];
    sum_l += weighted;
    sum_l2 += weighted * quant[i];
    sum_xl += weighted * x.column[i];
  }
  const Floats determinant = w.sum_w * sum_l2 - sum_l * sum_l;
  const Floats scale = (w.sum_w * sum_xl - w.sum_x * sum_l) / determinant;
  const Floats least = (sum_l2 * w.sum_x - sum_l * sum_xl) / determinant;
  const Ints positive = least > 0.0F;
  return {.scale = positive ? sum_xl / sum_l2 : scale,
          .least = positive ? Floats{} : least,
          .sound = determinant > 0.0F};
}

OLLAMA_AVX2 OLLAMA_INLINE MinResult search_min(const Columns<32>& x, const MinSearch& how) {
  const Weighed w = weigh(x);
  const auto most = static_cast<float>(how.most);
  Floats low = w.low;
  MinResult best{.scale = {},
                 .minimum = {},
                 .inverse = most / (w.high - w.low),
                 .from = low,
                 .flat = w.high == w.low};
  best.scale = 1.0F / best.inverse;
  Floats quant[32];
  round_all(x, best.inverse, low, how.most, quant);
  Floats error = error_of(x, w, quant, best.scale, low);

  for (int step = 0; step <= how.steps; ++step) {
    const Floats inverse =
        all(how.begin + how.step * static_cast<float>(step) + most) / (w.high - low);
    round_all(x, inverse, low, how.most, quant);
    const Fit now = fit(x, w, quant);
    const Floats now_error = error_of(x, w, quant, now.scale, now.least);
    const Ints better = now.sound & (now_error < error) & ~best.flat;
    error = better ? now_error : error;
    best.scale = better ? now.scale : best.scale;
    best.inverse = better ? inverse : best.inverse;
    best.from = better ? low : best.from;
    low = better ? now.least : low;  // the steps that follow begin there
  }
  best.scale = best.flat ? Floats{} : best.scale;
  best.minimum = -low;
  return best;
}

// Both scales of a super-block as halves, and each sub-block's as six bits of them.
struct MinScales {
  ggml_fp16_t d = 0, dmin = 0;
  std::array<std::uint8_t, kLanes> scale{}, minimum{};
};

MinScales encode_scales(const MinResult& found) {
  float most_scale = 0, most_minimum = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    most_scale = std::max(most_scale, float{found.scale[lane]});
    most_minimum = std::max(most_minimum, float{found.minimum[lane]});
  }
  const float to_scale = most_scale > 0 ? 63.0F / most_scale : 0.0F;
  const float to_minimum = most_minimum > 0 ? 63.0F / most_minimum : 0.0F;
  MinScales out{.d = ggml_fp32_to_fp16(most_scale / 63.0F),
                .dmin = ggml_fp32_to_fp16(most_minimum / 63.0F)};
  for (std::size_t i = 0; i < kLanes; ++i) {
    const auto six = [](int value) {
      return std::min<std::uint8_t>(63, static_cast<std::uint8_t>(value));
    };
    out.scale[i] = six(nearest(to_scale * found.scale[i]));
    out.minimum[i] = six(nearest(to_minimum * found.minimum[i]));
  }
  return out;
}

// Writes d, dmin and the six-bit scales as both types have them; returns where the quants begin.
std::uint8_t* write_scales(const MinScales& scales, std::uint8_t* out) {
  std::memcpy(out, &scales.d, 2);
  std::memcpy(out + 2, &scales.dmin, 2);
  std::uint8_t* packed = out + 4;
  for (std::size_t i = 0; i < 4; ++i) {
    const auto high = [](std::uint8_t six) { return static_cast<std::uint8_t>(six >> 4 << 6); };
    packed[i] = static_cast<std::uint8_t>(scales.scale[i] | high(scales.scale[i + 4]));
    packed[i + 4] = static_cast<std::uint8_t>(scales.minimum[i] | high(scales.minimum[i + 4]));
    packed[i + 8] =
        static_cast<std::uint8_t>((scales.scale[i + 4] & 15) | (scales.minimum[i + 4] & 15) << 4);
  }
  return packed + 12;
}

// The quants of a super-block, each sub-block's 32 in order.
OLLAMA_AVX2 void final_quants(const Columns<32>& x, const MinResult& found, const MinScales& scales,
                              int most, std::uint8_t* quant) {
  const float d = ggml_fp16_to_fp32(scales.d), dmin = ggml_fp16_to_fp32(scales.dmin);
  Floats scale, minimum;
  for (int lane = 0; lane < kLanes; ++lane) {
    const auto i = static_cast<std::size_t>(lane);
    scale[lane] = d * static_cast<float>(scales.scale[i]);
    minimum[lane] = dmin * static_cast<float>(scales.minimum[i]);
  }
  const Ints none = scale == 0.0F;
  const bool some_none = any(none);
  for (int i = 0; i < 32; ++i) {
    Ints values = clamped(nearest((x.column[i] + minimum) / scale), 0, most);
    if (some_none) values = none ? quants(x, found, i, most) : values;
    for (int lane = 0; lane < kLanes; ++lane)
      quant[lane * 32 + i] = static_cast<std::uint8_t>(values[lane]);
  }
}

OLLAMA_AVX2 void encode_q4_k(const float* values, std::uint8_t* out) {
  const Columns<32> x(values);
  const MinResult found = search_min(x, {.most = 15, .begin = -1.0F, .step = 0.1F, .steps = 20});
  const MinScales scales = encode_scales(found);
  std::array<std::uint8_t, kSuper> quant;
  final_quants(x, found, scales, 15, quant.data());
  std::uint8_t* packed = write_scales(scales, out);
  for (std::size_t pair = 0; pair < kSuper; pair += 64, packed += 32) {
    for (std::size_t i = 0; i < 32; ++i)
      packed[i] = static_cast<std::uint8_t>(quant[pair + i] | quant[pair + 32 + i] << 4);
  }
}

OLLAMA_AVX2 void encode_q5_k(const float* values, std::uint8_t* out) {
  const Columns<32> x(values);
  const MinResult found = search_min(x, {.most = 31, .begin = -0.5F, .step = 0.1F, .steps = 15});
  const MinScales scales = encode_scales(found);
  std::array<std::uint8_t, kSuper> quant;
  final_quants(x, found, scales, 31, quant.data());
  std::uint8_t* high = write_scales(scales, out);
  std::uint8_t* low = high + 32;
  std::fill_n(high, 32, std::uint8_t{0});
  for (std::size_t pair = 0; pair < 4; ++pair, low += 32) {
    const std::uint8_t* two = quant.data() + 64 * pair;
    for (std::size_t i = 0; i < 32; ++i) {
      low[i] = static_cast<std::uint8_t>((two[i] & 15) | (two[32 + i] & 15) << 4);
      high[i] = static_cast<std::uint8_t>(high[i] | (two[i] >> 4) << (2 * pair) |
                                          (two[32 + i] >> 4) << (2 * pair + 1));
    }
  }
}

// ---- Q6_K: x = scale * q, sixteen sub-blocks of 16

struct Scaled {
  Floats scale, inverse;  // the quants found: nearest(inverse * x); none where tiny
  Ints tiny;
};

OLLAMA_AVX2 OLLAMA_INLINE Scaled search_scale(const Columns<16>& x) {
  constexpr int kN = 16;
  Floats most{}, largest{};
  for (int i = 0; i < kN; ++i) {
    const Floats size = absolute(x.column[i]);
    const Ints more = size > most;
    most = more ? size : most;
    largest = more ? x.column[i] : largest;
  }
  Scaled best{.scale = {}, .inverse = -32.0F / largest, .tiny = most < 1e-15F};
  Floats weight[kN], weighted[kN];
  for (int i = 0; i < kN; ++i) {
    weight[i] = x.column[i] * x.column[i];
    weighted[i] = weight[i] * x.column[i];
  }
  Floats score{};
  for (int step = -10; step <= 9; ++step) {  // -10 stands for the first, without an offset
    if (step == 0) continue;
    const bool first = step == -10;
    const Floats inverse =
        first ? best.inverse : -(32.0F + 0.1F * static_cast<float>(step)) / largest;
    Floats sum_lx{}, sum_l2{};
    for (int i = 0; i < kN; ++i) {
      const Floats quant = to_float(clamped(nearest(inverse * x.column[i]), -32, 31));
      sum_lx += weighted[i] * quant;
      sum_l2 += weight[i] * quant * quant;
    }
    const Ints some = first ? sum_l2 != 0.0F : sum_l2 > 0.0F;
    const Floats scale = some ? sum_lx / sum_l2 : Floats{};
    const Ints better = first ? Ints{} - 1 : some & (sum_lx * sum_lx > score * sum_l2);
    best.scale = better ? scale : best.scale;
    best.inverse = better ? inverse : best.inverse;
    score = better ? scale * sum_lx : score;
  }
  best.scale = best.tiny ? Floats{} : best.scale;
  return best;
}

// The quants of eight sub-blocks, from 0 to 63, each sub-block's 16 in order.
OLLAMA_AVX2 void final_quants(const Columns<16>& x, const Scaled& found, Floats scale,
                              std::uint8_t* quant) {
  const Ints none = scale == 0.0F;
  for (int i = 0; i < 16; ++i) {
    const Ints kept =
        found.tiny ? Ints{} - 32 : clamped(nearest(found.inverse * x.column[i]), -32, 31);
    const Ints values = (none ? kept : clamped(nearest(x.column[i] / scale), -32, 31)) + 32;
    for (int lane = 0; lane < kLanes; ++lane)
      quant[lane * 16 + i] = static_cast<std::uint8_t>(values[lane]);
  }
}

void pack_q6_k(const std::uint8_t* quant, std::uint8_t* low, std::uint8_t* high) {
  for (int half = 0; half < 2; ++half, quant += 128, low += 64, high += 32) {
    for (int i = 0; i < 32; ++i) {
      const std::uint8_t a = quant[i], b = quant[32 + i], c = quant[64 + i], d = quant[96 + i];
      low[i] = static_cast<std::uint8_t>((a & 15) | (c & 15) << 4);
      low[32 + i] = static_cast<std::uint8_t>((b & 15) | (d & 15) << 4);
      high[i] = static_cast<std::uint8_t>(a >> 4 | (b >> 4) << 2 | (c >> 4) << 4 | (d >> 4) << 6);
    }
  }
}

OLLAMA_AVX2 void encode_q6_k(const float* values, std::uint8_t* out) {
  std::uint8_t* const low = out;
  std::uint8_t* const high = out + 128;
  std::uint8_t* const sub_scales = out + 192;
  const std::array<Columns<16>, 2> x{Columns<16>(values), Columns<16>(values + 128)};
  const std::array<Scaled, 2> found{search_scale(x[0]), search_scale(x[1])};
  float largest = 0, most = 0;
  for (const Scaled& group : found) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const float size = std::fabs(group.scale[lane]);
      if (!(size > most)) continue;  // nor what is no number
      most = size;
      largest = group.scale[lane];
    }
  }
  if (most < 1e-15F) {
    std::fill_n(out, 210, std::uint8_t{0});
    return;
  }
  const float inverse = -128.0F / largest;
  const ggml_fp16_t d = ggml_fp32_to_fp16(1.0F / inverse);
  std::memcpy(out + 208, &d, 2);
  std::array<std::uint8_t, kSuper> quant;
  for (std::size_t group = 0; group < 2; ++group) {
    Floats scale;
    for (int lane = 0; lane < kLanes; ++lane) {
      const auto eight =
          static_cast<std::int8_t>(std::min(127, nearest(inverse * found[group].scale[lane])));
      sub_scales[8 * group + static_cast<std::size_t>(lane)] = static_cast<std::uint8_t>(eight);
      scale[lane] = ggml_fp16_to_fp32(d) * static_cast<float>(eight);
    }
    final_quants(x[group], found[group], scale, quant.data() + 128 * group);
  }
  pack_q6_k(quant.data(), low, high);
}

using Encode = void (*)(const float*, std::uint8_t*);

Encode encoder_of(ggml_type type) {
  switch (type) {
    case GGML_TYPE_Q4_K:
      return encode_q4_k;
    case GGML_TYPE_Q5_K:
      return encode_q5_k;
    case GGML_TYPE_Q6_K:
      return encode_q6_k;
    default:
      return nullptr;
  }
}

void fast(ggml_type type, std::span<const float> values, std::span<std::byte> out) {
  const Encode encode = encoder_of(type);
  auto* to = reinterpret_cast<std::uint8_t*>(out.data());
  for (std::size_t at = 0; at < values.size(); at += kSuper, to += ggml_type_size(type))
    encode(values.data() + at, to);
}

// A GGML that was built for another machine or by other rules may round otherwise.
bool agrees(ggml_type type) {
  constexpr std::size_t kBlocks = 32;
  std::vector<float> values(kBlocks * kSuper);
  std::uint32_t state = 1;
  for (std::size_t i = 0; i < values.size(); ++i) {
    float sum = -2.0F;
    for (int j = 0; j < 4; ++j) {
      state = state * 1664525U + 1013904223U;
      sum += static_cast<float>(state >> 8) / 16777216.0F;
    }
    values[i] = sum * 0.02F;
  }
  std::vector<std::byte> ours(kBlocks * ggml_type_size(type)), theirs(ours.size());
  fast(type, values, ours);
  by_ggml(type, values, theirs);
  return ours == theirs;
}

bool can_be_fast(ggml_type type) {
  return encoder_of(type) != nullptr && __builtin_cpu_supports("avx2") && agrees(type);
}

#else

void fast(ggml_type type, std::span<const float> values, std::span<std::byte> out) {
  by_ggml(type, values, out);
}
bool can_be_fast(ggml_type /*type*/) { return false; }

#endif

}  // namespace

bool has_fast_blocks(ggml_type type) {
  static const std::array<bool, 3> known = {
      can_be_fast(GGML_TYPE_Q4_K), can_be_fast(GGML_TYPE_Q5_K), can_be_fast(GGML_TYPE_Q6_K)};
  switch (type) {
    case GGML_TYPE_Q4_K:
      return known[0];
    case GGML_TYPE_Q5_K:
      return known[1];
    case GGML_TYPE_Q6_K:
      return known[2];
    default:
      return false;
  }
}

void quantise_blocks(ggml_type type, std::span<const float> values, std::span<std::byte> out) {
  if (has_fast_blocks(type)) {
    fast(type, values, out);
  } else {
    by_ggml(type, values, out);
  }
}

}  // namespace ollama::convert
