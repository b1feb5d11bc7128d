#include <algorithm>
#include <array>

#include "model/arch/architectures.h"

namespace ollama::model {
namespace {

struct Entry {
  std::string_view name;
  NewModel make;
};

constexpr std::array kArchitectures{
    Entry{"llama", new_llama},
};

constexpr auto kNames = [] {
  std::array<std::string_view, kArchitectures.size()> names{};
  std::ranges::transform(kArchitectures, names.begin(), &Entry::name);
  return names;
}();

}  // namespace

std::span<const std::string_view> architectures() { return kNames; }

Result<std::unique_ptr<Model>> new_model(const gguf::File& file, const ml::Weights& weights) {
  const auto* entry = std::ranges::find(kArchitectures, file.architecture(), &Entry::name);
  if (entry == kArchitectures.end()) {
    return fail(ErrorCode::kUnsupported, "model architecture '{}' is not supported",
                file.architecture());
  }
  OLLAMA_ASSIGN(Config config, read_config(file));
  Binder binder(weights);
  OLLAMA_ASSIGN(std::unique_ptr<Model> model, entry->make(file, std::move(config), binder));
  OLLAMA_TRY(binder.status());
  return model;
}

}  // namespace ollama::model
