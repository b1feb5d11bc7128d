#include "ml/ggml/buffers.h"

namespace ollama::ml::ggml {
namespace {

std::size_t padded_size(ggml_backend_buffer_type_t type, const ggml_tensor* tensor) {
  const std::size_t alignment = ggml_backend_buft_get_alignment(type);
  const std::size_t size = ggml_backend_buft_get_alloc_size(type, tensor);
  return (size + alignment - 1) / alignment * alignment;
}

}  // namespace

std::uint64_t Buffers::place(ggml_backend_buffer_type_t type, std::span<ggml_tensor* const> tensors,
                             ggml_backend_buffer_usage usage, Purpose purpose) {
  if (purpose == Purpose::kMeasure) {
    ggml_backend_buffer_ptr nothing(ggml_backend_buft_alloc_buffer(type, 0));
    ggml_backend_buffer_set_usage(nothing.get(), usage);
    for (ggml_tensor* tensor : tensors) tensor->buffer = nothing.get();
    keep(std::move(nothing));
    return 0;
  }
  const std::size_t most = ggml_backend_buft_get_max_size(type);
  for (std::size_t begin = 0; begin < tensors.size();) {
    std::size_t size = padded_size(type, tensors[begin]);
    std::size_t end = begin + 1;
    for (; end < tensors.size(); ++end) {
      const std::size_t next = padded_size(type, tensors[end]);
      if (next > most || size > most - next) break;
      size += next;
    }
    ggml_backend_buffer_ptr buffer(ggml_backend_buft_alloc_buffer(type, size));
    if (!buffer) return size;
    ggml_backend_buffer_set_usage(buffer.get(), usage);
    auto* address = static_cast<std::byte*>(ggml_backend_buffer_get_base(buffer.get()));
    for (; begin < end; ++begin) {
      if (ggml_backend_tensor_alloc(buffer.get(), tensors[begin], address) != GGML_STATUS_SUCCESS) {
        return size;
      }
      address += padded_size(type, tensors[begin]);
    }
    keep(std::move(buffer));
  }
  return 0;
}

std::uint64_t placed_size(ggml_backend_buffer_type_t type, std::span<ggml_tensor* const> tensors) {
  std::uint64_t size = 0;
  for (const ggml_tensor* tensor : tensors) size += padded_size(type, tensor);
  return size;
}

bool is_on_host(const ggml_tensor* tensor) {
  const ggml_tensor* root = tensor->view_src != nullptr ? tensor->view_src : tensor;
  return root->buffer == nullptr || ggml_backend_buffer_is_host(root->buffer);
}

}  // namespace ollama::ml::ggml
