#include "ml/rpc_server.h"

#include <ggml-rpc.h>

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>

#include <csignal>
#include <memory>

#include "base/log.h"
#include "base/unique_fd.h"
#include "base/units.h"
#include "ml/ggml/devices.h"
#include "ml/ggml/library.h"
#include "ml/thread_count.h"

namespace ollama::ml {
namespace {

// GGML's server wants a numeric address, and ends the process where it cannot listen.
Result<std::string> listenable(const std::string& address) {
  const std::size_t colon = address.rfind(':');
  const auto port = colon == std::string::npos
                        ? std::nullopt
                        : parse_number<std::uint16_t>(std::string_view(address).substr(colon + 1));
  if (!port || *port == 0 || colon == 0) {
    return fail(ErrorCode::kInvalidArgument, "'{}' is no address to listen on: give HOST:PORT",
                address);
  }
  addrinfo hints{};
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const std::string host = address.substr(0, colon);
  if (const int error = getaddrinfo(host.c_str(), nullptr, &hints, &found); error != 0) {
    return fail(ErrorCode::kInvalidArgument, "{}: {}", host, gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> addresses(found, freeaddrinfo);
  sockaddr_in wanted = *reinterpret_cast<const sockaddr_in*>(found->ai_addr);
  wanted.sin_port = htons(*port);
  const UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int yes = 1;
  ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&wanted), sizeof(wanted)) != 0) {
    return fail_errno(std::format("cannot listen on {}", address), errno);
  }
  char text[INET_ADDRSTRLEN] = {};
  inet_ntop(AF_INET, &wanted.sin_addr, text, sizeof(text));
  return std::format("{}:{}", text, *port);
}

}  // namespace

Result<> serve_rpc(const std::string& address, const DeviceOptions& options) {
  OLLAMA_ASSIGN(const std::string endpoint, listenable(address));
  ggml_backend_reg_t registry = ggml::load_library("rpc");
  auto* start =
      registry == nullptr
          ? nullptr
          : reinterpret_cast<decltype(&ggml_backend_rpc_start_server)>(
                ggml_backend_reg_get_proc_address(registry, "ggml_backend_rpc_start_server"));
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
