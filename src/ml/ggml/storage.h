// The tensors of a cache in GGML's buffers: on the CPU address space whose pages are committed by
// use, on a GPU memory that is committed at once.
#pragma once

#include <span>

#include "ml/ggml/arena.h"
#include "ml/ggml/buffers.h"
#include "ml/ggml/pages.h"

namespace ollama::ml::ggml {

class GgmlStorage final : public Storage {
 public:
  // `devices`: those of Backend::devices(), the CPU last. `shortage` says which of them had no room
  // or cannot hold one of
  // the tensors at all, when the error is kOutOfMemory.
  static Result<std::unique_ptr<Storage>> allocate(std::span<const Request> requests,
                                                   const Placement& placement, Purpose purpose,
                                                   std::span<const ggml_backend_dev_t> devices,
                                                   BufferPool& pool,
                                                   std::optional<Shortage>& shortage);

  std::span<const Tensor> tensors() const override { return tensors_; }
  std::uint64_t bytes() const override;
  std::vector<std::uint64_t> device_bytes() const override { return device_bytes_; }

 private:
  Result<> place_on_cpu(ggml_backend_dev_t cpu, std::span<ggml_tensor* const> tensors,
                        Purpose purpose);

  Arena arena_;
  LazyPages pages_;
  ggml_backend_buffer_ptr cpu_buffer_;  // over the pages
  Buffers buffers_;                     // of GPUs; to measure, of all devices
  std::vector<Tensor> tensors_;
  std::vector<std::uint64_t> device_bytes_;
};

}  // namespace ollama::ml::ggml
