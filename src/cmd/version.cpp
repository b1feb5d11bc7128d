#include <print>

#include "api/client.h"
#include "cmd/commands.h"

#ifndef OLLAMA_CPP_VERSION
#error "the build says the version"
#endif

namespace ollama::cmd {
namespace {

Result<int> version(const envconfig::Config& config) {
  OLLAMA_ASSIGN(api::Client client, api::Client::create(config));
  const auto server = client.version();
  if (server) {
    std::println("ollama version is {}", *server);
  } else {
    std::println("Warning: could not connect to a running Ollama instance");
  }
  if (!server || *server != api::kApiLevel)
    std::println("Warning: client version is {}", api::kApiLevel);
  std::println("ollama.cpp version is {}", OLLAMA_CPP_VERSION);
  return 0;
}

}  // namespace

Command version_command(const envconfig::Config& config) {
  return {.name = "version",
          .usage = "",
          .summary = "Show version information",
          .environment = {"OLLAMA_HOST"},
          .run = [&config](const Arguments&) { return version(config); }};
}

}  // namespace ollama::cmd
