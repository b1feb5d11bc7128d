// DRY ("don't repeat yourself"): penalises the tokens that would lengthen a repetition of the text.
// Internal to the sampler.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "sample/sampler.h"

namespace ollama::sample {

// As llama.cpp defines it: where the end of the text repeats an earlier part of it over n tokens,
// n >= dry_allowed_length, the token that followed there loses dry_multiplier * dry_base^(n -
// dry_allowed_length) of its logit. A repetition does not reach back over a text of
// dry_sequence_breakers, and tokens that have such a text in them are spared.
//
// apply() costs O(tokens in the window). Nothing allocates, but accept() where the window is the
// whole text, which grows.
class Dry {
 public:
  // Without `piece` there are no breakers.
  Dry(const Options& options, std::size_t vocab_size, PieceOf piece);

  void accept(Token token);
  void apply(std::span<float> logits);
  void reset();

 private:
  struct Repeat {
    Token next;
    std::size_t length;
  };
  bool has_breaker(std::string_view text) const;
  bool ends_with_breaker(std::string_view piece);
  std::span<const Token> window() const;
  void find_repeats(std::span<const Token> text);
  void note(Token next, std::size_t length);

  bool on_;
  float multiplier_;
  float base_;
  std::size_t allowed_;
  std::size_t window_;  // tokens looked back at, at most
  std::vector<std::string> breakers_;
  PieceOf piece_;
  std::size_t longest_breaker_ = 0;
  std::string tail_;                    // of the text, where a breaker may have begun
  std::size_t since_break_ = 0;         // tokens after the last breaker
  std::vector<Token> text_;             // the window, and no more than as much again before it
  std::vector<std::uint32_t> matches_;  // scratch of find_repeats()
  std::vector<Repeat> repeats_;         // the longest one for each next token
  std::vector<std::int32_t> slots_;     // token -> its index in repeats_, or -1
};

}  // namespace ollama::sample
