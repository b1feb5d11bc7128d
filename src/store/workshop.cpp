#include "store/workshop.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <format>
#include <utility>

#include "gguf/file.h"
#include "store/files.h"

namespace ollama::store {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kPrefix = ".tmp-work-";  // begins with kTemporaryPrefix
// Clients show a bar for each digest, and it is not known yet: Ollama has the second of these.
constexpr std::string_view kConverting = "0000000000000000001";
constexpr std::string_view kQuantising = "0000000000000000000";

UniqueFd open_folder(const fs::path& path) {
  return UniqueFd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
}

bool lock(int fd) { return ::flock(fd, LOCK_EX | LOCK_NB) == 0; }

// Whether it still has a name: another process may have taken a new folder for an abandoned one.
bool exists(int fd, const fs::path& path) {
  struct stat ours{};
  struct stat named{};
  return ::fstat(fd, &ours) == 0 && ::lstat(path.c_str(), &named) == 0 &&
         ours.st_ino == named.st_ino && ours.st_dev == named.st_dev;
}

std::uint64_t size_of_files(const fs::path& folder) {
  std::uint64_t size = 0;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    std::error_code ignored;
    if (it->is_regular_file(ignored)) size += it->file_size(ignored);
  }
  return size;
}

}  // namespace

// ---- the folder

Result<WorkFolder> WorkFolder::create(const fs::path& parent) {
  OLLAMA_TRY(make_folder(parent));
  WorkFolder folder;
  do {
    std::string pattern = (parent / std::format("{}XXXXXX", kPrefix)).string();
    if (::mkdtemp(pattern.data()) == nullptr) return fail_errno(parent.string(), errno);
    folder.path_ = pattern;
    folder.lock_ = open_folder(folder.path_);
    if (!folder.lock_ && errno != ENOENT) return fail_errno(pattern, errno);
    // A file system without locks does not keep us from working.
  } while (!folder.lock_ || (!lock(folder.lock_.get()) && errno == EWOULDBLOCK) ||
           !exists(folder.lock_.get(), folder.path_));
  return folder;
}

WorkFolder::WorkFolder(WorkFolder&& other) noexcept
    : lock_(std::move(other.lock_)), path_(std::exchange(other.path_, {})) {}

WorkFolder& WorkFolder::operator=(WorkFolder&& other) noexcept {
  if (this != &other) {
    discard();
    lock_ = std::move(other.lock_);
    path_ = std::exchange(other.path_, {});
  }
  return *this;
}

WorkFolder::~WorkFolder() { discard(); }

void WorkFolder::discard() {
  std::error_code ignored;
  if (!path_.empty()) fs::remove_all(path_, ignored);
  path_.clear();
}

std::uint64_t WorkFolder::remove_abandoned(const fs::path& parent) {
  std::uint64_t freed = 0;
  std::error_code error;
  for (fs::directory_iterator it(parent, error), end; !error && it != end; it.increment(error)) {
    if (!it->path().filename().string().starts_with(kPrefix)) continue;
    const UniqueFd folder = open_folder(it->path());
    if (!folder || !lock(folder.get())) continue;
    const std::uint64_t size = size_of_files(it->path());
    std::error_code failed;
    fs::remove_all(it->path(), failed);
    if (!failed) freed += size;
  }
  return freed;
}

// ---- the work

Result<> Workshop::convert(std::vector<SourceFile> checkpoint) {
  return run({.checkpoint = std::move(checkpoint)}, "converting model");
}

Result<> Workshop::quantise(const fs::path& source, const gguf::QuantMix& mix) {
  OLLAMA_ASSIGN(const gguf::File file, gguf::File::open(source));
  return run({.model = source, .mix = std::string(mix.name)},
             std::format("quantizing {} model to {}", gguf::file_type_name(file), mix.name));
}

Result<> Workshop::run(Conversion conversion, const std::string& status) {
  if (!folder_.options.converter) {
    return fail(ErrorCode::kUnsupported, "{} is not supported here", status);
  }
  if (!work_) {
    OLLAMA_ASSIGN(work_, WorkFolder::create(folder_.blobs()));
  }
  conversion.output = work_->path() / (conversion.mix.empty() ? "converted" : "quantised");
  api::ProgressResponse response;
  response.status = status;
  response.digest = conversion.mix.empty() ? kConverting : kQuantising;
  OLLAMA_TRY(report(progress_, response));
  OLLAMA_TRY(
      folder_.options.converter->convert(conversion, [&](std::uint64_t done, std::uint64_t total) {
        response.completed = done;
        response.total = total;
        return report(progress_, response).has_value();
      }));
  made_ = conversion.output;
  return {};
}

Result<Digest> Workshop::publish(Pins& pins) {
  OLLAMA_TRY(report(progress_, {.status = "verifying conversion"}));
  OLLAMA_ASSIGN(Digest digest, digest_of_file(made_));
  OLLAMA_TRY(pins.add(digest));
  if (folder_.has_blob(digest)) {
    OLLAMA_TRY(report(progress_, {.status = "using existing layer " + digest.text()}));
    return digest;
  }
  OLLAMA_TRY(report(progress_, {.status = "creating new layer " + digest.text()}));
  const fs::path target = folder_.blobs() / digest.file_name();
  // The file is on the disk already; its new name must get there too.
  if (::rename(made_.c_str(), target.c_str()) != 0) return fail_errno(target.string(), errno);
  if (const UniqueFd blobs = open_folder(folder_.blobs()); blobs) ::fsync(blobs.get());
  return digest;
}

}  // namespace ollama::store
