#include "ml/ggml/devices.h"

#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <set>

#include "base/log.h"
#include "base/unique_fd.h"
#include "ml/ggml/library.h"

namespace ollama::ml::ggml {
namespace {

// Libraries of GPUs, the best first: a card that two of them know is the first one's.
constexpr std::array<std::string_view, 6> kGpuLibraries{"cuda", "hip",   "musa",
                                                        "sycl", "metal", "vulkan"};
constexpr int kConnectTimeoutMs = 2000;

// "cuda_v12" names cuda, and "rocm" is what Ollama calls hip.
bool names(std::string_view wanted, std::string_view library) {
  return wanted.starts_with(library) || (library == "hip" && wanted.starts_with("rocm"));
}

bool may_use(std::string_view library, const DeviceOptions& options) {
  if (library == "vulkan" && !options.vulkan) return false;
  return options.library.empty() || names(options.library, library);
}

// Whether somebody listens there: GGML ends the process where nobody does.
bool is_reachable(const std::string& endpoint) {
  const std::size_t colon = endpoint.rfind(':');
  if (colon == std::string::npos) return false;
  const std::string host = endpoint.substr(0, colon);
  const addrinfo hints{.ai_flags = AI_NUMERICSERV,
                       .ai_family = AF_INET,
                       .ai_socktype = SOCK_STREAM,
                       .ai_protocol = 0,
                       .ai_addrlen = 0,
                       .ai_addr = nullptr,
                       .ai_canonname = nullptr,
                       .ai_next = nullptr};
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), endpoint.c_str() + colon + 1, &hints, &found) != 0) return false;
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> addresses(found, freeaddrinfo);
  const UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket) return false;
  if (::connect(socket.get(), found->ai_addr, found->ai_addrlen) == 0) return true;
  if (errno != EINPROGRESS) return false;
  pollfd writable{.fd = socket.get(), .events = POLLOUT, .revents = 0};
  if (::poll(&writable, 1, kConnectTimeoutMs) != 1) return false;
  int error = 0;
  socklen_t length = sizeof(error);
  return getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == 0;
}

// What has been listed, by name. GGML keeps devices for the life of the process; so does this.
class Listed {
 public:
  void add(const std::string& name, ggml_backend_dev_t device) {
    const std::scoped_lock lock(mutex_);
    devices_[name] = device;
  }
  ggml_backend_dev_t find(const std::string& name) {
    const std::scoped_lock lock(mutex_);
    const auto found = devices_.find(name);
    return found == devices_.end() ? nullptr : found->second;
  }

 private:
  std::mutex mutex_;
  std::map<std::string, ggml_backend_dev_t> devices_;
};
Listed& listed() {
  static Listed instance;
  return instance;
}

void add_devices_of(ggml_backend_reg_t registry, std::vector<Device>& devices) {
  for (std::size_t i = 0; i < ggml_backend_reg_dev_count(registry); ++i) {
    ggml_backend_dev_t device = ggml_backend_reg_dev_get(registry, i);
    const auto type = ggml_backend_dev_type(device);
    // Accelerators (BLAS) and devices of devices are used by those who ask for them: nobody does.
    if (type == GGML_BACKEND_DEVICE_TYPE_GPU || type == GGML_BACKEND_DEVICE_TYPE_IGPU) {
      devices.push_back(describe(device));
      listed().add(devices.back().name, device);
    }
  }
}

void add_remote_devices(const DeviceOptions& options, std::vector<Device>& devices) {
  if (options.rpc_servers.empty()) return;
  ggml_backend_reg_t registry = load_library("rpc");
  auto* add_server =
      registry == nullptr
          ? nullptr
          : reinterpret_cast<ggml_backend_reg_t (*)(const char*)>(
                ggml_backend_reg_get_proc_address(registry, "ggml_backend_rpc_add_server"));
  if (add_server == nullptr) {
    log::warn("OLLAMA_RPC_SERVERS is not followed: GGML's RPC backend is not installed here");
    return;
  }
  for (const std::string& endpoint : options.rpc_servers) {
    if (!is_reachable(endpoint)) {
      log::warn("the RPC server {} does not answer: going on without it", endpoint);
      continue;
    }
    ggml_backend_reg_t server = add_server(endpoint.c_str());
    if (server == nullptr) {
      log::warn("the RPC server {} cannot be used", endpoint);
      continue;
    }
    const std::size_t first = devices.size();
    add_devices_of(server, devices);
    for (std::size_t i = first; i < devices.size(); ++i) {
      devices[i].library = "rpc";
      devices[i].id = endpoint;
      devices[i].kind = DeviceKind::kGpu;
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

}  // namespace ollama::ml::ggml
