// A model file's tensors in GGML's buffers. On the CPU a tensor stays where the file is mapped,
// except where a product runs faster on another layout (our kernels' own, or one of GGML's), or the
// file has one that GGML does not compute with; those are converted while loading. What a GPU
// computes with is copied there.
#pragma once

#include <ggml-backend.h>
#include <ggml-cpp.h>

#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "gguf/file.h"
#include "ml/backend.h"
#include "ml/ggml/arena.h"
#include "ml/ggml/buffers.h"
#include "ml/ggml/native.h"
#include "ml/ggml/pages.h"

namespace ollama::ml::ggml {

class GgmlWeights final : public Weights {
 public:
  struct Options {
    std::uint32_t threads = 1;
    bool use_mmap = true;  // false: everything is copied
    bool native = false;   // products on the CPU are our kernels'
    Purpose purpose = Purpose::kUse;
  };
  // `file` must outlive the result. `devices`: those of Backend::devices(), the CPU last.
  // `shortage` says which of them had no room when the error is kOutOfMemory.
  static Result<std::unique_ptr<GgmlWeights>> load(const gguf::File& file,
                                                   std::span<const ggml_backend_dev_t> devices,
                                                   const Placement& placement, BufferPool& pool,
                                                   const Options& options,
                                                   std::optional<Shortage>& shortage,
                                                   const std::function<bool(float)>& progress);

  Tensor find(std::string_view name) const override;
  std::uint64_t bytes() const override { return bytes_; }
  std::vector<std::uint64_t> device_bytes() const override { return device_bytes_; }

 private:
  class Loader;
  GgmlWeights() = default;

  Arena arena_;
  LazyPages packed_pages_;
  std::deque<PackedTensor> packed_;  // at addresses that stay
  Buffers buffers_;
  std::map<std::string, Tensor, std::less<>> tensors_;
  std::uint64_t bytes_ = 0;
  std::vector<std::uint64_t> device_bytes_;
};

}  // namespace ollama::ml::ggml
