// Internal to store: downloading blobs from a registry, in parallel ranges, each blob once however
// many wait for it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>

#include "store/partial.h"
#include "store/registry.h"

namespace ollama::store {

struct DownloadOptions {
  std::uint32_t streams = 4;  // connections for a blob
  PartSize part_size;
};

// One blob's.
class Download {
 public:
  Download(std::shared_ptr<Registry> registry, std::filesystem::path blobs, Digest digest,
           std::uint64_t size, DownloadOptions options)
      : registry_(std::move(registry)),
        blobs_(std::move(blobs)),
        digest_(std::move(digest)),
        size_(size),
        options_(options) {}

  // Returns when the blob is there, checked and visible. What a break leaves is kept for the next
  // time, except after errors that it cannot mend: another digest or size, a full disk.
  Result<> run(const std::stop_token& stop);
  std::uint64_t completed() const { return completed_; }
  std::uint64_t size() const { return size_; }
  const Registry& registry() const { return *registry_; }

 private:
  struct Crew;
  Result<std::unique_ptr<Partial>> open(const std::stop_token& stop);
  bool is_there() const;
  Result<> fetch(Partial& partial, const std::stop_token& stop);
  Result<> fetch_parts(Partial& partial, const std::stop_token& stop);
  Result<> fetch_part(HttpClient& client, Partial& partial, std::size_t index,
                      const std::stop_token& stop);
  Result<> request_rest(HttpClient& client, Partial& partial, std::size_t index,
                        const std::stop_token& stop);
  std::string direct_url() const;
  void set_direct_url(std::string url);

  std::shared_ptr<Registry> registry_;
  std::filesystem::path blobs_;
  Digest digest_;
  std::uint64_t size_;
  DownloadOptions options_;
  std::atomic<std::uint64_t> completed_ = 0;
  bool ranges_ = true;                  // whether the server serves them
  std::atomic<bool> hopeless_ = false;  // the registry has another blob than the manifest's

  mutable std::mutex mutex_;
  std::string direct_url_;  // where the registry sent us last
};

// All downloads of a store.
class Downloads {
 public:
  Downloads(std::filesystem::path blobs, DownloadOptions options)
      : blobs_(std::move(blobs)), options_(options) {}
  Downloads(const Downloads&) = delete;
  Downloads& operator=(const Downloads&) = delete;
  ~Downloads();  // ends them

  // Waits until the blob is there, telling `tick` how many bytes are, some ten times a second. A
  // download that is under way is joined; it ends when nobody waits for it any more.
  using Tick = std::function<Result<>(std::uint64_t completed)>;
  Result<> fetch(const std::shared_ptr<Registry>& registry, const Digest& digest,
                 std::uint64_t size, const Tick& tick, const std::stop_token& stop);

 private:
  struct Entry;
  using Lock = std::unique_lock<std::mutex>;
  std::shared_ptr<Entry> join(const std::shared_ptr<Registry>& registry, const Digest& digest,
                              std::uint64_t size);
  Result<> wait(Lock& lock, Entry& entry, const Tick& tick, const std::stop_token& stop);

  std::filesystem::path blobs_;
  DownloadOptions options_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::map<Digest, std::shared_ptr<Entry>> entries_;
};

}  // namespace ollama::store
