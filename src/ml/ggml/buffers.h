// Buffers of devices, and tensors placed in them.
#pragma once

#include <ggml-backend.h>
#include <ggml-cpp.h>

#include <span>
#include <vector>

#include "ml/backend.h"

namespace ollama::ml::ggml {

class Buffers {
 public:
  // Finds room for tensors in buffers of one type, as few as it allows (a device bounds the size of
  // a buffer). To measure, they get a buffer without memory. Gives 0, or the size of the buffer
  // that the device refused; then some of the tensors have no place.
  std::uint64_t place(ggml_backend_buffer_type_t type, std::span<ggml_tensor* const> tensors,
                      ggml_backend_buffer_usage usage, Purpose purpose);
  // One that the caller has made.
  void keep(ggml_backend_buffer_ptr buffer) { buffers_.push_back(std::move(buffer)); }
  std::span<const ggml_backend_buffer_ptr> all() const { return buffers_; }

 private:
  std::vector<ggml_backend_buffer_ptr> buffers_;
};

// What `tensors` take in buffers of a type.
std::uint64_t placed_size(ggml_backend_buffer_type_t type, std::span<ggml_tensor* const> tensors);

// Whether a tensor's memory is the CPU's; of a view, what it looks at.
bool is_on_host(const ggml_tensor* tensor);

}  // namespace ollama::ml::ggml
