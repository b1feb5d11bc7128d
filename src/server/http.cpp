#include "server/http.h"

namespace ollama::server {

Task<> Exchange::respond_json(int status, const api::JsonObject& json) {
  co_await respond(status, kJson, api::to_string(json));
}

Task<> Exchange::respond_error(int status, std::string_view message) {
  co_await respond(status, kJson,
                   api::to_string(api::to_json(
                       api::StatusError{.status = status, .message = std::string(message)})));
}

Task<> Exchange::respond_error(const Error& error) {
  const api::StatusError status = api::status_error(error);
  co_await respond_error(status.status, status.message);
}

}  // namespace ollama::server
