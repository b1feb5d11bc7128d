// One token of a vocabulary of 32k or 128k: our chain beside the textbook way, which sorts the
// whole vocabulary by probability and walks it.
#include "sample/sampler.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <random>

namespace ollama::sample {
namespace {

std::vector<float> make_logits(std::size_t size) {
  std::mt19937 engine(1);
  std::normal_distribution<float> normal(0.0F, 3.0F);
  std::vector<float> logits(size);
  std::generate(logits.begin(), logits.end(), [&] { return normal(engine); });
  return logits;
}

std::size_t vocab_of(const benchmark::State& state) {
  return static_cast<std::size_t>(state.range(0));
}

// The defaults' chain (penalties, top_k 40, top_p 0.9, temperature 0.8) without any of our means.
class NaiveSampler {
 public:
  explicit NaiveSampler(const Options& options)
      : options_(options), engine_(static_cast<std::uint64_t>(options.seed)) {}

  Token sample(std::span<float> logits) {
    std::vector<int> counts(logits.size());
    for (const Token token : window_) ++counts[static_cast<std::size_t>(token)];
    for (std::size_t i = 0; i < logits.size(); ++i) {
      if (counts[i] == 0) continue;
      logits[i] =
          logits[i] > 0 ? logits[i] / options_.repeat_penalty : logits[i] * options_.repeat_penalty;
    }
    std::vector<std::pair<float, Token>> items;
    for (std::size_t i = 0; i < logits.size(); ++i) {
      items.emplace_back(logits[i], static_cast<Token>(i));
    }
    std::sort(items.begin(), items.end(), std::greater<>());
    if (options_.top_k > 0) items.resize(static_cast<std::size_t>(options_.top_k));
    const float best = items.front().first;
    double mass = 0.0;
    for (const auto& [logit, token] : items) mass += std::exp(logit - best);
    double kept = 0.0;
    std::vector<double> weights;
    for (const auto& [logit, token] : items) {
      weights.push_back(std::exp((logit - best) / options_.temperature));
      kept += std::exp(logit - best);
      if (kept >= options_.top_p * mass) break;
    }
    return items[std::discrete_distribution<std::size_t>(weights.begin(), weights.end())(engine_)]
        .second;
  }
  void accept(Token token) {
    window_.push_back(token);
    if (window_.size() > static_cast<std::size_t>(options_.repeat_last_n)) window_.pop_front();
  }

 private:
  Options options_;
  std::mt19937_64 engine_;
  std::deque<Token> window_;
};

template <typename S>
void run(benchmark::State& state, S& sampler) {
  const std::vector<float> logits = make_logits(vocab_of(state));
  std::vector<float> row(logits.size());
  for (auto _ : state) {
    // The model's row is fresh each time; its copy (a few microseconds) is part of both.
    std::copy(logits.begin(), logits.end(), row.begin());
    Token token = sampler.sample(row);
    sampler.accept(token);
    benchmark::DoNotOptimize(token);
  }
}

void ours(benchmark::State& state, Options options) {
  options.seed = 1;
  Sampler sampler(options, vocab_of(state));
  run(state, sampler);
}
void naive(benchmark::State& state, Options options) {
  options.seed = 1;
  NaiveSampler sampler(options);
  run(state, sampler);
}

void copy_only(benchmark::State& state) {
  const std::vector<float> logits = make_logits(vocab_of(state));
  std::vector<float> row(logits.size());
  for (auto _ : state) {
    std::copy(logits.begin(), logits.end(), row.begin());
    float* data = row.data();
    benchmark::DoNotOptimize(data);
    benchmark::ClobberMemory();
  }
}

void greedy_max_element(benchmark::State& state) {
  const std::vector<float> logits = make_logits(vocab_of(state));
  std::vector<float> row(logits.size());
  for (auto _ : state) {
    std::copy(logits.begin(), logits.end(), row.begin());
    auto best = std::max_element(row.begin(), row.end());
    benchmark::DoNotOptimize(best);
  }
}

// What an accepted token costs, with a window of 64 and with the whole context.
void accept(benchmark::State& state) {
  Options options;
  options.repeat_last_n = static_cast<std::int32_t>(state.range(1));
  const std::size_t vocab = vocab_of(state);
  Sampler sampler(options, vocab);
  std::uint32_t token = 1;
  for (auto _ : state) {
    token = token * 1664525U + 1013904223U;
    sampler.accept(static_cast<Token>(token % vocab));
  }
}

const Options kDefaults;
const Options kGreedy{.temperature = 0.0F};
const Options kTopKOff{.top_k = 0};
const Options kTemperatureOnly{.top_k = 0, .top_p = 1.0F};
const Options kMinP{.top_k = 0, .top_p = 1.0F, .min_p = 0.05F};
const Options kTypical{.top_k = 0, .top_p = 1.0F, .typical_p = 0.9F};

#define OLLAMA_SAMPLE_BENCH(function, ...) \
  BENCHMARK_CAPTURE(function, __VA_ARGS__)->Arg(32'000)->Arg(128'256)->Unit(benchmark::kMicrosecond)

OLLAMA_SAMPLE_BENCH(ours, defaults, kDefaults);
OLLAMA_SAMPLE_BENCH(naive, defaults, kDefaults);
OLLAMA_SAMPLE_BENCH(ours, top_k_off, kTopKOff);
OLLAMA_SAMPLE_BENCH(naive, top_k_off, kTopKOff);
OLLAMA_SAMPLE_BENCH(ours, temperature_only, kTemperatureOnly);
OLLAMA_SAMPLE_BENCH(ours, min_p, kMinP);
OLLAMA_SAMPLE_BENCH(ours, typical, kTypical);
OLLAMA_SAMPLE_BENCH(ours, greedy, kGreedy);
BENCHMARK(greedy_max_element)->Arg(32'000)->Arg(128'256)->Unit(benchmark::kMicrosecond);
BENCHMARK(copy_only)->Arg(32'000)->Arg(128'256)->Unit(benchmark::kMicrosecond);
BENCHMARK(accept)->Args({128'256, 64})->Args({128'256, -1});

}  // namespace
}  // namespace ollama::sample

BENCHMARK_MAIN();
