// Parses arbitrary bytes as a template and renders it on a small conversation.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "chat/jinja/template.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ollama;
  static const api::Json context = api::parse_json(R"({
    "bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": true, "n": 3, "x": 1.5,
    "messages": [
      {"role": "system", "content": "Be brief."},
      {"role": "user", "content": "Wie ist das Wetter in Zürich? 🎉"},
      {"role": "assistant", "content": "", "tool_calls": [{"id": "abcdefghi", "type": "function",
        "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": 3}}}]},
      {"role": "tool", "name": "get_weather", "tool_call_id": "abcdefghi", "content": "21"}],
    "tools": [{"type": "function", "function": {"name": "get_weather", "description": "d",
      "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]})")
                                       .value();
  chat::JinjaOptions options{.now = std::chrono::local_seconds{}};
  options.limits = {.steps = 50'000,
                    .memory = 8UL * 1024 * 1024,
                    .output = 1024UL * 1024,
                    .depth = 300,
                    .time = std::chrono::milliseconds(1000)};
  const auto parsed = chat::JinjaTemplate::parse({reinterpret_cast<const char*>(data), size});
  if (parsed) (void)parsed->render(context.as_object(), options);
  return 0;
}
