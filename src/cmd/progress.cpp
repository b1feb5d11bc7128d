#include "cmd/progress.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <condition_variable>
#include <format>
#include <mutex>
#include <stop_token>
#include <thread>
#include <vector>

#include "base/units.h"
#include "cmd/terminal.h"
#include "envconfig/duration.h"

namespace ollama::cmd {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kInterval = std::chrono::milliseconds(100);
constexpr std::size_t kDefaultColumns = 80;
constexpr std::array<std::string_view, 10> kFrames{"⠋", "⠙", "⠹", "⠸", "⠼",
                                                   "⠴", "⠦", "⠧", "⠇", "⠏"};

struct Line {
  std::string key;  // of a bar; empty for a spinner
  BarState bar;
  bool spinning = false;
  std::uint64_t first = 0;  // bytes that were there when the bar appeared
  Clock::time_point started;
};

}  // namespace

std::string format_spinner(std::string_view message, std::size_t frame) {
  std::string text(message);
  if (!text.empty()) text += ' ';
  text += kFrames[frame % kFrames.size()];
  return text;
}

std::string format_bar(const BarState& state, std::size_t columns) {
  const double share =
      state.total == 0
          ? 0
          : std::min(1.0, static_cast<double>(state.completed) / static_cast<double>(state.total));
  const std::string before = std::format("{} {:3.0f}% ", state.message, std::floor(share * 100));
  std::string after =
      state.completed < state.total
          ? std::format(" {:>6}/{:<6}", human_bytes(state.completed), human_bytes(state.total))
          : std::format(" {:>6}", human_bytes(state.total));
  if (state.bytes_per_second > 0 && state.completed < state.total) {
    const auto left = std::chrono::seconds(static_cast<std::int64_t>(
        static_cast<double>(state.total - state.completed) / state.bytes_per_second));
    after += std::format(" {:>7}/s {:>7}",
                         human_bytes(static_cast<std::uint64_t>(state.bytes_per_second)),
                         left > std::chrono::hours(99) ? "99h+" : envconfig::format_duration(left));
  }
  const std::size_t used = display_width(before) + display_width(after) + 2;
  if (used >= columns) return std::string(fit_width(before + after, columns));
  const std::size_t room = columns - used;
  const auto filled = static_cast<std::size_t>(static_cast<double>(room) * share);
  std::string text = before + "▕";
  for (std::size_t i = 0; i < filled; ++i) text += "█";
  text.append(room - filled, ' ');
  text += "▏" + after;
  return text;
}

struct Progress::State {
  std::FILE* file;
  Style style;
  bool live = false;  // a terminal, drawn again and again
  bool stopped = false;
  std::size_t frame = 0;
  std::size_t drawn = 0;  // lines on the screen, the cursor at the end of the last
  std::string last_status;
  std::vector<Line> lines;
  std::mutex mutex;
  std::condition_variable_any wake;
  std::jthread thread;

  void write(std::string_view text) const {
    std::fwrite(text.data(), 1, text.size(), file);
    std::fflush(file);
  }

  std::string to_top() const {
    std::string text = "\r";
    if (drawn > 1) text += std::format("\x1b[{}A", drawn - 1);
    return text;
  }

  std::string format_line(const Line& line, std::size_t columns) const {
    if (line.key.empty()) {
      const std::string text =
          line.spinning ? format_spinner(line.bar.message, frame) : line.bar.message;
      return std::string(fit_width(text, columns));
    }
    BarState bar = line.bar;
    const double seconds = std::chrono::duration<double>(Clock::now() - line.started).count();
    if (seconds > 0.5 && bar.completed > line.first) {
      bar.bytes_per_second = static_cast<double>(bar.completed - line.first) / seconds;
    }
    return format_bar(bar, columns);
  }

  void draw() {
    if (lines.empty()) return;
    const std::size_t columns = terminal_columns(::fileno(file)).value_or(kDefaultColumns) - 1;
    std::string text = to_top();
    for (std::size_t i = 0; i < lines.size(); ++i) {
      if (i > 0) text += '\n';
      text += format_line(lines[i], columns);
      text += kClearToEnd;
    }
    drawn = lines.size();
    write(text);
  }

  void run(const std::stop_token& stop) {
    std::unique_lock lock(mutex);
    while (!stop.stop_requested()) {
      draw();
      ++frame;
      wake.wait_for(lock, stop, kInterval, [] { return false; });
    }
  }

  void finish(bool clear) {
    if (stopped) return;
    stopped = true;
    if (!live) return;
    thread.request_stop();
    thread.join();
    if (clear) {
      write(to_top() + "\x1b[J");
      return;
    }
    for (Line& line : lines) line.spinning = false;
    draw();
    if (!lines.empty()) write("\n");
  }
};

Progress::Progress(Style style, std::FILE* file) : state_(std::make_unique<State>()) {
  state_->file = file;
  state_->style = style;
  state_->live = is_terminal(::fileno(file));
  if (state_->live) {
    State& state = *state_;
    state.thread = std::jthread([&state](const std::stop_token& stop) { state.run(stop); });
  }
}

Progress::~Progress() { stop(); }

void Progress::status(std::string_view text) {
  const std::scoped_lock lock(state_->mutex);
  if (state_->stopped || (text == state_->last_status && !state_->lines.empty())) return;
  state_->last_status = text;
  for (Line& line : state_->lines) line.spinning = false;
  state_->lines.push_back({.key = {},
                           .bar = {.message = std::string(text)},
                           .spinning = true,
                           .first = 0,
                           .started = Clock::now()});
  if (!state_->live && state_->style == Style::kFull && !text.empty()) {
    state_->write(std::format("{}\n", text));
  }
}

void Progress::bar(std::string_view key, std::string_view message, std::uint64_t completed,
                   std::uint64_t total) {
  const std::scoped_lock lock(state_->mutex);
  if (state_->stopped) return;
  auto found = std::ranges::find(state_->lines, key, &Line::key);
  if (found == state_->lines.end()) {
    for (Line& line : state_->lines) line.spinning = false;
    if (!state_->live && state_->style == Style::kFull) {
      state_->write(std::format("{}\n", message));
    }
    state_->lines.push_back({.key = std::string(key),
                             .bar = {.message = std::string(message)},
                             .spinning = false,
                             .first = completed,
                             .started = Clock::now()});
    found = state_->lines.end() - 1;
  }
  found->bar.completed = completed;
  found->bar.total = total;
}

void Progress::stop() { state_->finish(false); }
void Progress::stop_and_clear() { state_->finish(true); }

}  // namespace ollama::cmd
