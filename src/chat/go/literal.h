// Go's literals.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace ollama::chat::go {

// 42, 0x1F, 0b1, 0o7, 010, 1_000: an integer; 1.5, 1e3, 0x1p4: a floating-point number. Nothing
// where it is neither, or does not fit.
std::optional<std::variant<std::int64_t, double>> parse_number(std::string_view text);
// 'a': its code.
std::optional<std::int64_t> parse_char(std::string_view text);
// "a\n", with its quotes; what an escape stands for may be any byte.
std::optional<std::string> parse_string(std::string_view text);

void append_utf8(std::string& out, std::uint32_t code);
// The character at the front of `text`, which is not empty, and its length; a byte that begins none
// is U+FFFD of length 1.
std::pair<std::uint32_t, std::size_t> front_rune(std::string_view text);
// Whether quoting leaves a character as it is: close to Go's notion.
bool is_printable(std::uint32_t code);

}  // namespace ollama::chat::go
