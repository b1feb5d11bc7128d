// Spinner and progress bars on standard error. On a terminal they are drawn again ten times a
// second; elsewhere each new status is one line, and nothing moves.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

namespace ollama::cmd {

// "pulling 6a0746a1ec1a:  45% ▕███    ▏ 2.1 GB/4.7 GB   35 MB/s    1m14s" in `columns`.
struct BarState {
  std::string message;
  std::uint64_t completed = 0;  // bytes
  std::uint64_t total = 0;
  double bytes_per_second = 0;  // 0 when not known
};
std::string format_bar(const BarState& state, std::size_t columns);
// A frame of the spinner, after its message.
std::string format_spinner(std::string_view message, std::size_t frame);

class Progress {
 public:
  enum class Style { kFull, kQuiet };  // kQuiet: nothing where there is no terminal
  explicit Progress(Style style = Style::kFull, std::FILE* file = stderr);
  ~Progress();  // stop()
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Ends the spinner before it and starts one with this text; the same text again does nothing.
  void status(std::string_view text);
  // Sets the bar `key`, added below the others when it is new.
  void bar(std::string_view key, std::string_view message, std::uint64_t completed,
           std::uint64_t total);
  // Leaves on the screen what was shown, or removes it. Both end the object's work; calling them
  // again does nothing.
  void stop();
  void stop_and_clear();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ollama::cmd
