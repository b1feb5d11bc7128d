// Choosing the next token from a row of logits. One Sampler belongs to one sequence; its buffers
// are reserved when it is made, so that sampling allocates nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/error.h"
#include "tokenizer/tokenizer.h"

namespace ollama::grammar {
class Constraint;
}  // namespace ollama::grammar

namespace ollama::sample {

using tokenizer::Token;

// Ollama's options and defaults.
struct Options {
  float temperature = 0.8F;  // 0 or less: greedy
  std::int32_t top_k = 40;   // 0 or less: off
  float top_p = 0.9F;
  float min_p = 0.0F;
  float typical_p = 1.0F;
  std::int32_t repeat_last_n = 64;  // 0: off, -1: the whole text
  float repeat_penalty = 1.0F;
  float presence_penalty = 0.0F;
  float frequency_penalty = 0.0F;
  std::int64_t seed = -1;  // negative: a random one, drawn anew by reset()
};

// kInvalidArgument names the option that is out of range. Probabilities beyond 0 or 1 are not: they
// mean the strictest filter or none.
Result<> validate(const Options& options);

class Sampler {
 public:
  Sampler(const Options& options, std::size_t vocab_size);
  Sampler(Sampler&&) noexcept;
  Sampler& operator=(Sampler&&) noexcept;
  ~Sampler();

  // Chooses from `logits` ([vocab_size]; may be changed in place). NaNs count as minus infinity;
  // when nothing is left, the lowest id is taken. Greedy picks the first of equal maxima.
  Token sample(std::span<float> logits);
  // The same of the tokens that `constraint` allows, as if the others' logits were minus infinity:
  // an end token exactly where the text may end. Where all that is allowed has no logit above minus
  // infinity, the lowest id of it; kNoToken where nothing is allowed.
  Token sample(std::span<float> logits, grammar::Constraint& constraint);
  // Tells the penalties of a token that is now part of the text (the prompt's included).
  void accept(Token token);
  // Forgets the text, restarts the random numbers.
  void reset();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ollama::sample
