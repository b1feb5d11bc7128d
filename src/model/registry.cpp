#include <algorithm>
#include <array>

#include "model/arch/architectures.h"

namespace ollama::model {
namespace {

struct Entry {
  std::string_view name;
  NewModel make;
  bool ranks = false;  // with a classifier
};

constexpr std::array kArchitectures{
    Entry{"bert", new_bert, true},
    Entry{"command-r", new_command_r},
    Entry{"deepseek2", new_deepseek2},
    Entry{"gemma2", new_gemma2},
    Entry{"gemma3", new_gemma3},
    Entry{"glm4", new_glm4},
    Entry{"gpt-oss", new_gpt_oss},
    Entry{"granite", new_llama},
    Entry{"llama", new_llama},
    Entry{"olmo2", new_olmo2},
    Entry{"phi3", new_phi3},
    Entry{"qwen2", new_qwen},
    Entry{"qwen3", new_qwen},
    Entry{"qwen3moe", new_qwen},
    Entry{"starcoder2", new_starcoder2},
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
  if (config.pooling == Pooling::kRank && (!entry->ranks || config.causal)) {
    return fail(ErrorCode::kUnsupported,
                "a {}model of the architecture '{}' that ranks texts is not supported",
                config.causal ? "causal " : "", file.architecture());
  }
  Binder binder(weights);
  OLLAMA_ASSIGN(std::unique_ptr<Model> model, entry->make(file, std::move(config), binder));
  OLLAMA_TRY(binder.status());
  return model;
}

}  // namespace ollama::model
