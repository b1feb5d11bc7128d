// A conversation as a template's data: what .Messages, .Tools and their fields are.
#pragma once

#include <deque>
#include <span>
#include <string>
#include <vector>

#include "api/types.h"
#include "chat/go/value.h"

namespace ollama::chat::go {

// Owns what its values need beyond the messages and tools that they were made of, which must live
// as long.
class ChatValues {
 public:
  // Neighbours of one role become one, but for tools' answers; a system message is a message too.
  Value messages(std::span<const api::Message> messages);
  // Tools as Ollama types them: what it does not know of is left out.
  Value tools(const api::Json& tools);
  Value object(std::vector<Field> fields, bool is_map = false);

 private:
  struct Collated {
    const api::Message* message = nullptr;  // the first of them
    std::string_view content;
    std::vector<Value> images;
    std::vector<const api::ToolCall*> tool_calls;
    std::string_view thinking;
  };
  Value message(const Collated& collated);
  Value tool_call(const api::ToolCall& call);
  Value tool(const api::JsonObject& tool);
  Value parameters(const api::JsonObject& parameters);
  Value properties(const api::JsonObject* properties, int depth);
  Value property(const api::Json& property, int depth);

  Value list(std::vector<Value> values);
  std::string_view text(std::string text) { return texts_.emplace_back(std::move(text)); }
  std::string_view content_of(const api::Message& message, std::vector<Value>& images);

  std::deque<std::string> texts_;
  std::deque<std::vector<Value>> lists_;
  std::deque<std::vector<Field>> fields_;
  std::deque<Object> objects_;
  std::size_t images_ = 0;
};

// The contents of all system messages, a blank line apart.
std::string system_text(std::span<const api::Message> messages);

}  // namespace ollama::chat::go
