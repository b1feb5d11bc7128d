// What is found out of a program once: what can end, what recurs without reading, which bytes are
// told apart, where JSON strings are read.
#include <algorithm>
#include <deque>
#include <unordered_set>

#include "grammar/builder.h"

namespace ollama::grammar {
namespace {

constexpr std::uint16_t kNoEnd = kMaxDepth + 1;
// Each empty turn of a repeat is a reading of its own.
constexpr std::uint32_t kMaxEmptyTurns = 64;
// Choices at one place that are looked through for runs of characters.
constexpr std::size_t kMostReachable = 256;

class Analysis {
 public:
  explicit Analysis(Grammar& grammar)
      : g_(grammar), users_(grammar.nodes.size()), seen_(grammar.nodes.size()) {}

  Result<> run() {
    find_users();
    find_nullable();
    OLLAMA_TRY(check_repeats());
    OLLAMA_TRY(check_recursion());
    find_need();
    if (g_.need[g_.start()] == kNoEnd) {
      return fail(ErrorCode::kInvalidArgument,
                  "nothing finite can be said: what must be there leads back to itself, or nests "
                  "more than {} levels deep",
                  kMaxDepth);
    }
    find_classes();
    find_runs();
    return {};
  }

 private:
  const Node& node(NodeId id) const { return g_.nodes[id]; }
  NodeId callee(const Node& call) const { return g_.rules[call.a].entry; }
  std::span<const NodeId> targets(const Node& split) const {
    return std::span(g_.targets).subspan(split.a, split.b - split.a);
  }
  std::span<const Grammar::Edge> edges(const Node& node) const {
    return std::span(g_.edges).subspan(node.a, node.b - node.a);
  }

  // Calls visit with each node that `n`'s own properties follow from.
  template <typename Visit>
  void for_each_source(const Node& n, Visit visit) const {
    switch (n.kind) {
      case NodeKind::kSwitch:
        for (const auto& edge : edges(n)) visit(edge.target);
        break;
      case NodeKind::kSplit:
        for (const NodeId target : targets(n)) visit(target);
        break;
      case NodeKind::kCall:
        visit(callee(n));
        visit(n.b);
        break;
      case NodeKind::kRepeat:
        visit(n.a);
        visit(n.b);
        break;
      case NodeKind::kReturn:
      case NodeKind::kNever:
        break;
    }
  }

  void find_users() {
    for (NodeId id = 0; id < g_.nodes.size(); ++id) {
      for_each_source(node(id), [&](NodeId source) { users_[source].push_back(id); });
    }
  }

  // Evaluates every node, and again those whose sources changed. `update` says whether a node did.
  template <typename Update>
  void settle(Update update) {
    std::deque<NodeId> queue;
    std::vector<bool> queued(g_.nodes.size(), true);
    for (NodeId id = 0; id < g_.nodes.size(); ++id) queue.push_back(id);
    while (!queue.empty()) {
      const NodeId id = queue.front();
      queue.pop_front();
      queued[id] = false;
      if (!update(id)) continue;
      for (const NodeId user : users_[id]) {
        if (!queued[user]) queue.push_back(user);
        queued[user] = true;
      }
    }
  }

  // Which nodes lead to the end of their rule without a byte.
  void find_nullable() {
    nullable_.assign(g_.nodes.size(), false);
    settle([&](NodeId id) {
      const Node& n = node(id);
      bool value = n.kind == NodeKind::kReturn;
      if (n.kind == NodeKind::kSplit) {
        value = std::ranges::any_of(targets(n), [&](NodeId t) { return nullable_[t]; });
      } else if (n.kind == NodeKind::kCall) {
        value = nullable_[callee(n)] && nullable_[n.b];
      } else if (n.kind == NodeKind::kRepeat) {
        value = skips(n) && nullable_[n.b];
      }
      const bool changed = value != nullable_[id];
      nullable_[id] = value;
      return changed;
    });
  }
  bool skips(const Node& repeat) const {
    return g_.bounds[repeat.c].min == 0 || nullable_[repeat.a];
  }

  Result<> check_repeats() {
    for (const Node& n : g_.nodes) {
      if (n.kind != NodeKind::kRepeat || !nullable_[n.a]) continue;
      auto& [min, max, empty_turns] = g_.bounds[n.c];
      empty_turns = true;
      if ((max == kUnbounded ? min : max) > kMaxEmptyTurns) {
        return fail(ErrorCode::kInvalidArgument,
                    "a part that can be empty is repeated more than {} times: use * for it, or let "
                    "the part not be empty",
                    kMaxEmptyTurns);
      }
    }
    return {};
  }

  // The rules that can be called from `entry` before a byte is read.
  std::vector<std::uint32_t> first_calls(NodeId entry) const {
    std::vector<std::uint32_t> calls;
    std::vector<NodeId> todo{entry};
    std::vector<bool>& seen = seen_;
    std::vector<NodeId> marked;
    while (!todo.empty()) {
      const NodeId id = todo.back();
      todo.pop_back();
      if (seen[id]) continue;
      seen[id] = true;
      marked.push_back(id);
      const Node& n = node(id);
      if (n.kind == NodeKind::kSplit) {
        todo.insert(todo.end(), targets(n).begin(), targets(n).end());
      } else if (n.kind == NodeKind::kCall) {
        calls.push_back(n.a);
        if (nullable_[callee(n)]) todo.push_back(n.b);
      } else if (n.kind == NodeKind::kRepeat) {
        todo.push_back(n.a);
        if (skips(n)) todo.push_back(n.b);
      }
    }
    for (const NodeId id : marked) seen[id] = false;
    return calls;
  }

  // A depth-first search for a cycle of such calls.
  Result<> check_recursion() {
    enum class Mark : std::uint8_t { kNew, kOpen, kDone };
    std::vector<Mark> marks(g_.rules.size(), Mark::kNew);
    struct Visit {
      std::uint32_t rule;
      std::vector<std::uint32_t> calls;
      std::size_t next = 0;
    };
    for (std::uint32_t first = 0; first < g_.rules.size(); ++first) {
      if (marks[first] != Mark::kNew) continue;
      std::vector<Visit> path;
      const auto open = [&](std::uint32_t rule) {
        marks[rule] = Mark::kOpen;
        path.push_back({rule, first_calls(g_.rules[rule].entry)});
      };
      open(first);
      while (!path.empty()) {
        Visit& top = path.back();
        if (top.next == top.calls.size()) {
          marks[top.rule] = Mark::kDone;
          path.pop_back();
          continue;
        }
        const std::uint32_t called = top.calls[top.next++];
        if (marks[called] == Mark::kOpen) {
          return fail(ErrorCode::kInvalidArgument,
                      "'{}' leads back to itself before anything is read (left recursion)",
                      g_.rules[called].name);
        }
        if (marks[called] == Mark::kNew) open(called);
      }
    }
    return {};
  }

  void find_need() {
    g_.need.assign(g_.nodes.size(), kNoEnd);
    const auto deeper = [](std::uint16_t need) {
      return std::min<std::uint16_t>(kNoEnd, static_cast<std::uint16_t>(need + 1));
    };
    settle([&](NodeId id) {
      const Node& n = node(id);
      std::uint16_t value = n.kind == NodeKind::kReturn ? 0 : kNoEnd;
      if (n.kind == NodeKind::kSplit) {
        for (const NodeId target : targets(n)) value = std::min(value, g_.need[target]);
      } else if (n.kind == NodeKind::kSwitch) {
        for (const auto& edge : edges(n)) value = std::min(value, g_.need[edge.target]);
      } else if (n.kind == NodeKind::kCall) {
        const std::uint16_t inner = g_.need[callee(n)];
        const bool last = node(n.b).kind == NodeKind::kReturn;
        value = std::max(last ? inner : deeper(inner), g_.need[n.b]);
      } else if (n.kind == NodeKind::kRepeat) {
        value = g_.need[n.b];
        if (g_.bounds[n.c].min > 0) value = std::max(value, deeper(g_.need[n.a]));
      }
      const bool changed = value != g_.need[id];
      g_.need[id] = value;
      return changed;
    });
  }

  // Splits the bytes by one set after the other.
  void find_classes() {
    std::array<std::uint16_t, 256> classes{};
    std::uint16_t count = 1;
    std::unordered_set<ByteSet> sets;
    for (const auto& edge : g_.edges) sets.insert(edge.bytes);
    for (const ByteSet& set : sets) {
      if (count == 256) break;
      std::array<int, 256> inside{};  // the new class of an old one's bytes in the set, or 0
      std::array<bool, 256> outside{};
      for (unsigned b = 0; b < 256; ++b) {
        if (!set[b]) outside[classes[b]] = true;
      }
      for (unsigned b = 0; b < 256; ++b) {
        const std::uint16_t old = classes[b];
        if (!set[b] || !outside[old]) continue;
        if (inside[old] == 0) inside[old] = count++;
        classes[b] = static_cast<std::uint16_t>(inside[old]);
      }
    }
    g_.class_byte.assign(count, 0);
    for (unsigned b = 0; b < 256; ++b) {
      g_.byte_class[b] = static_cast<std::uint8_t>(classes[b]);
      g_.class_byte[classes[b]] = static_cast<std::uint8_t>(b);
    }
  }

  // Where `from` leads by choices alone; empty where that is more than is worth knowing.
  std::vector<NodeId> reachable(NodeId from) const {
    std::vector<NodeId> found;
    const auto add = [&](NodeId id) {
      if (!seen_[id]) found.push_back(id);
      seen_[id] = true;
      return found.size() <= kMostReachable;
    };
    bool all = add(from);
    for (std::size_t i = 0; i < found.size() && all; ++i) {
      const Node& n = node(found[i]);
      if (n.kind == NodeKind::kSplit) all = std::ranges::all_of(targets(n), add);
    }
    for (const NodeId id : found) seen_[id] = false;
    if (!all) found.clear();
    return found;
  }

  void find_runs() {
    constexpr NodeId kNowhere = ~NodeId{0};
    std::vector<NodeId> after(g_.nodes.size(), kNowhere);  // each switch that takes characters
    for (NodeId id = 0; id < g_.nodes.size(); ++id) {
      if (g_.characters[id].all_of) after[id] = after_one(id);
    }
    std::vector<bool> done(g_.nodes.size());
    std::vector<bool> ends_turn(g_.nodes.size());
    for (const NodeId next : after) {
      if (next == kNowhere || done[next]) continue;
      done[next] = true;
      const std::vector<NodeId> reached = reachable(next);
      for (const NodeId id : reached) {
        if (after[id] == next) g_.characters[id].loops = true;
      }
      ends_turn[next] = !reached.empty() && std::ranges::all_of(reached, [&](NodeId id) {
        return node(id).kind == NodeKind::kReturn || node(id).kind == NodeKind::kSplit;
      });
    }
    for (NodeId id = 0; id < g_.nodes.size(); ++id) {
      if (node(id).kind != NodeKind::kRepeat) continue;
      for (const NodeId inner : reachable(node(id).a)) {
        if (after[inner] != kNowhere && ends_turn[after[inner]]) {
          g_.characters[inner].turn_of = id;
        }
      }
    }
  }
  // Where a character leads; the same for all of them.
  NodeId after_one(NodeId id) const {
    for (const auto& edge : edges(node(id))) {
      if (edge.bytes['a']) return edge.target;
    }
    return 0;
  }

  Grammar& g_;
  std::vector<std::vector<NodeId>> users_;
  std::vector<bool> nullable_;
  mutable std::vector<bool> seen_;  // scratch, all false between calls
};

}  // namespace

Result<> analyse(Grammar& grammar) { return Analysis(grammar).run(); }

}  // namespace ollama::grammar
