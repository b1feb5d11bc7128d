// What a rendering may use up: memory, steps and time, and how it fails. Inside this folder
// failures are thrown, because a template's expressions nest; Template turns them into Results.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <format>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/error.h"
#include "chat/jinja/template.h"

namespace ollama::chat::jinja {

// Where in a template, from 1; columns count bytes.
struct Position {
  std::uint32_t line = 0;
  std::uint32_t column = 0;
};

struct Failure {
  ErrorCode code = ErrorCode::kInvalidArgument;
  std::string message;
};

template <typename... Args>
[[noreturn]] void raise(std::format_string<Args...> format, Args&&... args) {
  throw Failure{.message = std::format(format, std::forward<Args>(args)...)};
}

// Memory that lives until the arena ends; nothing in it is ever destroyed.
class Arena {
 public:
  explicit Arena(std::size_t limit) : limit_(limit) {}

  char* bytes(std::size_t size, std::size_t alignment = 1) {
    std::size_t at = (used_ + alignment - 1) & ~(alignment - 1);
    if (at > capacity_ || size > capacity_ - at) {
      add_block(size);
      at = 0;
    }
    used_ = at + size;
    return block_ + at;
  }

  template <typename T, typename... Args>
  T* make(Args&&... args) {
    static_assert(std::is_trivially_destructible_v<T>);
    return std::construct_at(reinterpret_cast<T*>(bytes(sizeof(T), alignof(T))),
                             std::forward<Args>(args)...);
  }

  template <typename T>
  std::span<T> array(std::size_t count) {
    static_assert(std::is_trivially_destructible_v<T>);
    if (count == 0) return {};
    if (count > limit_ / sizeof(T)) fail();
    T* first = reinterpret_cast<T*>(bytes(count * sizeof(T), alignof(T)));
    std::uninitialized_value_construct_n(first, count);
    return {first, count};
  }

  template <typename T>
  std::span<T> copy(const std::vector<T>& from) {
    const std::span<T> to = array<T>(from.size());
    std::copy(from.begin(), from.end(), to.begin());
    return to;
  }

  std::string_view copy(std::string_view text) {
    if (text.empty()) return {};
    char* to = bytes(text.size());
    std::memcpy(to, text.data(), text.size());
    return {to, text.size()};
  }

  // `left` followed by `right`. Where `left` was the last thing made, it only grows: text that is
  // built up piece by piece costs no copy of the whole for each piece.
  std::string_view join(std::string_view left, std::string_view right) {
    if (left.empty()) return right;
    if (right.empty()) return left;
    if (block_ != nullptr && left.data() + left.size() == block_ + used_ &&
        right.size() <= capacity_ - used_) {
      std::memcpy(block_ + used_, right.data(), right.size());
      used_ += right.size();
      return {left.data(), left.size() + right.size()};
    }
    char* to = bytes(left.size() + right.size());
    std::memcpy(to, left.data(), left.size());
    std::memcpy(to + left.size(), right.data(), right.size());
    return {to, left.size() + right.size()};
  }

 private:
  static constexpr std::size_t kFirstBlock = 16 * 1024;
  static constexpr std::size_t kLargestStep = 1024 * 1024;

  [[noreturn]] void fail() const {
    throw Failure{ErrorCode::kOutOfMemory,
                  std::format("the template's values take more than {} bytes", limit_)};
  }
  void add_block(std::size_t size) {
    std::size_t next = blocks_.empty() ? kFirstBlock : std::min(capacity_ * 2, kLargestStep);
    // Some room to grow, for join.
    if (size > next / 2) next = size + size / 2 + 16;
    if (size > limit_ - std::min(limit_, total_) || next > limit_ - std::min(limit_, total_))
      fail();
    blocks_.push_back(std::make_unique_for_overwrite<char[]>(next));
    total_ += next;
    block_ = blocks_.back().get();
    capacity_ = next;
    used_ = 0;
  }

  std::size_t limit_;
  std::size_t total_ = 0;
  std::vector<std::unique_ptr<char[]>> blocks_;
  char* block_ = nullptr;
  std::size_t capacity_ = 0;
  std::size_t used_ = 0;
};

// One rendering's arena and allowances.
class Runtime {
 public:
  explicit Runtime(const JinjaOptions& options)
      : arena(options.limits.memory),
        now(options.now),
        max_output_(options.limits.output),
        max_depth_(options.limits.depth),
        steps_(options.limits.steps),
        deadline_(std::chrono::steady_clock::now() + options.limits.time) {}

  // Takes `steps` units of work, each worth some nanoseconds, before they are done.
  void charge(std::uint64_t steps) {
    used_ += steps;
    if (used_ >= next_check_) check();
  }
  // The work of looking at that many bytes.
  void charge_bytes(std::size_t bytes) { charge(bytes / 32 + 1); }

  // For text that is being made outside the arena.
  void check_size(std::size_t bytes) const {
    if (bytes > max_output_) {
      throw Failure{ErrorCode::kOutOfMemory,
                    std::format("the template makes a text of more than {} bytes", max_output_)};
    }
  }

  void enter() {
    if (++depth_ > max_depth_) {
      raise("the template, or a value of it, is nested more than {} deep", max_depth_);
    }
  }
  void leave() { --depth_; }

  Arena arena;
  std::optional<std::chrono::local_seconds> now;

 private:
  static constexpr std::uint64_t kStepsBetweenChecks = 4096;

  void check() {
    if (used_ > steps_) {
      throw Failure{ErrorCode::kTimeout,
                    std::format("the template takes more than {} steps", steps_)};
    }
    if (std::chrono::steady_clock::now() > deadline_) {
      throw Failure{ErrorCode::kTimeout, "the template takes too long"};
    }
    next_check_ = used_ + kStepsBetweenChecks;
  }

  std::size_t max_output_;
  std::uint32_t max_depth_;
  std::uint32_t depth_ = 0;
  std::uint64_t steps_;
  std::uint64_t used_ = 0;
  std::uint64_t next_check_ = kStepsBetweenChecks;
  std::chrono::steady_clock::time_point deadline_;
};

// One level of whatever calls itself.
class Nested {
 public:
  explicit Nested(Runtime& run) : run_(run) { run_.enter(); }
  ~Nested() { run_.leave(); }
  Nested(const Nested&) = delete;
  Nested& operator=(const Nested&) = delete;

 private:
  Runtime& run_;
};

}  // namespace ollama::chat::jinja
