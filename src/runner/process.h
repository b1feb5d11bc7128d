// Starting a runner process and ending it. Nothing here waits, except where it says so.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/unique_fd.h"

namespace ollama::runner {

// The descriptor on which a child finds its socket.
inline constexpr int kChildSocket = 3;

struct Command {
  std::filesystem::path executable = "/proc/self/exe";
  std::vector<std::string> arguments;    // the whole argv, its first element too
  std::vector<std::string> environment;  // "NAME=value", complete
};

// `ollama runner --fd 3`, with runner_environment(0).
Command runner_command();

// The environment a runner starts with: this process's, without what would make GGML run foreign
// code (GGML_BACKEND_PATH), and with OpenMP set up for steps of a few milliseconds. What the user
// has set of OMP_* and GOMP_* stays. `threads`: of the runner's kernels; 0 leaves it to the runner.
std::vector<std::string> runner_environment(std::uint32_t threads);
std::vector<std::string> runner_environment(std::uint32_t threads,
                                            const std::vector<std::string>& base);

struct ExitStatus {
  int code = 0;    // of exit(), where signal is 0
  int signal = 0;  // that ended it
  // "exit status 1", "signal: killed", as people know it.
  std::string describe() const;
};

// A child process with a socket to it and a pipe from its standard error. Its standard input is
// empty, its standard output goes where its standard error goes; it inherits no other descriptor,
// is in a process group of its own (a Ctrl-C at the terminal is not for it) and dies with the
// thread that started it (see run_child).
class Process {
 public:
  // Errors: kIo. A program that cannot be executed shows as an error here.
  static Result<Process> start(const Command& command);
  // No process at all.
  static Process none() { return {}; }

  Process(Process&& other) noexcept { *this = std::move(other); }
  Process& operator=(Process&& other) noexcept;
  // Kills (SIGKILL) and reaps what is still running.
  ~Process();

  pid_t pid() const { return pid_; }
  // Readable when the process has ended.
  const UniqueFd& pidfd() const { return pidfd_; }
  UniqueFd& socket() { return socket_; }
  UniqueFd& errors() { return errors_; }

  void signal(int number) const;
  // Collects the exit status, once; nullopt while it runs.
  std::optional<ExitStatus> try_wait();

 private:
  Process() = default;
  void kill_and_reap();

  pid_t pid_ = -1;
  UniqueFd pidfd_;
  UniqueFd socket_;
  UniqueFd errors_;
  std::optional<ExitStatus> status_;
};

}  // namespace ollama::runner
