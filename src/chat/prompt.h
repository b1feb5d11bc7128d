// From messages to the text a model is given. Templates are untrusted text of a model file or
// request.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "api/types.h"
#include "base/error.h"

namespace ollama::chat {

struct PromptInput {
  std::span<const api::Message> messages;  // system, user, assistant, tool; at least one
  // The model's or the request's. Understood are plain text with {{ .System }}, {{ .Prompt }} and
  // {{ .Response }}, rendered once for each turn; empty and "{{ .Prompt }}" mean the bare contents,
  // one line apart. For anything else a built-in format is chosen, by the markers that the template
  // mentions, else by the architecture, and the log says so.
  std::string_view template_text = {};
  std::string_view architecture = {};
};

// The prompt, ending where the answer begins. Errors: kInvalidArgument (no messages).
Result<std::string> render(const PromptInput& input);

}  // namespace ollama::chat
