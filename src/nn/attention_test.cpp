// The two paths of attention against its definition, what is remembered between calls, and what is
// refused. When one fails, a model computes something else on another device or with another
// setting, or a step pays for questions and checks that were answered before.
#include "nn/attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <barrier>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <new>
#include <numeric>
#include <random>
#include <thread>

#include "envconfig/config.h"
#include "ml/backend.h"

namespace {
std::atomic<std::size_t> nn_allocations{0};

void* counted_by_nn(std::size_t size) {
  ++nn_allocations;
  void* memory = std::malloc(std::max<std::size_t>(size, 1));
  if (memory == nullptr) std::abort();
  return memory;
}
}  // namespace

// Every allocation of this program is counted. All forms but the aligned ones are here, since the
// address sanitizer's own do not call these.
void* operator new(std::size_t size) { return counted_by_nn(size); }
void* operator new[](std::size_t size) { return counted_by_nn(size); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return counted_by_nn(size); }
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
  return counted_by_nn(size);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

namespace ollama::nn {
namespace {

using ml::AttentionConfig;
using ml::DType;
using ml::Shape;
using ml::Tensor;
using ::testing::ElementsAre;
using ::testing::Pointwise;

// Something to point to: fakes compute nothing.
Tensor fake(const Shape& shape, DType dtype = DType::kF32) {
  static int node = 0;
  return {&node, dtype, shape};
}

// Counts what it is asked, and notes what it is given.
class FakeFused final : public ml::ScaledDotProductAttention {
 public:
  struct Call {
    Shape q, k, v, mask, sinks;
    float scale;
    float soft_cap;
    bool operator==(const Call&) const = default;
  };

  // Serves heads of an even size.
  bool supports(const AttentionConfig& config) const override {
    ++asked;
    if (slow) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    last_asked = config;
    return config.head_dim_k % 2 == 0;
  }
  Tensor scaled_dot_product_attention(ml::Context& /*context*/, Tensor q, Tensor k, Tensor v,
                                      const ml::AttentionMask& mask, Tensor sinks, float scale,
                                      float soft_cap) const override {
    calls.push_back(
        {q.shape(), k.shape(), v.shape(), mask.visible.shape(), sinks.shape(), scale, soft_cap});
    return fake({v.dim(0), q.dim(2), q.dim(1), 1});
  }

  bool slow = false;  // long enough for another thread to come with the same question
  mutable std::atomic<int> asked = 0;
  mutable AttentionConfig last_asked;
  mutable std::vector<Call> calls;
};

// Knows the shapes of what attention uses; notes which operations those are.
class FakeContext final : public ml::Context {
 public:
  explicit FakeContext(const ml::ScaledDotProductAttention* fused) : fused_(fused) {}

  const ml::ScaledDotProductAttention* fused_attention() const override {
    ++asked;
    return fused_;
  }

  Tensor scale(Tensor a, float) override { return note("scale", a.shape()); }
  Tensor activate(Tensor a, ml::Activation) override { return note("activate", a.shape()); }
  Tensor softmax(Tensor a, Tensor, Tensor, float) override { return note("softmax", a.shape()); }
  Tensor mul_mat(Tensor w, Tensor x) override {
    return note("mul_mat", {w.dim(1), x.dim(1), x.dim(2), x.dim(3)});
  }
  Tensor reshape(Tensor, const Shape& shape) override { return fake(shape); }
  Tensor permute(Tensor a, const std::array<int, 4>& order) override {
    Shape shape{};
    for (std::size_t i = 0; i < 4; ++i) shape[static_cast<std::size_t>(order[i])] = a.dim(i);
    return fake(shape);
  }
  Tensor contiguous(Tensor a) override { return a; }
  Tensor cast(Tensor a, DType) override { return a; }

  void reset() override {}
  Result<> prepare() override { return {}; }
  Result<std::vector<std::uint64_t>> measure() override { return std::vector<std::uint64_t>{}; }
  std::vector<std::uint64_t> allocated() const override { return {}; }
  Result<> upload(std::span<const ml::Upload>) override { return {}; }
  Result<> compute() override { return {}; }
  Result<> download(Tensor, std::span<std::byte>) override { return {}; }
  void observe(ml::Observer) override {}
  Tensor input(DType, const Shape&, std::string_view) override { return unused(); }
  Tensor output(Tensor, std::string_view) override { return unused(); }
  void keep(Tensor) override { unused(); }
  Tensor named(Tensor, std::string_view, int) override { return unused(); }
  void set_layer(int) override { unused(); }
  Tensor add(Tensor, Tensor) override { return unused(); }
  Tensor sub(Tensor, Tensor) override { return unused(); }
  Tensor mul(Tensor, Tensor) override { return unused(); }
  Tensor div(Tensor, Tensor) override { return unused(); }
  Tensor clamp(Tensor, float, float) override { return unused(); }
  Tensor sum_rows(Tensor) override { return unused(); }
  Tensor gated(Tensor, Tensor, ml::Activation) override { return unused(); }
  Tensor swiglu_oai(Tensor, Tensor, float, float) override { return unused(); }
  Tensor rms_norm(Tensor, float) override { return unused(); }
  Tensor layer_norm(Tensor, float) override { return unused(); }
  Tensor rope(Tensor, Tensor, Tensor, const ml::RopeOptions&) override { return unused(); }
  Tensor mul_mat_id(Tensor, Tensor, Tensor) override { return unused(); }
  Tensor add_id(Tensor, Tensor, Tensor) override { return unused(); }
  Tensor top_k(Tensor, std::int64_t) override { return unused(); }
  Tensor get_rows(Tensor, Tensor) override { return unused(); }
  Tensor set_rows(Tensor, Tensor, Tensor) override { return unused(); }
  Tensor slice(Tensor, int, std::int64_t, std::int64_t) override { return unused(); }
  Tensor concat(Tensor, Tensor, int) override { return unused(); }
  Tensor repeat(Tensor, const Shape&) override { return unused(); }
  Tensor copy(Tensor, Tensor) override { return unused(); }

  mutable std::atomic<int> asked = 0;
  std::vector<std::string> operations;

 private:
  Tensor note(std::string_view operation, const Shape& shape) {
    operations.emplace_back(operation);
    return fake(shape);
  }
  static Tensor unused() {
    ADD_FAILURE() << "an operation that attention does not need";
    return {};
  }
  const ml::ScaledDotProductAttention* fused_;
};

// --- what is asked ---

std::vector<AttentionConfig> configurations(std::int32_t count) {
  std::vector<AttentionConfig> configs;
  for (std::int32_t i = 0; i < count; ++i) {
    configs.push_back({.head_dim_k = 64 + i / 4, .sinks = i % 2 == 1, .soft_cap = i % 4 >= 2});
  }
  return configs;
}

TEST(AttentionSupport, AsksForTheInterfaceOnceAndForEachConfigurationOnce) {
  const FakeFused fused;
  const FakeContext context(&fused);
  AttentionSupport support;
  const AttentionConfig even{.head_dim_k = 64};
  const AttentionConfig odd{.head_dim_k = 65};
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(support.find(context, even), &fused);
    EXPECT_EQ(support.find(context, odd), nullptr);
    EXPECT_EQ(context.asked, 1);
    EXPECT_EQ(fused.asked, 2);
    EXPECT_EQ(support.probes(), 3U);
  }
  // Whatever a backend may tell apart is a configuration of its own.
  int expected = 2;
  for (const AttentionConfig& other : {AttentionConfig{.head_dim_k = 64, .head_dim_v = 32},
                                       AttentionConfig{.head_dim_k = 64, .k_type = DType::kQ8_0},
                                       AttentionConfig{.head_dim_k = 64, .v_type = DType::kQ8_0},
                                       AttentionConfig{.head_dim_k = 64, .sinks = true},
                                       AttentionConfig{.head_dim_k = 64, .soft_cap = true}}) {
    EXPECT_EQ(support.find(context, other), &fused);
    EXPECT_EQ(fused.asked, ++expected);
  }
  EXPECT_EQ(context.asked, 1);
}

TEST(AttentionSupport, ABackendWithoutTheInterfaceIsAskedOnce) {
  const FakeContext context(nullptr);
  AttentionSupport support;
  for (const AttentionConfig& config : configurations(8)) {
    EXPECT_EQ(support.find(context, config), nullptr);
  }
  EXPECT_EQ(context.asked, 1);
  EXPECT_EQ(support.probes(), 1U);
}

TEST(AttentionSupport, ThreadsThatAskAtOnceShareOneAnswer) {
  const auto configs = configurations(16);
  for (int round = 0; round < 5; ++round) {
    FakeFused fused;
    fused.slow = true;
    const FakeContext context(&fused);
    AttentionSupport support;
    constexpr std::size_t kThreads = 8;
    std::barrier start(kThreads);
    std::atomic<int> wrong = 0;
    {
      std::vector<std::jthread> threads;
      for (std::size_t thread = 0; thread < kThreads; ++thread) {
        threads.emplace_back([&, thread] {
          start.arrive_and_wait();
          // Two threads each in the same order.
          for (std::size_t i = 0; i < 4 * configs.size(); ++i) {
            const AttentionConfig& config = configs[(i + thread / 2 * 4) % configs.size()];
            const auto* expected = config.head_dim_k % 2 == 0 ? &fused : nullptr;
            if (support.find(context, config) != expected) ++wrong;
          }
        });
      }
    }
    ASSERT_EQ(wrong, 0);
    ASSERT_EQ(context.asked, 1);
    ASSERT_EQ(fused.asked, 16);
    ASSERT_EQ(support.probes(), 17U);
  }
}

TEST(AttentionSupport, MoreConfigurationsThanAreRememberedAreAnsweredRight) {
  const FakeFused fused;
  const FakeContext context(&fused);
  AttentionSupport support;
  for (int i = 0; i < 2; ++i) {
    for (const AttentionConfig& config : configurations(100)) {
      EXPECT_EQ(support.find(context, config) != nullptr, config.head_dim_k % 2 == 0);
    }
  }
  EXPECT_EQ(context.asked, 1);
}

// --- what is called ---

// A call whose shapes fit: 4 heads, 2 of keys and values, 3 tokens, 8 cells.
struct Call {
  Tensor q = fake({16, 4, 3, 1});
  kvcache::KeysValues kv{.k = fake({16, 2, 8, 1}, DType::kF16),
                         .v = fake({10, 2, 8, 1}, DType::kF16),
                         .mask = fake({8, 5, 1, 1}, DType::kF16)};
  AttentionOptions options{.scale = 0.25F, .soft_cap = 0, .sinks = fake({4, 1, 1, 1})};

  Result<Tensor> run(FakeContext& context, AttentionSupport& support) const {
    return attention(context, support, q, kv, options);
  }
};

TEST(Attention, UsesTheFusedInterfaceWhereItServes) {
  const FakeFused fused;
  FakeContext context(&fused);
  AttentionSupport support;
  Call call;
  call.options.soft_cap = 30;
  const auto result = call.run(context, support);
  ASSERT_TRUE(result) << result.error().message();
  EXPECT_EQ(result->shape(), (Shape{40, 3, 1, 1}));
  EXPECT_THAT(
      fused.calls,
      ElementsAre(FakeFused::Call{
          {16, 3, 4, 1}, {16, 8, 2, 1}, {10, 8, 2, 1}, {8, 5, 1, 1}, {4, 1, 1, 1}, 0.25F, 30}));
  EXPECT_THAT(context.operations, ElementsAre());
}

TEST(Attention, ComposesWhereTheInterfaceDoesNotServeOrIsMissing) {
  const FakeFused fused;
  FakeContext without(nullptr);
  FakeContext with(&fused);
  Call call;
  call.q = fake({15, 4, 3, 1});
  call.kv.k = fake({15, 2, 8, 1}, DType::kF16);
  for (FakeContext* context : {&without, &with}) {
    AttentionSupport support;
    const auto result = call.run(*context, support);
    ASSERT_TRUE(result) << result.error().message();
    EXPECT_EQ(result->shape(), (Shape{40, 3, 1, 1}));
    EXPECT_THAT(context->operations, ElementsAre("mul_mat", "softmax", "mul_mat"));
  }
  EXPECT_EQ(fused.asked, 1);
  EXPECT_TRUE(fused.calls.empty());
}

TEST(Attention, AsksForWhatItIsCalledWith) {
  const FakeFused fused;
  FakeContext context(&fused);
  AttentionSupport support;
  Call call;
  ASSERT_TRUE(call.run(context, support));
  AttentionConfig expected{.head_dim_k = 16,
                           .head_dim_v = 10,
                           .k_type = DType::kF16,
                           .v_type = DType::kF16,
                           .sinks = true,
                           .soft_cap = false};
  EXPECT_EQ(fused.last_asked, expected);
  call.kv.k = fake({16, 2, 8, 1}, DType::kQ8_0);
  call.kv.v = fake({10, 2, 8, 1}, DType::kBF16);
  call.options.sinks = {};
  call.options.soft_cap = 30;
  ASSERT_TRUE(call.run(context, support));
  expected.k_type = DType::kQ8_0;
  expected.v_type = DType::kBF16;
  expected.sinks = false;
  expected.soft_cap = true;
  EXPECT_EQ(fused.last_asked, expected);
}

TEST(Attention, AsksNothingTwiceOverAllLayersOfManyGraphs) {
  const FakeFused fused;
  FakeContext context(&fused);
  AttentionSupport support;
  const Call call;
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(call.run(context, support));
  EXPECT_EQ(fused.calls.size(), 100U);
  EXPECT_EQ(support.probes(), 2U);
}

// --- what is checked ---

struct Wrong {
  std::string_view message;
  void (*spoil)(Call& call);
};
constexpr std::array kWrong{
    Wrong{"attention: q and k have other head sizes",
          [](Call& call) { call.q = fake({12, 4, 3, 1}); }},
    Wrong{"attention: query heads are no multiple of key heads",
          [](Call& call) { call.q = fake({16, 3, 3, 1}); }},
    Wrong{"attention: query heads are no multiple of key heads",
          [](Call& call) { call.kv.k = fake({16, 0, 8, 1}); }},
    Wrong{"attention: k and v have other heads",
          [](Call& call) { call.kv.v = fake({10, 4, 8, 1}); }},
    Wrong{"attention: k and v have other lengths",
          [](Call& call) { call.kv.v = fake({10, 2, 9, 1}); }},
    Wrong{"attention: the mask does not fit",
          [](Call& call) { call.kv.mask = fake({7, 5, 1, 1}); }},
    Wrong{"attention: the mask does not fit",
          [](Call& call) { call.kv.mask = fake({8, 2, 1, 1}); }},
    Wrong{"attention: one sink a head is expected",
          [](Call& call) { call.options.sinks = fake({2, 1, 1, 1}); }},
};

TEST(Attention, EachWrongShapeHasItsErrorWhichCostsNoMemory) {
  const FakeFused fused;
  FakeContext context(&fused);
  for (const Validation mode : {Validation::kAlways, Validation::kOnce}) {
    AttentionSupport support(mode);
    ASSERT_TRUE(Call().run(context, support));
    for (const Wrong& wrong : kWrong) {
      Call call;
      wrong.spoil(call);
      // A shape that was refused is refused again.
      for (int i = 0; i < 2; ++i) {
        const std::size_t before = nn_allocations;
        const auto result = call.run(context, support);
        const std::size_t allocated = nn_allocations - before;
        ASSERT_FALSE(result) << wrong.message;
        EXPECT_EQ(result.error().code(), ErrorCode::kInternal);
        EXPECT_EQ(result.error().message(), wrong.message);
        EXPECT_EQ(allocated, 0U) << wrong.message;
      }
    }
    EXPECT_EQ(fused.calls.size(), mode == Validation::kAlways ? 1U : 2U);
  }
}

TEST(Attention, MaskAndSinksAreOptional) {
  const FakeFused fused;
  FakeContext context(&fused);
  AttentionSupport support(Validation::kAlways);
  Call call;
  call.kv.mask = {};
  call.options.sinks = {};
  EXPECT_TRUE(call.run(context, support));
}

TEST(Attention, OnceChecksTheFirstCallOfEachShape) {
  const FakeFused fused;
  FakeContext context(&fused);
  AttentionSupport support(Validation::kOnce);
  std::uint64_t expected = 0;
  for (int layer = 0; layer < 10; ++layer) EXPECT_TRUE(Call().run(context, support));
  EXPECT_EQ(support.shapes(), ++expected);
  // Each of these sizes makes another shape.
  const std::array<void (*)(Call&), 6> others{
      [](Call& call) { call.q = fake({16, 4, 2, 1}); },
      [](Call& call) {
        call.q = fake({16, 6, 3, 1});
        call.options.sinks = fake({6, 1, 1, 1});
      },
      [](Call& call) { call.kv = {fake({16, 2, 9, 1}), fake({10, 2, 9, 1}), fake({9, 5, 1, 1})}; },
      [](Call& call) { call.kv.mask = fake({8, 4, 1, 1}); },
      [](Call& call) { call.kv.mask = {}; },
      [](Call& call) { call.options.sinks = {}; }};
  for (int round = 0; round < 2; ++round) {
    for (const auto& change : others) {
      Call call;
      change(call);
      EXPECT_TRUE(call.run(context, support));
      if (round == 0) ++expected;
      EXPECT_EQ(support.shapes(), expected);
    }
  }
  // A refused shape is not remembered as good.
  Call wrong;
  wrong.kv.mask = fake({8, 2, 1, 1});
  EXPECT_FALSE(wrong.run(context, support));
  EXPECT_FALSE(wrong.run(context, support));
  EXPECT_EQ(support.shapes(), expected);
}

// A server that runs for weeks sees every batch size at every length.
TEST(Attention, OnceNeedsNoMoreMemoryForMoreShapes) {
  const FakeFused fused;
  const FakeContext context(&fused);
  AttentionSupport support(Validation::kOnce);
  std::size_t failed = 0;
  const std::size_t before = nn_allocations;
  for (std::int64_t tokens = 1; tokens <= 512; ++tokens) {
    for (std::int64_t length = 256; length <= 4096; length += 256) {
      const kvcache::KeysValues kv{fake({16, 2, length, 1}), fake({16, 2, length, 1}),
                                   fake({length, tokens, 1, 1})};
      if (!support.validate(fake({16, 4, tokens, 1}), kv, {})) ++failed;
      // Refused, whatever was seen before it.
      if (support.validate(fake({16, 4, tokens + 1, 1}), kv, {})) ++failed;
    }
  }
  EXPECT_EQ(failed, 0U);
  EXPECT_EQ(nn_allocations, before);
  EXPECT_EQ(support.shapes(), 512U * 16U);
}

TEST(Attention, AlwaysRemembersNoShapes) {
  const FakeFused fused;
  FakeContext context(&fused);
  AttentionSupport support(Validation::kAlways);
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(Call().run(context, support));
  EXPECT_EQ(support.shapes(), 0U);
}

TEST(Attention, OffChecksNothing) {
  const FakeFused fused;
  FakeContext context(&fused);
  AttentionSupport support(Validation::kOff);
  for (const Wrong& wrong : kWrong) {
    Call call;
    wrong.spoil(call);
    EXPECT_TRUE(call.run(context, support)) << wrong.message;
  }
  EXPECT_EQ(support.shapes(), 0U);
}

TEST(Validation, IsTheVariablesValue) {
  EXPECT_EQ(validation_of(envconfig::Validation::kAlways), Validation::kAlways);
  EXPECT_EQ(validation_of(envconfig::Validation::kOnce), Validation::kOnce);
  EXPECT_EQ(validation_of(envconfig::Validation::kOff), Validation::kOff);
  EXPECT_EQ(AttentionSupport().validation(), validation_of(envconfig::Config().validation));
}

// --- what is computed ---

struct Problem {
  std::string name;
  std::int64_t heads = 4;
  std::int64_t kv_heads = 4;
  std::int64_t head_dim_k = 32;
  std::int64_t head_dim_v = 32;
  std::int64_t tokens = 3;
  std::int64_t cells = 64;
  DType type = DType::kF32;  // of keys and values
  bool sinks = false;
  float soft_cap = 0;
  bool masked = true;
  float tolerance = 1e-5F;
};
std::ostream& operator<<(std::ostream& out, const Problem& problem) { return out << problem.name; }

// Numbers for a problem, and what comes out by the definition.
struct Numbers {
  std::vector<float> q, k, v, mask, sinks;
  std::vector<float> expected;  // [head_dim_v, heads, tokens]

  explicit Numbers(const Problem& p) {
    std::mt19937 engine(7);
    const auto fill = [&](std::vector<float>& values, std::int64_t count, float size) {
      std::uniform_real_distribution<float> uniform(-size, size);
      values.resize(static_cast<std::size_t>(count));
      for (float& value : values) value = uniform(engine);
    };
    fill(q, p.head_dim_k * p.heads * p.tokens, 2);
    fill(k, p.head_dim_k * p.kv_heads * p.cells, 2);
    fill(v, p.head_dim_v * p.kv_heads * p.cells, 1);
    fill(sinks, p.heads, 3);
    // Token t sees the cells up to its own; the rows behind the last token are padding.
    mask.assign(static_cast<std::size_t>(p.cells * (p.tokens + 1)), 0);
    for (std::int64_t t = 0; t < p.tokens; ++t) {
      for (std::int64_t cell = p.cells - p.tokens + t - 4; cell < p.cells; ++cell) {
        mask[static_cast<std::size_t>(t * p.cells + cell)] =
            -std::numeric_limits<float>::infinity();
      }
    }
    for (std::int64_t t = 0; t < p.tokens; ++t) {
      for (std::int64_t head = 0; head < p.heads; ++head) attend(p, t, head);
    }
  }

 private:
  void attend(const Problem& p, std::int64_t t, std::int64_t head) {
    const auto cells = static_cast<std::size_t>(p.cells);
    const auto at = [&](const std::vector<float>& values, std::int64_t size, std::int64_t heads,
                        std::int64_t of, std::int64_t row) {
      return std::span(values).subspan(static_cast<std::size_t>((row * heads + of) * size),
                                       static_cast<std::size_t>(size));
    };
    const std::int64_t kv_head = head / (p.heads / p.kv_heads);
    std::vector<double> weights(cells);
    double sum = p.sinks ? std::exp(double{sinks[static_cast<std::size_t>(head)]}) : 0;
    for (std::size_t cell = 0; cell < cells; ++cell) {
      const auto query = at(q, p.head_dim_k, p.heads, head, t);
      const auto key = at(k, p.head_dim_k, p.kv_heads, kv_head, static_cast<std::int64_t>(cell));
      double logit = std::inner_product(query.begin(), query.end(), key.begin(), 0.0) * kScale;
      if (p.soft_cap > 0) logit = p.soft_cap * std::tanh(logit / double{p.soft_cap});
      if (p.masked) logit += double{mask[static_cast<std::size_t>(t) * cells + cell]};
      weights[cell] = std::exp(logit);
      sum += weights[cell];
    }
    for (std::int64_t i = 0; i < p.head_dim_v; ++i) {
      double value = 0;
      for (std::size_t cell = 0; cell < cells; ++cell) {
        value += weights[cell] / sum *
                 double{at(v, p.head_dim_v, p.kv_heads, kv_head,
                           static_cast<std::int64_t>(cell))[static_cast<std::size_t>(i)]};
      }
      expected.push_back(static_cast<float>(value));
    }
  }

 public:
  static constexpr float kScale = 0.3F;
};

class AttentionPaths : public ::testing::TestWithParam<Problem> {
 protected:
  // What attention() computes there; `fused`: on which path it must do so.
  static std::vector<float> run(ml::BackendKind kind, ml::FlashAttention flash, DType mask_type,
                                bool fused) {
    const Problem& p = GetParam();
    const Numbers numbers(p);
    const auto backend =
        ml::new_backend(kind, {.threads = 2, .flash_attention = flash, .use_mmap = false});
    EXPECT_TRUE(backend) << backend.error().message();
    if (!backend) return {};
    const auto context = (*backend)->new_context(ml::Phase::kPrefill, 100, 4).value();
    std::vector<ml::Upload> uploads;
    const auto input = [&](const std::vector<float>& values, const Shape& shape) {
      const Tensor tensor = context->input(DType::kF32, shape, "input");
      uploads.push_back({tensor, std::as_bytes(std::span(values))});
      return tensor;
    };
    const auto typed = [&](Tensor tensor, DType type) {
      return type == DType::kF32 ? tensor : context->cast(tensor, type);
    };
    const Tensor q = input(numbers.q, {p.head_dim_k, p.heads, p.tokens, 1});
    kvcache::KeysValues kv{
        .k = typed(input(numbers.k, {p.head_dim_k, p.kv_heads, p.cells, 1}), p.type),
        .v = typed(input(numbers.v, {p.head_dim_v, p.kv_heads, p.cells, 1}), p.type),
        .mask = {}};
    if (p.masked) kv.mask = typed(input(numbers.mask, {p.cells, p.tokens + 1, 1, 1}), mask_type);
    AttentionOptions options{.scale = Numbers::kScale, .soft_cap = p.soft_cap, .sinks = {}};
    if (p.sinks) options.sinks = input(numbers.sinks, {p.heads, 1, 1, 1});

    AttentionSupport support;
    const auto result = attention(*context, support, q, kv, options);
    EXPECT_TRUE(result) << result.error().message();
    if (!result) return {};
    EXPECT_EQ(result->shape(), (Shape{p.head_dim_v * p.heads, p.tokens, 1, 1}));
    const AttentionConfig config{.head_dim_k = static_cast<std::int32_t>(p.head_dim_k),
                                 .head_dim_v = static_cast<std::int32_t>(p.head_dim_v),
                                 .k_type = p.type,
                                 .v_type = p.type,
                                 .sinks = p.sinks,
                                 .soft_cap = p.soft_cap > 0};
    EXPECT_EQ(support.find(*context, config) != nullptr, fused);
    const Tensor output = context->output(*result, "output");
    EXPECT_TRUE(context->prepare());
    EXPECT_TRUE(context->upload(uploads));
    EXPECT_TRUE(context->compute());
    std::vector<float> values(static_cast<std::size_t>(output.elements()));
    EXPECT_TRUE(context->download(output, std::as_writable_bytes(std::span(values))));
    return values;
  }

  static auto as_defined() {
    return Pointwise(::testing::FloatNear(GetParam().tolerance), Numbers(GetParam()).expected);
  }
};

TEST_P(AttentionPaths, FusedIsAsDefined) {
  EXPECT_THAT(run(ml::BackendKind::kGgml, ml::FlashAttention::kOn, DType::kF16, true),
              as_defined());
}
TEST_P(AttentionPaths, ComposedIsAsDefined) {
  EXPECT_THAT(run(ml::BackendKind::kGgml, ml::FlashAttention::kOff, DType::kF32, false),
              as_defined());
}
TEST_P(AttentionPaths, ComposedWithAHalfMaskIsAsDefined) {
  EXPECT_THAT(run(ml::BackendKind::kGgml, ml::FlashAttention::kOff, DType::kF16, false),
              as_defined());
}
TEST_P(AttentionPaths, ReferenceIsAsDefined) {
  EXPECT_THAT(run(ml::BackendKind::kReference, ml::FlashAttention::kAuto, DType::kF32, false),
              as_defined());
}
TEST_P(AttentionPaths, ReferenceWithAHalfMaskIsAsDefined) {
  EXPECT_THAT(run(ml::BackendKind::kReference, ml::FlashAttention::kAuto, DType::kF16, false),
              as_defined());
}

// What the rounding of keys and values does to results here, with room for other processors.
constexpr float kHalf = 3e-3F;
constexpr float kBrain = 8e-3F;
constexpr float kEight = 2e-2F;
constexpr float kFour = 0.2F;

INSTANTIATE_TEST_SUITE_P(
    Problems, AttentionPaths,
    ::testing::Values(
        Problem{.name = "plain"}, Problem{.name = "one_token", .tokens = 1},
        Problem{.name = "many_tokens", .tokens = 40, .cells = 128},
        Problem{.name = "unmasked", .masked = false},
        Problem{.name = "grouped", .heads = 8, .kv_heads = 2},
        Problem{.name = "one_kv_head", .heads = 4, .kv_heads = 1, .tokens = 5},
        Problem{.name = "narrow_values", .head_dim_k = 48, .head_dim_v = 32},
        Problem{.name = "sinks", .kv_heads = 2, .sinks = true},
        Problem{.name = "soft_cap", .kv_heads = 2, .soft_cap = 3},
        Problem{.name = "sinks_and_soft_cap", .kv_heads = 2, .sinks = true, .soft_cap = 3},
        Problem{.name = "f16", .kv_heads = 2, .type = DType::kF16, .tolerance = kHalf},
        Problem{.name = "f16_sinks_and_soft_cap",
                .kv_heads = 2,
                .type = DType::kF16,
                .sinks = true,
                .soft_cap = 3,
                .tolerance = kHalf},
        Problem{.name = "bf16", .kv_heads = 2, .type = DType::kBF16, .tolerance = kBrain},
        Problem{.name = "q8_0", .kv_heads = 2, .type = DType::kQ8_0, .tolerance = kEight},
        Problem{.name = "q4_0", .kv_heads = 2, .type = DType::kQ4_0, .tolerance = kFour}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace ollama::nn
