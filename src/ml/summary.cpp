#include "ml/summary.h"

#include <algorithm>
#include <cmath>

namespace ollama::ml {

TensorSummary summarize(const Observed& tensor, std::size_t edge) {
  TensorSummary summary{
      .name = std::string(tensor.name), .dtype = tensor.dtype, .shape = tensor.shape};
  double sum = 0;
  std::size_t finite = 0;
  for (const float value : tensor.values) {
    if (!std::isfinite(value)) continue;
    summary.min = finite == 0 ? value : std::min(summary.min, value);
    summary.max = finite == 0 ? value : std::max(summary.max, value);
    sum += static_cast<double>(value);
    ++finite;
  }
  summary.not_finite = tensor.values.size() - finite;
  if (finite > 0) summary.mean = sum / static_cast<double>(finite);
  // Short tensors are not shown twice.
  const std::size_t head = std::min(edge, tensor.values.size());
  const std::size_t tail = std::min(edge, tensor.values.size() - head);
  const auto first = tensor.values.first(head);
  const auto last = tensor.values.last(tail);
  summary.first.assign(first.begin(), first.end());
  summary.last.assign(last.begin(), last.end());
  return summary;
}

}  // namespace ollama::ml
