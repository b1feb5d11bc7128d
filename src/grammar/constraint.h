// One answer that must keep to a grammar: where it stands, and which tokens may come next. For one
// thread at a time, as the Automaton that it shares.
#pragma once

#include <memory>
#include <span>

#include "grammar/automaton.h"

namespace ollama::grammar {

class Constraint {
 public:
  explicit Constraint(std::shared_ptr<Automaton> automaton);
  Constraint(const Constraint&) = delete;
  Constraint& operator=(const Constraint&) = delete;
  ~Constraint();

  // Whether `token` may come next: an end token where the text is whole, else one whose bytes the
  // grammar can go on with.
  bool allows(Token token);
  // A bit for each token, as allows() has it. Empty where it cannot be told (see Automaton::mask).
  // Valid until the next call of anything here.
  std::span<const std::uint64_t> mask();
  // The lowest id that mask() has and accept() takes; kNoToken where there is none. Where a grammar
  // is so ambiguous that states die of it, accept() refuses some of what mask() has.
  Token first_allowed();
  // `token` is part of the text now. False, and nothing changes, where it may not be. An end token
  // changes nothing.
  bool accept(Token token);
  // Whether the text is whole; it may be possible to go on.
  bool can_stop() const { return automaton_->accepts(state_); }
  void reset() { state_ = automaton_->start(); }

 private:
  std::shared_ptr<Automaton> automaton_;
  State state_;
};

}  // namespace ollama::grammar
