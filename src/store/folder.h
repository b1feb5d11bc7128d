// Internal to store: the folder behind a Store.
#pragma once

#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "store/store.h"

namespace ollama::store {

inline constexpr std::size_t kMaxText = std::size_t{16} << 20;  // a template, a licence, messages

struct Folder {
  explicit Folder(Store::Options options_in) : options(std::move(options_in)) {}

  std::filesystem::path manifests() const { return options.models / "manifests"; }
  std::filesystem::path blobs() const { return options.models / "blobs"; }
  std::filesystem::path manifest_path(const Name& name) const { return manifests() / name.path(); }

  // All names that have a manifest, in no order. Strangers among the files are left out.
  std::vector<Name> names() const;
  // The name under which a model is stored: `name` itself or with other letters' case.
  std::optional<Name> find(const Name& name) const;
  // The manifest's text. Errors: kNotFound, kCorrupt.
  Result<std::string> manifest_text(const Name& name) const;
  Result<std::filesystem::path> blob_path(const Digest& digest) const;
  bool has_blob(const Digest& digest) const { return blob_path(digest).has_value(); }
  // A small blob's bytes.
  Result<std::string> blob_text(const Digest& digest) const;

  Result<Model> load(const Name& name) const;
  Result<Model> resolve(std::string_view text) const;
  bool is_bundled(const Name& name) const;
  // The bundled model; kNotFound where its file is missing.
  Result<Model> bundled() const;
  Result<Digest> import_file(const std::filesystem::path& path, const Progress& progress);

  // Gives `name` a manifest, replacing the one it has, whose unused blobs go when options.prune is
  // set. kNotFound when a blob is missing.
  Result<> commit(const Name& name, const Manifest& manifest);
  // Digests in any manifest, readable or not, as hex. Fails rather than leaving one out.
  Result<std::set<std::string>> references() const;
  // Removes those blobs that nothing refers to. `mutex` must be held.
  void remove_unused(const std::vector<Digest>& digests);

  Store::Options options;
  // Held while manifests change and blobs go.
  mutable std::mutex mutex;
  // Blobs of models that are being made: they stay although no manifest names them yet.
  std::multiset<Digest> pinned;

  mutable std::mutex bundled_mutex;
  mutable std::optional<Model> bundled_model;
};

// Keeps blobs from being removed while a model is made of them.
class Pins {
 public:
  explicit Pins(std::mutex& mutex, std::multiset<Digest>& pinned)
      : mutex_(mutex), pinned_(pinned) {}
  Pins(const Pins&) = delete;
  Pins& operator=(const Pins&) = delete;
  ~Pins() {
    const std::lock_guard lock(mutex_);
    for (const Digest& digest : mine_) pinned_.erase(pinned_.find(digest));
  }
  void add(const Digest& digest) {
    const std::lock_guard lock(mutex_);
    pinned_.insert(digest);
    mine_.push_back(digest);
  }

 private:
  std::mutex& mutex_;
  std::multiset<Digest>& pinned_;
  std::vector<Digest> mine_;
};

// kCancelled when the callback says so.
inline Result<> report(const Progress& progress, api::ProgressResponse response) {
  if (progress && !progress(response)) return fail(ErrorCode::kCancelled, "cancelled");
  return {};
}

}  // namespace ollama::store
