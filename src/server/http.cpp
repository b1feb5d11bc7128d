#include "server/http.h"

#include "api/anthropic.h"
#include "api/openai.h"

namespace ollama::server {
namespace {

api::JsonObject error_json(std::string_view path, const api::StatusError& error) {
  if (path.starts_with("/v1/messages")) return api::anthropic::error_json(error);
  if (path.starts_with("/v1/")) return api::openai::error_json(error);
  return api::to_json(error);
}

}  // namespace

Task<> Exchange::respond_json(int status, const api::JsonObject& json) {
  co_await respond(status, kJson, api::to_string(json));
}

Task<> Exchange::respond_error(int status, std::string_view message) {
  co_await respond(
      status, kJson,
      api::to_string(error_json(
          request().path, api::StatusError{.status = status, .message = std::string(message)})));
}

Task<> Exchange::respond_error(const Error& error) {
  const api::StatusError status = api::status_error(error);
  co_await respond_error(status.status, status.message);
}

}  // namespace ollama::server
