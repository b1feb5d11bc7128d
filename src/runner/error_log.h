// Internal to runner: what a child process writes to standard error.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

namespace ollama::runner {

// What GGML ends a process with whose remote device is gone.
inline constexpr std::string_view kRemoteLost = "Remote RPC server";

// Forwards it to the log line by line, and keeps the line that tells most, to be quoted when the
// process dies.
class ErrorLog {
 public:
  // `what` the process is, for the log: "runner".
  ErrorLog(std::string_view what, pid_t pid) : what_(what), pid_(pid) {}

  void add(std::string_view bytes);
  // Takes what came last for a whole line.
  void flush();
  const std::string& last() const { return last_; }

 private:
  bool is_telling(std::string_view line) const;

  std::string_view what_;
  pid_t pid_;
  std::string line_;
  std::string last_;
};

}  // namespace ollama::runner
