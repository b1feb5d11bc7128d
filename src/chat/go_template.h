// Go's text/template, as Ollama's models use it: their own functions, chat messages as data, and
// what a template tells about the model that it belongs to.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>

#include "api/types.h"
#include "base/error.h"
#include "chat/render_options.h"

namespace ollama::chat {

namespace go {
struct Program;
}  // namespace go

// Cheap to copy; may be used by several threads at once.
class GoTemplate {
 public:
  // Errors: kInvalidArgument, "template:LINE:COLUMN: what is wrong".
  static Result<GoTemplate> parse(std::string text);

  // The template on any data: `data` is the dot, its numbers are floating-point as Go reads them.
  // Errors: kInvalidArgument, "template:LINE:COLUMN: what went wrong"; a limit that was reached.
  Result<std::string> render(const api::Json& data, const RenderOptions& options = {}) const;

  // Whether it mentions .NAME (or $NAME) anywhere; case does not matter: uses("tools").
  bool uses(std::string_view name) const;
  // The texts around a message's thinking, where the template shows them; both or none.
  struct Tags {
    std::string open;
    std::string close;
  };
  std::optional<Tags> thinking_tags() const;

  const go::Program& program() const { return *program_; }

 private:
  explicit GoTemplate(std::shared_ptr<const go::Program> program);

  std::shared_ptr<const go::Program> program_;
  std::shared_ptr<const std::set<std::string, std::less<>>> names_;  // lower case
};

// A conversation, or a text with a gap.
struct ChatData {
  std::span<const api::Message> messages;
  const api::Json* tools = nullptr;  // an array as in the API, or null
  std::optional<api::Think> think;
  std::string_view prompt;  // with a suffix only: what comes before the gap
  std::string_view suffix;  // not empty: the answer fills a gap before it
};

// The prompt that makes the model answer. Messages of one role in a row become one, as Ollama does
// it. Templates that use .Messages are rendered once; others (.System, .Prompt, .Response) once for
// each turn, the last time up to .Response, where the answer belongs. An image is "[img-N]" in its
// message's text. Errors: as GoTemplate::render.
Result<std::string> render_chat(const GoTemplate& chat_template, const ChatData& data,
                                const RenderOptions& options = {});

}  // namespace ollama::chat
