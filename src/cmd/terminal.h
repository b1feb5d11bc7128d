// What the terminal can show: its size, and how wide text is on it.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace ollama::cmd {

bool is_terminal(int fd);
// nullopt when `fd` is no terminal or does not tell.
std::optional<std::size_t> terminal_columns(int fd);

// One character off the front of `text`, which must not be empty. Invalid UTF-8 is taken byte by
// byte as U+FFFD.
struct Character {
  char32_t code_point = 0;
  std::string_view bytes;
  std::size_t width = 0;  // columns: 0 for combining marks and controls, 2 for wide ones
};
Character take_character(std::string_view& text);

// Columns that `text`, UTF-8 without line breaks, takes.
std::size_t display_width(std::string_view text);
// The front of `text` that fits in `columns`.
std::string_view fit_width(std::string_view text, std::size_t columns);

// How many bytes at the end of `text` are the beginning of a character that goes on.
std::size_t unfinished_bytes(std::string_view text);

// Model output is not trusted with the terminal: without control characters, except line breaks and
// tabs, so that escape sequences in an answer stay text.
bool is_printable(char32_t code_point);

inline constexpr std::string_view kGrey = "\x1b[38;5;245m";
inline constexpr std::string_view kBold = "\x1b[1m";
inline constexpr std::string_view kPlain = "\x1b[0m";
inline constexpr std::string_view kClearToEnd = "\x1b[K";

}  // namespace ollama::cmd
