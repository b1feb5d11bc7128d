// The executable `ollama`.
#include <cstdio>
#include <format>
#include <print>
#include <span>
#include <string>
#include <vector>

#include "base/log.h"
#include "cmd/command.h"
#include "cmd/commands.h"
#include "envconfig/config.h"

namespace {

using namespace ollama;

// The section of --help about a command's environment variables.
std::string environment_help(const cmd::Command& command) {
  if (command.environment.empty()) return {};
  if (command.environment.front() == "*") return envconfig::help_text();
  std::string text = "Environment Variables:\n";
  for (const std::string& name : command.environment) {
    for (const envconfig::Variable& variable : envconfig::variables()) {
      if (variable.name == name) {
        text += std::format("      {:<24}   {}\n", name, variable.description);
      }
    }
  }
  return text;
}

int fail_with(const Error& error) {
  std::fflush(stdout);
  std::println(stderr, "Error: {}", error.message());
  return 1;
}

int execute(std::span<const std::string> arguments) {
  const envconfig::Config config = envconfig::Config::load();
  // Commands talk to people: what is only for the log of a server stays out of it.
  log::set_level(config.log_level == log::Level::kInfo ? log::Level::kWarn : config.log_level);
  const cmd::Command root = cmd::root_command(config);
  const auto invocation = cmd::parse(root, arguments);
  if (!invocation) return fail_with(invocation.error());
  const cmd::Command& command = *invocation->command;
  if (invocation->help || !command.run) {
    std::print("{}", cmd::help_text(command, invocation->path, environment_help(command)));
    return 0;
  }
  const auto status = command.run(invocation->arguments);
  if (!status) return fail_with(status.error());
  return *status;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + (argc > 0 ? 1 : 0), argv + argc);
  try {
    return execute(arguments);
  } catch (const std::exception& error) {
    // Nothing throws on purpose: what gets here is a bug, or memory has run out.
    std::println(stderr, "Error: {}", error.what());
    return 1;
  }
}
