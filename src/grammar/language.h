// Regular languages of texts, with intersection and complement: what patterns, formats, lengths,
// names and digits have in common where a grammar must keep to several of them at once. Internal
// to grammar.
//
// A language is a term, and what may follow a character is its derivative by that character, a
// term again (Brzozowski, "Derivatives of regular expressions", 1964). Equal terms are one, so the
// derivatives of a term are the states of an automaton.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <map>
#include <numeric>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "grammar/code_set.h"
#include "grammar/json_text.h"

namespace ollama::grammar {

enum class Term : std::uint32_t {};

// The numbers, in digits with or without a fraction, that are multiples of factor / 10^decimals.
struct Multiple {
  std::uint32_t factor = 1;
  std::uint32_t decimals = 0;

  // Of remainders so far apart every further digit makes the same; about the states.
  std::uint32_t period() const { return factor / std::gcd(factor, 10U); }
};

// Terms are values that may be used more than once. The operations are named as Builder's are.
class Language {
 public:
  Language();

  Term empty() const { return kEmpty; }
  Term never() const { return kNever; }
  Term anything() const { return kAnything; }  // every text
  Term literal(std::string_view text);
  Term characters(const CodeSet& set);
  Term sequence(std::span<const Term> parts);
  Term sequence(std::initializer_list<Term> parts) {
    return sequence(std::span(parts.begin(), parts.size()));
  }
  Term choice(std::span<const Term> options);
  Term choice(std::initializer_list<Term> options) {
    return choice(std::span(options.begin(), options.size()));
  }
  Term optional(Term part) { return choice({empty(), part}); }
  Term repeat(Term part, std::uint32_t min, std::uint32_t max);
  Term both(Term a, Term b);
  Term complement(Term part);
  Term multiples(Multiple multiple);

  // Whether all that is made from now on is never(): so much work may be done, and no more.
  bool too_large() const;
  bool nullable(Term term) const { return nullable_[static_cast<std::uint32_t>(term)]; }
  Term derive(Term term, char32_t code);
  // Whether the text, in UTF-8, is of the language. Errors: as write()'s.
  Result<bool> contains(Term term, std::string_view text);
  // The texts as they stand in a JSON string; never() where there are none. Errors:
  // kInvalidArgument (too many states). All calls have the same builder: what is written twice is
  // one.
  Result<Expression> write(Term term, Builder& builder, JsonText& json);

 private:
  enum class Kind : std::uint8_t {
    kEmpty,
    kNever,
    kAnything,
    kSet,       // set
    kSequence,  // first, rest
    kChoice,    // options
    kBoth,      // parts
    kNot,       // part
    kRepeat,    // part, min, max
    kMultiple,  // factor, decimals left, whether after the point, remainder so far
  };
  // A kind and its operands.
  using Item = std::vector<std::uint32_t>;
  struct Hash {
    std::size_t operator()(const Item& item) const;
  };
  // Without states from which no text ends. State 0 is the start; no state: no text.
  struct State {
    bool accepts = false;
    std::vector<std::pair<CodeSet, std::uint32_t>> edges;
  };

  static constexpr Term kEmpty{0};
  static constexpr Term kNever{1};
  static constexpr Term kAnything{2};

  const Item& item(Term term) const { return *items_[static_cast<std::uint32_t>(term)]; }
  Kind kind(Term term) const { return static_cast<Kind>(item(term).front()); }
  std::span<const std::uint32_t> operands(Term term) const {
    return std::span(item(term)).subspan(1);
  }
  Term add(Kind kind, std::initializer_list<std::uint32_t> operands);
  Term add(Item item);
  Term add_flat(Kind kind, std::span<const Term> parts, Term neutral, Term dominant);
  Term multiple_term(std::uint32_t factor, std::uint32_t decimals, std::uint32_t fraction,
                     std::uint32_t rest);
  bool find_nullable(const Item& item) const;
  Term find_derivative(Term term, char32_t code);
  // Sets of characters that no set within the term tells apart, without those in none of them
  // where they lead nowhere else.
  std::vector<CodeSet> classes(Term term);
  Result<std::vector<State>> states(Term term);
  Result<Expression> write_states(Term term, Builder& builder, JsonText& json);

  std::unordered_map<Item, Term, Hash> terms_;
  std::vector<const Item*> items_;  // in terms_, whose elements stay where they are
  std::vector<bool> nullable_;
  std::vector<CodeSet> sets_;
  std::map<std::vector<std::pair<char32_t, char32_t>>, std::uint32_t> set_index_;
  std::unordered_map<std::uint64_t, Term> derivatives_;
  std::unordered_map<std::uint32_t, Result<Expression>> written_;
  std::size_t work_ = 0;
  std::size_t states_ = 0;  // that were looked at
};

}  // namespace ollama::grammar
