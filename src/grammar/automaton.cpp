#include "grammar/automaton.h"

#include <algorithm>
#include <functional>

namespace ollama::grammar {
namespace {

// Readings of one state. Grammars of JSON have a few; one for each property that may come next.
constexpr std::size_t kMaxReadings = 4096;
// Of finding them, those included that come to nothing.
constexpr std::size_t kMaxVisited = 16 * kMaxReadings;
constexpr std::uint64_t kMaxSteps = 4 * kMaxVisited;
// What may be kept from token to token, and what one mask or token may add to it.
constexpr std::size_t kKeptStates = 8192;
constexpr std::size_t kKeptReadings = 1'000'000;
constexpr std::size_t kKeptFrames = 100'000;
constexpr std::size_t kKeptMasks = 512;
constexpr std::size_t kKeptWalks = 128;
constexpr std::uint64_t kMaskSteps = 1'000'000;  // some dozen milliseconds
constexpr std::size_t kMaskFrames = 500'000;
constexpr std::size_t kMaskStates = 65'536;

constexpr std::uint64_t mix(std::uint64_t hash, std::uint64_t value) {
  hash = (hash ^ value) * 0x9E3779B97F4A7C15ULL;
  return hash ^ (hash >> 29);
}

}  // namespace

// ---- The index

// The place of the value that equals, or where its number is to be written (kEmptySlot is there).
template <typename Equals>
std::uint32_t* Automaton::Index::find(std::uint64_t hash, Equals equals) {
  if (2 * (used_ + 1) > slots_.size()) grow();
  for (std::size_t i = hash & (slots_.size() - 1);; i = (i + 1) & (slots_.size() - 1)) {
    Slot& slot = slots_[i];
    if (slot.value == kEmptySlot) {
      slot.hash = hash;
      ++used_;
      return &slot.value;
    }
    if (slot.hash == hash && equals(slot.value)) return &slot.value;
  }
}

void Automaton::Index::clear() {
  std::ranges::fill(slots_, Slot{});
  used_ = 0;
}

void Automaton::Index::grow() {
  std::vector<Slot> old(std::max<std::size_t>(256, 2 * slots_.size()));
  old.swap(slots_);
  for (const Slot& slot : old) {
    if (slot.value == kEmptySlot) continue;
    std::size_t i = slot.hash & (slots_.size() - 1);
    while (slots_[i].value != kEmptySlot) i = (i + 1) & (slots_.size() - 1);
    slots_[i] = slot;
  }
}

// ---- States

Automaton::Automaton(GrammarPtr grammar, std::shared_ptr<const Vocabulary> vocabulary)
    : grammar_(std::move(grammar)),
      vocabulary_(std::move(vocabulary)),
      classes_(grammar_->class_byte.size()),
      path_(vocabulary_->longest_piece() + 1) {
  for (const Text text : kTexts) {
    for (const CodeRange& range : characters_of(text).ranges()) {
      std::vector<ByteSequence> sequences;
      append_utf8_sequences(range, sequences);
      for (const ByteSequence& sequence : sequences) {
        for (unsigned b = sequence.ranges[0].first; b <= sequence.ranges[0].last; ++b) {
          first_bytes_[static_cast<std::size_t>(text)].set(b);
        }
      }
    }
  }
  stamps_.resize(1024);
  visited_.resize(1024);
  reset();
}

void Automaton::reset() {
  frames_.assign(1, Frame{});  // 0: nothing to return to
  frame_index_.clear();
  readings_.clear();
  states_.assign(1, StateInfo{});
  state_index_.clear();
  transitions_.assign(classes_, kDead);
  masks_used_ = 0;
  walks_.clear();
  begin();
  visit(grammar_->start(), 0);
  start_ = finish();
}

std::uint32_t Automaton::frame_of(NodeId node, std::uint32_t count, std::uint32_t parent) {
  const Frame frame{node, count, parent, frames_[parent].depth + 1};
  const std::uint64_t hash = mix(mix(mix(0, node), count), parent);
  std::uint32_t* slot =
      frame_index_.find(hash, [&](std::uint32_t i) { return frames_[i] == frame; });
  if (*slot == ~std::uint32_t{0}) {
    *slot = static_cast<std::uint32_t>(frames_.size());
    frames_.push_back(frame);
  }
  return *slot;
}

void Automaton::begin() {
  todo_.clear();
  found_.clear();
  accepts_ = false;
  overflow_ = false;
  visited_count_ = 0;
  last_step_ = steps_ + kMaxSteps;
  if (++stamp_ == 0) {  // once in four billion
    std::ranges::fill(stamps_, 0);
    stamp_ = 1;
  }
}

bool Automaton::first_visit(Reading at) {
  const std::size_t mask = stamps_.size() - 1;
  for (std::size_t i = mix(at.node, at.frame) & mask;; i = (i + 1) & mask) {
    if (stamps_[i] != stamp_) {
      stamps_[i] = stamp_;
      visited_[i] = at;
      break;
    }
    if (visited_[i] == at) return false;
  }
  if (2 * ++visited_count_ < stamps_.size()) return true;
  // Larger, with the same ones in it.
  std::vector<Reading> all;
  for (std::size_t i = 0; i < stamps_.size(); ++i) {
    if (stamps_[i] == stamp_) all.push_back(visited_[i]);
  }
  stamps_.assign(4 * stamps_.size(), 0);
  visited_.resize(stamps_.size());
  visited_count_ = 0;
  for (const Reading& reading : all) first_visit(reading);
  return true;
}

void Automaton::visit(NodeId node, std::uint32_t frame) {
  todo_.push_back({node, frame});
  while (!todo_.empty() && !overflow_) {
    const Reading at = todo_.back();
    todo_.pop_back();
    step(at);
  }
}

void Automaton::step(Reading at) {
  if (++steps_ > last_step_) overflow_ = true;
  // What could not be ended within the depth is not begun.
  if (frames_[at.frame].depth + grammar_->need[at.node] > kMaxDepth) return;
  if (!first_visit(at)) return;
  if (visited_count_ > kMaxVisited) overflow_ = true;
  const Node& node = grammar_->nodes[at.node];
  switch (node.kind) {
    case NodeKind::kSwitch:
      found_.push_back(at);
      look_at(node.b - node.a);
      if (found_.size() > kMaxReadings) overflow_ = true;
      break;
    case NodeKind::kSplit:
      for (std::uint32_t i = node.a; i < node.b; ++i) {
        todo_.push_back({grammar_->targets[i], at.frame});
      }
      break;
    case NodeKind::kCall: {
      // The last call of a rule returns to where the rule does: recursion to the right needs no
      // stack.
      const bool last = grammar_->nodes[node.b].kind == NodeKind::kReturn;
      const std::uint32_t frame = last ? at.frame : frame_of(node.b, 0, at.frame);
      todo_.push_back({grammar_->rules[node.a].entry, frame});
      break;
    }
    case NodeKind::kRepeat:
      end_turn({at.node, 0, at.frame, 0}, 0);
      break;
    case NodeKind::kReturn: {
      if (at.frame == 0) {
        accepts_ = true;
        break;
      }
      const Frame frame = frames_[at.frame];
      if (grammar_->nodes[frame.node].kind == NodeKind::kRepeat && frame.count > 0) {
        end_turn(frame, frame.count);
      } else {
        todo_.push_back({frame.node, frame.parent});
      }
      break;
    }
    case NodeKind::kNever:
      break;
  }
}

// After `count` turns of the repeat `frame.node` (of which 0 begin it): it ends, or the next turn
// begins. A frame's count is that of the turn under way, from 1, which tells it from a call's that
// goes on with a repeat.
void Automaton::end_turn(const Frame& frame, std::uint32_t count) {
  const Node& node = grammar_->nodes[frame.node];
  const auto [min, max, _] = grammar_->bounds[node.c];
  if (count >= min) todo_.push_back({node.b, frame.parent});
  if (count >= max) return;
  // Without an upper bound, all turns past the lower one are the same.
  const std::uint32_t turn = max == kUnbounded ? std::min(count + 1, std::max(min, 1U)) : count + 1;
  if (frames_[frame.parent].depth + 1U + grammar_->need[node.a] > kMaxDepth) return;
  todo_.push_back({node.a, frame_of(frame.node, turn, frame.parent)});
}

State Automaton::finish() {
  if (overflow_ || (found_.empty() && !accepts_)) return kDead;
  std::ranges::sort(found_);
  std::uint64_t hash = accepts_ ? 1 : 0;
  for (const Reading& reading : found_) hash = mix(mix(hash, reading.node), reading.frame);
  std::uint32_t* slot = state_index_.find(hash, [&](State state) {
    return states_[state].accepts == accepts_ && std::ranges::equal(readings(state), found_);
  });
  if (*slot == kUnknown) *slot = add_state();
  return *slot;
}

State Automaton::add_state() {
  const auto state = static_cast<State>(states_.size());
  const auto first = static_cast<std::uint32_t>(readings_.size());
  readings_.insert(readings_.end(), found_.begin(), found_.end());
  states_.push_back(
      {.first = first, .last = static_cast<std::uint32_t>(readings_.size()), .accepts = accepts_});
  // Bytes that no reading takes need not be asked for one by one.
  ByteSet taken;
  for (const Reading& reading : found_) {
    const Node& node = grammar_->nodes[reading.node];
    for (std::uint32_t e = node.a; e < node.b; ++e) taken |= grammar_->edges[e].bytes;
  }
  for (const std::uint8_t byte : grammar_->class_byte) {
    transitions_.push_back(taken[byte] ? kUnknown : kDead);
  }
  return state;
}

State Automaton::find_next(State from, std::uint8_t byte_class) {
  if (exhausted()) return kDead;  // and not remembered
  const std::uint8_t byte = grammar_->class_byte[byte_class];
  begin();
  for (std::uint32_t i = states_[from].first; i < states_[from].last; ++i) {
    const Reading reading = readings_[i];
    const Node& node = grammar_->nodes[reading.node];
    if (steps_ > step_limit_) return kDead;
    look_at(node.b - node.a);
    for (std::uint32_t e = node.a; e < node.b; ++e) {
      const Grammar::Edge& edge = grammar_->edges[e];
      if (edge.bytes[byte]) visit(edge.target, reading.frame);
    }
  }
  const State to = finish();
  transitions_[from * classes_ + byte_class] = to;
  return to;
}

State Automaton::next(State from, std::string_view bytes) {
  std::size_t i = 0;
  for (; i < bytes.size() && from != kDead; ++i) {
    const auto byte = static_cast<std::uint8_t>(bytes[i]);
    const State known = transitions_[from * classes_ + grammar_->byte_class[byte]];
    if (known == kUnknown) break;
    from = known;
  }
  if (i == bytes.size() || from == kDead) return from;
  begin_work();
  for (; i < bytes.size() && from != kDead; ++i) {
    from = next(from, static_cast<std::uint8_t>(bytes[i]));
  }
  end_work();
  return from;
}

void Automaton::begin_work() {
  step_limit_ = steps_ + kMaskSteps;
  frame_limit_ = frames_.size() + kMaskFrames;
  state_limit_ = states_.size() + kMaskStates;
}

bool Automaton::end_work() {
  const bool complete = !exhausted();
  step_limit_ = ~std::uint64_t{0};
  frame_limit_ = ~std::size_t{0};
  state_limit_ = ~std::size_t{0};
  return complete;
}

// ---- Masks

std::span<const std::uint64_t> Automaton::mask(State state) {
  if (states_[state].mask >= 0) return masks_[static_cast<std::size_t>(states_[state].mask)];
  if (masks_used_ == kKeptMasks) forget_masks();
  if (masks_used_ == masks_.size()) masks_.emplace_back(vocabulary_->words());
  Mask& mask = masks_[masks_used_];
  begin_work();
  find_mask(state, mask);
  if (!end_work()) return {};
  states_[state].mask = static_cast<std::int32_t>(masks_used_++);
  return mask;
}

void Automaton::forget_masks() {
  for (StateInfo& state : states_) state.mask = -1;
  masks_used_ = 0;
}

void Automaton::find_mask(State state, std::span<std::uint64_t> mask) {
  std::ranges::fill(mask, 0);
  const bool counted =
      std::ranges::any_of(readings(state), [&](const Reading& r) { return is_turn(r.frame); });
  const auto find = [&](const TokenTree& tree) {
    if (counted) {
      walk_once(tree, state, mask);
    } else {
      walk(tree, state, mask);
    }
  };
  for (const Text text : kTexts) {
    const auto groups = vocabulary_->groups(text);
    const Run run = find_run(state, text);
    if (run.most == 0) continue;
    if (run.sure == 0) {
      std::ranges::for_each(vocabulary_->trees(text), find);
      continue;
    }
    std::size_t sure = 0;
    while (sure < groups.size() && groups[sure].longest <= run.sure) ++sure;
    if (sure > 0) unite(mask, groups[sure - 1].up_to);
    for (std::size_t i = sure; i < groups.size() && groups[i].shortest <= run.most; ++i) {
      walk(groups[i].tree, state, mask);
    }
  }
  find(vocabulary_->others());
  if (states_[state].accepts) {
    for (const Token token : vocabulary_->ends()) set_bit(mask, token);
  }
}

void Automaton::walk_once(const TokenTree& tree, State state, std::span<std::uint64_t> mask) {
  const auto now = readings(state);
  for (const Walk& known : walks_) {
    if (known.tree == &tree &&
        std::ranges::equal(known.readings, now, [&](const Reading& a, const Reading& b) {
          return a.node == b.node && alike(a.frame, b.frame, known.bytes);
        })) {
      unite(mask, known.mask);
      return;
    }
  }
  Walk found{&tree, {now.begin(), now.end()}, 0, Mask(mask.size())};
  found.bytes = walk(tree, state, found.mask);
  unite(mask, found.mask);
  const auto serves_others = [&](const Reading& reading) {
    return is_turn(reading.frame) && stage_of(frames_[reading.frame], found.bytes) != Stage::kOther;
  };
  if (exhausted() || std::ranges::none_of(found.readings, serves_others)) return;
  if (walks_.size() == kKeptWalks) walks_.clear();
  walks_.push_back(std::move(found));
}

// Whether it is a turn of a counted repeat, each of which reads something.
bool Automaton::is_turn(std::uint32_t frame) const {
  const Frame& f = frames_[frame];
  const Node& node = grammar_->nodes[f.node];
  return f.count > 0 && node.kind == NodeKind::kRepeat && !grammar_->bounds[node.c].empty_turns;
}

// Whether what may follow within so many bytes is the same with either frame.
bool Automaton::alike(std::uint32_t a, std::uint32_t b, std::uint32_t bytes) const {
  if (a == b) return true;
  if (!is_turn(a) || !is_turn(b)) return false;
  const Frame& one = frames_[a];
  const Frame& other = frames_[b];
  if (one.node != other.node || one.parent != other.parent) return false;
  const Stage stage = stage_of(one, bytes);
  return stage != Stage::kOther && stage == stage_of(other, bytes);
}

// Where a turn stands to its repeat's bounds while so many bytes and one more that leads nowhere
// are read, each of which may end a turn.
Automaton::Stage Automaton::stage_of(const Frame& turn, std::uint32_t bytes) const {
  const Grammar::Bounds& bounds = grammar_->bounds[grammar_->nodes[turn.node].c];
  const std::uint32_t last = turn.count + bytes;
  if (last < bounds.min) return Stage::kBelow;
  return turn.count >= bounds.min && last < bounds.max ? Stage::kWithin : Stage::kOther;
}

std::uint32_t Automaton::walk(const TokenTree& tree, State state, std::span<std::uint64_t> mask) {
  const auto children = [&](const TokenTree::Node& node, State at) {
    return Level{node.first_child, node.first_child + node.children, at};
  };
  const auto allow = [&](std::uint32_t first, std::uint32_t last) {
    for (std::uint32_t t = first; t < last; ++t) set_bit(mask, tree.tokens[t]);
  };
  std::size_t deepest = 0;
  std::size_t depth = 0;  // bytes before the siblings that are looked at
  path_[0] = children(tree.nodes[0], state);
  for (;;) {
    Level& level = path_[depth];
    if (level.next == level.end) {
      if (depth == 0) return static_cast<std::uint32_t>(deepest);
      --depth;
      continue;
    }
    const TokenTree::Node& node = tree.nodes[level.next++];
    const State to = next(level.state, node.byte);
    if (to == kDead) continue;
    if (takes_all(node, to)) {
      deepest = std::max(deepest, depth + 1 + node.below);
      allow(node.first_token, node.last_token);
      continue;
    }
    deepest = std::max(deepest, depth + 1);
    allow(node.first_token, tree.own_end(node));
    if (node.children > 0) path_[++depth] = children(node, to);
  }
}

// Whether the whole branch below a node may follow, as far as that is known without a look at it.
bool Automaton::takes_all(const TokenTree::Node& node, State state) {
  constexpr std::uint32_t kWorthIt = 4;
  if (node.kind == kTexts.size() || node.below == TokenTree::kDeep ||
      node.last_token - node.first_token < kWorthIt) {
    return false;
  }
  StateInfo& info = states_[state];
  std::uint32_t& run = info.runs[node.kind];
  const auto asked = static_cast<std::uint8_t>(1U << node.kind);
  if ((info.asked_runs & asked) == 0) {
    for (const Reading& reading : readings(state)) {
      run = std::max(run, run_of(reading, static_cast<Text>(node.kind)));
    }
    info.asked_runs |= asked;
  }
  return run >= node.below;
}

// How many such characters this reading alone takes, at least.
std::uint32_t Automaton::run_of(Reading reading, Text text) const {
  const Grammar::Characters& characters = grammar_->characters[reading.node];
  if (!characters.all_of || *characters.all_of < text) return 0;
  if (characters.loops) return kUnbounded;
  const Frame& frame = frames_[reading.frame];
  const NodeId repeat = characters.turn_of;
  if (repeat == 0 || frame.node != repeat || frame.count == 0) return 1;
  const std::uint32_t max = grammar_->bounds[grammar_->nodes[repeat].c].max;
  return max == kUnbounded ? kUnbounded : max - frame.count + 1;
}

bool Automaton::takes(NodeId node, Text text) {
  const ByteSet& first = first_bytes_[static_cast<std::size_t>(text)];
  const Node& n = grammar_->nodes[node];
  look_at(n.b - n.a);
  for (std::uint32_t e = n.a; e < n.b; ++e) {
    if ((grammar_->edges[e].bytes & first).any()) return true;
  }
  return false;
}

Automaton::Run Automaton::find_run(State state, Text text) {
  Run run;
  std::size_t takers = 0;
  const Frame* turn = nullptr;  // of the longest, where each character is a turn of a repeat
  for (const Reading& reading : readings(state)) {
    if (exhausted()) break;
    if (!takes(reading.node, text)) continue;
    ++takers;
    const std::uint32_t length = run_of(reading, text);
    if (length <= run.sure) continue;
    run.sure = length;
    const Frame& frame = frames_[reading.frame];
    const NodeId repeat = grammar_->characters[reading.node].turn_of;
    turn = repeat != 0 && frame.node == repeat && frame.count > 0 ? &frame : nullptr;
  }
  if (takers == 0) return {0, 0};
  if (takers > 1 || turn == nullptr || run.sure == kUnbounded) return run;
  // The one reading is a repeat of single characters. What follows its last turn says whether a
  // longer text could go on.
  const Frame frame = *turn;
  begin();
  visit(grammar_->nodes[frame.node].b, frame.parent);
  if (!overflow_ &&
      std::ranges::none_of(found_, [&](const Reading& r) { return takes(r.node, text); })) {
    run.most = run.sure;
  }
  return run;
}

// ---- Forgetting

// The number that a frame of the old `frames` has now, those below it first.
std::uint32_t Automaton::copy_frame(std::span<const Frame> frames, std::uint32_t frame,
                                    std::vector<std::uint32_t>& copies) {
  std::vector<std::uint32_t> chain;
  for (; copies[frame] == kUnknown; frame = frames[frame].parent) chain.push_back(frame);
  std::uint32_t copy = copies[frame];
  for (std::size_t i = chain.size(); i > 0; --i) {
    const Frame& old = frames[chain[i - 1]];
    copy = copies[chain[i - 1]] = frame_of(old.node, old.count, copy);
  }
  return copy;
}

void Automaton::trim() {
  if (states_.size() <= kKeptStates && readings_.size() <= kKeptReadings &&
      frames_.size() <= kKeptFrames) {
    return;
  }
  const std::vector<Frame> frames = std::move(frames_);
  const std::vector<Reading> readings = std::move(readings_);
  const std::vector<StateInfo> states = std::move(states_);
  // Memory too: what one mask needed is not needed for long.
  frame_index_ = {};
  state_index_ = {};
  transitions_ = {};
  frames_ = {};
  readings_ = {};
  states_ = {};
  reset();
  std::vector<std::uint32_t> copies(frames.size(), kUnknown);
  copies[0] = 0;
  for (State* held : held_) {
    const StateInfo& old = states[*held];
    begin();
    for (std::uint32_t i = old.first; i < old.last; ++i) {
      found_.push_back({readings[i].node, copy_frame(frames, readings[i].frame, copies)});
    }
    accepts_ = old.accepts;
    *held = finish();
  }
}

}  // namespace ollama::grammar
