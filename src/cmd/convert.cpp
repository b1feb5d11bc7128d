#include "cmd/commands.h"
#include "runner/conversion.h"

namespace ollama::cmd {

Command convert_command(const envconfig::Config& config) {
  return child_command(config, "convert",
                       "Convert or quantise one model for the program that started this one",
                       runner::run_conversion);
}

}  // namespace ollama::cmd
