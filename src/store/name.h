// Model names: [host/][namespace/]model[:tag], as Ollama reads them.
#pragma once

#include <compare>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/error.h"

namespace ollama::store {

inline constexpr std::string_view kDefaultHost = "registry.ollama.ai";
inline constexpr std::string_view kDefaultNamespace = "library";
inline constexpr std::string_view kDefaultTag = "latest";

// A complete name whose every part is valid: only parse() and parse_path() make one, so that a Name
// is safe as part of a path. Letters keep their case.
class Name {
 public:
  // Missing parts are filled with the defaults; "https://" before the host is skipped. Parts are
  // made of letters, digits, '_', '-' and '.' (no '.' in a namespace, ':' in a host) and begin with
  // a letter, a digit or '_'; a host has at most 350 bytes, other parts 80. kInvalidArgument
  // otherwise.
  static Result<Name> parse(std::string_view text);
  // HOST/NAMESPACE/MODEL/TAG, all four.
  static Result<Name> parse_path(const std::filesystem::path& path);

  const std::string& host() const { return host_; }
  const std::string& name_space() const { return namespace_; }
  const std::string& model() const { return model_; }
  const std::string& tag() const { return tag_; }

  // "registry.ollama.ai/library/llama3:latest".
  std::string full() const;
  // Without the default host and namespace: "llama3:latest".
  std::string display() const;
  // HOST/NAMESPACE/MODEL/TAG.
  std::filesystem::path path() const;
  // The same name but for the case of letters.
  bool same_as(const Name& other) const;

  auto operator<=>(const Name&) const = default;

 private:
  Name() = default;

  std::string host_;
  std::string namespace_;
  std::string model_;
  std::string tag_;
};

}  // namespace ollama::store
