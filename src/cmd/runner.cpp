#include "base/log.h"
#include "cmd/commands.h"
#include "runner/child.h"

namespace ollama::cmd {

Command runner_command(const envconfig::Config& config) {
  return {.name = "runner",
          .usage = "--fd N",
          .summary = "Serve one loaded model to the program that started this one",
          .flags = {{.name = "fd",
                     .kind = FlagKind::kInt,
                     .help = "The socket to that program",
                     .fallback = "3"}},
          .hidden = true,
          .run = [&config](const Arguments& arguments) -> Result<int> {
            log::set_level(config.log_level);
            return runner::run_child(static_cast<int>(arguments.number("fd")));
          }};
}

}  // namespace ollama::cmd
