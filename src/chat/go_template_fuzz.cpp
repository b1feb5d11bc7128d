// Arbitrary bytes as a Go template: parsed, rendered on data and as a conversation, within limits.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "chat/go_template.h"

namespace {

using namespace ollama;

const api::Json& data() {
  static const api::Json kData = api::parse_json(R"({
    "System": "Be brief.", "Prompt": "Why?", "Response": "", "Empty": "", "Zero": 0, "N": 3.5,
    "Nil": null, "True": true, "List": ["a", "b", 1, null, [2]], "Map": {"z": 1, "a": {"b": "c"}},
    "Messages": [{"Role": "user", "Content": "Hi"}, {"Role": "assistant", "Content": "<b>"}]
  })")
                                     .value();
  return kData;
}

const api::ChatRequest& conversation() {
  static const api::ChatRequest kRequest = api::parse_chat_request(api::parse_json(R"({
    "model": "m",
    "messages": [
      {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
      {"role": "assistant", "content": "", "thinking": "hm",
       "tool_calls": [{"function": {"name": "f", "arguments": {"b": 1, "a": [true]}}}]},
      {"role": "tool", "content": "42", "tool_name": "f"}, {"role": "user", "content": "And?"}
    ],
    "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters":
      {"type": "object", "required": ["a"], "properties":
        {"a": {"type": ["string", "null"], "enum": ["x"]}, "b": {"type": "integer"}}}}}]
  })")
                                                                       .value())
                                               .value();
  return kRequest;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(bytes), size);
  const auto parsed = chat::GoTemplate::parse(std::string(text));
  if (!parsed) return 0;
  chat::RenderOptions options;
  options.limits.output = options.limits.scratch = 1U << 16;
  options.limits.steps = 10'000;
  options.now = std::chrono::local_days{std::chrono::year(2026) / 11 / 23};
  (void)parsed->render(data(), options);
  const api::ChatRequest& request = conversation();
  chat::ChatData chat{.messages = request.messages, .tools = &request.tools};
  (void)chat::render_chat(*parsed, chat, options);
  chat.prompt = "before";
  chat.suffix = "after";
  (void)chat::render_chat(*parsed, chat, options);
  (void)parsed->thinking_tags();
  return 0;
}
