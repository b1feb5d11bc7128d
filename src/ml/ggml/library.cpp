#include "ml/ggml/library.h"

#include <dlfcn.h>

#include <filesystem>
#include <format>
#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "base/log.h"

namespace ollama::ml::ggml {
namespace {

// GGML's own log goes to ours, at debug level: what matters of it comes back as errors.
void forward_log(ggml_log_level level, const char* text, void* /*user_data*/) {
  std::string_view line(text);
  while (line.ends_with('\n')) line.remove_suffix(1);
  if (line.empty() || line == ".") return;
  if (line.contains("peer closed")) return log::debug("ggml: {}", line);  // of the RPC server
  if (level == GGML_LOG_LEVEL_ERROR || level == GGML_LOG_LEVEL_WARN) {
    log::warn("ggml: {}", line);
  } else {
    log::debug("ggml: {}", line);
  }
}

// How well a CPU variant suits this machine, by its own word: 0 means not at all.
int score(const std::filesystem::path& library) {
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return 0;
  int result = 0;
  if (auto* function = reinterpret_cast<int (*)()>(dlsym(handle, "ggml_backend_score"))) {
    result = function();
  }
  dlclose(handle);
  return result;
}

// Before the first library is loaded.
void forward_logs() {
  static std::once_flag once;
  std::call_once(once, [] { ggml_log_set(forward_log, nullptr); });
}

Result<ggml_backend_dev_t> load_cpu() {
  forward_logs();
  const std::filesystem::path folder = OLLAMA_GGML_BACKEND_DIR;
  std::filesystem::path best;
  int best_score = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("libggml-cpu") || !name.ends_with(".so")) continue;
    const int value = score(entry.path());
    if (value > best_score) {
      best_score = value;
      best = entry.path();
    }
  }
  if (best.empty()) {
    // A build without variants has one library and no score.
    best = folder / "libggml-cpu.so";
    if (!std::filesystem::exists(best, error)) {
      return fail(ErrorCode::kUnsupported,
                  "no GGML CPU backend in {}: install GGML's package (libggml0) or rebuild",
                  folder.string());
    }
  }
  ggml_backend_reg_t registry = ggml_backend_load(std::filesystem::absolute(best).c_str());
  if (registry == nullptr || ggml_backend_reg_dev_count(registry) == 0) {
    return fail(ErrorCode::kUnsupported, "GGML's CPU backend {} cannot be loaded", best.string());
  }
  log::debug("loaded {} (score {})", best.string(), best_score);
  return ggml_backend_reg_dev_get(registry, 0);
}

}  // namespace

Result<ggml_backend_dev_t> cpu_device() {
  // GGML keeps what is loaded in a registry of its own for the life of the process; so does this.
  static std::once_flag once;
  static std::optional<Result<ggml_backend_dev_t>> device;
  std::call_once(once, [] { device = load_cpu(); });
  return *device;
}

ggml_backend_reg_t load_library(std::string_view name) {
  static std::mutex mutex;
  static std::map<std::string, ggml_backend_reg_t, std::less<>> loaded;
  const std::scoped_lock lock(mutex);
  if (const auto found = loaded.find(name); found != loaded.end()) return found->second;
  forward_logs();
  const std::filesystem::path path =
      std::filesystem::path(OLLAMA_GGML_BACKEND_DIR) / std::format("libggml-{}.so", name);
  std::error_code error;
  ggml_backend_reg_t registry = nullptr;
  if (std::filesystem::exists(path, error)) {
    registry = ggml_backend_load(std::filesystem::absolute(path).c_str());
  }
  loaded.emplace(name, registry);
  return registry;
}

}  // namespace ollama::ml::ggml
