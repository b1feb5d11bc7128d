// Renderers and parsers that a model's configuration names in the place of a template, by Ollama's
// names: how a conversation is rendered, and how the model's answer is read.
//
// A renderer is a template in Jinja (`builtin/*.jinja`) that makes the prompt which Ollama's
// renderer of that name makes. Tools are shown as the client sent them: Ollama's own reading of
// them reorders keys and drops what it does not know, which vendors' templates do not.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "chat/answer_parser.h"

namespace ollama::chat {

// The text of a renderer's template; nullopt: there is none of that name.
std::optional<std::string> builtin_template(std::string_view renderer);

struct BuiltinParser {
  AnswerFormat format;
  bool tools = true;  // what a model that names it can do
  bool thinking = false;
};
std::optional<BuiltinParser> builtin_parser(std::string_view parser);

// Whether a configuration's names, either of which may be empty, are known. Error:
// kInvalidArgument, with those that are.
Result<> check_builtin(std::string_view renderer, std::string_view parser);

// The renderer that a name stands for: "gemma4" has two templates, chosen by the model's name and
// its number of parameters in words ("11.9B").
std::string_view resolve_renderer(std::string_view renderer, std::string_view model,
                                  std::string_view parameters);

}  // namespace ollama::chat
