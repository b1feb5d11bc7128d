#include "ml/buffer_pool.h"

namespace ollama::ml {

namespace pool_internal {
class Core {};
}  // namespace pool_internal

void PooledBuffer::release() {
  ::operator delete(data_, std::align_val_t{4096});
  data_ = nullptr;
  size_ = 0;
}

BufferPool::BufferPool(const PoolOptions&) : core_(std::make_shared<pool_internal::Core>()) {}
BufferPool::~BufferPool() = default;

Result<PooledBuffer> BufferPool::allocate(std::size_t bytes) {
  PooledBuffer buffer;
  buffer.data_ = static_cast<std::byte*>(
      ::operator new(std::max<std::size_t>(bytes, 1), std::align_val_t{4096}, std::nothrow));
  if (buffer.data_ == nullptr) return fail(kHostMemoryExhausted);
  buffer.size_ = bytes;
  return buffer;
}

std::size_t BufferPool::trim(std::size_t) { return 0; }
PoolCounters BufferPool::counters() const { return {}; }

}  // namespace ollama::ml
