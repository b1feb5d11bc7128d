// Internal to store: the folder behind a Store, and how those who change it keep out of each
// other's way.
//
// Several threads, several of our processes and a running Ollama may use one folder. Two rules keep
// its models whole:
//   - Manifests change, and blobs go, under a FolderLock only.
//   - Whoever makes a model pins each blob before relying on it: what is pinned does not go.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/unique_fd.h"
#include "store/files.h"
#include "store/store.h"

namespace ollama::store {

inline constexpr std::size_t kMaxText = std::size_t{16} << 20;  // a template, a licence, messages

struct Folder {
  explicit Folder(Store::Options options_in) : options(std::move(options_in)) {}

  std::filesystem::path manifests() const { return options.models / "manifests"; }
  // Where newer versions of Ollama keep their manifests: links to blobs. Read, never written.
  std::filesystem::path linked_manifests() const { return options.models / "manifests-v2"; }
  std::filesystem::path blobs() const { return options.models / "blobs"; }
  // Where we write the name's manifest.
  std::filesystem::path manifest_path(const Name& name) const { return manifests() / name.path(); }
  std::filesystem::path linked_manifest_path(const Name& name) const;
  // Where it is: one of the two.
  std::filesystem::path existing_manifest_path(const Name& name) const;

  // kPermission when links on its way lead out of the models' folder. The last part need not exist.
  Result<> check_inside(const std::filesystem::path& path) const;

  // All names that have a manifest, in no order. Strangers among the files are left out.
  std::vector<Name> names() const;
  // The name under which a model is stored: `name` itself or with other letters' case.
  std::optional<Name> find(const Name& name) const;
  // The manifest's text; of a list of manifests, the one that can run here. Errors: kNotFound,
  // kCorrupt, kPermission.
  Result<std::string> manifest_text(const Name& name) const;
  Result<std::filesystem::path> blob_path(const Digest& digest) const;
  bool has_blob(const Digest& digest) const { return blob_path(digest).has_value(); }
  // A small blob's bytes.
  Result<std::string> blob_text(const Digest& digest) const;

  Result<Model> load(const Name& name) const;
  Result<Model> resolve(std::string_view text) const;
  std::optional<Model> recall(std::string_view text) const;
  bool is_bundled(const Name& name) const;
  // The bundled model; kNotFound where its file is missing.
  Result<Model> bundled() const;
  // The file's bytes as a blob, pinned by `pins` before it is visible.
  Result<Digest> import_file(const std::filesystem::path& path, const Progress& progress,
                             Pins* pins = nullptr);

  // Gives `name` a manifest, replacing the one it has, whose unused blobs go when options.prune is
  // set. kNotFound when a blob is missing. `pins` are taken off once the manifest is there.
  // `exact`, where there is one, is the text written.
  Result<> commit(const Name& name, const Manifest& manifest, Pins* pins = nullptr,
                  std::string_view exact = {});
  // Gives `target` the manifest that `source` has, byte for byte.
  Result<> copy_manifest(const Name& source, const Name& target);
  // Takes the name away, then the blobs that only it used.
  Result<> remove(const Name& name);
  Result<std::uint64_t> prune();

  Store::Options options;
  std::mutex mutex;  // FolderLock's

  mutable std::mutex bundled_mutex;
  mutable std::optional<Model> bundled_model;
  // What resolve() found, and the manifests that it read.
  struct Resolved {
    FileIdentity manifest;
    Model model;
  };
  mutable std::mutex resolved_mutex;
  mutable std::map<Name, Resolved> resolved;

 private:
  // These need a FolderLock.
  Result<> commit_text(const Name& name, std::string_view text, const Manifest& manifest,
                       Pins* pins);
  // Digests that any manifest names. Fails rather than leaving one out.
  Result<std::set<Digest>> references() const;
  // Digests that somebody pins.
  Result<std::set<Digest>> pinned() const;
  // What the name's own manifests refer to, as far as they can be read.
  std::set<Digest> digests_of(const Name& name) const;
  void remove_unused(const std::set<Digest>& candidates) const;
};

// Excludes every other change to a models folder: by this process, and by others that use it.
class FolderLock {
 public:
  // Makes the folder if need be. kUnavailable when another process keeps it locked for very long.
  static Result<FolderLock> take(Folder& folder);

 private:
  explicit FolderLock(std::unique_lock<std::mutex> here) : here_(std::move(here)) {}

  std::unique_lock<std::mutex> here_;
  UniqueFd everywhere_;
};

// An error of a stored model: kNotFound where a part of it is missing.
Error of_model(const Name& name, const Error& error);

// Keeps blobs from being removed while a model is made of them, even by another process. They need
// not exist yet. A list in a file says so, which counts while its writer lives. Not to be used
// while holding a FolderLock.
class Pins {
 public:
  explicit Pins(Folder& folder) : folder_(folder) {}
  Pins(const Pins&) = delete;
  Pins& operator=(const Pins&) = delete;

  Result<> add(const Digest& digest);
  // The blobs are on their own again.
  void release() { file_.reset(); }

 private:
  Folder& folder_;
  std::optional<TemporaryFile> file_;
};

// kCancelled when the callback says so.
inline Result<> report(const Progress& progress, const api::ProgressResponse& response) {
  if (progress && !progress(response)) return fail(ErrorCode::kCancelled, "cancelled");
  return {};
}

}  // namespace ollama::store
