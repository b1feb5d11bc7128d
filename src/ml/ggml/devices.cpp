#include "ml/ggml/devices.h"

#include <ggml-rpc.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <map>
#include <mutex>
#include <set>
#include <span>
#include <stop_token>
#include <thread>
#include <utility>

#include "base/log.h"
#include "base/unique_fd.h"
#include "ml/ggml/endpoint.h"
#include "ml/ggml/library.h"

namespace ollama::ml::ggml {
namespace {

// Libraries of GPUs, the best first: a card that two of them know is the first one's.
constexpr std::array<std::string_view, 6> kGpuLibraries{"cuda", "hip",   "musa",
                                                        "sycl", "metal", "vulkan"};
// With a remote server: to be reached, to greet (one that another program leaves just now takes a
// moment), and to say what it has.
constexpr std::chrono::seconds kReached{2};
constexpr std::chrono::seconds kGreets{5};
constexpr std::chrono::seconds kAnswers{10};

// "cuda_v12" names cuda, and "rocm" is what Ollama calls hip.
bool names(std::string_view wanted, std::string_view library) {
  return wanted.starts_with(library) || (library == "hip" && wanted.starts_with("rocm"));
}

bool may_use(std::string_view library, const DeviceOptions& options) {
  if (library == "vulkan" && !options.vulkan) return false;
  return options.library.empty() || names(options.library, library);
}

// A connection that neither side has to answer in full time.
class Probe {
 public:
  explicit Probe(const sockaddr_in& address) {
    UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!socket) return;
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) !=
            0 &&
        errno != EINPROGRESS) {
      return;
    }
    end_ = std::chrono::steady_clock::now() + kReached;
    socket_ = std::move(socket);
    int error = 0;
    socklen_t length = sizeof(error);
    if (!wait(POLLOUT) || getsockopt(socket_.get(), SOL_SOCKET, SO_ERROR, &error, &length) != 0 ||
        error != 0) {
      socket_.reset();
    }
    end_ = std::chrono::steady_clock::now() + kGreets;
  }

  bool send(std::span<const std::byte> bytes) {
    return wait(POLLOUT) && ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
                                static_cast<ssize_t>(bytes.size());
  }
  bool receive(std::span<std::byte> bytes) {
    while (!bytes.empty()) {
      if (!wait(POLLIN)) return false;
      const ssize_t got = ::recv(socket_.get(), bytes.data(), bytes.size(), 0);
      if (got <= 0) return false;
      bytes = bytes.subspan(static_cast<std::size_t>(got));
    }
    return true;
  }
  bool connected() const { return static_cast<bool>(socket_); }

 private:
  bool wait(short events) const {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        end_ - std::chrono::steady_clock::now());
    pollfd waiting{.fd = socket_.get(), .events = events, .revents = 0};
    return socket_ && left.count() > 0 && ::poll(&waiting, 1, static_cast<int>(left.count())) == 1;
  }

  UniqueFd socket_;
  std::chrono::steady_clock::time_point end_;
};

// GGML waits for ever for a server that falls silent. As where one is lost, this process ends
// instead, and whoever started it goes on without that server.
class Watchdog {
 public:
  explicit Watchdog(std::string endpoint)
      : thread_([endpoint = std::move(endpoint)](const std::stop_token& stop) {
          std::mutex mutex;
          std::condition_variable_any over;
          std::unique_lock lock(mutex);
          over.wait_for(lock, stop, kAnswers, [&] { return stop.stop_requested(); });
          if (stop.stop_requested()) return;
          log::error("Remote RPC server {} greets and then says nothing", endpoint);
          std::abort();
        }) {}

 private:
  std::jthread thread_;
};

// Whether an RPC server of this version answers there. GGML ends the process where none does, and
// waits for ever for one that says nothing.
bool speaks_rpc(const sockaddr_in& address) {
  Probe probe(address);
  // The greeting of version 8, of which no document speaks: a command, the size of what follows,
  // and what the client can do, here nothing; then size, version and what the server can.
  if (RPC_PROTO_MAJOR_VERSION != 8) return probe.connected();
  std::array<std::byte, 1 + 8 + 24> greeting{std::byte{14}, std::byte{24}};
  std::array<std::byte, 8 + 4 + 24> reply{};
  return probe.send(greeting) && probe.receive(reply) && reply[0] == std::byte{28} &&
         reply[8] == std::byte{RPC_PROTO_MAJOR_VERSION};
}

// What has been listed, by name. GGML keeps devices for the life of the process; so does this.
class Listed {
 public:
  void add(const Device& device, ggml_backend_dev_t handle) {
    const std::scoped_lock lock(mutex_);
    devices_[device.name] = handle;
    if (device.is_remote()) endpoints_[handle] = device.id;
  }
  std::vector<std::string> endpoints_of(std::span<const ggml_backend_dev_t> handles) {
    const std::scoped_lock lock(mutex_);
    std::vector<std::string> result;
    for (ggml_backend_dev_t handle : handles) {
      const auto found = endpoints_.find(handle);
      if (found != endpoints_.end()) result.push_back(found->second);
    }
    return result;
  }
  ggml_backend_dev_t find(const std::string& name) {
    const std::scoped_lock lock(mutex_);
    const auto found = devices_.find(name);
    return found == devices_.end() ? nullptr : found->second;
  }

 private:
  std::mutex mutex_;
  std::map<std::string, ggml_backend_dev_t> devices_;
  std::map<ggml_backend_dev_t, std::string> endpoints_;
};
Listed& listed() {
  static Listed instance;
  return instance;
}

// `endpoint` is empty for devices of this machine.
void add_devices_of(ggml_backend_reg_t registry, std::vector<Device>& devices,
                    const std::string& endpoint = {}) {
  for (std::size_t i = 0; i < ggml_backend_reg_dev_count(registry); ++i) {
    ggml_backend_dev_t device = ggml_backend_reg_dev_get(registry, i);
    const auto type = ggml_backend_dev_type(device);
    // Accelerators (BLAS) and devices of devices are used by those who ask for them: nobody does.
    if (type == GGML_BACKEND_DEVICE_TYPE_GPU || type == GGML_BACKEND_DEVICE_TYPE_IGPU) {
      devices.push_back(describe(device));
      if (!endpoint.empty()) {
        devices.back().library = "rpc";
        devices.back().id = endpoint;
        devices.back().kind = DeviceKind::kGpu;
      }
      listed().add(devices.back(), device);
    }
  }
}

void add_remote_devices(const DeviceOptions& options, std::vector<Device>& devices) {
  if (options.rpc_servers.empty()) return;
  auto* add_server =
      library_function<decltype(ggml_backend_rpc_add_server)>("rpc", "ggml_backend_rpc_add_server");
  if (add_server == nullptr) {
    log::warn("OLLAMA_RPC_SERVERS is not followed: GGML's RPC backend is not installed here");
    return;
  }
  std::set<std::pair<in_addr_t, in_port_t>> seen;
  for (const std::string& endpoint : options.rpc_servers) {
    const auto address = resolve_endpoint(endpoint);
    if (!address) {
      log::warn("OLLAMA_RPC_SERVERS: {}: going on without it", address.error().message());
      continue;
    }
    // A server that is named twice would wait for itself.
    if (!seen.emplace(address->sin_addr.s_addr, address->sin_port).second) continue;
    if (!speaks_rpc(*address)) {
      log::warn(
          "no RPC server of this version answers at {} (one serves one program at a time): going "
          "on without it",
          endpoint);
      continue;
    }
    const Watchdog watchdog(endpoint);
    if (ggml_backend_reg_t server = add_server(endpoint.c_str())) {
      add_devices_of(server, devices, endpoint);
    } else {
      log::warn("the RPC server {} cannot be used", endpoint);
    }
  }
}

// A card that several libraries know is used through the first of them.
void drop_repeated(std::vector<Device>& devices) {
  std::set<std::string> seen;
  std::erase_if(devices, [&](const Device& device) {
    return !device.id.empty() && !seen.insert(device.id).second;
  });
}

void drop_integrated(const DeviceOptions& options, std::vector<Device>& devices) {
  const bool has_other =
      std::ranges::any_of(devices, [](const Device& d) { return d.kind == DeviceKind::kGpu; });
  if (options.integrated.value_or(!has_other)) return;
  std::erase_if(devices, [](const Device& d) { return d.kind == DeviceKind::kIntegratedGpu; });
}

}  // namespace

Device describe(ggml_backend_dev_t device) {
  ggml_backend_dev_props props{};
  ggml_backend_dev_get_props(device, &props);
  std::string library = ggml_backend_reg_name(ggml_backend_dev_backend_reg(device));
  std::ranges::transform(library, library.begin(), [](unsigned char c) { return std::tolower(c); });
  Device result{.name = props.name,
                .description = props.description == nullptr ? "" : props.description,
                .library = std::move(library),
                .id = props.device_id == nullptr ? "" : props.device_id,
                .kind = DeviceKind::kCpu,
                .total_bytes = props.memory_total,
                .free_bytes = std::min(props.memory_free, props.memory_total)};
  if (props.type == GGML_BACKEND_DEVICE_TYPE_GPU) result.kind = DeviceKind::kGpu;
  if (props.type == GGML_BACKEND_DEVICE_TYPE_IGPU) result.kind = DeviceKind::kIntegratedGpu;
  if (result.kind == DeviceKind::kCpu) {
    // GGML takes all of the machine's memory to be free.
    const SystemMemory memory = system_memory();
    result.total_bytes = memory.total;
    result.free_bytes = memory.available;
  }
  return result;
}

Result<std::vector<Device>> list_devices(const DeviceOptions& options) {
  OLLAMA_ASSIGN(ggml_backend_dev_t cpu, cpu_device());
  std::vector<Device> devices;
  for (const std::string_view library : kGpuLibraries) {
    if (!may_use(library, options)) continue;
    if (ggml_backend_reg_t registry = load_library(library)) add_devices_of(registry, devices);
  }
  drop_repeated(devices);
  drop_integrated(options, devices);
  add_remote_devices(options, devices);
  devices.push_back(describe(cpu));
  return devices;
}

Result<ggml_backend_dev_t> find_gpu(const std::string& name) {
  ggml_backend_dev_t device = listed().find(name);
  if (device == nullptr) return fail(ErrorCode::kNotFound, "there is no device {}", name);
  return device;
}

std::vector<std::string> endpoints_of(std::span<const ggml_backend_dev_t> devices) {
  return listed().endpoints_of(devices);
}

}  // namespace ollama::ml::ggml
