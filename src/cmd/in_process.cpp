#include "cmd/in_process.h"

#include <unistd.h>

#include <cstdlib>
#include <format>
#include <fstream>
#include <string>
#include <vector>

#include "base/log.h"
#include "runner/process.h"

namespace ollama::cmd {
namespace {

// Set in the second program, so that it does not start a third.
constexpr const char* kGuard = "OLLAMA_IN_PROCESS";

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (std::string& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

}  // namespace

void prepare_in_process(std::uint32_t threads) {
  if (std::getenv(kGuard) != nullptr) {
    ::unsetenv(kGuard);
    return;
  }
  std::vector<std::string> arguments;
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  for (std::string argument; std::getline(file, argument, '\0');) arguments.push_back(argument);
  std::vector<std::string> environment = runner::runner_environment(threads);
  environment.push_back(std::format("{}=1", kGuard));
  if (!arguments.empty()) {
    ::execve("/proc/self/exe", pointers(arguments).data(), pointers(environment).data());
  }
  log::debug("cannot start again with OpenMP set up; results may be slower");
}

}  // namespace ollama::cmd
