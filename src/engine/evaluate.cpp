#include "engine/evaluate.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/pooling.h"

namespace ollama::engine {
namespace {

std::array<std::pair<Token, float>, 5> best_five(std::span<const float> logits) {
  std::vector<Token> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const std::size_t count = std::min<std::size_t>(5, ids.size());
  std::ranges::partial_sort(ids, ids.begin() + static_cast<std::ptrdiff_t>(count),
                            [&](Token a, Token b) {
                              const float x = logits[static_cast<std::size_t>(a)];
                              const float y = logits[static_cast<std::size_t>(b)];
                              return x != y ? x > y : a < b;
                            });
  std::array<std::pair<Token, float>, 5> best{};
  for (std::size_t i = 0; i < count; ++i) {
    best[i] = {ids[i], logits[static_cast<std::size_t>(ids[i])]};
  }
  return best;
}

// Of the last copy: the others' neighbour.
Result<std::vector<float>> embed(Executor& executor, std::span<const Token> tokens,
                                 std::uint32_t copies) {
  StepBatch batch;
  batch.states = true;
  Pooler pooler(executor.pooling(), executor.info().embedding_length);
  for (std::uint32_t copy = 0; copy < copies; ++copy) {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      batch.add(tokens[i], static_cast<kvcache::Position>(i), copy,
                copy + 1 == copies && pooler.wants(i, tokens.size()));
    }
  }
  OLLAMA_ASSIGN(const std::span<const float> states, executor.run(batch));
  const std::size_t width = executor.info().embedding_length;
  for (std::size_t row = 0; row < batch.outputs.size(); ++row) {
    pooler.add(states.subspan(row * width, width));
  }
  std::vector<float> result = pooler.result();
  normalize(result);
  return result;
}

// log softmax, in place.
void to_log_probabilities(std::span<float> logits) {
  const float most = std::ranges::max(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double{logit} - double{most});
  const auto shift = static_cast<float>(double{most} + std::log(sum));
  for (float& logit : logits) logit -= shift;
}

}  // namespace

Result<Divergence> compare_kernels(const std::filesystem::path& path, EvaluateOptions options) {
  options.keep_logits = true;
  options.n_greedy = 0;
  options.kernels = ml::CpuKernels::kNative;
  OLLAMA_ASSIGN(Evaluation native, evaluate(path, options));
  options.kernels = ml::CpuKernels::kGgml;
  OLLAMA_ASSIGN(Evaluation ggml, evaluate(path, options));
  if (native.logits.empty()) {
    return fail(ErrorCode::kUnsupported, "the model has no logits to compare");
  }
  Divergence result;
  const std::size_t tokens = options.tokens.size();
  const std::size_t vocabulary = native.logits.size() / tokens;
  for (std::size_t i = 0; i < tokens; ++i) {
    const auto p = std::span(ggml.logits).subspan(i * vocabulary, vocabulary);
    const auto q = std::span(native.logits).subspan(i * vocabulary, vocabulary);
    result.same_best += ggml.top5[i][0].first == native.top5[i][0].first ? 1.0 : 0.0;
    to_log_probabilities(p);
    to_log_probabilities(q);
    double divergence = 0;
    for (std::size_t token = 0; token < vocabulary; ++token) {
      divergence += std::exp(double{p[token]}) * (double{p[token]} - double{q[token]});
    }
    result.mean += divergence;
    result.largest = std::max(result.largest, divergence);
  }
  result.mean /= static_cast<double>(tokens);
  result.same_best /= static_cast<double>(tokens);
  return result;
}

Result<Evaluation> evaluate(const std::filesystem::path& path, const EvaluateOptions& options) {
  if (options.tokens.empty()) return fail(ErrorCode::kInvalidArgument, "no tokens to evaluate");
  const std::uint32_t copies = std::clamp(options.interleaved, 1U, 8U);
  const auto total = static_cast<std::uint32_t>(options.tokens.size());
  OLLAMA_ASSIGN(const auto executor, Executor::load(path,
                                                    {.context = total + options.n_greedy,
                                                     .batch = total * copies,
                                                     .parallel = copies,
                                                     .gpu_layers = options.gpu_layers,
                                                     .spread = options.spread,
                                                     .devices = options.devices,
                                                     .threads = options.threads,
                                                     .kv_type = options.kv_type,
                                                     .flash_attention = options.flash_attention,
                                                     .backend = options.backend,
                                                     .kernels = options.kernels,
                                                     .validation = options.validation},
                                                    {}));
  executor->observe(options.observer);
  const std::size_t vocab = executor->info().vocab_size;
  OLLAMA_TRY(executor->check(options.tokens));
  if (total > executor->info().context) {
    return fail(ErrorCode::kInvalidArgument, "{} tokens are more than the model's context of {}",
                total, executor->info().context);
  }

  Evaluation result;
  if (executor->info().ranks) {
    return fail(ErrorCode::kUnsupported,
                "the model ranks texts: it has neither logits nor embeddings");
  }
  if (executor->info().is_embedding) {
    OLLAMA_ASSIGN(result.embedding_normalized, embed(*executor, options.tokens, copies));
    result.counters = executor->counters();
    return result;
  }
  const std::uint32_t chunk = options.chunk == 0 ? total : options.chunk;
  StepBatch batch;
  for (std::uint32_t begin = 0; begin < total; begin += chunk) {
    const std::uint32_t end = std::min(total, begin + chunk);
    batch.clear();
    for (std::uint32_t i = begin; i < end; ++i) {
      for (std::uint32_t copy = 0; copy < copies; ++copy) {
        batch.add(options.tokens[i], static_cast<kvcache::Position>(i), copy, true);
      }
    }
    OLLAMA_ASSIGN(const std::span<const float> logits, executor->run(batch));
    // The last copy's rows: the others' neighbour.
    for (std::uint32_t i = 0; i < end - begin; ++i) {
      const auto row = logits.subspan((i * copies + copies - 1) * vocab, vocab);
      result.top5.push_back(best_five(row));
      if (options.keep_logits) {
        result.logits.insert(result.logits.end(), row.begin(), row.end());
      }
      if (begin + i + 1 == total) result.last_logits.assign(row.begin(), row.end());
    }
  }

  auto best = best_five(result.last_logits);
  for (std::uint32_t i = 0; i < options.n_greedy; ++i) {
    result.greedy.push_back(best[0].first);
    result.greedy_margins.push_back((best[0].second - best[1].second) / std::abs(best[0].second));
    const std::uint32_t position = total + i;
    if (i + 1 == options.n_greedy || position >= executor->info().context) break;
    batch.clear();
    for (std::uint32_t copy = 0; copy < copies; ++copy) {
      batch.add(best[0].first, static_cast<kvcache::Position>(position), copy, true);
    }
    OLLAMA_ASSIGN(const std::span<const float> logits, executor->run(batch));
    best = best_five(logits.last(vocab));
  }
  result.counters = executor->counters();
  return result;
}

}  // namespace ollama::engine
