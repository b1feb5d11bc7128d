// Internal to convert: a checkpoint's config.json, read with bounds. The first error is kept and
// names the key, so that reading is a plain list.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "api/types.h"
#include "base/error.h"
#include "convert/source.h"

namespace ollama::convert {

class Config {
 public:
  // Models of more than text keep what concerns the text in "text_config": that is read instead.
  // Errors: kNotFound, kCorrupt.
  static Result<Config> read(const Source& source);

  // "LlamaForCausalLM": the first of "architectures", or else "model_type"; of the whole model.
  const std::string& architecture() const { return architecture_; }
  // Whether it has a classifier on top instead of giving text or embeddings.
  bool classifies() const { return architecture_.ends_with("ForSequenceClassification"); }
  // The last part of "_name_or_path", which is a path of whoever saved the model.
  const std::string& name() const { return name_; }
  // The object itself, for what has a shape of its own.
  const api::JsonObject& json() const { return json_; }

  // The value, or `fallback` where it is missing or null; an error without a fallback, and for
  // values outside [low, high].
  std::int64_t integer(std::string_view key, std::optional<std::int64_t> fallback,
                       std::int64_t low = 1, std::int64_t high = 1 << 20);
  double number(std::string_view key, std::optional<double> fallback);
  bool flag(std::string_view key, bool fallback);
  std::string text(std::string_view key, std::string_view fallback);
  // Keeps an error, unless there is one.
  void fail_with(ErrorCode code, std::string message);

  Result<> status() const {
    if (error_) return std::unexpected(*error_);
    return {};
  }

 private:
  api::JsonObject json_;
  std::string architecture_;
  std::string name_;
  std::optional<Error> error_;
};

}  // namespace ollama::convert
