// Which messages of a conversation stay where not all of them fit.
//
// The oldest turns go first. A turn is what a user says and everything up to the next time, so that
// what is left begins with a user's message, as many templates require. Of the last turn the
// question always stays; behind it the oldest steps may go, each an answer with the results of the
// tools that it called: results never stand without their calls. Messages of the system stay.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "api/types.h"

namespace ollama::chat {

class Turns {
 public:
  // `messages` outlive it.
  explicit Turns(std::span<const api::Message> messages);

  // Turns, and steps of the last one, that can go.
  std::size_t count() const { return count_; }
  // How many of them stay in any case: the newest step, where there is one.
  std::size_t fewest() const { return fewest_; }
  // The messages that are left with the newest `kept` of them.
  std::vector<api::Message> newest(std::size_t kept) const;

 private:
  static constexpr std::size_t kAlways = ~std::size_t{0};

  std::span<const api::Message> messages_;
  std::vector<std::size_t> parts_;  // of each message: the number of its turn or step
  std::size_t count_ = 0;
  std::size_t fewest_ = 0;
};

}  // namespace ollama::chat
