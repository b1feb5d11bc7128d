#include "ml/context.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "ml/backend.h"
#include "ml/summary.h"

namespace ollama::ml {
namespace {

std::span<const std::byte> bytes_of(const std::vector<float>& values) {
  return std::as_bytes(std::span(values));
}

class EveryBackend : public testing::TestWithParam<BackendKind> {
 protected:
  std::unique_ptr<Backend> backend_ = new_backend(GetParam(), {}).value();
  std::unique_ptr<Context> context_ = backend_->new_context(Phase::kDecode, 64, 1).value();

  std::vector<float> download(Tensor tensor) {
    std::vector<float> values(static_cast<std::size_t>(tensor.elements()));
    EXPECT_TRUE(context_->download(tensor, std::as_writable_bytes(std::span(values))));
    return values;
  }
};

INSTANTIATE_TEST_SUITE_P(All, EveryBackend,
                         testing::Values(BackendKind::kGgml, BackendKind::kReference),
                         [](const auto& info) {
                           return info.param == BackendKind::kGgml ? "ggml" : "reference";
                         });

TEST_P(EveryBackend, InputsGoUpTogetherAndInParts) {
  const Tensor a = context_->input(DType::kF32, {4, 1, 1, 1}, "a");
  const Tensor b = context_->input(DType::kF32, {4, 1, 1, 1}, "b");
  const Tensor unread = context_->input(DType::kI64, {3, 1, 1, 1}, "unread");
  const Tensor sum = context_->output(context_->add(a, b), "sum");
  ASSERT_TRUE(context_->prepare());
  const std::vector<float> first{1, 2, 3, 4};
  const std::vector<float> second{10, 20, 30, 40};
  const std::vector<std::int64_t> third{7, 8, 9};
  const std::array uploads{Upload{a, bytes_of(first)}, Upload{b, bytes_of(second)},
                           Upload{unread, std::as_bytes(std::span(third))}};
  const std::uint64_t before = backend_->counters().uploads;
  ASSERT_TRUE(context_->upload(uploads));
  EXPECT_EQ(backend_->counters().uploads, before + 1) << "one submission for all inputs";
  ASSERT_TRUE(context_->compute());
  EXPECT_EQ(download(sum), (std::vector<float>{11, 22, 33, 44}));

  // One element of one input; the rest stays.
  const std::vector<float> element{5};
  const std::array part{Upload{b, bytes_of(element), 2 * sizeof(float)}};
  ASSERT_TRUE(context_->upload(part));
  ASSERT_TRUE(context_->compute());
  EXPECT_EQ(download(sum), (std::vector<float>{11, 22, 8, 44}));
}

TEST_P(EveryBackend, UploadsThatDoNotFitAreRefused) {
  const Tensor a = context_->input(DType::kF32, {2, 1, 1, 1}, "a");
  const Tensor doubled = context_->output(context_->scale(a, 2), "doubled");
  ASSERT_TRUE(context_->prepare());
  const std::vector<float> values{1, 2, 3};
  for (const auto& [count, offset] :
       {std::pair{3U, 0U}, std::pair{1U, 8U}, std::pair{2U, 4U}, std::pair{0U, 9U}}) {
    const std::array upload{Upload{a, bytes_of(values).first(count * sizeof(float)), offset}};
    EXPECT_FALSE(context_->upload(upload)) << count << " floats at " << offset;
  }
  const std::array fits{Upload{a, bytes_of(values).first(8)}};
  ASSERT_TRUE(context_->upload(fits));
  ASSERT_TRUE(context_->compute());
  EXPECT_EQ(download(doubled), (std::vector<float>{2, 4}));
}

TEST_P(EveryBackend, InputsKeepTheirPlaceWhenGraphsGrow) {
  for (const std::int64_t n : {3, 100'000, 5}) {
    context_->reset();
    const Tensor a = context_->input(DType::kF32, {n, 1, 1, 1}, "a");
    const Tensor b = context_->input(DType::kF32, {1, 1, 1, 1}, "b");
    const Tensor sum = context_->output(context_->add(a, b), "sum");
    const std::vector<float> many(static_cast<std::size_t>(n), 1.5F);
    const std::vector<float> one{2};
    const std::array uploads{Upload{a, bytes_of(many)}, Upload{b, bytes_of(one)}};
    ASSERT_TRUE(batch_tensor_op(*context_, uploads));
    EXPECT_EQ(download(sum), std::vector<float>(static_cast<std::size_t>(n), 3.5F));
  }
}

TEST_P(EveryBackend, ManySmallOperationsAreOneSubmission) {
  const Tensor x = context_->input(DType::kF32, {2, 1, 1, 1}, "x");
  std::vector<Tensor> results;
  for (int i = 1; i <= 10; ++i) {
    results.push_back(context_->output(context_->scale(x, static_cast<float>(i)), "scaled"));
  }
  const std::vector<float> values{1, -1};
  const std::array uploads{Upload{x, bytes_of(values)}};
  const BackendCounters before = backend_->counters();
  ASSERT_TRUE(batch_tensor_op(*context_, uploads));
  const BackendCounters after = backend_->counters();
  EXPECT_EQ(after.uploads - before.uploads, 1U);
  EXPECT_EQ(after.computes - before.computes, 1U);
  EXPECT_EQ(download(results[6]), (std::vector<float>{7, -7}));
}

TEST_P(EveryBackend, NamedResultsAreShownAsTheyAre) {
  std::vector<TensorSummary> seen;
  context_->observe([&](const Observed& tensor) { seen.push_back(summarize(tensor, 2)); });
  context_->reset();
  const Tensor x = context_->input(DType::kF32, {3, 2, 1, 1}, "x");
  const Tensor doubled = context_->named(context_->scale(x, 2), "doubled", 4);
  const Tensor turned = context_->named(context_->permute(doubled, {1, 0, 2, 3}), "turned");
  context_->output(context_->add(context_->contiguous(turned), context_->contiguous(turned)),
                   "out");
  const std::vector<float> values{1, 2, 3, 4, 5, std::numeric_limits<float>::infinity()};
  const std::array uploads{Upload{x, bytes_of(values)}};
  ASSERT_TRUE(batch_tensor_op(*context_, uploads));
  const auto find = [&](std::string_view name) {
    const auto found = std::ranges::find(seen, name, &TensorSummary::name);
    return found == seen.end() ? TensorSummary{} : *found;
  };
  const TensorSummary plain = find("doubled-4");
  EXPECT_EQ(plain.shape, (Shape{3, 2, 1, 1}));
  EXPECT_EQ(plain.min, 2);
  EXPECT_EQ(plain.max, 10);
  EXPECT_EQ(plain.mean, 6);
  EXPECT_EQ(plain.not_finite, 1U);
  EXPECT_EQ(plain.first, (std::vector<float>{2, 4}));
  EXPECT_EQ(plain.last, (std::vector<float>{10, std::numeric_limits<float>::infinity()}));
  // Through its strides.
  EXPECT_EQ(find("turned").first, (std::vector<float>{2, 8}));
  EXPECT_EQ(find("out").first, (std::vector<float>{4, 16}));
}

TEST(Summary, ShortAndEmptyTensorsAreNotShownTwice) {
  const std::vector<float> values{1, 2, 3, 4};
  const TensorSummary four = summarize({.values = values}, 3);
  EXPECT_EQ(four.first, (std::vector<float>{1, 2, 3}));
  EXPECT_EQ(four.last, (std::vector<float>{4}));
  const TensorSummary none = summarize({.values = {}}, 3);
  EXPECT_TRUE(none.first.empty() && none.last.empty());
  EXPECT_EQ(none.mean, 0);
}

}  // namespace
}  // namespace ollama::ml
