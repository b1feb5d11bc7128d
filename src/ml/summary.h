// What a tensor's values look like, for `ollama debug tensors`.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "ml/context.h"

namespace ollama::ml {

struct TensorSummary {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape{1, 1, 1, 1};
  float min = 0;  // of the finite values
  float max = 0;
  double mean = 0;
  std::size_t not_finite = 0;  // NaN and infinities
  std::vector<float> first;    // up to `edge` values at either end, in order
  std::vector<float> last;
};

TensorSummary summarize(const Observed& tensor, std::size_t edge = 3);

}  // namespace ollama::ml
