// What a conversation at the prompt is made of, and one turn of it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "api/types.h"
#include "cmd/model_host.h"

namespace ollama::cmd {

struct Session {
  std::string model;
  std::string parent_model;  // what the model was made of, where it says so
  std::string prompt;        // of a run without a conversation
  std::string system;        // set at the prompt
  std::vector<api::Message> messages;
  api::JsonObject options;  // set at the prompt
  api::Json format;         // null, "json" or a schema
  std::optional<api::Duration> keep_alive;
  std::optional<api::Think> think;
  bool think_chosen = false;  // by the user; else by what the model can do
  bool hide_thinking = false;
  bool word_wrap = true;
  bool verbose = false;
};

// One answer to `session.prompt`, printed. Ctrl-C ends it and is no error.
Result<> generate_once(ModelHost& host, const Session& session);

// One answer to the conversation, printed; it is added to it, as far as it came before Ctrl-C.
Result<> chat_once(ModelHost& host, Session& session);

// Loads the model before the first question, showing a spinner, and finds out whether it thinks.
Result<> load_model(ModelHost& host, Session& session);
// Whether `model` can do `capability` ("thinking", "embedding").
bool has_capability(const api::ShowResponse& model, std::string_view capability);

// The `create` request that `/save name` sends.
api::CreateRequest save_request(const Session& session, const std::string& name);

}  // namespace ollama::cmd
