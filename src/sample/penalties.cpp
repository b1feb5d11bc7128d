#include "sample/penalties.h"

#include <algorithm>

namespace ollama::sample {
namespace {

// A longer window is the whole text: no context is longer, and a ring of any size that a request
// asks for could be used to exhaust memory.
constexpr std::int32_t kLongestWindow = 1 << 20;

bool unlimited(std::int32_t last_n) { return last_n < 0 || last_n > kLongestWindow; }

}  // namespace

Penalties::Penalties(const Options& options, std::size_t vocab_size)
    : repeat_(options.repeat_penalty),
      frequency_(options.frequency_penalty),
      presence_(options.presence_penalty),
      on_(options.repeat_last_n != 0 &&
          (repeat_ != 1.0F || frequency_ != 0.0F || presence_ != 0.0F)) {
  if (!on_) return;
  std::size_t distinct = vocab_size;
  if (!unlimited(options.repeat_last_n)) {
    window_.resize(static_cast<std::size_t>(options.repeat_last_n));
    distinct = std::min(distinct, window_.size());
  }
  entries_.reserve(distinct);
  slots_.assign(vocab_size, -1);
}

void Penalties::accept(Token token) {
  if (!on_ || token < 0 || static_cast<std::size_t>(token) >= slots_.size()) return;
  if (!window_.empty()) {
    if (filled_ == window_.size()) {
      remove(window_[oldest_]);
    } else {
      ++filled_;
    }
    window_[oldest_] = token;
    oldest_ = oldest_ + 1 == window_.size() ? 0 : oldest_ + 1;
  }
  add(token);
}

void Penalties::apply(std::span<float> logits) const {
  for (const Entry& entry : entries_) {
    const auto index = static_cast<std::size_t>(entry.token);
    if (index >= logits.size()) continue;
    float& logit = logits[index];
    logit = logit > 0.0F ? logit / repeat_ : logit * repeat_;
    logit -= static_cast<float>(entry.count) * frequency_ + presence_;
  }
}

void Penalties::reset() {
  for (const Entry& entry : entries_) slots_[static_cast<std::size_t>(entry.token)] = -1;
  entries_.clear();
  oldest_ = 0;
  filled_ = 0;
}

void Penalties::add(Token token) {
  std::int32_t& slot = slots_[static_cast<std::size_t>(token)];
  if (slot < 0) {
    slot = static_cast<std::int32_t>(entries_.size());
    entries_.push_back({token, 0});
  }
  ++entries_[static_cast<std::size_t>(slot)].count;
}

void Penalties::remove(Token token) {
  std::int32_t& slot = slots_[static_cast<std::size_t>(token)];
  Entry& entry = entries_[static_cast<std::size_t>(slot)];
  if (--entry.count > 0) return;
  // The last entry takes the free place.
  entry = entries_.back();
  slots_[static_cast<std::size_t>(entry.token)] = slot;
  slot = -1;
  entries_.pop_back();
}

}  // namespace ollama::sample
