// Reads arbitrary bytes as everything that a models folder or a registry names blobs and models by:
// manifests, lists of them, configurations, digests, names. What is accepted must be safe in a
// path, and written so that it is read the same.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "store/manifest.h"
#include "store/name.h"

namespace {

using namespace ollama;  // NOLINT(google-build-using-namespace)

void require(bool condition) {
  if (!condition) std::abort();
}

void read_name(std::string_view text) {
  const auto name = store::Name::parse(text);
  if (!name) return;
  const auto path = name->path();
  require(path.is_relative() && path.lexically_normal() == path);
  require(std::distance(path.begin(), path.end()) == 4);
  for (const auto& part : path) require(!part.string().starts_with('.'));
  require(store::Name::parse(name->full()).value() == *name);
  require(store::Name::parse_path(path).value() == *name);
}

void read_manifest(std::string_view text) {
  (void)store::choose_manifest(text);
  (void)store::listed_manifests(text);
  const auto manifest = store::parse_manifest(text);
  if (!manifest) return;
  require(manifest->layers.size() <= store::kMaxLayers);
  require(manifest->total_size() >= manifest->config.size);
  const auto again = store::parse_manifest(store::to_text(*manifest));
  // A text that is no UTF-8 is written as one that is.
  require(again.has_value() && again->layers.size() == manifest->layers.size());
  require(again->config.digest == manifest->config.digest);
}

void read_config(std::string_view text) {
  const auto config = store::parse_config(text);
  if (!config) return;
  require(store::parse_config(store::to_text(*config, {})).has_value());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  read_name(text);
  read_manifest(text);
  read_config(text);
  const auto digest = store::Digest::parse(text);
  require(!digest || digest->file_name().size() == 71);
  return 0;
}
