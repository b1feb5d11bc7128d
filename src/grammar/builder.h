// Building a Grammar from expressions. Internal to grammar: what the schema compiler, the regular
// expressions and the GBNF parser have in common.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/code_set.h"
#include "grammar/grammar.h"

namespace ollama::grammar {

inline constexpr ErrorConstant kTooLarge{ErrorCode::kInvalidArgument,
                                         "the grammar is too large: fewer or shorter alternatives, "
                                         "enum values or properties are needed"};

// The beginning of a text that is longer than `most` bytes, for messages.
std::string shortened(std::string_view text, std::size_t most = 80);

enum class Expression : std::uint32_t {};
enum class RuleId : std::uint32_t {};

// Expressions are values that may be used more than once; each use is a copy in the program.
class Builder {
 public:
  Builder();

  Expression empty() const { return kEmpty; }
  Expression never() const { return kNever; }
  Expression literal(std::string_view bytes);
  Expression characters(const CodeSet& set);
  Expression sequence(std::span<const Expression> parts);
  Expression sequence(std::initializer_list<Expression> parts) {
    return sequence(std::span(parts.begin(), parts.size()));
  }
  Expression choice(std::span<const Expression> options);
  Expression choice(std::initializer_list<Expression> options) {
    return choice(std::span(options.begin(), options.size()));
  }
  Expression optional(Expression part) { return choice({empty(), part}); }
  // Any of the texts; common beginnings are read once.
  Expression literals(std::vector<std::string> texts);
  // `max` may be kUnbounded.
  Expression repeat(Expression part, std::uint32_t min, std::uint32_t max);

  // `name` is for messages.
  RuleId declare(std::string_view name);
  void define(RuleId rule, Expression body);
  Expression call(RuleId rule);

  // The same as `part`, but uses of it share one copy where it is not small.
  Expression shared(Expression part, std::string_view name);

  bool is_never(Expression expression) const { return expression == kNever; }
  // Whether finish() will refuse it: what is made from then on is never(). To be asked where a long
  // text is read.
  bool too_large() const { return too_large_; }

  // The program. Errors: kInvalidArgument (too large, left recursion, a rule that never ends).
  Result<GrammarPtr> finish(RuleId root);

 private:
  enum class Kind : std::uint8_t {
    kEmpty,
    kNever,
    kLiteral,
    kSet,
    kSequence,
    kChoice,
    kRepeat,
    kCall
  };
  struct Item {
    Kind kind;
    std::uint32_t a = 0;     // literal, set or rule; first child
    std::uint32_t b = 0;     // past the last child; bounds
    std::size_t weight = 1;  // about the nodes of one copy
  };
  static constexpr Expression kEmpty{0};
  static constexpr Expression kNever{1};

  const Item& item(Expression e) const { return items_[static_cast<std::uint32_t>(e)]; }
  Expression add(Kind kind, std::uint32_t a, std::uint32_t b = 0, std::size_t weight = 1);
  Expression add_list(Kind kind, std::span<const Expression> parts);
  Expression literal_tree(std::span<const std::string> texts, std::size_t from);

  NodeId add_node(Node node);
  NodeId emit(Expression e, NodeId next);
  NodeId emit_literal(std::string_view bytes, NodeId next);
  NodeId emit_set(const CodeSet& set, NodeId next);
  NodeId emit_choice(const Item& choice, NodeId next);
  NodeId emit_repeat(const Item& repeat, NodeId next);
  NodeId emit_split(std::span<const NodeId> targets);
  NodeId emit_switch(std::span<const Grammar::Edge> edges);

  std::vector<Item> items_;
  std::vector<Expression> children_;
  std::vector<std::string> literals_;
  std::vector<CodeSet> sets_;
  std::vector<Expression> bodies_;  // of the rules
  std::size_t literal_bytes_ = 0;
  std::size_t ranges_ = 0;     // of all sets
  std::size_t sequences_ = 0;  // of bytes, that all copies of sets were spelled in
  bool too_large_ = false;
  Grammar program_;
};

// What is not a matter of building: see Grammar. `names the rule` in errors. Errors as finish()'s.
Result<> analyse(Grammar& grammar);

}  // namespace ollama::grammar
