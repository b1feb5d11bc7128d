// Anthropic's API, as its clients speak it: messages.
#pragma once

#include "api/chat_format.h"

namespace ollama::api::anthropic {

// {"type": "error", "error": {"type", "message"}, "request_id"}. Within a stream it has no id: its
// header told that.
JsonObject error_json(const StatusError& error, std::string_view request_id = {});

// POST /v1/messages. Errors: kInvalidArgument names the field.
Result<ForeignChat> parse_messages(const Json& json);
// POST /v1/messages/count_tokens: the same without max_tokens.
Result<ChatRequest> parse_count_tokens(const Json& json);

// GET /v1/models and /v1/models/NAME.
JsonObject models_json(const ListResponse& models);
JsonObject model_json(std::string_view name, Time created);

}  // namespace ollama::api::anthropic
