// From messages to the text a model is given. Templates are untrusted text of a model file or
// request.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "api/types.h"
#include "base/error.h"
#include "chat/answer_parser.h"
#include "chat/go_template.h"
#include "chat/jinja_chat.h"
#include "chat/render_options.h"

namespace ollama::chat {

struct PromptInput {
  ChatData chat;                        // messages, or a prompt and a suffix
  std::string_view template_text = {};  // a Go template, the model's or the request's
  std::string_view renderer = {};       // a built-in one; see builtin.h
};

// Renders the prompts of one model. Parsed templates are kept, so that a request costs only the
// rendering.
class PromptRenderer {
 public:
  struct Model {
    std::string architecture;
    std::string jinja;  // the model file's own chat template; empty when it has none
    JinjaChat::Tokens tokens;
  };
  explicit PromptRenderer(Model model) : model_(std::move(model)) {}

  // The prompt, ending where the answer begins. A built-in renderer that is named decides (but what
  // a suffix is filled in before, which renderers do not), then the Go template, then the model
  // file's Jinja, then a form by the architecture; a model that nothing is known about gets the
  // bare contents, one line apart, and so does one whose template is {{ .Prompt }}. Errors:
  // kInvalidArgument: no messages; an unknown renderer; what is wrong with the template, with line
  // and column.
  Result<std::string> render(const PromptInput& input, const RenderOptions& options = {});
  // How the model answers: as the built-in parser of that name reads it; where none is named, as
  // the renderer or the template tells.
  AnswerFormat answer_format(std::string_view template_text, std::string_view renderer = {},
                             std::string_view parser = {});

 private:
  struct Parsed {
    std::string text;
    GoTemplate parsed;
  };
  Result<GoTemplate> go_template(std::string_view text);
  Result<std::string> render_builtin(const PromptInput& input, const RenderOptions& options);
  Result<std::string> render_jinja(const PromptInput& input, const RenderOptions& options);

  Model model_;
  std::vector<Parsed> parsed_;  // used last comes last
  std::optional<Result<JinjaChat>> jinja_;
  std::string renderer_;  // the name of what is parsed
  std::optional<JinjaChat> builtin_;
};

}  // namespace ollama::chat
