// A model file's tensors in GGML's buffers. On the CPU a tensor stays where the file is mapped,
// except where GGML has a layout of its own that its products run faster on, or the file one that
// GGML does not compute with; those are converted while loading.
#pragma once

#include <ggml-backend.h>
#include <ggml-cpp.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "gguf/file.h"
#include "ml/backend.h"
#include "ml/ggml/arena.h"

namespace ollama::ml::ggml {

class GgmlWeights final : public Weights {
 public:
  // `file` must outlive the result. `use_mmap` false: everything is copied.
  static Result<std::unique_ptr<GgmlWeights>> load(const gguf::File& file, ggml_backend_dev_t cpu,
                                                   BufferPool& pool, std::uint32_t threads,
                                                   bool use_mmap,
                                                   const std::function<bool(float)>& progress);

  Tensor find(std::string_view name) const override;
  std::uint64_t bytes() const override { return bytes_; }

 private:
  GgmlWeights() = default;

  Arena arena_;
  std::vector<ggml_backend_buffer_ptr> buffers_;
  std::map<std::string, Tensor, std::less<>> tensors_;
  std::uint64_t bytes_ = 0;
};

}  // namespace ollama::ml::ggml
