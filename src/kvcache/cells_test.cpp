#include "kvcache/cells.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <optional>
#include <set>

namespace ollama::kvcache {
namespace {

using CellRun = Run;  // inside a test, Run is GoogleTest's

Cells make(std::uint32_t cells, std::uint32_t sequences) {
  Result<Cells> result = Cells::create(cells, sequences);
  EXPECT_TRUE(result);
  return std::move(*result);
}

std::vector<std::uint32_t> cells_of(const Cells& cells, std::uint32_t sequence) {
  std::vector<std::uint32_t> result;
  cells.for_each_cell(sequence, [&](std::uint32_t cell) { result.push_back(cell); });
  return result;
}

// The 65th sequence has no bit: it must be refused at load, not wrap around into the first one's.
TEST(Cells, ServesUpTo64Sequences) {
  for (const std::uint32_t sequences : {0U, 65U, UINT32_MAX}) {
    const Result<Cells> result = Cells::create(16, sequences);
    ASSERT_FALSE(result) << sequences;
    EXPECT_EQ(result.error().message(), kTooManySequences.message);
  }
  EXPECT_EQ(Cells::create(0, 1).error().message(), kNoCells.message);

  Cells cells = make(16, 64);
  cells.occupy(3, 63, 0);
  cells.set(3, 0);
  EXPECT_EQ(cells.members(3), (std::uint64_t{1} << 63) | 1U);
  EXPECT_TRUE(cells.has(3, 63));
  EXPECT_FALSE(cells.has(3, 62));
}

TEST(Cells, KnowsWhatIsSharedAndWhatIsFree) {
  Cells cells = make(100, 3);
  EXPECT_TRUE(cells.is_free(70));
  EXPECT_FALSE(cells.is_shared(70));
  cells.occupy(70, 1, 5);
  EXPECT_FALSE(cells.is_shared(70));
  cells.set(70, 2);
  cells.set(70, 2);  // again is nothing new
  EXPECT_TRUE(cells.is_shared(70));
  EXPECT_EQ(cells.position(70), 5);
  EXPECT_EQ(cells.count(2), 1U);
  EXPECT_EQ(cells.used_cells(), 1U);

  EXPECT_FALSE(cells.clear(70, 0)) << "not a member";
  EXPECT_FALSE(cells.clear(70, 1)) << "still used by 2";
  EXPECT_TRUE(cells.clear(70, 2));
  EXPECT_TRUE(cells.is_free(70));
  EXPECT_EQ(cells.used_cells(), 0U);
}

// Attention reads up to the highest used cell in every step: a range that does not shrink costs
// time, one that shrinks too far loses tokens.
TEST(Cells, FollowTheUsedRange) {
  Cells cells = make(1000, 2);
  EXPECT_EQ(cells.used_range(), CellRun{});
  for (const std::uint32_t cell : {500U, 3U, 999U}) {
    cells.occupy(cell, 0, static_cast<std::int32_t>(cell));
  }
  EXPECT_EQ(cells.used_range(), (CellRun{3, 997}));
  cells.clear(999, 0);
  EXPECT_EQ(cells.used_range(), (CellRun{3, 498}));
  cells.clear(3, 0);
  EXPECT_EQ(cells.used_range(), (CellRun{500, 1}));
  cells.clear(500, 0);
  EXPECT_EQ(cells.used_range(), CellRun{});
  cells.occupy(7, 1, 0);
  EXPECT_EQ(cells.used_range(), (CellRun{7, 1}));
}

TEST(Cells, FollowThePositionsOfASequence) {
  Cells cells = make(10, 2);
  EXPECT_EQ(cells.min_position(0), -1);
  EXPECT_EQ(cells.max_position(0), -1);
  cells.occupy(0, 0, 7);
  cells.occupy(1, 0, 4);
  cells.occupy(2, 0, 9);
  EXPECT_EQ(cells.min_position(0), 4);
  EXPECT_EQ(cells.max_position(0), 9);
  cells.clear(1, 0);
  cells.clear(2, 0);
  EXPECT_EQ(cells.min_position(0), 7);
  EXPECT_EQ(cells.max_position(0), 7);
  EXPECT_EQ(cells.max_position(1), -1);
}

TEST(Cells, ShareAPrefix) {
  Cells cells = make(10, 3);
  FreeList free(10);
  std::vector<CellRun> runs;
  ASSERT_TRUE(free.allocate(6, runs));
  for (std::uint32_t cell = 0; cell < 6; ++cell) {
    cells.occupy(cell, 0, static_cast<std::int32_t>(cell));
  }
  EXPECT_EQ(cells.copy_prefix(0, 2, 4), 4U);
  EXPECT_EQ(cells.copy_prefix(0, 2, 5), 1U) << "those that it has are not counted again";
  EXPECT_EQ(cells.copy_prefix(0, 0, 5), 0U);
  EXPECT_EQ(cells_of(cells, 2), (std::vector<std::uint32_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(cells.max_position(2), 4);

  EXPECT_EQ(cells.remove_all(0, free), 6U);
  EXPECT_EQ(free.runs(), (std::vector<CellRun>{{5, 5}})) << "what 2 uses stays";
  EXPECT_EQ(cells.remove(2, 1, 3, free), 2U);
  EXPECT_EQ(free.runs(), (std::vector<CellRun>{{1, 2}, {5, 5}}));
  EXPECT_EQ(cells.remove(2, 10, 20, free), 0U);
  EXPECT_EQ(cells.remove_all(1, free), 0U);
}

// A shift that failed half-way would leave positions that no rotation of K matches.
TEST(Cells, ShiftAllOrNothing) {
  Cells cells = make(10, 2);
  for (std::uint32_t cell = 0; cell < 6; ++cell) {
    cells.occupy(cell, 0, static_cast<std::int32_t>(cell));
  }
  cells.copy_prefix(0, 1, 2);
  EXPECT_EQ(cells.shift(0, 1, 6, 3).error().message(), kCellShared.message);
  EXPECT_EQ(cells.shift(0, 2, 6, -3).error().message(), kNegativePosition.message);
  EXPECT_EQ(cells.position(5), 5);
  ASSERT_TRUE(cells.shift(0, 4, 6, -2));
  EXPECT_EQ(cells.position(4), 2);
  EXPECT_EQ(cells.position(5), 3);
  EXPECT_EQ(cells.position(3), 3);
  EXPECT_EQ(cells.max_position(0), 3);
  EXPECT_TRUE(cells.shift(1, 5, 9, -100)) << "an empty range";
}

TEST(Cells, ResetFreesEverything) {
  Cells cells = make(100, 2);
  cells.occupy(99, 1, 4);
  cells.reset();
  EXPECT_EQ(cells.used_range(), CellRun{});
  EXPECT_TRUE(cells.is_free(99));
  EXPECT_EQ(cells.count(1), 0U);
  EXPECT_EQ(cells.size(), 100U);
  EXPECT_EQ(cells.sequence_count(), 2U);
}

// The specification: a set of sequences for each cell, everything found by looking at all cells.
struct NaiveCells {
  struct Cell {
    std::int32_t position = 0;
    std::set<std::uint32_t> members;
  };
  std::vector<Cell> cells;

  void remove(std::uint32_t sequence, std::int32_t first, std::int32_t end) {
    for (Cell& cell : cells) {
      if (cell.position >= first && cell.position < end) cell.members.erase(sequence);
    }
  }
  void copy_prefix(std::uint32_t from, std::uint32_t to, std::int32_t end) {
    for (Cell& cell : cells) {
      if (cell.members.contains(from) && cell.position < end) cell.members.insert(to);
    }
  }
  std::optional<ErrorConstant> shift(std::uint32_t sequence, std::int32_t first, std::int32_t end,
                                     std::int32_t delta) {
    std::vector<Cell*> moved;
    bool shared = false;
    bool negative = false;
    for (Cell& cell : cells) {
      if (!cell.members.contains(sequence) || cell.position < first || cell.position >= end)
        continue;
      moved.push_back(&cell);
      shared |= cell.members.size() > 1;
      negative |= cell.position + delta < 0;
    }
    if (shared) return kCellShared;
    if (negative) return kNegativePosition;
    for (Cell* cell : moved) cell->position += delta;
    return std::nullopt;
  }
};

void expect_same(const Cells& cells, const FreeList& free, const NaiveCells& naive) {
  std::uint32_t used = 0;
  std::uint32_t first = UINT32_MAX;
  std::uint32_t last = 0;
  for (std::uint32_t cell = 0; cell < cells.size(); ++cell) {
    const NaiveCells::Cell& expected = naive.cells[cell];
    std::uint64_t members = 0;
    for (const std::uint32_t sequence : expected.members) members |= std::uint64_t{1} << sequence;
    RC_ASSERT(cells.members(cell) == members);
    RC_ASSERT(cells.is_free(cell) == (members == 0));
    RC_ASSERT(cells.is_shared(cell) == (expected.members.size() > 1));
    RC_ASSERT(free.is_free(cell) == (members == 0));
    if (members == 0) continue;
    RC_ASSERT(cells.position(cell) == expected.position);
    ++used;
    first = std::min(first, cell);
    last = cell;
  }
  RC_ASSERT(cells.used_cells() == used);
  RC_ASSERT(free.free_cells() == cells.size() - used);
  RC_ASSERT(cells.used_range() == (used == 0 ? CellRun{} : CellRun{first, last - first + 1}));

  for (std::uint32_t sequence = 0; sequence < cells.sequence_count(); ++sequence) {
    std::vector<std::uint32_t> members;
    std::int32_t min = -1;
    std::int32_t max = -1;
    for (std::uint32_t cell = 0; cell < cells.size(); ++cell) {
      const NaiveCells::Cell& expected = naive.cells[cell];
      const bool member = expected.members.contains(sequence);
      RC_ASSERT(cells.has(cell, sequence) == member);
      RC_ASSERT((cells.row(sequence)[cell / 64] >> (cell % 64) & 1U) == (member ? 1U : 0U));
      if (!member) continue;
      members.push_back(cell);
      min = min < 0 ? expected.position : std::min(min, expected.position);
      max = std::max(max, expected.position);
    }
    RC_ASSERT(cells_of(cells, sequence) == members);
    RC_ASSERT(cells.count(sequence) == members.size());
    RC_ASSERT(cells.min_position(sequence) == min);
    RC_ASSERT(cells.max_position(sequence) == max);
  }
}

TEST(Cells, NeverDivergeFromSetsOfSequences) {
  EXPECT_TRUE(rc::check("what an engine does to its cache, in random order", [] {
    const auto size = *rc::gen::inRange<std::uint32_t>(1, 300);
    const auto sequences = *rc::gen::element(1U, 2U, 5U, 64U);
    const auto any_sequence = rc::gen::inRange<std::uint32_t>(0, sequences);
    Cells cells = make(size, sequences);
    FreeList free(size);
    NaiveCells naive{std::vector<NaiveCells::Cell>(size)};
    std::vector<CellRun> runs;
    std::vector<std::uint32_t> last_cell(sequences, kNoCell);
    const int steps = *rc::gen::inRange(1, 50);
    for (int step = 0; step < steps; ++step) {
      const std::uint32_t sequence = *any_sequence;
      const std::int32_t end = cells.max_position(sequence) + 1;
      switch (*rc::gen::inRange(0, 8)) {
        case 0:
        case 1:
        case 2: {  // a chunk of a prompt, or the next token
          const auto count = *rc::gen::element(1U, 1U, 7U, 64U, size / 2 + 1);
          const Result<> result = free.allocate(count, runs, last_cell[sequence]);
          RC_ASSERT(result.has_value() == (count <= size - cells.used_cells()));
          std::int32_t position = end;
          for (const CellRun& run : runs) {
            for (std::uint32_t cell = run.start; cell < run.end(); ++cell, ++position) {
              RC_ASSERT(cells.is_free(cell));
              cells.occupy(cell, sequence, position);
              naive.cells[cell] = {position, {sequence}};
              last_cell[sequence] = cell;
            }
          }
          break;
        }
        case 3: {  // a prefix for another request
          const std::uint32_t to = *any_sequence;
          const auto prefix = *rc::gen::inRange<std::int32_t>(0, end + 2);
          const std::uint32_t before = cells.count(to);
          const std::uint32_t added = cells.copy_prefix(sequence, to, prefix);
          RC_ASSERT(cells.count(to) == before + added);
          naive.copy_prefix(sequence, to, prefix);
          break;
        }
        case 4: {  // any range
          const auto first = *rc::gen::inRange<std::int32_t>(0, end + 2);
          const auto to = *rc::gen::inRange<std::int32_t>(first, end + 3);
          const std::uint32_t before = cells.count(sequence);
          const std::uint32_t removed = cells.remove(sequence, first, to, free);
          RC_ASSERT(cells.count(sequence) == before - removed);
          naive.remove(sequence, first, to);
          break;
        }
        case 5: {  // a window slides: what is too old goes
          const auto window = *rc::gen::inRange<std::int32_t>(1, 40);
          cells.remove(sequence, 0, end - window, free);
          naive.remove(sequence, 0, end - window);
          break;
        }
        case 6: {  // a context shift: a range goes, the rest moves down, or back up
          const auto first = *rc::gen::inRange<std::int32_t>(0, end + 1);
          const auto delta = *rc::gen::inRange<std::int32_t>(-20, 20);
          const Result<> result = cells.shift(sequence, first, end, delta);
          const auto expected = naive.shift(sequence, first, end, delta);
          RC_ASSERT(result.has_value() == !expected.has_value());
          if (!result) RC_ASSERT(result.error().message() == expected->message);
          break;
        }
        default: {  // one cell
          const auto cell = *rc::gen::inRange<std::uint32_t>(0, size);
          if (*rc::gen::arbitrary<bool>() && !cells.is_free(cell)) {
            cells.set(cell, sequence);
            naive.cells[cell].members.insert(sequence);
          } else {
            const bool was_last = naive.cells[cell].members == std::set<std::uint32_t>{sequence};
            const bool freed = cells.clear(cell, sequence);
            RC_ASSERT(freed == was_last);
            if (freed) free.release({cell, 1});
            naive.cells[cell].members.erase(sequence);
          }
        }
      }
      expect_same(cells, free, naive);
    }
  }));
}

}  // namespace
}  // namespace ollama::kvcache
