// Internal to chat: reading calls of tools in each of the ways that models write them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "api/types.h"
#include "chat/answer_parser.h"

namespace ollama::chat {

// What a text that begins like a call is.
struct CallReading {
  enum class Kind : std::uint8_t { kMore, kNone, kCalls };
  Kind kind = Kind::kNone;
  std::size_t length = 0;  // bytes of the calls
  std::vector<api::ToolCall> calls;
};

struct CallSyntax {
  // Calls begin with one of these, anywhere.
  std::span<const std::string_view> openers;
  // Or, with nothing said before, with a bracket.
  bool bare = false;
  // `text` begins where the call may; `ended`: no more of it comes.
  CallReading (*read)(std::string_view text, bool ended);
};

const CallSyntax& call_syntax(ToolSyntax syntax);

// {"name": ..., "arguments": {...}} in any of its spellings, or a list of them.
std::vector<api::ToolCall> calls_of(const api::Json& json);
// The end of the JSON value at the beginning of `text`, blanks before it counted; 0: it has not
// come yet; npos: there is none.
std::size_t json_length(std::string_view text);

}  // namespace ollama::chat
