#include "engine/prefixes.h"

#include <algorithm>

namespace ollama::engine {
namespace {

std::uint32_t common_prefix(std::span<const Token> a, std::span<const Token> b) {
  const auto [end, _] = std::ranges::mismatch(a, b);
  return static_cast<std::uint32_t>(end - a.begin());
}

}  // namespace

Prefixes::Prefixes(kvcache::Cache* cache) : cache_(cache), entries_(kvcache::kMaxSequences) {}

Prefixes::Entry* Prefixes::oldest_idle(const Entry* but) {
  Entry* oldest = nullptr;
  for (Entry& entry : entries_) {
    if (entry.state == State::kIdle && &entry != but &&
        (oldest == nullptr || entry.last_used < oldest->last_used)) {
      oldest = &entry;
    }
  }
  return oldest;
}

void Prefixes::clear(Entry& entry) {
  cache_->remove(sequence_of(entry), 0, kvcache::kNoEnd);
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
      const auto usable = static_cast<std::uint32_t>(
          cache_->resume_point(sequence_of(entry), static_cast<kvcache::Position>(common)));
      if (usable > cached) {
        best = &entry;
        cached = usable;
      }
    }
  }

  Entry* chosen = nullptr;
  if (best != nullptr && best->state == State::kIdle && cached * 2 >= best->tokens.size()) {
    chosen = best;  // the next turn of a conversation, most likely
    cache_->remove(sequence_of(*best), static_cast<kvcache::Position>(cached), kvcache::kNoEnd);
    chosen->tokens.resize(cached);
  } else {
    const auto unused = std::ranges::find(entries_, State::kFree, &Entry::state);
    chosen = unused != entries_.end() ? &*unused : oldest_idle(best);
    if (chosen == nullptr) {
      // Only the best match is idle: it makes room after all.
      chosen = best;
      cached = 0;
      best = nullptr;
    }
    clear(*chosen);
    if (best != nullptr) {
      cache_->copy_prefix(sequence_of(*best), sequence_of(*chosen),
                          static_cast<kvcache::Position>(cached));
      chosen->tokens.assign(best->tokens.begin(), best->tokens.begin() + cached);
    }
  }
  chosen->state = State::kClaimed;
  chosen->last_used = ++clock_;
  return {sequence_of(*chosen), cached};
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
  Entry* const oldest = oldest_idle();
  if (oldest == nullptr) return false;
  clear(*oldest);
  return true;
}

}  // namespace ollama::engine
