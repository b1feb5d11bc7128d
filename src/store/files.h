// Internal to store: files that appear complete and synced, or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/unique_fd.h"

namespace ollama::store {

// What interrupted writes leave begins with this, in the folder of the file they were to become.
inline constexpr std::string_view kTemporaryPrefix = ".tmp-";

// A file without a name yet, in the folder where it will get one. Gone when it is not published;
// while its writer lives it is locked (flock), so that others can tell it from a leftover.
class TemporaryFile {
 public:
  // Makes the folder if need be. `prefix` begins with kTemporaryPrefix.
  static Result<TemporaryFile> create(const std::filesystem::path& folder,
                                      std::string_view prefix = kTemporaryPrefix);
  TemporaryFile(TemporaryFile&& other) noexcept;
  TemporaryFile& operator=(TemporaryFile&& other) noexcept;
  ~TemporaryFile();

  int fd() const { return fd_.get(); }
  Result<> write(std::span<const std::byte> bytes);
  // Syncs it and gives it its name, which replaces a file of that name.
  Result<> publish(const std::filesystem::path& target);

 private:
  TemporaryFile() = default;
  void discard();

  UniqueFd fd_;
  std::filesystem::path path_;  // empty once published
};

// Removes a temporary file that no process is writing any more. False: it is in use, or gone.
bool remove_if_abandoned(const std::filesystem::path& path);

// Tells a file from another in its place, and from itself with other contents.
struct FileIdentity {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::int64_t size = 0;
  std::int64_t modified_ns = 0;
  std::int64_t changed_ns = 0;
  bool operator==(const FileIdentity&) const = default;
};
// nullopt where there is no regular file.
std::optional<FileIdentity> identity_of(const std::filesystem::path& path);

// At most `limit` bytes: longer files are kCorrupt, and so is what is no regular file.
Result<std::string> read_file(const std::filesystem::path& path, std::size_t limit);
Result<> write_file(const std::filesystem::path& path, std::string_view bytes);
// With the folders above it; each new name is on the disk when this returns.
Result<> make_folder(const std::filesystem::path& folder);
// Bytes that may be written there, or where it would be made.
Result<std::uint64_t> free_space_of(const std::filesystem::path& folder);
// The names in the folder, as they are now, survive a power cut.
Result<> sync_folder(const std::filesystem::path& folder);

}  // namespace ollama::store
