#include "chat/call_watch.h"

#include <algorithm>

namespace ollama::chat {
namespace {

// So short a text is read with every piece: what it begins with tells most often that it is none.
constexpr std::size_t kShort = 512;

}  // namespace

bool CallWatch::worth_reading(std::string_view text) {
  bool worth = text.size() <= kShort || text.size() >= read_ + read_ / 4;
  worth = worth || (!mark_.empty() && has_new(mark_, text));
  worth = worth || std::ranges::any_of(syntax_->closers, [&](std::string_view closer) {
            return has_new(closer, text);
          });
  if (!syntax_->quotes.empty()) {
    for (const char c : text.substr(seen_)) worth = may_end_with(c) || worth;
  }
  seen_ = text.size();
  if (worth) read_ = text.size();
  return worth;
}

bool CallWatch::has_new(std::string_view mark, std::string_view text) const {
  return text.find(mark, seen_ - std::min(seen_, mark.size() - 1)) != std::string_view::npos;
}

// Outside of brackets everything counts: the beginning of a call, and what may follow it.
bool CallWatch::may_end_with(char c) {
  if (quote_ != 0) {
    if (escaped_) {
      escaped_ = false;
    } else if (c == '\\') {
      escaped_ = true;
    } else if (c == quote_) {
      quote_ = 0;
    }
    return false;
  }
  if (syntax_->quotes.contains(c)) {
    quote_ = c;
  } else if (c == '{' || c == '[') {
    ++depth_;
  } else if ((c == '}' || c == ']') && depth_ > 0) {
    --depth_;
  }
  return depth_ == 0 && !std::string_view(" \t\r\n").contains(c);
}

}  // namespace ollama::chat
