// Ctrl-C as a stop token: while an Interrupt exists, SIGINT requests a stop instead of ending the
// program. One at a time.
#pragma once

#include <csignal>
#include <stop_token>
#include <thread>

#include "base/unique_fd.h"

namespace ollama::cmd {

class Interrupt {
 public:
  Interrupt();
  ~Interrupt();  // gives the signal back to who had it
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  std::stop_token token() const { return source_.get_token(); }
  bool requested() const { return source_.stop_requested(); }

 private:
  std::stop_source source_;
  UniqueFd event_;
  struct sigaction previous_{};
  std::jthread watcher_;
};

}  // namespace ollama::cmd
