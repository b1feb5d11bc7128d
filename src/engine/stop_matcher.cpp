#include "engine/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace ollama::engine {

StopMatcher::Stop::Stop(std::string stop) : text(std::move(stop)) {
  borders.reserve(text.size());
  borders.push_back(0);
  for (std::size_t i = 1; i < text.size(); ++i) {
    take(text[i]);
    borders.push_back(static_cast<std::uint16_t>(matched));
  }
  matched = 0;
}

void StopMatcher::Stop::take(char c) {
  while (matched > 0 && text[matched] != c) matched = borders[matched - 1];
  if (text[matched] == c) ++matched;
}

std::size_t StopMatcher::Stop::end_in(std::string_view next) {
  for (std::size_t i = 0; i < next.size(); ++i) {
    take(next[i]);
    if (matched == text.size()) return i + 1;
  }
  return 0;
}

Result<> StopMatcher::validate(std::span<const std::string> stops) {
  if (stops.size() > kMostStops) {
    return fail(ErrorCode::kInvalidArgument, "option 'stop' has {} texts: {} are the most",
                stops.size(), kMostStops);
  }
  for (const std::string& stop : stops) {
    if (stop.size() <= kLongestStop) continue;
    return fail(ErrorCode::kInvalidArgument,
                "option 'stop' has a text of {} bytes: {} are the most", stop.size(), kLongestStop);
  }
  return {};
}

StopMatcher::StopMatcher(std::vector<std::string> stops) {
  stops_.reserve(stops.size());
  for (std::string& stop : stops) {
    if (!stop.empty()) stops_.emplace_back(std::move(stop));
  }
}

std::string_view StopMatcher::push(std::string_view text, bool& stopped) {
  stopped = false;
  if (stops_.empty()) {
    shown_ = text;
    return shown_;
  }
  const std::size_t before = held_.size();
  held_ += text;
  std::size_t cut = std::string::npos;
  std::size_t keep = 0;  // the longest end of the text that begins a stop string
  for (std::size_t i = 0; i < stops_.size(); ++i) {
    Stop& stop = stops_[i];
    const std::size_t end = stop.end_in(text);
    keep = std::max(keep, stop.matched);
    if (end == 0 || before + end - stop.text.size() >= cut) continue;
    cut = before + end - stop.text.size();
    found_ = i;
  }
  stopped = cut != std::string::npos;
  shown_.assign(held_, 0, stopped ? cut : held_.size() - keep);
  held_.erase(0, stopped ? held_.size() : shown_.size());
  return shown_;
}

std::string_view StopMatcher::flush() {
  shown_ = std::exchange(held_, {});
  return shown_;
}

}  // namespace ollama::engine
