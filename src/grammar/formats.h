// JSON Schema's `format`: what a string of each known format looks like. Internal to grammar.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace ollama::grammar {

// A pattern between ^ and $ whose every match is a valid value of the format, as in RFC 3339 and
// the others that JSON Schema refers to; not every valid value matches. nullopt: no known format.
std::optional<std::string> format_pattern(std::string_view format);

}  // namespace ollama::grammar
