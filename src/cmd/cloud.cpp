#include "cmd/commands.h"

namespace ollama::cmd {

Command cloud_command(std::string name, std::string summary) {
  return {.name = name,
          .usage = "",
          .summary = std::move(summary),
          .max_arguments = Command::kAny,
          .hidden = true,
          .run = [name](const Arguments&) -> Result<int> {
            return fail(ErrorCode::kUnsupported,
                        "'{}' belongs to Ollama's cloud service, which this program does not use: "
                        "models run on this machine only",
                        name);
          }};
}

}  // namespace ollama::cmd
