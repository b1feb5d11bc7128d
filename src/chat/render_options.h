// What a rendering of a template, of either kind, may take and knows of the world.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace ollama::chat {

// Templates come from files and requests, and a loop in one must not stop a runner. Each limit ends
// the rendering with an error that names it.
struct RenderLimits {
  std::size_t output = 64U << 20;   // bytes of the text
  std::size_t scratch = 64U << 20;  // bytes that functions make in all
  std::uint64_t steps = 5'000'000;  // nodes, commands and rounds of loops
  int depth = 500;                  // of blocks and templates in one another
  std::chrono::milliseconds time{2000};
};

struct RenderOptions {
  RenderLimits limits;
  std::optional<std::chrono::local_seconds> now;  // unset: the clock's
};

// The clock's time in the machine's zone.
std::chrono::local_seconds local_now();

}  // namespace ollama::chat
