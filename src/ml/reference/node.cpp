#include "ml/reference/node.h"

#include <ggml.h>

#include <cstring>
#include <format>
#include <new>

namespace ollama::ml::reference {
namespace {

// Far below what overflows in index arithmetic.
constexpr std::int64_t kMaxElements = std::int64_t{1} << 48;
// Half a terabyte of f32: more than any test has, and not worth asking an allocator for.
constexpr std::int64_t kMaxAllocation = std::int64_t{1} << 37;

const ggml_type_traits& traits_of(DType type) {
  return *ggml_get_type_traits(static_cast<ggml_type>(type));
}

void decode_row(DType type, std::span<const std::byte> bytes, std::span<float> row) {
  if (type == DType::kF32) {
    std::memcpy(row.data(), bytes.data(), row.size_bytes());
  } else {
    traits_of(type).to_float(bytes.data(), row.data(), static_cast<std::int64_t>(row.size()));
  }
}

void encode_row(DType type, std::span<const float> row, std::span<std::byte> bytes) {
  if (type == DType::kF32) {
    std::memcpy(bytes.data(), row.data(), row.size_bytes());
  } else {
    traits_of(type).from_float_ref(row.data(), bytes.data(), static_cast<std::int64_t>(row.size()));
  }
}

template <typename T>
void read_integers(Node& node, std::span<const std::byte> bytes) {
  std::size_t i = 0;
  for_elements(node.shape, [&](auto i0, auto i1, auto i2, auto i3) {
    T value;
    std::memcpy(&value, &bytes[i++ * sizeof(T)], sizeof(T));
    node.integer_at(i0, i1, i2, i3) = value;
  });
}

template <typename T>
void write_integers(const Node& node, std::span<std::byte> bytes) {
  std::size_t i = 0;
  for_elements(node.shape, [&](auto i0, auto i1, auto i2, auto i3) {
    const T value = static_cast<T>(node.integer_at(i0, i1, i2, i3));
    std::memcpy(&bytes[i++ * sizeof(T)], &value, sizeof(T));
  });
}

}  // namespace

bool Node::is_contiguous() const {
  if (elements() == 0) return true;
  std::int64_t expected = 1;
  for (std::size_t i = 0; i < 4; ++i) {
    if (shape[i] == 1) continue;
    if (strides[i] != expected) return false;
    expected *= shape[i];
  }
  return true;
}

Shape contiguous_strides(const Shape& shape) {
  return {1, shape[0], shape[0] * shape[1], shape[0] * shape[1] * shape[2]};
}

std::string describe(const Shape& shape) {
  return std::format("[{}, {}, {}, {}]", shape[0], shape[1], shape[2], shape[3]);
}

Result<> check_shape(DType dtype, const Shape& shape) {
  std::int64_t elements = 1;
  for (const std::int64_t size : shape) {
    if (size < 0) return fail(ErrorCode::kInternal, "{} has a negative dimension", describe(shape));
    if (size > 0 && elements > kMaxElements / size)
      return fail(ErrorCode::kInternal, "{} is too large", describe(shape));
    elements *= size;
  }
  if (shape[0] % block_size(dtype) != 0)
    return fail(ErrorCode::kInternal, "rows of {} are not whole blocks of {}", describe(shape),
                dtype_name(dtype));
  return {};
}

Result<> allocate(Buffer& buffer, DType dtype, std::int64_t elements) {
  const auto refuse = [&] {
    return fail(ErrorCode::kOutOfMemory, "no memory for {} elements of '{}'", elements,
                buffer.name);
  };
  if (elements > kMaxAllocation) return refuse();
  const auto count = static_cast<std::size_t>(elements);
  try {
    if (dtype == DType::kI32 || dtype == DType::kI64) {
      buffer.integers.assign(count, 0);
    } else {
      buffer.floats.assign(count, 0.0F);
    }
  } catch (const std::bad_alloc&) {
    return refuse();
  }
  return {};
}

bool is_storable(DType type) {
  if (type == DType::kF32 || type == DType::kI32 || type == DType::kI64) return true;
  const ggml_type_traits& traits = traits_of(type);
  return traits.to_float != nullptr && traits.from_float_ref != nullptr;
}

void round_row(DType type, std::span<float> row) {
  if (type == DType::kF32) return;
  std::vector<std::byte> bytes(row_size(type, static_cast<std::int64_t>(row.size())));
  encode_row(type, row, bytes);
  decode_row(type, bytes, row);
}

void read_bytes(Node& node, std::span<const std::byte> bytes) {
  if (node.dtype == DType::kI32) return read_integers<std::int32_t>(node, bytes);
  if (node.dtype == DType::kI64) return read_integers<std::int64_t>(node, bytes);
  // A copy of each row, because the caller's bytes may lie at any address.
  std::vector<std::byte> encoded(row_size(node.dtype, node.shape[0]));
  std::vector<float> row(static_cast<std::size_t>(node.shape[0]));
  if (node.elements() == 0) return;
  std::size_t from = 0;
  for_rows(node.shape, [&](auto i1, auto i2, auto i3) {
    std::memcpy(encoded.data(), &bytes[from], encoded.size());
    from += encoded.size();
    decode_row(node.dtype, encoded, row);
    for (std::int64_t i0 = 0; i0 < node.shape[0]; ++i0)
      node.at(i0, i1, i2, i3) = row[static_cast<std::size_t>(i0)];
  });
}

void write_bytes(const Node& node, std::span<std::byte> bytes) {
  if (node.dtype == DType::kI32) return write_integers<std::int32_t>(node, bytes);
  if (node.dtype == DType::kI64) return write_integers<std::int64_t>(node, bytes);
  std::vector<std::byte> encoded(row_size(node.dtype, node.shape[0]));
  std::vector<float> row(static_cast<std::size_t>(node.shape[0]));
  if (node.elements() == 0) return;
  std::size_t to = 0;
  for_rows(node.shape, [&](auto i1, auto i2, auto i3) {
    for (std::int64_t i0 = 0; i0 < node.shape[0]; ++i0)
      row[static_cast<std::size_t>(i0)] = node.at(i0, i1, i2, i3);
    encode_row(node.dtype, row, encoded);
    std::memcpy(&bytes[to], encoded.data(), encoded.size());
    to += encoded.size();
  });
}

}  // namespace ollama::ml::reference
