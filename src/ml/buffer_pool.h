// Host memory that is used again and again: the arenas that graphs are built in and the staging
// buffers of uploads. Buffers come in four sizes and go back to a pool instead of to the system,
// because fresh pages cost a page fault each. Requests above the largest size pass straight through
// to the system.
//
// A pool keeps a small cache for every thread that uses it, over one shared list behind a mutex.
// The fast path takes no lock. A pool may die before its buffers and before the threads that used
// it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "base/error.h"

namespace ollama::ml {

inline constexpr ErrorConstant kHostMemoryExhausted{
    ErrorCode::kOutOfMemory, "out of host memory: the system has no pages left for a buffer"};

namespace pool_internal {
class Core;
}  // namespace pool_internal

// A buffer out of a pool, or nothing. Goes back when it is destroyed, on whichever thread. Its
// contents are whatever the last user left there. Page-aligned.
class PooledBuffer {
 public:
  PooledBuffer() = default;
  PooledBuffer(PooledBuffer&& other) noexcept
      : core_(std::move(other.core_)),
        data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)) {}
  PooledBuffer& operator=(PooledBuffer&& other) noexcept {
    if (this != &other) {
      reset();
      core_ = std::move(other.core_);
      data_ = std::exchange(other.data_, nullptr);
      size_ = std::exchange(other.size_, 0);
    }
    return *this;
  }
  ~PooledBuffer() {
    if (data_ != nullptr) release();
  }

  std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }  // as requested
  std::span<std::byte> bytes() const { return {data_, size_}; }
  explicit operator bool() const { return data_ != nullptr; }

  void reset() {
    if (data_ != nullptr) release();
  }

 private:
  friend class BufferPool;
  void release();

  std::shared_ptr<pool_internal::Core> core_;
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

struct PoolOptions {
  // The most that the pool keeps while nobody uses it, all threads together.
  std::size_t max_cached_bytes = std::size_t{64} << 20;
};

// Exact while no other thread is inside the pool; else each figure is one that was true a moment
// ago.
struct PoolCounters {
  struct Tier {
    std::size_t buffer_bytes = 0;
    std::uint64_t hits = 0;          // requests served from the pool
    std::uint64_t misses = 0;        // requests that needed fresh pages
    std::uint64_t bytes_in_use = 0;  // held by PooledBuffers
    std::uint64_t bytes_cached = 0;  // waiting in the pool
  };
  std::array<Tier, 4> tiers;
  std::uint64_t pass_throughs = 0;  // requests above the largest tier
  std::uint64_t pass_through_bytes_in_use = 0;
  std::uint64_t bytes_trimmed = 0;  // given back to the system, by trim() or for the limit
};

class BufferPool {
 public:
  static constexpr std::array<std::size_t, 4> kTierBytes{128U << 10, 512U << 10, 1U << 20,
                                                         4U << 20};
  // What the cache of one thread may hold of each tier; 12.5 MiB in all. These count against
  // max_cached_bytes in full as soon as a thread has a cache; threads for whom nothing is left of
  // it use the shared list only.
  static constexpr std::array<std::size_t, 4> kThreadSlots{4, 4, 2, 2};

  explicit BufferPool(const PoolOptions& options = {});
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // At least `bytes` (0 is served as well). Errors: kHostMemoryExhausted, after a trim did not
  // help.
  Result<PooledBuffer> allocate(std::size_t bytes);

  // Gives cached buffers of all threads back to the system, the largest first, until at most
  // `keep_bytes` are cached. For idle times and for when memory is short. Returns the bytes given
  // back.
  std::size_t trim(std::size_t keep_bytes = 0);

  PoolCounters counters() const;

 private:
  std::shared_ptr<pool_internal::Core> core_;
};

}  // namespace ollama::ml
