// How processes that share a models folder keep out of each other's way.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <span>
#include <thread>

#include "base/log.h"
#include "store/files.h"
#include "store/folder.h"

namespace ollama::store {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kPinsPrefix = ".tmp-pins-";
constexpr auto kPatience = std::chrono::seconds(30);
constexpr auto kPause = std::chrono::milliseconds(1);

}  // namespace

Result<FolderLock> FolderLock::take(Folder& folder) {
  FolderLock lock{std::unique_lock(folder.mutex)};
  const fs::path& path = folder.options.models;
  OLLAMA_TRY(make_folder(path));
  // The folder itself is locked: a file for the purpose would be a stranger in Ollama's layout.
  lock.everywhere_.reset(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!lock.everywhere_) return fail_errno(path.string(), errno);
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (::flock(lock.everywhere_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) {
      // Some network file systems lock no folders: only this process's threads are kept apart.
      log::debug("{} cannot be locked: errno {}", path.string(), errno);
      break;
    }
    if (std::chrono::steady_clock::now() > deadline) {
      return fail(ErrorCode::kUnavailable,
                  "{} is being changed by another process, which does not come to an end",
                  path.string());
    }
    std::this_thread::sleep_for(kPause);
  }
  return lock;
}

Result<> Pins::add(const Digest& digest) {
  // Whoever removes blobs has either seen this pin, or removed the blob before add() returns.
  OLLAMA_ASSIGN(const FolderLock lock, FolderLock::take(folder_));
  if (!file_) {
    OLLAMA_ASSIGN(file_, TemporaryFile::create(folder_.blobs(), kPinsPrefix));
  }
  const std::string line = digest.hex() + "\n";
  OLLAMA_TRY(file_->write(std::as_bytes(std::span(line))));
  // Programs that know nothing of pins (Ollama) keep what is younger than an hour.
  const std::array<timespec, 2> now{timespec{0, UTIME_NOW}, timespec{0, UTIME_NOW}};
  ::utimensat(AT_FDCWD, (folder_.blobs() / digest.file_name()).c_str(), now.data(),
              AT_SYMLINK_NOFOLLOW);
  return {};
}

Result<std::set<Digest>> Folder::pinned() const {
  constexpr std::size_t kMaxPins = std::size_t{16} << 20;
  std::set<Digest> digests;
  std::error_code error;
  for (fs::directory_iterator it(blobs(), error), end; !error && it != end; it.increment(error)) {
    if (!it->path().filename().string().starts_with(kPinsPrefix)) continue;
    if (remove_if_abandoned(it->path())) continue;
    auto text = read_file(it->path(), kMaxPins);
    if (!text && text.error().code() == ErrorCode::kNotFound) continue;  // just taken off
    if (!text) return fail(std::move(text));
    for (std::size_t at = 0; at + 65 <= text->size(); at += 65) {
      OLLAMA_ASSIGN(Digest digest, Digest::parse("sha256:" + text->substr(at, 64)));
      digests.insert(std::move(digest));
    }
  }
  return digests;
}

}  // namespace ollama::store
