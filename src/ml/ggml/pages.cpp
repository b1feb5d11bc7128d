#include "ml/ggml/pages.h"

#include <sys/mman.h>

namespace ollama::ml::ggml {

Result<LazyPages> LazyPages::reserve(std::size_t size, const char* purpose) {
  void* address = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) {
    return fail(ErrorCode::kOutOfMemory, "cannot reserve {} MiB for {}", size >> 20U, purpose);
  }
  LazyPages pages;
  pages.address_ = address;
  pages.size_ = size;
  return pages;
}

LazyPages::~LazyPages() {
  if (address_ != nullptr) munmap(address_, size_);
}

}  // namespace ollama::ml::ggml
