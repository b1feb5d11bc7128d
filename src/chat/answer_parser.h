// What a model says, taken apart while it says it: thinking, text, and calls of tools.
//
// Models write calls in many ways; which one is theirs shows in the template that describes it to
// them. What begins like a call and turns out to be none, or calls a tool that was not offered, is
// text.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/types.h"

namespace ollama::chat {

enum class ToolSyntax : std::uint8_t {
  kJson,           // {"name": ..., "arguments": {...}}, alone or in a list
  kLlama,          // that with "parameters", or [f(a=1)], after <|python_tag|> or at the start
  kHermes,         // <tool_call> JSON </tool_call>: Qwen, Hermes
  kQwenCoder,      // <tool_call><function=f><parameter=a> 1 </parameter></function></tool_call>
  kGlm,            // <tool_call>f<arg_key>a</arg_key><arg_value>1</arg_value></tool_call>
  kMistral,        // [TOOL_CALLS] JSON list, or [TOOL_CALLS]f[ARGS]{...}
  kDeepSeek,       // between marks of its own, JSON fenced or bare
  kCommandR,       // Action: fenced JSON list, or between <|START_ACTION|> and <|END_ACTION|>
  kHarmony,        // gpt-oss: channels
  kGemma,          // <|tool_call>call:f{a:<|"|>x<|"|>}<tool_call|>
  kFunctionGemma,  // <start_function_call>call:f{a:<escape>x<escape>}<end_function_call>
  kLfm,            // <|tool_call_start|>[f(a=1)]<|tool_call_end|>
  kOlmo,           // <function_calls>f(a=1)</function_calls>, one call a line
  kNone,           // no calls: all of it is text
};

// How a model answers.
struct AnswerFormat {
  ToolSyntax syntax = ToolSyntax::kJson;
  std::string think_open;  // both empty: it does not think aloud
  std::string think_close;
  bool trims_text = false;      // blanks between text and calls are nobody's
  bool hides_thinking = false;  // thoughts that nobody asked for are left out, not text
  // A call among thoughts ends them, as if they had been closed.
  bool calls_end_thinking = false;

  // Whether its marks are control tokens, which are no text otherwise.
  bool marks_are_tokens() const;
};

// Whether a prompt ends with the mark that opens thinking.
bool opens_thinking(const AnswerFormat& format, std::string_view prompt);

// What comes before the text of an answer.
struct BeforeText {
  std::string open;                // begins it
  std::vector<std::string> marks;  // between it and the text, one after the other
  std::string ending;              // goes from within it to the text
  bool begun = false;              // the prompt has begun it
};
// None where the answer to `prompt` is text from the beginning. `thinks`: as the request has it.
std::optional<BeforeText> before_text(const AnswerFormat& format, bool thinks,
                                      std::string_view prompt);

// From what a template mentions, then from the architecture.
AnswerFormat answer_format(std::string_view template_text, std::string_view architecture);

// Bytes of an answer, as the model said it.
struct AnswerRange {
  std::size_t begin = 0;
  std::size_t end = 0;
};

struct AnswerPiece {
  std::string text;
  std::string thinking;
  std::vector<api::ToolCall> calls;  // numbered; without ids
  std::vector<AnswerRange> ranges;   // where the text stood, with Options::ranges

  bool empty() const { return text.empty() && thinking.empty() && calls.empty(); }
  void append(AnswerPiece&& other);
};

class AnswerParser {
 public:
  struct Options {
    std::vector<std::string> tools;  // names that may be called; none: calls are text
    bool thinking = true;            // tell thinking apart
    bool inside_thinking = false;    // the prompt ended with the mark that opens it
    // The tools as in the API: whether "3" in an answer is a number or a text depends on what was
    // asked for. Null: what looks like JSON is that.
    api::Json definitions = nullptr;
    bool ranges = false;  // tell where in the answer text stood
  };
  AnswerParser(const AnswerFormat& format, Options options);
  AnswerParser(AnswerParser&&) noexcept;
  AnswerParser& operator=(AnswerParser&&) noexcept;
  ~AnswerParser();

  // What has become certain with the next piece of text.
  AnswerPiece feed(std::string_view text);
  // The rest.
  AnswerPiece finish();
  // How many of the bytes that came last are not decided yet.
  std::size_t undecided() const;
  // Whether what came last was thought, as far as that is decided.
  bool thinking() const;

 private:
  class State;
  class Plain;
  class Harmony;
  std::unique_ptr<State> state_;
};

}  // namespace ollama::chat
