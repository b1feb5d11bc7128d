// Holds generated text back while it could still turn into a stop string, and cuts it off where one
// begins.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace ollama::engine {

// Costs O(stops) for each byte of text, whatever they and the text look like: what everybody in a
// batch waits for.
class StopMatcher {
 public:
  static constexpr std::size_t kMostStops = 256;
  static constexpr std::size_t kLongestStop = 4096;  // bytes

  // kInvalidArgument: more of them, or longer ones.
  static Result<> validate(std::span<const std::string> stops);

  explicit StopMatcher(std::vector<std::string> stops);

  // Appends `text`. Gives what can be shown now; true in `stopped` when a stop string was found:
  // what is given then ends before it and nothing may follow.
  std::string_view push(std::string_view text, bool& stopped);
  // The stop string that was found.
  const std::string& found() const { return stops_[found_].text; }
  // What is still held at the end of an answer that no stop string ended.
  std::string_view flush();

 private:
  // One stop string, looked for byte by byte (Knuth, Morris and Pratt, 1977).
  struct Stop {
    explicit Stop(std::string stop);
    // Where in `next`, which goes on with the text, the string ends for the first time; 0: nowhere.
    std::size_t end_in(std::string_view next);
    void take(char c);

    std::string text;
    // Of each beginning of the string: how much of its end is a shorter beginning.
    std::vector<std::uint16_t> borders;
    std::size_t matched = 0;  // the longest end of the text that is a beginning of the string
  };

  std::vector<Stop> stops_;  // none is empty
  std::size_t found_ = 0;
  std::string held_;
  std::string shown_;  // what the last call gave
};

}  // namespace ollama::engine
