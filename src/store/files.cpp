#include "store/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <utility>

namespace ollama::store {
namespace fs = std::filesystem;

namespace {

// Where a file system knows no locks, what nobody has written to for this long is abandoned.
constexpr auto kStaleAfter = std::chrono::hours(1);

// Locks a file that was just made. False: someone took it for a leftover in the meantime.
bool claim(int fd) {
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) return false;
  struct stat info{};
  return ::fstat(fd, &info) == 0 && info.st_nlink > 0;
}

bool is_stale(const fs::path& path) {
  std::error_code error;
  const auto written = fs::last_write_time(path, error);
  return !error && fs::file_time_type::clock::now() - written > kStaleAfter;
}

}  // namespace

Result<> make_folder(const fs::path& folder) {  // NOLINT(misc-no-recursion): as deep as the path
  std::error_code error;
  if (folder.empty() || fs::is_directory(folder, error)) return {};
  const fs::path parent = folder.parent_path();
  if (parent != folder) OLLAMA_TRY(make_folder(parent));
  if (fs::create_directory(folder, error)) return sync_folder(parent);
  if (error) return fail_errno(folder.string(), error.value());
  return {};  // another process was faster
}

Result<std::uint64_t> free_space_of(const fs::path& folder) {
  fs::path existing = folder;
  std::error_code error;
  while (existing.has_relative_path() && !fs::exists(existing, error)) {
    existing = existing.parent_path();
  }
  struct statvfs info{};
  if (::statvfs(existing.empty() ? "." : existing.c_str(), &info) != 0) {
    return fail_errno(existing.string(), errno);
  }
  return static_cast<std::uint64_t>(info.f_bavail) * info.f_frsize;
}

Result<> sync_folder(const fs::path& folder) {
  const UniqueFd fd(
      ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  // Some file systems cannot sync folders (EINVAL), and need not.
  if (!fd || (::fsync(fd.get()) != 0 && errno != EINVAL)) {
    return fail_errno(folder.string(), errno);
  }
  return {};
}

Result<TemporaryFile> TemporaryFile::create(const fs::path& folder, std::string_view prefix) {
  OLLAMA_TRY(make_folder(folder));
  TemporaryFile file;
  do {
    std::string pattern = (folder / (std::string(prefix) + "XXXXXX")).string();
    file.fd_.reset(::mkostemp(pattern.data(), O_CLOEXEC));
    if (!file.fd_) return fail_errno(folder.string(), errno);
    file.path_ = pattern;
  } while (!claim(file.fd()));
  // mkostemp's 0600 would hide the models from other users of a shared folder.
  if (::fchmod(file.fd(), 0644) != 0) return fail_errno(file.path_.string(), errno);
  return file;
}

bool remove_if_abandoned(const fs::path& path) {
  const UniqueFd file(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file) return false;
  if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK || !is_stale(path)) return false;
  }
  return ::unlink(path.c_str()) == 0;
}

TemporaryFile::TemporaryFile(TemporaryFile&& other) noexcept
    : fd_(std::move(other.fd_)), path_(std::exchange(other.path_, {})) {}

TemporaryFile& TemporaryFile::operator=(TemporaryFile&& other) noexcept {
  if (this != &other) {
    discard();
    fd_ = std::move(other.fd_);
    path_ = std::exchange(other.path_, {});
  }
  return *this;
}

TemporaryFile::~TemporaryFile() { discard(); }

void TemporaryFile::discard() {
  if (!path_.empty()) ::unlink(path_.c_str());
  path_.clear();
}

Result<> TemporaryFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(fd(), bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(path_.parent_path().string(), errno);
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
  return {};
}

Result<> TemporaryFile::publish(const fs::path& target) {
  if (::fsync(fd()) != 0) return fail_errno(target.string(), errno);
  if (::rename(path_.c_str(), target.c_str()) != 0) return fail_errno(target.string(), errno);
  path_.clear();
  // The name itself must survive a power cut too.
  return sync_folder(target.parent_path());
}

std::optional<FileIdentity> identity_of(const fs::path& path) {
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return std::nullopt;
  constexpr std::int64_t kSecond = 1'000'000'000;
  return FileIdentity{.device = info.st_dev,
                      .inode = info.st_ino,
                      .size = info.st_size,
                      .modified_ns = info.st_mtim.tv_sec * kSecond + info.st_mtim.tv_nsec,
                      .changed_ns = info.st_ctim.tv_sec * kSecond + info.st_ctim.tv_nsec};
}

Result<std::string> read_file(const fs::path& path, std::size_t limit) {
  // O_NONBLOCK: a pipe in the place of a file must not hang the server.
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file) return fail_errno(path.string(), errno);
  struct stat info{};
  if (::fstat(file.get(), &info) != 0) return fail_errno(path.string(), errno);
  if (!S_ISREG(info.st_mode)) return fail(ErrorCode::kCorrupt, "{}: not a file", path.string());
  if (static_cast<std::uint64_t>(info.st_size) > limit) {
    return fail(ErrorCode::kCorrupt, "{}: {} bytes are too many, {} are allowed", path.string(),
                info.st_size, limit);
  }
  std::string bytes(static_cast<std::size_t>(info.st_size), '\0');
  std::size_t filled = 0;
  while (filled < bytes.size()) {
    const ssize_t count = ::read(file.get(), bytes.data() + filled, bytes.size() - filled);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(path.string(), errno);
    if (count == 0) break;
    filled += static_cast<std::size_t>(count);
  }
  bytes.resize(filled);
  return bytes;
}

Result<> write_file(const fs::path& path, std::string_view bytes) {
  OLLAMA_ASSIGN(TemporaryFile file, TemporaryFile::create(path.parent_path()));
  OLLAMA_TRY(file.write(std::as_bytes(std::span(bytes))));
  return file.publish(path);
}

}  // namespace ollama::store
