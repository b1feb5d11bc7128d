#include "chat/turns.h"

#include <algorithm>
#include <ranges>

namespace ollama::chat {

Turns::Turns(std::span<const api::Message> messages)
    : messages_(messages), parts_(messages.size(), kAlways) {
  const auto last =
      std::ranges::find(messages | std::views::reverse, "user", &api::Message::role).base();
  const auto behind = static_cast<std::size_t>(last - messages.begin());  // the question; 0: none
  bool open = false;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const std::string_view role = messages[i].role;
    if (i + 1 == behind) {
      open = false;
    } else if (role != "system") {
      if (!open || role == (i < behind ? "user" : "assistant")) ++count_;
      open = true;
      parts_[i] = count_ - 1;
      if (i >= behind) fewest_ = 1;
    }
  }
}

std::vector<api::Message> Turns::newest(std::size_t kept) const {
  const std::size_t first = count_ - std::min(kept, count_);
  std::vector<api::Message> left;
  for (std::size_t i = 0; i < messages_.size(); ++i) {
    if (parts_[i] >= first) left.push_back(messages_[i]);  // kAlways is the highest
  }
  return left;
}

}  // namespace ollama::chat
