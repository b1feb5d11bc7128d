// A grammar at work on one vocabulary: states, where each byte leads from them, and the tokens that
// each allows, found when they are first asked for and kept. Requests with the same grammar share
// one. For one thread at a time.
//
// A state is a set of readings of the text so far. A reading is a node of the grammar that waits
// for a byte and a stack of calls to return to; stacks share their lower parts and equal ones are
// one, so that equal sets of readings are one state, found again by a look-up.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "grammar/grammar.h"
#include "grammar/vocabulary.h"

namespace ollama::grammar {

using State = std::uint32_t;
inline constexpr State kDead = 0;  // no reading is left

class Automaton {
 public:
  Automaton(GrammarPtr grammar, std::shared_ptr<const Vocabulary> vocabulary);
  Automaton(const Automaton&) = delete;
  Automaton& operator=(const Automaton&) = delete;

  const Vocabulary& vocabulary() const { return *vocabulary_; }
  const Grammar& grammar() const { return *grammar_; }
  State start() const { return start_; }
  // Whether the text so far is whole.
  bool accepts(State state) const { return states_[state].accepts; }

  // Where a byte, or bytes, lead. A state with too many readings counts as dead; so does a text
  // that takes as long as a whole mask may.
  State next(State from, std::uint8_t byte) {
    const std::size_t at = from * classes_ + grammar_->byte_class[byte];
    const State known = transitions_[at];
    return known != kUnknown ? known : find_next(from, grammar_->byte_class[byte]);
  }
  State next(State from, std::string_view bytes);

  // The tokens that may come next, ends included where the text may end. Valid until the next call
  // of mask() or trim(). Empty where the grammar is too ambiguous to tell in reasonable time.
  std::span<const std::uint64_t> mask(State state);

  // A state that lives on when trim() renumbers the states. The pointer is kept until unhold().
  void hold(State* state) { held_.push_back(state); }
  void unhold(const State* state) { std::erase(held_, state); }
  // Forgets all but the held states where they have become many. To be called between tokens.
  void trim();

  // For tests and benchmarks.
  std::size_t state_count() const { return states_.size(); }
  void forget_masks();

 private:
  static constexpr State kUnknown = ~State{0};
  static constexpr std::size_t kEdgesOfStep = 32;

  struct Frame {
    NodeId node;  // where to go on, or the repeat that a turn ends in
    std::uint32_t count;
    std::uint32_t parent;
    std::uint32_t depth;
    bool operator==(const Frame&) const = default;
  };
  struct Reading {
    NodeId node;
    std::uint32_t frame;
    auto operator<=>(const Reading&) const = default;
  };
  struct StateInfo {
    std::uint32_t first = 0;  // readings_
    std::uint32_t last = 0;
    bool accepts = false;
    std::uint8_t asked_runs = 0;
    std::int32_t mask = -1;
    // How many characters of each kind of text one of the readings takes alone, at least, where
    // the bit of that kind says that it has been asked for.
    std::array<std::uint32_t, kTexts.size()> runs{};
  };
  // Of a walk through a tree of tokens: the siblings that are still to be looked at, and the state
  // before them.
  struct Level {
    std::uint32_t next;
    std::uint32_t end;
    State state;
  };
  // What was found in a tree for a state in turns of counted repeats, which is the same in all
  // turns from which the repeats' bounds cannot be reached by one token.
  struct Walk {
    const TokenTree* tree;
    std::vector<Reading> readings;
    std::uint32_t bytes = 0;  // the longest text that was followed
    Mask mask;
  };
  // Open addressing; the values' equality is the caller's.
  class Index {
   public:
    template <typename Equals>
    std::uint32_t* find(std::uint64_t hash, Equals equals);
    void clear();
    std::size_t size() const { return used_; }

   private:
    void grow();
    struct Slot {
      std::uint64_t hash = 0;
      std::uint32_t value = kEmptySlot;
    };
    static constexpr std::uint32_t kEmptySlot = ~std::uint32_t{0};
    std::vector<Slot> slots_;
    std::size_t used_ = 0;
  };

  std::span<const Reading> readings(State state) const {
    return std::span(readings_).subspan(states_[state].first,
                                        states_[state].last - states_[state].first);
  }
  void reset();
  State find_next(State from, std::uint8_t byte_class);
  State add_state();

  // Following what needs no byte: begin(), visit() from some nodes, finish().
  void begin();
  void visit(NodeId node, std::uint32_t frame);
  void step(Reading at);
  void end_turn(const Frame& frame, std::uint32_t count);
  State finish();
  bool first_visit(Reading at);
  std::uint32_t frame_of(NodeId node, std::uint32_t count, std::uint32_t parent);
  std::uint32_t copy_frame(std::span<const Frame> frames, std::uint32_t frame,
                           std::vector<std::uint32_t>& copies);

  // How many characters of one kind of text can follow: `sure` can, more than `most` cannot.
  struct Run {
    std::uint32_t sure = 0;
    std::uint32_t most = kUnbounded;
  };
  Run find_run(State state, Text text);
  std::uint32_t run_of(Reading reading, Text text) const;
  bool takes(NodeId node, Text text);
  void find_mask(State state, std::span<std::uint64_t> mask);
  // As walk(), and remembers what a turn of a counted repeat found for the other turns.
  void walk_once(const TokenTree& tree, State state, std::span<std::uint64_t> mask);
  // How many bytes the longest text has that the grammar and a token have in common.
  std::uint32_t walk(const TokenTree& tree, State state, std::span<std::uint64_t> mask);
  bool takes_all(const TokenTree::Node& node, State state);
  bool is_turn(std::uint32_t frame) const;
  bool alike(std::uint32_t a, std::uint32_t b, std::uint32_t bytes) const;
  enum class Stage : std::uint8_t { kBelow, kWithin, kOther };
  Stage stage_of(const Frame& turn, std::uint32_t bytes) const;
  // Limits what is found out from here on, and ends that: false where it was more.
  void begin_work();
  bool end_work();
  // About so many edges are looked at.
  void look_at(std::size_t edges) { steps_ += edges / kEdgesOfStep; }
  bool exhausted() const {
    return steps_ > step_limit_ || frames_.size() > frame_limit_ || states_.size() > state_limit_;
  }

  GrammarPtr grammar_;
  std::shared_ptr<const Vocabulary> vocabulary_;
  std::size_t classes_;
  std::array<ByteSet, kTexts.size()> first_bytes_;  // of the characters of each kind of text
  State start_ = kDead;

  std::vector<Frame> frames_;
  Index frame_index_;
  std::vector<Reading> readings_;
  std::vector<StateInfo> states_;
  Index state_index_;
  std::vector<State> transitions_;  // [classes_] of each state
  std::vector<Mask> masks_;
  std::size_t masks_used_ = 0;
  std::vector<State*> held_;
  std::vector<Walk> walks_;

  // Of the closure that is being computed.
  std::vector<Reading> todo_;
  std::vector<Reading> found_;
  std::vector<std::uint32_t> stamps_;  // a hash set of `visited_` that is emptied by a new stamp
  std::vector<Reading> visited_;
  std::size_t visited_count_ = 0;
  std::uint32_t stamp_ = 0;
  bool accepts_ = false;
  bool overflow_ = false;
  std::uint64_t last_step_ = 0;  // from which on it overflows

  std::uint64_t steps_ = 0;
  std::uint64_t step_limit_ = ~std::uint64_t{0};
  std::size_t frame_limit_ = ~std::size_t{0};
  std::size_t state_limit_ = ~std::size_t{0};
  std::vector<Level> path_;  // walk()'s
};

}  // namespace ollama::grammar
