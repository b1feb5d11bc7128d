#include "kvcache/causal.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <cmath>
#include <cstring>
#include <map>
#include <numeric>
#include <set>

#include "ml/backend.h"

namespace ollama::kvcache {
namespace {

std::unique_ptr<ml::Backend> backend_of(ml::BackendKind kind) {
  return ml::new_backend(kind, {.threads = 1}).value();
}

// --- masks ---

struct Rules {
  std::int32_t window = 0;
  ml::DType mask_dtype = ml::DType::kF32;
  std::uint32_t mask_batch_padding = 1;
};

// A cache, what it should hold, and the mask as a device would have it that is only ever sent what
// collect_uploads gives.
class Checked {
 public:
  explicit Checked(const Rules& rules)
      : rules_(rules),
        cache_(Causal::create(*backend_, std::vector<LayerSpec>{{8, 8, 1, rules.window}},
                              rules.window,
                              {.cells = 96,
                               .sequences = 6,
                               .parallel = 4,
                               .max_batch = 16,
                               .k_type = ml::DType::kF32,
                               .v_type = ml::DType::kF32,
                               .config = {.cache_padding = 8,
                                          .mask_batch_padding = rules.mask_batch_padding,
                                          .mask_dtype = rules.mask_dtype}},
                              {})
                   .value()) {}

  Causal& cache() { return *cache_; }
  Position end(Sequence sequence) const {
    const auto& held = held_[sequence];
    return held.empty() ? 0 : *held.rbegin() + 1;
  }

  // The next `counts[i]` tokens of each sequence.
  void step(const std::vector<std::pair<Sequence, int>>& counts) {
    std::vector<Position> positions;
    std::vector<Sequence> sequences;
    for (const auto& [sequence, count] : counts) {
      for (int i = 0; i < count; ++i) {
        positions.push_back(end(sequence) + i);
        sequences.push_back(sequence);
      }
    }
    const Result<> begun = cache_->begin({.positions = positions, .sequences = sequences});
    if (rules_.window > 0) {
      for (std::size_t i = 0; i < positions.size(); ++i) {
        if (i > 0 && sequences[i] == sequences[i - 1]) continue;
        auto& held = held_[sequences[i]];
        held.erase(held.begin(), held.lower_bound(positions[i] - rules_.window + 1));
      }
    }
    if (!begun) {
      RC_ASSERT(begun.error().message() == kCacheFull.message);
      return;
    }
    for (std::size_t i = 0; i < positions.size(); ++i) held_[sequences[i]].insert(positions[i]);
    send();
    check_mask(positions, sequences);
    last_positions_ = positions;
    last_sequences_ = sequences;
  }
  void rollback() {
    cache_->rollback();
    for (std::size_t i = 0; i < last_positions_.size(); ++i) {
      held_[last_sequences_[i]].erase(last_positions_[i]);
    }
    forget_step();
  }
  void remove(Sequence sequence, Position begin, Position end) {
    cache_->remove(sequence, begin, end);
    auto& held = held_[sequence];
    held.erase(held.lower_bound(begin), held.lower_bound(end));
    forget_step();
  }
  void copy_prefix(Sequence from, Sequence to, Position length) {
    if (!held_[to].empty() || from == to) return;
    cache_->copy_prefix(from, to, length);
    held_[to] = held_[from];
    held_[to].erase(held_[to].lower_bound(length), held_[to].end());
  }
  void check_sequences() {
    for (Sequence sequence = 0; sequence < held_.size(); ++sequence) {
      std::set<Position> positions;
      cache_->cells().for_each_cell(
          sequence, [&](std::uint32_t cell) { positions.insert(cache_->cells().position(cell)); });
      RC_ASSERT(positions == held_[sequence]);
    }
  }
  bool rolled_back() const { return last_positions_.empty(); }

 private:
  void forget_step() {
    last_positions_.clear();
    last_sequences_.clear();
  }
  void send() {
    const bool unchanged = cache_->shape_key() == key_ && device_.size() == cache_->mask().size();
    key_ = cache_->shape_key();
    device_.resize(cache_->mask().size());
    const std::vector<Inputs> inputs(1);
    std::vector<ml::Upload> uploads;
    cache_->collect_uploads(inputs, unchanged, uploads);
    uploads.pop_back();  // the indices
    for (const ml::Upload& upload : uploads) {
      RC_ASSERT(upload.offset + upload.bytes.size() <= device_.size());
      std::ranges::copy(upload.bytes, device_.begin() + static_cast<std::ptrdiff_t>(upload.offset));
    }
    RC_ASSERT(std::ranges::equal(device_, cache_->mask()));
  }
  bool visible(std::size_t index) const {
    if (rules_.mask_dtype == ml::DType::kF16) {
      std::uint16_t value = 0;
      std::memcpy(&value, &device_[index * 2], 2);
      RC_ASSERT(value == ml::kHalfZero || value == ml::kHalfMinusInfinity);
      return value == ml::kHalfZero;
    }
    float value = 0;
    std::memcpy(&value, &device_[index * 4], 4);
    RC_ASSERT(value == 0.0F || std::isinf(value));
    return value == 0.0F;
  }
  // Each token sees each position of its own sequence that is not later and inside its window,
  // once.
  void check_mask(const std::vector<Position>& positions, const std::vector<Sequence>& sequences) {
    const Run range = cache_->range();
    RC_ASSERT(range.start % 8 == 0 && range.length % 8 == 0);
    const std::size_t rows =
        device_.size() / range.length / (rules_.mask_dtype == ml::DType::kF16 ? 2 : 4);
    RC_ASSERT(rows % rules_.mask_batch_padding == 0 && rows >= positions.size());
    for (std::size_t row = 0; row < rows; ++row) {
      std::multiset<Position> seen;
      for (std::uint32_t cell = 0; cell < range.length; ++cell) {
        if (!visible(row * range.length + cell)) continue;
        RC_ASSERT(row < positions.size());
        RC_ASSERT(cache_->cells().has(range.start + cell, sequences[row]));
        seen.insert(cache_->cells().position(range.start + cell));
      }
      std::multiset<Position> expected;
      if (row < positions.size()) {
        for (const Position p : held_[sequences[row]]) {
          const bool inside = rules_.window == 0 || p > positions[row] - rules_.window;
          if (p <= positions[row] && inside) expected.insert(p);
        }
      }
      RC_ASSERT(seen == expected);
    }
  }

  Rules rules_;
  std::unique_ptr<ml::Backend> backend_ = backend_of(ml::BackendKind::kReference);
  std::unique_ptr<Causal> cache_;
  std::vector<std::set<Position>> held_ = std::vector<std::set<Position>>(6);
  std::vector<Position> last_positions_;
  std::vector<Sequence> last_sequences_;
  std::uint64_t key_ = 0;
  std::vector<std::byte> device_;
};

TEST(CausalMask, SaysWhoSeesWhatInAnyOrderOfEvents) {
  const bool ok = rc::check("masks, in random order of steps and changes", [] {
    Rules rules;
    rules.window = *rc::gen::element(0, 0, 5, 20);
    rules.mask_dtype = *rc::gen::element(ml::DType::kF32, ml::DType::kF16);
    rules.mask_batch_padding = *rc::gen::element(1U, 4U);
    Checked checked(rules);
    const int events = *rc::gen::inRange(1, 60);
    std::vector<std::pair<Sequence, int>> running;
    for (int event = 0; event < events; ++event) {
      switch (*rc::gen::inRange(0, 12)) {
        case 0:
          checked.remove(*rc::gen::inRange<Sequence>(0, 6), *rc::gen::inRange(0, 30), kNoEnd);
          break;
        case 1:
          checked.copy_prefix(*rc::gen::inRange<Sequence>(0, 6), *rc::gen::inRange<Sequence>(0, 6),
                              *rc::gen::inRange(0, 30));
          break;
        case 2:
          if (!checked.rolled_back()) checked.rollback();
          break;
        case 3: {  // prompts
          running.clear();
          for (Sequence s = 0; s < 4; ++s) {
            if (const int count = *rc::gen::inRange(0, 5); count > 0)
              running.emplace_back(s, count);
          }
          if (!running.empty()) checked.step(running);
          for (auto& [sequence, count] : running) count = 1;
          break;
        }
        default:  // the next token of each
          if (!running.empty()) checked.step(running);
          break;
      }
      checked.check_sequences();
    }
  });
  EXPECT_TRUE(ok);
}

// A new token touches its own column: what a step writes does not grow with the context.
TEST(CausalMask, GrowsByTheNewTokensColumns) {
  for (const std::int32_t window : {0, 12}) {
    Checked checked({.window = window});
    checked.step({{0, 10}, {1, 6}});
    std::size_t whole = 0;
    for (int i = 0; i < 40; ++i) {
      checked.step({{0, 1}, {1, 1}});
      const std::size_t written = checked.cache().mask_elements_written();
      if (written <= 4) continue;  // two new cells, and with a window two that left
      ++whole;
      EXPECT_EQ(written, std::size_t{checked.cache().range().length} * 2);
    }
    // Once for the change from the prompt, and where the padded range changes at an end.
    const std::size_t ends = window == 0 ? 1 : 2;
    EXPECT_LE(whole, 1U + ends * 80 / 8) << "window " << window;
    EXPECT_GE(whole, 1U);
  }
}

// --- moving ---

struct Moving {
  ml::BackendKind backend;
  ml::DType type;
  double tolerance;  // of the largest value
  bool permuted_v = false;
};

class CausalMove : public testing::TestWithParam<Moving> {};

INSTANTIATE_TEST_SUITE_P(
    Types, CausalMove,
    testing::Values(Moving{ml::BackendKind::kReference, ml::DType::kF32, 1e-5},
                    Moving{ml::BackendKind::kGgml, ml::DType::kF32, 1e-5},
                    Moving{ml::BackendKind::kGgml, ml::DType::kF16, 2e-3},
                    Moving{ml::BackendKind::kReference, ml::DType::kF32, 1e-5, true},
                    Moving{ml::BackendKind::kGgml, ml::DType::kF16, 2e-3, true},
                    Moving{ml::BackendKind::kGgml, ml::DType::kBF16, 2e-2},
                    Moving{ml::BackendKind::kGgml, ml::DType::kQ8_0, 2e-2},
                    Moving{ml::BackendKind::kGgml, ml::DType::kQ4_0, 0.3}),
    [](const auto& info) {
      return std::string(info.param.backend == ml::BackendKind::kGgml ? "ggml_" : "reference_") +
             std::string(ml::dtype_name(info.param.type)) +
             (info.param.permuted_v ? "_permuted" : "");
    });

TEST_P(CausalMove, TurnsKeysAndLeavesOtherSequencesAlone) {
  constexpr std::int64_t kDim = 32;
  constexpr std::int64_t kHeads = 2;
  constexpr std::int64_t kWidth = kDim * kHeads;
  constexpr Position kCount = 24;
  constexpr Position kBegin = 14;
  constexpr Position kDelta = -6;
  const auto backend = backend_of(GetParam().backend);
  const auto context = backend->new_context(ml::Phase::kDecode, 256, 1).value();
  const auto cache =
      Causal::create(*backend, std::vector<LayerSpec>{{kDim, kDim, kHeads}}, 0,
                     {.cells = 64,
                      .sequences = 2,
                      .max_batch = 32,
                      .k_type = GetParam().type,
                      .v_type = GetParam().type,
                      .config = {.cache_padding = 32, .permuted_v = GetParam().permuted_v}},
                     {})
          .value();
  const ml::RopeOptions rope{.dimensions = kDim};

  std::vector<float> values(static_cast<std::size_t>(kWidth * kCount));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = std::sin(static_cast<float>(i * i % 1013));
  }
  // Keys of `positions`, turned; in another graph than the cache's.
  const auto turned = [&](std::vector<Position> positions) {
    context->reset();
    const auto n = static_cast<std::int64_t>(positions.size());
    const ml::Tensor x = context->input(ml::DType::kF32, {kDim, kHeads, n, 1}, "x");
    const ml::Tensor p = context->input(ml::DType::kI32, {n, 1, 1, 1}, "p");
    const ml::Tensor y = context->output(context->rope(x, p, {}, rope), "y");
    const auto bytes =
        std::as_bytes(std::span(values)).first(static_cast<std::size_t>(kWidth * n) * 4);
    const std::array uploads{ml::Upload{x, bytes},
                             ml::Upload{p, std::as_bytes(std::span(positions))}};
    EXPECT_TRUE(ml::batch_tensor_op(*context, uploads));
    std::vector<float> result(static_cast<std::size_t>(kWidth * n));
    EXPECT_TRUE(context->download(y, std::as_writable_bytes(std::span(result))));
    return result;
  };

  std::vector<Position> positions(kCount);
  std::iota(positions.begin(), positions.end(), 0);
  const std::vector<float> keys = turned(positions);
  const std::vector<Sequence> sequences(kCount, 0);
  ASSERT_TRUE(cache->begin({.positions = positions, .sequences = sequences}));
  context->reset();
  {
    std::vector<Inputs> inputs;
    cache->declare_inputs(*context, inputs);
    const ml::Shape shape{kDim, kHeads, kCount, 1};
    const ml::Tensor k = context->input(ml::DType::kF32, shape, "k");
    const ml::Tensor v = context->input(ml::DType::kF32, shape, "v");
    (void)cache->update(*context, inputs, 0, k, v);
    std::vector<ml::Upload> uploads{{k, std::as_bytes(std::span(keys))},
                                    {v, std::as_bytes(std::span(values))}};
    cache->collect_uploads(inputs, false, uploads);
    ASSERT_TRUE(ml::batch_tensor_op(*context, uploads));
  }
  // What a sequence's keys and values are, by position.
  const auto read = [&](Sequence sequence) {
    std::map<Position, std::vector<float>> result;
    context->reset();
    std::vector<std::int32_t> cells;
    cache->cells().for_each_cell(
        sequence, [&](std::uint32_t cell) { cells.push_back(static_cast<std::int32_t>(cell)); });
    const auto n = static_cast<std::int64_t>(cells.size());
    const ml::Tensor ids = context->input(ml::DType::kI32, {n, 1, 1, 1}, "ids");
    const auto& tensors = cache->storage().tensors();
    const auto rows = [&](ml::Tensor tensor) {
      return context->get_rows(context->reshape(tensor, {kWidth, tensor.dim(2), 1, 1}), ids);
    };
    ml::Tensor held = tensors[1];
    if (GetParam().permuted_v) {  // [cells, head_dim, kv_heads]
      held = context->contiguous(context->permute(held, {2, 0, 1, 3}));
    }
    const std::array both{context->output(rows(tensors[0]), "keys"),
                          context->output(rows(held), "values")};
    const std::array uploads{ml::Upload{ids, std::as_bytes(std::span(cells))}};
    EXPECT_TRUE(ml::batch_tensor_op(*context, uploads));
    for (const ml::Tensor tensor : both) {
      std::vector<float> all(static_cast<std::size_t>(kWidth * n));
      EXPECT_TRUE(context->download(tensor, std::as_writable_bytes(std::span(all))));
      for (std::size_t i = 0; i < cells.size(); ++i) {
        auto& row = result[cache->cells().position(static_cast<std::uint32_t>(cells[i]))];
        const auto from = all.begin() + static_cast<std::ptrdiff_t>(i) * kWidth;
        row.insert(row.end(), from, from + kWidth);
      }
    }
    return result;
  };

  // The other sequence shares the first cells of what moves.
  cache->copy_prefix(0, 1, 17);
  const auto shared_before = read(1);
  const auto moved_before = read(0);
  cache->remove(0, kBegin + kDelta, kBegin);
  const TurnKeys turn = [&](ml::Context& ctx, int, ml::Tensor k, ml::Tensor by) {
    return ctx.rope(k, by, {}, rope);
  };
  const auto moved = cache->move(0, kBegin, kDelta, turn, *context);
  ASSERT_TRUE(moved) << moved.error().message();

  EXPECT_EQ(read(1), shared_before) << "another sequence's keys or values changed";
  const auto after = read(0);
  ASSERT_EQ(after.size(), static_cast<std::size_t>(kCount + kDelta));
  std::vector<Position> as_if(kCount);
  for (Position p = 0; p < kCount; ++p)
    as_if[static_cast<std::size_t>(p)] = p < kBegin ? p : p + kDelta;
  const std::vector<float> expected = turned(as_if);
  for (Position p = 0; p < kCount; ++p) {
    if (p >= kBegin + kDelta && p < kBegin) continue;
    const std::vector<float>& row = after.at(p < kBegin ? p : p + kDelta);
    const auto at = static_cast<std::size_t>(p * kWidth);
    for (std::size_t i = 0; i < kWidth; ++i) {
      EXPECT_NEAR(row[i], expected[at + i], GetParam().tolerance) << "key of position " << p;
      EXPECT_EQ(row[kWidth + i], moved_before.at(p)[kWidth + i]) << "value of position " << p;
    }
  }
}

TEST(CausalMoveAlone, WithoutRoomForCopiesNothingHasChanged) {
  const auto backend = backend_of(ml::BackendKind::kReference);
  const auto context = backend->new_context(ml::Phase::kDecode, 256, 1).value();
  const auto cache =
      Causal::create(*backend, std::vector<LayerSpec>{{8, 8, 1}}, 0,
                     {.cells = 8, .sequences = 2, .max_batch = 8, .config = {.cache_padding = 8}},
                     {})
          .value();
  std::vector<Position> positions{0, 1, 2, 3, 4, 5, 6, 7};
  const std::vector<Sequence> sequences(8, 0);
  ASSERT_TRUE(cache->begin({.positions = positions, .sequences = sequences}));
  cache->copy_prefix(0, 1, 8);
  const TurnKeys turn = [](ml::Context&, int, ml::Tensor k, ml::Tensor) { return k; };
  const auto moved = cache->move(0, 4, -2, turn, *context);
  ASSERT_FALSE(moved);
  EXPECT_EQ(moved.error().message(), kCacheFull.message);
  EXPECT_EQ(cache->cells().max_position(0), 7);
  EXPECT_EQ(cache->cells().count(0), 8U);
}

}  // namespace
}  // namespace ollama::kvcache
