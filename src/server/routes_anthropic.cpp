// Anthropic's API: /v1/messages.
#include "api/anthropic.h"
#include "server/inference.h"

namespace ollama::server {
namespace {

class Anthropic {
 public:
  Anthropic(Services& services, Inference& inference)
      : services_(services), inference_(inference) {}

  Task<> messages(Exchange& x) {
    auto chat = co_await parse_body(services_, x.request(), api::anthropic::parse_messages);
    if (!chat) {
      co_await x.respond_error(chat.error());
    } else {
      co_await inference_.chat(x, std::move(*chat));
    }
  }

  Task<> count_tokens(Exchange& x) {
    const auto request =
        co_await parse_body(services_, x.request(), api::anthropic::parse_count_tokens);
    if (!request) {
      co_await x.respond_error(request.error());
      co_return;
    }
    const auto tokens = co_await inference_.count_tokens(x, *request);
    if (tokens) co_await x.respond_json(200, {{"input_tokens", *tokens}});
  }

 private:
  Services& services_;
  Inference& inference_;
};

}  // namespace

std::vector<Route> anthropic_routes(Services& services, Inference& inference) {
  const auto self = std::make_shared<Anthropic>(services, inference);
  const auto route = [&](std::string pattern, Task<> (Anthropic::*handler)(Exchange&)) {
    return Route{.method = "POST",
                 .pattern = std::move(pattern),
                 .handler = [self, handler](Exchange& x) { return (*self.*handler)(x); }};
  };
  return {route("/v1/messages", &Anthropic::messages),
          route("/v1/messages/count_tokens", &Anthropic::count_tokens)};
}

}  // namespace ollama::server
