// From a template's text to tokens, with Jinja2's rules for blanks around tags: trim_blocks (the
// line break after a block is dropped), lstrip_blocks (blanks before a block that begins its line
// are),
// `-` strips, `+` keeps.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "chat/jinja/runtime.h"

namespace ollama::chat::jinja {

enum class TokenKind : std::uint8_t {
  kText,           // outside tags
  kVariableBegin,  // {{
  kVariableEnd,
  kBlockBegin,  // {%
  kBlockEnd,
  kName,
  kString,  // the text that it stands for
  kInteger,
  kFloat,
  kOperator,
  kEnd
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  Position at;
  std::string_view text;  // of a name, text, string, operator
  std::int64_t integer = 0;
  double real = 0;
};

// Fails with the position in the message. Texts lie in `arena`.
std::vector<Token> tokenize(std::string_view text, Arena& arena);

// A failure at a place of the template.
template <typename... Args>
[[noreturn]] void raise_at(Position at, std::format_string<Args...> format, Args&&... args) {
  raise("line {}, column {}: {}", at.line, at.column,
        std::format(format, std::forward<Args>(args)...));
}

}  // namespace ollama::chat::jinja
