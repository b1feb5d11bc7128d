// The tokens that are still in play while one is chosen: collected from a row of logits, cut down
// by the filters, drawn from. Internal to the sampler; a header so that the filters can be tested
// alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace ollama::sample {

using tokenizer::Token;

struct Candidate {
  float logit;
  Token id;
};

// The total order of candidates: higher logits first, lower ids first among equals. Every choice
// goes by it, so that results do not depend on the algorithm that finds them.
inline bool better(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// The first of the greatest logits; NaNs are passed over. 0 where there is nothing above -inf.
// `allowed`, here and below: a bit for each logit (64 to a word); others count as -inf. Empty: all.
Token first_maximum(std::span<const float> logits, std::span<const std::uint64_t> allowed = {});

// No call after the constructor allocates. The filters keep at least one candidate of a set that is
// not empty; each looks at the softmax (at temperature 1) of the set that it is given.
class Candidates {
 public:
  // `top_k` and what collect() is called with are bounds: 0 < top_k <= vocab_size.
  Candidates(std::size_t vocab_size, std::size_t top_k);

  // Whether collect() may leave tokens of a vocabulary out.
  bool limited() const { return limited_; }

  // Starts over with the `top_k` best of `logits` (at most vocab_size of them). NaN and -inf never
  // get in; +inf counts as the greatest float.
  void collect(std::span<const float> logits, std::span<const std::uint64_t> allowed = {});

  // Locally typical sampling (Meister et al., 2022): the tokens whose information is closest to the
  // entropy, until their mass exceeds `p`. Off from 1 up.
  void keep_typical(float p);
  // Nucleus sampling (Holtzman et al., 2020): the fewest best tokens with a mass of at least `p`.
  // Off from 1 up.
  void keep_top_p(float p);
  // Tokens at least `p` times as likely as the best. Off from 0 down.
  void keep_min_p(float p);

  // "Exclude top choices": of the tokens with a probability of at least `threshold` only the least
  // likely stays, where there are two or more.
  void drop_top(float threshold);
  // The `count` best tokens, at least one.
  void keep_best(std::size_t count);
  // Tokens with a log-probability of at least `floor`, and the best one.
  void keep_likelier(double floor);

  // Makes of the logits what they are at `temperature` > 0, less the best one's.
  void scale(float temperature);
  // The entropy as a share of the most that so many candidates can have: 0 to 1.
  double entropy_share() const;
  // Of a candidate with this logit.
  double logprob(float logit) const;

  // The token at `uniform`, in [0, 1), of the distribution at `temperature`; the best one where
  // that is 0. 0 of an empty set.
  Token draw(float temperature, double uniform);
  // At temperature 1, of a set that is not empty.
  Candidate draw(double uniform);

  std::span<const Candidate> items() const { return items_; }
  // The best ones in order, at most `count`.
  std::span<const Candidate> best(std::size_t count);

 private:
  float best_logit() const;
  std::size_t draw_index(float temperature, double uniform);
  // Puts the best `count` candidates, at least, in order at the front.
  void sort_to(std::size_t count);
  void keep_first(std::size_t count);

  bool limited_;
  std::size_t top_k_;
  std::size_t limit_;  // what items_ may grow to before it is cut back to top_k_
  std::vector<Candidate> items_;
  std::size_t sorted_ = 0;      // items_[0, sorted_) are the best ones, in order
  std::vector<float> weights_;  // draw()'s
};

}  // namespace ollama::sample
