// What single keywords of a JSON Schema say, and which of the values that are given (in enum)
// keep to all of them. Internal to grammar. Errors everywhere: kInvalidArgument, without the place.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "api/types.h"
#include "base/error.h"
#include "grammar/language.h"
#include "grammar/numbers.h"
#include "grammar/schema_merge.h"

namespace ollama::grammar {

struct Counts {
  std::uint32_t min = 0;
  std::uint32_t max = kUnbounded;
};
Result<Counts> counts(const api::JsonObject& schema, std::string_view min_key,
                      std::string_view max_key);

struct NumberBounds {
  NumberRange range;
  bool none = false;  // no number is within them
};
Result<NumberBounds> number_bounds(const api::JsonObject& schema, bool integer);

// `multipleOf`: a number, or several in an array where schemas were joined.
Result<std::vector<Multiple>> multiples(const api::JsonObject& schema);

// The texts of a keyword: a string, or several in an array where schemas were joined.
Result<std::vector<std::string>> texts(const api::JsonObject& schema, std::string_view key);

// What a "$ref" leads to within `root`, a pointer behind "#" with percent escapes; null: nothing.
const api::Json* target_of(const api::Json& root, std::string_view reference);

// "object", ..., "number".
std::string_view type_of(const api::Json& value);

// The strings that keep to pattern, format, minLength and maxLength.
Result<Term> string_language(const api::JsonObject& schema, Language& language);

// Those of `values` that meet what `schema`, a part of `root`, says beside its enum. Refused:
// keywords that are not understood. Other errors: those of `budget`, which looking costs.
Result<std::vector<const api::Json*>> values_that_meet(const api::Json& root,
                                                       const api::JsonObject& schema,
                                                       std::span<const api::Json> values,
                                                       Language& language, CopyBudget& budget);

}  // namespace ollama::grammar
