#include "engine/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace ollama::engine {

StopMatcher::StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {
  std::erase_if(stops_, [](const std::string& stop) { return stop.empty(); });
}

std::string_view StopMatcher::push(std::string_view text, bool& stopped) {
  stopped = false;
  if (stops_.empty()) {
    shown_ = text;
    return shown_;
  }
  held_ += text;
  std::size_t cut = std::string::npos;
  for (std::size_t i = 0; i < stops_.size(); ++i) {
    const std::size_t at = held_.find(stops_[i]);
    if (at >= cut) continue;
    cut = at;
    found_ = i;
  }
  if (cut != std::string::npos) {
    stopped = true;
    shown_.assign(held_, 0, cut);
    held_.clear();
    return shown_;
  }
  // The longest end of the text that begins a stop string stays.
  std::size_t keep = 0;
  for (const std::string& stop : stops_) {
    for (std::size_t length = std::min(held_.size(), stop.size() - 1); length > keep; --length) {
      if (held_.ends_with(std::string_view(stop).substr(0, length))) keep = length;
    }
  }
  shown_.assign(held_, 0, held_.size() - keep);
  held_.erase(0, shown_.size());
  return shown_;
}

std::string_view StopMatcher::flush() {
  shown_ = std::exchange(held_, {});
  return shown_;
}

}  // namespace ollama::engine
