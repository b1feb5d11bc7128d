#include "ml/kernels/attention.h"

#include <algorithm>
#include <array>
#include <bit>

#include "ml/kernels/attention_plan.h"

// clang-format off
#include "ml/kernels/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ml/kernels/attention.cpp"
#include "hwy/foreach_target.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "ml/kernels/attention-inl.h"
#include "ml/kernels/attention_bf16-inl.h"
// clang-format on

// How work and scratch memory are divided: the same for all targets.
#ifndef OLLAMA_ML_KERNELS_ATTENTION_DIVISION
#define OLLAMA_ML_KERNELS_ATTENTION_DIVISION
namespace ollama::ml::kernels::attention {

// Rows of scratch memory have whole vectors of any target.
constexpr std::int64_t kRowUnit = 16;
// Added to the stride of keys and values, whose rows would otherwise compete for a few sets of L1.
constexpr std::int64_t kRowPadding = 16;
// The rows of a block, with all that is kept for them, are to stay in L2 beside a tile.
constexpr std::int64_t kBlockFloats = 64 * 1024;
constexpr std::int64_t kMaxBlockRows = 126;
constexpr std::int64_t kBlockRowUnit = 6;  // fills the registers
// Rows that work on a split at once; more where a single token has more heads.
constexpr std::int64_t kMaxSplitRows = 256;
// Keys of a block that are worked on at once, to stay in L1.
constexpr std::int64_t kBlockKeys = 32;
// Cells of a split that are read at once, all their heads, so that memory is read in order: of
// values more, since what they are added to is read and written each time.
constexpr std::int64_t kSplitKeys = 8;
constexpr std::int64_t kSplitValues = 8;
// Packed keys: a vector of any target has as many lanes or fewer, and one of two of them is summed
// up while the other waits.
constexpr std::int64_t kPackedKeys = 32;
// How far ahead of its use a row is fetched.
constexpr std::size_t kPrefetchRows = 8;
// Partial results of more bytes are for single tokens alone.
constexpr std::int64_t kPartialsBytes = 16 << 20;

struct Division {
  explicit Division(const AttentionShape& shape)
      : dims_k(round_up(shape.head_dim_k, kRowUnit)),
        dims_v(round_up(shape.head_dim_v, kRowUnit)),
        group(shape.heads / shape.kv_heads),
        block_rows(
            std::clamp(kBlockFloats / (dims_k + 2 * dims_v + kTile) / kBlockRowUnit * kBlockRowUnit,
                       kBlockRowUnit, kMaxBlockRows)),
        split_tokens(std::clamp(kMaxSplitRows / shape.heads, std::int64_t{1}, kShortRun)),
        rows(std::max(block_rows, split_tokens * shape.heads)),
        partial(round_up(2 + dims_v, kRowUnit)) {}

  std::int64_t dims_k;  // of a row in scratch memory
  std::int64_t dims_v;
  std::int64_t group;         // query heads of a kv head
  std::int64_t block_rows;    // at most
  std::int64_t split_tokens;  // at most
  std::int64_t rows;          // that scratch memory has room for
  std::int64_t partial;       // floats of a partial result: values, maximum, sum
};

// Gives out scratch memory, or counts what it would give.
class Scratch {
 public:
  explicit Scratch(std::byte* memory) : memory_(memory) {}

  template <typename T>
  T* take(std::int64_t count) {
    T* result = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + used_);
    used_ += static_cast<std::size_t>(round_up(count * static_cast<std::int64_t>(sizeof(T)),
                                               static_cast<std::int64_t>(kAttentionAlignment)));
    return result;
  }
  std::size_t used() const { return used_; }

 private:
  std::byte* memory_;
  std::size_t used_ = 0;
};

// What a thread works on.
struct Workspace {
  Workspace(const AttentionShape& shape, const Division& division, Scratch scratch)
      : q(scratch.take<float>(division.rows * division.dims_k)),
        values(scratch.take<float>(division.rows * division.dims_v)),
        totals(scratch.take<float>(division.block_rows * division.dims_v)),
        scores(scratch.take<float>(division.rows * kTile)),
        keys(scratch.take<float>(kTile * (division.dims_k + kRowPadding))),
        tile_values(scratch.take<float>(kTile * (division.dims_v + kRowPadding))),
        corrections(scratch.take<float>(division.rows)),
        state(scratch.take<Softmax>(division.rows)),
        total_state(scratch.take<Softmax>(division.block_rows)),
        visible(scratch.take<std::uint64_t>(division.rows)),
        list(scratch.take<std::int32_t>(slot_capacity(shape.cells))),
        bytes(scratch.used()) {}

  float* q;                // [dims_k, rows], scaled; or pairs of bf16, half as many
  float* values;           // [dims_v, rows], weighted sums of the split
  float* totals;           // [dims_v, rows], of the splits before
  float* scores;           // [kTile, rows]
  float* keys;             // [dims_k + padding, kTile]; or pairs [kTile, dims_k / 2]
  float* tile_values;      // [dims_v + padding, kTile]; or pairs [dims_v + padding, kTile / 2]
  float* corrections;      // [rows]
  Softmax* state;          // [rows], of the split
  Softmax* total_state;    // [rows], of the splits before
  std::uint64_t* visible;  // [rows], of a tile
  std::int32_t* list;
  std::size_t bytes;
};

}  // namespace ollama::ml::kernels::attention
#endif

HWY_BEFORE_NAMESPACE();
namespace ollama::ml::kernels::attention::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr std::size_t size(std::int64_t value) { return static_cast<std::size_t>(value); }

// Rows of one head: those of the cells whose bits are set, `count` in all; the others are zeros.
struct Rows {
  const std::int32_t* cells;
  std::uint64_t present;
  std::size_t count;
  std::size_t ahead;  // as many entries of `cells` may be read
};

// Rows lie too far apart for the processor to guess the next.
HWY_INLINE void prefetch_row(const CacheView& view, std::int64_t head, const Rows& rows,
                             std::size_t slot, std::size_t bytes) {
  if (slot >= rows.ahead || rows.cells[slot] < 0) return;
  const std::byte* row =
      view.data + size(head) * view.head_stride + size(rows.cells[slot]) * view.cell_stride;
  for (std::size_t i = 0; i < bytes; i += 64) hwy::Prefetch(row + i);
}

template <DType kType, bool kProbe>
HWY_INLINE bool convert_rows(const CacheView& view, std::int64_t head, const Rows& rows,
                             std::size_t dims, float* to, std::size_t stride) {
  const DF d;
  const std::byte* base = view.data + size(head) * view.head_stride;
  const std::size_t bytes = row_bytes<kType>(dims);
  VF probe = hn::Zero(d);
  for (std::size_t s = 0; s < rows.count; ++s, to += stride) {
    prefetch_row(view, head, rows, s + kPrefetchRows, bytes);
    if (((rows.present >> s) & 1) != 0) {
      const std::byte* row = base + size(rows.cells[s]) * view.cell_stride;
      convert_row<kType, kProbe>(row, dims, to, probe);
    } else {
      for (std::size_t i = 0; i < dims; i += hn::Lanes(d)) hn::Store(hn::Zero(d), d, to + i);
    }
  }
  return hn::AllTrue(d, hn::Eq(probe, hn::Zero(d)));
}

std::size_t bytes_of_row(DType type, std::size_t dims) {
  switch (type) {
    case DType::kF32:
      return row_bytes<DType::kF32>(dims);
    case DType::kQ8_0:
      return row_bytes<DType::kQ8_0>(dims);
    case DType::kQ4_0:
      return row_bytes<DType::kQ4_0>(dims);
    default:
      return row_bytes<DType::kF16>(dims);
  }
}

// Says, where kProbe, whether all values are finite.
template <bool kProbe>
bool convert(const CacheView& view, std::int64_t head, const Rows& rows, std::size_t dims,
             float* to, std::size_t stride) {
  switch (view.type) {
    case DType::kF32:
      return convert_rows<DType::kF32, kProbe>(view, head, rows, dims, to, stride);
    case DType::kBF16:
      return convert_rows<DType::kBF16, kProbe>(view, head, rows, dims, to, stride);
    case DType::kQ8_0:
      return convert_rows<DType::kQ8_0, kProbe>(view, head, rows, dims, to, stride);
    case DType::kQ4_0:
      return convert_rows<DType::kQ4_0, kProbe>(view, head, rows, dims, to, stride);
    default:
      return convert_rows<DType::kF16, kProbe>(view, head, rows, dims, to, stride);
  }
}

// A row of bf16 values; null where its bit is not set.
HWY_INLINE const hwy::bfloat16_t* bf16_row(const CacheView& view, std::int64_t head,
                                           const Rows& rows, std::size_t slot) {
  if (((rows.present >> slot) & 1) == 0) return nullptr;
  return reinterpret_cast<const hwy::bfloat16_t*>(view.data + size(head) * view.head_stride +
                                                  size(rows.cells[slot]) * view.cell_stride);
}

// Columns of pairs [kTile, dims / 2] of a whole multiple of four keys.
HWY_NOINLINE void pack_keys(const CacheView& view, std::int64_t head, const Rows& rows,
                            std::size_t dims, std::uint32_t* to) {
  const std::size_t bytes = row_bytes<DType::kBF16>(dims);
  for (std::size_t s = 0; s < rows.count; s += 4) {
    const hwy::bfloat16_t* keys[4];
    for (std::size_t i = 0; i < 4; ++i) {
      prefetch_row(view, head, rows, s + i + kPrefetchRows, bytes);
      keys[i] = bf16_row(view, head, rows, s + i);
    }
    pack_four_keys(keys, dims, to + s);
  }
}

// Rows of pairs [dims, count / 2]. Says whether all values are finite.
HWY_NOINLINE bool pack_values(const CacheView& view, std::int64_t head, const Rows& rows,
                              std::size_t dims, std::uint32_t* to, std::size_t stride) {
  const std::size_t bytes = row_bytes<DType::kBF16>(dims);
  VPair largest = hn::Zero(DPair());
  for (std::size_t s = 0; s < rows.count; s += 2, to += stride) {
    for (std::size_t i = 0; i < 2; ++i) {
      prefetch_row(view, head, rows, s + i + kPrefetchRows, bytes);
    }
    pack_two_values(bf16_row(view, head, rows, s), bf16_row(view, head, rows, s + 1), dims, to,
                    largest);
  }
  return all_finite(largest);
}

// Calls work(row_of), where row_of(slot) is a row in the cache itself, if rows of this type may be
// read as they are; gives false if not.
template <class Work>
HWY_INLINE bool with_plain_rows(const CacheView& view, std::int64_t head, const Rows& rows,
                                std::size_t dims, Work&& work) {
  if (dims % hn::Lanes(DF()) != 0 ||
      rows.present != ~std::uint64_t{0} >> (size(kTile) - rows.count)) {
    return false;
  }
  const std::byte* base = view.data + size(head) * view.head_stride;
  const auto of_type = [&]<class T>(const T*) HWY_ATTR {
    work([&](std::size_t slot) HWY_ATTR {
      return reinterpret_cast<const T*>(base + size(rows.cells[slot]) * view.cell_stride);
    });
    return true;
  };
  switch (view.type) {
    case DType::kF32:
      return of_type(static_cast<const float*>(nullptr));
    case DType::kF16:
      return of_type(static_cast<const hwy::float16_t*>(nullptr));
    case DType::kBF16:
      return of_type(static_cast<const hwy::bfloat16_t*>(nullptr));
    default:
      return false;
  }
}

// One thread's work on one call.
class Attention {
 public:
  Attention(const AttentionArgs& args, std::byte* scratch)
      : args_(args),
        shape_(args.shape),
        plan_(read_plan(args.plan)),
        division_(args.shape),
        work_(args.shape, division_, Scratch(scratch)),
        packs_keys_(args.bf16_products && args.k.type == DType::kBF16),
        packs_values_(args.bf16_products && args.v.type == DType::kBF16),
        dims_k_(size(shape_.head_dim_k)),
        dims_v_(size(shape_.head_dim_v)),
        q_stride_(size(division_.dims_k)),
        v_stride_(size(division_.dims_v)),
        key_stride_(size(division_.dims_k + kRowPadding)),
        value_stride_(size(division_.dims_v + kRowPadding)) {}

  void run(std::int64_t thread, std::int64_t threads, std::atomic<std::int64_t>* next) {
    std::int64_t task = 0;
    std::int64_t splits = 0;
    std::int64_t claimed = -1;  // none; tasks before it are others'
    const auto mine = [&] {
      if (next == nullptr) return task++ % threads == thread;
      // The next one is claimed when this thread is done with its last.
      if (claimed < task) claimed = next->fetch_add(1, std::memory_order_relaxed);
      return task++ == claimed;
    };
    for (const Run& run : plan_.runs) {
      if (run.partials >= 0) {
        splits += splits_of(run);
        continue;
      }
      run_ = nullptr;
      const std::int64_t rows = run.tokens * division_.group;
      const std::int64_t blocks = (rows + division_.block_rows - 1) / division_.block_rows;
      const std::int64_t block_rows = round_up((rows + blocks - 1) / blocks, kBlockRowUnit);
      // The last block of a causal run sees most: the longest tasks come first.
      for (std::int64_t block = blocks - 1; block >= 0; --block) {
        const std::int64_t begin = block * block_rows;
        const std::int64_t end = std::min(rows, begin + block_rows);
        for (std::int64_t head = 0; head < shape_.kv_heads; ++head) {
          if (begin < end && mine()) attend_block(run, head, begin, end);
        }
      }
    }
    // A few splits would leave threads idle: the heads are divided as well.
    std::int64_t parts = 1;
    while (splits * parts < 8 * threads && parts * 2 <= shape_.kv_heads) parts *= 2;
    for (const Run& run : plan_.runs) {
      if (run.partials < 0) continue;
      run_ = nullptr;
      for (std::int64_t split = 0; split < splits_of(run); ++split) {
        for (std::int64_t part = 0; part < parts; ++part) {
          if (!mine()) continue;
          const std::int64_t head = shape_.kv_heads * part / parts;
          const std::int64_t head_end = shape_.kv_heads * (part + 1) / parts;
          for (std::int64_t token = 0; token < run.tokens; token += division_.split_tokens) {
            attend_split(run, split, head, head_end, run.first_token + token,
                         std::min(run.first_token + token + division_.split_tokens,
                                  std::int64_t{run.first_token} + run.tokens));
          }
        }
      }
    }
  }

 private:
  static std::uint32_t* pairs(float* memory) { return reinterpret_cast<std::uint32_t*>(memory); }

  // The cells of the run's slots, in whole tiles.
  const std::int32_t* list_of(const Run& run) {
    if (run.list >= 0) return plan_.lists + run.list;
    if (run_ != &run) {
      write_list(args_.mask, shape_.cells, run, {work_.list, size(slot_capacity(shape_.cells))});
      run_ = &run;
    }
    return work_.list;
  }

  static std::uint64_t present_slots(const std::int32_t* cells) {
    std::uint64_t word = 0;
    for (std::size_t s = 0; s < kTile; ++s) {
      word |= static_cast<std::uint64_t>(cells[s] >= 0) << s;
    }
    return word;
  }

  // What a token sees of a tile that has cells in the slots `present`.
  std::uint64_t visible_slots(std::int64_t index, std::int64_t tile, const std::int32_t* cells,
                              std::uint64_t present) const {
    const Token& token = plan_.tokens[size(index)];
    const std::int64_t first = std::max<std::int64_t>(token.first - tile * kTile, 0);
    const std::int64_t last = std::min<std::int64_t>(token.last - tile * kTile, kTile - 1);
    if (first > last) return 0;
    std::uint64_t word =
        present & (~std::uint64_t{0} << first) & (~std::uint64_t{0} >> (63 - last));
    if (token.whole == 0) {
      for_each_bit(word, [&](int s) {
        if (!is_visible(args_.mask, index, cells[s])) word &= ~(std::uint64_t{1} << s);
      });
    }
    return word;
  }

  // Row `row` of the workspace becomes the query of a token and head, scaled.
  void load_query(std::size_t row, std::int64_t token, std::int64_t head) {
    const DF d;
    const auto* from = reinterpret_cast<const float*>(reinterpret_cast<const std::byte*>(args_.q) +
                                                      size(token) * args_.q_token_stride +
                                                      size(head) * args_.q_head_stride);
    float* to = work_.q + row * q_stride_;
    if (packs_keys_) {
      pack_query(from, dims_k_, args_.scale, pairs(to));
      return;
    }
    const VF scale = hn::Set(d, args_.scale);
    std::size_t i = 0;
    for (; i + hn::Lanes(d) <= dims_k_; i += hn::Lanes(d)) {
      hn::Store(hn::Mul(hn::LoadU(d, from + i), scale), d, to + i);
    }
    if (i < dims_k_) hn::Store(hn::Mul(hn::LoadN(d, from + i, dims_k_ - i), scale), d, to + i);
  }

  void start_split(std::size_t rows) {
    std::fill_n(work_.values, rows * v_stride_, 0.0F);
    std::fill_n(work_.state, rows, Softmax());
  }

  // Scores of rows [begin, end) with `count` keys that are slots of a tile from `slot` on.
  HWY_NOINLINE void score(std::size_t begin, std::size_t end, std::size_t slot, std::size_t count,
                          const float* keys) {
    dot(
        work_.q + begin * q_stride_, q_stride_, end - begin,
        [keys, stride = key_stride_](std::size_t s) HWY_ATTR { return keys + s * stride; }, count,
        dims_k_, work_.scores + begin * kTile + slot);
  }

  // The same with keys of a head's cells that are packed at a slot's place in the workspace.
  HWY_NOINLINE void score_packed(std::size_t begin, std::size_t end, std::size_t slot,
                                 std::int64_t head, Rows part) {
    part.count = size(round_up(static_cast<std::int64_t>(part.count), kPackedKeys));
    std::uint32_t* keys = pairs(work_.keys) + slot;
    pack_keys(args_.k, head, part, dims_k_, keys);
    dot_packed(pairs(work_.q) + begin * q_stride_, q_stride_, end - begin, keys, part.count,
               dims_k_, work_.scores + begin * kTile + slot);
  }

  void weigh(std::size_t row) {
    float* scores = work_.scores + row * kTile;
    work_.corrections[row] =
        weigh_tile(scores, work_.visible[row], args_.soft_cap, work_.state[row]);
    if (packs_values_) pack_weights(scores);
  }

  // The weighted sums of rows [begin, end) over the slots [slot, slot + count) of a tile, whose
  // values the workspace holds from its first row on.
  HWY_NOINLINE void add(std::size_t begin, std::size_t end, std::size_t slot, std::size_t count,
                        bool finite, const float* from, std::size_t from_stride) {
    if (finite) {
      accumulate(
          work_.scores + begin * kTile + slot, end - begin,
          [from, from_stride](std::size_t s) HWY_ATTR { return from + s * from_stride; }, count,
          dims_v_, work_.corrections + begin, work_.values + begin * v_stride_, v_stride_);
      return;
    }
    const std::uint64_t bits = ~std::uint64_t{0} >> (64 - count);
    for (std::size_t row = begin; row < end; ++row) {
      accumulate_visible(work_.scores + row * kTile + slot, from, from_stride,
                         (work_.visible[row] >> slot) & bits, dims_v_, work_.corrections[row],
                         work_.values + row * v_stride_);
    }
  }

  // The same with values of a head's cells that are packed into the workspace.
  HWY_NOINLINE void add_packed(std::size_t begin, std::size_t end, std::size_t slot,
                               std::int64_t head, Rows part) {
    part.count = size(round_up(static_cast<std::int64_t>(part.count), 2));
    std::uint32_t* values = pairs(work_.tile_values);
    const bool finite = pack_values(args_.v, head, part, dims_v_, values, value_stride_);
    const std::uint32_t* weights = pairs(work_.scores) + slot / 2;
    if (finite) {
      accumulate_packed(weights + begin * kTile, end - begin, values, value_stride_, part.count / 2,
                        dims_v_, work_.corrections + begin, work_.values + begin * v_stride_,
                        v_stride_);
      return;
    }
    for (std::size_t row = begin; row < end; ++row) {
      accumulate_packed_visible(weights + row * kTile, values, value_stride_, part.count / 2,
                                work_.visible[row] >> slot, dims_v_, work_.corrections[row],
                                work_.values + row * v_stride_);
    }
  }

  // Whether the values are a prefix of the keys, and these are in the workspace as they are.
  bool shared_cache() const {
    return !packs_keys_ && args_.k.data == args_.v.data && args_.k.type == args_.v.type &&
           args_.k.cell_stride == args_.v.cell_stride &&
           args_.k.head_stride == args_.v.head_stride && dims_v_ <= dims_k_;
  }

  // All of a long run's keys that matter to rows [first, last) of a kv head, a row being a token
  // and a head of the kv head's group.
  void attend_block(const Run& run, std::int64_t kv_head, std::int64_t first, std::int64_t last) {
    const std::int32_t* list = list_of(run);
    const std::int64_t group = division_.group;
    const std::size_t rows = size(last - first);
    const std::int64_t first_token = run.first_token + first / group;
    const std::int64_t end_token = run.first_token + (last - 1) / group + 1;
    std::int64_t begin_slot = run.slots;
    std::int64_t end_slot = 0;
    for (std::int64_t token = first_token; token < end_token; ++token) {
      if (plan_.tokens[size(token)].last < 0) continue;
      begin_slot = std::min<std::int64_t>(begin_slot, plan_.tokens[size(token)].first);
      end_slot = std::max<std::int64_t>(end_slot, plan_.tokens[size(token)].last + 1);
    }
    for (std::size_t row = 0; row < rows; ++row) {
      const std::int64_t index = first + static_cast<std::int64_t>(row);
      load_query(row, run.first_token + index / group, kv_head * group + index % group);
    }
    std::fill_n(work_.totals, rows * v_stride_, 0.0F);
    std::fill_n(work_.total_state, rows, Softmax());

    for (std::int64_t split = begin_slot / kSplit * kSplit; split < end_slot; split += kSplit) {
      start_split(rows);
      const std::int64_t end_tile = (std::min(end_slot, split + kSplit) + kTile - 1) / kTile;
      for (std::int64_t tile = std::max(split, begin_slot) / kTile; tile < end_tile; ++tile) {
        attend_tile(list + tile * kTile, size(round_up(end_slot, kTile) - tile * kTile), tile,
                    kv_head, first_token, first % group, rows);
      }
      for (std::size_t row = 0; row < rows; ++row) {
        merge_split(work_.state[row], work_.values + row * v_stride_, dims_v_,
                    work_.total_state[row], work_.totals + row * v_stride_);
      }
    }

    for (std::size_t row = 0; row < rows; ++row) {
      const std::int64_t index = first + static_cast<std::int64_t>(row);
      const std::int64_t head = kv_head * group + index % group;
      write_output(work_.total_state[row], sink(head), work_.totals + row * v_stride_, dims_v_,
                   output(run.first_token + index / group, head));
    }
  }

  // One tile of a block whose rows start with head `first_head` of the group and `token`; the run's
  // list goes on for `ahead` cells.
  void attend_tile(const std::int32_t* cells, std::size_t ahead, std::int64_t tile,
                   std::int64_t kv_head, std::int64_t token, std::int64_t first_head,
                   std::size_t rows) {
    const std::uint64_t present = present_slots(cells);
    std::uint64_t any = 0;
    std::size_t begin = rows;  // rows that see something of the tile lie in [begin, end)
    std::size_t end = 0;
    std::int64_t head = first_head;
    std::uint64_t word = visible_slots(token, tile, cells, present);
    for (std::size_t row = 0; row < rows; ++row, ++head) {
      if (head == division_.group) {
        head = 0;
        word = visible_slots(++token, tile, cells, present);
      }
      work_.visible[row] = word;
      any |= word;
      if (word == 0) continue;
      begin = std::min(begin, row);
      end = row + 1;
    }
    if (any == 0) return;

    bool finite = true;
    if (packs_keys_) {
      score_packed(begin, end, 0, kv_head, {cells, any, size(std::bit_width(any)), ahead});
    } else {
      for (std::int64_t slot = 0; slot < kTile; slot += kBlockKeys) {
        if (any >> slot == 0) break;
        float* keys = work_.keys + size(slot) * key_stride_;
        const Rows part{cells + slot, any >> slot, size(kBlockKeys), ahead - size(slot)};
        if (shared_cache()) {
          finite &= convert<true>(args_.k, kv_head, part, dims_k_, keys, key_stride_);
        } else {
          convert<false>(args_.k, kv_head, part, dims_k_, keys, key_stride_);
        }
        score(begin, end, size(slot), size(kBlockKeys), keys);
      }
    }
    for (std::size_t row = begin; row < end; ++row) weigh(row);

    const std::size_t count = size(kTile - std::countl_zero(any));
    if (packs_values_) {
      add_packed(begin, end, 0, kv_head, {cells, any, count, ahead});
      return;
    }
    const float* values = work_.keys;
    std::size_t stride = key_stride_;
    if (!shared_cache()) {
      values = work_.tile_values;
      stride = value_stride_;
      finite = convert<true>(args_.v, kv_head, {cells, any, count, ahead}, dims_v_,
                             work_.tile_values, stride);
    }
    add(begin, end, 0, count, finite, values, stride);
  }

  // Fetches one head's share of the rows of all heads of cells to come. Whichever head that is, the
  // rows are fetched in the order of memory, which the processor's own prefetching then follows.
  static void prefetch_part(const CacheView& view, std::int64_t kv_begin, std::int64_t kv_end,
                            std::int64_t kv_head, const Rows& part, std::int64_t unit,
                            std::size_t ahead, std::size_t dims) {
    const std::int64_t heads = kv_end - kv_begin;
    const Rows rows{part.cells, part.present, part.count, ahead};
    const std::size_t bytes = bytes_of_row(view.type, dims);
    // All of the next part where the first head would find no more than its beginning.
    const std::size_t rows_ahead = heads == 1 ? kPrefetchRows : std::max(kPrefetchRows, size(unit));
    for (std::int64_t i = (kv_head - kv_begin) * unit; i < (kv_head - kv_begin + 1) * unit; ++i) {
      prefetch_row(view, kv_begin + i % heads, rows, size(i / heads) + rows_ahead, bytes);
    }
  }

  // Calls visit(slot, rows) for some cells after the other of those that are set in `any`.
  template <class Visit>
  static void each_part(std::int64_t unit, const std::int32_t* cells, std::uint64_t any,
                        Visit&& visit) {
    for (std::int64_t slot = 0; slot < kTile; slot += unit) {
      const std::uint64_t part = (any >> slot) & (~std::uint64_t{0} >> (kTile - unit));
      if (part == 0) continue;
      const std::size_t count = size(round_up(std::bit_width(part), 4));
      visit(size(slot), Rows{cells + slot, part, count, 0});
    }
  }

  // The scores of a tile for all rows of a split, `head_rows` to each kv head.
  void split_scores(std::int64_t kv_begin, std::int64_t kv_end, std::size_t head_rows,
                    const std::int32_t* cells, std::uint64_t any, std::size_t ahead) {
    const std::int64_t unit = kv_end - kv_begin == 1 ? kTile
                              : packs_keys_          ? kPackedKeys
                                                     : kSplitKeys;
    each_part(unit, cells, any, [&](std::size_t slot, const Rows& part) HWY_ATTR {
      std::size_t begin = 0;
      for (std::int64_t kv_head = kv_begin; kv_head < kv_end; ++kv_head, begin += head_rows) {
        prefetch_part(args_.k, kv_begin, kv_end, kv_head, part, unit, ahead - slot, dims_k_);
        if (packs_keys_) {
          score_packed(begin, begin + head_rows, slot, kv_head, part);
          continue;
        }
        const auto work = [&](auto&& key_of) HWY_ATTR {
          dot(work_.q + begin * q_stride_, q_stride_, head_rows, key_of, part.count, dims_k_,
              work_.scores + begin * kTile + slot);
        };
        if (head_rows <= kMaxRows && with_plain_rows(args_.k, kv_head, part, dims_k_, work)) {
          continue;
        }
        convert<false>(args_.k, kv_head, part, dims_k_, work_.keys, key_stride_);
        score(begin, begin + head_rows, slot, part.count, work_.keys);
      }
    });
  }

  // The weighted values of a tile likewise. Applies the corrections, which become 1.
  void split_values(std::int64_t kv_begin, std::int64_t kv_end, std::size_t head_rows,
                    const std::int32_t* cells, std::uint64_t any, std::size_t ahead, bool alike) {
    const std::int64_t unit = kv_end - kv_begin == 1 ? kTile : kSplitValues;
    each_part(unit, cells, any, [&](std::size_t slot, const Rows& part) HWY_ATTR {
      std::size_t begin = 0;
      for (std::int64_t kv_head = kv_begin; kv_head < kv_end; ++kv_head, begin += head_rows) {
        prefetch_part(args_.v, kv_begin, kv_end, kv_head, part, unit, ahead - slot, dims_v_);
        if (packs_values_) {
          add_packed(begin, begin + head_rows, slot, kv_head, part);
          continue;
        }
        const auto work = [&](auto&& value_of) HWY_ATTR {
          accumulate(work_.scores + begin * kTile + slot, head_rows, value_of, part.count, dims_v_,
                     work_.corrections + begin, work_.values + begin * v_stride_, v_stride_);
        };
        if (alike && head_rows <= kMaxRows &&
            with_plain_rows(args_.v, kv_head, part, dims_v_, work)) {
          continue;
        }
        const bool finite =
            convert<true>(args_.v, kv_head, part, dims_v_, work_.tile_values, value_stride_);
        add(begin, begin + head_rows, slot, part.count, finite, work_.tile_values, value_stride_);
      }
      std::fill_n(work_.corrections, begin, 1.0F);
    });
  }

  // One split of a short run, for the query heads of kv heads [kv_begin, kv_end) and some of its
  // tokens. The workspace's rows go by kv head, token and head of the group.
  void attend_split(const Run& run, std::int64_t split, std::int64_t kv_begin, std::int64_t kv_end,
                    std::int64_t first_token, std::int64_t end_token) {
    const std::int32_t* list = list_of(run);
    const std::int64_t group = division_.group;
    const std::int64_t tokens = end_token - first_token;
    const std::size_t head_rows = size(tokens * group);
    const std::size_t rows = size(kv_end - kv_begin) * head_rows;
    std::size_t row = 0;
    for (std::int64_t kv_head = kv_begin; kv_head < kv_end; ++kv_head) {
      for (std::int64_t token = first_token; token < end_token; ++token) {
        for (std::int64_t i = 0; i < group; ++i) load_query(row++, token, kv_head * group + i);
      }
    }

    start_split(rows);
    const std::int64_t end_tile =
        std::min<std::int64_t>((split + 1) * kSplit, round_up(run.slots, kTile)) / kTile;
    for (std::int64_t tile = split * kSplit / kTile; tile < end_tile; ++tile) {
      const std::int32_t* cells = list + tile * kTile;
      const std::size_t ahead = size((end_tile - tile) * kTile);
      const std::uint64_t present = present_slots(cells);
      std::uint64_t any = 0;
      for (std::int64_t t = 0; t < tokens; ++t) {
        const std::uint64_t word = visible_slots(first_token + t, tile, cells, present);
        any |= word;
        for (std::size_t head = 0; head < size(kv_end - kv_begin); ++head) {
          std::fill_n(work_.visible + head * head_rows + size(t * group), group, word);
        }
      }
      if (any == 0) continue;

      split_scores(kv_begin, kv_end, head_rows, cells, any, ahead);
      bool alike = true;  // all rows see the same
      for (std::size_t r = 0; r < rows; ++r) {
        weigh(r);
        alike &= work_.visible[r] == any;
      }
      split_values(kv_begin, kv_end, head_rows, cells, any, ahead, alike);
    }

    row = 0;
    for (std::int64_t kv_head = kv_begin; kv_head < kv_end; ++kv_head) {
      for (std::int64_t token = first_token; token < end_token; ++token) {
        for (std::int64_t i = 0; i < group; ++i, ++row) {
          float* to = partial(run, token, split, kv_head * group + i);
          std::copy_n(work_.values + row * v_stride_, dims_v_, to);
          to[v_stride_] = work_.state[row].max;
          to[v_stride_ + 1] = work_.state[row].sum;
        }
      }
    }
  }

 public:
  float sink(std::int64_t head) const {
    return args_.sinks == nullptr ? kNothing : args_.sinks[head];
  }
  float* output(std::int64_t token, std::int64_t head) const {
    return args_.output + (token * shape_.heads + head) * shape_.head_dim_v;
  }
  // Where the partial result of a short run's token and head over a split lies.
  float* partial(const Run& run, std::int64_t token, std::int64_t split, std::int64_t head) const {
    const std::int64_t pair = run.partials + (token - run.first_token) * splits_of(run) + split;
    return reinterpret_cast<float*>(args_.partials) +
           (pair * shape_.heads + head) * division_.partial;
  }

 private:
  const AttentionArgs& args_;
  const AttentionShape& shape_;
  const Plan plan_;
  const Division division_;
  const Workspace work_;
  const bool packs_keys_;  // products of bf16
  const bool packs_values_;
  const std::size_t dims_k_;
  const std::size_t dims_v_;
  const std::size_t q_stride_;
  const std::size_t v_stride_;
  const std::size_t key_stride_;
  const std::size_t value_stride_;
  const Run* run_ = nullptr;  // whose list the workspace holds
};

void attend_share(const AttentionArgs& args, std::int64_t thread, std::int64_t threads,
                  std::byte* scratch, std::atomic<std::int64_t>* next) {
  Attention(args, scratch).run(thread, threads, next);
}

bool multiplies_bf16_fast() { return kFastBf16; }

void merge_share(const AttentionArgs& args, std::int64_t thread, std::int64_t threads) {
  const Attention attention(args, nullptr);
  const Plan plan = read_plan(args.plan);
  const std::size_t dims = size(args.shape.head_dim_v);
  const std::size_t stride = size(Division(args.shape).dims_v);
  std::int64_t row = 0;
  for (const Run& run : plan.runs) {
    if (run.partials < 0) continue;
    for (std::int64_t token = run.first_token; token < run.first_token + run.tokens; ++token) {
      for (std::int64_t head = 0; head < args.shape.heads; ++head) {
        if (row++ % threads != thread) continue;
        float* output = attention.output(token, head);
        std::fill_n(output, dims, 0.0F);
        Softmax total;
        for (std::int64_t split = 0; split < splits_of(run); ++split) {
          const float* values = attention.partial(run, token, split, head);
          merge_split({values[stride], values[stride + 1]}, values, dims, total, output);
        }
        write_output(total, attention.sink(head), output, dims, output);
      }
    }
  }
}

}  // namespace ollama::ml::kernels::attention::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ollama::ml::kernels {
namespace attention {
namespace {
HWY_EXPORT(attend_share);
HWY_EXPORT(merge_share);
HWY_EXPORT(multiplies_bf16_fast);

std::int64_t partial_bytes(const AttentionShape& shape) {
  return shape.heads * Division(shape).partial * static_cast<std::int64_t>(sizeof(float));
}
}  // namespace
}  // namespace attention

bool attention_supports(DType type) {
  return type == DType::kF32 || type == DType::kF16 || type == DType::kBF16 ||
         type == DType::kQ8_0 || type == DType::kQ4_0;
}

bool attention_multiplies_bf16_fast() {
  return HWY_DYNAMIC_DISPATCH(attention::multiplies_bf16_fast)();
}

std::int64_t attention_partials(const AttentionShape& shape) {
  // One token can always be divided. 16 may be, that all see everything; of 64 that share the
  // cells each has its few splits.
  const std::int64_t splits = attention::slot_capacity(shape.cells) / attention::kSplit;
  const std::int64_t wanted = std::min<std::int64_t>(shape.tokens, 16) * splits +
                              2 * std::min<std::int64_t>(shape.tokens, 64);
  return std::clamp(attention::kPartialsBytes / attention::partial_bytes(shape), splits,
                    std::max(splits, wanted));
}

std::size_t attention_partials_bytes(const AttentionShape& shape) {
  return static_cast<std::size_t>(attention_partials(shape) * attention::partial_bytes(shape));
}

std::size_t attention_scratch_bytes(const AttentionShape& shape) {
  const attention::Division division(shape);
  return attention::Workspace(shape, division, attention::Scratch(nullptr)).bytes;
}

void attend(const AttentionArgs& args, std::int64_t thread, std::int64_t threads,
            std::span<std::byte> scratch, std::atomic<std::int64_t>* next) {
  HWY_DYNAMIC_DISPATCH(attention::attend_share)(args, thread, threads, scratch.data(), next);
}

void merge_attention(const AttentionArgs& args, std::int64_t thread, std::int64_t threads) {
  HWY_DYNAMIC_DISPATCH(attention::merge_share)(args, thread, threads);
}

}  // namespace ollama::ml::kernels
#endif  // HWY_ONCE
