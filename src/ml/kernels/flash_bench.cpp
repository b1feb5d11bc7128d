// Attention on the CPU: prefill of 512 tokens and decode of one at a depth of 4096, beside a plain
// way in f32, the machine's peak of f32 and a plain read of the cache. Caches in bf16 are
// multiplied as such where the machine can.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "ml/kernels/attention.h"
#include "ml/kernels/peak.h"

namespace ollama::ml::kernels {
namespace {

constexpr std::size_t kDim = 128;
constexpr std::size_t kHeads = 16;
constexpr std::size_t kKvHeads = 8;
// As many caches as fill several times the last level, read in turns as layers are.
constexpr std::size_t kLayers = 10;

std::byte* align(std::vector<std::byte>& memory, std::size_t bytes) {
  memory.resize(bytes + kAttentionAlignment);
  void* data = memory.data();
  std::size_t space = memory.size();
  return static_cast<std::byte*>(std::align(kAttentionAlignment, bytes, data, space));
}

class Setup {
 public:
  Setup(std::size_t tokens, std::size_t depth, std::size_t layers, DType type, std::int64_t threads)
      : tokens_(tokens), cells_(depth + tokens), layers_(layers), threads_(threads) {
    row_bytes_ = row_bytes(type);
    cache_bytes_ = cells_ * kKvHeads * row_bytes_;
    cache_.resize(2 * cache_bytes_ * layers);
    std::minstd_rand random(1);
    for (std::size_t i = 0; i + 1 < cache_.size(); i += 2) {
      // f16 of about +-1, whose bits do as scales and quants, too.
      const auto value = static_cast<std::uint16_t>(0x3400U | (random() & 0x8BFFU));
      std::memcpy(&cache_[i], &value, sizeof(value));
    }
    q_.resize(tokens * kHeads * kDim);
    std::uniform_real_distribution<float> distribution(-1.0F, 1.0F);
    std::ranges::generate(q_, [&] { return distribution(random); });
    output_.resize(q_.size());
    mask_.resize(tokens * cells_);
    for (std::size_t t = 0; t < tokens; ++t) {
      for (std::size_t c = 0; c < cells_; ++c) {
        mask_[t * cells_ + c] = c <= depth + t ? kHalfZero : kHalfMinusInfinity;
      }
    }
    args_.shape = {kDim,
                   kDim,
                   kHeads,
                   kKvHeads,
                   static_cast<std::int64_t>(tokens),
                   static_cast<std::int64_t>(cells_)};
    args_.q = q_.data();
    args_.q_head_stride = kDim * sizeof(float);
    args_.q_token_stride = kHeads * args_.q_head_stride;
    args_.mask = {DType::kF16, reinterpret_cast<const std::byte*>(mask_.data()),
                  cells_ * sizeof(mask_[0]), nullptr};
    args_.scale = 0.0884F;
    args_.output = output_.data();
    plan_bytes_ = attention_plan_bytes(args_.shape.tokens, args_.shape.cells);
    args_.plan = align(plan_, plan_bytes_);
    args_.partials = align(partials_, attention_partials_bytes(args_.shape));
    args_.k.type = args_.v.type = type;
    args_.bf16_products = attention_multiplies_bf16_fast();
    scratch_.resize(static_cast<std::size_t>(threads));
    for (auto& scratch : scratch_) align(scratch, attention_scratch_bytes(args_.shape));
    plan();
  }

  void plan() {
    std::byte* memory = align(plan_, plan_bytes_);
    plan_attention(args_.mask, args_.shape.tokens, args_.shape.cells,
                   attention_partials(args_.shape), {memory, plan_bytes_});
  }

  void attend_layer(std::size_t layer, std::int64_t thread) {
    AttentionArgs args = args_;
    args.k.data = cache_.data() + 2 * layer * cache_bytes_;
    args.v.data = args.k.data + cache_bytes_;
    args.k.head_stride = args.v.head_stride = row_bytes_;
    args.k.cell_stride = args.v.cell_stride = row_bytes_ * kKvHeads;
    auto& scratch = scratch_[static_cast<std::size_t>(thread)];
    const std::size_t bytes = attention_scratch_bytes(args_.shape);
    attend(args, thread, threads_, {align(scratch, bytes), bytes});
  }
  void merge() {
    for (std::int64_t i = 0; i < threads_; ++i) merge_attention(args_, i, threads_);
  }

  void naive() {
    std::vector<float> scores(cells_);
    for (std::size_t t = 0; t < tokens_; ++t) {
      for (std::size_t h = 0; h < kHeads; ++h) {
        const std::size_t kv = h / (kHeads / kKvHeads);
        const float* q = q_.data() + (t * kHeads + h) * kDim;
        const std::size_t seen = cells_ - tokens_ + t + 1;
        float max = -std::numeric_limits<float>::infinity();
        for (std::size_t c = 0; c < seen; ++c) {
          const float* k = f32(0) + (c * kKvHeads + kv) * kDim;
          float sum = 0.0F;
          for (std::size_t i = 0; i < kDim; ++i) sum += q[i] * k[i];
          scores[c] = sum * args_.scale;
          max = std::max(max, scores[c]);
        }
        float total = 0.0F;
        float* out = output_.data() + (t * kHeads + h) * kDim;
        std::fill_n(out, kDim, 0.0F);
        for (std::size_t c = 0; c < seen; ++c) {
          const float weight = std::exp(scores[c] - max);
          const float* v = f32(cache_bytes_) + (c * kKvHeads + kv) * kDim;
          total += weight;
          for (std::size_t i = 0; i < kDim; ++i) out[i] += weight * v[i];
        }
        for (std::size_t i = 0; i < kDim; ++i) out[i] /= total;
      }
    }
  }

  // Of one layer.
  double operations() const {
    const auto tokens = static_cast<double>(tokens_);
    const double keys = static_cast<double>(cells_ - tokens_) + (tokens + 1) / 2;
    return tokens * keys * kHeads * kDim * 4;
  }
  std::size_t bytes() const { return 2 * cache_bytes_; }
  std::size_t layers() const { return layers_; }
  std::int64_t threads() const { return threads_; }
  const std::byte* cache(std::size_t layer) const { return cache_.data() + layer * bytes(); }

 private:
  static std::size_t row_bytes(DType type) {
    return type == DType::kF32    ? kDim * 4
           : type == DType::kQ8_0 ? kDim / 32 * 34
           : type == DType::kQ4_0 ? kDim / 32 * 18
                                  : kDim * 2;
  }
  const float* f32(std::size_t offset) const {
    return reinterpret_cast<const float*>(cache_.data() + offset);
  }

  std::size_t tokens_;
  std::size_t cells_;
  std::size_t layers_;
  std::int64_t threads_;
  std::size_t row_bytes_ = 0;
  std::size_t cache_bytes_ = 0;
  std::size_t plan_bytes_ = 0;
  std::vector<std::byte> cache_;
  std::vector<float> q_;
  std::vector<float> output_;
  std::vector<std::uint16_t> mask_;
  std::vector<std::byte> plan_;
  std::vector<std::byte> partials_;
  std::vector<std::vector<std::byte>> scratch_;
  AttentionArgs args_;
};

// Calls work(thread) on every thread; returns when all are done.
template <typename Work>
void on_threads(std::int64_t threads, Work&& work) {
  std::vector<std::jthread> workers;
  for (std::int64_t i = 1; i < threads; ++i) workers.emplace_back([&work, i] { work(i); });
  work(0);
}

void count(benchmark::State& state, double operations, double bytes) {
  const auto rounds = static_cast<double>(state.iterations());
  state.counters["GFLOP/s"] =
      benchmark::Counter(operations * rounds * 1e-9, benchmark::Counter::kIsRate);
  state.counters["GB/s"] = benchmark::Counter(bytes * rounds * 1e-9, benchmark::Counter::kIsRate);
}

void peak(benchmark::State& state) {
  double operations = 0.0;
  for (auto _ : state) {
    on_threads(state.range(0), [&](std::int64_t i) {
      const double done = run_peak(Peak::kF32);
      if (i == 0) operations = done * static_cast<double>(state.range(0));
    });
  }
  count(state, operations, 0.0);
}

void prefill(benchmark::State& state) {
  Setup setup(512, static_cast<std::size_t>(state.range(1)), 1, static_cast<DType>(state.range(2)),
              state.range(0));
  for (auto _ : state) {
    on_threads(setup.threads(), [&](std::int64_t i) { setup.attend_layer(0, i); });
    setup.merge();
  }
  count(state, setup.operations(), static_cast<double>(setup.bytes()));
}

void prefill_naive(benchmark::State& state) {
  Setup setup(32, 4096, 1, DType::kF32, 1);
  for (auto _ : state) setup.naive();
  count(state, setup.operations(), static_cast<double>(setup.bytes()));
}

void decode(benchmark::State& state) {
  Setup setup(static_cast<std::size_t>(state.range(1)), 4096, kLayers,
              static_cast<DType>(state.range(2)), state.range(0));
  for (auto _ : state) {
    on_threads(setup.threads(), [&](std::int64_t i) {
      for (std::size_t layer = 0; layer < setup.layers(); ++layer) setup.attend_layer(layer, i);
    });
    setup.merge();
  }
  count(state, setup.operations() * kLayers, static_cast<double>(setup.bytes()) * kLayers);
}

void decode_naive(benchmark::State& state) {
  Setup setup(1, 4096, 1, DType::kF32, 1);
  for (auto _ : state) setup.naive();
  count(state, setup.operations(), static_cast<double>(setup.bytes()));
}

void read(benchmark::State& state) {
  Setup setup(1, 4096, kLayers, DType::kF16, state.range(0));
  for (auto _ : state) {
    on_threads(setup.threads(), [&](std::int64_t i) {
      const std::size_t share = setup.bytes() / static_cast<std::size_t>(setup.threads());
      for (std::size_t layer = 0; layer < setup.layers(); ++layer) {
        benchmark::DoNotOptimize(
            read_all({setup.cache(layer) + share * static_cast<std::size_t>(i), share}));
      }
    });
  }
  count(state, 0.0, static_cast<double>(setup.bytes()) * kLayers);
}

// The mask of a prompt, planned once a step.
void plan(benchmark::State& state) {
  const auto tokens = static_cast<std::size_t>(state.range(0));
  Setup setup(tokens, 8192 - tokens, 1, DType::kF16, 1);
  for (auto _ : state) setup.plan();
  count(state, 0.0, static_cast<double>(tokens) * 8192 * 2);
}

constexpr auto kF16 = static_cast<std::int64_t>(DType::kF16);
constexpr auto kBf16 = static_cast<std::int64_t>(DType::kBF16);
constexpr auto kQ8 = static_cast<std::int64_t>(DType::kQ8_0);
constexpr auto kQ4 = static_cast<std::int64_t>(DType::kQ4_0);

BENCHMARK(peak)->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(read)->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(prefill)
    ->ArgNames({"threads", "depth", "type"})
    ->ArgsProduct({{1, 2}, {4096}, {kF16, kBf16}})
    ->Args({1, 0, kF16})
    ->Args({1, 4096, kQ8})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(prefill_naive)->Unit(benchmark::kMillisecond);
BENCHMARK(decode)
    ->ArgNames({"threads", "tokens", "type"})
    ->ArgsProduct({{1, 2}, {1}, {kF16, kBf16, kQ8, kQ4}})
    ->Args({1, 4, kF16})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(decode_naive)->Unit(benchmark::kMillisecond);
BENCHMARK(plan)->ArgName("tokens")->Arg(1)->Arg(512)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace ollama::ml::kernels

BENCHMARK_MAIN();
