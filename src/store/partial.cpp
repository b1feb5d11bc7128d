#include "store/partial.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <format>
#include <vector>

#include "api/types.h"
#include "base/log.h"
#include "base/units.h"
#include "store/files.h"

namespace ollama::store {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kSuffix = "-partial";
constexpr std::uint64_t kSaveEvery = 4 * kMiB;
constexpr std::size_t kHashChunk = 1 << 20;
constexpr std::size_t kMaxPartFile = 4 << 10;
constexpr std::size_t kMaxParts = 1 << 16;

struct PartRecord {
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
  std::uint64_t completed = 0;
};

std::optional<PartRecord> read_record(const fs::path& path) {
  const auto text = read_file(path, kMaxPartFile);
  if (!text) return std::nullopt;
  const auto json = api::parse_json(*text);
  if (!json || !json->is_object()) return std::nullopt;
  const auto number = [&](std::string_view key) -> std::optional<std::uint64_t> {
    const auto* value = json->get_object().if_contains(key);
    if (value == nullptr || !value->is_int64() || value->get_int64() < 0) return std::nullopt;
    return static_cast<std::uint64_t>(value->get_int64());
  };
  const auto offset = number("Offset");
  const auto size = number("Size");
  const auto completed = number("Completed");
  if (!offset || !size || !completed || *completed > *size) return std::nullopt;
  return PartRecord{*offset, *size, *completed};
}

fs::path partial_path(const fs::path& blobs, const Digest& digest) {
  return blobs / (digest.file_name() + std::string(kSuffix));
}

// A partial file that is ours alone; null when another process has it.
Result<UniqueFd> open_locked(const fs::path& path) {
  while (true) {
    UniqueFd file(
        ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644));
    if (!file) return fail_errno(path.string(), errno);
    if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK) return UniqueFd();
      return fail_errno(path.string(), errno);
    }
    struct stat mine{};
    struct stat named{};
    if (::fstat(file.get(), &mine) != 0) return fail_errno(path.string(), errno);
    if (!S_ISREG(mine.st_mode)) return fail(ErrorCode::kCorrupt, "{}: not a file", path.string());
    // Another process may have published or removed it between our two calls.
    if (::stat(path.c_str(), &named) == 0 && named.st_ino == mine.st_ino &&
        named.st_dev == mine.st_dev) {
      return file;
    }
  }
}

}  // namespace

fs::path Partial::part_path(std::size_t index) const {
  return path_.string() + std::format("-{}", index);
}

Result<std::unique_ptr<Partial>> Partial::open(const fs::path& blobs, const Digest& digest,
                                               std::uint64_t size, const PartSize& part_size) {
  OLLAMA_TRY(make_folder(blobs));
  auto partial = std::make_unique<Partial>(Private(), partial_path(blobs, digest), digest, size);
  OLLAMA_ASSIGN(partial->file_, open_locked(partial->path_));
  if (!partial->file_) {
    partial->gone_ = true;
    return nullptr;
  }
  if (partial->load_parts()) {
    partial->resumed_ = partial->completed() > 0;
  } else {
    OLLAMA_TRY(partial->plan_parts(part_size));
  }
  if (auto reserved = partial->reserve(); !reserved) {
    partial->remove();
    return fail(std::move(reserved));
  }
  return partial;
}

Partial::~Partial() {
  if (gone_) return;
  for (std::size_t i = 0; i < parts_.size(); ++i) (void)save(i);
}

// Whether the parts on disk are those of a blob of this size.
bool Partial::load_parts() {
  struct stat info{};
  if (::fstat(file_.get(), &info) != 0) return false;
  std::uint64_t end = 0;
  for (std::size_t i = 0; end < size_ && i < kMaxParts; ++i) {
    const auto record = read_record(part_path(i));
    if (!record || record->offset != end || record->size == 0 || record->size > size_ - end) break;
    end += record->size;
    // Of a file that is shorter, what it lacks was never written.
    const auto there = static_cast<std::uint64_t>(info.st_size);
    const std::uint64_t room = there > record->offset ? there - record->offset : 0;
    Part& part = parts_.emplace_back();
    part.offset = record->offset;
    part.size = record->size;
    part.completed = part.saved = std::min(record->completed, room);
  }
  if (end == size_) return true;
  parts_.clear();
  return false;
}

Result<> Partial::plan_parts(const PartSize& part_size) {
  forget_parts();
  const std::uint64_t step = std::clamp(size_ / part_size.parts, part_size.least, part_size.most);
  for (std::uint64_t offset = 0; offset < size_; offset += step) {
    Part& part = parts_.emplace_back();
    part.offset = offset;
    part.size = std::min(step, size_ - offset);
    OLLAMA_TRY(save(parts_.size() - 1));
  }
  return {};
}

Result<> Partial::reserve() {
  struct stat info{};
  if (::fstat(file_.get(), &info) != 0) return fail_errno(path_.string(), errno);
  if (static_cast<std::uint64_t>(info.st_size) != size_ &&
      ::ftruncate(file_.get(), static_cast<off_t>(size_)) != 0) {
    return fail_errno(path_.string(), errno);
  }
  if (size_ == 0 || ::fallocate(file_.get(), 0, 0, static_cast<off_t>(size_)) == 0) return {};
  // Some file systems cannot reserve: they tell when they are full.
  if (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINTR) return {};
  return fail_errno(path_.string(), errno);
}

std::uint64_t Partial::completed() const {
  std::uint64_t total = 0;
  for (const Part& part : parts_) total += part.completed;
  return total;
}

Result<> Partial::write(std::size_t index, std::span<const std::byte> bytes) {
  Part& part = parts_[index];
  while (!bytes.empty()) {
    const auto at = static_cast<off_t>(part.offset + part.completed);
    const ssize_t count = ::pwrite(file_.get(), bytes.data(), bytes.size(), at);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(path_.string(), errno);
    part.completed += static_cast<std::uint64_t>(count);
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
  if (part.completed - part.saved >= kSaveEvery || part.left() == 0) return save(index);
  return {};
}

void Partial::rewind(std::size_t index) {
  parts_[index].completed = 0;
  (void)save(index);
}

Result<> Partial::restart_whole() {
  forget_parts();
  hash_ = Sha256();
  hashed_ = 0;
  parts_.clear();
  parts_.emplace_back().size = size_;
  return save(0);
}

// One write of a short text: whoever reads it finds the old or the new one.
Result<> Partial::save(std::size_t index) {
  Part& part = parts_[index];
  part.saved = part.completed;
  std::string text = std::format(R"({{"N":{},"Offset":{},"Size":{},"Completed":{}}})", index,
                                 part.offset, part.size, part.saved);
  text += '\n';
  const fs::path path = part_path(index);
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644));
  if (!file || ::pwrite(file.get(), text.data(), text.size(), 0) < 0 ||
      ::ftruncate(file.get(), static_cast<off_t>(text.size())) != 0) {
    return fail_errno(path.string(), errno);
  }
  return {};
}

void Partial::forget_parts() {
  std::error_code error;
  for (std::size_t i = 0; i < kMaxParts; ++i) {
    if (!fs::remove(part_path(i), error) && i >= parts_.size()) break;
  }
}

Result<bool> Partial::hash(std::uint64_t most) {
  std::uint64_t end = 0;  // of what is complete at the beginning
  for (const Part& part : parts_) {
    const std::uint64_t completed = part.completed;
    end = part.offset + completed;
    if (completed < part.size) break;
  }
  if (end <= hashed_) return false;
  end = std::min(end, hashed_ + most);
  std::vector<std::byte> buffer(kHashChunk);
  while (hashed_ < end) {
    const auto wanted =
        static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), end - hashed_));
    const ssize_t count = ::pread(file_.get(), buffer.data(), wanted, static_cast<off_t>(hashed_));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(path_.string(), errno);
    if (count == 0) return fail(ErrorCode::kCorrupt, "{}: cut short", path_.string());
    hash_.update(std::span(buffer).first(static_cast<std::size_t>(count)));
    hashed_ += static_cast<std::uint64_t>(count);
  }
  return true;
}

Result<> Partial::publish() {
  while (true) {
    OLLAMA_ASSIGN(const bool more, hash(size_));
    if (!more) break;
  }
  const Digest got = hash_.finish();
  if (hashed_ != size_ || got != digest_) {
    remove();
    return fail(ErrorCode::kCorrupt,
                "digest mismatch, file must be downloaded again: want {}, got {}", digest_.text(),
                got.text());
  }
  const fs::path target = path_.parent_path() / digest_.file_name();
  if (::fsync(file_.get()) != 0) return fail_errno(path_.string(), errno);
  if (::rename(path_.c_str(), target.c_str()) != 0) return fail_errno(target.string(), errno);
  gone_ = true;
  forget_parts();
  const UniqueFd folder(::open(target.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder) ::fsync(folder.get());
  return {};
}

void Partial::remove() {
  gone_ = true;
  forget_parts();
  std::error_code error;
  fs::remove(path_, error);
}

std::uint64_t missing_bytes(const fs::path& blobs, const Digest& digest, std::uint64_t size) {
  struct stat info{};
  if (::stat(partial_path(blobs, digest).c_str(), &info) != 0) return size;
  const auto there = static_cast<std::uint64_t>(info.st_blocks) * 512;
  return size - std::min(size, there);
}

}  // namespace ollama::store
