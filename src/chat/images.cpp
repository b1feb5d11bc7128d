#include "chat/images.h"

#include <format>
#include <string_view>

namespace ollama::chat {

std::string image_mark(std::size_t number) { return std::format("[img-{}]", number); }

std::string content_with_marks(const api::Message& message, std::size_t& images) {
  constexpr std::string_view kPlace = "[img]";
  std::string before;
  std::string content;
  std::string_view rest = message.content;
  bool places = true;
  for (std::size_t i = 0; i < message.images.size(); ++i) {
    const std::string mark = image_mark(images++);
    const std::size_t at = places ? rest.find(kPlace) : std::string_view::npos;
    places = at != std::string_view::npos;
    if (places) {
      content.append(rest, 0, at).append(mark);
      rest.remove_prefix(at + kPlace.size());
    } else {
      before += mark;
    }
  }
  return before.append(content).append(rest);
}

}  // namespace ollama::chat
