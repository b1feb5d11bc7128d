#include "ml/kernels/attention_plan.h"

#include <algorithm>
#include <cstring>

// clang-format off
#include "ml/kernels/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ml/kernels/attention_plan.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace ollama::ml::kernels::attention::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Sets bit c of words where element c of the row is zero; returns nothing for the rest of the last
// word, which is cleared.
template <class T>
void zero_bits(const T* HWY_RESTRICT row, std::size_t cells, std::uint64_t* HWY_RESTRICT words) {
  const hn::CappedTag<T, 32> d;
  const std::size_t lanes = hn::Lanes(d);
  const auto zero = hn::Zero(d);
  std::size_t begin = 0;
  for (; begin + 64 <= cells; begin += 64) {
    std::uint64_t word = 0;
    for (std::size_t i = 0; i < 64; i += lanes) {
      std::uint8_t bits[8] = {};
      hn::StoreMaskBits(d, hn::Eq(hn::LoadU(d, row + begin + i), zero), bits);
      std::uint64_t part = 0;
      std::memcpy(&part, bits, sizeof(part));
      word |= part << i;
    }
    words[begin / 64] = word;
  }
  if (begin < cells) {
    std::uint64_t word = 0;
    for (std::size_t i = begin; i < cells; ++i) {
      word |= static_cast<std::uint64_t>(row[i] == T{0}) << (i - begin);
    }
    words[begin / 64] = word;
  }
}

void visible_cells(DType type, const std::byte* row, std::size_t cells, std::uint64_t* words) {
  if (type == DType::kF16) {
    zero_bits(reinterpret_cast<const std::uint16_t*>(row), cells, words);
  } else {
    zero_bits(reinterpret_cast<const float*>(row), cells, words);
  }
}

}  // namespace ollama::ml::kernels::attention::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ollama::ml::kernels::attention {
namespace {

HWY_EXPORT(visible_cells);

constexpr std::int64_t kLists = 64;

// Where everything lies in a plan's memory. What follows the lists is of use only while planning.
struct Layout {
  std::int64_t tokens;
  std::int64_t runs;
  std::int64_t lists;
  std::int64_t work_list;  // of the run that is open
  std::int64_t now;        // a bit a cell: what the token sees,
  std::int64_t before;     // what the token before it saw,
  std::int64_t seen;       // what the tokens of the open run see
  std::int64_t slots;      // a bit a slot: what the token sees
  std::int64_t counts;     // of cells in the work list before each word of slots
  std::int64_t end;
};

Layout layout_of(std::int64_t tokens, std::int64_t cells) {
  std::int64_t end = 0;
  const auto take = [&end](std::int64_t count, std::size_t size) {
    const std::int64_t begin = end;
    end = round_up(end + count * static_cast<std::int64_t>(size),
                   static_cast<std::int64_t>(kAttentionAlignment));
    return begin;
  };
  const std::int64_t slots = slot_capacity(cells);
  const std::int64_t words = (cells + 63) / 64;
  take(1, sizeof(Header));
  Layout layout{};
  layout.tokens = take(tokens, sizeof(Token));
  layout.runs = take(tokens, sizeof(Run));
  layout.lists = take(std::min(tokens, kLists) * slots, sizeof(std::int32_t));
  layout.work_list = take(slots, sizeof(std::int32_t));
  layout.now = take(words, sizeof(std::uint64_t));
  layout.before = take(words, sizeof(std::uint64_t));
  layout.seen = take(words, sizeof(std::uint64_t));
  layout.slots = take(slots / 64, sizeof(std::uint64_t));
  layout.counts = take(slots / 64 + 1, sizeof(std::int32_t));
  layout.end = end;
  return layout;
}

class Planner {
 public:
  Planner(const AttentionMask& mask, std::int64_t tokens, std::int64_t cells, std::int64_t partials,
          std::byte* memory)
      : mask_(mask),
        cells_(cells),
        partials_left_(partials),
        layout_(layout_of(tokens, cells)),
        tokens_(table<Token>(memory, layout_.tokens, tokens)),
        runs_(table<Run>(memory, layout_.runs, tokens)),
        lists_(table<std::int32_t>(memory, layout_.lists,
                                   std::min(tokens, kLists) * slot_capacity(cells))),
        list_(table<std::int32_t>(memory, layout_.work_list, slot_capacity(cells))),
        now_(table<std::uint64_t>(memory, layout_.now, (cells + 63) / 64)),
        before_(table<std::uint64_t>(memory, layout_.before, (cells + 63) / 64)),
        seen_(table<std::uint64_t>(memory, layout_.seen, (cells + 63) / 64)),
        slots_(table<std::uint64_t>(memory, layout_.slots, slot_capacity(cells) / 64)),
        counts_(table<std::int32_t>(memory, layout_.counts, slot_capacity(cells) / 64 + 1)) {}

  void plan(std::byte* memory) {
    for (std::size_t i = 0; i < tokens_.size(); ++i) {
      const std::byte* row = mask_.data + i * mask_.token_stride;
      HWY_DYNAMIC_DISPATCH(visible_cells)
      (mask_.type, row, static_cast<std::size_t>(cells_), now_.data());
      if (!continues_run(i) || !join()) {
        if (run_ != nullptr) close();
        open(static_cast<std::int32_t>(i));
      }
      ++run_->tokens;
      describe(tokens_[i]);
      std::swap(now_, before_);
    }
    if (run_ != nullptr) close();
    *reinterpret_cast<Header*>(memory) = {.tokens = static_cast<std::int32_t>(tokens_.size()),
                                          .runs = run_count_,
                                          .tokens_offset = layout_.tokens,
                                          .runs_offset = layout_.runs,
                                          .lists_offset = layout_.lists};
  }

 private:
  template <typename T>
  static std::span<T> table(std::byte* memory, std::int64_t offset, std::int64_t count) {
    return {reinterpret_cast<T*>(memory + offset), static_cast<std::size_t>(count)};
  }

  // Calls visit(cell) for the cells whose bits select(word index) has, until it returns false.
  template <typename Select, typename Visit>
  bool all_cells(Select&& select, Visit&& visit) const {
    for (std::size_t w = 0; w < now_.size(); ++w) {
      for (std::uint64_t word = select(w); word != 0; word &= word - 1) {
        if (!visit(static_cast<std::int32_t>(w * 64) + std::countr_zero(word))) return false;
      }
    }
    return true;
  }

  std::int64_t position(std::int32_t cell) const {
    return mask_.positions == nullptr ? cell : mask_.positions[cell];
  }
  std::int64_t slot_of(std::int32_t cell) const {
    return run_->by_cell != 0 ? cell : position(cell) - run_->base;
  }

  // The newest cell of the token before is what makes the sequence of both one.
  bool continues_run(std::size_t token) const {
    if (run_ == nullptr || tokens_[token - 1].last < 0) return false;
    const auto newest =
        static_cast<std::size_t>(list_[static_cast<std::size_t>(tokens_[token - 1].last)]);
    return ((now_[newest / 64] >> (newest % 64)) & 1) != 0;
  }

  // Enters cells into the list; on a conflict it is left as it was.
  template <typename Select>
  bool place(Select&& select) {
    const auto capacity = static_cast<std::int64_t>(list_.size());
    std::int32_t conflict = -1;
    const bool done = all_cells(select, [&](std::int32_t cell) {
      const std::int64_t slot = slot_of(cell);
      if (slot < 0 || slot >= capacity || list_[static_cast<std::size_t>(slot)] >= 0) {
        conflict = cell;
        return false;
      }
      list_[static_cast<std::size_t>(slot)] = cell;
      return true;
    });
    if (!done) {
      all_cells(select, [&](std::int32_t cell) {
        if (cell == conflict) return false;
        list_[static_cast<std::size_t>(slot_of(cell))] = -1;
        return true;
      });
    }
    return done;
  }

  void flip(std::int32_t cell) {
    const auto slot = static_cast<std::size_t>(slot_of(cell));
    slots_[slot / 64] ^= std::uint64_t{1} << (slot % 64);
  }

  // Adds the token to the open run, unless its cells and the run's get into each other's way: it
  // then starts a run of its own, so that its result does not depend on its neighbours.
  bool join() {
    if (!place([this](std::size_t w) { return now_[w] & ~seen_[w]; })) return false;
    all_cells([this](std::size_t w) { return now_[w] ^ before_[w]; },
              [this](std::int32_t cell) {
                flip(cell);
                return true;
              });
    for (std::size_t w = 0; w < now_.size(); ++w) seen_[w] |= now_[w];
    return true;
  }

  void open(std::int32_t token) {
    run_ = &runs_[static_cast<std::size_t>(run_count_++)];
    *run_ = {.first_token = token,
             .tokens = 0,
             .slots = 0,
             .list = -1,
             .base = 0,
             .by_cell = 0,
             .partials = -1};
    std::ranges::fill(list_, -1);
    std::ranges::fill(slots_, std::uint64_t{0});
    std::ranges::copy(now_, seen_.begin());
    const auto all = [this](std::size_t w) { return now_[w]; };
    std::int64_t lowest = std::numeric_limits<std::int32_t>::max();
    all_cells(all, [&](std::int32_t cell) {
      lowest = std::min(lowest, position(cell));
      return true;
    });
    run_->base = static_cast<std::int32_t>(std::max<std::int64_t>(lowest, 0) / kSplit * kSplit);
    if (!place(all)) {
      run_->by_cell = 1;
      run_->base = 0;
      place(all);
    }
    all_cells(all, [this](std::int32_t cell) {
      flip(cell);
      return true;
    });
  }

  void describe(Token& token) const {
    token = {.run = run_count_ - 1, .first = 0, .last = -1, .whole = 0};
    for (std::size_t w = 0; w < slots_.size(); ++w) {
      if (slots_[w] == 0) continue;
      const auto begin = static_cast<std::int32_t>(w * 64);
      if (token.last < 0) token.first = begin + std::countr_zero(slots_[w]);
      token.last = begin + 63 - std::countl_zero(slots_[w]);
      token.whole += std::popcount(slots_[w]);  // for now: how many it sees
    }
  }

  void close() {
    std::int32_t count = 0;
    for (std::size_t w = 0; w < slots_.size(); ++w) {
      counts_[w] = count;
      for (std::size_t i = 0; i < 64; ++i) {
        if (list_[w * 64 + i] < 0) continue;
        ++count;
        run_->slots = static_cast<std::int32_t>(w * 64 + i + 1);
      }
    }
    counts_[slots_.size()] = count;
    const auto cells_before = [this](std::int32_t slot) {
      const auto s = static_cast<std::size_t>(slot);
      std::int32_t result = counts_[s / 64];
      for (std::size_t i = s / 64 * 64; i < s; ++i) result += list_[i] >= 0 ? 1 : 0;
      return result;
    };
    for (std::int32_t i = 0; i < run_->tokens; ++i) {
      Token& token =
          tokens_[static_cast<std::size_t>(run_->first_token) + static_cast<std::size_t>(i)];
      const std::int32_t cells =
          token.last < 0 ? 0 : cells_before(token.last + 1) - cells_before(token.first);
      token.whole = token.whole == cells ? 1 : 0;
    }

    const auto length = static_cast<std::size_t>(round_up(run_->slots, kTile));
    if (length <= lists_.size() - lists_used_) {
      run_->list = static_cast<std::int32_t>(lists_used_);
      std::ranges::copy(list_.first(length), lists_.begin() + run_->list);
      lists_used_ += length;
    }
    const std::int64_t partials = run_->tokens * splits_of(*run_);
    if (run_->tokens <= kShortRun && partials <= partials_left_) {
      run_->partials = partials_used_;
      partials_used_ += static_cast<std::int32_t>(partials);
      partials_left_ -= partials;
    }
  }

  const AttentionMask mask_;
  const std::int64_t cells_;
  std::int64_t partials_left_;
  std::int32_t partials_used_ = 0;
  std::size_t lists_used_ = 0;
  std::int32_t run_count_ = 0;
  Run* run_ = nullptr;  // the open one
  const Layout layout_;
  std::span<Token> tokens_;
  std::span<Run> runs_;
  std::span<std::int32_t> lists_;
  std::span<std::int32_t> list_;
  std::span<std::uint64_t> now_;
  std::span<std::uint64_t> before_;
  std::span<std::uint64_t> seen_;
  std::span<std::uint64_t> slots_;
  std::span<std::int32_t> counts_;
};

}  // namespace

void write_list(const AttentionMask& mask, std::int64_t cells, const Run& run,
                std::span<std::int32_t> list) {
  std::ranges::fill(list, -1);
  for (std::int32_t token = run.first_token; token < run.first_token + run.tokens; ++token) {
    for (std::int32_t cell = 0; cell < cells; ++cell) {
      if (!is_visible(mask, token, cell)) continue;
      const std::int32_t position =
          run.by_cell != 0 || mask.positions == nullptr ? cell : mask.positions[cell];
      list[static_cast<std::size_t>(position - run.base)] = cell;
    }
  }
}

}  // namespace ollama::ml::kernels::attention

namespace ollama::ml::kernels {

std::size_t attention_plan_bytes(std::int64_t tokens, std::int64_t cells) {
  return static_cast<std::size_t>(attention::layout_of(tokens, cells).end);
}

void plan_attention(const AttentionMask& mask, std::int64_t tokens, std::int64_t cells,
                    std::int64_t partials, std::span<std::byte> memory) {
  attention::Planner(mask, tokens, cells, partials, memory.data()).plan(memory.data());
}

}  // namespace ollama::ml::kernels
#endif  // HWY_ONCE
