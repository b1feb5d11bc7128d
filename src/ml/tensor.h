// Handles to tensors of a graph. A Tensor is a small value that knows its type and shape; what it
// points to belongs to the Context, Weights or Storage it came from.
#pragma once

#include <array>
#include <cstdint>

#include "ml/dtype.h"

namespace ollama::ml {

// Fastest dimension first, as in GGML; unused dimensions are 1.
using Shape = std::array<std::int64_t, 4>;

class Tensor {
 public:
  Tensor() = default;
  Tensor(void* node, DType dtype, const Shape& shape) : node_(node), dtype_(dtype), shape_(shape) {}

  explicit operator bool() const { return node_ != nullptr; }
  void* node() const { return node_; }  // the backend's own object
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  std::int64_t dim(std::size_t i) const { return shape_[i]; }
  std::int64_t elements() const { return shape_[0] * shape_[1] * shape_[2] * shape_[3]; }

 private:
  void* node_ = nullptr;
  DType dtype_ = DType::kF32;
  Shape shape_{1, 1, 1, 1};
};

}  // namespace ollama::ml
