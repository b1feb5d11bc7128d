// The free cells of a cache, as runs: allocation takes one contiguous block where one fits, best
// fit first, and release merges neighbours. Every operation costs O(log runs) for each run that it
// touches and allocates nothing: room for the worst case, every other cell free, is made at
// construction.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/error.h"

namespace ollama::kvcache {

inline constexpr ErrorConstant kCacheFull{ErrorCode::kOutOfMemory,
                                          "the KV cache has not enough free cells"};

inline constexpr std::uint32_t kNoCell = UINT32_MAX;

// Neighbouring cells: [start, start + length).
struct Run {
  std::uint32_t start = 0;
  std::uint32_t length = 0;
  std::uint32_t end() const { return start + length; }
  bool operator==(const Run&) const = default;
};

class FreeList {
 public:
  // All `cells` are free.
  explicit FreeList(std::uint32_t cells);
  FreeList(FreeList&&) noexcept;
  FreeList& operator=(FreeList&&) noexcept;
  ~FreeList();

  std::uint32_t size() const;  // cells, free or not
  std::uint32_t free_cells() const;
  std::uint32_t run_count() const;
  std::uint32_t largest_run() const;  // 0: nothing is free
  bool is_free(std::uint32_t cell) const;

  // Replaces `runs` by `count` cells, in this order of preference: the cells right after `hint`
  // (the last cell of the sequence that grows); the start of the smallest run that holds them all,
  // the lowest address among equals; as few runs as possible, the largest first. Never more than
  // `count` runs, nor than (cells + 1) / 2: with that reserved in `runs` nothing is allocated.
  // Errors: kCacheFull; then nothing has changed and `runs` is empty.
  Result<> allocate(std::uint32_t count, std::vector<Run>& runs, std::uint32_t hint = kNoCell);

  // All cells of `run` must be allocated.
  void release(Run run);
  // Makes all cells free.
  void reset();

  // All free runs by address, for tests and statistics. O(cells / 64).
  std::vector<Run> runs() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ollama::kvcache
