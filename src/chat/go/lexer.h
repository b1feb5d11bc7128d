// Go's text/template as tokens: texts between actions, and what is inside {{ }}.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace ollama::chat::go {

enum class TokenKind : std::uint8_t {
  kEnd,  // of the template
  kText,
  kOpen,   // {{
  kClose,  // }}
  kSpace,
  kAssign,   // =
  kDeclare,  // :=
  kPipe,
  kOpenParen,
  kCloseParen,
  kComma,
  kDot,
  kField,     // .Name
  kVariable,  // $name or $
  kIdentifier,
  kBool,
  kNil,
  kNumber,
  kChar,
  kString,     // with its quotes
  kRawString,  // with its quotes
  // Keywords.
  kBlock,
  kBreak,
  kContinue,
  kDefine,
  kElse,
  kEndKeyword,
  kIf,
  kRange,
  kTemplate,
  kWith,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::uint32_t position = 0;  // byte in the source
  std::string_view text;       // of the source
};

// The tokens of `source`, which they refer to; the last one is kEnd. Blanks that "{{- " and " -}}"
// take away are gone from the texts, as are comments. Errors: kInvalidArgument with line and
// column.
Result<std::vector<Token>> tokenize(std::string_view source);

// "template:LINE:COLUMN: message" for the byte at `position`; lines and columns count from 1.
std::unexpected<Error> fail_at(std::string_view source, std::size_t position,
                               std::string_view message);
// Source text for an error: short, without control characters.
std::string excerpt(std::string_view text);

}  // namespace ollama::chat::go
