// Makes one embedding of the states of a text's tokens, which may come over several steps.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/model.h"

namespace ollama::engine {

class Pooler {
 public:
  // `width`: of a state.
  Pooler(model::Pooling pooling, std::size_t width) : pooling_(pooling), sum_(width) {}

  // Which of `count` tokens' states are needed; the text's tokens in order, over its steps.
  bool wants(std::size_t token, std::size_t count) const;
  // The state of a wanted token, [width].
  void add(std::span<const float> state);
  std::vector<float> result() const;

 private:
  model::Pooling pooling_;
  std::vector<double> sum_;
  std::size_t added_ = 0;
};

// `values` divided by their Euclidean length.
void normalize(std::span<float> values);

}  // namespace ollama::engine
