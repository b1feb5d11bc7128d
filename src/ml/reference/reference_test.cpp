// Every operation against values that were worked out by hand. When one fails, the oracle that the
// other backend and every layer are held against is wrong.
#include "ml/reference/reference_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <numbers>
#include <utility>

namespace ollama::ml::reference {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::HasSubstr;
using ::testing::Pointwise;

constexpr float kInf = std::numeric_limits<float>::infinity();

template <typename T>
std::vector<std::byte> bytes_of(const std::vector<T>& values) {
  const auto bytes = std::as_bytes(std::span(values));
  return {bytes.begin(), bytes.end()};
}

// NOLINTNEXTLINE(readability-identifier-naming): as matchers are named
MATCHER_P(Near, tolerance, "") {
  return std::abs(std::get<0>(arg) - std::get<1>(arg)) <= tolerance;
}
// All values within float rounding of the expected ones.
auto are(std::vector<float> expected) { return Pointwise(Near(2e-6F), std::move(expected)); }

// A graph under construction and the inputs that it will be given.
class Graph {
 public:
  explicit Graph(Backend& backend, std::size_t max_nodes = 1000)
      : context_(std::move(backend.new_context(Phase::kDecode, max_nodes, 1).value())) {}

  Context* operator->() { return context_.get(); }
  Context& context() { return *context_; }

  Tensor floats(const Shape& shape, const std::vector<float>& values) {
    return filled(DType::kF32, shape, values);
  }
  Tensor ints(const Shape& shape, const std::vector<std::int32_t>& values) {
    return filled(DType::kI32, shape, values);
  }
  Tensor longs(const Shape& shape, const std::vector<std::int64_t>& values) {
    return filled(DType::kI64, shape, values);
  }
  template <typename T>
  Tensor filled(DType dtype, const Shape& shape, const std::vector<T>& values) {
    const Tensor tensor = context_->input(dtype, shape, std::format("input {}", bytes_.size()));
    tensors_.push_back(tensor);
    bytes_.push_back(bytes_of(values));
    return tensor;
  }

  Result<> run() {
    OLLAMA_TRY(context_->prepare());
    std::vector<Upload> uploads;
    for (std::size_t i = 0; i < tensors_.size(); ++i) uploads.push_back({tensors_[i], bytes_[i]});
    OLLAMA_TRY(context_->upload(uploads));
    return context_->compute();
  }
  template <typename T = float>
  std::vector<T> read(Tensor tensor) {
    std::vector<T> values(static_cast<std::size_t>(tensor.elements()));
    const auto result = context_->download(tensor, std::as_writable_bytes(std::span(values)));
    EXPECT_TRUE(result) << result.error().message();
    return values;
  }
  // The values of one result, contiguous, of f32 or the integer type T.
  template <typename T = float>
  std::vector<T> values(Tensor tensor) {
    const Tensor result = context_->output(context_->contiguous(tensor), "result");
    const Result<> ran = run();
    if (!ran) {
      ADD_FAILURE() << ran.error().message();
      return {};
    }
    return read<T>(result);
  }

 private:
  std::unique_ptr<Context> context_;
  std::vector<Tensor> tensors_;
  std::vector<std::vector<std::byte>> bytes_;
};

class Reference : public ::testing::Test {
 protected:
  std::unique_ptr<Storage> storage(DType dtype, const Shape& shape) {
    const Storage::Request request{dtype, shape, "cache", 0};
    return backend_->allocate({&request, 1}, {}, Purpose::kUse).value();
  }
  // What a storage holds, read by a graph of its own.
  std::vector<float> contents(const Storage& storage) {
    Graph graph(*backend_);
    return graph.values(graph->cast(storage.tensors()[0], DType::kF32));
  }
  std::vector<float> activated(Activation activation, const std::vector<float>& values) {
    Graph graph(*backend_);
    const Tensor x = graph.floats({static_cast<std::int64_t>(values.size()), 1, 1, 1}, values);
    return graph.values(graph->activate(x, activation));
  }

  std::unique_ptr<Backend> backend_ = new_backend({}).value();
  Graph g_{*backend_};
};

// --- arithmetic ---

TEST_F(Reference, BinaryOperationsRepeatTheSecondOperand) {
  const Tensor a = g_.floats({2, 2, 1, 1}, {1, 2, 3, 4});
  const Tensor row = g_.floats({2, 1, 1, 1}, {10, 20});
  const Tensor column = g_.floats({1, 2, 1, 1}, {10, 20});
  const Tensor add = g_->output(g_->add(a, row), "add");
  const Tensor sub = g_->output(g_->sub(a, column), "sub");
  const Tensor mul = g_->output(g_->mul(a, column), "mul");
  const Tensor div = g_->output(g_->div(a, row), "div");
  ASSERT_TRUE(g_.run());
  EXPECT_THAT(g_.read(add), are({11, 22, 13, 24}));
  EXPECT_THAT(g_.read(sub), are({-9, -8, -17, -16}));
  EXPECT_THAT(g_.read(mul), are({10, 20, 60, 80}));
  EXPECT_THAT(g_.read(div), are({0.1F, 0.1F, 0.3F, 0.2F}));
}

TEST_F(Reference, ASecondOperandThatDividesTheFirstRepeatsWhole) {
  const Tensor a = g_.floats({4, 1, 1, 1}, {1, 2, 3, 4});
  const Tensor b = g_.floats({2, 1, 1, 1}, {10, 20});
  EXPECT_THAT(g_.values(g_->add(a, b)), are({11, 22, 13, 24}));
}

TEST_F(Reference, ScaleClampAndSumRows) {
  const Tensor a = g_.floats({3, 2, 1, 1}, {1, -2, 3, 4, 5, -6});
  const Tensor scaled = g_->output(g_->scale(a, 0.5F), "scaled");
  const Tensor clamped = g_->output(g_->clamp(a, -1, 4), "clamped");
  const Tensor summed = g_->output(g_->sum_rows(a), "summed");
  ASSERT_TRUE(g_.run());
  EXPECT_THAT(g_.read(scaled), are({0.5F, -1, 1.5F, 2, 2.5F, -3}));
  EXPECT_THAT(g_.read(clamped), are({1, -1, 3, 4, 4, -1}));
  EXPECT_EQ(summed.shape(), (Shape{1, 2, 1, 1}));
  EXPECT_THAT(g_.read(summed), are({2, 3}));
}

TEST_F(Reference, Activations) {
  EXPECT_THAT(activated(Activation::kSilu, {1, -1}), are({0.7310586F, -0.2689414F}));
  EXPECT_THAT(activated(Activation::kGelu, {1, -1, 0}), are({0.8411920F, -0.1588080F, 0}));
  EXPECT_THAT(activated(Activation::kGeluErf, {1, -1}), are({0.8413447F, -0.1586553F}));
  EXPECT_THAT(activated(Activation::kGeluQuick, {1, -1}), are({0.8457958F, -0.1542042F}));
  EXPECT_THAT(activated(Activation::kRelu, {1, -1}), are({1, 0}));
  EXPECT_THAT(activated(Activation::kTanh, {1, -1}), are({0.7615942F, -0.7615942F}));
  EXPECT_THAT(activated(Activation::kSigmoid, {2, -2}), are({0.8807971F, 0.1192029F}));
  // The naive logarithm of 1 + e^x is infinite for the last.
  EXPECT_THAT(activated(Activation::kSoftplus, {1, -100, 1000}), are({1.3132617F, 0, 1000}));
}

TEST_F(Reference, GatedUnitsActivateTheGate) {
  const Tensor gate = g_.floats({2, 1, 1, 1}, {1, -1});
  const Tensor up = g_.floats({2, 1, 1, 1}, {2, 3});
  const Tensor silu = g_->output(g_->gated(gate, up, Activation::kSilu), "silu");
  const Tensor gelu = g_->output(g_->gated(gate, up, Activation::kGelu), "gelu");
  const Tensor relu = g_->output(g_->gated(gate, up, Activation::kRelu), "relu");
  ASSERT_TRUE(g_.run());
  EXPECT_THAT(g_.read(silu), are({1.4621172F, -0.8068243F}));
  EXPECT_THAT(g_.read(gelu), are({1.6823840F, -0.4764240F}));
  EXPECT_THAT(g_.read(relu), are({2, 0}));
}

TEST_F(Reference, SwigluOfGptOssLimitsTheGateAboveAndUpOnBothSides) {
  const Tensor gate = g_.floats({4, 1, 1, 1}, {1, 9, -9, 1});
  const Tensor up = g_.floats({4, 1, 1, 1}, {2, -9, 0, 9});
  const float at_minus_nine = -9.0F / (1.0F + std::exp(1.702F * 9.0F));
  EXPECT_THAT(g_.values(g_->swiglu_oai(gate, up, 1.702F, 7.0F)),
              Pointwise(Near(1e-4F), {2.5373874F, -41.99972F, at_minus_nine, 6.766366F}));
}

TEST_F(Reference, RmsNorm) {
  const Tensor a = g_.floats({2, 2, 1, 1}, {3, 4, 0, 0});
  EXPECT_THAT(g_.values(g_->rms_norm(a, 12.5F)), are({0.6F, 0.8F, 0, 0}));
}

TEST_F(Reference, LayerNormRemovesTheMean) {
  const Tensor a = g_.floats({2, 2, 1, 1}, {1, 3, 10, 10});
  EXPECT_THAT(g_.values(g_->layer_norm(a, 3.0F)), are({-0.5F, 0.5F, 0, 0}));
}

// --- softmax ---

TEST_F(Reference, SoftmaxScalesBeforeItMasks) {
  const float three = std::log(3.0F);
  const Tensor a = g_.floats({2, 2, 1, 1}, {0, 2 * three, 0, 0});
  const Tensor mask = g_.floats({2, 2, 1, 1}, {0, 0, 0, three});
  EXPECT_THAT(g_.values(g_->softmax(a, mask, {}, 0.5F)), are({0.25F, 0.75F, 0.25F, 0.75F}));
}

TEST_F(Reference, SoftmaxOfLargeScoresDoesNotOverflow) {
  const Tensor a = g_.floats({2, 1, 1, 1}, {1e30F, 1e30F});
  EXPECT_THAT(g_.values(g_->softmax(a, {}, {}, 1.0F)), are({0.5F, 0.5F}));
}

TEST_F(Reference, SoftmaxRepeatsTheMaskOverHeads) {
  const Tensor a = g_.floats({2, 1, 2, 1}, {1, 1, 1, 1});
  const Tensor mask = g_.floats({2, 1, 1, 1}, {0, -kInf});
  EXPECT_THAT(g_.values(g_->softmax(a, mask, {}, 1.0F)), are({1, 0, 1, 0}));
}

TEST_F(Reference, SoftmaxTakesAMaskOfF16WithMoreRowsThanScores) {
  constexpr std::uint16_t kMinusInf = 0xFC00;
  const Tensor a = g_.floats({2, 1, 1, 1}, {1, 1});
  const Tensor mask = g_.filled<std::uint16_t>(DType::kF16, {2, 2, 1, 1}, {kMinusInf, 0, 0, 0});
  EXPECT_THAT(g_.values(g_->softmax(a, mask, {}, 1.0F)), are({0, 1}));
}

TEST_F(Reference, ARowThatIsMaskedWholeGivesZerosAndNoNan) {
  const Tensor a = g_.floats({2, 1, 1, 1}, {1, 2});
  const Tensor mask = g_.floats({2, 1, 1, 1}, {-kInf, -kInf});
  EXPECT_THAT(g_.values(g_->softmax(a, mask, {}, 1.0F)), ElementsAre(0.0F, 0.0F));
}

TEST_F(Reference, SinksTakeTheirShareOfEachHead) {
  const Tensor a = g_.floats({2, 1, 2, 1}, {0, 0, 0, 0});
  const Tensor sinks = g_.floats({2, 1, 1, 1}, {std::log(2.0F), -kInf});
  EXPECT_THAT(g_.values(g_->softmax(a, {}, sinks, 1.0F)), are({0.25F, 0.25F, 0.5F, 0.5F}));
}

// --- rope ---

TEST_F(Reference, RopeTurnsAdjacentPairs) {
  const Tensor x = g_.floats({4, 1, 2, 1}, {1, 0, 0, 1, 1, 0, 0, 1});
  const Tensor positions = g_.ints({2, 1, 1, 1}, {0, 3});
  EXPECT_THAT(g_.values(g_->rope(x, positions, {}, {.dimensions = 4})),
              are({1, 0, 0, 1, std::cos(3.0F), std::sin(3.0F), -std::sin(0.03F), std::cos(0.03F)}));
}

TEST_F(Reference, RopeOfNeoxPairsTheHalvesOfWhatIsRotatedAndLeavesTheRest) {
  // Two heads at one position: the second would show a mix-up of heads and tokens.
  const Tensor x = g_.floats({6, 2, 1, 1}, {1, 1, 0, 0, 7, 8, 0, 0, 1, 1, 9, 10});
  const Tensor positions = g_.ints({1, 1, 1, 1}, {1});
  EXPECT_THAT(g_.values(g_->rope(x, positions, {}, {.dimensions = 4, .neox = true})),
              are({std::cos(1.0F), std::cos(0.01F), std::sin(1.0F), std::sin(0.01F), 7, 8,
                   -std::sin(1.0F), -std::sin(0.01F), std::cos(1.0F), std::cos(0.01F), 9, 10}));
}

TEST_F(Reference, RopeDividesByFactorsAndScalesFrequencyAndMagnitude) {
  const Tensor x = g_.floats({4, 1, 1, 1}, {1, 0, 1, 0});
  const Tensor positions = g_.ints({1, 1, 1, 1}, {8});
  const Tensor factors = g_.floats({2, 1, 1, 1}, {4, 0.5F});
  EXPECT_THAT(
      g_.values(g_->rope(x, positions, factors,
                         {.dimensions = 4, .base = 100, .scale = 0.5F, .attention_factor = 2})),
      are({2 * std::cos(1.0F), 2 * std::sin(1.0F), 2 * std::cos(0.8F), 2 * std::sin(0.8F)}));
}

TEST_F(Reference, YarnExtrapolatesFastPairsAndInterpolatesSlowOnes) {
  // With base e^2 and eight dimensions pair i turns by e^(-i/2) a position, and the pair of r
  // rotations is 2 ln(context / (2 pi r)): 1.2 and 2.6 here, so the ramp goes from pair 1 to
  // pair 3.
  constexpr float kTurn = 2.0F * std::numbers::pi_v<float>;
  const RopeOptions options{.dimensions = 8,
                            .base = std::exp(2.0F),
                            .scale = 0.25F,
                            .original_context = 1024,
                            .extrapolation = 1.0F,
                            .attention_factor = 0.5F,
                            .beta_fast = 1024.0F / (kTurn * std::exp(0.6F)),
                            .beta_slow = 1024.0F / (kTurn * std::exp(1.3F))};
  const Tensor x = g_.floats({8, 1, 1, 1}, {1, 0, 1, 0, 1, 0, 1, 0});
  const Tensor positions = g_.ints({1, 1, 1, 1}, {1});
  const float magnitude = 0.5F * (1.0F + 0.1F * std::log(4.0F));
  std::vector<float> expected;
  for (const float angle :
       {1.0F, std::exp(-0.5F), 0.625F * std::exp(-1.0F), 0.25F * std::exp(-1.5F)}) {
    expected.push_back(magnitude * std::cos(angle));
    expected.push_back(magnitude * std::sin(angle));
  }
  EXPECT_THAT(g_.values(g_->rope(x, positions, {}, options)), are(expected));
}

// --- products ---

TEST_F(Reference, MulMatTakesRowsOfBoth) {
  const Tensor w = g_.floats({2, 3, 1, 1}, {1, 2, 3, 4, 5, 6});
  const Tensor x = g_.floats({2, 2, 1, 1}, {1, 10, 0, -1});
  const Tensor y = g_->mul_mat(w, x);
  EXPECT_EQ(y.shape(), (Shape{3, 2, 1, 1}));
  EXPECT_THAT(g_.values(y), are({21, 43, 65, -2, -4, -6}));
}

TEST_F(Reference, MulMatGivesNeighbouringHeadsOneMatrix) {
  const Tensor w = g_.floats({1, 1, 2, 1}, {2, 3});
  const Tensor x = g_.floats({1, 1, 4, 2}, {1, 2, 3, 4, 5, 6, 7, 8});
  EXPECT_THAT(g_.values(g_->mul_mat(w, x)), are({2, 4, 9, 12, 10, 12, 21, 24}));
}

TEST_F(Reference, MulMatReadsViews) {
  // Heads as they lie in a token's row: [head_dim 2, heads 2, tokens 2] to [head_dim, tokens,
  // heads].
  const Tensor k = g_->permute(g_.floats({2, 2, 2, 1}, {1, 2, 3, 4, 5, 6, 7, 8}), {0, 2, 1, 3});
  const Tensor q = g_.floats({2, 1, 2, 1}, {1, 0, 0, 1});
  EXPECT_THAT(g_.values(g_->mul_mat(k, q)), are({1, 5, 4, 8}));
}

TEST_F(Reference, MulMatIdTakesTheExpertsThatATokenChose) {
  const Tensor w = g_.floats({1, 2, 3, 1}, {10, -10, 20, -20, 30, -30});
  const Tensor ids = g_.ints({2, 2, 1, 1}, {2, 0, 1, 2});
  const Tensor one = g_.floats({1, 1, 2, 1}, {1, 2});
  const Tensor each = g_.floats({1, 2, 2, 1}, {1, 2, 3, 4});
  const Tensor from_one = g_->output(g_->mul_mat_id(w, one, ids), "from one");
  const Tensor from_each = g_->output(g_->mul_mat_id(w, each, ids), "from each");
  ASSERT_TRUE(g_.run());
  EXPECT_EQ(from_one.shape(), (Shape{2, 2, 2, 1}));
  EXPECT_THAT(g_.read(from_one), are({30, -30, 10, -10, 40, -40, 60, -60}));
  EXPECT_THAT(g_.read(from_each), are({30, -30, 20, -20, 60, -60, 120, -120}));
}

TEST_F(Reference, AddIdAddsTheRowsOfTheChosen) {
  const Tensor a = g_.floats({2, 2, 1, 1}, {1, 2, 3, 4});
  const Tensor b = g_.floats({2, 3, 1, 1}, {10, 20, 30, 40, 50, 60});
  const Tensor ids = g_.ints({2, 1, 1, 1}, {2, 0});
  EXPECT_THAT(g_.values(g_->add_id(a, b, ids)), are({51, 62, 13, 24}));
}

TEST_F(Reference, TopKNamesTheLargest) {
  const Tensor a = g_.floats({4, 2, 1, 1}, {1, 9, 5, 7, -4, -1, -1, std::nanf("")});
  EXPECT_THAT(g_.values<std::int32_t>(g_->top_k(a, 2)), ElementsAre(1, 3, 1, 2));
}

// --- rows ---

TEST_F(Reference, GetRows) {
  const Tensor a = g_.floats({2, 3, 1, 1}, {1, 2, 3, 4, 5, 6});
  const Tensor y = g_->get_rows(a, g_.ints({2, 1, 1, 1}, {2, 0}));
  EXPECT_EQ(y.shape(), (Shape{2, 2, 1, 1}));
  EXPECT_THAT(g_.values(y), are({5, 6, 1, 2}));
}

TEST_F(Reference, GetRowsOfEachMatrix) {
  // The weights of chosen experts: [1, experts 3, tokens 2] by [used 2, tokens 2].
  const Tensor a = g_.floats({1, 3, 2, 1}, {1, 2, 3, 4, 5, 6});
  const Tensor y = g_->get_rows(a, g_.ints({2, 2, 1, 1}, {2, 0, 1, 1}));
  EXPECT_EQ(y.shape(), (Shape{1, 2, 2, 1}));
  EXPECT_THAT(g_.values(y), are({3, 1, 5, 5}));
}

TEST_F(Reference, SetRowsWritesWhatLaterGraphsRead) {
  const auto cache = storage(DType::kF32, {2, 4, 1, 1});
  EXPECT_THAT(contents(*cache), Each(0.0F));
  g_->keep(g_->set_rows(cache->tensors()[0], g_.floats({2, 2, 1, 1}, {1, 2, 3, 4}),
                        g_.longs({2, 1, 1, 1}, {3, 1})));
  ASSERT_TRUE(g_.run());
  EXPECT_THAT(contents(*cache), are({0, 0, 3, 4, 0, 0, 1, 2}));

  Graph later(*backend_);
  EXPECT_THAT(later.values(later->slice(cache->tensors()[0], 1, 1, 2)), are({3, 4, 0, 0}));
}

TEST_F(Reference, WritesHappenInTheOrderOfRecording) {
  const auto cache = storage(DType::kF32, {1, 2, 1, 1});
  const Tensor view = g_->slice(cache->tensors()[0], 1, 0, 1);
  const Tensor before = g_->output(g_->scale(view, 10), "before");
  const Tensor id = g_.longs({1, 1, 1, 1}, {0});
  g_->keep(g_->set_rows(cache->tensors()[0], g_.floats({1, 1, 1, 1}, {1}), id));
  const Tensor between = g_->output(g_->scale(view, 10), "between");
  g_->keep(g_->set_rows(cache->tensors()[0], g_.floats({1, 1, 1, 1}, {2}), id));
  const Tensor after = g_->output(g_->scale(view, 10), "after");
  ASSERT_TRUE(g_.run());
  EXPECT_THAT(g_.read(before), are({0}));
  EXPECT_THAT(g_.read(between), are({10}));
  EXPECT_THAT(g_.read(after), are({20}));
  // The same graph again finds what it wrote.
  ASSERT_TRUE(g_->compute());
  EXPECT_THAT(g_.read(before), are({20}));
}

TEST_F(Reference, SetRowsWritesThroughAView) {
  const auto cache = storage(DType::kF32, {4, 2, 1, 1});
  const Tensor single = g_->reshape(cache->tensors()[0], {1, 8, 1, 1});
  g_->keep(g_->set_rows(single, g_.floats({1, 2, 1, 1}, {7, 8}), g_.longs({2, 1, 1, 1}, {1, 5})));
  ASSERT_TRUE(g_.run());
  EXPECT_THAT(contents(*cache), are({0, 7, 0, 0, 0, 8, 0, 0}));
}

TEST_F(Reference, StorageLosesWhatItsTypeLoses) {
  // One row of 32, the largest of which makes 1 the step of q8_0, or of q4_0.
  std::vector<float> row(32, 3.3F);
  row[0] = 1.01F;
  const auto stored = [&](DType dtype) {
    const auto cache = storage(dtype, {32, 1, 1, 1});
    EXPECT_EQ(cache->tensors()[0].dtype(), dtype);
    Graph graph(*backend_);
    graph->keep(graph->set_rows(cache->tensors()[0], graph.floats({32, 1, 1, 1}, row),
                                graph.longs({1, 1, 1, 1}, {0})));
    EXPECT_TRUE(graph.run());
    std::vector<float> values = contents(*cache);
    values.resize(3);
    return values;
  };
  row[1] = 2000.5F;
  EXPECT_THAT(stored(DType::kF32), ElementsAre(1.01F, 2000.5F, 3.3F));
  EXPECT_THAT(stored(DType::kF16), ElementsAre(1.009765625F, 2000.0F, 3.30078125F));
  EXPECT_THAT(stored(DType::kBF16), ElementsAre(1.0078125F, 2000.0F, 3.296875F));
  row[1] = 127.0F;
  EXPECT_THAT(stored(DType::kQ8_0), ElementsAre(1.0F, 127.0F, 3.0F));
  row[1] = -8.0F;
  EXPECT_THAT(stored(DType::kQ4_0), ElementsAre(1.0F, -8.0F, 3.0F));
}

TEST_F(Reference, CopyWritesAPartOfStorageInItsOwnOrder) {
  const auto cache = storage(DType::kF16, {3, 2, 1, 1});
  // The first two columns, as the rows of a matrix: [2 rows, 2 columns] transposed.
  const Tensor part = g_->permute(g_->slice(cache->tensors()[0], 0, 0, 2), {1, 0, 2, 3});
  g_->keep(g_->copy(g_.floats({4, 1, 1, 1}, {1, 2, 3, 2049}), part));
  ASSERT_TRUE(g_.run());
  EXPECT_THAT(contents(*cache), are({1, 3, 0, 2, 2048, 0}));
}

TEST_F(Reference, CopyWithinStorageReadsBeforeItWrites) {
  const auto cache = storage(DType::kF32, {1, 3, 1, 1});
  const Tensor all = cache->tensors()[0];
  g_->keep(g_->copy(g_.floats({3, 1, 1, 1}, {1, 2, 3}), all));
  g_->keep(g_->copy(g_->slice(all, 1, 0, 2), g_->slice(all, 1, 1, 2)));
  ASSERT_TRUE(g_.run());
  EXPECT_THAT(contents(*cache), are({1, 1, 2}));
}

// --- shapes ---

TEST_F(Reference, PermuteSendsDimensionIToOrderI) {
  const Tensor a = g_.floats({2, 3, 1, 1}, {1, 2, 3, 4, 5, 6});
  const Tensor y = g_->permute(a, {2, 0, 1, 3});
  EXPECT_EQ(y.shape(), (Shape{3, 1, 2, 1}));
  EXPECT_THAT(g_.values(y), are({1, 3, 5, 2, 4, 6}));
}

TEST_F(Reference, SliceTakesAPartOfADimension) {
  const Tensor a = g_.floats({3, 2, 1, 1}, {1, 2, 3, 4, 5, 6});
  const Tensor columns = g_->output(g_->contiguous(g_->slice(a, 0, 1, 2)), "columns");
  const Tensor rows = g_->output(g_->contiguous(g_->slice(a, 1, 1, 1)), "rows");
  const Tensor both = g_->output(g_->contiguous(g_->slice(g_->slice(a, 1, 1, 1), 0, 2, 1)), "both");
  ASSERT_TRUE(g_.run());
  EXPECT_THAT(g_.read(columns), are({2, 3, 5, 6}));
  EXPECT_THAT(g_.read(rows), are({4, 5, 6}));
  EXPECT_THAT(g_.read(both), are({6}));
}

TEST_F(Reference, ReshapeKeepsTheOrder) {
  const Tensor y = g_->reshape(g_.floats({2, 3, 1, 1}, {1, 2, 3, 4, 5, 6}), {3, 2, 1, 1});
  EXPECT_EQ(y.shape(), (Shape{3, 2, 1, 1}));
  EXPECT_THAT(g_.values(g_->slice(y, 1, 1, 1)), are({4, 5, 6}));
}

TEST_F(Reference, ConcatAlongEachDimension) {
  const Tensor a = g_.floats({1, 2, 1, 1}, {1, 2});
  const Tensor b = g_.floats({2, 2, 1, 1}, {3, 4, 5, 6});
  const Tensor c = g_.floats({1, 1, 1, 1}, {7});
  const Tensor wide = g_->output(g_->concat(a, b, 0), "wide");
  const Tensor tall = g_->output(g_->concat(a, c, 1), "tall");
  ASSERT_TRUE(g_.run());
  EXPECT_EQ(wide.shape(), (Shape{3, 2, 1, 1}));
  EXPECT_THAT(g_.read(wide), are({1, 3, 4, 2, 5, 6}));
  EXPECT_THAT(g_.read(tall), are({1, 2, 7}));
}

TEST_F(Reference, RepeatFillsTheShape) {
  const Tensor a = g_.floats({2, 1, 1, 1}, {1, 2});
  EXPECT_THAT(g_.values(g_->repeat(a, {4, 2, 1, 1})), are({1, 2, 1, 2, 1, 2, 1, 2}));
}

TEST_F(Reference, CastConverts) {
  const Tensor a = g_.floats({3, 1, 1, 1}, {2.7F, -2.7F, 2049});
  const Tensor half = g_->output(g_->cast(a, DType::kF16), "half");
  const Tensor whole = g_->output(g_->cast(a, DType::kI32), "whole");
  const Tensor real = g_->output(g_->cast(g_.ints({1, 1, 1, 1}, {5}), DType::kF32), "real");
  ASSERT_TRUE(g_.run());
  EXPECT_THAT(g_.read<std::uint16_t>(half), ElementsAre(0x4166, 0xC166, 0x6800));
  EXPECT_THAT(g_.read<std::int32_t>(whole), ElementsAre(2, -2, 2049));
  EXPECT_THAT(g_.read(real), are({5}));
}

TEST_F(Reference, EmptyTensorsAreTensors) {
  const Tensor a = g_.floats({2, 3, 1, 1}, {1, 2, 3, 4, 5, 6});
  const Tensor none = g_->get_rows(a, g_.ints({0, 1, 1, 1}, {}));
  const Tensor y = g_->output(g_->rms_norm(g_->mul_mat(a, none), 1e-5F), "y");
  ASSERT_TRUE(g_.run());
  EXPECT_EQ(y.shape(), (Shape{3, 0, 1, 1}));
  EXPECT_THAT(g_.read(y), ElementsAre());
}

// --- life cycle ---

TEST_F(Reference, AGraphRunsAgainWithNewInputs) {
  const Tensor x = g_.floats({2, 1, 1, 1}, {1, 2});
  const Tensor y = g_->output(g_->scale(x, 3), "y");
  ASSERT_TRUE(g_.run());
  EXPECT_THAT(g_.read(y), are({3, 6}));
  const auto bytes = bytes_of<float>({5, 6});
  ASSERT_TRUE(g_->upload(std::vector<Upload>{{x, bytes}}));
  ASSERT_TRUE(g_->compute());
  EXPECT_THAT(g_.read(y), are({15, 18}));
  const BackendCounters counters = backend_->counters();
  EXPECT_EQ(counters.prepares, 1U);
  EXPECT_EQ(counters.uploads, 2U);
  EXPECT_EQ(counters.computes, 2U);
  EXPECT_EQ(counters.downloads, 2U);
}

TEST_F(Reference, ResetForgetsTheGraphAndItsErrors) {
  g_->add(g_.floats({2, 1, 1, 1}, {}), g_.floats({3, 1, 1, 1}, {}));
  EXPECT_FALSE(g_->prepare());
  g_->reset();
  EXPECT_TRUE(g_->prepare());
  EXPECT_FALSE(Graph(*backend_)->compute()) << "compute before prepare";
}

TEST_F(Reference, ContextsDoNotDisturbEachOther) {
  Graph other(*backend_);
  const Tensor x = g_.floats({1, 1, 1, 1}, {1});
  const Tensor y = g_->output(g_->scale(x, 2), "y");
  const Tensor z = other->output(other->scale(other.floats({1, 1, 1, 1}, {5}), 2), "z");
  ASSERT_TRUE(g_.run());
  ASSERT_TRUE(other.run());
  other->reset();
  EXPECT_THAT(g_.read(y), are({2}));
  // An operand of another graph is a mistake of the caller.
  other->scale(x, 1);
  EXPECT_EQ(other->prepare().error().code(), ErrorCode::kInternal);
  static_cast<void>(z);
}

// --- misuse ---

// What prepare() says of a graph that was recorded wrongly.
std::string complaint(Graph& graph) {
  const Result<> prepared = graph->prepare();
  if (prepared) return "nothing";
  EXPECT_EQ(prepared.error().code(), ErrorCode::kInternal);
  return std::string(prepared.error().message());
}

TEST_F(Reference, PrepareNamesTheFirstWrongOperation) {
  const Tensor a = g_.floats({2, 2, 1, 1}, {});
  const Tensor wrong = g_->mul_mat(a, g_.floats({3, 1, 1, 1}, {}));
  ASSERT_TRUE(wrong);
  g_->reshape(g_->add(wrong, a), {1, 1, 1, 1});
  EXPECT_THAT(complaint(g_), AllOf(HasSubstr("mul_mat: rows of different lengths"),
                                   HasSubstr("[2, 2, 1, 1]"), HasSubstr("[3, 1, 1, 1]")));
}

TEST_F(Reference, EveryOperationChecksItsShapes) {
  using Record = std::function<void(Context&, Tensor a, Tensor ids)>;
  const std::vector<std::pair<std::string, Record>> wrong{
      {"add", [](Context& c, Tensor a, Tensor) { c.add(a, c.slice(a, 0, 0, 3)); }},
      {"add", [](Context& c, Tensor a, Tensor) { c.add(a, {}); }},
      {"scale", [](Context& c, Tensor, Tensor ids) { c.scale(ids, 1); }},
      {"gated",
       [](Context& c, Tensor a, Tensor) { c.gated(a, c.slice(a, 1, 0, 1), Activation::kSilu); }},
      {"gated", [](Context& c, Tensor a, Tensor) { c.gated(a, a, Activation::kTanh); }},
      {"swiglu_oai",
       [](Context& c, Tensor a, Tensor) { c.swiglu_oai(a, c.slice(a, 1, 0, 1), 1, 1); }},
      {"softmax", [](Context& c, Tensor a, Tensor) { c.softmax(a, c.slice(a, 0, 0, 1), {}, 1); }},
      {"softmax", [](Context& c, Tensor a, Tensor) { c.softmax(a, {}, a, 1); }},
      {"rope", [](Context& c, Tensor a, Tensor ids) { c.rope(a, ids, {}, {.dimensions = 4}); }},
      {"mul_mat", [](Context& c, Tensor a, Tensor) { c.mul_mat(c.permute(a, {1, 0, 2, 3}), a); }},
      {"mul_mat_id", [](Context& c, Tensor a, Tensor) { c.mul_mat_id(a, a, a); }},
      {"add_id", [](Context& c, Tensor a, Tensor ids) { c.add_id(a, a, ids); }},
      {"top_k", [](Context& c, Tensor a, Tensor) { c.top_k(a, 5); }},
      {"get_rows", [](Context& c, Tensor a, Tensor) { c.get_rows(a, a); }},
      {"set_rows", [](Context& c, Tensor a, Tensor ids) { c.keep(c.set_rows(a, a, ids)); }},
      {"reshape", [](Context& c, Tensor a, Tensor) { c.reshape(a, {3, 2, 1, 1}); }},
      {"reshape", [](Context& c, Tensor a, Tensor) { c.reshape(a, {-4, -4, 1, 1}); }},
      {"reshape",
       [](Context& c, Tensor a, Tensor) { c.reshape(c.permute(a, {1, 0, 2, 3}), {16, 1, 1, 1}); }},
      {"permute", [](Context& c, Tensor a, Tensor) { c.permute(a, {0, 0, 2, 3}); }},
      {"slice", [](Context& c, Tensor a, Tensor) { c.slice(a, 0, 2, 3); }},
      {"slice", [](Context& c, Tensor a, Tensor) { c.slice(a, 4, 0, 1); }},
      {"concat", [](Context& c, Tensor a, Tensor) { c.concat(a, c.slice(a, 1, 0, 1), 0); }},
      {"repeat", [](Context& c, Tensor a, Tensor) { c.repeat(a, {6, 4, 1, 1}); }},
      {"cast", [](Context& c, Tensor a, Tensor) { c.cast(a, DType::kQ8_0); }},
      {"copy", [](Context& c, Tensor a, Tensor) { c.keep(c.copy(c.slice(a, 0, 0, 1), a)); }},
      {"input", [](Context& c, Tensor, Tensor) { c.input(DType::kF32, {1, -1, 1, 1}, "x"); }},
      {"input", [](Context& c, Tensor, Tensor) {
         constexpr auto kMany = std::int64_t{1} << 40;
         c.input(DType::kF32, {kMany, kMany, kMany, 1}, "x");
       }}};
  for (const auto& [name, record] : wrong) {
    g_->reset();
    record(g_.context(), g_->input(DType::kF32, {4, 4, 1, 1}, "a"),
           g_->input(DType::kI32, {3, 1, 1, 1}, "ids"));
    EXPECT_THAT(complaint(g_), ::testing::StartsWith(name));
  }
}

TEST_F(Reference, AWriteThatNothingReadsOrKeepsIsAMistake) {
  const auto cache = storage(DType::kF32, {1, 2, 1, 1});
  g_->set_rows(cache->tensors()[0], g_.floats({1, 1, 1, 1}, {1}), g_.longs({1, 1, 1, 1}, {0}));
  EXPECT_THAT(complaint(g_), HasSubstr("neither read nor kept"));
}

TEST_F(Reference, AGraphHasNoMoreNodesThanItsContextAllows) {
  Graph small(*backend_, 2);
  const Tensor x = small.floats({1, 1, 1, 1}, {1});
  small->scale(small->scale(x, 1), 1);
  EXPECT_THAT(complaint(small), HasSubstr("more nodes"));
}

TEST_F(Reference, RowsThatDoNotExistFailTheRun) {
  const auto cache = storage(DType::kF32, {1, 2, 1, 1});
  const Tensor all = cache->tensors()[0];
  for (const int row : {-1, 2}) {
    Graph read(*backend_);
    read->get_rows(all, read.ints({1, 1, 1, 1}, {row}));
    EXPECT_EQ(read.run().error().code(), ErrorCode::kInternal);
    Graph write(*backend_);
    write->keep(
        write->set_rows(all, write.floats({1, 1, 1, 1}, {1}), write.longs({1, 1, 1, 1}, {row})));
    EXPECT_EQ(write.run().error().code(), ErrorCode::kInternal);
    Graph expert(*backend_);
    expert->mul_mat_id(expert.floats({1, 1, 2, 1}, {1, 1}), expert.floats({1, 1, 1, 1}, {1}),
                       expert.ints({1, 1, 1, 1}, {row}));
    EXPECT_EQ(expert.run().error().code(), ErrorCode::kInternal);
    Graph bias(*backend_);
    bias->add_id(bias.floats({1, 1, 1, 1}, {1}), all, bias.ints({1, 1, 1, 1}, {row}));
    EXPECT_EQ(bias.run().error().code(), ErrorCode::kInternal);
  }
}

TEST_F(Reference, InputsAreUploadedWholeAndOutputsAreMarked) {
  const Tensor x = g_->input(DType::kF32, {2, 1, 1, 1}, "x");
  const Tensor inner = g_->scale(x, 2);
  const Tensor y = g_->output(g_->scale(inner, 2), "y");
  ASSERT_TRUE(g_->prepare());
  EXPECT_THAT(std::string(g_->compute().error().message()), HasSubstr("'x' was never uploaded"));
  std::vector<std::byte> bytes(8);
  EXPECT_FALSE(g_->upload(std::vector<Upload>{{x, std::span(bytes).first(4)}}));
  EXPECT_FALSE(g_->upload(std::vector<Upload>{{y, bytes}})) << "a result is no input";
  ASSERT_TRUE(g_->upload(std::vector<Upload>{{x, bytes}}));
  EXPECT_FALSE(g_->download(y, bytes)) << "nothing was computed yet";
  ASSERT_TRUE(g_->compute());
  EXPECT_FALSE(g_->download(inner, bytes)) << "its memory may be reused by then";
  EXPECT_FALSE(g_->download(y, std::span(bytes).first(4)));
  EXPECT_TRUE(g_->download(y, bytes));
}

TEST_F(Reference, MemoryThatIsNotThereIsAnError) {
  g_->input(DType::kF32, {std::int64_t{1} << 46, 1, 1, 1}, "x");
  EXPECT_EQ(g_->prepare().error().code(), ErrorCode::kOutOfMemory);
}

// --- backend ---

TEST_F(Reference, HasNoFlashAttention) {
  const auto on = new_backend({.flash_attention = FlashAttention::kOn});
  ASSERT_FALSE(on);
  EXPECT_EQ(on.error().code(), ErrorCode::kUnsupported);
  EXPECT_FALSE(backend_->flash_attention());
  EXPECT_EQ(g_->fused_attention(), nullptr);
  EXPECT_EQ(backend_->cache_config().mask_dtype, DType::kF32);
}

TEST_F(Reference, StorageRefusesWhatCannotBeStored) {
  const Storage::Request ragged{DType::kQ8_0, {33, 1, 1, 1}, "k", 0};
  EXPECT_EQ(backend_->allocate({&ragged, 1}, {}, Purpose::kUse).error().code(),
            ErrorCode::kInternal);
  const Storage::Request huge{DType::kF32, {std::int64_t{1} << 46, 1, 1, 1}, "k", 0};
  EXPECT_EQ(backend_->allocate({&huge, 1}, {}, Purpose::kUse).error().code(),
            ErrorCode::kOutOfMemory);
}

// A model file, written as the format says.
class ModelFile {
 public:
  struct Entry {
    std::string name;
    std::vector<std::uint64_t> shape;
    std::uint32_t type;
    std::vector<std::byte> data;
  };

  explicit ModelFile(const std::vector<Entry>& entries) {
    put_text("GGUF");
    put<std::uint32_t>(3);
    put<std::uint64_t>(entries.size());
    put<std::uint64_t>(1);
    put_string("general.architecture");
    put<std::uint32_t>(8);
    put_string("gptoss");
    std::vector<std::byte> data;
    for (const Entry& entry : entries) {
      put_string(entry.name);
      put(static_cast<std::uint32_t>(entry.shape.size()));
      for (const std::uint64_t size : entry.shape) put(size);
      put(entry.type);
      put<std::uint64_t>(data.size());
      data.insert(data.end(), entry.data.begin(), entry.data.end());
      data.resize((data.size() + 31) / 32 * 32);
    }
    bytes_.resize((bytes_.size() + 31) / 32 * 32);
    bytes_.insert(bytes_.end(), data.begin(), data.end());
    path_ =
        std::filesystem::path(::testing::TempDir()) / std::format("reference-{}.gguf", getpid());
    std::ofstream(path_, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes_.data()),
               static_cast<std::streamsize>(bytes_.size()));
  }
  ~ModelFile() { std::filesystem::remove(path_); }
  ModelFile(const ModelFile&) = delete;
  ModelFile& operator=(const ModelFile&) = delete;

  gguf::File open() const {
    Result<gguf::File> file = gguf::File::open(path_);
    EXPECT_TRUE(file) << file.error().message();
    return std::move(file.value());
  }

 private:
  void put_text(std::string_view text) {
    for (const char c : text) bytes_.push_back(static_cast<std::byte>(c));
  }
  template <typename T>
  void put(T value) {
    const auto* begin = reinterpret_cast<const std::byte*>(&value);
    bytes_.insert(bytes_.end(), begin, begin + sizeof(T));
  }
  void put_string(std::string_view text) {
    put<std::uint64_t>(text.size());
    put_text(text);
  }

  std::vector<std::byte> bytes_;
  std::filesystem::path path_;
};

std::vector<std::byte> raw(std::initializer_list<int> values) {
  std::vector<std::byte> bytes;
  for (const int value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}

TEST_F(Reference, LoadsWeightsAsNumbers) {
  // q8_0: a scale of 0.5 (f16), then 32 steps. mxfp4: an exponent (2^0), then 32 nibbles, of which
  // these name 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives, twice.
  auto q8 = raw({0x00, 0x38});
  auto mxfp4 = raw({127});
  auto ollama_mxfp4 = raw({127});
  for (int i = 0; i < 32; ++i) q8.push_back(static_cast<std::byte>(i - 16));
  for (int i = 0; i < 16; ++i) {
    mxfp4.push_back(static_cast<std::byte>(i | i << 4));
    ollama_mxfp4.push_back(static_cast<std::byte>((2 * i) % 16 | (2 * i + 1) % 16 << 4));
  }
  const ModelFile model({{"f32", {2, 2}, 0, bytes_of<float>({1, 2, 3, 4})},
                         {"f16", {2}, 1, raw({0x00, 0x3C, 0x00, 0xC0})},
                         {"i32", {2}, 26, bytes_of<std::int32_t>({7, -7})},
                         {"q8_0", {32}, 8, q8},
                         {"mxfp4", {32}, 39, mxfp4},
                         {"ollama_mxfp4", {32}, 4, ollama_mxfp4}});
  const gguf::File file = model.open();
  std::vector<float> steps;
  const auto weights = backend_->load_weights(file, {}, Purpose::kUse, [&](float done) {
    steps.push_back(done);
    return true;
  });
  ASSERT_TRUE(weights) << weights.error().message();
  EXPECT_TRUE(std::ranges::is_sorted(steps));
  EXPECT_EQ(steps.back(), 1.0F);
  EXPECT_GE((*weights)->bytes(), (4U + 2 + 32 * 3) * sizeof(float));
  EXPECT_FALSE((*weights)->find("f64"));
  EXPECT_EQ((*weights)->find("q8_0").dtype(), DType::kF32);
  EXPECT_EQ((*weights)->find("i32").dtype(), DType::kI32);

  const auto values = [&](std::string_view name) {
    Graph graph(*backend_);
    return graph.values((*weights)->find(name));
  };
  EXPECT_EQ((*weights)->find("f32").shape(), (Shape{2, 2, 1, 1}));
  EXPECT_THAT(values("f32"), are({1, 2, 3, 4}));
  EXPECT_THAT(values("f16"), are({1, -2}));
  EXPECT_EQ(values("q8_0")[0], -8.0F);
  EXPECT_EQ(values("q8_0")[31], 7.5F);
  std::vector<float> nibbles{0, 0.5F, 1, 1.5F, 2, 3, 4, 6, 0, -0.5F, -1, -1.5F, -2, -3, -4, -6};
  nibbles.insert(nibbles.end(), nibbles.begin(), nibbles.begin() + 16);
  EXPECT_THAT(values("mxfp4"), are(nibbles));
  EXPECT_THAT(values("ollama_mxfp4"), are(nibbles));
  EXPECT_THAT(g_.values<std::int32_t>((*weights)->find("i32")), ElementsAre(7, -7));

  // Weights are read only.
  Graph write(*backend_);
  write->keep(write->copy(write.floats({2, 2, 1, 1}, {}), (*weights)->find("f32")));
  EXPECT_THAT(complaint(write), HasSubstr("weights are not written"));
}

TEST_F(Reference, LoadingStopsWhenToldTo) {
  const ModelFile model({{"f32", {1}, 0, bytes_of<float>({1})}});
  const gguf::File file = model.open();
  const auto weights = backend_->load_weights(file, {}, Purpose::kUse, [](float) { return false; });
  ASSERT_FALSE(weights);
  EXPECT_EQ(weights.error().code(), ErrorCode::kCancelled);
  EXPECT_TRUE(backend_->load_weights(file, {}, Purpose::kUse, {})) << "progress is optional";
}

}  // namespace
}  // namespace ollama::ml::reference
