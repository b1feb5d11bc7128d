// Schemas that must all hold, as one. Internal to grammar.
#pragma once

#include <string_view>

#include "api/types.h"
#include "base/error.h"

namespace ollama::grammar {

// The keywords of both, for schemas without $ref, allOf, anyOf, oneOf and const. Errors:
// kInvalidArgument names the keyword that cannot be enforced twice.
Result<api::JsonObject> merge_schemas(const api::JsonObject& a, const api::JsonObject& b);

// Whether the values are equal to JSON Schema: 1 and 1.0 are.
bool same_value(const api::Json& a, const api::Json& b);

}  // namespace ollama::grammar
