// Text as Python's str sees it: a sequence of code points. A byte that begins no well-formed
// character counts as one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "tokenizer/utf8.h"

namespace ollama::chat::jinja {

// Bytes of the first character of `text`, which is not empty.
inline std::size_t character_length(std::string_view text) {
  if (static_cast<unsigned char>(text.front()) < 0x80) return 1;
  const auto step = tokenizer::utf8::scan_strict(text);
  return step.status == tokenizer::utf8::Status::kComplete ? step.length : 1;
}
// Bytes of the last one.
std::size_t last_character_length(std::string_view text);
// U+FFFD for what is not well-formed.
char32_t character_code(std::string_view character);

bool is_ascii(std::string_view text);
std::size_t count_characters(std::string_view text);
// The byte where the character `index` begins; the size where there are fewer.
std::size_t byte_of(std::string_view text, std::size_t index);

// Python's str.isspace() and so on, of one character.
bool is_space(char32_t code);
bool is_alpha(char32_t code);
bool is_digit(char32_t code);
bool is_upper(char32_t code);
bool is_lower(char32_t code);
bool is_printable(char32_t code);

enum class Case : std::uint8_t { kUpper, kLower, kTitle, kCapital, kSwapped };
// `text` in that case: kTitle begins every run of letters with a capital, kCapital only the first
// character.
std::string convert_case(std::string_view text, Case to);

// Without the characters of `set` at the ends (nullopt: blanks).
std::string_view strip_left(std::string_view text, std::optional<std::string_view> set = {});
std::string_view strip_right(std::string_view text, std::optional<std::string_view> set = {});
std::string_view strip(std::string_view text, std::optional<std::string_view> set = {});

// Where `needle` is found first; linear in time whatever the texts.
std::size_t find_text(std::string_view text, std::string_view needle, std::size_t from = 0);

}  // namespace ollama::chat::jinja
