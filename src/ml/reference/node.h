// What a Tensor of the reference backend points to: values and a way to walk them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "ml/tensor.h"

namespace ollama::ml::reference {

enum class Owner : std::uint8_t { kInput, kResult, kWeights, kStorage };

// The values of a tensor and of every view of it. Integer types fill `integers`, all others
// `floats`.
struct Buffer {
  Owner owner = Owner::kResult;
  std::string name;
  bool written = false;  // false: reading it would read nothing
  std::vector<float> floats;
  std::vector<std::int64_t> integers;
};

struct Node {
  std::shared_ptr<Buffer> buffer;
  DType dtype = DType::kF32;
  Shape shape{1, 1, 1, 1};
  Shape strides{1, 1, 1, 1};  // in elements
  std::int64_t offset = 0;    // of element 0, in elements
  void* context = nullptr;    // the one whose graph it is part of; nullptr: weights and storage
  bool readable = false;      // by download()
  bool is_view = false;       // its buffer is that of another node, too
  bool used = false;          // something reads it, or it is kept

  std::int64_t elements() const { return shape[0] * shape[1] * shape[2] * shape[3]; }
  bool is_integer() const { return dtype == DType::kI32 || dtype == DType::kI64; }
  // As GGML has it: dimensions of size 1 may have any stride.
  bool is_contiguous() const;
  std::size_t index(std::int64_t i0, std::int64_t i1, std::int64_t i2, std::int64_t i3) const {
    return static_cast<std::size_t>(offset + i0 * strides[0] + i1 * strides[1] + i2 * strides[2] +
                                    i3 * strides[3]);
  }
  float& at(std::int64_t i0, std::int64_t i1, std::int64_t i2 = 0, std::int64_t i3 = 0) const {
    return buffer->floats[index(i0, i1, i2, i3)];
  }
  std::int64_t& integer_at(std::int64_t i0, std::int64_t i1, std::int64_t i2 = 0,
                           std::int64_t i3 = 0) const {
    return buffer->integers[index(i0, i1, i2, i3)];
  }
};

// Calls f(i1, i2, i3) for every row of a shape.
template <typename F>
void for_rows(const Shape& shape, F&& f) {
  for (std::int64_t i3 = 0; i3 < shape[3]; ++i3)
    for (std::int64_t i2 = 0; i2 < shape[2]; ++i2)
      for (std::int64_t i1 = 0; i1 < shape[1]; ++i1) f(i1, i2, i3);
}
// Calls f(i0, i1, i2, i3) for every element of a shape, fastest dimension first.
template <typename F>
void for_elements(const Shape& shape, F&& f) {
  for_rows(shape, [&](std::int64_t i1, std::int64_t i2, std::int64_t i3) {
    for (std::int64_t i0 = 0; i0 < shape[0]; ++i0) f(i0, i1, i2, i3);
  });
}

Shape contiguous_strides(const Shape& shape);
// "[4, 2, 1, 1]"
std::string describe(const Shape& shape);
// Errors: kInternal for a negative dimension, a row that is not whole blocks of the type, or more
// elements than could ever be held.
Result<> check_shape(DType dtype, const Shape& shape);
// Gives the buffer its elements, zeroed. Errors: kOutOfMemory.
Result<> allocate(Buffer& buffer, DType dtype, std::int64_t elements);

// --- types, rows of `type` being whole blocks ---
// Whether values can be written as `type` and read back.
bool is_storable(DType type);
// Replaces each value with what `type` keeps of it.
void round_row(DType type, std::span<float> row);
// Contiguous bytes of node.dtype into the node, or out of it; sizes are the caller's duty.
void read_bytes(Node& node, std::span<const std::byte> bytes);
void write_bytes(const Node& node, std::span<std::byte> bytes);

}  // namespace ollama::ml::reference
