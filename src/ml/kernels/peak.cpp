#include "ml/kernels/peak.h"

#include "ml/kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ml/kernels/peak.cpp"
#include "hwy/foreach_target.h"
// After it.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace ollama::ml::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int kChains = 10;  // more than latency times width
constexpr int kRounds = 400000;

// Keeps the compiler from computing once what is the same every time.
template <typename V>
HWY_INLINE void forget(V& v) {
#if HWY_ARCH_X86 && (HWY_COMPILER_GCC || HWY_COMPILER_CLANG) && HWY_TARGET != HWY_EMU128
  asm volatile("" : "+x"(v.raw));
#else
  hwy::PreventElision(v);
#endif
}

double int8_peak() {
  const hn::ScalableTag<std::int32_t> d32;
  const hn::Repartition<std::uint8_t, decltype(d32)> du8;
  const hn::Repartition<std::int8_t, decltype(d32)> di8;
  const auto x = hn::Set(di8, 5);
  auto w = hn::Set(du8, 3);
  // Named one by one: GCC spills an array of them.
  auto a = hn::Zero(d32), b = a, c = a, d = a, e = a, f = a, g = a, h = a;
  const auto step = [&](auto sum) HWY_ATTR {
    forget(w);
#if HWY_TARGET == HWY_AVX2
    const hn::Repartition<std::int16_t, decltype(d32)> d16;
    return hn::BitCast(d32, hn::Add(hn::BitCast(d16, sum), hn::SatWidenMulPairwiseAdd(d16, w, x)));
#else
    return hn::SumOfMulQuadAccumulate(d32, w, x, sum);
#endif
  };
  for (int i = 0; i < kRounds; ++i) {
    a = step(a);
    b = step(b);
    c = step(c);
    d = step(d);
    e = step(e);
    f = step(f);
    g = step(g);
    h = step(h);
  }
  const auto all =
      hn::Add(hn::Add(hn::Add(a, b), hn::Add(c, d)), hn::Add(hn::Add(e, f), hn::Add(g, h)));
  const auto total = hn::ReduceSum(d32, all);
  return 2.0 * 8 * kRounds * static_cast<double>(hn::Lanes(du8)) + (total == 1 ? 1 : 0);
}

double f32_peak() {
  const hn::ScalableTag<float> d;
  const auto w = hn::Set(d, 0.5F);
  const auto x = hn::Set(d, 1.0F);
  hn::Vec<decltype(d)> sums[kChains];
  for (auto& sum : sums) sum = hn::Zero(d);
  for (int i = 0; i < kRounds; ++i) {
    for (auto& sum : sums) sum = hn::MulAdd(sum, w, x);
  }
  auto all = hn::Zero(d);
  for (const auto& sum : sums) all = hn::Add(all, sum);
  return 2.0 * kChains * kRounds * static_cast<double>(hn::Lanes(d)) +
         (hn::ReduceSum(d, all) == 1 ? 1 : 0);
}

std::uint64_t read_bytes(std::span<const std::byte> memory) {
  const hn::ScalableTag<std::uint64_t> d;
  const std::size_t step = hn::Lanes(d);
  const auto* from = reinterpret_cast<const std::uint64_t*>(memory.data());
  const std::size_t count = memory.size() / sizeof(std::uint64_t) / (8 * step) * (8 * step);
  hn::Vec<decltype(d)> sums[8];
  for (auto& sum : sums) sum = hn::Zero(d);
  for (std::size_t i = 0; i < count; i += 8 * step) {
    for (std::size_t j = 0; j < 8; ++j)
      sums[j] = hn::Xor(sums[j], hn::LoadU(d, from + i + j * step));
  }
  for (auto& sum : sums) sums[0] = hn::Xor(sums[0], sum);
  return hn::ReduceSum(d, sums[0]);
}

}  // namespace HWY_NAMESPACE
}  // namespace ollama::ml::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ollama::ml::kernels {

HWY_EXPORT(int8_peak);
HWY_EXPORT(f32_peak);
HWY_EXPORT(read_bytes);

double run_peak(Peak kind) {
  return kind == Peak::kInt8 ? HWY_DYNAMIC_DISPATCH(int8_peak)() : HWY_DYNAMIC_DISPATCH(f32_peak)();
}
std::uint64_t read_all(std::span<const std::byte> memory) {
  return HWY_DYNAMIC_DISPATCH(read_bytes)(memory);
}

}  // namespace ollama::ml::kernels
#endif  // HWY_ONCE
