// Internal to api: what the translations of other APIs share.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "api/fields.h"
#include "api/types.h"

namespace ollama::api::foreign {

// "chatcmpl-" and 24 random letters and digits: unique, and no secret.
std::string new_id(std::string_view prefix);
std::int64_t seconds_now();

// An event of a stream: "data: {...}", with "event: name" before it where there is a name.
std::string event(const JsonObject& data, std::string_view name = {});

// A string or an array of strings.
Result<std::vector<std::string>> texts_of(const Json& value, std::string_view name);

// "data:image/png;base64,..." as bytes. Addresses are refused: the server fetches nothing.
Result<std::string> image_of(std::string_view url);

// A text that holds a JSON object, as models and clients write arguments; empty counts as {}.
Result<JsonObject> arguments_of(std::string_view text);

// The most tokens of an answer, where the request says; -1 and -2 as num_predict has them.
Result<> read_limit(Fields& fields, std::string_view name, Options& options);

// Whether a message may have that role; `place`: the field, for the error.
Result<> check_role(std::string_view role, std::span<const std::string_view> allowed,
                    std::string_view place);
// OpenAI's roles, and what they are in a native message.
Result<std::string> openai_role(std::string_view role, std::string_view place);

// Adds a part to a message's text: parts are lines of their own.
void append_text(std::string& text, std::string_view part);

// {"type": "function", "function": {...}} of a tool's parts.
JsonObject tool_json(std::string_view name, std::string_view description, Json parameters);

// A tool whose parts stand side by side, as tool_json has it. `schema`: the field of its
// parameters; empty: it has none.
Result<JsonObject> tool_of(const Json& value, std::string_view schema);

// OpenAI's tool_choice: a word, or an object.
Result<Json> checked_choice(const Json& value);

// OpenAI's tool_choice of type allowed_tools, in chat completions' form or responses': the other
// tools go, and its mode is the choice.
Result<> apply_allowed_tools(ChatRequest& request);

// "none", "minimal", "low", "medium", "high" or "xhigh" of OpenAI.
Result<Think> effort_of(std::string_view effort);

}  // namespace ollama::api::foreign
