#include <fstream>
#include <iterator>
#include <print>

#include "api/types.h"
#include "chat/go_template.h"
#include "chat/jinja/template.h"
#include "chat/prompt.h"
#include "cmd/commands.h"

namespace ollama::cmd {
namespace {

Result<std::string> read_file(const Arguments& arguments, std::string_view flag) {
  const std::string& path = arguments.text(flag);
  if (path.empty()) return fail(ErrorCode::kInvalidArgument, "--{} FILE is needed", flag);
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail(ErrorCode::kNotFound, "{}: cannot be read", path);
  return std::string{std::istreambuf_iterator<char>(file), {}};
}

// "2026-11-23T09:30" or with seconds, on the machine's own clock.
Result<chat::RenderOptions> render_options(const Arguments& arguments) {
  chat::RenderOptions options;
  std::string text = arguments.text("now");
  if (text.empty()) return options;
  constexpr std::size_t kWithoutSeconds = 16;
  if (text.size() == kWithoutSeconds) text += ":00";
  const auto time = api::parse_time(text + "Z");
  if (!time) {
    return fail(ErrorCode::kInvalidArgument, "--now must look like 2026-11-23T09:30, not '{}'",
                arguments.text("now"));
  }
  options.now = std::chrono::local_seconds(
      std::chrono::floor<std::chrono::seconds>(time->time_since_epoch()));
  return options;
}

// {"messages": [...]}, with tools, think, prompt and suffix as in the API, is a conversation;
// anything else is the template's dot.
Result<std::string> render_go(std::string text, const api::Json& data,
                              const chat::RenderOptions& options) {
  OLLAMA_ASSIGN(const auto parsed, chat::GoTemplate::parse(std::move(text)));
  const auto* object = data.if_object();
  if (object == nullptr || !object->contains("messages")) return parsed.render(data, options);
  OLLAMA_ASSIGN(const api::ChatRequest request, api::parse_chat_request(data));
  OLLAMA_ASSIGN(const api::GenerateRequest gap, api::parse_generate_request(data));
  return chat::render_chat(parsed,
                           {.messages = request.messages,
                            .tools = &request.tools,
                            .think = request.think,
                            .prompt = gap.prompt,
                            .suffix = gap.suffix},
                           options);
}

Result<std::string> render_jinja(std::string_view text, const api::Json& data,
                                 const chat::RenderOptions& options) {
  const auto* context = data.if_object();
  if (context == nullptr) {
    return fail(ErrorCode::kInvalidArgument, "--data: Jinja's context is a JSON object");
  }
  OLLAMA_ASSIGN(const auto parsed, chat::JinjaTemplate::parse(text));
  return parsed.render(*context, {.now = options.now});
}

// The data is a request to chat.
Result<std::string> render_builtin(const std::string& renderer, const api::Json& data,
                                   const chat::RenderOptions& options) {
  OLLAMA_ASSIGN(const api::ChatRequest request, api::parse_chat_request(data));
  chat::PromptRenderer prompts(chat::PromptRenderer::Model{});
  return prompts.render(
      {.chat = {.messages = request.messages, .tools = &request.tools, .think = request.think},
       .renderer = renderer},
      options);
}

Result<int> render(const Arguments& arguments) {
  OLLAMA_ASSIGN(const std::string data_text, read_file(arguments, "data"));
  auto data = api::parse_json(data_text);
  if (!data) return fail(ErrorCode::kInvalidArgument, "--data: {}", data.error().message());
  OLLAMA_ASSIGN(const auto options, render_options(arguments));
  const std::string& kind = arguments.text("kind");
  if (kind == "renderer") {
    if (!arguments.given("template")) {
      return fail(ErrorCode::kInvalidArgument, "--template NAME is needed");
    }
    OLLAMA_ASSIGN(const std::string rendered,
                  render_builtin(arguments.text("template"), *data, options));
    std::print("{}", rendered);
    return 0;
  }
  OLLAMA_ASSIGN(std::string text, read_file(arguments, "template"));
  if (kind == "jinja") {
    OLLAMA_ASSIGN(const std::string rendered, render_jinja(text, *data, options));
    std::print("{}", rendered);
    return 0;
  }
  if (kind != "go") {
    return fail(ErrorCode::kInvalidArgument, "--kind must be go, jinja or renderer, not '{}'",
                kind);
  }
  OLLAMA_ASSIGN(const std::string rendered, render_go(std::move(text), *data, options));
  std::print("{}", rendered);
  return 0;
}

}  // namespace

Command debug_render_command(const envconfig::Config& /*config*/) {
  return {.name = "render",
          .usage = "--template FILE|NAME --kind go|jinja|renderer --data FILE.json",
          .summary = "Print what a chat template makes of data",
          .flags = {{.name = "template",
                     .kind = FlagKind::kString,
                     .help = "The template's file, or a built-in renderer's name"},
                    {.name = "kind",
                     .kind = FlagKind::kString,
                     .help = "Its language: go or jinja; or renderer",
                     .fallback = "go"},
                    {.name = "data",
                     .kind = FlagKind::kString,
                     .help = "A JSON file: a Go template's dot, or {\"messages\": [...]} to be "
                             "rendered as a chat; Jinja's context; a renderer's chat"},
                    {.name = "now",
                     .kind = FlagKind::kString,
                     .help = "The time that templates see: 2026-11-23T09:30"}},
          .run = [](const Arguments& arguments) { return render(arguments); }};
}

}  // namespace ollama::cmd
