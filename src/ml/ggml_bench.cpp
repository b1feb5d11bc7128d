// What buffers and submissions cost. Buffers: out of the pool, as fresh pages (what an allocation
// above malloc's mmap threshold is: mapped, every page touched, unmapped), and from malloc when it
// is warm; one iteration is one buffer taken and given back. Submissions: the inputs of a step, one
// by one and together.
#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <cstdlib>
#include <memory>

#include "ml/backend.h"
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

// The inputs of a decoding step of eight sequences, 16,384 cells long: tokens, positions, rows of
// the output, the mask and the cells. `calls`: submissions a step.
void upload_inputs(benchmark::State& state, bool grouped, bool whole_mask) {
  using namespace ollama::ml;
  const auto backend = new_backend(BackendKind::kGgml, {.threads = 1}).value();
  const auto context = backend->new_context(Phase::kDecode, 64, 8).value();
  const Tensor tokens = context->input(DType::kI32, {8, 1, 1, 1}, "tokens");
  const Tensor positions = context->input(DType::kI32, {8, 1, 1, 1}, "positions");
  const Tensor rows = context->input(DType::kI32, {8, 1, 1, 1}, "rows");
  const Tensor mask = context->input(DType::kF16, {16'384, 8, 1, 1}, "mask");
  const Tensor cells = context->input(DType::kI64, {8, 1, 1, 1}, "cells");
  context->output(context->scale(context->cast(mask, DType::kF32), 1), "out");
  if (!context->prepare()) return state.SkipWithError("no memory");
  const std::vector<std::byte> bytes(std::size_t{16'384} * 8 * 2);
  std::vector<Upload> uploads{{tokens, std::span(bytes).first(32)},
                              {positions, std::span(bytes).first(32)},
                              {rows, std::span(bytes).first(32)},
                              {cells, std::span(bytes).first(64)}};
  if (whole_mask) {
    uploads.push_back({mask, bytes});
  } else {
    for (std::size_t row = 0; row < 8; ++row) {
      uploads.push_back({mask, std::span(bytes).first(2), row * 16'384 * 2});
    }
  }
  const std::uint64_t before = backend->counters().uploads;
  for (auto _ : state) {
    if (grouped) {
      benchmark::DoNotOptimize(context->upload(uploads));
      continue;
    }
    for (const Upload& upload : uploads) {
      benchmark::DoNotOptimize(context->upload(std::span(&upload, 1)));
    }
  }
  state.counters["calls"] = static_cast<double>(backend->counters().uploads - before) /
                            static_cast<double>(state.iterations());
}
void upload_one_by_one(benchmark::State& state) { upload_inputs(state, false, true); }
void upload_grouped(benchmark::State& state) { upload_inputs(state, true, false); }

void sizes(benchmark::internal::Benchmark* bench) {
  bench->ArgName("KiB")->Arg(128)->Arg(512)->Arg(1024)->Arg(4096)->Threads(1)->Threads(4);
}

BENCHMARK(pool)->Apply(sizes);
BENCHMARK(warm_malloc)->Apply(sizes);
BENCHMARK(fresh_pages)->Apply(sizes);
BENCHMARK(pool_many_held)->Threads(1)->Threads(4);
BENCHMARK(thread_count);
BENCHMARK(upload_one_by_one);
BENCHMARK(upload_grouped);

}  // namespace

BENCHMARK_MAIN();
