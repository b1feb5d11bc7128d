#include "cmd/interrupt.h"

#include <sys/eventfd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>

namespace ollama::cmd {
namespace {

// A signal handler reaches nothing but globals.
std::atomic<int> signal_event = -1;
static_assert(std::atomic<int>::is_always_lock_free);

constexpr std::uint64_t kSignalled = 1;
constexpr std::uint64_t kFinished = std::uint64_t{1} << 32U;

void notify(int fd, std::uint64_t what) {
  while (::write(fd, &what, sizeof what) < 0 && errno == EINTR) {
  }
}

void on_signal(int /*number*/) {
  const int saved = errno;
  if (const int fd = signal_event.load(); fd >= 0) notify(fd, kSignalled);
  errno = saved;
}

}  // namespace

Interrupt::Interrupt() : event_(::eventfd(0, EFD_CLOEXEC)) {
  signal_event = event_.get();
  struct sigaction action{};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGINT, &action, &previous_);
  // Stop callbacks may lock and allocate, which a handler must not: another thread runs them.
  watcher_ = std::jthread([this] {
    std::uint64_t what = 0;
    while (what < kFinished) {
      if (::read(event_.get(), &what, sizeof what) < 0) {
        if (errno == EINTR) continue;
        return;
      }
      if (what % kFinished != 0) source_.request_stop();
    }
  });
}

Interrupt::~Interrupt() {
  ::sigaction(SIGINT, &previous_, nullptr);
  signal_event = -1;
  notify(event_.get(), kFinished);
  watcher_.join();
}

}  // namespace ollama::cmd
