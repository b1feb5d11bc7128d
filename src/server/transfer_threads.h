// A thread for each pull and push: they wait for networks, for hours, and must keep nobody waiting.
#pragma once

#include <atomic>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <stop_token>
#include <thread>

namespace ollama::server {

// For the server's loop only.
class TransferThreads {
 public:
  // Runs `work`, whose token is told when it is to end, on a thread of its own. What it refers to
  // it must own, or it must outlive this object. Nothing when there are too many already.
  std::optional<std::stop_source> start(std::function<void(const std::stop_token&)> work) {
    std::erase_if(threads_, [](const Thread& thread) { return thread.done->load(); });
    if (threads_.size() >= kMost) return std::nullopt;
    Thread& added = threads_.emplace_back();
    added.thread =
        std::jthread([work = std::move(work), done = added.done](const std::stop_token& stop) {
          work(stop);
          *done = true;
        });
    return added.thread.get_stop_source();
  }
  // Ends all of them and waits until they have.
  void join() {
    for (Thread& thread : threads_) thread.thread.request_stop();
    threads_.clear();
  }

 private:
  static constexpr std::size_t kMost = 64;
  struct Thread {
    std::shared_ptr<std::atomic<bool>> done = std::make_shared<std::atomic<bool>>(false);
    std::jthread thread;
  };
  std::list<Thread> threads_;
};

}  // namespace ollama::server
