// Prints an answer to standard output while it arrives.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "api/types.h"
#include "cmd/progress.h"
#include "cmd/word_wrap.h"

namespace ollama::cmd {

struct AnswerStyle {
  bool word_wrap = true;
  bool hide_thinking = false;
  bool terminal = true;  // colours, wrapping, no control characters; else the text as it is
};

class AnswerPrinter {
 public:
  // The spinner is removed when the first text is printed.
  AnswerPrinter(AnswerStyle style, Progress* spinner) : style_(style), spinner_(spinner) {}

  void add(std::string_view thinking, std::string_view content,
           const std::vector<api::ToolCall>& tool_calls);
  // Nothing more comes: what was thought may have had no answer, and must not colour what follows.
  void finish();

  const std::string& content() const { return content_; }
  const std::string& thinking() const { return thinking_; }

 private:
  void print(std::string_view text);
  void print_tool_calls(const std::vector<api::ToolCall>& tool_calls);

  AnswerStyle style_;
  Progress* spinner_;
  WordWrap wrap_;
  std::string content_;
  std::string thinking_;
  bool thinks_ = false;  // the opening line is printed, the closing one not yet
};

}  // namespace ollama::cmd
