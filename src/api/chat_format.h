// Other APIs' ways to ask for a chat and to tell its answer: their requests become native ones, and
// native responses become theirs. Pure: nothing here waits, sends or looks anything up.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "api/types.h"

namespace ollama::api {

inline constexpr std::string_view kEventStream = "text/event-stream";

// Tells one answer to the client that asked for it; an object serves one request.
class ChatFormat {
 public:
  virtual ~ChatFormat() = default;

  // Of a streamed answer.
  virtual std::string_view stream_type() const = 0;
  // What goes out as soon as the prompt's tokens are known, before the first piece.
  virtual std::string begin(const Metrics& /*prompt*/) { return {}; }
  // The bytes that go out for a response, whose `done` marks the last one. `choice` counts the
  // answers to one request, where there are several.
  virtual std::string piece(const ChatResponse& response, std::size_t choice) = 0;
  // What stands behind the last piece of all answers.
  virtual std::string end() = 0;
  // In a stream that has begun.
  virtual std::string broken(const StatusError& error) = 0;

  // An answer that is not streamed: all choices, complete.
  virtual JsonObject whole(const std::vector<ChatResponse>& responses) = 0;
};

// What other APIs ask for beside a native request.
struct ForeignChat {
  ChatRequest request;
  std::size_t choices = 1;     // answers to the same prompt
  bool parallel_tools = true;  // an answer may call several
  std::unique_ptr<ChatFormat> format;
};

// "call_", or "req_", and letters and digits.
std::string new_call_id();
std::string new_request_id();

// Native: lines of JSON.
std::unique_ptr<ChatFormat> native_format();

}  // namespace ollama::api
