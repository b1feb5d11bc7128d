// Internal to store: uploading one blob to a registry, in chunks, where the registry lacks it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>

#include "store/manifest.h"
#include "store/registry.h"

namespace ollama::store {

struct UploadOptions {
  std::uint64_t chunk = 100'000'000;  // bytes of a request
};

// Told how many bytes the registry has; an error ends the upload.
using UploadTick = std::function<Result<>(std::uint64_t completed)>;

// Asks the registry for the blob and sends it if it is missing there, from `path`. A chunk that
// breaks off goes on where the registry says that it got to. Where `layer.from` names a model of
// the same registry, the registry is asked to take the blob from there.
Result<> upload_blob(Registry& registry, HttpClient& client, const Layer& layer,
                     const std::filesystem::path& path, const UploadOptions& options,
                     const UploadTick& tick, const std::stop_token& stop);

Result<> upload_manifest(Registry& registry, HttpClient& client, std::string_view text,
                         const std::stop_token& stop);

}  // namespace ollama::store
