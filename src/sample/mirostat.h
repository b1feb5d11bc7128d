// Mirostat (Basu et al., 2021): keeps the surprise of what is said near a target, in place of the
// filters. Internal to the sampler.
#pragma once

#include <cstddef>

#include "sample/candidates.h"
#include "sample/sampler.h"

namespace ollama::sample {

// Surprises are in bits: -log2 of a token's probability.
class Mirostat {
 public:
  Mirostat(const Options& options, std::size_t vocab_size);

  // Draws from the whole vocabulary at `temperature` (the best token where that is 0), as the
  // paper's version 1 (the number of candidates follows from the target and the distribution's
  // estimated slope) or version 2 (those less surprising than a bound), and moves the bound by what
  // the choice says. 0 of an empty set.
  Token draw(Candidates& candidates, float temperature, double uniform);
  void reset();

 private:
  std::size_t count_by_slope(Candidates& candidates) const;

  int version_;
  float tau_;
  float eta_;
  std::size_t vocab_size_;
  double bound_ = 0;  // the paper's mu
};

}  // namespace ollama::sample
