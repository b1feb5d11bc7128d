// A thread for each pull and push: they wait for networks, for hours, and must keep nobody waiting.
#pragma once

#include <atomic>
#include <functional>
#include <list>
#include <memory>
#include <stop_token>
#include <thread>

#include "base/log.h"

namespace ollama::server {

// Work for a thread where nobody waits for what it throws, which would end the server.
inline std::function<void()> guarded(std::function<void()> work) {
  return [work = std::move(work)] {
    try {
      work();
    } catch (const std::exception& exception) {
      log::error("work on a thread: {}", exception.what());
    }
  };
}

// For the server's loop only.
class TransferThreads {
 public:
  // Runs `work`, which ends soon after a stop is requested, on a thread of its own. What it refers
  // to it must own, or it must outlive this object. False when there are too many already.
  bool start(std::stop_source stop, std::function<void()> work) {
    std::erase_if(threads_, [](const Thread& thread) { return thread.done->load(); });
    if (threads_.size() >= kMost) return false;
    Thread& added = threads_.emplace_back();
    added.stop = std::move(stop);
    added.thread = std::jthread([work = guarded(std::move(work)), done = added.done] {
      work();
      *done = true;
    });
    return true;
  }
  // Ends all of them and waits until they have.
  void join() {
    for (Thread& thread : threads_) thread.stop.request_stop();
    threads_.clear();
  }

 private:
  static constexpr std::size_t kMost = 64;
  struct Thread {
    std::shared_ptr<std::atomic<bool>> done = std::make_shared<std::atomic<bool>>(false);
    std::stop_source stop;
    std::jthread thread;
  };
  std::list<Thread> threads_;
};

}  // namespace ollama::server
