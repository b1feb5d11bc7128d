// Conversations rendered by a model file's own Jinja template, with the variables that Hugging
// Face's libraries give such templates.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "api/types.h"
#include "base/error.h"
#include "chat/jinja/template.h"

namespace ollama::chat {

struct JinjaConversation {
  std::span<const api::Message> messages;  // system, user, assistant, tool; at least one
  const api::Json* tools = nullptr;        // an array as in the API, or null
  std::optional<api::Think> think;         // unset: as the template has it
  const api::Json* documents = nullptr;    // an array, for templates that answer from documents
};

// The variables: messages, tools, documents, add_generation_prompt, bos_token, eos_token, and from
// `think` enable_thinking, thinking and reasoning_effort. A message has role and content; where
// they are there, reasoning_content (or what else the template calls it), tool_calls with arguments
// as an object, name and tool_call_id.
class JinjaChat {
 public:
  struct Tokens {
    std::string bos;  // the texts of the vocabulary's tokens; may be empty
    std::string eos;
    bool adds_bos = false;  // the tokenizer puts it before every prompt: the prompt has it not
  };

  // Errors: as JinjaTemplate::parse.
  static Result<JinjaChat> create(std::string_view template_text, Tokens tokens);

  // The prompt, ending where the answer begins. A conversation that ends with an answer without
  // tool calls is cut after that answer's text, so that the model goes on with it.
  //
  // What a template refuses is tried again in a form that it may accept: ids of tool calls with
  // nine letters and digits (Mistral's), the system's text at the front of the first user message.
  // Images are parts of a message's content where the template knows them, else "[img-N]" in its
  // text. Errors: as JinjaTemplate::render; no messages.
  Result<std::string> render(const JinjaConversation& conversation,
                             const JinjaOptions& options = {}) const;

  const JinjaTemplate& parsed() const { return template_; }

 private:
  struct Form {
    bool short_ids = false;
    bool system_in_user = false;
  };

  JinjaChat(JinjaTemplate parsed, Tokens tokens)
      : template_(std::move(parsed)), tokens_(std::move(tokens)) {}

  bool wants_parts() const;
  Result<std::string> render_form(const JinjaConversation& conversation, Form form,
                                  const JinjaOptions& options) const;
  api::JsonObject make_context(const JinjaConversation& conversation, Form form) const;
  void add_thinking(api::JsonObject& context, const api::Think& think) const;
  api::JsonObject make_message(const api::Message& message, std::size_t& images) const;
  api::Json make_content(const api::Message& message, std::size_t& images) const;

  JinjaTemplate template_;
  Tokens tokens_;
  bool parts_ = false;  // contents must be lists of parts
};

}  // namespace ollama::chat
