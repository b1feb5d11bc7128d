// `ollama rpc`: lends this machine's devices to a server on another one.
#include <print>

#include "base/log.h"
#include "cmd/commands.h"
#include "cmd/in_process.h"
#include "ml/rpc_server.h"

namespace ollama::cmd {
namespace {

Result<int> rpc(const envconfig::Config& config, const Arguments& arguments) {
  log::set_level(config.log_level);
  prepare_in_process(0);
  OLLAMA_TRY(ml::serve_rpc(arguments.text("listen"), ml::device_options_of(config)));
  return 0;
}

}  // namespace

Command rpc_command(const envconfig::Config& config) {
  return {.name = "rpc",
          .usage = "[--listen HOST:PORT]",
          .summary =
              "Lend this machine's devices to a server elsewhere, which names this one in "
              "OLLAMA_RPC_SERVERS",
          .flags = {{.name = "listen",
                     .kind = FlagKind::kString,
                     .help = "Address to listen on; whoever reaches it may use the devices, "
                             "without a password",
                     .fallback = "127.0.0.1:50052"}},
          .environment = {"CUDA_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES",
                          "OLLAMA_DEBUG", "OLLAMA_LLM_LIBRARY", "OLLAMA_VULKAN"},
          .run = [&config](const Arguments& arguments) { return rpc(config, arguments); }};
}

}  // namespace ollama::cmd
