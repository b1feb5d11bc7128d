// Packed products against what bounds them: the machine's int8 and f32 arithmetic, its memory.
#include <benchmark/benchmark.h>

#include <barrier>
#include <functional>
#include <random>
#include <thread>
#include <vector>

#include "ml/kernels/gemm.h"
#include "ml/kernels/peak.h"

namespace ollama::ml::kernels {
namespace {

// Workers that stay, as a runner's do: each benchmark's work on all of them.
class Workers {
 public:
  explicit Workers(int count) : count_(count), start_(count), end_(count) {
    for (int i = 1; i < count; ++i) {
      threads_.emplace_back([this, i](const std::stop_token& stop) {
        for (;;) {
          start_.arrive_and_wait();
          if (stop.stop_requested()) return;
          work_(i);
          end_.arrive_and_wait();
        }
      });
    }
  }
  ~Workers() {
    for (auto& thread : threads_) thread.request_stop();
    start_.arrive_and_wait();
  }
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  void run(const std::function<void(int)>& work) {
    work_ = work;
    start_.arrive_and_wait();
    work_(0);
    end_.arrive_and_wait();
  }
  int count() const { return count_; }

 private:
  int count_;
  std::barrier<> start_;
  std::barrier<> end_;
  std::function<void(int)> work_;
  std::vector<std::jthread> threads_;
};

Workers& workers() {
  static Workers all(static_cast<int>(std::max(1U, std::thread::hardware_concurrency())));
  return all;
}

struct Problem {
  DType type;
  std::int64_t k, m, n;
  std::vector<std::byte> weights;
  std::vector<std::byte> activations;
  std::vector<float> c;

  Problem(DType t, std::int64_t width, std::int64_t rows, std::int64_t columns)
      : type(t),
        k(width),
        m(rows),
        n(columns),
        weights(packed_size(t, k, m)),
        activations(activation_size(activation_kind(t), k, n)),
        c(static_cast<std::size_t>(m * n)) {
    // Any bits serve: small values in every byte keep floating-point scales finite.
    std::mt19937 random(1);
    for (std::byte& byte : weights) byte = static_cast<std::byte>(random() & 0x2F);
    std::vector<float> x(static_cast<std::size_t>(k * n));
    std::normal_distribution<float> normal;
    for (float& value : x) value = normal(random);
    pack_activations(activation_kind(t), k, n, {.data = x.data(), .stride = k}, activations.data(),
                     0, (n + kTileColumns - 1) / kTileColumns);
  }
  void run() {
    const PackedWeights packed{.type = type, .k = k, .m = m, .data = weights.data()};
    workers().run([&](int i) {
      const std::int64_t groups = packed.groups();
      const int count = workers().count();
      gemm({.weights = packed,
            .activations = activations.data(),
            .n = n,
            .c = c.data(),
            .c_stride = m},
           groups * i / count, groups * (i + 1) / count);
    });
  }
};

void product(benchmark::State& state, DType type, std::int64_t k, std::int64_t m, std::int64_t n) {
  Problem problem(type, k, m, n);
  for (auto _ : state) problem.run();
  const double count = static_cast<double>(state.iterations());
  state.counters["GOPS"] = benchmark::Counter(2e-9 * static_cast<double>(k * m * n) * count,
                                              benchmark::Counter::kIsRate);
  state.counters["GB/s"] = benchmark::Counter(
      1e-9 * static_cast<double>(problem.weights.size()) * count, benchmark::Counter::kIsRate);
}

void peak(benchmark::State& state, Peak kind) {
  double operations = 0;
  for (auto _ : state) {
    workers().run([&](int i) {
      const double done = run_peak(kind);
      if (i == 0) operations += done * workers().count();
    });
  }
  state.counters["GOPS"] = benchmark::Counter(1e-9 * operations, benchmark::Counter::kIsRate);
}

void read_memory(benchmark::State& state, std::size_t size) {
  const std::vector<std::byte> memory(size, std::byte{1});
  for (auto _ : state) {
    workers().run([&](int i) {
      const std::size_t part = size / static_cast<std::size_t>(workers().count());
      benchmark::DoNotOptimize(
          read_all(std::span(memory).subspan(part * static_cast<std::size_t>(i), part)));
    });
  }
  state.counters["GB/s"] =
      benchmark::Counter(1e-9 * static_cast<double>(size) * static_cast<double>(state.iterations()),
                         benchmark::Counter::kIsRate);
}

void pack(benchmark::State& state, DType type) {
  constexpr std::int64_t kK = 2048;
  constexpr std::int64_t kM = 8192;
  const std::vector<std::byte> plain(row_size(type, kK) * kM, std::byte{0x21});
  std::vector<std::byte> packed(packed_size(type, kK, kM));
  for (auto _ : state) pack_weights(type, kK, kM, plain, packed.data(), 0, kM / kGroupRows);
  state.counters["GB/s"] = benchmark::Counter(
      1e-9 * static_cast<double>(plain.size()) * static_cast<double>(state.iterations()),
      benchmark::Counter::kIsRate);
}

void register_all() {
  using enum DType;
  const auto add = [](const std::string& name, auto function, auto... arguments) {
    benchmark::RegisterBenchmark(name.c_str(), function, arguments...)
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
  };
  add("peak/int8", peak, Peak::kInt8);
  add("peak/f32", peak, Peak::kF32);
  const DType types[] = {kQ4_0, kQ8_0,   kQ4_K,  kQ6_K, kQ5_K, kQ4_1, kQ5_0,
                         kQ5_1, kIQ4_NL, kMXFP4, kF16,  kBF16, kF32};
  for (const DType type : types) {
    add("n512/" + std::string(dtype_name(type)), product, type, 2048, 2048, 512);
  }
  for (const DType type : {kQ4_0, kQ8_0, kQ4_K, kF16}) {
    const std::int64_t rows = static_cast<std::int64_t>(256 << 20U) /
                              static_cast<std::int64_t>(row_size(type, 2048)) / 16 * 16;
    const std::string name(dtype_name(type));
    add("read/before_" + name, read_memory, packed_size(type, 2048, rows));
    for (const std::int64_t n : {1, 2, 4, 8, 16}) {
      add("n" + std::to_string(n) + "/" + name, product, type, 2048, rows, n);
    }
  }
  for (const DType type : {kQ4_0, kQ8_0, kQ4_K, kQ6_K, kF16}) {
    add("pack/" + std::string(dtype_name(type)), pack, type);
  }
}

}  // namespace
}  // namespace ollama::ml::kernels

int main(int argc, char** argv) {
  ollama::ml::kernels::register_all();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
