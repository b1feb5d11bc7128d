// Anthropic's API, as its clients speak it: messages.
#pragma once

#include "api/chat_format.h"

namespace ollama::api::anthropic {

// {"type": "error", "error": {"type", "message"}}
JsonObject error_json(const StatusError& error);

// POST /v1/messages. Errors: kInvalidArgument names the field.
Result<ForeignChat> parse_messages(const Json& json);
// POST /v1/messages/count_tokens: the same without max_tokens.
Result<ChatRequest> parse_count_tokens(const Json& json);

}  // namespace ollama::api::anthropic
