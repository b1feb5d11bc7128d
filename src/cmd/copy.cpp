#include <print>

#include "cmd/commands.h"
#include "cmd/connect.h"

namespace ollama::cmd {
namespace {

Result<int> copy(const envconfig::Config& config, const Arguments& arguments) {
  OLLAMA_ASSIGN(api::Client client, connect(config));
  api::CopyRequest request;
  request.source = arguments[0];
  request.destination = arguments[1];
  OLLAMA_TRY(client.copy(request));
  std::println("copied '{}' to '{}'", arguments[0], arguments[1]);
  return 0;
}

}  // namespace

Command copy_command(const envconfig::Config& config) {
  return {.name = "cp",
          .usage = "SOURCE DESTINATION",
          .summary = "Copy a model",
          .min_arguments = 2,
          .max_arguments = 2,
          .environment = {"OLLAMA_HOST"},
          .run = [&config](const Arguments& arguments) { return copy(config, arguments); }};
}

}  // namespace ollama::cmd
