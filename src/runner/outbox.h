// Messages on their way to the server.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "runner/protocol.h"

namespace ollama::runner {

// Encodes and writes messages on a thread of its own, in the order that they were given, so that an
// engine's thread, with a piece for each token, does neither.
class Outbox {
 public:
  // Given but not taken for writing: beyond this, answers are cancelled instead of kept.
  static constexpr std::size_t kMaxUnsent = 64ULL << 20;

  // `fd`: a socket, which stays the caller's.
  explicit Outbox(int fd, std::size_t max_unsent = kMaxUnsent);
  Outbox(const Outbox&) = delete;
  Outbox& operator=(const Outbox&) = delete;
  ~Outbox();  // writes what is left

  // From any thread. False when the server reads too slowly: the message was dropped, unless it
  // must be sent.
  bool send(FromRunner message, bool must = true);

 private:
  void run();
  bool write(std::span<const FromRunner> messages);

  int fd_;
  std::size_t max_unsent_;
  std::string bytes_;  // the writing thread's
  std::mutex mutex_;   // guards what follows
  std::condition_variable wake_;
  std::vector<FromRunner> waiting_;
  std::size_t waiting_bytes_ = 0;  // nearly
  bool closing_ = false;
  bool broken_ = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace ollama::runner
