// Logits of given tokens, for comparing this engine with others and its backends with one another.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <utility>
#include <vector>

#include "base/error.h"
#include "engine/executor.h"
#include "ml/backend.h"
#include "tokenizer/tokenizer.h"

namespace ollama::engine {

using tokenizer::Token;

struct EvaluateOptions {
  std::vector<Token> tokens;
  std::uint32_t n_greedy = 24;  // tokens to go on with, greedily
  ml::DType kv_type = ml::DType::kF32;
  ml::FlashAttention flash_attention = ml::FlashAttention::kAuto;
  std::uint32_t chunk = 0;  // tokens a step; 0: all at once
  ml::BackendKind backend = ml::BackendKind::kGgml;
  ml::CpuKernels kernels = ml::CpuKernels::kAuto;
  std::int32_t gpu_layers = 0;  // see memory::Limits
  bool spread = false;
  ml::DeviceOptions devices = {};
  std::uint32_t threads = 0;
  nn::Validation validation = nn::Validation::kOnce;
  ml::Observer observer = {};     // hears the named results of every step
  bool keep_logits = false;       // of every token
  std::uint32_t interleaved = 1;  // evaluates this many copies side by side, each its own sequence
};

struct Evaluation {
  std::vector<std::array<std::pair<Token, float>, 5>> top5;  // a row for each token
  std::vector<float> last_logits;                            // of the last token
  std::vector<float> logits;  // [vocabulary, tokens], where they were to be kept
  std::vector<Token> greedy;
  // Of each of these: how far the second-best logit was below its own, as a share of the largest.
  std::vector<float> greedy_margins;
  std::vector<float> embedding_normalized;  // of embedding models, instead of the above
  Counters counters;
};

// How far native kernels' logits are from GGML's: the Kullback-Leibler divergence of the
// probabilities of the next token, over the tokens' positions.
struct Divergence {
  double mean = 0;
  double largest = 0;
  double same_best = 0;  // the share of positions whose most probable token is the same
};
// Runs the model with both. options.kernels is not looked at. Errors: those of evaluate;
// kUnsupported for embedding models.
Result<Divergence> compare_kernels(const std::filesystem::path& path, EvaluateOptions options);

// Errors: those of Engine::load; kInvalidArgument for tokens outside the vocabulary or too many.
Result<Evaluation> evaluate(const std::filesystem::path& path, const EvaluateOptions& options);

}  // namespace ollama::engine
