#include "runner/child.h"

#include "base/log.h"
#include "cmd/commands.h"

namespace ollama::cmd {

Command child_command(const envconfig::Config& config, std::string name, std::string summary,
                      int (*serve)(int fd)) {
  return {.name = std::move(name),
          .usage = "--fd N",
          .summary = std::move(summary),
          .flags = {{.name = "fd",
                     .kind = FlagKind::kInt,
                     .help = "The socket to that program",
                     .fallback = "3"}},
          .hidden = true,
          .run = [&config, serve](const Arguments& arguments) -> Result<int> {
            log::set_level(config.log_level);
            return serve(static_cast<int>(arguments.number("fd")));
          }};
}

Command runner_command(const envconfig::Config& config) {
  return child_command(config, "runner",
                       "Serve one loaded model to the program that started this one",
                       runner::run_child);
}

}  // namespace ollama::cmd
