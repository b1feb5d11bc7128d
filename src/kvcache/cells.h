// What each cell of a cache holds: a position, and a bitmap of the sequences that use it. Sequences
// share a prefix by sharing its cells. Kept as a struct of arrays, with the transposed bitmap (the
// cells of each sequence) beside it, so that asking about one cell is O(1) and walking one sequence
// reads 1 bit a cell. Which free cell to take is FreeList's part. Used by one thread.
#pragma once

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"
#include "kvcache/free_list.h"

namespace ollama::kvcache {

inline constexpr std::uint32_t kMaxSequences = 64;

inline constexpr ErrorConstant kTooManySequences{
    ErrorCode::kInvalidArgument,
    "a KV cache serves 1 to 64 sequences: set OLLAMA_NUM_PARALLEL to 64 or less"};
inline constexpr ErrorConstant kNoCells{ErrorCode::kInvalidArgument,
                                        "a KV cache needs at least one cell"};
inline constexpr ErrorConstant kCellShared{
    ErrorCode::kInvalidArgument, "cells that sequences share cannot be moved to other positions"};
inline constexpr ErrorConstant kNegativePosition{ErrorCode::kInvalidArgument,
                                                 "a shift would move a cell before position 0"};

class Cells {
 public:
  // Errors: kTooManySequences, kNoCells.
  static Result<Cells> create(std::uint32_t cells, std::uint32_t sequences);

  std::uint32_t size() const { return static_cast<std::uint32_t>(members_.size()); }
  std::uint32_t sequence_count() const { return static_cast<std::uint32_t>(sequences_.size()); }

  // --- one cell: O(1) ---
  bool has(std::uint32_t cell, std::uint32_t sequence) const {
    return (members_[cell] >> sequence & 1U) != 0;
  }
  std::uint64_t members(std::uint32_t cell) const { return members_[cell]; }  // bit s: sequence s
  bool is_free(std::uint32_t cell) const { return members_[cell] == 0; }
  bool is_shared(std::uint32_t cell) const {
    return (members_[cell] & (members_[cell] - 1)) != 0;  // more than one bit; false when free
  }
  // Meaningless for a free cell.
  std::int32_t position(std::uint32_t cell) const { return positions_[cell]; }

  // Of all cells.
  std::span<const std::int32_t> positions() const { return positions_; }

  // Puts `sequence` at `position` (not negative) into a free cell.
  void occupy(std::uint32_t cell, std::uint32_t sequence, std::int32_t position) {
    assert(is_free(cell) && position >= 0);
    positions_[cell] = position;
    used_[cell / 64] |= bit(cell);
    blocks_[cell / 64].widen(position);
    ++used_count_;
    first_used_ = std::min(first_used_, cell);
    last_used_ = std::max(last_used_, cell);
    join(cell, sequence);
  }
  // Lets `sequence` share a used cell.
  void set(std::uint32_t cell, std::uint32_t sequence) {
    assert(!is_free(cell));
    if (!has(cell, sequence)) join(cell, sequence);
  }
  // Takes `sequence` out of a cell. True when that made the cell free: it is the caller's to
  // release.
  bool clear(std::uint32_t cell, std::uint32_t sequence);

  // --- one sequence ---
  std::uint32_t count(std::uint32_t sequence) const { return sequences_[sequence].count; }
  // The lowest and the highest position that the sequence has a cell for; -1 without cells. O(1),
  // but for the first call after clear() took one of the two away.
  std::int32_t min_position(std::uint32_t sequence) const;
  std::int32_t max_position(std::uint32_t sequence) const;

  // The cell that holds a position of the sequence; kNoCell when none does.
  std::uint32_t cell_at(std::uint32_t sequence, std::int32_t position) const;

  // The sequence's cells as bits: bit i of word w is cell 64 w + i.
  std::span<const std::uint64_t> row(std::uint32_t sequence) const {
    return std::span(rows_).subspan(std::size_t{sequence} * words(), words());
  }
  // Calls visit(cell) for the sequence's cells in ascending order. It may change that cell only.
  template <typename Visitor>
  void for_each_cell(std::uint32_t sequence, Visitor&& visit) const;

  // Takes the sequence out of its cells with first <= position < end; cells that nobody uses any
  // more are released to `free`. Returns how many cells the sequence lost.
  std::uint32_t remove(std::uint32_t sequence, std::int32_t first, std::int32_t end,
                       FreeList& free);
  std::uint32_t remove_all(std::uint32_t sequence, FreeList& free) {
    return remove(sequence, 0, INT32_MAX, free);
  }
  // Lets `to` share the cells of `from` with position < end. Returns how many were added.
  std::uint32_t copy_prefix(std::uint32_t from, std::uint32_t to, std::int32_t end);
  // Adds `delta` to the positions first <= position < end of a sequence.
  // Errors: kCellShared, kNegativePosition; then nothing has changed.
  Result<> shift(std::uint32_t sequence, std::int32_t first, std::int32_t end, std::int32_t delta);

  // --- all cells: O(1) ---
  std::uint32_t used_cells() const { return used_count_; }
  // From the lowest to the highest used cell; length 0 when none is.
  Run used_range() const {
    return used_count_ == 0 ? Run{} : Run{first_used_, last_used_ - first_used_ + 1};
  }
  // Frees everything.
  void reset();

 private:
  struct Sequence {
    std::uint32_t count = 0;
    std::int32_t min = -1;
    std::int32_t max = -1;
    bool stale = false;  // min and max are bounds only: a cell at one of them has gone
  };

  // Positions of the used cells of one word: bounds that may be too wide, never too narrow. Walks
  // skip the words that cannot have what they look for.
  struct Block {
    std::int32_t min = INT32_MAX;
    std::int32_t max = -1;
    void widen(std::int32_t position) {
      min = std::min(min, position);
      max = std::max(max, position);
    }
  };

  Cells(std::uint32_t cells, std::uint32_t sequences);

  static std::uint64_t bit(std::uint32_t index) { return std::uint64_t{1} << (index % 64); }
  std::size_t words() const { return used_.size(); }
  std::uint64_t& row_word(std::uint32_t sequence, std::uint32_t cell) {
    return rows_[sequence * words() + cell / 64];
  }
  std::uint64_t row_word(std::uint32_t sequence, std::uint32_t cell) const {
    return rows_[sequence * words() + cell / 64];
  }
  void join(std::uint32_t cell, std::uint32_t sequence) {
    members_[cell] |= bit(sequence);
    row_word(sequence, cell) |= bit(cell);
    Sequence& info = sequences_[sequence];
    const std::int32_t position = positions_[cell];
    if (info.count++ == 0) {
      info = {1, position, position, false};
    } else {
      info.min = std::min(info.min, position);
      info.max = std::max(info.max, position);
    }
  }
  // Takes the sequence out of the bitmaps, not its bounds nor the used range. True: the cell is
  // free.
  bool leave(std::uint32_t cell, std::uint32_t sequence);
  void settle_used_range();
  void settle_block(std::uint32_t word);
  // Calls visit(word, bits) for each word of the sequence's row that has cells and whose block
  // reaches into first <= position < end.
  template <typename Visitor>
  void for_each_word(std::uint32_t sequence, std::int64_t first, std::int64_t end,
                     Visitor&& visit) const;
  const Sequence& settled(std::uint32_t sequence) const;

  std::vector<std::int32_t> positions_;
  std::vector<std::uint64_t> members_;       // by cell: bit s
  std::vector<std::uint64_t> rows_;          // by sequence: words() of bits by cell
  std::vector<std::uint64_t> used_;          // bits by cell: the union of the rows
  std::vector<Block> blocks_;                // by word of used_
  mutable std::vector<Sequence> sequences_;  // bounds are settled when they are asked for
  std::uint32_t used_count_ = 0;
  std::uint32_t first_used_ = UINT32_MAX;
  std::uint32_t last_used_ = 0;
};

template <typename Visitor>
void Cells::for_each_cell(std::uint32_t sequence, Visitor&& visit) const {
  if (count(sequence) == 0) return;
  const std::span<const std::uint64_t> cells = row(sequence);
  const std::uint32_t last_word = last_used_ / 64;
  for (std::uint32_t word = first_used_ / 64; word <= last_word; ++word) {
    for (std::uint64_t bits = cells[word]; bits != 0; bits &= bits - 1) {
      visit(word * 64 + static_cast<std::uint32_t>(std::countr_zero(bits)));
    }
  }
}

}  // namespace ollama::kvcache
