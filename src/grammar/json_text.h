// The parts of JSON's own grammar, as a model may write it. Internal to grammar.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/builder.h"

namespace ollama::grammar {

class JsonText {
 public:
  explicit JsonText(Builder& builder);

  // What may stand between two parts: nothing, a blank, or a new line with its indentation.
  // Bounded, so that an answer cannot consist of it.
  Expression space() const { return space_; }
  // One character inside a string, escaped or not.
  Expression character() const { return character_; }
  // A character of `set`, escaped only where it must be.
  Expression character_of(const CodeSet& set);
  Expression string(std::uint32_t min, std::uint32_t max);
  Expression quoted(Expression content);
  // A number that a double holds, of at most 32 digits before and after the point.
  Expression number();
  Expression integer();
  // The elements with commas between; `open` and `close` around them.
  Expression list(char open, Expression element, std::uint32_t min, std::uint32_t max, char close);
  // A member of an object, `"name": value`, without the quote that it begins with: before one quote
  // for all members that may come next, a text is read in one way and not in as many.
  Expression member(std::string_view name, Expression value);
  // The same with a key that is none of `names`.
  Expression other_member(std::span<const std::string> names, Expression value);
  // The same with a key that `key` writes.
  Expression keyed_member(Expression key, Expression value) {
    return b_.sequence({key, b_.literal("\":"), space_, value});
  }

  // Any value, any object, any array; rules of their own, made when first asked for.
  Expression any_value();
  Expression any_object();
  Expression any_array();

 private:
  Expression escapes_of(const CodeSet& special);
  Expression other_key(std::span<const std::u32string> names, std::size_t from);
  void define_any();

  Builder& b_;
  Expression space_;
  Expression character_;
  std::vector<std::pair<CodeSet, Expression>> escapes_;
  std::optional<RuleId> key_rest_;
  std::optional<RuleId> value_;
  RuleId object_{};
  RuleId array_{};
};

// `text` as it stands in JSON, with its quotes.
std::string json_quoted(std::string_view text);

}  // namespace ollama::grammar
