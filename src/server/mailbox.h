// Where a coroutine waits for what callbacks bring. For one loop: push and pop are not thread-safe.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <deque>
#include <utility>

namespace ollama::server {

template <typename T>
class Mailbox {
 public:
  explicit Mailbox(const boost::asio::any_io_executor& executor)
      : wake_(executor, boost::asio::steady_timer::time_point::max()) {}

  void push(T item) {
    items_.push_back(std::move(item));
    wake_.cancel();
  }
  bool empty() const { return items_.empty(); }
  // The oldest item; waits for it. One waiter at a time.
  boost::asio::awaitable<T> pop() {
    while (items_.empty()) {
      co_await wake_.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
    }
    T item = std::move(items_.front());
    items_.pop_front();
    co_return item;
  }

 private:
  std::deque<T> items_;
  boost::asio::steady_timer wake_;
};

}  // namespace ollama::server
