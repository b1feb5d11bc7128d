// Penalties on tokens that the recent text has already. Internal to the sampler.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "sample/sampler.h"

namespace ollama::sample {

// Counts the tokens of a sliding window. accept() costs O(1), apply() O(distinct tokens in the
// window); neither allocates, nor looks at the rest of the vocabulary.
class Penalties {
 public:
  Penalties(const Options& options, std::size_t vocab_size);

  // Ids outside the vocabulary are passed over.
  void accept(Token token);
  // Changes the logits of the tokens in the window, as llama.cpp does: divided (where positive) or
  // multiplied by repeat_penalty, then less count * frequency_penalty + presence_penalty.
  void apply(std::span<float> logits) const;
  void reset();

 private:
  struct Entry {
    Token token;
    std::int32_t count;
  };
  void add(Token token);
  void remove(Token token);

  float repeat_;
  float frequency_;
  float presence_;
  bool on_ = false;
  std::vector<Token> window_;  // a ring of the last tokens; empty where the window has no end
  std::size_t oldest_ = 0;     // where the ring, once full, is written next
  std::size_t filled_ = 0;
  std::vector<Entry> entries_;       // the window's distinct tokens
  std::vector<std::int32_t> slots_;  // token -> its index in entries_, or -1
};

}  // namespace ollama::sample
