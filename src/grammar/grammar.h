// Grammars that bound what a model may say: JSON of a schema, or any language in GBNF. A Grammar is
// a compiled program over bytes; an Automaton (automaton.h) runs it, a Constraint (constraint.h)
// asks it which tokens may come next.
//
// A program is a set of rules, each a graph of nodes. Rules call one another, so what is still to
// come is a stack; several ways to read the same text are several stacks at once.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/types.h"
#include "base/error.h"
#include "grammar/code_set.h"

namespace ollama::grammar {

using NodeId = std::uint32_t;
using ByteSet = std::bitset<256>;

inline constexpr std::uint32_t kUnbounded = std::numeric_limits<std::uint32_t>::max();
// Calls inside calls. JSON nests no deeper, which is within what parsers take.
inline constexpr std::uint16_t kMaxDepth = 200;

enum class NodeKind : std::uint8_t {
  kSwitch,  // takes a byte; edges [a, b) say where it leads
  kSplit,   // any of targets [a, b)
  kCall,    // rule a, then node b
  kRepeat,  // the body at node a, bounds c times, then node b
  kReturn,  // the end of a rule or of a repeated body
  kNever,   // nothing leads on
};

struct Node {
  NodeKind kind = NodeKind::kNever;
  std::uint32_t a = 0;
  std::uint32_t b = 0;
  std::uint32_t c = 0;
};

// Immutable; safe to use from several threads at once. Made by the functions below.
struct Grammar {
  struct Edge {
    ByteSet bytes;
    NodeId target = 0;
  };
  struct Bounds {
    std::uint32_t min = 0;
    std::uint32_t max = kUnbounded;
    bool empty_turns = false;  // whether a turn may take no byte
  };
  struct Rule {
    std::string name;
    NodeId entry = 0;
  };
  // Of a switch that takes every character of some kind of text. All of them lead to one node.
  struct Characters {
    std::optional<Text> all_of;  // the largest kind
    bool loops = false;          // it comes back to itself after each, without end
    // The repeat of which such a character is a whole turn, else 0 (which is never one).
    NodeId turn_of = 0;
  };

  NodeId start() const { return rules[root].entry; }

  std::vector<Node> nodes;
  std::vector<Edge> edges;
  std::vector<NodeId> targets;
  std::vector<Bounds> bounds;
  std::vector<Rule> rules;
  std::uint32_t root = 0;

  // Of each node: how many more calls deep its shortest way to the end of its rule goes;
  // kMaxDepth + 1 where there is none. Nothing that does not fit is entered, so that whatever has
  // been begun can be ended.
  std::vector<std::uint16_t> need;
  std::vector<Characters> characters;  // of each node

  // Bytes that no switch tells apart are one class.
  std::array<std::uint8_t, 256> byte_class{};
  std::vector<std::uint8_t> class_byte;  // one byte of each class
};

using GrammarPtr = std::shared_ptr<const Grammar>;

// A request's `format`: "json", a JSON schema, or the text of a GBNF grammar. Errors:
// kInvalidArgument, whose message says where in the schema or grammar and why.
Result<GrammarPtr> compile_format(const api::Json& format);

// Any JSON object.
Result<GrammarPtr> compile_json();

// JSON that validates against `schema`. Properties come in the schema's order; oneOf is taken for
// anyOf. Refused: keywords that are not enforced, and schemas that no finite value meets.
Result<GrammarPtr> compile_schema(const api::Json& schema);

// llama.cpp's notation; the rule `root` is the start. Left recursion is refused.
Result<GrammarPtr> compile_gbnf(std::string_view text);

}  // namespace ollama::grammar
