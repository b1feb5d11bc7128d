#include "convert/config.h"

#include <array>
#include <boost/json/array.hpp>
#include <cmath>
#include <format>

#include "gguf/parse.h"

namespace ollama::convert {
namespace {

constexpr std::string_view kConfig = "config.json";

// What a model of more than text may say once for all of its parts.
constexpr std::array<std::string_view, 4> kShared{"bos_token_id", "eos_token_id", "pad_token_id",
                                                  "tie_word_embeddings"};

std::string first_architecture(const api::JsonObject& json) {
  if (const auto* list = array_member(json, "architectures"); list != nullptr && !list->empty()) {
    if (const auto* name = list->front().if_string()) return std::string(view_of(*name));
  }
  return std::string(string_member(json, "model_type").value_or(""));
}

std::string base_name(std::string_view path) {
  while (path.ends_with('/')) path.remove_suffix(1);
  return std::string(path.substr(path.find_last_of('/') + 1));
}

}  // namespace

Result<Config> Config::read(const Source& source) {
  if (!source.has(kConfig)) return fail(ErrorCode::kNotFound, "{} is missing", kConfig);
  Config config;
  OLLAMA_ASSIGN(config.json_, source.json(kConfig));
  config.architecture_ = first_architecture(config.json_);
  config.name_ = base_name(string_member(config.json_, "_name_or_path").value_or(""));
  if (object_member(config.json_, "quantization_config") != nullptr) {
    return fail(ErrorCode::kUnsupported,
                "the weights are quantised already (quantization_config in {}): convert the model "
                "that they were made from",
                kConfig);
  }
  if (const auto* text = object_member(config.json_, "text_config")) {
    // A copy first: it is a part of what it replaces.
    api::JsonObject part = *text;
    for (const std::string_view key : kShared) {
      const api::Json* value = member(config.json_, key);
      if (value != nullptr && member(part, key) == nullptr) part[key] = *value;
    }
    config.json_ = std::move(part);
  }
  return config;
}

void Config::fail_with(ErrorCode code, std::string message) {
  if (!error_) error_.emplace(code, std::move(message));
}

std::int64_t Config::integer(std::string_view key, std::optional<std::int64_t> fallback,
                             std::int64_t low, std::int64_t high) {
  const api::Json* value = member(json_, key);
  const std::optional<std::int64_t> number = value == nullptr ? fallback : integer_of(*value);
  if (number && *number >= low && *number <= high) return *number;
  fail_with(ErrorCode::kCorrupt,
            value == nullptr && !fallback
                ? std::format("{}: {} is missing", kConfig, key)
                : std::format("{}: {} must be an integer from {} to {}", kConfig, key, low, high));
  return low;
}

double Config::number(std::string_view key, std::optional<double> fallback) {
  const api::Json* value = member(json_, key);
  const std::optional<double> number = value == nullptr ? fallback : number_of(*value);
  if (number && std::isfinite(*number)) return *number;
  fail_with(ErrorCode::kCorrupt, std::format("{}: {} must be a number", kConfig, key));
  return 0;
}

bool Config::flag(std::string_view key, bool fallback) {
  const api::Json* value = member(json_, key);
  if (value == nullptr) return fallback;
  if (const bool* flag = value->if_bool()) return *flag;
  fail_with(ErrorCode::kCorrupt, std::format("{}: {} must be true or false", kConfig, key));
  return fallback;
}

std::string Config::text(std::string_view key, std::string_view fallback) {
  const api::Json* value = member(json_, key);
  if (value == nullptr) return std::string(fallback);
  if (const auto* text = value->if_string()) return std::string(view_of(*text));
  fail_with(ErrorCode::kCorrupt, std::format("{}: {} must be a string", kConfig, key));
  return {};
}

}  // namespace ollama::convert
