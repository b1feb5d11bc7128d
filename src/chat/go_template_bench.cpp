// A conversation of ten messages through templates of both styles: what a request pays for its
// prompt, and what it would pay if templates were not kept parsed.
#include "chat/go_template.h"

#include <benchmark/benchmark.h>

#include <format>
#include <vector>

namespace ollama::chat {
namespace {

// As models' templates are: a system block with tools, and a branch for each role.
constexpr std::string_view kMessages = R"({{- if or .System .Tools }}<|im_start|>system
{{- if .System }}
{{ .System }}
{{- end }}
{{- if .Tools }}

# Tools

<tools>
{{- range .Tools }}
{"type": "function", "function": {{ .Function }}}
{{- end }}
</tools>
{{- end }}<|im_end|>
{{ end }}
{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 -}}
{{- if eq .Role "user" }}<|im_start|>user
{{ .Content }}<|im_end|>
{{ else if eq .Role "assistant" }}<|im_start|>assistant
{{ if .Content }}{{ .Content }}
{{- else if .ToolCalls }}<tool_call>
{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
{{ end }}</tool_call>
{{- end }}{{ if not $last }}<|im_end|>
{{ end }}
{{- else if eq .Role "tool" }}<|im_start|>user
<tool_response>
{{ .Content }}
</tool_response><|im_end|>
{{ end }}
{{- if and (ne .Role "assistant") $last }}<|im_start|>assistant
{{ end }}
{{- end }})";

constexpr std::string_view kTurns = R"({{ if .System }}<|im_start|>system
{{ .System }}<|im_end|>
{{ end }}{{ if .Prompt }}<|im_start|>user
{{ .Prompt }}<|im_end|>
{{ end }}<|im_start|>assistant
{{ .Response }}<|im_end|>
)";

std::vector<api::Message> conversation() {
  std::vector<api::Message> messages;
  for (int i = 0; i < 10; ++i) {
    api::Message message;
    message.role = i == 0 ? "system" : i % 2 == 1 ? "user" : "assistant";
    message.content = std::format("Message {}: {}", i, std::string(200, 'x'));
    messages.push_back(std::move(message));
  }
  return messages;
}

void render(benchmark::State& state, std::string_view text) {
  const auto messages = conversation();
  const GoTemplate parsed = GoTemplate::parse(std::string(text)).value();
  for (auto _ : state) {
    benchmark::DoNotOptimize(render_chat(parsed, {.messages = messages}).value());
  }
}
void parse_and_render(benchmark::State& state, std::string_view text) {
  const auto messages = conversation();
  for (auto _ : state) {
    const GoTemplate parsed = GoTemplate::parse(std::string(text)).value();
    benchmark::DoNotOptimize(render_chat(parsed, {.messages = messages}).value());
  }
}

BENCHMARK_CAPTURE(render, messages, kMessages)->Name("render/messages");
BENCHMARK_CAPTURE(render, turns, kTurns)->Name("render/turns");
BENCHMARK_CAPTURE(parse_and_render, messages, kMessages)->Name("parse_and_render/messages");

}  // namespace
}  // namespace ollama::chat

BENCHMARK_MAIN();
