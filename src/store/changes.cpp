// Manifests that come, change and go. In every order of events that a crash can leave, a manifest
// that is there has its blobs: they are on the disk before it, and go after it.
#include <unistd.h>

#include <cerrno>

#include "store/files.h"
#include "store/folder.h"

namespace ollama::store {
namespace fs = std::filesystem;
namespace {

// Removes a manifest for good; and the folders that are empty then, up to HOST.
Result<> unlink_manifest(const Folder& folder, fs::path path) {
  std::error_code error;
  if (!fs::exists(fs::symlink_status(path, error))) return {};
  OLLAMA_TRY(folder.check_inside(path.parent_path()));
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return fail_errno(path.string(), errno);
  path = path.parent_path();
  OLLAMA_TRY(sync_folder(path));
  // Removing a folder that is not empty fails, which ends the loop.
  for (int i = 0; i < 3 && fs::remove(path, error); ++i) path = path.parent_path();
  return {};
}

}  // namespace

Result<> Folder::commit_text(const Name& name, std::string_view text, const Manifest& manifest,
                             Pins* pins) {
  std::vector<const Layer*> needed = {&manifest.config};
  for (const Layer& layer : manifest.layers) needed.push_back(&layer);
  for (const Layer* layer : needed) {
    auto path = blob_path(layer->digest);
    if (!path) return fail(std::move(path));
  }
  const std::set<Digest> before = digests_of(name);
  OLLAMA_TRY(check_inside(manifest_path(name).parent_path()));
  OLLAMA_TRY(write_file(manifest_path(name), text));
  OLLAMA_TRY(unlink_manifest(*this, linked_manifest_path(name)));  // it would hide ours
  if (pins != nullptr) pins->release();
  if (options.prune) remove_unused(before);
  return {};
}

Result<> Folder::commit(const Name& name, const Manifest& manifest, Pins* pins,
                        std::string_view exact) {
  OLLAMA_ASSIGN(const FolderLock lock, FolderLock::take(*this));
  return commit_text(name, exact.empty() ? to_text(manifest) : std::string(exact), manifest, pins);
}

Result<> Folder::copy_manifest(const Name& source, const Name& target) {
  OLLAMA_ASSIGN(const FolderLock lock, FolderLock::take(*this));
  OLLAMA_ASSIGN(const std::string text, manifest_text(source));
  OLLAMA_ASSIGN(const Manifest manifest, parse_manifest(text));
  return commit_text(target, text, manifest, nullptr);
}

Result<> Folder::remove(const Name& name) {
  OLLAMA_ASSIGN(const FolderLock lock, FolderLock::take(*this));
  const std::set<Digest> digests = digests_of(name);
  OLLAMA_TRY(unlink_manifest(*this, manifest_path(name)));
  OLLAMA_TRY(unlink_manifest(*this, linked_manifest_path(name)));
  remove_unused(digests);
  return {};
}

}  // namespace ollama::store
