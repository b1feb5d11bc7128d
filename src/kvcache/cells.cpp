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
      sequences_(sequences) {
  rows_.resize(sequences * words(), 0);
}

bool Cells::leave(std::uint32_t cell, std::uint32_t sequence) {
  row_word(sequence, cell) &= ~bit(cell);
  members_[cell] &= ~bit(sequence);
  --sequences_[sequence].count;
  if (members_[cell] != 0) return false;
  used_[cell / 64] &= ~bit(cell);
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

std::uint32_t Cells::remove(std::uint32_t sequence, std::int32_t first, std::int32_t end,
                            FreeList& free) {
  const Sequence before = settled(sequence);
  if (before.count == 0 || first > before.max || end <= before.min) return 0;
  // One pass: what is taken out, and the bounds of what stays.
  Sequence after;
  after.min = INT32_MAX;
  Run freed;
  for_each_cell(sequence, [&](std::uint32_t cell) {
    const std::int32_t position = positions_[cell];
    if (position < first || position >= end) {
      after.min = std::min(after.min, position);
      after.max = std::max(after.max, position);
      return;
    }
    if (!leave(cell, sequence)) return;
    if (freed.length != 0 && freed.end() == cell) {
      ++freed.length;
      return;
    }
    if (freed.length != 0) free.release(freed);
    freed = {cell, 1};
  });
  if (freed.length != 0) free.release(freed);

  Sequence& info = sequences_[sequence];
  after.count = info.count;
  info = after.count == 0 ? Sequence{} : after;
  settle_used_range();
  return before.count - info.count;
}

std::uint32_t Cells::copy_prefix(std::uint32_t from, std::uint32_t to, std::int32_t end) {
  if (from == to) return 0;
  const std::uint32_t before = count(to);
  for_each_cell(from, [&](std::uint32_t cell) {
    if (positions_[cell] < end) set(cell, to);
  });
  return count(to) - before;
}

Result<> Cells::shift(std::uint32_t sequence, std::int32_t first, std::int32_t end,
                      std::int32_t delta) {
  const auto inside = [&](std::uint32_t cell) {
    return positions_[cell] >= first && positions_[cell] < end;
  };
  bool shared = false;
  bool negative = false;
  for_each_cell(sequence, [&](std::uint32_t cell) {
    if (!inside(cell)) return;
    shared |= is_shared(cell);
    negative |= std::int64_t{positions_[cell]} + delta < 0;
  });
  if (shared) return fail(kCellShared);
  if (negative) return fail(kNegativePosition);
  for_each_cell(sequence, [&](std::uint32_t cell) {
    if (inside(cell)) positions_[cell] += delta;
  });
  sequences_[sequence].stale = count(sequence) != 0;
  return {};
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
