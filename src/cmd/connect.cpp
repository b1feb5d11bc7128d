#include "cmd/connect.h"

namespace ollama::cmd {

Result<api::Client> connect(const envconfig::Config& config) {
  OLLAMA_ASSIGN(api::Client client, api::Client::create(config));
  if (const auto alive = client.heartbeat(); !alive) {
    if (alive.error().code() != ErrorCode::kUnavailable) return fail(alive);
    return std::unexpected(alive.error().with_context("ollama server not responding"));
  }
  return client;
}

Result<> unload_model(api::Client& client, const std::string& model) {
  api::ShowRequest show;
  show.model = model;
  OLLAMA_TRY(client.show(show));
  api::GenerateRequest request;
  request.model = model;
  request.keep_alive = api::Duration::zero();
  return client.generate(request, [](const api::GenerateResponse&) { return true; });
}

}  // namespace ollama::cmd
