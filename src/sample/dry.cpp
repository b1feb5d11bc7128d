#include "sample/dry.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace ollama::sample {
namespace {

// A longer window is the whole text, as for the other penalties.
constexpr std::int32_t kLongestWindow = 1 << 20;

std::size_t window_of(std::int32_t last_n) {
  return last_n < 0 || last_n > kLongestWindow ? std::numeric_limits<std::size_t>::max()
                                               : static_cast<std::size_t>(last_n);
}

}  // namespace

Dry::Dry(const Options& options, std::size_t vocab_size, PieceOf piece)
    : on_(options.dry_multiplier > 0.0F && options.dry_penalty_last_n != 0),
      multiplier_(options.dry_multiplier),
      base_(options.dry_base),
      allowed_(static_cast<std::size_t>(std::max(options.dry_allowed_length, 0))),
      window_(window_of(options.dry_penalty_last_n)),
      piece_(std::move(piece)) {
  if (!on_) return;
  if (piece_) breakers_ = options.dry_sequence_breakers;
  std::erase(breakers_, std::string());
  for (const std::string& breaker : breakers_) {
    longest_breaker_ = std::max(longest_breaker_, breaker.size());
  }
  slots_.assign(vocab_size, -1);
  if (window_ > static_cast<std::size_t>(kLongestWindow)) return;
  text_.reserve(2 * window_);
  matches_.reserve(window_);
  repeats_.reserve(std::min(window_, vocab_size));
  tail_.reserve(longest_breaker_ + 256);
}

bool Dry::has_breaker(std::string_view text) const {
  return std::ranges::any_of(breakers_,
                             [&](const std::string& breaker) { return text.contains(breaker); });
}

// Whether `piece` completes a breaker, begun in it or before it.
bool Dry::ends_with_breaker(std::string_view piece) {
  tail_ += piece;
  const bool found = has_breaker(tail_);
  // What has been found must not be found again; of the rest, a beginning may be completed.
  const std::size_t kept = found ? 0 : longest_breaker_ - 1;
  if (tail_.size() > kept) tail_.erase(0, tail_.size() - kept);
  return found;
}

void Dry::accept(Token token) {
  if (!on_ || token < 0 || static_cast<std::size_t>(token) >= slots_.size()) return;
  if (text_.size() / 2 >= window_) {
    text_.erase(text_.begin(), text_.end() - static_cast<std::ptrdiff_t>(window_));
  }
  text_.push_back(token);
  const bool breaks = !breakers_.empty() && ends_with_breaker(piece_(token));
  since_break_ = breaks ? 0 : since_break_ + 1;
}

std::span<const Token> Dry::window() const {
  return std::span(text_).last(std::min(text_.size(), window_));
}

void Dry::apply(std::span<float> logits) {
  if (!on_) return;
  find_repeats(window());
  for (const auto& [next, length] : repeats_) {
    const auto index = static_cast<std::size_t>(next);
    slots_[index] = -1;
    if (index >= logits.size() || (!breakers_.empty() && has_breaker(piece_(next)))) continue;
    const double penalty =
        static_cast<double>(multiplier_) *
        std::pow(static_cast<double>(base_), static_cast<double>(length - allowed_));
    logits[index] -= static_cast<float>(
        std::min(penalty, static_cast<double>(std::numeric_limits<float>::max())));
  }
}

// The Z-algorithm on the text read backwards: matches_[i] is how far what ends i tokens before the
// end equals what ends there.
void Dry::find_repeats(std::span<const Token> text) {
  repeats_.clear();
  const std::size_t size = text.size();
  const std::size_t longest = std::min(since_break_, size);
  if (longest < allowed_) return;
  matches_.assign(size, 0);
  const auto back = [&](std::size_t i) { return text[size - 1 - i]; };
  std::size_t begin = 0;
  std::size_t end = 0;
  for (std::size_t i = 1; i < size; ++i) {
    std::size_t length = i < end ? std::min<std::size_t>(end - i, matches_[i - begin]) : 0;
    while (i + length < size && back(length) == back(i + length)) ++length;
    matches_[i] = static_cast<std::uint32_t>(length);
    if (i + length > end) {
      begin = i;
      end = i + length;
    }
    if (const std::size_t repeat = std::min(length, longest); repeat >= allowed_) {
      note(back(i - 1), repeat);
    }
  }
}

void Dry::note(Token next, std::size_t length) {
  std::int32_t& slot = slots_[static_cast<std::size_t>(next)];
  if (slot < 0) {
    slot = static_cast<std::int32_t>(repeats_.size());
    repeats_.push_back({next, length});
    return;
  }
  std::size_t& longest = repeats_[static_cast<std::size_t>(slot)].length;
  longest = std::max(longest, length);
}

void Dry::reset() {
  tail_.clear();
  text_.clear();
  since_break_ = 0;
}

}  // namespace ollama::sample
