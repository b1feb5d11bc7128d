#include "store/manifest.h"

#include <algorithm>
#include <array>
#include <boost/json/array.hpp>
#include <optional>

#include "api/types.h"

namespace ollama::store {
namespace {

using api::Json;
using api::JsonObject;

template <typename... Args>
std::unexpected<Error> corrupt(std::format_string<Args...> format, Args&&... args) {
  return fail(ErrorCode::kCorrupt, format, std::forward<Args>(args)...);
}

// A text of the object; empty when it is missing. nullopt when it is no text.
std::optional<std::string> text_of(const JsonObject& object, std::string_view key) {
  const Json* value = object.if_contains(key);
  if (value == nullptr || value->is_null()) return std::string();
  if (!value->is_string()) return std::nullopt;
  return std::string(value->get_string());
}

Result<Layer> parse_layer(const Json& json, std::string_view what) {
  const JsonObject* object = json.if_object();
  if (object == nullptr) return corrupt("{} is not an object", what);
  const auto media_type = text_of(*object, "mediaType");
  const auto digest_text = text_of(*object, "digest");
  const auto from = text_of(*object, "from");
  const auto name = text_of(*object, "name");
  if (!media_type || !digest_text || !from || !name)
    return corrupt("{} has fields of wrong types", what);
  auto digest = Digest::parse(*digest_text);
  if (!digest) return corrupt("{}: {}", what, digest.error().message());
  const Json* size = object->if_contains("size");
  if (size == nullptr || !size->is_int64() || size->get_int64() < 0) {
    return corrupt("{} has no valid size", what);
  }
  return Layer{*media_type, std::move(*digest), static_cast<std::uint64_t>(size->get_int64()),
               *from, *name};
}

JsonObject json_of(const Layer& layer) {
  JsonObject object;
  object.emplace("mediaType", layer.media_type);
  object.emplace("digest", layer.digest.text());
  object.emplace("size", layer.size);
  if (!layer.from.empty()) object.emplace("from", layer.from);
  if (!layer.name.empty()) object.emplace("name", layer.name);
  return object;
}

// What parse_config reads, and what is written anew for each model.
constexpr std::array<std::string_view, 13> kKnown = {
    "model_format", "model_family", "model_families", "model_type",  "file_type",
    "renderer",     "parser",       "requires",       "remote_host", "remote_model",
    "architecture", "os",           "rootfs"};

constexpr std::string_view kArchitecture =
#if defined(__x86_64__)
    "amd64";
#elif defined(__aarch64__)
    "arm64";
#elif defined(__riscv)
    "riscv64";
#else
    "unknown";
#endif

}  // namespace

std::uint64_t Manifest::total_size() const {
  std::uint64_t total = config.size;
  for (const Layer& layer : layers) total += layer.size;
  return total;
}

const Layer* Manifest::find(std::string_view media_type) const {
  for (const Layer& layer : layers) {
    if (layer.media_type == media_type) return &layer;
  }
  return nullptr;
}

Result<Manifest> parse_manifest(std::string_view text) {
  const auto json = api::parse_json(text);
  if (!json) return corrupt("the manifest is {}", json.error().message());
  const JsonObject* object = json->if_object();
  if (object == nullptr) return corrupt("the manifest is not a JSON object");
  const Json* version = object->if_contains("schemaVersion");
  if (version == nullptr || !version->is_int64() || version->get_int64() != 2) {
    return corrupt("the manifest's schemaVersion is not 2");
  }
  const Json* config = object->if_contains("config");
  if (config == nullptr) return corrupt("the manifest has no config");
  OLLAMA_ASSIGN(Layer config_layer, parse_layer(*config, "the manifest's config"));

  Manifest manifest{std::move(config_layer), {}};
  const Json* layers = object->if_contains("layers");
  if (layers == nullptr || layers->is_null()) return manifest;
  const auto* items = layers->if_array();
  if (items == nullptr) return corrupt("the manifest's layers are not an array");
  if (items->size() > kMaxLayers) {
    return corrupt("the manifest has {} layers, more than {}", items->size(), kMaxLayers);
  }
  for (const Json& item : *items) {
    OLLAMA_ASSIGN(Layer layer, parse_layer(item, std::format("the manifest's layer {}",
                                                             manifest.layers.size())));
    // Sums of sizes stay far from overflow.
    if (layer.size > std::uint64_t{1} << 50) {
      return corrupt("the manifest's layer {} has no valid size", manifest.layers.size());
    }
    manifest.layers.push_back(std::move(layer));
  }
  return manifest;
}

std::string to_text(const Manifest& manifest) {
  JsonObject object;
  object.emplace("schemaVersion", 2);
  object.emplace("mediaType", kManifestType);
  object.emplace("config", json_of(manifest.config));
  boost::json::array layers;
  for (const Layer& layer : manifest.layers) layers.emplace_back(json_of(layer));
  object.emplace("layers", std::move(layers));
  return api::to_string(object) + "\n";
}

namespace {

// The entries of a list of manifests; nullopt when `json` is none.
Result<std::optional<boost::json::array>> entries_of_list(const Json& json) {
  const JsonObject* object = json.if_object();
  if (object == nullptr || text_of(*object, "mediaType") != kManifestListType) return std::nullopt;
  const Json* manifests = object->if_contains("manifests");
  if (manifests == nullptr || !manifests->is_array() || manifests->get_array().size() > 256) {
    return corrupt("the list of manifests is damaged");
  }
  for (const Json& entry : manifests->get_array()) {
    if (!entry.is_object()) return corrupt("the list of manifests is damaged");
  }
  return manifests->get_array();
}

Result<Json> manifest_json(std::string_view text) {
  auto json = api::parse_json(text);
  if (!json) return corrupt("the manifest is {}", json.error().message());
  return std::move(*json);
}

}  // namespace

Result<std::variant<std::monostate, Digest, std::string>> choose_manifest(std::string_view text) {
  OLLAMA_ASSIGN(const Json json, manifest_json(text));
  OLLAMA_ASSIGN(const auto entries, entries_of_list(json));
  if (!entries) return std::monostate();
  for (const std::string_view runner : {"ollama", "llamacpp"}) {
    for (const Json& entry : *entries) {
      const JsonObject& object = entry.get_object();
      if (text_of(object, "runner") != runner) continue;
      if (object.contains("config")) return api::to_string(object) + "\n";
      const auto digest = Digest::parse(text_of(object, "digest").value_or(""));
      if (!digest) return corrupt("the list of manifests: {}", digest.error().message());
      return *digest;
    }
  }
  return fail(ErrorCode::kUnsupported, "none of its formats is GGUF, and others do not run here");
}

Result<std::vector<Digest>> listed_manifests(std::string_view text) {
  OLLAMA_ASSIGN(const Json json, manifest_json(text));
  OLLAMA_ASSIGN(const auto entries, entries_of_list(json));
  std::vector<Digest> digests;
  if (!entries) return digests;
  for (const Json& entry : *entries) {
    const auto digest = text_of(entry.get_object(), "digest");
    if (!digest || digest->empty()) continue;
    OLLAMA_ASSIGN(Digest parsed, Digest::parse(*digest));
    digests.push_back(std::move(parsed));
  }
  return digests;
}

Result<ModelConfig> parse_config(std::string_view text) {
  const auto json = api::parse_json(text);
  if (!json) return corrupt("the model's configuration is {}", json.error().message());
  const JsonObject* object = json->if_object();
  if (object == nullptr) return corrupt("the model's configuration is not a JSON object");
  ModelConfig config;
  const auto read = [&](std::string_view key, std::string& out) {
    auto value = text_of(*object, key);
    if (value) out = std::move(*value);
    return value.has_value();
  };
  if (!read("model_format", config.model_format) || !read("model_family", config.model_family) ||
      !read("model_type", config.model_type) || !read("file_type", config.file_type) ||
      !read("renderer", config.renderer) || !read("parser", config.parser) ||
      !read("requires", config.requires_version) || !read("remote_host", config.remote_host) ||
      !read("remote_model", config.remote_model)) {
    return corrupt("the model's configuration has fields of wrong types");
  }
  const Json* families = object->if_contains("model_families");
  if (families != nullptr && families->is_array()) {
    for (const Json& family : families->get_array()) {
      if (!family.is_string()) {
        return corrupt("the model's configuration has fields of wrong types");
      }
      config.model_families.emplace_back(family.get_string());
    }
  }
  for (const auto& [key, value] : *object) {
    if (!std::ranges::contains(kKnown, std::string_view(key))) config.others.emplace(key, value);
  }
  return config;
}

std::string to_text(const ModelConfig& config, const std::vector<Layer>& layers) {
  JsonObject object;
  const auto put = [&](std::string_view key, const std::string& value) {
    if (!value.empty()) object.emplace(key, value);
  };
  object.emplace("model_format", config.model_format);
  object.emplace("model_family", config.model_family);
  boost::json::array families;
  for (const std::string& family : config.model_families) families.emplace_back(family);
  object.emplace("model_families", families.empty() ? Json() : Json(std::move(families)));
  object.emplace("model_type", config.model_type);
  object.emplace("file_type", config.file_type);
  put("renderer", config.renderer);
  put("parser", config.parser);
  put("requires", config.requires_version);
  put("remote_host", config.remote_host);
  put("remote_model", config.remote_model);
  for (const auto& [key, value] : config.others) object.emplace(key, value);
  object.emplace("architecture", kArchitecture);
  object.emplace("os", "linux");
  boost::json::array ids;
  for (const Layer& layer : layers) ids.emplace_back(layer.digest.text());
  JsonObject root;
  root.emplace("type", "layers");
  root.emplace("diff_ids", std::move(ids));
  object.emplace("rootfs", std::move(root));
  return api::to_string(object) + "\n";
}

}  // namespace ollama::store
