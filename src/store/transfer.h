// Pulling models from registries and pushing them there, as Ollama does it.
//
// A pull takes the manifest, then the blobs that are missing, in parallel ranges, each checked
// before it becomes visible; the model's name appears last. What a break leaves is kept, and the
// next pull goes on with it, in this process or another. Two pulls of a blob share its download. A
// push sends the blobs that the registry lacks, then the manifest.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <stop_token>

#include "envconfig/config.h"
#include "store/download.h"
#include "store/registry.h"
#include "store/store.h"
#include "store/upload.h"

namespace ollama::store {

// Safe to use from several threads. Outlived by the store.
class Transfers {
 public:
  struct Options {
    RegistryOptions registry;
    DownloadOptions download;
    UploadOptions upload;
    bool prune = true;  // of what a new version of a model no longer uses
    // Bytes that may be written in a folder; unset: what its file system says.
    std::function<Result<std::uint64_t>(const std::filesystem::path&)> free_space = {};
  };
  static Options options_of(const envconfig::Config& config);

  Transfers(Store& store, Options options);
  Transfers(const Transfers&) = delete;
  Transfers& operator=(const Transfers&) = delete;
  ~Transfers();  // ends what is under way

  // Both block, perhaps for hours, and end soon after a stop is requested (kCancelled). Progress:
  // "pulling manifest", "pulling 6a0746a1ec1a" with digest and bytes for each layer, "verifying
  // sha256 digest", "writing manifest", "removing unused layers", "success"; "retrieving manifest",
  // "pushing 6a0746a1ec1a", "pushing manifest", "success".
  //
  // Errors: kInvalidArgument "invalid model name", "insecure protocol http"; kNotFound "pull model
  // manifest: file does not exist"; kPermission; kCorrupt (what the registry says breaks the
  // format, or a digest or size is another one); kUnavailable and kTimeout after the last attempt;
  // kIo (disk).
  Result<> pull(const api::PullRequest& request, const Progress& progress,
                const std::stop_token& stop = {});
  Result<> push(const api::PushRequest& request, const Progress& progress,
                const std::stop_token& stop = {});

 private:
  struct Job;
  Result<> check_space(const Manifest& manifest) const;
  bool has(const Layer& layer) const;
  Result<> fetch(Job& job, const Layer& layer);

  Store& store_;
  Options options_;
  Downloads downloads_;
};

}  // namespace ollama::store
