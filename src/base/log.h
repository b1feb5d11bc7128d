// Logging to standard error, one line an entry, in the form that Ollama's logs have:
//   time=2026-11-23T09:30:00.000Z level=INFO msg="..."
// Thread-safe. Not for hot paths.
#pragma once

#include <format>
#include <string_view>
#include <utility>

namespace ollama::log {

enum class Level { kTrace, kDebug, kInfo, kWarn, kError, kOff };

// The lowest level that is written; kInfo until it is set.
void set_level(Level level);
Level level();
void write(Level level, std::string_view message);

template <typename... Args>
void debug(std::format_string<Args...> format, Args&&... args) {
  if (level() <= Level::kDebug)
    write(Level::kDebug, std::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void info(std::format_string<Args...> format, Args&&... args) {
  if (level() <= Level::kInfo)
    write(Level::kInfo, std::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void warn(std::format_string<Args...> format, Args&&... args) {
  if (level() <= Level::kWarn)
    write(Level::kWarn, std::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void error(std::format_string<Args...> format, Args&&... args) {
  if (level() <= Level::kError)
    write(Level::kError, std::format(format, std::forward<Args>(args)...));
}

}  // namespace ollama::log
