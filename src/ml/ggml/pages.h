// Memory straight from the system.
#pragma once

#include <cstddef>
#include <utility>

#include "base/error.h"

namespace ollama::ml::ggml {

// Address space whose pages are committed, zeroed, when they are first touched: a cache of a long
// context costs what is used of it.
class LazyPages {
 public:
  LazyPages() = default;
  // Errors: kOutOfMemory, which says what the memory is for.
  static Result<LazyPages> reserve(std::size_t size, const char* purpose);
  LazyPages(LazyPages&& other) noexcept
      : address_(std::exchange(other.address_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  LazyPages& operator=(LazyPages&& other) noexcept {
    std::swap(address_, other.address_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~LazyPages();
  std::byte* address() const { return static_cast<std::byte*>(address_); }

 private:
  void* address_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace ollama::ml::ggml
