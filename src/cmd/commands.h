// The commands of the executable: each is declared in a file of its own.
#pragma once

#include "cmd/command.h"
#include "envconfig/config.h"

namespace ollama::cmd {

// `config` must outlive the commands.
Command serve_command(const envconfig::Config& config);
Command create_command(const envconfig::Config& config);
Command show_command(const envconfig::Config& config);
Command run_command(const envconfig::Config& config);
Command stop_command(const envconfig::Config& config);
Command pull_command(const envconfig::Config& config);
Command push_command(const envconfig::Config& config);
Command list_command(const envconfig::Config& config);
Command ps_command(const envconfig::Config& config);
Command copy_command(const envconfig::Config& config);
Command remove_command(const envconfig::Config& config);
Command version_command(const envconfig::Config& config);

// In-process, without a server.
Command bench_command(const envconfig::Config& config);
Command debug_devices_command(const envconfig::Config& config);
Command debug_env_command(const envconfig::Config& config);
Command debug_kernels_command(const envconfig::Config& config);
Command debug_logits_command(const envconfig::Config& config);
Command debug_make_model_command(const envconfig::Config& config);
Command debug_render_command(const envconfig::Config& config);
Command debug_stats_command(const envconfig::Config& config);
Command debug_tensors_command(const envconfig::Config& config);
Command debug_tokenize_command(const envconfig::Config& config);

// `ollama rpc`: this machine's devices for a server elsewhere.
Command rpc_command(const envconfig::Config& config);
// `ollama runner`: what a server starts for each model.
Command runner_command(const envconfig::Config& config);
// `ollama convert`: what a server starts to make a model file.
Command convert_command(const envconfig::Config& config);
// Hidden: this program as a child of itself, which `serve` tells what to do on the socket --fd.
Command child_command(const envconfig::Config& config, std::string name, std::string summary,
                      int (*serve)(int fd));

// `name` belongs to Ollama's cloud, which is not part of this program: it says so.
Command cloud_command(std::string name, std::string summary);

// The executable's root: all of them.
Command root_command(const envconfig::Config& config);

}  // namespace ollama::cmd
