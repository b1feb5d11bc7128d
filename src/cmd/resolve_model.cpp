#include "cmd/model_path.h"
#include "store/store.h"

namespace ollama::cmd {

Result<std::filesystem::path> resolve_model(const std::string& model,
                                            const envconfig::Config& config) {
  if (is_model_file(model)) {
    const std::filesystem::path path = expand_home(model);
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(path, ignored)) {
      return fail(ErrorCode::kNotFound, "{}: no such file", model);
    }
    return path;
  }
  const store::Store store(
      {.models = config.models, .bundled = store::Store::default_bundled_directory()});
  OLLAMA_ASSIGN(const store::Model found, store.resolve(model));
  return found.weights;
}

}  // namespace ollama::cmd
