// What a plan of attention holds: a header, then tables at the offsets that it names. Private to
// the kernels of attention.
//
// A run is a row of adjacent tokens of one sequence. Its list gives the cell of each slot, -1 where
// there is none; a slot is a position less the run's base, a multiple of kSplit.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "ml/kernels/attention.h"

namespace ollama::ml::kernels::attention {

inline constexpr std::int64_t kTile = 64;    // positions; the bits of a word
inline constexpr std::int64_t kSplit = 256;  // positions
// Runs of at most this many tokens are divided by split, longer ones by blocks of tokens.
inline constexpr std::int64_t kShortRun = 8;

struct Run {
  std::int32_t first_token;
  std::int32_t tokens;
  std::int32_t slots;     // up to the last one that has a cell
  std::int32_t list;      // where its list starts among the lists; -1: there was no room
  std::int32_t base;      // position of slot 0
  std::int32_t by_cell;   // slots are cell indices, not positions
  std::int32_t partials;  // its first (token, split) among the partial results; -1: a long run
};

struct Token {
  std::int32_t run;
  std::int32_t first;  // visible slot; of a token that sees nothing 0
  std::int32_t last;   // visible slot; of a token that sees nothing -1
  std::int32_t whole;  // it sees all cells of its run's list from first to last
};

struct Header {
  std::int32_t tokens;
  std::int32_t runs;
  std::int64_t tokens_offset;  // in bytes from the header, as the others
  std::int64_t runs_offset;
  std::int64_t lists_offset;
};

struct Plan {
  std::span<const Token> tokens;
  std::span<const Run> runs;
  const std::int32_t* lists;
};

inline Plan read_plan(const std::byte* memory) {
  const auto* header = reinterpret_cast<const Header*>(memory);
  return {{reinterpret_cast<const Token*>(memory + header->tokens_offset),
           static_cast<std::size_t>(header->tokens)},
          {reinterpret_cast<const Run*>(memory + header->runs_offset),
           static_cast<std::size_t>(header->runs)},
          reinterpret_cast<const std::int32_t*>(memory + header->lists_offset)};
}

constexpr std::int64_t round_up(std::int64_t value, std::int64_t unit) {
  return (value + unit - 1) / unit * unit;
}

// Slots of the longest list: as many consecutive positions as there are cells, wherever they start.
constexpr std::int64_t slot_capacity(std::int64_t cells) {
  return round_up(cells, kSplit) + kSplit;
}

inline constexpr float kNothing = -std::numeric_limits<float>::infinity();

// What a row has seen of a split, or of all splits so far, apart from its weighted values.
struct Softmax {
  float max = kNothing;
  float sum = 0.0F;
};

// Nothing visible weighed anything. (NaN is something.)
inline bool is_empty(const Softmax& state) { return state.max == kNothing && state.sum == 0.0F; }

inline std::int64_t splits_of(const Run& run) { return (run.slots + kSplit - 1) / kSplit; }

inline bool is_visible(const AttentionMask& mask, std::int64_t token, std::int64_t cell) {
  const std::byte* row = mask.data + static_cast<std::size_t>(token) * mask.token_stride;
  if (mask.type == DType::kF16) {
    return reinterpret_cast<const std::uint16_t*>(row)[cell] == kHalfZero;
  }
  return reinterpret_cast<const float*>(row)[cell] == 0.0F;
}

// Writes the list of a run that the plan had no room for; `list` holds slot_capacity().
void write_list(const AttentionMask& mask, std::int64_t cells, const Run& run,
                std::span<std::int32_t> list);

// Calls visit(index) for each bit that is set.
template <typename Visit>
void for_each_bit(std::uint64_t word, Visit&& visit) {
  for (; word != 0; word &= word - 1) visit(std::countr_zero(word));
}

}  // namespace ollama::ml::kernels::attention
