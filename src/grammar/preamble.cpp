#include "grammar/preamble.h"

#include <algorithm>
#include <utility>

namespace ollama::grammar {

namespace {

constexpr std::size_t kMostBlanks = 8;  // before a preamble

std::string_view without_leading_blanks(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
  return text;
}

bool is_blank(std::string_view text) { return without_leading_blanks(text).empty(); }

}  // namespace

Preamble::Preamble(Options options)
    : options_(std::move(options)), where_(options_.begun ? Where::kInside : Where::kBefore) {}

Preamble::Found Preamble::find_marks(std::string_view text) const {
  Found found;
  for (std::size_t mark = next_mark_; mark < options_.close.size(); ++mark) {
    const std::size_t at = text.find(options_.close[mark], found.end);
    if (at == std::string_view::npos) break;
    ++found.marks;
    found.end = at + options_.close[mark].size();
  }
  return found;
}

Preamble::Verdict Preamble::say() {
  // A vocabulary that could not say it the first time cannot say it at all.
  if (said_in_ == where_) return Verdict::kBind;
  said_in_ = where_;
  return Verdict::kSay;
}

Preamble::Verdict Preamble::judge(std::string_view piece, bool ends) {
  switch (where_) {
    case Where::kBefore: {
      if (ends) return Verdict::kBind;
      const std::string_view text = without_leading_blanks(piece);
      if (text.empty()) return tail_.size() < kMostBlanks ? Verdict::kTake : Verdict::kBind;
      if (text.starts_with(options_.open)) return Verdict::kTake;
      return std::string_view(options_.open).starts_with(text) ? say() : Verdict::kBind;
    }
    case Where::kInside:
      if (ends) return options_.may_end ? Verdict::kTake : say();
      // What the grammar binds begins with a token of its own.
      return closes_and_goes_on(piece) ? say() : Verdict::kTake;
    case Where::kBehind:
      // Models put an empty line behind their thinking: without it they are not themselves.
      return !ends && is_blank(piece) ? Verdict::kTake : Verdict::kBind;
    case Where::kOver:
      break;
  }
  return Verdict::kBind;
}

bool Preamble::closes_and_goes_on(std::string_view piece) {
  const std::size_t before = tail_.size();
  tail_ += piece;
  const Found found = find_marks(tail_);
  const bool goes_on = next_mark_ + found.marks == options_.close.size() &&
                       !is_blank(std::string_view(tail_).substr(found.end));
  tail_.resize(before);
  return goes_on;
}

void Preamble::take(std::string_view piece) {
  if (where_ == Where::kBehind) where_ = Where::kOver;
  if (where_ == Where::kOver) return;
  tail_ += piece;
  if (where_ == Where::kBefore) {
    const std::string_view text = without_leading_blanks(tail_);
    if (!text.starts_with(options_.open)) return;
    tail_.erase(0, tail_.size() - text.size() + options_.open.size());
    where_ = Where::kInside;
  }
  const Found found = find_marks(tail_);
  next_mark_ += found.marks;
  if (next_mark_ == options_.close.size()) {
    // Blanks that came with the mark are all there are.
    where_ = found.end == tail_.size() ? Where::kBehind : Where::kOver;
    return;
  }
  const std::size_t begun = options_.close[next_mark_].size() - 1;
  tail_.erase(0, std::max(found.end, tail_.size() - std::min(tail_.size(), begun)));
}

}  // namespace ollama::grammar
