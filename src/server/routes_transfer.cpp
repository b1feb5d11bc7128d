// Pulling and pushing: /api/pull, /api/push.
#include "server/inference.h"
#include "server/long_work.h"
#include "store/transfer.h"

namespace ollama::server {
namespace {

using Method = Result<> (store::Transfers::*)(const api::TransferRequest&, const store::Progress&,
                                              const std::stop_token&);

Result<api::TransferRequest> parse_transfer(const api::Json& json) {
  OLLAMA_ASSIGN(api::TransferRequest parsed, api::parse_transfer_request(json));
  if (parsed.model.empty()) return fail(ErrorCode::kInvalidArgument, "model is required");
  if (!store::Name::parse(parsed.model)) {
    return fail(ErrorCode::kInvalidArgument, "invalid model name");
  }
  return parsed;
}

Task<> transfer(Services& services, Exchange& x, Method method) {
  const auto request = co_await parse_body(services, x.request(), parse_transfer);
  if (!request) {
    co_await x.respond_error(request.error());
    co_return;
  }
  const auto work = std::make_shared<LongWork>(
      services.blocking.loop(), [&transfers = services.transfers, request = *request, method](
                                    const store::Progress& progress, const std::stop_token& stop) {
        return (transfers.*method)(request, progress, stop);
      });
  if (!services.transfer_threads.start(work->stop(), [work] { LongWork::run(work); })) {
    co_await x.respond_error(503, "too many models are being pulled and pushed; try again later");
    co_return;
  }
  co_await work->tell(x, request->streaming());
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
