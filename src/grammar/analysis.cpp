// What is found out of a program once: what can end, what recurs without reading, which bytes are
// told apart, where JSON strings are read.
#include <algorithm>
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

  // Calls visit with each node that `n` leads to, from which its own properties follow.
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

  // Which nodes lead to the end of their rule without a byte. Each is looked at when something that
  // it leads to turns out to.
  void find_nullable() {
    nullable_.assign(g_.nodes.size(), false);
    std::vector<NodeId> todo;
    const auto mark = [&](NodeId id) {
      if (!nullable_[id]) todo.push_back(id);
      nullable_[id] = true;
    };
    for (NodeId id = 0; id < g_.nodes.size(); ++id) {
      if (node(id).kind == NodeKind::kReturn) mark(id);
    }
    while (!todo.empty()) {
      const NodeId id = todo.back();
      todo.pop_back();
      for (const NodeId user : users_[id]) {
        const Node& n = node(user);
        const bool leads_on =
            n.kind == NodeKind::kSplit ||
            (n.kind == NodeKind::kCall && nullable_[callee(n)] && nullable_[n.b]) ||
            (n.kind == NodeKind::kRepeat && skips(n) && nullable_[n.b]);
        if (leads_on) mark(user);
      }
    }
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

  // From the least need up, so that the first that is found for a node is its own (Knuth 1977, "A
  // generalization of Dijkstra's algorithm").
  void find_need() {
    g_.need.assign(g_.nodes.size(), kNoEnd);
    std::array<std::vector<NodeId>, kNoEnd> found;
    for (NodeId id = 0; id < g_.nodes.size(); ++id) {
      if (node(id).kind == NodeKind::kReturn) found[0].push_back(id);
    }
    for (std::uint16_t need = 0; need < kNoEnd; ++need) {
      for (std::size_t i = 0; i < found[need].size(); ++i) {  // which grows
        const NodeId id = found[need][i];
        if (g_.need[id] != kNoEnd) continue;
        g_.need[id] = need;
        for (const NodeId user : users_[id]) {
          const std::uint16_t value = need_of(node(user), need);
          if (g_.need[user] == kNoEnd && value != kNoEnd) found[value].push_back(user);
        }
      }
    }
  }
  // Of a node that leads to one whose need is `least`, the least of all that are not known before.
  std::uint16_t need_of(const Node& n, std::uint16_t least) const {
    const auto deeper = [](std::uint16_t need) {
      return std::min<std::uint16_t>(kNoEnd, static_cast<std::uint16_t>(need + 1));
    };
    if (n.kind == NodeKind::kCall) {
      const std::uint16_t inner = g_.need[callee(n)];
      const bool last = node(n.b).kind == NodeKind::kReturn;
      return std::max(last ? inner : deeper(inner), g_.need[n.b]);
    }
    if (n.kind == NodeKind::kRepeat) {
      const std::uint16_t turn = g_.bounds[n.c].min > 0 ? deeper(g_.need[n.a]) : 0;
      return std::max(turn, g_.need[n.b]);
    }
    return least;
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
