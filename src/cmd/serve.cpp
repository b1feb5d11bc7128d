#include "base/log.h"
#include "cmd/commands.h"
#include "server/server.h"

namespace ollama::cmd {

Command serve_command(const envconfig::Config& config) {
  return {.name = "serve",
          .usage = "",
          .summary = "Start ollama",
          .aliases = {"start"},
          .environment = {"*"},
          .run = [&config](const Arguments&) -> Result<int> {
            log::set_level(config.log_level);
            OLLAMA_TRY(server::serve(config));
            return 0;
          }};
}

}  // namespace ollama::cmd
