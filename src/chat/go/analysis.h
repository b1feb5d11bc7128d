// What a program tells about itself without being rendered.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "chat/go/program.h"

namespace ollama::chat::go {

// The names of all fields and variables anywhere in it, in lower case.
std::set<std::string, std::less<>> names_used(const Program& program);

// The position of the main template's first action that prints .Response; kNone without one.
std::uint32_t response_position(const Program& program);

// The texts around .Thinking inside a range over .Messages, trimmed: where the model's thinking
// begins and ends. Empty where the template does not tell.
std::pair<std::string, std::string> thinking_tags(const Program& program);

}  // namespace ollama::chat::go
