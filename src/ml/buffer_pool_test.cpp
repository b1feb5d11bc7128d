#include "ml/buffer_pool.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <sys/mman.h>

#include <barrier>
#include <cstring>
#include <deque>
#include <mutex>
#include <optional>
#include <random>
#include <thread>

namespace ollama::ml {
namespace {

constexpr std::size_t kKiB = 1024;
constexpr std::size_t kMiB = 1024 * kKiB;

PooledBuffer take(BufferPool& pool, std::size_t bytes) {
  Result<PooledBuffer> buffer = pool.allocate(bytes);
  EXPECT_TRUE(buffer) << bytes;
  return buffer ? std::move(*buffer) : PooledBuffer();
}

std::uint64_t cached(const PoolCounters& counters) {
  std::uint64_t bytes = 0;
  for (const auto& tier : counters.tiers) bytes += tier.bytes_cached;
  return bytes;
}

std::uint64_t in_use(const PoolCounters& counters) {
  std::uint64_t bytes = counters.pass_through_bytes_in_use;
  for (const auto& tier : counters.tiers) bytes += tier.bytes_in_use;
  return bytes;
}

bool is_mapped(std::byte* page) {
  unsigned char resident = 0;
  return mincore(page, 1, &resident) == 0;
}

TEST(BufferPool, ServesEverySizeFromItsTier) {
  BufferPool pool;
  struct Case {
    std::size_t bytes;
    std::size_t tier;
  };
  for (const auto& [bytes, tier] :
       {Case{0, 0}, Case{1, 0}, Case{128 * kKiB, 0}, Case{128 * kKiB + 1, 1}, Case{512 * kKiB, 1},
        Case{512 * kKiB + 1, 2}, Case{kMiB, 2}, Case{kMiB + 1, 3}, Case{4 * kMiB, 3}}) {
    const std::uint64_t before = pool.counters().tiers[tier].bytes_in_use;
    const PooledBuffer buffer = take(pool, bytes);
    EXPECT_EQ(buffer.size(), bytes);
    EXPECT_EQ(buffer.bytes().size(), bytes);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % 4096, 0U);
    EXPECT_EQ(pool.counters().tiers[tier].bytes_in_use, before + BufferPool::kTierBytes[tier])
        << bytes;
    if (bytes != 0) std::memset(buffer.data(), 1, bytes);
  }
  EXPECT_EQ(in_use(pool.counters()), 0U);
}

// Without reuse the pool is only a slower malloc.
TEST(BufferPool, GivesABufferBackToTheNextRequestOfItsTier) {
  BufferPool pool;
  std::byte* first = take(pool, kMiB).data();
  const PooledBuffer again = take(pool, 600 * kKiB);
  EXPECT_EQ(again.data(), first);
  const PoolCounters::Tier tier = pool.counters().tiers[2];
  EXPECT_EQ(tier.misses, 1U);
  EXPECT_EQ(tier.hits, 1U);
  EXPECT_EQ(tier.bytes_cached, 0U);
}

TEST(BufferPool, PassesLargeRequestsThrough) {
  BufferPool pool;
  {
    const PooledBuffer buffer = take(pool, 4 * kMiB + 1);
    buffer.bytes().back() = std::byte{1};
    EXPECT_EQ(pool.counters().pass_throughs, 1U);
    EXPECT_EQ(pool.counters().pass_through_bytes_in_use, 4 * kMiB + 4 * kKiB);
  }
  EXPECT_EQ(pool.counters().pass_through_bytes_in_use, 0U);
  EXPECT_EQ(cached(pool.counters()), 0U);
}

TEST(BufferPool, ReportsExhaustionInsteadOfDying) {
  BufferPool pool;
  for (const std::size_t bytes : {std::size_t{1} << 60, SIZE_MAX, SIZE_MAX - 4095}) {
    const Result<PooledBuffer> buffer = pool.allocate(bytes);
    ASSERT_FALSE(buffer);
    EXPECT_EQ(buffer.error().code(), ErrorCode::kOutOfMemory);
  }
  EXPECT_EQ(in_use(pool.counters()), 0U);
}

TEST(BufferPool, TrimReturnsMemoryToTheSystem) {
  BufferPool pool;
  std::byte* data = take(pool, 4 * kMiB).data();
  take(pool, 100).reset();
  EXPECT_TRUE(is_mapped(data));
  EXPECT_EQ(pool.trim(128 * kKiB), 4 * kMiB);
  EXPECT_FALSE(is_mapped(data));
  EXPECT_EQ(cached(pool.counters()), 128 * kKiB);
  EXPECT_EQ(pool.trim(), 128 * kKiB);
  EXPECT_EQ(pool.trim(), 0U);
  EXPECT_EQ(pool.counters().bytes_trimmed, 4 * kMiB + 128 * kKiB);
}

TEST(BufferPool, TrimReachesTheCachesOfOtherThreads) {
  BufferPool pool;
  std::barrier step(2);
  std::thread other([&] {
    take(pool, kMiB).reset();
    step.arrive_and_wait();  // cached over there
    step.arrive_and_wait();  // trimmed over here
    EXPECT_EQ(pool.counters().tiers[2].hits, 0U);
    take(pool, kMiB).reset();
    EXPECT_EQ(pool.counters().tiers[2].misses, 2U);
  });
  step.arrive_and_wait();
  EXPECT_EQ(pool.trim(), kMiB);
  step.arrive_and_wait();
  other.join();
}

TEST(BufferPool, KeepsNoMoreThanItsLimit) {
  for (const std::size_t limit : {std::size_t{0}, 3 * kMiB, 13 * kMiB, 40 * kMiB}) {
    BufferPool pool({.max_cached_bytes = limit});
    std::vector<PooledBuffer> held;
    for (int i = 0; i < 12; ++i) {
      held.push_back(take(pool, 4 * kMiB));
      held.push_back(take(pool, kMiB));
    }
    held.clear();
    EXPECT_LE(cached(pool.counters()), limit);
    EXPECT_EQ(cached(pool.counters()) + pool.counters().bytes_trimmed, 60 * kMiB);
  }
}

// What an ended thread cached must neither leak nor stay out of reach.
TEST(BufferPool, InheritsTheCacheOfAThreadThatEnds) {
  BufferPool pool;
  std::byte* data = nullptr;
  std::thread([&] { data = take(pool, kMiB).data(); }).join();
  EXPECT_EQ(pool.counters().tiers[2].bytes_cached, kMiB);
  EXPECT_EQ(pool.counters().tiers[2].misses, 1U);
  EXPECT_EQ(take(pool, kMiB).data(), data);
  EXPECT_EQ(pool.counters().tiers[2].hits, 1U);
}

TEST(BufferPool, BuffersAreReleasedOnAnyThread) {
  BufferPool pool;
  PooledBuffer buffer = take(pool, kMiB);
  std::thread([moved = std::move(buffer)]() mutable { moved.reset(); }).join();
  EXPECT_FALSE(buffer);
  EXPECT_EQ(in_use(pool.counters()), 0U);
  EXPECT_EQ(cached(pool.counters()), kMiB);
}

TEST(BufferPool, BuffersOutliveTheirPool) {
  std::byte* data = nullptr;
  {
    PooledBuffer survivor;
    {
      BufferPool pool;
      survivor = take(pool, kMiB);
      take(pool, kMiB).reset();  // the thread's cache has something of the dead pool
      data = survivor.data();
    }
    std::memset(survivor.data(), 1, survivor.size());
  }
  EXPECT_FALSE(is_mapped(data));
  // A new pool, perhaps at the old one's address, must not meet what the thread remembers of that.
  BufferPool next;
  take(next, kMiB).reset();
  EXPECT_EQ(next.counters().tiers[2].misses, 1U);
}

TEST(BufferPool, PoolsDoNotMixTheirBuffers) {
  BufferPool a;
  BufferPool b;
  PooledBuffer of_a = take(a, 1);
  PooledBuffer of_b = take(b, 1);
  of_a = std::move(of_b);  // releases a's
  EXPECT_EQ(in_use(a.counters()), 0U);
  EXPECT_EQ(cached(a.counters()), 128 * kKiB);
  of_a.reset();
  EXPECT_EQ(cached(b.counters()), 128 * kKiB);
}

// Destroyed after the thread's own cache is gone, which was made later.
TEST(BufferPool, ThreadLocalBuffersReturnAtTheEndOfTheirThread) {
  BufferPool pool;
  std::thread([&] {
    static thread_local std::optional<PooledBuffer> late;
    late.emplace();
    *late = take(pool, kMiB);
  }).join();
  EXPECT_EQ(in_use(pool.counters()), 0U);
  EXPECT_EQ(cached(pool.counters()), kMiB);
}

// Two live buffers that overlap would let one graph write into another's arena: every buffer is
// filled with a pattern of its own, which must be whole when it is released.
TEST(BufferPool, LiveBuffersNeverOverlapAndCountersAddUp) {
  EXPECT_TRUE(rc::check("random allocations, releases and trims", [] {
    const std::size_t limit = *rc::gen::inRange<std::size_t>(0, 40) * kMiB;
    BufferPool pool({.max_cached_bytes = limit});
    struct Held {
      PooledBuffer buffer;
      std::byte pattern;
      std::size_t bytes;
    };
    std::vector<Held> held;
    std::uint64_t requests = 0;
    std::uint64_t expected_in_use = 0;
    const auto footprint = [](std::size_t bytes) {
      for (const std::size_t tier : BufferPool::kTierBytes) {
        if (bytes <= tier) return tier;
      }
      return (bytes + 4095) / 4096 * 4096;
    };
    const int steps = *rc::gen::inRange(1, 60);
    for (int step = 0; step < steps; ++step) {
      switch (*rc::gen::inRange(0, 5)) {
        case 0:
        case 1: {
          const auto bytes = *rc::gen::element<std::size_t>(1, 5000, 128 * kKiB, 300 * kKiB, kMiB,
                                                            3 * kMiB, 5 * kMiB);
          Held next{take(pool, bytes), std::byte(step + 1), bytes};
          // The ends and one byte a page.
          for (std::size_t at = 0; at < bytes; at += 4096) next.buffer.data()[at] = next.pattern;
          next.buffer.bytes().back() = next.pattern;
          held.push_back(std::move(next));
          expected_in_use += footprint(bytes);
          ++requests;
          break;
        }
        case 2:
        case 3: {
          if (held.empty()) break;
          const auto index = *rc::gen::inRange<std::size_t>(0, held.size());
          std::swap(held[index], held.back());
          const Held& last = held.back();
          for (std::size_t at = 0; at < last.bytes; at += 4096) {
            RC_ASSERT(last.buffer.data()[at] == last.pattern);
          }
          RC_ASSERT(last.buffer.bytes().back() == last.pattern);
          expected_in_use -= footprint(last.bytes);
          held.pop_back();
          break;
        }
        default: {
          const std::size_t keep = *rc::gen::inRange<std::size_t>(0, 20) * kMiB;
          const std::uint64_t before = cached(pool.counters());
          const std::size_t trimmed = pool.trim(keep);
          RC_ASSERT(cached(pool.counters()) == before - trimmed);
          RC_ASSERT(cached(pool.counters()) <= keep);
        }
      }
      const PoolCounters counters = pool.counters();
      RC_ASSERT(in_use(counters) == expected_in_use);
      RC_ASSERT(cached(counters) <= limit);
      std::uint64_t served = counters.pass_throughs;
      for (const auto& tier : counters.tiers) {
        served += tier.hits + tier.misses;
        // Every buffer that was ever mapped is in use, cached or trimmed.
        RC_ASSERT(tier.misses * tier.buffer_bytes >= tier.bytes_in_use + tier.bytes_cached);
      }
      RC_ASSERT(served == requests);
    }
  }));
}

// The same from several threads that hand buffers to one another, while one of them trims.
TEST(BufferPool, ServesThreadsThatExchangeBuffers) {
  constexpr int kThreads = 4;
  constexpr int kRounds = 2000;
  BufferPool pool({.max_cached_bytes = 30 * kMiB});
  struct Held {
    PooledBuffer buffer;
    std::uint64_t pattern;
  };
  std::mutex mutex;
  std::deque<Held> exchange;
  std::atomic<int> broken = 0;
  {
    std::vector<std::jthread> threads;
    for (int thread = 0; thread < kThreads; ++thread) {
      threads.emplace_back([&, thread] {
        std::minstd_rand random(static_cast<unsigned>(thread + 1));
        for (int round = 0; round < kRounds; ++round) {
          const std::size_t bytes = BufferPool::kTierBytes[random() % 4];
          Held mine{take(pool, bytes), static_cast<std::uint64_t>(thread * kRounds + round)};
          std::memcpy(mine.buffer.data(), &mine.pattern, sizeof mine.pattern);
          std::optional<Held> other;
          {
            const std::scoped_lock lock(mutex);
            exchange.push_back(std::move(mine));
            if (exchange.size() > 6) {
              other = std::move(exchange.front());
              exchange.pop_front();
            }
          }
          if (other &&
              std::memcmp(other->buffer.data(), &other->pattern, sizeof(other->pattern)) != 0)
            ++broken;
          if (thread == 0 && round % 50 == 0) pool.trim(kMiB);
        }
      });
    }
  }
  exchange.clear();
  EXPECT_EQ(broken, 0);
  const PoolCounters counters = pool.counters();
  EXPECT_EQ(in_use(counters), 0U);
  EXPECT_LE(cached(counters), 30 * kMiB);
  std::uint64_t served = 0;
  std::uint64_t mapped = 0;
  for (const auto& tier : counters.tiers) {
    served += tier.hits + tier.misses;
    mapped += tier.misses * tier.buffer_bytes;
  }
  EXPECT_EQ(served, static_cast<std::uint64_t>(kThreads) * kRounds);
  EXPECT_EQ(mapped, cached(counters) + counters.bytes_trimmed);
}

// Threads that still hold caches and buffers while the pool goes: nothing may dangle.
TEST(BufferPool, MayDieWhileThreadsStillRelease) {
  for (int round = 0; round < 50; ++round) {
    auto pool = std::make_unique<BufferPool>();
    std::barrier ready(3);
    std::vector<std::jthread> threads;
    for (int thread = 0; thread < 2; ++thread) {
      threads.emplace_back([&] {
        std::vector<PooledBuffer> held;
        for (int i = 0; i < 8; ++i) held.push_back(take(*pool, 128 * kKiB));
        ready.arrive_and_wait();
        held.clear();
      });
    }
    ready.arrive_and_wait();
    pool.reset();
  }
}

}  // namespace
}  // namespace ollama::ml
