#include "base/log.h"
#include "cmd/commands.h"
#include "runner/conversion.h"

namespace ollama::cmd {

Command convert_command(const envconfig::Config& config) {
  return {.name = "convert",
          .usage = "--fd N",
          .summary = "Convert or quantise one model for the program that started this one",
          .flags = {{.name = "fd",
                     .kind = FlagKind::kInt,
                     .help = "The socket to that program",
                     .fallback = "3"}},
          .hidden = true,
          .run = [&config](const Arguments& arguments) -> Result<int> {
            log::set_level(config.log_level);
            return runner::run_conversion(static_cast<int>(arguments.number("fd")));
          }};
}

}  // namespace ollama::cmd
