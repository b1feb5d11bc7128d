#include <cstdio>
#include <print>

#include "cmd/commands.h"
#include "cmd/connect.h"

namespace ollama::cmd {
namespace {

Result<int> remove(const envconfig::Config& config, const Arguments& arguments) {
  OLLAMA_ASSIGN(api::Client client, connect(config));
  for (const std::string& model : arguments.positional()) {
    // A model that is running is stopped first. One that is not there is delete's to tell.
    if (const auto stopped = unload_model(client, model);
        !stopped && stopped.error().code() != ErrorCode::kNotFound) {
      std::println(stderr, "Warning: unable to stop model '{}': {}", model,
                   stopped.error().message());
    }
    api::DeleteRequest request;
    request.model = model;
    OLLAMA_TRY(client.remove(request));
    std::println("deleted '{}'", model);
  }
  return 0;
}

}  // namespace

Command remove_command(const envconfig::Config& config) {
  return {.name = "rm",
          .usage = "MODEL [MODEL...]",
          .summary = "Remove a model",
          .min_arguments = 1,
          .max_arguments = Command::kAny,
          .environment = {"OLLAMA_HOST"},
          .run = [&config](const Arguments& arguments) { return remove(config, arguments); }};
}

}  // namespace ollama::cmd
