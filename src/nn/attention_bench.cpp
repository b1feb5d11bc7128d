// What it costs to add one attention to a graph: with the fused interface and composed of plain
// operations, in all validation modes. Beside them the old way, which asks the backend at every
// call whether it serves the configuration, and formats the message of an error. One iteration is
// one call, with the nodes that it adds to GGML's graph. The heads are those of an 8B Llama, one
// token against 4,096 cells. Run with --benchmark_repetitions=9 for medians.
#include <benchmark/benchmark.h>

#include <format>
#include <memory>

#include "ml/backend.h"
#include "nn/attention.h"

namespace {

using ollama::Error;
using ollama::ErrorCode;
using ollama::Result;
using ollama::kvcache::KeysValues;
using ollama::ml::AttentionConfig;
using ollama::ml::DType;
using ollama::ml::FlashAttention;
using ollama::ml::Shape;
using ollama::ml::Tensor;
using ollama::nn::AttentionOptions;
using ollama::nn::AttentionSupport;
using ollama::nn::Validation;

constexpr int kCalls = 128;  // in a graph, as many as a large model has layers

constexpr AttentionConfig kConfig{
    .head_dim_k = 128, .head_dim_v = 128, .k_type = DType::kF16, .v_type = DType::kF16};

// A graph that calls are added to, and begun anew when it is full.
class Graph {
 public:
  explicit Graph(FlashAttention flash) {
    auto backend = ollama::ml::new_backend(ollama::ml::BackendKind::kGgml,
                                           {.threads = 1, .flash_attention = flash});
    if (!backend) return;
    backend_ = std::move(*backend);
    auto context = backend_->new_context(ollama::ml::Phase::kDecode, kCalls * 16, 1);
    if (!context) return;
    context_ = std::move(*context);
    begin();
  }
  bool ok() const { return context_ != nullptr; }
  ollama::ml::Context& context() { return *context_; }

  // Before each call; the time it takes does not count.
  void next(benchmark::State& state) {
    if (++calls_ < kCalls) return;
    state.PauseTiming();
    begin();
    state.ResumeTiming();
  }

  Tensor q;
  KeysValues kv;
  Tensor short_mask;  // does not fit
  AttentionOptions options{.scale = 0.088F, .soft_cap = 0, .sinks = {}};

 private:
  void begin() {
    calls_ = 0;
    context_->reset();
    q = context_->input(DType::kF32, Shape{128, 32, 1, 1}, "q");
    kv.k = context_->input(DType::kF16, Shape{128, 8, 4096, 1}, "k");
    kv.v = context_->input(DType::kF16, Shape{128, 8, 4096, 1}, "v");
    kv.mask = context_->input(DType::kF16, Shape{4096, 1, 1, 1}, "mask");
    short_mask = context_->input(DType::kF16, Shape{2048, 1, 1, 1}, "mask");
  }

  std::unique_ptr<ollama::ml::Backend> backend_;
  std::unique_ptr<ollama::ml::Context> context_;
  int calls_ = 0;
};

// --- whole calls ---

void call(benchmark::State& state, FlashAttention flash, Validation mode) {
  Graph graph(flash);
  if (!graph.ok()) return state.SkipWithError("no backend");
  AttentionSupport support(mode);
  for (auto _ : state) {
    graph.next(state);
    benchmark::DoNotOptimize(
        ollama::nn::attention(graph.context(), support, graph.q, graph.kv, graph.options));
  }
}
void fused(benchmark::State& state, Validation mode) { call(state, FlashAttention::kOn, mode); }
void fallback(benchmark::State& state, Validation mode) { call(state, FlashAttention::kOff, mode); }

// The old way: the same call, after the same question as last time.
void fused_asks_each_time(benchmark::State& state) {
  Graph graph(FlashAttention::kOn);
  if (!graph.ok()) return state.SkipWithError("no backend");
  AttentionSupport support(Validation::kAlways);
  for (auto _ : state) {
    graph.next(state);
    const auto* interface = graph.context().fused_attention();
    if (interface == nullptr || !interface->supports(kConfig)) {
      return state.SkipWithError("attention is not fused");
    }
    benchmark::DoNotOptimize(
        ollama::nn::attention(graph.context(), support, graph.q, graph.kv, graph.options));
  }
}

BENCHMARK_CAPTURE(fused, always, Validation::kAlways);
BENCHMARK_CAPTURE(fused, once, Validation::kOnce);
BENCHMARK_CAPTURE(fused, off, Validation::kOff);
BENCHMARK(fused_asks_each_time);
BENCHMARK_CAPTURE(fallback, always, Validation::kAlways);
BENCHMARK_CAPTURE(fallback, once, Validation::kOnce);
BENCHMARK_CAPTURE(fallback, off, Validation::kOff);

// --- the question alone ---

void question_old(benchmark::State& state) {
  Graph graph(FlashAttention::kOn);
  if (!graph.ok()) return state.SkipWithError("no backend");
  for (auto _ : state) {
    benchmark::DoNotOptimize(graph.context().fused_attention()->supports(kConfig));
  }
}
void question_new(benchmark::State& state) {
  Graph graph(FlashAttention::kOn);
  if (!graph.ok()) return state.SkipWithError("no backend");
  AttentionSupport support;
  for (auto _ : state) benchmark::DoNotOptimize(support.find(graph.context(), kConfig));
}
// A model with windowed and full layers may have three configurations; this is the last of them.
void question_new_of_three(benchmark::State& state) {
  Graph graph(FlashAttention::kOn);
  if (!graph.ok()) return state.SkipWithError("no backend");
  AttentionSupport support;
  for (const std::int32_t size : {64, 96}) {
    AttentionConfig other = kConfig;
    other.head_dim_k = size;
    support.find(graph.context(), other);
  }
  for (auto _ : state) benchmark::DoNotOptimize(support.find(graph.context(), kConfig));
}
BENCHMARK(question_old);
BENCHMARK(question_new);
BENCHMARK(question_new_of_three);

// --- the check alone ---

void check(benchmark::State& state, Validation mode) {
  Graph graph(FlashAttention::kOn);
  if (!graph.ok()) return state.SkipWithError("no backend");
  AttentionSupport support(mode);
  for (auto _ : state) {
    benchmark::DoNotOptimize(support.validate(graph.q, graph.kv, graph.options));
  }
}
BENCHMARK_CAPTURE(check, always, Validation::kAlways);
BENCHMARK_CAPTURE(check, once, Validation::kOnce);
BENCHMARK_CAPTURE(check, off, Validation::kOff);

// --- a call that is refused: its mask does not fit ---

// What a message with the shapes in it costs.
Result<> formatted(Tensor q, const KeysValues& kv) {
  if (kv.mask.dim(0) == kv.k.dim(2) && kv.mask.dim(1) >= q.dim(2)) return {};
  return std::unexpected(
      Error(ErrorCode::kInternal,
            std::format("attention: the mask [{}, {}] does not fit k [{}, {}, {}] and q "
                        "[{}, {}, {}]",
                        kv.mask.dim(0), kv.mask.dim(1), kv.k.dim(0), kv.k.dim(1), kv.k.dim(2),
                        q.dim(0), q.dim(1), q.dim(2))));
}
void error_old(benchmark::State& state) {
  Graph graph(FlashAttention::kOn);
  if (!graph.ok()) return state.SkipWithError("no backend");
  graph.kv.mask = graph.short_mask;
  for (auto _ : state) benchmark::DoNotOptimize(formatted(graph.q, graph.kv));
}
void error_new(benchmark::State& state) {
  Graph graph(FlashAttention::kOn);
  if (!graph.ok()) return state.SkipWithError("no backend");
  graph.kv.mask = graph.short_mask;
  AttentionSupport support(Validation::kAlways);
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        ollama::nn::attention(graph.context(), support, graph.q, graph.kv, graph.options));
  }
}
BENCHMARK(error_old);
BENCHMARK(error_new);

}  // namespace

BENCHMARK_MAIN();
