#include "cmd/model_path.h"

#include <cstdlib>

namespace ollama::cmd {
namespace {

bool ends_in_gguf(const std::string& path) {
  constexpr std::string_view kSuffix = ".gguf";
  return path.size() > kSuffix.size() &&
         std::ranges::equal(
             std::string_view(path).substr(path.size() - kSuffix.size()), kSuffix,
             [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a + 32 : a) == b; });
}

}  // namespace

bool is_model_file(const std::string& model) {
  for (const char* prefix : {"./", "../", "/", "~/"}) {
    if (model.starts_with(prefix)) return true;
  }
  std::error_code ignored;
  return ends_in_gguf(model) && std::filesystem::is_regular_file(model, ignored);
}

std::filesystem::path expand_home(const std::string& path) {
  const char* home = std::getenv("HOME");
  if (!path.starts_with("~/") || home == nullptr) return path;
  return std::filesystem::path(home) / path.substr(2);
}

}  // namespace ollama::cmd
