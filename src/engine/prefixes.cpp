#include "engine/prefixes.h"

#include <algorithm>

namespace ollama::engine {
namespace {

std::uint32_t common_prefix(std::span<const Token> a, std::span<const Token> b) {
  const auto [end, _] = std::ranges::mismatch(a, b);
  return static_cast<std::uint32_t>(end - a.begin());
}

}  // namespace

Prefixes::Prefixes(kvcache::Cache& cache, std::uint32_t sequences)
    : cache_(cache), entries_(sequences) {}

void Prefixes::clear(Entry& entry) {
  const auto sequence = static_cast<kvcache::Sequence>(&entry - entries_.data());
  cache_.remove(sequence, 0, std::numeric_limits<kvcache::Position>::max());
  entry.tokens.clear();
  entry.state = State::kFree;
}

Prefixes::Claim Prefixes::claim(std::span<const Token> prompt, bool reuse) {
  Entry* best = nullptr;
  std::uint32_t cached = 0;
  if (reuse && prompt.size() > 1) {
    for (Entry& entry : entries_) {
      if (entry.state == State::kFree) continue;
      const std::uint32_t common = common_prefix(entry.tokens, prompt.first(prompt.size() - 1));
      if (common <= cached) continue;
      const auto sequence = static_cast<kvcache::Sequence>(&entry - entries_.data());
      const auto usable = static_cast<std::uint32_t>(
          cache_.resume_point(sequence, static_cast<kvcache::Position>(common)));
      if (usable > cached) {
        best = &entry;
        cached = usable;
      }
    }
  }

  Entry* chosen = nullptr;
  if (best != nullptr && best->state == State::kIdle && cached * 2 >= best->tokens.size()) {
    chosen = best;  // the next turn of a conversation, most likely
    cache_.remove(static_cast<kvcache::Sequence>(best - entries_.data()),
                  static_cast<kvcache::Position>(cached),
                  std::numeric_limits<kvcache::Position>::max());
    chosen->tokens.resize(cached);
  } else {
    for (Entry& entry : entries_) {
      if (entry.state == State::kFree) {
        chosen = &entry;
        break;
      }
      if (entry.state == State::kIdle && &entry != best &&
          (chosen == nullptr || entry.last_used < chosen->last_used)) {
        chosen = &entry;
      }
    }
    if (chosen == nullptr) {
      // Only the best match is idle: it makes room after all.
      chosen = best;
      cached = 0;
      best = nullptr;
    }
    clear(*chosen);
    if (best != nullptr && cached > 0) {
      cache_.copy_prefix(static_cast<kvcache::Sequence>(best - entries_.data()),
                         static_cast<kvcache::Sequence>(chosen - entries_.data()),
                         static_cast<kvcache::Position>(cached));
      chosen->tokens.assign(best->tokens.begin(), best->tokens.begin() + cached);
    }
  }
  chosen->state = State::kClaimed;
  chosen->last_used = ++clock_;
  return {static_cast<kvcache::Sequence>(chosen - entries_.data()), cached};
}

void Prefixes::release(kvcache::Sequence sequence, bool keep) {
  Entry& entry = entries_[sequence];
  if (!keep || entry.tokens.empty()) {
    clear(entry);
    return;
  }
  entry.state = State::kIdle;
  entry.last_used = ++clock_;
}

bool Prefixes::drop_oldest() {
  Entry* oldest = nullptr;
  for (Entry& entry : entries_) {
    if (entry.state == State::kIdle && (oldest == nullptr || entry.last_used < oldest->last_used)) {
      oldest = &entry;
    }
  }
  if (oldest == nullptr) return false;
  clear(*oldest);
  return true;
}

}  // namespace ollama::engine
