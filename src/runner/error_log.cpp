#include "runner/error_log.h"

#include <unistd.h>

#include "base/log.h"

namespace ollama::runner {
namespace {

constexpr std::size_t kLongestLine = 4096;

}  // namespace

void ErrorLog::add(std::string_view bytes) {
  for (const char c : bytes) {
    if (c == '\n' || line_.size() >= kLongestLine) flush();
    if (c != '\n' && c != '\r') line_.push_back(c);
  }
}

void ErrorLog::flush() {
  if (line_.empty()) return;
  // Lines of our own logger are complete as they are.
  if (line_.starts_with("time=")) {
    std::string text = line_ + "\n";
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text.data(), text.size());
  } else {
    log::info("{} {}: {}", what_, pid_, line_);
  }
  if (is_telling(line_)) last_ = line_;
  line_.clear();
}

// A debugger's or backtrace's lines after an abort say less than the line that caused them.
bool ErrorLog::is_telling(std::string_view line) const {
  if (line.starts_with("time=") && !line.contains("level=ERROR")) return false;
  const auto tells = [](std::string_view text) {
    return text.contains("GGML_ASSERT") || text.contains("error") || text.contains(kRemoteLost);
  };
  return !tells(last_) || tells(line);
}

}  // namespace ollama::runner
