// The lines typed at the prompt, kept in a file: one a line, oldest first, as Ollama keeps them.
#pragma once

#include <cstddef>
#include <deque>
#include <filesystem>
#include <string>
#include <string_view>

namespace ollama::cmd {

class History {
 public:
  static constexpr std::size_t kLimit = 1000;

  // Nothing is read or written when `path` is empty. A file that cannot be read or written is not
  // worth an error: there is then just less history.
  explicit History(std::filesystem::path path);

  const std::deque<std::string>& entries() const { return entries_; }
  // Adds a line unless it is empty, the same as the one before, or history is off.
  bool add(std::string_view line);

  void enable(bool enabled) { enabled_ = enabled; }
  bool enabled() const { return enabled_; }

 private:
  void append(std::string_view line) const;
  void rewrite() const;

  std::filesystem::path path_;
  std::deque<std::string> entries_;
  bool enabled_ = true;
};

}  // namespace ollama::cmd
