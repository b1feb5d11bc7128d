#include <fcntl.h>
#include <sys/prctl.h>

#include <csignal>

#include "runner/child.h"

namespace ollama::runner {

int run_child(int fd) {
  // Should the server be killed, nobody else would end this process while it computes. The server
  // starts runners from a thread that lives as long as itself, which is what the kernel watches.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  std::signal(SIGPIPE, SIG_IGN);
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  return serve_requests(fd, [](const auto& path, const auto& options, const auto& progress) {
    return engine::Engine::load(path, options, progress);
  });
}

}  // namespace ollama::runner
