// Internal to store: a blob that is being downloaded in parts, on disk, so that it can go on after
// a break or in another process. The files are Ollama's:
//
//   blobs/sha256-HEX-partial     the bytes, each at its place
//   blobs/sha256-HEX-partial-N   {"N":0,"Offset":0,"Size":...,"Completed":...}, one for each part
//
// None of them is taken for a blob: that one appears when all bytes are there and have the digest.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>

#include "base/error.h"
#include "base/unique_fd.h"
#include "store/digest.h"

namespace ollama::store {

struct PartSize {
  std::uint64_t least = 100'000'000;  // bytes
  std::uint64_t most = 1'000'000'000;
  std::uint64_t parts = 16;  // that a blob has if their size allows
};

class Partial {
  struct Private {
    explicit Private() = default;
  };

 public:
  struct Part {
    std::uint64_t offset = 0;
    std::uint64_t size = 0;
    std::atomic<std::uint64_t> completed = 0;
    std::uint64_t saved = 0;  // of `completed`, on disk
    std::uint64_t left() const { return size - completed; }
  };

  // Continues what is there, or begins anew and reserves the room on disk. Null when another
  // process is at it. Errors: those of the files; kIo "no space left on device".
  static Result<std::unique_ptr<Partial>> open(const std::filesystem::path& blobs,
                                               const Digest& digest, std::uint64_t size,
                                               const PartSize& part_size);
  Partial(Private, std::filesystem::path path, const Digest& digest, std::uint64_t size)
      : path_(std::move(path)), digest_(digest), size_(size) {}
  Partial(const Partial&) = delete;
  Partial& operator=(const Partial&) = delete;
  ~Partial();  // saves how far the parts are

  std::deque<Part>& parts() { return parts_; }
  std::uint64_t size() const { return size_; }
  std::uint64_t completed() const;
  // Whether anything came from an earlier attempt.
  bool resumed() const { return resumed_; }

  // The next bytes of a part, which has room for them. Parts are independent of each other: each is
  // one thread's.
  Result<> write(std::size_t index, std::span<const std::byte> bytes);
  // Begins the part again.
  void rewind(std::size_t index);
  // As one part, from the beginning: for servers that do not serve ranges. No thread may be
  // writing.
  Result<> restart_whole();

  // Takes in what lies complete at the beginning of the file, at most `most` bytes of it; for one
  // thread. False when there was nothing to do.
  Result<bool> hash(std::uint64_t most);
  // All parts are complete: checks the digest and makes the blob visible. kCorrupt "digest
  // mismatch, ...": the bytes are gone then.
  Result<> publish();
  // Removes the files.
  void remove();

 private:
  std::filesystem::path part_path(std::size_t index) const;
  bool load_parts();
  Result<> plan_parts(const PartSize& part_size);
  Result<> reserve();
  Result<> save(std::size_t index);
  void forget_parts();

  std::filesystem::path path_;  // ...-partial
  Digest digest_;
  std::uint64_t size_;
  UniqueFd file_;
  std::deque<Part> parts_;
  bool resumed_ = false;
  bool gone_ = false;  // published or removed
  Sha256 hash_;
  std::uint64_t hashed_ = 0;
};

// Bytes that the download of a blob still has to write: what is neither there nor reserved.
std::uint64_t missing_bytes(const std::filesystem::path& blobs, const Digest& digest,
                            std::uint64_t size);

}  // namespace ollama::store
