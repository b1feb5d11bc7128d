#include "kvcache/free_list.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

namespace ollama::kvcache {

std::ostream& operator<<(std::ostream& out, const Run& run) {
  return out << '[' << run.start << ", " << run.end() << ')';
}

namespace {

using CellRun = Run;  // inside a test, Run is GoogleTest's
using Runs = std::vector<CellRun>;

Runs allocate(FreeList& list, std::uint32_t count, std::uint32_t hint = kNoCell) {
  Runs runs;
  EXPECT_TRUE(list.allocate(count, runs, hint)) << count;
  return runs;
}

// A list of `cells` where exactly `free` is free.
FreeList with_free(std::uint32_t cells, const Runs& free) {
  FreeList list(cells);
  allocate(list, cells);
  for (const CellRun& run : free) list.release(run);
  return list;
}

TEST(FreeList, BeginsAsOneRun) {
  FreeList list(100);
  EXPECT_EQ(list.runs(), (Runs{{0, 100}}));
  EXPECT_EQ(list.free_cells(), 100U);
  EXPECT_EQ(list.largest_run(), 100U);
  EXPECT_EQ(allocate(list, 30), (Runs{{0, 30}}));
  EXPECT_EQ(list.runs(), (Runs{{30, 70}}));
  EXPECT_FALSE(list.is_free(29));
  EXPECT_TRUE(list.is_free(30));
  EXPECT_FALSE(list.is_free(100));
  EXPECT_FALSE(list.is_free(kNoCell));
}

TEST(FreeList, TakesTheSmallestRunThatFits) {
  FreeList list = with_free(100, {{0, 20}, {30, 5}, {40, 7}, {50, 50}});
  EXPECT_EQ(allocate(list, 6), (Runs{{40, 6}}));
  EXPECT_EQ(allocate(list, 5), (Runs{{30, 5}}));
  EXPECT_EQ(allocate(list, 21), (Runs{{50, 21}}));
}

TEST(FreeList, TakesTheLowestOfEqualRuns) {
  FreeList list = with_free(100, {{60, 4}, {10, 4}, {30, 4}});
  EXPECT_EQ(allocate(list, 4), (Runs{{10, 4}}));
  EXPECT_EQ(allocate(list, 3), (Runs{{30, 3}}));
}

// Scattered cells cost more work in every step after: never more runs than needed.
TEST(FreeList, SplitsOverTheFewestRuns) {
  FreeList list = with_free(100, {{0, 3}, {10, 10}, {30, 8}, {50, 2}, {60, 10}});
  EXPECT_EQ(allocate(list, 22), (Runs{{10, 10}, {60, 10}, {50, 2}}));
  EXPECT_EQ(list.runs(), (Runs{{0, 3}, {30, 8}}));
}

// A sequence that is decoded beside others stays in one piece as long as the next cell is free.
TEST(FreeList, ExtendsAfterTheHint) {
  FreeList list = with_free(100, {{0, 1}, {20, 30}});
  EXPECT_EQ(allocate(list, 1, 19), (Runs{{20, 1}}));
  EXPECT_EQ(allocate(list, 4, 20), (Runs{{21, 4}}));
  EXPECT_EQ(allocate(list, 1, 60), (Runs{{0, 1}})) << "60's neighbour is taken: best fit";
  EXPECT_EQ(allocate(list, 1, 99), (Runs{{25, 1}})) << "nothing follows the last cell";
  EXPECT_EQ(allocate(list, 1, 40), (Runs{{26, 1}})) << "a free cell is no hint";
  EXPECT_EQ(allocate(list, 1, kNoCell), (Runs{{27, 1}}));
}

TEST(FreeList, PrefersOneBlockToTheHint) {
  FreeList list = with_free(100, {{10, 2}, {50, 20}});
  EXPECT_EQ(allocate(list, 5, 9), (Runs{{50, 5}}));
}

TEST(FreeList, FailsWithoutTakingAnything) {
  FreeList list = with_free(100, {{10, 5}, {30, 5}});
  Runs runs{{1, 2}};
  const Result<> result = list.allocate(11, runs);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::kOutOfMemory);
  EXPECT_EQ(result.error().message(), kCacheFull.message);
  EXPECT_TRUE(runs.empty());
  EXPECT_EQ(list.free_cells(), 10U);
  EXPECT_TRUE(list.allocate(10, runs));
  EXPECT_TRUE(list.allocate(0, runs));
  EXPECT_TRUE(runs.empty());
  EXPECT_EQ(list.largest_run(), 0U);
}

TEST(FreeList, MergesWithBothNeighbours) {
  FreeList list = with_free(100, {{10, 5}, {20, 5}});
  list.release({15, 2});
  EXPECT_EQ(list.runs(), (Runs{{10, 7}, {20, 5}}));
  list.release({18, 2});
  EXPECT_EQ(list.runs(), (Runs{{10, 7}, {18, 7}}));
  list.release({17, 1});
  EXPECT_EQ(list.runs(), (Runs{{10, 15}}));
  list.release({0, 10});
  list.release({25, 75});
  EXPECT_EQ(list.runs(), (Runs{{0, 100}}));
  EXPECT_EQ(list.run_count(), 1U);
}

TEST(FreeList, IsMovedWhole) {
  FreeList list = with_free(100, {{10, 5}, {20, 9}});
  FreeList moved = std::move(list);
  moved.release({15, 5});
  EXPECT_EQ(moved.runs(), (Runs{{10, 19}}));
  moved.reset();
  EXPECT_EQ(moved.runs(), (Runs{{0, 100}}));
}

// The specification, over a plain array of flags.
struct NaiveFreeList {
  std::vector<bool> free;

  Runs runs() const {
    Runs result;
    for (std::uint32_t cell = 0; cell < free.size(); ++cell) {
      if (!free[cell]) continue;
      if (result.empty() || result.back().end() != cell) result.push_back({cell, 0});
      ++result.back().length;
    }
    return result;
  }
  void mark(CellRun run, bool value) {
    for (std::uint32_t cell = run.start; cell < run.end(); ++cell) free[cell] = value;
  }
  CellRun take(CellRun run) {
    mark(run, false);
    return run;
  }
  Runs allocate(std::uint32_t count, std::uint32_t hint) {
    Runs result;
    if (hint != kNoCell && !free[hint]) {
      for (const CellRun& run : runs()) {
        if (run.start == hint + 1 && run.length >= count) return {take({run.start, count})};
      }
    }
    while (count != 0) {
      CellRun best;
      CellRun largest;
      for (const CellRun& run : runs()) {
        if (run.length >= count && (best.length == 0 || run.length < best.length)) best = run;
        if (run.length > largest.length) largest = run;
      }
      if (best.length == 0) best = largest;
      result.push_back(take({best.start, std::min(best.length, count)}));
      count -= result.back().length;
    }
    return result;
  }
};

TEST(FreeList, NeverDivergesFromPlainFlags) {
  EXPECT_TRUE(rc::check("random allocations and releases", [] {
    const auto cells = *rc::gen::inRange<std::uint32_t>(1, 200);
    FreeList list(cells);
    NaiveFreeList naive{std::vector<bool>(cells, true)};
    Runs taken;
    Runs runs;
    runs.reserve((cells + 1) / 2);
    const CellRun* const storage = runs.data();
    const int steps = *rc::gen::inRange(1, 80);
    for (int step = 0; step < steps; ++step) {
      if (*rc::gen::inRange(0, 2) == 0) {
        // Small ones mostly, so that the list gets fragmented.
        const auto count =
            *rc::gen::inRange<std::uint32_t>(1, *rc::gen::element(3U, 10U, cells + 2));
        const auto hint =
            *rc::gen::oneOf(rc::gen::just(kNoCell), rc::gen::inRange<std::uint32_t>(0, cells));
        const std::uint32_t before = list.free_cells();
        const Result<> result = list.allocate(count, runs, hint);
        RC_ASSERT(result.has_value() == (count <= before));
        if (!result) continue;
        RC_ASSERT(runs == naive.allocate(count, hint));
        RC_ASSERT(list.free_cells() == before - count);
        taken.insert(taken.end(), runs.begin(), runs.end());
      } else if (!taken.empty()) {
        const auto index = *rc::gen::inRange<std::size_t>(0, taken.size());
        std::swap(taken[index], taken.back());
        // A part of what was allocated, the rest stays.
        const CellRun run = taken.back();
        const auto skip = *rc::gen::inRange<std::uint32_t>(0, run.length);
        const auto length = *rc::gen::inRange<std::uint32_t>(1, run.length - skip + 1);
        taken.pop_back();
        const CellRun part{run.start + skip, length};
        if (skip != 0) taken.push_back({run.start, skip});
        if (part.end() != run.end()) taken.push_back({part.end(), run.end() - part.end()});
        list.release(part);
        naive.mark(part, true);
      }
      const Runs expected = naive.runs();
      RC_ASSERT(list.runs() == expected);
      RC_ASSERT(list.run_count() == expected.size());
      std::uint32_t largest = 0;
      std::uint32_t sum = 0;
      for (const CellRun& run : expected) {
        largest = std::max(largest, run.length);
        sum += run.length;
      }
      RC_ASSERT(list.largest_run() == largest);
      RC_ASSERT(list.free_cells() == sum);
      for (std::uint32_t cell = 0; cell < cells; ++cell) {
        RC_ASSERT(list.is_free(cell) == naive.free[cell]);
      }
    }
    RC_ASSERT(runs.data() == storage);  // half the cells are room enough
  }));
}

}  // namespace
}  // namespace ollama::kvcache
