#include "ml/rpc_server.h"

#include <ggml-rpc.h>

#include <arpa/inet.h>
#include <sys/socket.h>

#include <csignal>

#include "base/log.h"
#include "base/unique_fd.h"
#include "base/units.h"
#include "ml/ggml/devices.h"
#include "ml/ggml/endpoint.h"
#include "ml/ggml/library.h"
#include "ml/thread_count.h"

namespace ollama::ml {
namespace {

// GGML's server wants a numeric address, and ends the process where it cannot listen.
Result<std::string> listenable(const std::string& address) {
  OLLAMA_ASSIGN(const sockaddr_in wanted, ggml::resolve_endpoint(address));
  const UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int yes = 1;
  ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&wanted), sizeof(wanted)) != 0) {
    return fail_errno(std::format("cannot listen on {}", address), errno);
  }
  char text[INET_ADDRSTRLEN] = {};
  inet_ntop(AF_INET, &wanted.sin_addr, text, sizeof(text));
  return std::format("{}:{}", text, ntohs(wanted.sin_port));
}

}  // namespace

Result<> serve_rpc(const std::string& address, const DeviceOptions& options) {
  OLLAMA_ASSIGN(const std::string endpoint, listenable(address));
  auto* start = ggml::library_function<decltype(ggml_backend_rpc_start_server)>(
      "rpc", "ggml_backend_rpc_start_server");
  if (start == nullptr) {
    return fail(ErrorCode::kUnsupported,
                "GGML's RPC backend is not installed (on Debian: libggml0-backend-rpc)");
  }
  DeviceOptions own = options;
  own.rpc_servers.clear();  // others' devices are theirs to lend
  OLLAMA_ASSIGN(const std::vector<Device> devices, list_devices(own));
  std::vector<ggml_backend_dev_t> lent;
  for (const Device& device : devices) {
    if (!device.is_gpu() && !lent.empty()) continue;
    OLLAMA_ASSIGN(ggml_backend_dev_t handle,
                  device.is_gpu() ? ggml::find_gpu(device.name) : ggml::cpu_device());
    lent.push_back(handle);
    log::info("lending {} ({}), {} free", device.name, device.description,
              human_bytes_binary(device.free_bytes));
    if (!device.is_gpu()) {
      log::warn(
          "GGML tells programs elsewhere that all of this machine's {} are free: they may "
          "take more than there is",
          human_bytes_binary(device.total_bytes));
    }
  }
  if (!endpoint.starts_with("127.")) {
    log::warn("whoever reaches {} may use these devices: there is no password", endpoint);
  }
  // GGML answers on connections that their clients have left.
  std::signal(SIGPIPE, SIG_IGN);
  log::info("listening on {}", endpoint);
  start(endpoint.c_str(), /*cache_dir=*/nullptr, CpuTopology::read().usable(), lent.size(),
        lent.data());
  return {};
}

}  // namespace ollama::ml
