// Regular expressions as JSON Schema's `pattern` has them (ECMA 262), as grammars of JSON strings.
// Internal to grammar.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "grammar/json_text.h"

namespace ollama::grammar {

struct Lengths {
  std::uint64_t min = 0;
  std::uint64_t max = kUnbounded;
};

// The content of a JSON string that `pattern` finds a match in, with a number of characters within
// `lengths`. Understood: characters, classes, \d \w \s and their opposites, groups, alternatives,
// repeats, and anchors at the ends of a whole alternative. Errors: kInvalidArgument (a syntax
// error, or what is not a matter of regular languages: lookaround, back references, word
// boundaries; or lengths that the pattern does not keep to of itself).
Result<Expression> compile_pattern(std::string_view pattern, Lengths lengths, Builder& builder,
                                   JsonText& json);

}  // namespace ollama::grammar
