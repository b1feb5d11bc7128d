#include <print>

#include "api/types.h"
#include "cmd/commands.h"

namespace ollama::cmd {
namespace {

Result<int> debug_env(const envconfig::Config& config, const Arguments& arguments) {
  if (arguments.boolean("json")) {
    api::JsonObject object;
    for (const auto& [name, value] : config.values()) object[name] = value;
    std::println("{}", api::to_string(object));
    return 0;
  }
  for (const auto& [name, value] : config.values()) std::println("{}={}", name, value);
  for (const std::string& warning : config.warnings) std::println("# {}", warning);
  return 0;
}

}  // namespace

Command debug_env_command(const envconfig::Config& config) {
  return {.name = "env",
          .usage = "",
          .summary = "Print every environment variable's effective value",
          .flags = {{.name = "json", .help = "Print a JSON object"}},
          .run = [&config](const Arguments& arguments) { return debug_env(config, arguments); }};
}

}  // namespace ollama::cmd
