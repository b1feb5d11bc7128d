#include "chat/render_options.h"

#include <ctime>

namespace ollama::chat {

std::chrono::local_seconds local_now() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  ::localtime_r(&now, &local);
  return std::chrono::local_seconds(std::chrono::seconds(now + local.tm_gmtoff));
}

}  // namespace ollama::chat
