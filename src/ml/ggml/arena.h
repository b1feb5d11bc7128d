// A GGML context for a bounded number of tensors, in memory from the buffer pool.
#pragma once

#include <ggml-cpp.h>

#include "ml/buffer_pool.h"

namespace ollama::ml::ggml {

class Arena {
 public:
  Arena() = default;
  // `extra`: bytes beside the tensors', for a graph. Errors: kOutOfMemory.
  static Result<Arena> create(BufferPool& pool, std::size_t tensors, std::size_t extra = 0) {
    Arena arena;
    OLLAMA_ASSIGN(arena.memory_, pool.allocate(ggml_tensor_overhead() * tensors + extra));
    arena.context_.reset(ggml_init(
        {.mem_size = arena.memory_.size(), .mem_buffer = arena.memory_.data(), .no_alloc = true}));
    if (!arena.context_) return fail(kHostMemoryExhausted);
    return arena;
  }
  ggml_context* get() const { return context_.get(); }

 private:
  PooledBuffer memory_;
  ggml_context_ptr context_;  // goes before its memory
};

}  // namespace ollama::ml::ggml
