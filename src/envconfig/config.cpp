#include "envconfig/config.h"

#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <format>
#include <limits>

namespace ollama::envconfig {
namespace {

// Reads one variable's text, already stripped and not empty, into the Config.
using Setter = void (*)(Config&, std::string_view text, const Variable& variable);
using Shower = std::string (*)(const Config&);

struct Entry {
  Variable variable;
  Setter set;
  Shower show;
};

void warn(Config& config, const Variable& variable, std::string_view text) {
  config.warnings.push_back(std::format("{}=\"{}\" is not a valid {}; using the default{}{}",
                                        variable.name, variable.secret ? "***" : text,
                                        kind_name(variable.kind),
                                        variable.fallback.empty() ? "" : " ", variable.fallback));
}

std::string lower(std::string_view text) {
  std::string result(text);
  std::ranges::transform(result, result.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return result;
}

std::string_view trim(std::string_view text, std::string_view characters) {
  const std::size_t first = text.find_first_not_of(characters);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(characters) - first + 1);
}

constexpr std::string_view kBlanks = " \t\r\n\v\f";

std::vector<std::string> split_list(std::string_view text) {
  std::vector<std::string> items;
  while (!text.empty()) {
    const std::size_t comma = std::min(text.find(','), text.size());
    if (const auto item = trim(text.substr(0, comma), kBlanks); !item.empty()) {
      items.emplace_back(item);
    }
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return items;
}

std::string join(const std::vector<std::string>& items) {
  std::string text;
  for (const std::string& item : items) {
    if (!text.empty()) text += ' ';
    text += item;
  }
  return "[" + text + "]";
}

// The spellings that Go's strconv.ParseBool knows.
std::optional<bool> parse_bool(std::string_view text) {
  for (const std::string_view yes : {"1", "t", "T", "true", "TRUE", "True"}) {
    if (text == yes) return true;
  }
  for (const std::string_view no : {"0", "f", "F", "false", "FALSE", "False"}) {
    if (text == no) return false;
  }
  return std::nullopt;
}

// Bytes, or a number with KiB, MiB or GiB.
std::optional<std::uint64_t> parse_bytes(std::string_view text) {
  if (const auto bytes = parse_number<std::uint64_t>(text)) return bytes;
  struct Unit {
    std::string_view name;
    std::uint64_t size;
  };
  const std::string small = lower(text);
  for (const Unit unit : {Unit{"kib", kKiB}, Unit{"mib", kMiB}, Unit{"gib", kGiB}}) {
    if (!small.ends_with(unit.name)) continue;
    const std::string_view number =
        trim(std::string_view(small).substr(0, small.size() - unit.name.size()), kBlanks);
    const auto value = parse_number<double>(number);
    if (!value || !(*value >= 0)) return std::nullopt;
    const double bytes = *value * static_cast<double>(unit.size);
    // Doubles at and above 2^64 do not fit.
    if (bytes >= 18446744073709551616.0) return std::nullopt;
    return static_cast<std::uint64_t>(bytes);
  }
  return std::nullopt;
}

// A proxy's URL without its password.
std::string without_credentials(const std::string& url) {
  const std::size_t scheme = url.find("://");
  const std::size_t begin = scheme == std::string::npos ? 0 : scheme + 3;
  const std::size_t at = url.rfind('@');
  if (at == std::string::npos || at < begin) return url;
  return url.substr(0, begin) + "***" + url.substr(at);
}

// Setters and showers for a member of Config, by its type.
template <bool Config::* Member>
constexpr Entry boolean(std::string_view name, std::string_view fallback, std::string_view text) {
  return {{name, Kind::kBool, fallback, text},
          [](Config& config, std::string_view value, const Variable&) {
            config.*Member = parse_bool(value).value_or(true);
          },
          [](const Config& config) { return std::format("{}", config.*Member); }};
}

template <std::optional<bool> Config::* Member>
constexpr Entry tristate(std::string_view name, std::string_view text) {
  return {{name, Kind::kBool, "", text},
          [](Config& config, std::string_view value, const Variable&) {
            config.*Member = parse_bool(value).value_or(true);
          },
          [](const Config& config) {
            const auto& value = config.*Member;
            return value ? std::format("{}", *value) : std::string();
          }};
}

template <std::uint32_t Config::* Member>
constexpr Entry number(std::string_view name, std::string_view fallback, std::string_view text) {
  return {{name, Kind::kNumber, fallback, text},
          [](Config& config, std::string_view value, const Variable& variable) {
            if (const auto parsed = parse_number<std::uint32_t>(value)) {
              config.*Member = *parsed;
            } else {
              warn(config, variable, value);
            }
          },
          [](const Config& config) { return std::format("{}", config.*Member); }};
}

// A number for which 0 stands for the default.
template <std::uint32_t Config::* Member>
constexpr Entry positive(std::string_view name, std::string_view fallback, std::string_view text) {
  Entry entry = number<Member>(name, fallback, text);
  entry.set = [](Config& config, std::string_view value, const Variable& variable) {
    const auto parsed = parse_number<std::uint32_t>(value);
    if (!parsed) return warn(config, variable, value);
    if (*parsed != 0) config.*Member = *parsed;
  };
  return entry;
}

template <std::uint64_t Config::* Member>
constexpr Entry bytes(std::string_view name, std::string_view fallback, std::string_view text) {
  return {{name, Kind::kBytes, fallback, text},
          [](Config& config, std::string_view value, const Variable& variable) {
            if (const auto parsed = parse_bytes(value)) {
              config.*Member = *parsed;
            } else {
              warn(config, variable, value);
            }
          },
          [](const Config& config) { return std::format("{}", config.*Member); }};
}

template <Duration Config::* Member, bool kZeroIsForever>
constexpr Entry duration(std::string_view name, std::string_view fallback, std::string_view text) {
  return {{name, Kind::kDuration, fallback, text},
          [](Config& config, std::string_view value, const Variable& variable) {
            const auto parsed = parse_keep_alive(value);
            if (!parsed) return warn(config, variable, value);
            config.*Member = kZeroIsForever && *parsed == Duration(0) ? kForever : *parsed;
          },
          [](const Config& config) { return format_duration(config.*Member); }};
}

template <std::string Config::* Member>
constexpr Entry string(std::string_view name, std::string_view text) {
  return {{name, Kind::kString, "", text},
          [](Config& config, std::string_view value, const Variable&) { config.*Member = value; },
          [](const Config& config) { return config.*Member; }};
}

template <std::string Config::* Member>
constexpr Entry proxy(std::string_view name, std::string_view text) {
  Entry entry = string<Member>(name, text);
  entry.show = [](const Config& config) { return without_credentials(config.*Member); };
  return entry;
}

template <std::vector<std::string> Config::* Member>
constexpr Entry list(std::string_view name, std::string_view text) {
  return {{name, Kind::kList, "", text},
          [](Config& config, std::string_view value, const Variable&) {
            config.*Member = split_list(value);
          },
          [](const Config& config) { return join(config.*Member); }};
}

void set_log_level(Config& config, std::string_view value, const Variable&) {
  if (const auto verbose = parse_bool(value)) {
    config.log_level = *verbose ? log::Level::kDebug : log::Level::kInfo;
  } else if (const auto level = parse_number<std::int64_t>(value)) {
    config.log_level = *level >= 2    ? log::Level::kTrace
                       : *level == -1 ? log::Level::kWarn
                                      : log::Level::kError;
  } else {
    config.log_level = log::Level::kDebug;
  }
}

std::string show_log_level(const Config& config) {
  switch (config.log_level) {
    case log::Level::kTrace:
      return "TRACE";
    case log::Level::kDebug:
      return "DEBUG";
    case log::Level::kInfo:
      return "INFO";
    case log::Level::kWarn:
      return "WARN";
    case log::Level::kError:
      return "ERROR";
    case log::Level::kOff:
      return "OFF";
  }
  return "";
}

void set_kv_cache_type(Config& config, std::string_view value, const Variable& variable) {
  const std::string type = lower(value);
  for (const std::string_view known : {"f16", "q8_0", "q4_0", "f32", "bf16"}) {
    if (type == known) {
      config.kv_cache_type = type;
      return;
    }
  }
  warn(config, variable, value);
}

void set_validation(Config& config, std::string_view value, const Variable& variable) {
  const std::string mode = lower(value);
  if (mode == "always") {
    config.validation = Validation::kAlways;
  } else if (mode == "once") {
    config.validation = Validation::kOnce;
  } else if (mode == "off") {
    config.validation = Validation::kOff;
  } else {
    warn(config, variable, value);
  }
}

std::string show_validation(const Config& config) {
  switch (config.validation) {
    case Validation::kAlways:
      return "always";
    case Validation::kOnce:
      return "once";
    case Validation::kOff:
      return "off";
  }
  return "";
}

void set_cpu_kernels(Config& config, std::string_view value, const Variable& variable) {
  const std::string kernels = lower(value);
  if (kernels == "native") {
    config.cpu_kernels = CpuKernels::kNative;
  } else if (kernels == "ggml") {
    config.cpu_kernels = CpuKernels::kGgml;
  } else {
    warn(config, variable, value);
  }
}

std::string show_cpu_kernels(const Config& config) {
  return config.cpu_kernels == CpuKernels::kGgml ? "ggml" : "native";
}

void set_host(Config& config, std::string_view value, const Variable&) {
  std::string warning;
  config.host = parse_host(trim(value, kBlanks), &warning);
  if (!warning.empty()) config.warnings.push_back(std::move(warning));
}

constexpr Entry kTable[] = {
    string<&Config::cuda_visible_devices>("CUDA_VISIBLE_DEVICES",
                                          "NVIDIA devices that may be used, by number or UUID"),
    string<&Config::vk_visible_devices>("GGML_VK_VISIBLE_DEVICES",
                                        "Vulkan devices that may be used, by number"),
    string<&Config::gpu_device_ordinal>("GPU_DEVICE_ORDINAL",
                                        "AMD devices that may be used, by number"),
    string<&Config::hip_visible_devices>("HIP_VISIBLE_DEVICES",
                                         "AMD devices that may be used, by number"),
    string<&Config::hsa_override_gfx_version>("HSA_OVERRIDE_GFX_VERSION",
                                              "Graphics version to assume for AMD devices"),
    proxy<&Config::https_proxy>("HTTPS_PROXY", "Proxy for pulling and pushing models"),
    proxy<&Config::http_proxy>("HTTP_PROXY", "Proxy for insecure registries"),
    string<&Config::no_proxy>("NO_PROXY", "Hosts that are reached without a proxy"),
    {{"OLLAMA_API_KEYS", Kind::kList, "",
      "Keys, separated by commas; when set, requests must carry one as a bearer token", true},
     [](Config& config, std::string_view value, const Variable&) {
       config.api_keys = split_list(value);
     },
     [](const Config& config) { return std::string(config.api_keys.empty() ? "" : "***"); }},
    positive<&Config::context_length>(
        "OLLAMA_CONTEXT_LENGTH", "16384",
        "Context, in tokens, when neither request nor model says otherwise"),
    {{"OLLAMA_CPU_KERNELS", Kind::kChoice, "native",
      "Whose kernels compute on the CPU: native (this program's own) or ggml"},
     set_cpu_kernels,
     show_cpu_kernels},
    {{"OLLAMA_DEBUG", Kind::kNumber, "0", "More in the log: 1 for debug, 2 for trace"},
     set_log_level,
     show_log_level},
    boolean<&Config::debug_log_requests>(
        "OLLAMA_DEBUG_LOG_REQUESTS", "false",
        "Keep the bodies of inference requests in a temporary folder, for replaying them"),
    string<&Config::editor>("OLLAMA_EDITOR", "Editor for long prompts (Ctrl+G)"),
    tristate<&Config::flash_attention>(
        "OLLAMA_FLASH_ATTENTION",
        "Enable flash attention (auto-enabled if supported when not set)"),
    boolean<&Config::go_template>("OLLAMA_GO_TEMPLATE", "true",
                                  "Render prompts with the model's TEMPLATE where it has one"),
    bytes<&Config::gpu_overhead>("OLLAMA_GPU_OVERHEAD", "0",
                                 "Further memory to reserve on each GPU, in bytes"),
    {{"OLLAMA_HOST", Kind::kHost, "127.0.0.1:11434",
      "Address that the server listens on and that clients connect to"},
     set_host,
     [](const Config& config) { return config.host.url(); }},
    tristate<&Config::igpu_enable>("OLLAMA_IGPU_ENABLE", "Use integrated GPUs"),
    duration<&Config::keep_alive, false>(
        "OLLAMA_KEEP_ALIVE", "5m",
        "How long a model stays loaded after its last request; negative: for ever"),
    {{"OLLAMA_KV_CACHE_TYPE", Kind::kChoice, "f16",
      "Type of the K/V cache: f16, q8_0, q4_0, f32 or bf16"},
     set_kv_cache_type,
     [](const Config& config) { return config.kv_cache_type; }},
    string<&Config::llm_library>("OLLAMA_LLM_LIBRARY",
                                 "Backend library to use instead of the one found best"),
    duration<&Config::load_timeout, true>(
        "OLLAMA_LOAD_TIMEOUT", "5m",
        "How long loading a model may stall before it is given up; 0: for ever"),
    number<&Config::max_loaded_models>("OLLAMA_MAX_LOADED_MODELS", "0",
                                       "Models loaded at once; 0: as many as fit"),
    number<&Config::max_queue>("OLLAMA_MAX_QUEUE", "512",
                               "Requests that may wait for a model before others are refused"),
    positive<&Config::max_transfer_streams>("OLLAMA_MAX_TRANSFER_STREAMS", "4",
                                            "Connections that pulling or pushing a model uses"),
    {{"OLLAMA_MODELS", Kind::kPath, "~/.ollama/models", "Folder of the models"},
     [](Config& config, std::string_view value, const Variable&) { config.models = value; },
     [](const Config& config) { return config.models.string(); }},
    boolean<&Config::multiuser_cache>("OLLAMA_MULTIUSER_CACHE", "false",
                                      "Tune prompt reuse for many users"),
    boolean<&Config::no_history>("OLLAMA_NOHISTORY", "false",
                                 "Do not keep the history of the interactive prompt"),
    boolean<&Config::no_prune>("OLLAMA_NOPRUNE", "false",
                               "Do not remove unreferenced blobs when the server starts"),
    boolean<&Config::no_cloud>("OLLAMA_NO_CLOUD", "false",
                               "Accepted for compatibility: there are no cloud features"),
    positive<&Config::num_parallel>("OLLAMA_NUM_PARALLEL", "1",
                                    "Requests that one loaded model serves at once"),
    {{"OLLAMA_ORIGINS", Kind::kList, "",
      "Web origins that may use the API besides the local ones, separated by commas"},
     [](Config& config, std::string_view value, const Variable&) {
       config.origins = split_list(value);
     },
     [](const Config& config) { return join(config.origins); }},
    list<&Config::rpc_servers>("OLLAMA_RPC_SERVERS",
                               "ggml-rpc servers to use as devices, host:port, by commas"),
    boolean<&Config::sched_spread>("OLLAMA_SCHED_SPREAD", "false",
                                   "Spread every model over all GPUs"),
    {{"OLLAMA_VALIDATION", Kind::kChoice, "once",
      "When tensor shapes are checked: always, once (each shape) or off"},
     set_validation,
     show_validation},
    bytes<&Config::vram_min_free>(
        "OLLAMA_VRAM_MIN_FREE", "457MiB",
        "Memory to keep free on each GPU, in bytes or with KiB, MiB, GiB"),
    boolean<&Config::vulkan>("OLLAMA_VULKAN", "true", "Use Vulkan devices"),
    string<&Config::rocr_visible_devices>("ROCR_VISIBLE_DEVICES",
                                          "AMD devices that may be used, by number or UUID"),
    string<&Config::ssl_cert_dir>("SSL_CERT_DIR",
                                  "Folder of certificates to trust instead of the system's"),
    string<&Config::ssl_cert_file>("SSL_CERT_FILE",
                                   "Certificates to trust instead of the system's"),
};
constexpr std::size_t kTableSize = std::size(kTable);

constexpr auto kVariables = [] {
  std::array<Variable, kTableSize> result{};
  for (std::size_t i = 0; i < kTableSize; ++i) result[i] = kTable[i].variable;
  return result;
}();

void add_default_origins(std::vector<std::string>& origins) {
  for (const std::string_view host : {"localhost", "127.0.0.1", "0.0.0.0"}) {
    origins.push_back(std::format("http://{}", host));
    origins.push_back(std::format("https://{}", host));
    origins.push_back(std::format("http://{}:*", host));
    origins.push_back(std::format("https://{}:*", host));
  }
  for (const std::string_view scheme : {"app", "file", "tauri", "vscode-webview", "vscode-file"}) {
    origins.push_back(std::format("{}://*", scheme));
  }
}

std::filesystem::path home_directory(const Config::Getter& getter) {
  if (const auto home = getter("HOME"); home && !home->empty()) return *home;
  passwd entry{};
  passwd* found = nullptr;
  std::array<char, 4096> buffer{};
  if (getpwuid_r(getuid(), &entry, buffer.data(), buffer.size(), &found) == 0 && found != nullptr &&
      found->pw_dir != nullptr) {
    return found->pw_dir;
  }
  return ".";
}

std::string read_clean(const Config::Getter& getter, const std::string& name) {
  const std::string raw = getter(name).value_or(std::string());
  return std::string(trim(trim(raw, kBlanks), "\"'"));
}

}  // namespace

Config Config::from_environment(const Getter& getter) {
  Config config;
  for (const Entry& entry : kTable) {
    const std::string name(entry.variable.name);
    std::string text = read_clean(getter, name);
    if (name.ends_with("_PROXY")) {
      if (std::string small = read_clean(getter, lower(name)); !small.empty()) text = small;
    }
    if (!text.empty()) entry.set(config, text, entry.variable);
  }
  add_default_origins(config.origins);
  config.folder = home_directory(getter) / ".ollama";
  if (config.models.empty()) config.models = config.folder / "models";
  return config;
}

Config Config::load() {
  Config config = from_environment([](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    if (value == nullptr) return std::nullopt;
    return std::string(value);
  });
  for (const std::string& warning : config.warnings) log::warn("{}", warning);
  return config;
}

std::vector<std::pair<std::string, std::string>> Config::values() const {
  std::vector<std::pair<std::string, std::string>> result;
  result.reserve(kTableSize);
  for (const Entry& entry : kTable) result.emplace_back(entry.variable.name, entry.show(*this));
  return result;
}

std::string_view kind_name(Kind kind) {
  switch (kind) {
    case Kind::kBool:
      return "boolean";
    case Kind::kNumber:
      return "number";
    case Kind::kBytes:
      return "number of bytes";
    case Kind::kDuration:
      return "duration";
    case Kind::kString:
      return "text";
    case Kind::kChoice:
      return "choice";
    case Kind::kHost:
      return "address";
    case Kind::kPath:
      return "path";
    case Kind::kList:
      return "list";
  }
  return "value";
}

std::span<const Variable> variables() { return kVariables; }

std::string help_text() {
  std::size_t width = 0;
  for (const Variable& variable : kVariables) width = std::max(width, variable.name.size());
  std::string text = "Environment Variables:\n";
  for (const Variable& variable : kVariables) {
    text += std::format("      {:<{}}   {}", variable.name, width, variable.description);
    if (!variable.fallback.empty()) text += std::format(" (default {})", variable.fallback);
    text += '\n';
  }
  return text;
}

std::string markdown_table() {
  std::string text = "| variable | kind | default | meaning |\n|---|---|---|---|\n";
  for (const Variable& variable : kVariables) {
    const std::string fallback =
        variable.fallback.empty() ? "unset" : std::format("`{}`", variable.fallback);
    text += std::format("| `{}` | {} | {} | {} |\n", variable.name, kind_name(variable.kind),
                        fallback, variable.description);
  }
  return text;
}

}  // namespace ollama::envconfig
