#include "chat/images.h"

#include <format>
#include <string_view>

namespace ollama::chat {

std::string image_mark(std::size_t number) { return std::format("[img-{}]", number); }

std::string content_with_marks(const api::Message& message, std::size_t& images) {
  constexpr std::string_view kPlace = "[img]";
  std::string before;
  std::string content = message.content;
  for (std::size_t i = 0; i < message.images.size(); ++i) {
    const std::string mark = image_mark(images++);
    if (const auto at = content.find(kPlace); at != std::string::npos) {
      content.replace(at, kPlace.size(), mark);
    } else {
      before += mark;
    }
  }
  return before + content;
}

}  // namespace ollama::chat
