// Holds generated text back while it could still turn into a stop string, and cuts it off where one
// begins.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ollama::engine {

class StopMatcher {
 public:
  explicit StopMatcher(std::vector<std::string> stops);

  // Appends `text`. Gives what can be shown now; true in `stopped` when a stop string was found:
  // what is given then ends before it and nothing may follow.
  std::string_view push(std::string_view text, bool& stopped);
  // The stop string that was found.
  const std::string& found() const { return stops_[found_]; }
  // What is still held at the end of an answer that no stop string ended.
  std::string_view flush();

 private:
  std::vector<std::string> stops_;  // none is empty
  std::size_t found_ = 0;
  std::string held_;
  std::string shown_;  // what the last call gave
};

}  // namespace ollama::engine
