// Remembers of every token whether merging its own text gives just it, so that a word that is such
// a token needs no merging. Bounded by the vocabulary, filled as words come up, shared by threads
// without locks: each entry is a byte that only ever goes from unknown to its one right value.
// Private to this module's sources.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace ollama::tokenizer {

class WordMemory {
 public:
  enum class State : std::uint8_t { kUnknown, kWhole, kParts };

  explicit WordMemory(std::size_t tokens)
      : states_(std::make_unique<std::atomic<State>[]>(tokens)) {}
  State get(std::size_t token) const { return states_[token].load(std::memory_order_relaxed); }
  void set(std::size_t token, State state) const {
    states_[token].store(state, std::memory_order_relaxed);
  }

 private:
  std::unique_ptr<std::atomic<State>[]> states_;
};

}  // namespace ollama::tokenizer
