// Work that takes minutes and tells how far it is, between the thread that does it and the client
// that waits for it: making, pulling and pushing models.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <functional>
#include <stop_token>
#include <variant>

#include "server/http.h"
#include "server/mailbox.h"
#include "store/store.h"

namespace ollama::server {

// Shared by the thread and the client's coroutine: either may be done first.
class LongWork {
 public:
  using Function = std::function<Result<>(const store::Progress&, const std::stop_token&)>;

  // What `work` refers to it must own, or it must outlive the thread.
  LongWork(const boost::asio::any_io_executor& loop, Function work)
      : loop_(loop), work_(std::move(work)), events_(loop) {}

  // Does it, on a thread that may wait; not where nobody wants it any more.
  static void run(const std::shared_ptr<LongWork>& self);
  // Answers with its progress, a line each, and its result; not streamed, with the result alone.
  // When the client leaves, the work is told to stop.
  Task<> tell(Exchange& x, bool stream);
  const std::stop_source& stop() const { return stop_; }

 private:
  Result<> result(const store::Progress& progress) const;

  boost::asio::any_io_executor loop_;
  Function work_;
  std::stop_source stop_;
  Mailbox<std::variant<api::ProgressResponse, Result<>>> events_;
};

}  // namespace ollama::server
