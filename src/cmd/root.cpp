#include <cstdio>
#include <print>

#include "cmd/commands.h"

namespace ollama::cmd {
namespace {

Command debug_command(const envconfig::Config& config) {
  Command command{.name = "debug", .usage = "", .summary = "Look inside models, without a server"};
  command.commands = {debug_devices_command(config),    debug_env_command(config),
                      debug_kernels_command(config),    debug_logits_command(config),
                      debug_make_model_command(config), debug_render_command(config),
                      debug_stats_command(config),      debug_tensors_command(config),
                      debug_tokenize_command(config)};
  return command;
}

}  // namespace

Command root_command(const envconfig::Config& config) {
  Command root{.name = "ollama",
               .usage = "",
               .summary = "Large language model runner",
               .flags = {{.name = "version", .letter = 'v', .help = "Show version information"}}};
  root.commands = {serve_command(config),
                   create_command(config),
                   show_command(config),
                   run_command(config),
                   stop_command(config),
                   pull_command(config),
                   push_command(config),
                   list_command(config),
                   ps_command(config),
                   copy_command(config),
                   remove_command(config),
                   bench_command(config),
                   debug_command(config),
                   rpc_command(config),
                   version_command(config),
                   runner_command(config),
                   convert_command(config),
                   cloud_command("signin", "Sign in to ollama.com"),
                   cloud_command("signout", "Sign out from ollama.com"),
                   cloud_command("launch", "Launch an integration"),
                   cloud_command("login", "Sign in to ollama.com"),
                   cloud_command("logout", "Sign out from ollama.com")};
  root.run = [&config](const Arguments& arguments) -> Result<int> {
    if (arguments.boolean("version")) {
      return version_command(config).run(arguments);
    }
    std::print("{}", help_text(root_command(config), "ollama", {}));
    return 0;
  };
  return root;
}

}  // namespace ollama::cmd
