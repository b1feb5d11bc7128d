// Every environment variable the program reads, in one table: parsing, `ollama serve --help`, the
// start-up log and the documentation are made from it. Values are read the way Ollama reads them:
// quotes and blanks around them are stripped, a bad number or duration is a warning and the
// default, a boolean that is set to something unreadable is true. Reading never fails.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/units.h"
#include "envconfig/duration.h"

namespace ollama::envconfig {

// Where the server listens and clients connect: OLLAMA_HOST.
struct Host {
  std::string scheme = "http";
  std::string name = "127.0.0.1";  // a host name, IPv4, or IPv6 without brackets
  std::uint16_t port = 11434;
  std::string path;  // without a leading slash; usually empty

  // "127.0.0.1:11434", "[::1]:11434".
  std::string address() const;
  // "http://127.0.0.1:11434", with the path where there is one; no slash at the end.
  std::string url() const;
  // For clients: 0.0.0.0 and :: become the loopback address.
  Host connectable() const;
  // localhost, 127.0.0.0/8 or ::1.
  bool is_loopback() const;

  bool operator==(const Host&) const = default;
};

// "1.2.3.4", ":8080", "host:80", "::1", "[::1]:80", "http://host", "https://host:1234/path". The
// default port is 11434; 80 and 443 after http:// and https://. A bad port: the default one, and
// `warning` says so.
Host parse_host(std::string_view text, std::string* warning = nullptr);

// When the shapes that layers are given are checked (see nn/validation.h).
enum class Validation : std::uint8_t { kAlways, kOnce, kOff };
// Which matrix kernels the CPU uses.
enum class CpuKernels : std::uint8_t { kNative, kGgml };

// All variables, parsed. A value: copy it, change it in tests.
struct Config {
  Host host;
  std::filesystem::path models;      // OLLAMA_MODELS, or ~/.ollama/models
  std::filesystem::path folder;      // ~/.ollama: the key that registries know this user by
  std::vector<std::string> origins;  // allowed CORS origins, the defaults last; '*' is a wildcard
  Duration keep_alive = std::chrono::minutes(5);    // 0: unload at once; kForever
  Duration load_timeout = std::chrono::minutes(5);  // without progress; kForever
  log::Level log_level = log::Level::kInfo;         // OLLAMA_DEBUG: 1 debug, 2 trace
  bool debug_log_requests = false;

  std::uint32_t context_length = 16384;  // tokens per request, when neither request nor model says
  std::uint32_t num_parallel = 1;        // at least 1
  std::uint32_t max_loaded_models = 0;   // 0: as many as fit
  std::uint32_t max_queue = 512;
  std::uint32_t max_transfer_streams = 4;  // at least 1
  std::string kv_cache_type = "f16";       // f16, q8_0, q4_0, f32 or bf16
  std::optional<bool> flash_attention;     // unset: where it is supported
  bool multiuser_cache = false;

  std::uint64_t gpu_overhead = 0;            // bytes reserved on each GPU
  std::uint64_t vram_min_free = 457 * kMiB;  // bytes kept free on each GPU
  bool sched_spread = false;
  bool vulkan = true;
  std::optional<bool> igpu_enable;  // unset: only where there is no other GPU
  std::string llm_library;
  std::string cuda_visible_devices;
  std::string hip_visible_devices;
  std::string rocr_visible_devices;
  std::string vk_visible_devices;  // GGML_VK_VISIBLE_DEVICES
  std::string gpu_device_ordinal;
  std::string hsa_override_gfx_version;

  bool no_history = false;
  bool no_prune = false;
  bool no_cloud = false;
  bool go_template = true;  // use a model's TEMPLATE where it has one
  std::string editor;

  std::string http_proxy;  // also in small letters, which win, as curl has it
  std::string https_proxy;
  std::string no_proxy;
  std::string ssl_cert_file;  // certificates that are trusted instead of the system's
  std::string ssl_cert_dir;

  Validation validation = Validation::kOnce;
  std::optional<CpuKernels> cpu_kernels;  // unset: native, except beside a GPU
  std::vector<std::string> rpc_servers;   // "host:port" of ggml-rpc servers
  std::vector<std::string> api_keys;      // when not empty, requests need one of them

  // What could not be read, one sentence each, for the log.
  std::vector<std::string> warnings;

  // The value of a variable; nullopt or empty when it is not set.
  using Getter = std::function<std::optional<std::string>(const std::string& name)>;
  static Config from_environment(const Getter& getter);
  // From the process's environment; writes the warnings to the log.
  static Config load();

  // Name and effective value of every variable, sorted by name, for the start-up log. Secrets are
  // shown as "***".
  std::vector<std::pair<std::string, std::string>> values() const;
};

enum class Kind : std::uint8_t {
  kBool,
  kNumber,
  kBytes,
  kDuration,
  kString,
  kChoice,
  kHost,
  kPath,
  kList,
};
std::string_view kind_name(Kind kind);

struct Variable {
  std::string_view name;
  Kind kind;
  std::string_view fallback;     // the default as text; empty when unset
  std::string_view description;  // one line, without a full stop
  bool secret = false;
};

// The table, sorted by name.
std::span<const Variable> variables();

// The "Environment Variables:" section of `ollama serve --help`, one line a variable.
std::string help_text();
// The same as a Markdown table, for the documentation.
std::string markdown_table();

}  // namespace ollama::envconfig
