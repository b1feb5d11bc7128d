// What a buffer for a graph costs: out of the pool, as fresh pages (what an allocation above
// malloc's mmap threshold is: mapped, every page touched, unmapped), and from malloc when it is
// warm. One iteration is one buffer taken and given back. Run with --benchmark_repetitions=9 for
// medians.
#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <cstdlib>
#include <memory>

#include "ml/buffer_pool.h"
#include "ml/thread_count.h"

namespace {

using ollama::ml::BufferPool;

void pool(benchmark::State& state) {
  static BufferPool shared;
  const auto bytes = static_cast<std::size_t>(state.range(0)) << 10;
  for (auto _ : state) {
    auto buffer = shared.allocate(bytes);
    if (!buffer) return state.SkipWithError("out of memory");
    benchmark::DoNotOptimize(buffer->data());
  }
}

void fresh_pages(benchmark::State& state) {
  const auto bytes = static_cast<std::size_t>(state.range(0)) << 10;
  for (auto _ : state) {
    void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) return state.SkipWithError("out of memory");
    for (std::size_t at = 0; at < bytes; at += 4096) static_cast<volatile char*>(data)[at] = 1;
    munmap(data, bytes);
  }
}

void warm_malloc(benchmark::State& state) {
  const auto bytes = static_cast<std::size_t>(state.range(0)) << 10;
  for (auto _ : state) {
    void* data = std::malloc(bytes);
    benchmark::DoNotOptimize(data);
    std::free(data);
  }
}

// More buffers at once than a thread's cache has slots for: the shared list takes part.
void pool_many_held(benchmark::State& state) {
  static BufferPool shared;
  constexpr std::size_t kHeld = 16;
  std::array<ollama::ml::PooledBuffer, kHeld> held;
  for (auto _ : state) {
    for (auto& buffer : held) {
      auto taken = shared.allocate(128 << 10);
      if (!taken) return state.SkipWithError("out of memory");
      buffer = std::move(*taken);
    }
    for (auto& buffer : held) buffer.reset();
  }
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(kHeld));
}

void thread_count(benchmark::State& state) {
  const auto topology = ollama::ml::CpuTopology::read();
  std::uint64_t bytes = 1 << 20;
  for (auto _ : state) {
    benchmark::DoNotOptimize(bytes);
    benchmark::DoNotOptimize(
        optimal_thread_count(ollama::ml::OpKind::kDecode, bytes, 2 * bytes, topology, 200));
  }
}

void sizes(benchmark::internal::Benchmark* bench) {
  bench->ArgName("KiB")->Arg(128)->Arg(512)->Arg(1024)->Arg(4096)->Threads(1)->Threads(4);
}

BENCHMARK(pool)->Apply(sizes);
BENCHMARK(warm_malloc)->Apply(sizes);
BENCHMARK(fresh_pages)->Apply(sizes);
BENCHMARK(pool_many_held)->Threads(1)->Threads(4);
BENCHMARK(thread_count);

}  // namespace

BENCHMARK_MAIN();
