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
  bool texts = false;  // their arguments are texts, see give_types
};

struct CallSyntax {
  // Calls begin with one of these, anywhere.
  std::span<const std::string_view> openers;
  // Or, with nothing said before or since another one, with a bracket.
  bool bare = false;
  // `text` begins where the call may; `ended`: no more of it comes.
  CallReading (*read)(std::string_view text, bool ended);
  // Marks around what is said, and left over behind calls, that are nobody's.
  std::span<const std::string_view> silent = {};
  // See CallWatch: a call ends with one of these, or, where texts stand in some of `quotes`, with
  // the bracket that closes its first one and with what comes behind that.
  std::span<const std::string_view> closers = {};
  std::string_view quotes = {};
};

const CallSyntax& call_syntax(ToolSyntax syntax);

// Makes values of arguments that were read as texts: what the call's definition among `definitions`
// (as in the API, or null) asks for, else JSON where the text is that.
void give_types(api::ToolCall& call, const api::Json& definitions);

// {"name": ..., "arguments": {...}} in any of its spellings, or a list of them.
std::vector<api::ToolCall> calls_of(const api::Json& json);
// The end of the JSON value at the beginning of `text`, blanks before it counted; 0: it has not
// come yet; npos: there is none.
std::size_t json_length(std::string_view text);

}  // namespace ollama::chat
