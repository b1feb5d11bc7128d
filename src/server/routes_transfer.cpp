// Pulling and pushing: /api/pull, /api/push.
#include "server/services.h"
#include "store/transfer.h"

namespace ollama::server {
namespace {

using Method = Result<> (store::Transfers::*)(const api::TransferRequest&, const store::Progress&,
                                              const std::stop_token&);
using Event = std::variant<api::ProgressResponse, Result<>>;

Result<api::TransferRequest> parse_request(const Request& request) {
  if (request.body.find_first_not_of(" \t\r\n") == std::string::npos) {
    return fail(ErrorCode::kInvalidArgument, "missing request body");
  }
  OLLAMA_ASSIGN(const api::Json json, api::parse_json(request.body));
  OLLAMA_ASSIGN(api::TransferRequest parsed, api::parse_transfer_request(json));
  if (parsed.model.empty()) return fail(ErrorCode::kInvalidArgument, "model is required");
  if (!store::Name::parse(parsed.model)) {
    return fail(ErrorCode::kInvalidArgument, "invalid model name");
  }
  return parsed;
}

// Starts the transfer; its progress and, last, its result come to the box.
bool start(Services& services, Exchange& x, const api::TransferRequest& request, Method method,
           const std::shared_ptr<Mailbox<Event>>& box) {
  const auto& loop = services.blocking.loop();
  const auto stop = services.transfer_threads.start(
      [&transfers = services.transfers, request, method, box, loop](const std::stop_token& token) {
        const auto progress = [&](const api::ProgressResponse& response) {
          boost::asio::post(loop, [box, response] { box->push(response); });
          return true;
        };
        auto result = std::make_shared<Result<>>((transfers.*method)(request, progress, token));
        boost::asio::post(loop, [box, result] { box->push(std::move(*result)); });
      });
  if (!stop) return false;
  x.on_disconnect([source = *stop]() mutable { source.request_stop(); });
  return true;
}

// Ollama answers 500 whatever the reason is.
Task<> finish(Exchange& x, const Result<>& result, bool stream) {
  if (!x.started() && !result) {
    co_await x.respond_error(500, result.error().message());
  } else if (!stream) {
    api::ProgressResponse last;
    last.status = "success";
    co_await x.respond_json(200, api::to_json(last));
  } else {
    if (!x.started()) co_await x.begin_stream(kNdjson);
    if (!result) {
      const auto last = api::to_json(api::status_error(result.error()));
      co_await x.write(api::to_string(last) + "\n");
    }
    co_await x.end_stream();
  }
}

Task<> transfer(Services& services, Exchange& x, Method method) {
  const auto request = parse_request(x.request());
  if (!request) {
    co_await x.respond_error(request.error());
    co_return;
  }
  const auto box = std::make_shared<Mailbox<Event>>(services.blocking.loop());
  if (!start(services, x, *request, method, box)) {
    co_await x.respond_error(503, "too many models are being pulled and pushed; try again later");
    co_return;
  }
  const bool stream = request->streaming();
  while (true) {
    const Event event = co_await box->pop();
    if (const auto* result = std::get_if<Result<>>(&event)) {
      co_await finish(x, *result, stream);
      co_return;
    }
    if (!stream) continue;
    if (!x.started()) co_await x.begin_stream(kNdjson);
    co_await x.write(api::to_string(api::to_json(std::get<api::ProgressResponse>(event))) + "\n");
  }
}

}  // namespace

std::vector<Route> transfer_routes(Services& services) {
  const auto route = [&services](std::string pattern, Method method) {
    return Route{
        .method = "POST",
        .pattern = std::move(pattern),
        .handler = [&services, method](Exchange& x) { return transfer(services, x, method); }};
  };
  return {route("/api/pull", &store::Transfers::pull), route("/api/push", &store::Transfers::push)};
}

}  // namespace ollama::server
