#include "grammar/builder.h"

#include <algorithm>

#include "tokenizer/utf8.h"

namespace ollama::grammar {
namespace {

// A program of this size takes a few tens of megabytes and milliseconds to analyse.
constexpr std::size_t kMaxNodes = 200'000;
constexpr std::size_t kMaxEdges = 500'000;
// What the expressions may hold, and the work of spelling the sets among them.
constexpr std::size_t kMaxItems = 1'000'000;
constexpr std::size_t kMaxSequences = 500'000;
// What is cheaper to copy than to call.
constexpr std::size_t kSmall = 24;

}  // namespace

std::string shortened(std::string_view text, std::size_t most) {
  if (text.size() <= most) return std::string(text);
  while (most > 0 && tokenizer::utf8::is_continuation(text[most])) --most;
  return std::string(text.substr(0, most)) + "...";
}

Builder::Builder() : items_{{Kind::kEmpty}, {Kind::kNever}} {
  add_node({.kind = NodeKind::kNever});   // node 0
  add_node({.kind = NodeKind::kReturn});  // node 1
}

Expression Builder::add(Kind kind, std::uint32_t a, std::uint32_t b, std::size_t weight) {
  if (items_.size() >= kMaxItems) {
    too_large_ = true;
    return kNever;
  }
  items_.push_back({kind, a, b, std::min(weight, kMaxNodes)});
  return static_cast<Expression>(items_.size() - 1);
}

Expression Builder::add_list(Kind kind, std::span<const Expression> parts) {
  if (children_.size() + parts.size() > kMaxItems) {
    too_large_ = true;
    return kNever;
  }
  const auto first = static_cast<std::uint32_t>(children_.size());
  // The parts may be children themselves.
  const std::vector<Expression> copy(parts.begin(), parts.end());
  children_.insert(children_.end(), copy.begin(), copy.end());
  std::size_t weight = 1;
  for (const Expression part : copy) weight += item(part).weight;
  return add(kind, first, static_cast<std::uint32_t>(children_.size()), weight);
}

Expression Builder::literal(std::string_view bytes) {
  if (bytes.empty()) return kEmpty;
  literal_bytes_ += bytes.size();
  if (literal_bytes_ > kMaxItems) {
    too_large_ = true;
    return kNever;
  }
  literals_.emplace_back(bytes);
  return add(Kind::kLiteral, static_cast<std::uint32_t>(literals_.size() - 1), 0, bytes.size());
}

Expression Builder::characters(const CodeSet& set) {
  if (set.empty()) return kNever;
  ranges_ += set.ranges().size();
  if (ranges_ > kMaxItems) {
    too_large_ = true;
    return kNever;
  }
  sets_.push_back(set);
  const bool ascii = set.ranges().back().last < 0x80;
  return add(Kind::kSet, static_cast<std::uint32_t>(sets_.size() - 1), 0, ascii ? 1 : 12);
}

Expression Builder::sequence(std::span<const Expression> parts) {
  std::vector<Expression> kept;
  for (const Expression part : parts) {
    if (part == kNever) return kNever;
    if (part != kEmpty) kept.push_back(part);
  }
  if (kept.empty()) return kEmpty;
  return kept.size() == 1 ? kept.front() : add_list(Kind::kSequence, kept);
}

Expression Builder::choice(std::span<const Expression> options) {
  std::vector<Expression> kept;
  for (const Expression option : options) {
    if (option != kNever &&
        !std::ranges::contains(std::span(kept).last(std::min<std::size_t>(kept.size(), 8)),
                               option)) {
      kept.push_back(option);
    }
  }
  if (kept.empty()) return kNever;
  return kept.size() == 1 ? kept.front() : add_list(Kind::kChoice, kept);
}

Expression Builder::literals(std::vector<std::string> texts) {
  std::ranges::sort(texts);
  const auto [first, last] = std::ranges::unique(texts);
  texts.erase(first, last);
  return literal_tree(texts, 0);
}

// NOLINTNEXTLINE(misc-no-recursion): as deep as texts are prefixes of one another
Expression Builder::literal_tree(std::span<const std::string> texts, std::size_t from) {
  std::vector<Expression> options;
  while (!texts.empty()) {
    const std::string& text = texts.front();
    if (text.size() == from) {
      options.push_back(kEmpty);
      texts = texts.subspan(1);
      continue;
    }
    const auto same = static_cast<std::size_t>(
        std::ranges::find_if(texts, [&](const auto& t) { return t[from] != text[from]; }) -
        texts.begin());
    // In a sorted range, what the first and the last have in common all have.
    const std::string& other = texts[same - 1];
    std::size_t to = from;
    while (to < text.size() && to < other.size() && text[to] == other[to]) ++to;
    const std::string_view prefix = std::string_view(text).substr(from, to - from);
    options.push_back(sequence({literal(prefix), literal_tree(texts.first(same), to)}));
    texts = texts.subspan(same);
  }
  return choice(options);
}

Expression Builder::repeat(Expression part, std::uint32_t min, std::uint32_t max) {
  if (max == 0 || part == kEmpty) return kEmpty;
  if (min > max) return kNever;
  if (part == kNever) return min == 0 ? kEmpty : kNever;
  if (min == 1 && max == 1) return part;
  if (min == 0 && max == 1) return optional(part);
  if (min == 1 && max == kUnbounded) return sequence({part, repeat(part, 0, kUnbounded)});
  program_.bounds.push_back({min, max});
  const std::array<Expression, 1> body{part};
  const Expression list = add_list(Kind::kSequence, body);
  return list == kNever
             ? kNever
             : add(Kind::kRepeat, item(list).a,
                   static_cast<std::uint32_t>(program_.bounds.size() - 1), item(list).weight);
}

RuleId Builder::declare(std::string_view name) {
  program_.rules.push_back({.name = shortened(name)});
  bodies_.push_back(kNever);
  return static_cast<RuleId>(bodies_.size() - 1);
}

void Builder::define(RuleId rule, Expression body) {
  bodies_[static_cast<std::uint32_t>(rule)] = body;
}

Expression Builder::call(RuleId rule) { return add(Kind::kCall, static_cast<std::uint32_t>(rule)); }

Expression Builder::shared(Expression part, std::string_view name) {
  if (item(part).weight <= kSmall) return part;
  const RuleId rule = declare(name);
  define(rule, part);
  return call(rule);
}

// ---- The program

NodeId Builder::add_node(Node node) {
  if (program_.nodes.size() >= kMaxNodes) {
    too_large_ = true;
    return 0;
  }
  program_.nodes.push_back(node);
  program_.characters.emplace_back();
  return static_cast<NodeId>(program_.nodes.size() - 1);
}

// The node where `e` begins that leads to `next`.
NodeId Builder::emit(Expression e, NodeId next) {  // NOLINT(misc-no-recursion)
  if (too_large_) return 0;
  const Item it = item(e);
  switch (it.kind) {
    case Kind::kEmpty:
      return next;
    case Kind::kNever:
      return 0;
    case Kind::kLiteral:
      return emit_literal(literals_[it.a], next);
    case Kind::kSet:
      return emit_set(sets_[it.a], next);
    case Kind::kSequence:
      for (std::uint32_t i = it.b; i > it.a; --i) next = emit(children_[i - 1], next);
      return next;
    case Kind::kChoice:
      return emit_choice(it, next);
    case Kind::kRepeat:
      return emit_repeat(it, next);
    case Kind::kCall:
      return add_node({.kind = NodeKind::kCall, .a = it.a, .b = next});
  }
  return 0;
}

NodeId Builder::emit_switch(std::span<const Grammar::Edge> edges) {
  if (program_.edges.size() + edges.size() > kMaxEdges) {
    too_large_ = true;
    return 0;
  }
  const auto first = static_cast<std::uint32_t>(program_.edges.size());
  program_.edges.insert(program_.edges.end(), edges.begin(), edges.end());
  return add_node({.kind = NodeKind::kSwitch,
                   .a = first,
                   .b = static_cast<std::uint32_t>(program_.edges.size())});
}

NodeId Builder::emit_split(std::span<const NodeId> targets) {
  const auto first = static_cast<std::uint32_t>(program_.targets.size());
  program_.targets.insert(program_.targets.end(), targets.begin(), targets.end());
  return add_node({.kind = NodeKind::kSplit,
                   .a = first,
                   .b = static_cast<std::uint32_t>(program_.targets.size())});
}

NodeId Builder::emit_literal(std::string_view bytes, NodeId next) {
  for (std::size_t i = bytes.size(); i > 0 && !too_large_; --i) {
    Grammar::Edge edge{.target = next};
    edge.bytes.set(static_cast<unsigned char>(bytes[i - 1]));
    next = emit_switch(std::span(&edge, 1));
  }
  return next;
}

// One switch for the first byte; sequences that end alike share the nodes of their ends.
NodeId Builder::emit_set(const CodeSet& set, NodeId next) {
  std::vector<ByteSequence> sequences;
  for (const CodeRange& range : set.ranges()) append_utf8_sequences(range, sequences);
  sequences_ += sequences.size();
  if (sequences_ > kMaxSequences) {
    too_large_ = true;
    return 0;
  }
  std::map<std::array<std::uint32_t, 3>, NodeId> tails;
  std::map<NodeId, ByteSet> first;
  const auto add_range = [](ByteSet& bytes, ByteRange range) {
    for (unsigned b = range.first; b <= range.last; ++b) bytes.set(b);
  };
  for (const ByteSequence& sequence : sequences) {
    NodeId target = next;
    for (std::size_t i = sequence.size; i > 1; --i) {
      const ByteRange range = sequence.ranges[i - 1];
      NodeId& tail = tails[{range.first, range.last, target}];
      if (tail == 0) {
        Grammar::Edge edge{.target = target};
        add_range(edge.bytes, range);
        tail = emit_switch(std::span(&edge, 1));
      }
      target = tail;
    }
    add_range(first[target], sequence.ranges[0]);
  }
  std::vector<Grammar::Edge> edges;
  for (const auto& [target, bytes] : first) edges.push_back({bytes, target});
  const NodeId node = emit_switch(edges);
  for (const Text text : kTexts) {
    if (set.contains(characters_of(text))) program_.characters[node].all_of = text;
  }
  return node;
}

NodeId Builder::emit_choice(const Item& choice, NodeId next) {  // NOLINT(misc-no-recursion)
  std::vector<NodeId> targets;
  for (std::uint32_t i = choice.a; i < choice.b; ++i) targets.push_back(emit(children_[i], next));
  if (too_large_) return 0;
  // What only waits for a byte is one reading instead of many. Kinds of text stay by themselves,
  // since they are recognised.
  const auto joined = std::ranges::partition(targets, [&](NodeId target) {
    return program_.nodes[target].kind != NodeKind::kSwitch || program_.characters[target].all_of;
  });
  if (joined.size() < 2) return emit_split(targets);
  std::vector<Grammar::Edge> edges;
  for (const NodeId target : joined) {
    const Node& node = program_.nodes[target];
    edges.insert(edges.end(), program_.edges.begin() + node.a, program_.edges.begin() + node.b);
  }
  targets.resize(targets.size() - joined.size());
  targets.push_back(emit_switch(edges));
  return targets.size() == 1 ? targets.front() : emit_split(targets);
}

NodeId Builder::emit_repeat(const Item& repeat, NodeId next) {  // NOLINT(misc-no-recursion)
  const Expression body = children_[repeat.a];
  const auto [min, max, _] = program_.bounds[repeat.b];
  if (min == 0 && max == kUnbounded) {
    // A loop of nodes needs no count.
    const std::array<NodeId, 2> targets{0, next};
    const NodeId loop = emit_split(targets);
    const NodeId entry = emit(body, loop);
    program_.targets[program_.nodes[loop].a] = entry;
    return loop;
  }
  const NodeId entry = emit(body, 1);
  return add_node({.kind = NodeKind::kRepeat, .a = entry, .b = next, .c = repeat.b});
}

Result<GrammarPtr> Builder::finish(RuleId root) {
  for (std::size_t i = 0; i < bodies_.size(); ++i) {
    program_.rules[i].entry = emit(bodies_[i], 1);
  }
  if (too_large_) return fail(kTooLarge);
  program_.root = static_cast<std::uint32_t>(root);
  OLLAMA_TRY(analyse(program_));
  return std::make_shared<const Grammar>(std::move(program_));
}

}  // namespace ollama::grammar
