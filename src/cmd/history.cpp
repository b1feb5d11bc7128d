#include "cmd/history.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <format>
#include <fstream>
#include <system_error>

#include "base/unique_fd.h"

namespace ollama::cmd {
namespace {

// Only the user may read what the user typed.
constexpr mode_t kMode = S_IRUSR | S_IWUSR;

bool write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(fd, text.data(), text.size());
    if (written <= 0) return false;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

}  // namespace

History::History(std::filesystem::path path) : path_(std::move(path)) {
  if (path_.empty()) return;
  std::ifstream file(path_);
  std::size_t lines = 0;
  for (std::string line; std::getline(file, line); ++lines) {
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty()) continue;
    entries_.push_back(std::move(line));
    if (entries_.size() > kLimit) entries_.pop_front();
  }
  file.close();
  if (lines > 2 * kLimit) rewrite();
}

bool History::add(std::string_view line) {
  if (!enabled_ || line.empty()) return false;
  if (!entries_.empty() && entries_.back() == line) return false;
  entries_.emplace_back(line);
  if (entries_.size() > kLimit) entries_.pop_front();
  append(line);
  return true;
}

void History::append(std::string_view line) const {
  if (path_.empty()) return;
  std::error_code ignored;
  std::filesystem::create_directories(path_.parent_path(), ignored);
  const UniqueFd file(::open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, kMode));
  // One write, so that lines of two programs do not mix.
  if (file) write_all(file.get(), std::string(line) + "\n");
}

void History::rewrite() const {
  const std::filesystem::path temporary = std::format("{}.{}", path_.string(), ::getpid());
  std::string text;
  for (const std::string& entry : entries_) text += entry + "\n";
  UniqueFd file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, kMode));
  if (!file) return;
  std::error_code ignored;
  const bool written = write_all(file.get(), text);
  file.reset();
  if (written) std::filesystem::rename(temporary, path_, ignored);
  if (!written || ignored) std::filesystem::remove(temporary, ignored);
}

}  // namespace ollama::cmd
