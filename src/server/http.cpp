#include "server/http.h"

#include "api/anthropic.h"
#include "api/openai.h"

namespace ollama::server {

bool is_anthropic(const Request& request) {
  return request.path.starts_with("/v1/messages") ||
         (request.path.starts_with("/v1/models") && !request.header("anthropic-version").empty());
}

Task<> Exchange::respond_json(int status, const api::JsonObject& json) {
  co_await respond(status, kJson, api::to_string(json));
}

Task<> Exchange::respond_error(int status, std::string_view message) {
  const api::StatusError error{.status = status, .message = std::string(message)};
  const Request& asked = request();
  if (is_anthropic(asked)) {
    co_await respond_json(status, api::anthropic::error_json(error, asked.id));
  } else if (asked.path.starts_with("/v1/")) {
    co_await respond_json(status, api::openai::error_json(error));
  } else {
    co_await respond_json(status, api::to_json(error));
  }
}

Task<> Exchange::respond_error(const Error& error) {
  const api::StatusError status = api::status_error(error);
  co_await respond_error(status.status, status.message);
}

}  // namespace ollama::server
