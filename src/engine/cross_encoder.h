// For tests: the fixture of BERT as a cross-encoder, with a classifier of seeded values.
#pragma once

#include <cmath>
#include <random>
#include <span>
#include <string_view>
#include <vector>

#include "engine/draft.h"
#include "engine/fixture.h"

namespace ollama::engine::fixture {

class CrossEncoder {
 public:
  struct Parts {
    bool dense = true;
    bool output = true;
    bool biases = true;
    std::int64_t labels = 1;
    bool flat = false;  // the output's matrix of one row is written as a vector, as some files do
    std::int64_t segments = 2;
    bool unigram = false;  // with a vocabulary of XLM-RoBERTa's kind
  };

  static constexpr std::int64_t kWidth = 64;

  CrossEncoder() : CrossEncoder(Parts()) {}
  explicit CrossEncoder(const Parts& parts) : parts_(parts) {
    draft_.set("bert.pooling_type", std::int64_t{4});
    if (parts.unigram) draft_.take_tokenizer(kFolder / "../tokenizers/unigram.gguf");
    if (parts.segments < 2) {
      Draft::Tensor& types = tensor("token_types.weight");
      types.shape = {kWidth, 1};
      types.bytes.resize(types.bytes.size() / 2);
    }
    if (parts.segments == 0) {
      std::erase_if(draft_.tensors(), [](const auto& t) { return t.name == "token_types.weight"; });
    }
    const std::int64_t dense_rows = parts.output ? kWidth : parts.labels;
    if (parts.dense) {
      dense_ = add("cls.weight", {kWidth, dense_rows});
      if (parts.biases) dense_bias_ = add("cls.bias", {dense_rows});
    }
    if (parts.output) {
      output_ = parts.flat ? add("cls.output.weight", {kWidth})
                           : add("cls.output.weight", {kWidth, parts.labels});
      if (parts.biases) output_bias_ = add("cls.output.bias", {parts.labels});
    }
  }

  Draft& draft() { return draft_; }
  Draft::Tensor& tensor(std::string_view name) {
    return *std::ranges::find(draft_.tensors(), name, &Draft::Tensor::name);
  }

  // The first label's value for the first token's state.
  double score(std::span<const float> state) const {
    std::vector<double> x(state.begin(), state.end());
    if (parts_.dense) {
      x = product(dense_, dense_bias_, x);
      for (double& value : x) value = std::tanh(value);
    }
    if (parts_.output) x = product(output_, output_bias_, x);
    return x.front();
  }

  // What gives that state for a pair whose second text begins at `second`: the same weights for
  // embeddings, and the segments made a part of the positions.
  Draft encoder(std::size_t second) {
    Draft draft = draft_;
    draft.set("bert.pooling_type", std::int64_t{2});
    std::erase_if(draft.tensors(), [](const auto& t) { return t.name.starts_with("cls."); });
    const auto find = [&](std::string_view name) -> Draft::Tensor& {
      return *std::ranges::find(draft.tensors(), name, &Draft::Tensor::name);
    };
    if (parts_.segments < 2) return draft;
    const std::span<float> positions = find("position_embd.weight").floats();
    const std::span<const float> segments = find("token_types.weight").floats();
    for (std::size_t i = second * kWidth; i < positions.size(); ++i) {
      positions[i] += segments[kWidth + i % kWidth] - segments[i % kWidth];
    }
    return draft;
  }

 private:
  std::vector<float> add(std::string_view name, std::vector<std::int64_t> shape) {
    std::size_t count = 1;
    for (const std::int64_t length : shape) count *= static_cast<std::size_t>(length);
    std::uniform_real_distribution<float> value(-0.2F, 0.2F);
    std::vector<float> values(count);
    for (float& v : values) v = value(random_);
    const auto bytes = std::as_bytes(std::span(values));
    draft_.tensors().push_back(
        {.name = text(name), .shape = std::move(shape), .bytes = {bytes.begin(), bytes.end()}});
    return values;
  }

  static std::vector<double> product(std::span<const float> matrix, std::span<const float> bias,
                                     std::span<const double> x) {
    std::vector<double> y(matrix.size() / x.size());
    for (std::size_t row = 0; row < y.size(); ++row) {
      y[row] = bias.empty() ? 0.0 : double{bias[row]};
      for (std::size_t i = 0; i < x.size(); ++i)
        y[row] += double{matrix[row * x.size() + i]} * x[i];
    }
    return y;
  }

  Parts parts_;
  Draft draft_{model("bert")};
  std::mt19937 random_{7};
  std::vector<float> dense_, dense_bias_, output_, output_bias_;
};

}  // namespace ollama::engine::fixture
