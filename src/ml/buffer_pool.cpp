#include "ml/buffer_pool.h"

#include <sys/mman.h>
#include <unistd.h>

#include <mutex>

#if defined(__SANITIZE_ADDRESS__)
#define OLLAMA_POISONS_BUFFERS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define OLLAMA_POISONS_BUFFERS 1
#endif
#endif
#if defined(OLLAMA_POISONS_BUFFERS)
#include <sanitizer/asan_interface.h>
#endif

namespace ollama::ml {
namespace {

constexpr std::size_t kTiers = BufferPool::kTierBytes.size();
constexpr std::size_t kPassThrough = kTiers;  // the "tier" of larger buffers

constexpr std::size_t kThreadBytes = [] {
  std::size_t bytes = 0;
  for (std::size_t tier = 0; tier < kTiers; ++tier) {
    bytes += BufferPool::kTierBytes[tier] * BufferPool::kThreadSlots[tier];
  }
  return bytes;
}();

constexpr std::size_t tier_of(std::size_t bytes) {
  std::size_t tier = 0;
  while (tier < kTiers && bytes > BufferPool::kTierBytes[tier]) ++tier;
  return tier;
}

std::byte* map_pages(std::size_t bytes) {
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return data == MAP_FAILED ? nullptr : static_cast<std::byte*>(data);
}
void unmap_pages(std::byte* data, std::size_t bytes) { munmap(data, bytes); }

std::size_t round_to_pages(std::size_t bytes) {
  static const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return (bytes + page - 1) / page * page;
}

// Cached buffers belong to nobody: the address sanitizer reports whoever still uses one.
void poison([[maybe_unused]] std::byte* data, [[maybe_unused]] std::size_t bytes) {
#if defined(OLLAMA_POISONS_BUFFERS)
  __asan_poison_memory_region(data, bytes);
#endif
}
void unpoison([[maybe_unused]] std::byte* data, [[maybe_unused]] std::size_t bytes) {
#if defined(OLLAMA_POISONS_BUFFERS)
  __asan_unpoison_memory_region(data, bytes);
#endif
}

// A counter that one thread writes and others read: no locked instruction.
class OwnedCounter {
 public:
  void add(std::uint64_t n) {
    value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  std::uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

// What one thread did, or what the threads that are gone did together.
struct Activity {
  std::array<OwnedCounter, kTiers> hits;
  std::array<OwnedCounter, kTiers> misses;
  std::array<OwnedCounter, kTiers> releases;
  OwnedCounter pass_throughs;
  OwnedCounter pass_through_bytes;
  OwnedCounter pass_through_released_bytes;

  void add(const Activity& other) {
    for (std::size_t tier = 0; tier < kTiers; ++tier) {
      hits[tier].add(other.hits[tier].value());
      misses[tier].add(other.misses[tier].value());
      releases[tier].add(other.releases[tier].value());
    }
    pass_throughs.add(other.pass_throughs.value());
    pass_through_bytes.add(other.pass_through_bytes.value());
    pass_through_released_bytes.add(other.pass_through_released_bytes.value());
  }
};

}  // namespace

namespace pool_internal {

// The buffers that one thread keeps. A slot goes from empty to full only on that thread, and from
// full to empty on that one or on one that trims: so storing needs no exchange, and taking needs
// one.
class ThreadCache {
 public:
  ThreadCache(std::shared_ptr<Core> owner, bool has_slots)
      : core(owner.get(), [keep = owner](Core*) {}), has_slots_(has_slots) {}

  std::byte* take(std::size_t tier) {
    for (std::size_t slot = 0; slot < BufferPool::kThreadSlots[tier]; ++slot) {
      std::atomic<std::byte*>& place = slots_[tier][slot];
      if (place.load(std::memory_order_relaxed) == nullptr) continue;
      std::byte* data = place.exchange(nullptr, std::memory_order_acquire);
      if (data != nullptr) return data;
    }
    return nullptr;
  }
  // On the thread that owns the cache only. False: no slot is empty.
  bool put(std::size_t tier, std::byte* data) {
    if (!has_slots_) return false;
    for (std::size_t slot = 0; slot < BufferPool::kThreadSlots[tier]; ++slot) {
      std::atomic<std::byte*>& place = slots_[tier][slot];
      if (place.load(std::memory_order_relaxed) != nullptr) continue;
      place.store(data, std::memory_order_release);
      return true;
    }
    return false;
  }
  std::size_t cached(std::size_t tier) const {
    std::size_t count = 0;
    for (const std::atomic<std::byte*>& place : slots_[tier]) {
      count += place.load(std::memory_order_relaxed) != nullptr ? 1 : 0;
    }
    return count;
  }
  bool has_slots() const { return has_slots_; }

  // Buffers of this thread copy this pointer. It has a reference count of its own, on top of the
  // core's, so that threads do not pull one cache line back and forth.
  const std::shared_ptr<Core> core;
  Activity activity;

 private:
  static constexpr std::size_t kMostSlots = 4;
  static_assert(std::ranges::max(BufferPool::kThreadSlots) <= kMostSlots);

  const bool has_slots_;
  std::array<std::array<std::atomic<std::byte*>, kMostSlots>, kTiers> slots_{};
};

// What a pool's threads share. Lives until the pool, its buffers and the caches of threads are
// gone.
class Core : public std::enable_shared_from_this<Core> {
 public:
  explicit Core(const PoolOptions& options) : max_cached_bytes_(options.max_cached_bytes) {}
  ~Core() { close(); }

  // The calling thread's cache; nullptr once the thread is past its thread_local objects.
  ThreadCache* local();

  std::byte* take(std::size_t tier, ThreadCache* cache) {
    std::byte* data = cache != nullptr ? cache->take(tier) : nullptr;
    if (data == nullptr) data = take_shared(tier);
    if (data == nullptr) return nullptr;
    unpoison(data, BufferPool::kTierBytes[tier]);
    return data;
  }

  void put(std::size_t tier, std::byte* data, ThreadCache* cache) {
    const std::size_t bytes = BufferPool::kTierBytes[tier];
    poison(data, bytes);
    if (!closed_.load(std::memory_order_relaxed)) {
      if (cache != nullptr && cache->put(tier, data)) return;
      if (put_shared(tier, data)) return;
    }
    give_back(tier, data);
  }

  // With the cache of a thread, or without one under the mutex.
  template <typename Change>
  void count(ThreadCache* cache, Change&& change) {
    if (cache != nullptr) {
      change(cache->activity);
    } else {
      const std::scoped_lock lock(mutex_);
      change(past_);
    }
  }

  std::size_t trim(std::size_t keep_bytes) {
    const std::scoped_lock lock(mutex_);
    return trim_locked(keep_bytes);
  }

  PoolCounters counters() const {
    const std::scoped_lock lock(mutex_);
    Activity sum;
    sum.add(past_);
    PoolCounters result;
    for (const ThreadCache* cache : caches_) {
      sum.add(cache->activity);
      for (std::size_t tier = 0; tier < kTiers; ++tier) {
        result.tiers[tier].bytes_cached += cache->cached(tier) * BufferPool::kTierBytes[tier];
      }
    }
    // Sums over threads at work may be torn: what they hold is never below nothing.
    const auto held = [](std::uint64_t taken, std::uint64_t released) {
      return taken > released ? taken - released : 0;
    };
    for (std::size_t tier = 0; tier < kTiers; ++tier) {
      PoolCounters::Tier& out = result.tiers[tier];
      out.buffer_bytes = BufferPool::kTierBytes[tier];
      out.hits = sum.hits[tier].value();
      out.misses = sum.misses[tier].value();
      out.bytes_in_use = held(out.hits + out.misses, sum.releases[tier].value()) * out.buffer_bytes;
      out.bytes_cached += shared_[tier].size() * out.buffer_bytes;
    }
    result.pass_throughs = sum.pass_throughs.value();
    result.pass_through_bytes_in_use =
        held(sum.pass_through_bytes.value(), sum.pass_through_released_bytes.value());
    result.bytes_trimmed = bytes_trimmed_;
    return result;
  }

  std::unique_ptr<ThreadCache> attach() {
    const std::scoped_lock lock(mutex_);
    const bool has_slots = reserved_bytes_ + kThreadBytes <= max_cached_bytes_;
    if (has_slots) reserved_bytes_ += kThreadBytes;
    auto cache = std::make_unique<ThreadCache>(shared_from_this(), has_slots);
    caches_.push_back(cache.get());
    trim_shared(max_cached_bytes_ - reserved_bytes_);
    return cache;
  }

  // The thread of `cache` ends.
  void detach(ThreadCache& cache) {
    const std::scoped_lock lock(mutex_);
    std::erase(caches_, &cache);
    past_.add(cache.activity);
    if (cache.has_slots()) reserved_bytes_ -= kThreadBytes;
    for (std::size_t tier = 0; tier < kTiers; ++tier) {
      while (std::byte* data = cache.take(tier)) {
        if (!put_shared_locked(tier, data)) give_back(tier, data);
      }
    }
  }

  // The pool dies: nothing is kept from here on.
  void close() {
    closed_.store(true, std::memory_order_relaxed);
    trim(0);
  }
  bool closed() const { return closed_.load(std::memory_order_relaxed); }

 private:
  std::byte* take_shared(std::size_t tier) {
    const std::scoped_lock lock(mutex_);
    if (shared_[tier].empty()) return nullptr;
    std::byte* data = shared_[tier].back();
    shared_[tier].pop_back();
    shared_bytes_ -= BufferPool::kTierBytes[tier];
    return data;
  }
  bool put_shared(std::size_t tier, std::byte* data) {
    const std::scoped_lock lock(mutex_);
    return put_shared_locked(tier, data);
  }
  bool put_shared_locked(std::size_t tier, std::byte* data) {
    const std::size_t bytes = BufferPool::kTierBytes[tier];
    if (closed() || shared_bytes_ + bytes > max_cached_bytes_ - reserved_bytes_) {
      bytes_trimmed_ += bytes;
      return false;
    }
    shared_[tier].push_back(data);
    shared_bytes_ += bytes;
    return true;
  }
  static void give_back(std::size_t tier, std::byte* data) {
    const std::size_t bytes = BufferPool::kTierBytes[tier];
    unpoison(data, bytes);
    unmap_pages(data, bytes);
  }

  std::size_t trim_shared(std::size_t keep_bytes) {
    std::size_t trimmed = 0;
    for (std::size_t tier = kTiers; tier-- > 0;) {
      while (shared_bytes_ > keep_bytes && !shared_[tier].empty()) {
        give_back(tier, shared_[tier].back());
        shared_[tier].pop_back();
        shared_bytes_ -= BufferPool::kTierBytes[tier];
        trimmed += BufferPool::kTierBytes[tier];
      }
    }
    bytes_trimmed_ += trimmed;
    return trimmed;
  }
  std::size_t trim_locked(std::size_t keep_bytes) {
    std::size_t in_threads = 0;
    for (const ThreadCache* cache : caches_) {
      for (std::size_t tier = 0; tier < kTiers; ++tier) {
        in_threads += cache->cached(tier) * BufferPool::kTierBytes[tier];
      }
    }
    // The shared list first: its buffers have waited longest.
    std::size_t trimmed = trim_shared(keep_bytes > in_threads ? keep_bytes - in_threads : 0);
    for (std::size_t tier = kTiers; tier-- > 0;) {
      for (ThreadCache* cache : caches_) {
        while (in_threads > keep_bytes) {
          std::byte* data = cache->take(tier);
          if (data == nullptr) break;
          give_back(tier, data);
          const std::size_t bytes = BufferPool::kTierBytes[tier];
          in_threads -= std::min(in_threads, bytes);
          bytes_trimmed_ += bytes;
          trimmed += bytes;
        }
      }
    }
    return trimmed;
  }

  const std::size_t max_cached_bytes_;
  std::atomic<bool> closed_{false};
  mutable std::mutex mutex_;  // guards all below
  std::array<std::vector<std::byte*>, kTiers> shared_;
  std::size_t shared_bytes_ = 0;
  std::size_t reserved_bytes_ = 0;    // for what thread caches may hold
  std::vector<ThreadCache*> caches_;  // of living threads
  Activity past_;
  std::uint64_t bytes_trimmed_ = 0;
};

namespace {

// The caches of this thread, one a pool. Each keeps its pool's core alive, so that an address names
// a core as long as it is listed here.
class ThreadCaches {
 public:
  ThreadCaches() = default;
  ThreadCaches(const ThreadCaches&) = delete;
  ThreadCaches& operator=(const ThreadCaches&) = delete;
  ~ThreadCaches();

  ThreadCache* find(Core& core) {
    for (const auto& cache : caches_) {
      if (cache->core.get() == &core) return cache.get();
    }
    // The caches of dead pools go now; closed pools find what is left in them unwanted.
    std::erase_if(caches_, [](const auto& cache) {
      const bool closed = cache->core->closed();
      if (closed) cache->core->detach(*cache);
      return closed;
    });
    return caches_.emplace_back(core.attach()).get();
  }

 private:
  std::vector<std::unique_ptr<ThreadCache>> caches_;
};

// The last cache that was used, and whether the thread has torn its caches down: trivial objects,
// which may be read until the very end of a thread.
struct LastUsed {
  const Core* core = nullptr;
  ThreadCache* cache = nullptr;
  bool gone = false;
};
constinit thread_local LastUsed last_used;
thread_local ThreadCaches thread_caches;

ThreadCaches::~ThreadCaches() {
  last_used = {nullptr, nullptr, true};
  for (const auto& cache : caches_) cache->core->detach(*cache);
}

}  // namespace

ThreadCache* Core::local() {
  if (last_used.core == this) [[likely]] {
    return last_used.cache;
  }
  if (last_used.gone) return nullptr;
  last_used = {};  // find() may destroy what it names
  last_used = {this, thread_caches.find(*this), false};
  return last_used.cache;
}

}  // namespace pool_internal

BufferPool::BufferPool(const PoolOptions& options)
    : core_(std::make_shared<pool_internal::Core>(options)) {}

BufferPool::~BufferPool() { core_->close(); }

Result<PooledBuffer> BufferPool::allocate(std::size_t bytes) {
  if (bytes > PTRDIFF_MAX / 2) return fail(kHostMemoryExhausted);
  const std::size_t tier = tier_of(bytes);
  const bool pooled = tier != kPassThrough;
  const std::size_t buffer_bytes = pooled ? kTierBytes[tier] : round_to_pages(bytes);

  pool_internal::ThreadCache* cache = core_->local();
  std::byte* data = pooled ? core_->take(tier, cache) : nullptr;
  const bool hit = data != nullptr;
  if (!hit) {
    data = map_pages(buffer_bytes);
    if (data == nullptr && core_->trim(0) != 0) data = map_pages(buffer_bytes);
    if (data == nullptr) return fail(kHostMemoryExhausted);
  }
  core_->count(cache, [&](Activity& activity) {
    if (pooled) {
      (hit ? activity.hits : activity.misses)[tier].add(1);
    } else {
      activity.pass_throughs.add(1);
      activity.pass_through_bytes.add(buffer_bytes);
    }
  });

  Result<PooledBuffer> buffer(std::in_place);
  buffer->core_ = cache != nullptr ? cache->core : core_;
  buffer->data_ = data;
  buffer->size_ = bytes;
  return buffer;
}

void PooledBuffer::release() {
  const std::size_t tier = tier_of(size_);
  const bool pooled = tier != kPassThrough;
  pool_internal::ThreadCache* cache = core_->local();
  core_->count(cache, [&](Activity& activity) {
    if (pooled) {
      activity.releases[tier].add(1);
    } else {
      activity.pass_through_released_bytes.add(round_to_pages(size_));
    }
  });
  if (pooled) {
    core_->put(tier, data_, cache);
  } else {
    unmap_pages(data_, round_to_pages(size_));
  }
  data_ = nullptr;
  size_ = 0;
  core_.reset();
}

std::size_t BufferPool::trim(std::size_t keep_bytes) { return core_->trim(keep_bytes); }

PoolCounters BufferPool::counters() const { return core_->counters(); }

}  // namespace ollama::ml
