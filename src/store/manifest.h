// Manifests and configurations of models: the JSON files that name a model's blobs, in Ollama's
// format.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "api/types.h"
#include "base/error.h"
#include "store/digest.h"

namespace ollama::store {

inline constexpr std::string_view kManifestType =
    "application/vnd.docker.distribution.manifest.v2+json";
inline constexpr std::string_view kManifestListType =
    "application/vnd.ollama.manifest.list.v2+json";
inline constexpr std::string_view kConfigType = "application/vnd.docker.container.image.v1+json";
inline constexpr std::string_view kModelLayer = "application/vnd.ollama.image.model";
inline constexpr std::string_view kProjectorLayer = "application/vnd.ollama.image.projector";
inline constexpr std::string_view kAdapterLayer = "application/vnd.ollama.image.adapter";
inline constexpr std::string_view kDraftLayer = "application/vnd.ollama.image.draft";
inline constexpr std::string_view kTemplateLayer = "application/vnd.ollama.image.template";
inline constexpr std::string_view kPromptLayer = "application/vnd.ollama.image.prompt";  // older
inline constexpr std::string_view kSystemLayer = "application/vnd.ollama.image.system";
inline constexpr std::string_view kParamsLayer = "application/vnd.ollama.image.params";
inline constexpr std::string_view kMessagesLayer = "application/vnd.ollama.image.messages";
inline constexpr std::string_view kLicenseLayer = "application/vnd.ollama.image.license";

inline constexpr std::size_t kMaxManifestSize = std::size_t{4} << 20;
inline constexpr std::size_t kMaxLayers = 4096;

struct Layer {
  std::string media_type;
  Digest digest;
  std::uint64_t size = 0;  // bytes
  std::string from;        // the model or file it came from; usually empty
  std::string name;        // of a tensor, where a layer is one

  bool operator==(const Layer&) const = default;
};

struct Manifest {
  Layer config;
  std::vector<Layer> layers;  // of unknown types too

  // Bytes of all layers and the configuration.
  std::uint64_t total_size() const;
  const Layer* find(std::string_view media_type) const;
  bool operator==(const Manifest&) const = default;
};

// kCorrupt says what is wrong.
Result<Manifest> parse_manifest(std::string_view text);
std::string to_text(const Manifest& manifest);

// Newer versions of Ollama store a list of manifests for a model that exists in several formats.
// Which of them runs here: monostate when `text` is no list; else the digest of its blob, or the
// manifest itself. Errors: kCorrupt; kUnsupported when none does.
Result<std::variant<std::monostate, Digest, std::string>> choose_manifest(std::string_view text);
// Digests of all manifests that a list refers to; none when `text` is no list.
Result<std::vector<Digest>> listed_manifests(std::string_view text);

// The configuration blob.
struct ModelConfig {
  std::string model_format;  // "gguf"
  std::string model_family;
  std::vector<std::string> model_families;
  std::string model_type;  // the number of parameters: "1.2B"
  std::string file_type;   // the quantisation: "Q4_K_M"
  std::string renderer;
  std::string parser;
  std::string requires_version;
  std::string remote_host;  // of models that run elsewhere, which are not supported
  std::string remote_model;
  api::JsonObject others;  // what else it says, kept for those who know it

  bool operator==(const ModelConfig&) const = default;
};

Result<ModelConfig> parse_config(std::string_view text);
std::string to_text(const ModelConfig& config, const std::vector<Layer>& layers);

}  // namespace ollama::store
