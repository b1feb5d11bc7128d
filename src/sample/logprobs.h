// The log-probabilities of a row of logits. Internal to the sampler.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "sample/candidates.h"
#include "sample/sampler.h"

namespace ollama::sample {

class Logprobs {
 public:
  // `alternatives` of the best tokens are told beside the chosen one. Nothing allocates later.
  Logprobs(std::size_t alternatives, std::size_t vocab_size);

  // Keeps a copy of the row as the model gave it.
  void take(std::span<const float> logits);
  // Computes what entries() gives: that token, then the best ones.
  void choose(Token token);
  std::span<const TokenLogprob> entries() const { return entries_; }

 private:
  std::vector<float> row_;
  std::optional<Candidates> best_;  // none where no alternatives are wanted
  std::vector<TokenLogprob> entries_;
};

}  // namespace ollama::sample
