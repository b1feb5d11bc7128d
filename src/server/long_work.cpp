#include "server/long_work.h"

#include <boost/asio/post.hpp>
#include <exception>

namespace ollama::server {

Result<> LongWork::result(const store::Progress& progress) const {
  if (stop_.stop_requested()) return fail(ErrorCode::kCancelled, "nobody waits for it");
  try {
    return work_(progress, stop_.get_token());
  } catch (const std::exception& exception) {
    return fail(ErrorCode::kInternal, "{}", exception.what());
  }
}

void LongWork::run(const std::shared_ptr<LongWork>& self) {
  auto result = self->result([&self](const api::ProgressResponse& progress) {
    boost::asio::post(self->loop_, [self, progress] { self->events_.push(progress); });
    return !self->stop_.stop_requested();
  });
  auto last = std::make_shared<Result<>>(std::move(result));
  boost::asio::post(self->loop_, [self, last] { self->events_.push(std::move(*last)); });
}

Task<> LongWork::tell(Exchange& x, bool stream) {
  x.on_disconnect([stop = stop_]() mutable { stop.request_stop(); });
  while (true) {
    const auto event = co_await events_.pop();
    if (const auto* progress = std::get_if<api::ProgressResponse>(&event)) {
      if (!stream) continue;
      if (!x.started()) co_await x.begin_stream(kNdjson);
      co_await x.write(api::to_string(api::to_json(*progress)) + "\n");
      continue;
    }
    const auto& result = std::get<Result<>>(event);
    if (!result && !x.started()) {
      co_await x.respond_error(result.error());
    } else if (!stream) {
      api::ProgressResponse last;
      last.status = "success";
      co_await x.respond_json(200, api::to_json(last));
    } else {
      // The store has streamed its own "success".
      if (!x.started()) co_await x.begin_stream(kNdjson);
      if (!result) {
        const auto last = api::to_json(api::status_error(result.error()));
        co_await x.write(api::to_string(last) + "\n");
      }
      co_await x.end_stream();
    }
    co_return;
  }
}

}  // namespace ollama::server
