#include "chat/prompt.h"

#include <algorithm>
#include <format>

#include "base/log.h"
#include "chat/builtin.h"
#include "chat/images.h"

namespace ollama::chat {

namespace {

// Templates kept parsed: a model's own, and a few that requests bring.
constexpr std::size_t kMaxParsed = 4;

// A format of role markers. `assistant` names the model's role.
struct Format {
  std::string_view name;
  std::string_view marker;  // in a template's text
  std::string_view before_role;
  std::string_view after_role;
  std::string_view end;  // of a message
  std::string_view assistant = "assistant";
  bool system_role = true;  // else the system's text begins the first user message
};

constexpr std::array kFormats{
    Format{.name = "ChatML",
           .marker = "<|im_start|>",
           .before_role = "<|im_start|>",
           .after_role = "\n",
           .end = "<|im_end|>\n"},
    Format{.name = "Llama 3",
           .marker = "<|start_header_id|>",
           .before_role = "<|start_header_id|>",
           .after_role = "<|end_header_id|>\n\n",
           .end = "<|eot_id|>"},
    Format{.name = "Gemma",
           .marker = "<start_of_turn>",
           .before_role = "<start_of_turn>",
           .after_role = "\n",
           .end = "<end_of_turn>\n",
           .assistant = "model",
           .system_role = false},
    Format{.name = "Phi",
           .marker = "<|end|>",
           .before_role = "<|",
           .after_role = "|>\n",
           .end = "<|end|>\n"},
};

// By the markers that a template mentions, else by the architecture; null where neither tells.
const Format* choose_format(std::string_view text, std::string_view architecture) {
  for (const Format& format : kFormats) {
    if (text.contains(format.marker)) return &format;
  }
  if (architecture.starts_with("gemma")) return &kFormats[2];
  if (architecture.starts_with("phi")) return &kFormats[3];
  return nullptr;
}

std::string render_format(const Format& format, std::span<const api::Message> messages) {
  std::string out;
  std::string system;
  std::size_t images = 0;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const api::Message& message = messages[i];
    if (message.role == "system" && !format.system_role) {
      system += content_with_marks(message, images) + "\n\n";
      continue;
    }
    const bool assistant = message.role == "assistant";
    const std::string_view role = assistant                  ? format.assistant
                                  : message.role == "system" ? std::string_view("system")
                                                             : std::string_view("user");
    out += std::format("{}{}{}", format.before_role, role, format.after_role);
    if (!assistant) out += std::exchange(system, {});
    out += content_with_marks(message, images);
    // An answer that was begun goes on.
    if (assistant && i + 1 == messages.size()) return out;
    out += format.end;
  }
  out += std::format("{}{}{}", format.before_role, format.assistant, format.after_role);
  return out;
}

// Whether a Go template is nothing but {{ .Prompt }}.
bool is_bare(std::string_view text) {
  std::string rest(text);
  std::erase_if(rest, [](char c) { return std::string_view(" \t\r\n-").contains(c); });
  return rest == "{{.Prompt}}";
}

// Built-in forms have no place for tools: an answer without them would be wrong in silence.
Result<> refuse_tools(const ChatData& chat) {
  const auto* tools = chat.tools == nullptr ? nullptr : chat.tools->if_array();
  if (tools == nullptr || tools->empty()) return {};
  return fail(ErrorCode::kInvalidArgument,
              "the model has no template that this version can show tools with");
}

std::string bare_contents(std::span<const api::Message> messages) {
  std::string out;
  std::size_t images = 0;
  for (const api::Message& message : messages) {
    if (!out.empty()) out += '\n';
    out += content_with_marks(message, images);
  }
  return out;
}

}  // namespace

Result<std::string> PromptRenderer::render(const PromptInput& input, const RenderOptions& options) {
  const bool fill_in = !input.chat.suffix.empty();
  if (input.chat.messages.empty() && !fill_in) {
    return fail(ErrorCode::kInvalidArgument, "there are no messages to answer");
  }
  if (!fill_in && !input.renderer.empty()) return render_builtin(input, options);
  if (!fill_in && is_bare(input.template_text)) return bare_contents(input.chat.messages);
  if (!input.template_text.empty()) {
    OLLAMA_ASSIGN(const GoTemplate parsed, go_template(input.template_text));
    return render_chat(parsed, input.chat, options);
  }
  if (fill_in) {
    return fail(ErrorCode::kInvalidArgument,
                "the model has no template that fills in text before a suffix");
  }
  if (!model_.jinja.empty()) return render_jinja(input, options);
  OLLAMA_TRY(refuse_tools(input.chat));
  const Format* format = choose_format({}, model_.architecture);
  return format != nullptr ? render_format(*format, input.chat.messages)
                           : bare_contents(input.chat.messages);
}

AnswerFormat PromptRenderer::answer_format(std::string_view template_text,
                                           std::string_view renderer, std::string_view parser) {
  if (const auto builtin = builtin_parser(parser)) return builtin->format;
  if (const auto text = builtin_template(renderer)) {
    return chat::answer_format(*text, model_.architecture);
  }
  if (template_text.empty() || is_bare(template_text)) {
    return chat::answer_format(model_.jinja, model_.architecture);
  }
  AnswerFormat format = chat::answer_format(template_text, model_.architecture);
  const auto parsed = go_template(template_text);
  if (const auto tags = parsed ? parsed->thinking_tags() : std::nullopt) {
    format.think_open = tags->open;
    format.think_close = tags->close;
  }
  return format;
}

Result<GoTemplate> PromptRenderer::go_template(std::string_view text) {
  const auto found = std::ranges::find(parsed_, text, &Parsed::text);
  if (found != parsed_.end()) {
    std::rotate(found, found + 1, parsed_.end());
    return parsed_.back().parsed;
  }
  OLLAMA_ASSIGN(GoTemplate parsed, GoTemplate::parse(std::string(text)));
  if (parsed_.size() == kMaxParsed) parsed_.erase(parsed_.begin());
  return parsed_.emplace_back(std::string(text), std::move(parsed)).parsed;
}

Result<std::string> PromptRenderer::render_builtin(const PromptInput& input,
                                                   const RenderOptions& options) {
  if (!builtin_ || renderer_ != input.renderer) {
    OLLAMA_TRY(check_builtin(input.renderer, {}));
    OLLAMA_ASSIGN(builtin_, JinjaChat::create(*builtin_template(input.renderer), model_.tokens));
    renderer_ = input.renderer;
  }
  return builtin_->render(
      {.messages = input.chat.messages, .tools = input.chat.tools, .think = input.chat.think},
      {.now = options.now});
}

Result<std::string> PromptRenderer::render_jinja(const PromptInput& input,
                                                 const RenderOptions& options) {
  if (!jinja_) jinja_ = JinjaChat::create(model_.jinja, model_.tokens);
  const Result<JinjaChat>& parsed = *jinja_;
  if (parsed) {
    return parsed->render(
        {.messages = input.chat.messages, .tools = input.chat.tools, .think = input.chat.think},
        {.now = options.now});
  }
  // A template that is broken keeps nobody from talking with the model.
  OLLAMA_TRY(refuse_tools(input.chat));
  const Format* format = choose_format(model_.jinja, model_.architecture);
  if (format == nullptr) format = &kFormats[0];
  log::warn("the model's own chat template is broken ({}); its messages are rendered in {} form",
            parsed.error().message(), format->name);
  return render_format(*format, input.chat.messages);
}

}  // namespace ollama::chat
