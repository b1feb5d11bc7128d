// Text that grows up to a limit: templates are untrusted and may ask for any amount.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

namespace ollama::chat::go {

class Sink {
 public:
  explicit Sink(std::size_t limit) : limit_(limit) {}

  void add(std::string_view text) {
    const std::size_t room = limit_ - text_.size();
    full_ |= text.size() > room;
    text_.append(text.substr(0, room));
  }
  void add(char c) { add(std::string_view(&c, 1)); }
  void fill(char c, std::size_t count) {
    const std::size_t room = limit_ - text_.size();
    full_ |= count > room;
    text_.append(std::min(count, room), c);
  }

  // Something was left out.
  bool full() const { return full_; }
  std::size_t size() const { return text_.size(); }
  std::size_t limit() const { return limit_; }
  std::string_view view() const { return text_; }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
  std::size_t limit_;
  bool full_ = false;
};

}  // namespace ollama::chat::go
