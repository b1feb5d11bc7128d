#include "store/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <utility>

namespace ollama::store {
namespace fs = std::filesystem;

Result<> make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) return fail_errno(folder.string(), error.value());
  return {};
}

Result<TemporaryFile> TemporaryFile::create(const fs::path& folder) {
  OLLAMA_TRY(make_folder(folder));
  std::string pattern = (folder / (std::string(kTemporaryPrefix) + "XXXXXX")).string();
  TemporaryFile file;
  file.fd_.reset(::mkostemp(pattern.data(), O_CLOEXEC));
  if (!file.fd_) return fail_errno(folder.string(), errno);
  file.path_ = pattern;
  // mkostemp's 0600 would hide the models from other users of a shared folder.
  if (::fchmod(file.fd(), 0644) != 0) return fail_errno(pattern, errno);
  return file;
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
  const UniqueFd folder(::open(target.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder) ::fsync(folder.get());
  return {};
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
