#include "kvcache/cells.h"

namespace ollama::kvcache {

Result<Cells> Cells::create(std::uint32_t cells, std::uint32_t sequences) {
  if (sequences == 0 || sequences > kMaxSequences) return fail(kTooManySequences);
  if (cells == 0 || cells > static_cast<std::uint32_t>(INT32_MAX)) return fail(kNoCells);
  return Cells(cells, sequences);
}

Cells::Cells(std::uint32_t cells, std::uint32_t sequences)
    : positions_(cells, -1),
      members_(cells, 0),
      used_((cells + 63) / 64, 0),
      blocks_(used_.size()),
      sequences_(sequences) {
  rows_.resize(sequences * words(), 0);
}

bool Cells::leave(std::uint32_t cell, std::uint32_t sequence) {
  row_word(sequence, cell) &= ~bit(cell);
  members_[cell] &= ~bit(sequence);
  --sequences_[sequence].count;
  if (members_[cell] != 0) return false;
  used_[cell / 64] &= ~bit(cell);
  if (used_[cell / 64] == 0) blocks_[cell / 64] = {};
  --used_count_;
  return true;
}

bool Cells::clear(std::uint32_t cell, std::uint32_t sequence) {
  if (!has(cell, sequence)) return false;
  const bool freed = leave(cell, sequence);
  Sequence& info = sequences_[sequence];
  if (info.count == 0) {
    info = {};
  } else if (positions_[cell] == info.min || positions_[cell] == info.max) {
    info.stale = true;
  }
  if (freed) settle_used_range();
  return freed;
}

const Cells::Sequence& Cells::settled(std::uint32_t sequence) const {
  Sequence& info = sequences_[sequence];
  if (info.stale) {
    info.min = INT32_MAX;
    info.max = -1;
    for_each_cell(sequence, [&](std::uint32_t cell) {
      info.min = std::min(info.min, positions_[cell]);
      info.max = std::max(info.max, positions_[cell]);
    });
    info.stale = false;
  }
  return info;
}

std::int32_t Cells::min_position(std::uint32_t sequence) const { return settled(sequence).min; }
std::int32_t Cells::max_position(std::uint32_t sequence) const { return settled(sequence).max; }

template <typename Visitor>
void Cells::for_each_word(std::uint32_t sequence, std::int64_t first, std::int64_t end,
                          Visitor&& visit) const {
  if (count(sequence) == 0) return;
  const std::uint32_t last_word = last_used_ / 64;
  for (std::uint32_t word = first_used_ / 64; word <= last_word; ++word) {
    const std::uint64_t bits = row_word(sequence, word * 64);
    if (bits == 0 || blocks_[word].max < first || blocks_[word].min >= end) continue;
    visit(word, bits);
  }
}

std::uint32_t Cells::cell_at(std::uint32_t sequence, std::int32_t position) const {
  std::uint32_t found = kNoCell;
  for_each_word(
      sequence, position, std::int64_t{position} + 1, [&](std::uint32_t word, std::uint64_t bits) {
        for (; bits != 0 && found == kNoCell; bits &= bits - 1) {
          const std::uint32_t cell = word * 64 + static_cast<std::uint32_t>(std::countr_zero(bits));
          if (positions_[cell] == position) found = cell;
        }
      });
  return found;
}

std::uint32_t Cells::remove(std::uint32_t sequence, std::int32_t first, std::int32_t end,
                            FreeList& free) {
  Sequence& info = sequences_[sequence];
  const std::uint32_t before = info.count;
  if (before == 0 || first >= end || first > info.max || end <= info.min) return 0;

  // The neighbours of the range are looked at too: those that stay are the new bounds.
  bool below = false;
  bool above = false;
  Run freed;
  for_each_word(sequence, std::int64_t{first} - 1, std::int64_t{end} + 1,
                [&](std::uint32_t word, std::uint64_t bits) {
                  const std::uint64_t used = used_[word];
                  for (; bits != 0; bits &= bits - 1) {
                    const std::uint32_t cell =
                        word * 64 + static_cast<std::uint32_t>(std::countr_zero(bits));
                    const std::int32_t position = positions_[cell];
                    if (position < first || position >= end) {
                      below |= position == first - 1;
                      above |= position == end;
                    } else if (leave(cell, sequence)) {
                      if (freed.length != 0 && freed.end() != cell) {
                        free.release(freed);
                        freed.length = 0;
                      }
                      if (freed.length == 0) freed.start = cell;
                      ++freed.length;
                    }
                  }
                  if (used_[word] != used) settle_block(word);
                });
  if (freed.length != 0) free.release(freed);

  if (info.count == 0) {
    info = {};
  } else {
    if (first <= info.min) {
      info.min = end;
      info.stale |= !above;
    }
    if (end > info.max) {
      info.max = first - 1;
      info.stale |= !below;
    }
  }
  settle_used_range();
  return before - info.count;
}

std::uint32_t Cells::copy_prefix(std::uint32_t from, std::uint32_t to, std::int32_t end) {
  if (from == to) return 0;
  std::uint32_t added = 0;
  Block bounds;
  for_each_word(from, 0, end, [&](std::uint32_t word, std::uint64_t bits) {
    std::uint64_t& row = row_word(to, word * 64);
    const std::uint64_t before = row;
    for (bits &= ~before; bits != 0; bits &= bits - 1) {
      const std::uint32_t cell = word * 64 + static_cast<std::uint32_t>(std::countr_zero(bits));
      if (positions_[cell] >= end) continue;
      members_[cell] |= bit(to);
      row |= bit(cell);
      bounds.widen(positions_[cell]);
    }
    added += static_cast<std::uint32_t>(std::popcount(row ^ before));
  });
  if (added == 0) return 0;
  Sequence& info = sequences_[to];
  if (info.count == 0) info = {0, bounds.min, bounds.max, false};
  info.count += added;
  info.min = std::min(info.min, bounds.min);
  info.max = std::max(info.max, bounds.max);
  return added;
}

Result<> Cells::shift(std::uint32_t sequence, std::int32_t first, std::int32_t end,
                      std::int32_t delta) {
  // Calls change(cell) for the cells in the range.
  const auto for_each_inside = [&](auto&& change) {
    for_each_word(sequence, first, end, [&](std::uint32_t word, std::uint64_t bits) {
      for (; bits != 0; bits &= bits - 1) {
        const std::uint32_t cell = word * 64 + static_cast<std::uint32_t>(std::countr_zero(bits));
        if (positions_[cell] >= first && positions_[cell] < end) change(cell);
      }
      settle_block(word);
    });
  };
  bool shared = false;
  bool negative = false;
  for_each_inside([&](std::uint32_t cell) {
    shared |= is_shared(cell);
    negative |= std::int64_t{positions_[cell]} + delta < 0;
  });
  if (shared) return fail(kCellShared);
  if (negative) return fail(kNegativePosition);
  for_each_inside([&](std::uint32_t cell) { positions_[cell] += delta; });
  sequences_[sequence].stale = count(sequence) != 0;
  return {};
}

void Cells::settle_block(std::uint32_t word) {
  Block block;
  for (std::uint64_t bits = used_[word]; bits != 0; bits &= bits - 1) {
    block.widen(positions_[word * 64 + static_cast<std::uint32_t>(std::countr_zero(bits))]);
  }
  blocks_[word] = block;
}

void Cells::settle_used_range() {
  if (used_count_ == 0) {
    first_used_ = UINT32_MAX;
    last_used_ = 0;
    return;
  }
  std::uint32_t word = first_used_ / 64;
  while (used_[word] == 0) ++word;
  first_used_ = word * 64 + static_cast<std::uint32_t>(std::countr_zero(used_[word]));
  word = last_used_ / 64;
  while (used_[word] == 0) --word;
  last_used_ = word * 64 + 63 - static_cast<std::uint32_t>(std::countl_zero(used_[word]));
}

void Cells::reset() { *this = Cells(size(), sequence_count()); }

}  // namespace ollama::kvcache
