// JSON Schema's `format`s as regular expressions. Internal to grammar.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ollama::grammar {

// A pattern (of those that Pattern understands) for strings of `format`; nullopt for formats that
// are not known. What matches is of the format. Not all of it matches: what is rare and long is
// left out. The pattern keeps to `max` characters of itself where they are enough for that, and has
// fewer states where no more than kShortText are asked for.
inline constexpr std::uint32_t kShortText = 63;
std::optional<std::string> format_pattern(std::string_view format, std::uint32_t max);

}  // namespace ollama::grammar
