// Choosing the next token from a row of logits. One Sampler belongs to one sequence; its buffers
// are reserved when it is made, so that sampling allocates nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "tokenizer/tokenizer.h"

namespace ollama::grammar {
class Constraint;
}  // namespace ollama::grammar

namespace ollama::sample {

using tokenizer::Token;

// Added to a token's logit before anything else looks at it. -100 forbids the token, 100 puts it
// before all tokens without one.
struct TokenBias {
  Token token = 0;
  float bias = 0;  // -100 to 100
};

// Ollama's options and defaults; of those that only llama.cpp has, llama.cpp's.
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
  std::vector<TokenBias> logit_bias;
  // Dynamic temperature: temperature - range at no entropy to temperature + range at the most that
  // the candidates can have, by the exponent's power of the share.
  float dynatemp_range = 0.0F;  // 0: off
  float dynatemp_exponent = 1.0F;
  // XTC: with the probability, drops all but the least likely of the tokens that have at least the
  // threshold's share.
  float xtc_probability = 0.0F;  // 0: off
  float xtc_threshold = 0.1F;    // above 0.5: off
  float dry_multiplier = 0.0F;   // 0: off; see dry.h
  float dry_base = 1.75F;
  std::int32_t dry_allowed_length = 2;
  std::int32_t dry_penalty_last_n = -1;  // as repeat_last_n
  std::vector<std::string> dry_sequence_breakers{"\n", ":", "\"", "*"};
  // Mirostat 1 or 2 in place of top_k, typical_p, top_p, min_p and XTC; see mirostat.h.
  std::int32_t mirostat = 0;   // 0: off
  float mirostat_tau = 5.0F;   // the wanted surprise in bits
  float mirostat_eta = 0.1F;   // how fast its bound follows
  std::int32_t logprobs = -1;  // alternatives to tell of beside the chosen token; -1: tell nothing
};

inline constexpr std::int32_t kMostLogprobs = 20;
inline constexpr float kMostBias = 100.0F;

// kInvalidArgument names the option that is out of range. Filters' probabilities beyond 0 or 1 are
// not: they mean the strictest filter or none. Tokens with a bias are of the vocabulary.
Result<> validate(const Options& options,
                  std::size_t vocab_size = std::numeric_limits<std::size_t>::max());

// For texts of at most a context: a window that is longer is the whole text, of which no ring is
// kept.
Options within(Options options, std::size_t context);

// The natural logarithm of a token's probability, at least -9999.
struct TokenLogprob {
  Token token = 0;
  float logprob = 0;
};

// The text that a token stands for, which outlives the call.
using PieceOf = std::function<std::string_view(Token)>;

class Sampler {
 public:
  // `piece` finds the texts of dry_sequence_breakers; without it there are none.
  Sampler(const Options& options, std::size_t vocab_size, PieceOf piece = {});
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
  // Chooses in this way after all, from the logits that sample() has been given.
  Token sample_again(std::span<float> logits, grammar::Constraint& constraint);
  // With Options::logprobs, of the last sample(): the chosen token, then the most probable ones,
  // best first. They are of the model's own distribution: the log-softmax of the logits as they
  // were given, before biases, penalties, filters, temperature and grammar. Valid until the next
  // sample().
  std::span<const TokenLogprob> logprobs() const;
  // Tells the penalties of a token that is now part of the text (the prompt's included).
  void accept(Token token);
  // Forgets the text, restarts the random numbers.
  void reset();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ollama::sample
