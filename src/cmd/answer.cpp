#include "cmd/answer.h"

#include <unistd.h>

#include <cstdio>
#include <format>

#include "cmd/terminal.h"

namespace ollama::cmd {
namespace {

void write(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

}  // namespace

void AnswerPrinter::add(std::string_view thinking, std::string_view content,
                        const std::vector<api::ToolCall>& tool_calls) {
  if (spinner_ != nullptr && (!content.empty() || !tool_calls.empty() || !style_.hide_thinking)) {
    spinner_->stop_and_clear();
  }
  if (!thinking.empty()) {
    thinking_ += thinking;
    if (!style_.hide_thinking) {
      if (!thinks_) {
        write(style_.terminal ? std::format("{}{}Thinking...\n{}{}", kGrey, kBold, kPlain, kGrey)
                              : "Thinking...\n");
        thinks_ = true;
      }
      print(thinking);
    }
  }
  if (thinks_ && (!content.empty() || !tool_calls.empty())) {
    if (!thinking_.ends_with('\n')) write("\n");
    write(style_.terminal ? std::format("{}{}...done thinking.\n\n{}", kGrey, kBold, kPlain)
                          : "...done thinking.\n\n");
    thinks_ = false;
    wrap_ = {};
  }
  content_ += content;
  print(content);
  print_tool_calls(tool_calls);
}

void AnswerPrinter::finish() {
  if (thinks_ && style_.terminal) write(kPlain);
  thinks_ = false;
}

void AnswerPrinter::print(std::string_view text) {
  if (text.empty()) return;
  if (!style_.terminal) {
    write(text);
    return;
  }
  const std::size_t columns = style_.word_wrap ? terminal_columns(STDOUT_FILENO).value_or(0) : 0;
  write(wrap_.add(text, columns));
}

// The command line offers no tools: a call is a model's mistake, and is shown.
void AnswerPrinter::print_tool_calls(const std::vector<api::ToolCall>& tool_calls) {
  for (const api::ToolCall& call : tool_calls) {
    print(std::format("  Model called a non-existent function '{}()' with arguments: {}\n",
                      call.name, api::to_string(call.arguments)));
  }
}

}  // namespace ollama::cmd
