// Which sequence names are in use, and which cached prefixes they hold: a running request has one,
// a finished one leaves its tokens behind as an idle prefix for requests to come.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/engine.h"
#include "kvcache/cache.h"

namespace ollama::engine {

class Prefixes {
 public:
  // `cache` may be null where no claim is ever made.
  explicit Prefixes(kvcache::Cache* cache);

  struct Claim {
    kvcache::Sequence sequence = 0;
    std::uint32_t cached = 0;  // positions [0, cached) hold the prompt's first tokens
  };
  // A sequence for `prompt`, with the longest cached prefix of it that evaluation can go on from
  // (never the whole prompt: its last token must be evaluated). `reuse` false: with nothing cached.
  // Takes an idle prefix over when most of it is used, else shares its cells; drops the idle prefix
  // unused longest when no name is free. At most as many claims as sequences may be held at once.
  Claim claim(std::span<const Token> prompt, bool reuse);
  // The tokens whose keys and values the sequence holds, position by position.
  std::vector<Token>& tokens(kvcache::Sequence sequence) { return entries_[sequence].tokens; }
  // Ends a claim; its tokens stay as an idle prefix (or go, if `keep` is false).
  void release(kvcache::Sequence sequence, bool keep = true);
  // Frees the cells of the idle prefix unused longest. False when there is none.
  bool drop_oldest();

 private:
  enum class State : std::uint8_t { kFree, kIdle, kClaimed };
  struct Entry {
    State state = State::kFree;
    std::uint64_t last_used = 0;
    std::vector<Token> tokens;
  };

  kvcache::Sequence sequence_of(const Entry& entry) const {
    return static_cast<kvcache::Sequence>(&entry - entries_.data());
  }
  // The idle prefix unused longest, other than `but`; nullptr when there is none.
  Entry* oldest_idle(const Entry* but = nullptr);
  void clear(Entry& entry);

  kvcache::Cache* cache_;
  std::vector<Entry> entries_;  // index: sequence
  std::uint64_t clock_ = 0;
};

}  // namespace ollama::engine
