// Which blobs are in use, and removing those that are not.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <format>
#include <optional>

#include "base/log.h"
#include "store/files.h"
#include "store/folder.h"
#include "store/workshop.h"

namespace ollama::store {
namespace fs = std::filesystem;
namespace {

// Of blobs that nothing refers to: a model may be in the making, by a running Ollama.
constexpr auto kKeptUnused = std::chrono::hours(1);
// Of the parts of a broken download that Ollama could go on with.
constexpr auto kKeptPartial = std::chrono::hours(24 * 7);
constexpr int kMaxDepth = 8;
constexpr std::size_t kNameSize = 71;                            // of "sha256-" and the digits
constexpr std::size_t kMaxManifestFile = std::size_t{64} << 20;  // also another program's

// Every digest in a text, whatever else it says.
void collect(std::string_view text, std::set<Digest>& into) {
  for (std::size_t at = text.find("sha256"); at != std::string_view::npos;
       at = text.find("sha256", at + 1)) {
    if (auto digest = Digest::parse(text.substr(at, kNameSize))) into.insert(std::move(*digest));
  }
}

// The digests in a manifest, and in those that it lists. Errors: it, or one of those, cannot be
// read.
Result<> collect_manifest(const Folder& folder, std::string_view text, std::set<Digest>& into) {
  const auto json = api::parse_json(text);
  if (!json || !json->is_object()) {
    return fail(ErrorCode::kCorrupt, "it is no manifest, or damaged");
  }
  collect(text, into);
  OLLAMA_ASSIGN(const std::vector<Digest> listed, listed_manifests(text));
  for (const Digest& digest : listed) {
    const auto child = folder.blob_text(digest);
    // Of a list only the manifests are there that somebody pulled.
    if (!child && child.error().code() == ErrorCode::kNotFound) continue;
    if (!child) return fail(child);
    collect(*child, into);
  }
  return {};
}

// Collects the digests in all manifests below a folder.
class Walk {
 public:
  Walk(const Folder& folder, std::set<Digest>& into) : folder_(folder), into_(into) {}

  Result<> go(const fs::path& path, int depth = 0) {  // NOLINT(misc-no-recursion): kMaxDepth
    std::error_code error;
    const auto status = fs::status(path, error);
    if (!fs::exists(status)) {
      // Nothing there is fine; a link to nothing is a manifest that cannot be read.
      if (!fs::is_symlink(fs::symlink_status(path, error))) return {};
      return fail(ErrorCode::kNotFound, "{}: the link leads nowhere", path.string());
    }
    OLLAMA_TRY(folder_.check_inside(path));
    if (!fs::is_directory(status)) return read(path);
    if (depth > kMaxDepth) {
      return fail(ErrorCode::kCorrupt, "{}: folders are nested too deeply", path.string());
    }
    fs::directory_iterator it(path, error);
    for (; !error && it != fs::directory_iterator(); it.increment(error)) {
      OLLAMA_TRY(go(it->path(), depth + 1));
    }
    if (error) return fail_errno(path.string(), error.value());
    return {};
  }

 private:
  Result<> read(const fs::path& path) {
    // Of a write that a crash broke off.
    if (path.filename().string().starts_with(kTemporaryPrefix) && remove_if_abandoned(path)) {
      return {};
    }
    const auto text = read_file(path, kMaxManifestFile);
    if (!text && text.error().code() == ErrorCode::kNotFound) return {};  // just removed
    if (!text) return fail(text);
    // A manifest may itself be a blob that a link leads to.
    into_.insert(digest_of(*text));
    if (path.filename().string().starts_with('.')) {
      collect(*text, into_);  // a stranger's (.DS_Store), or one that is being written
      return {};
    }
    if (const auto read = collect_manifest(folder_, *text, into_); !read) {
      return std::unexpected(read.error().with_context(path.string()));
    }
    return {};
  }

  const Folder& folder_;
  std::set<Digest>& into_;
};

using Age = std::chrono::system_clock::duration;

struct Blob {
  fs::path path;
  std::string name;
  std::uint64_t size = 0;
  Age age{};  // since its last change
};

std::vector<Blob> files_in(const fs::path& folder) {
  std::vector<Blob> files;
  std::error_code error;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    struct stat info{};
    if (::lstat(it->path().c_str(), &info) != 0) continue;
    if (!S_ISREG(info.st_mode) && !S_ISLNK(info.st_mode)) continue;
    Blob blob{.path = it->path(), .name = it->path().filename().string()};
    if (S_ISREG(info.st_mode)) blob.size = static_cast<std::uint64_t>(info.st_size);
    blob.age = now - std::chrono::seconds(info.st_mtim.tv_sec) -
               std::chrono::nanoseconds(info.st_mtim.tv_nsec);
    files.push_back(std::move(blob));
  }
  return files;
}

// "sha256-HEX-partial", "sha256-HEX-partial-3": Ollama's downloads.
bool is_partial(std::string_view name) {
  return name.size() > kNameSize && name.substr(kNameSize).starts_with("-partial") &&
         Digest::parse(name.substr(0, kNameSize)).has_value();
}

}  // namespace

Result<std::set<Digest>> Folder::references() const {
  std::set<Digest> digests;
  Walk walk(*this, digests);
  OLLAMA_TRY(walk.go(manifests()));
  OLLAMA_TRY(walk.go(linked_manifests()));
  return digests;
}

std::set<Digest> Folder::digests_of(const Name& name) const {
  std::set<Digest> digests;
  for (const fs::path& path : {manifest_path(name), linked_manifest_path(name)}) {
    if (!check_inside(path)) continue;
    const auto text = read_file(path, kMaxManifestSize);
    if (!text) continue;
    digests.insert(digest_of(*text));
    collect(*text, digests);  // of a damaged one, what is left
    (void)collect_manifest(*this, *text, digests);
  }
  return digests;
}

void Folder::remove_unused(const std::set<Digest>& candidates) const {
  if (candidates.empty()) return;
  const auto used = references();
  const auto wanted = pinned();
  if (!used || !wanted) {
    log::warn("no blobs are removed: {}", (used ? wanted.error() : used.error()).message());
    return;
  }
  for (const Digest& digest : candidates) {
    if (used->contains(digest) || wanted->contains(digest)) continue;
    const fs::path path = blobs() / digest.file_name();
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
      log::warn("{}", fail_errno(path.string(), errno).error().message());
    }
  }
}

Result<std::uint64_t> Folder::prune() {
  std::error_code error;
  if (!fs::exists(blobs(), error)) return 0U;
  OLLAMA_ASSIGN(const FolderLock lock, FolderLock::take(*this));
  OLLAMA_ASSIGN(const std::set<Digest> used, references());
  OLLAMA_ASSIGN(const std::set<Digest> wanted, pinned());
  const std::vector<Blob> files = files_in(blobs());
  // A download that goes on has complete blobs already, of any age, and no manifest yet.
  const bool downloading = std::ranges::any_of(
      files, [](const Blob& file) { return is_partial(file.name) && file.age < kKeptUnused; });
  if (downloading) log::info("a download goes on: unused blobs are kept");

  // A download's files count as one: its finished parts are not touched while others come.
  std::map<std::string, Age> partials;
  for (const Blob& file : files) {
    if (!is_partial(file.name)) continue;
    Age& age = partials.try_emplace(file.name.substr(0, kNameSize), file.age).first->second;
    age = std::min(age, file.age);
  }

  std::uint64_t freed = WorkFolder::remove_abandoned(blobs());
  for (const Blob& file : files) {
    if (file.name.starts_with(kTemporaryPrefix)) {
      if (remove_if_abandoned(file.path)) freed += file.size;
      continue;
    }
    const auto digest = Digest::parse(file.name);
    const bool blob = digest && digest->file_name() == file.name && !used.contains(*digest) &&
                      !wanted.contains(*digest) && !downloading && file.age > kKeptUnused;
    const bool part =
        is_partial(file.name) && partials.at(file.name.substr(0, kNameSize)) > kKeptPartial;
    if ((blob || part) && ::unlink(file.path.c_str()) == 0) freed += file.size;
  }
  return freed;
}

}  // namespace ollama::store
