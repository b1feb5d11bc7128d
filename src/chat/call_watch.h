// Internal to chat: when it is worth reading a call that is not whole yet again.
#pragma once

#include <cstddef>
#include <string_view>

#include "chat/tool_syntax.h"

namespace ollama::chat {

// Each byte is looked at once. A long call is read where its end may have come, and now and then to
// find out that it is none: all readings together look at a few times its length, however small
// the pieces are that it comes in.
class CallWatch {
 public:
  CallWatch() = default;
  // Of a call that begins now. `mark`, where there is one, ends it as well.
  explicit CallWatch(const CallSyntax& syntax, std::string_view mark = {})
      : syntax_(&syntax), mark_(mark) {}

  // `text`: the call as far as it has come, longer than the last time.
  bool worth_reading(std::string_view text);

 private:
  bool has_new(std::string_view mark, std::string_view text) const;
  bool may_end_with(char c);

  const CallSyntax* syntax_ = nullptr;
  std::string_view mark_;
  std::size_t seen_ = 0;   // bytes that have been looked at
  std::size_t read_ = 0;   // bytes that there were when it was worth it
  std::size_t depth_ = 0;  // of brackets
  char quote_ = 0;         // that a text is in
  bool escaped_ = false;   // the next byte is that text's
};

}  // namespace ollama::chat
