#include "cmd/commands.h"
#include "cmd/connect.h"
#include "cmd/progress.h"

namespace ollama::cmd {
namespace {

Result<int> stop(const envconfig::Config& config, const Arguments& arguments) {
  OLLAMA_ASSIGN(api::Client client, connect(config));
  Progress spinner(Progress::Style::kQuiet);
  spinner.status("");
  const auto unloaded = unload_model(client, arguments[0]);
  spinner.stop_and_clear();
  if (unloaded) return 0;
  if (unloaded.error().code() != ErrorCode::kNotFound) return fail(unloaded);
  return fail(ErrorCode::kNotFound, "couldn't find model \"{}\" to stop", arguments[0]);
}

}  // namespace

Command stop_command(const envconfig::Config& config) {
  return {.name = "stop",
          .usage = "MODEL",
          .summary = "Stop a running model",
          .min_arguments = 1,
          .max_arguments = 1,
          .environment = {"OLLAMA_HOST"},
          .run = [&config](const Arguments& arguments) { return stop(config, arguments); }};
}

}  // namespace ollama::cmd
