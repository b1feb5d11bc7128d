// Regular expressions as JSON Schema's `pattern` has them (ECMA 262), as grammars of JSON strings.
// Internal to grammar.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "grammar/json_text.h"
#include "grammar/language.h"

namespace ollama::grammar {

struct Lengths {
  std::uint64_t min = 0;
  std::uint64_t max = kUnbounded;
};

// A regular expression that has been read. Understood: characters, classes, \d \w \s and their
// opposites, groups, alternatives, repeats, anchors, and lookahead outside of repeats.
class Pattern {
 public:
  // Errors: kInvalidArgument (a syntax error, or what is not supported: back references,
  // lookbehind, word boundaries).
  static Result<Pattern> parse(std::string_view text);

  // The content of a JSON string in which the pattern finds a match and that has a number of
  // characters within `wanted`. nullopt where the pattern does not keep to these lengths of itself,
  // or looks ahead: what language() is for.
  std::optional<Expression> write(Lengths wanted, Builder& builder, JsonText& json) const;

  // The texts in which the pattern finds a match. Errors: kInvalidArgument (an anchor or lookahead
  // where it cannot be followed).
  Result<Term> language(Language& language) const;

 private:
  friend class PatternParser;
  enum class Kind : std::uint8_t {
    kSet,
    kSequence,
    kChoice,
    kRepeat,
    kStart,
    kEnd,
    kAhead,
    kNotAhead
  };
  using NodeIndex = std::uint32_t;
  struct Node {
    Kind kind = Kind::kSequence;
    CodeSet set;
    std::vector<NodeIndex> parts;
    std::uint32_t min = 0;
    std::uint32_t max = 0;
    Lengths lengths{0, 0};  // of what it matches, in characters
    bool plain = true;      // without anchors and lookahead
  };
  // Whether a node is at the beginning of the text.
  enum class Place : std::uint8_t { kStart, kPast, kUnknown };

  const Node& root() const { return nodes_.back(); }
  // The parts of an alternative without the anchors at its ends; nullopt if any is within.
  struct Branch {
    std::span<const NodeIndex> parts;
    bool from_start = false;
    bool to_end = false;
  };
  std::optional<Branch> branch_of(NodeIndex index) const;
  // A plain node, made by a Builder or a Language; `of_set` makes it of a set of characters.
  template <typename Made, typename Maker, typename OfSet>
  Made plain(NodeIndex index, Maker& maker, const OfSet& of_set) const;
  Term plain_term(NodeIndex index, Language& language) const;
  Result<Term> term(NodeIndex index, Term rest, Place place, Language& language) const;
  Result<Term> turns(const Node& repeat, Term rest, Place place, Language& language) const;
  Place after(Place place, NodeIndex index) const;
  std::unexpected<Error> error(std::string_view why) const;

  std::string text_;
  std::vector<Node> nodes_;  // the parts of a node come before it
};

}  // namespace ollama::grammar
