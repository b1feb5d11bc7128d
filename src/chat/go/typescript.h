// A tool's parameter as the type that TypeScript would give it, for templates that describe tools
// in that language (gpt-oss).
#pragma once

#include <string>

#include "chat/go/value.h"

namespace ollama::chat::go {

// Of a property with Type and AnyOf (or their JSON names): "string", "number | null", "any[]".
// "any" for everything else.
std::string typescript_type(const Value& property);

}  // namespace ollama::chat::go
