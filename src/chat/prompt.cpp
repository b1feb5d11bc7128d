#include "chat/prompt.h"

#include "base/log.h"

namespace ollama::chat {

namespace {

enum class Field : std::uint8_t { kText, kSystem, kPrompt, kResponse };

struct Part {
  Field field = Field::kText;
  std::string_view text = {};  // of kText
};

constexpr std::string_view kBlanks = " \t\r\n";

std::string_view trim(std::string_view text) {
  const auto first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}
std::string_view trim_right(std::string_view text) {
  const auto last = text.find_last_not_of(kBlanks);
  return last == std::string_view::npos ? std::string_view{} : text.substr(0, last + 1);
}
std::string_view trim_left(std::string_view text) {
  const auto first = text.find_first_not_of(kBlanks);
  return first == std::string_view::npos ? std::string_view{} : text.substr(first);
}

// The parts of a template of plain fields; nullopt for one that uses more.
std::optional<std::vector<Part>> parse(std::string_view text) {
  std::vector<Part> parts;
  bool trim_next = false;
  while (!text.empty()) {
    const auto open = text.find("{{");
    std::string_view literal = text.substr(0, open);
    if (trim_next) literal = trim_left(literal);
    if (open == std::string_view::npos) {
      if (!literal.empty()) parts.push_back({.text = literal});
      break;
    }
    const auto close = text.find("}}", open);
    if (close == std::string_view::npos) return std::nullopt;
    std::string_view action = text.substr(open + 2, close - open - 2);
    if (action.starts_with("- ")) {
      literal = trim_right(literal);
      action.remove_prefix(2);
    }
    trim_next = action.ends_with(" -");
    if (trim_next) action.remove_suffix(2);
    action = trim(action);
    if (!literal.empty()) parts.push_back({.text = literal});
    if (action == ".System") {
      parts.push_back({.field = Field::kSystem});
    } else if (action == ".Prompt") {
      parts.push_back({.field = Field::kPrompt});
    } else if (action == ".Response") {
      parts.push_back({.field = Field::kResponse});
    } else {
      return std::nullopt;
    }
    text.remove_prefix(close + 2);
  }
  return parts;
}

bool is_bare(const std::vector<Part>& parts) {
  return std::ranges::all_of(parts, [](const Part& part) {
    return part.field == Field::kText ? trim(part.text).empty() : part.field == Field::kPrompt;
  });
}

struct Turn {
  std::string system;
  std::string prompt;
  std::string response;
  bool empty() const { return system.empty() && prompt.empty() && response.empty(); }
};

// Messages as turns of system, prompt and response; neighbours of one role become one.
std::vector<Turn> turns_of(std::span<const api::Message> messages) {
  std::vector<Turn> turns(1);
  const auto append = [](std::string& to, std::string_view text) {
    if (!to.empty()) to += "\n\n";
    to += text;
  };
  for (const api::Message& message : messages) {
    if (message.role == "system") {
      if (!turns.back().prompt.empty() || !turns.back().response.empty()) turns.emplace_back();
      append(turns.back().system, message.content);
    } else if (message.role == "assistant") {
      append(turns.back().response, message.content);
    } else {
      if (!turns.back().response.empty()) turns.emplace_back();
      append(turns.back().prompt, message.content);
    }
  }
  return turns;
}

std::string render_turns(std::vector<Part> parts, std::span<const api::Message> messages) {
  if (std::ranges::none_of(parts, [](const Part& p) { return p.field == Field::kResponse; })) {
    parts.push_back({.field = Field::kResponse});
  }
  std::string out;
  const std::vector<Turn> turns = turns_of(messages);
  for (std::size_t i = 0; i < turns.size(); ++i) {
    for (const Part& part : parts) {
      if (part.field == Field::kText) out += part.text;
      if (part.field == Field::kSystem) out += turns[i].system;
      if (part.field == Field::kPrompt) out += turns[i].prompt;
      if (part.field == Field::kResponse) {
        out += turns[i].response;
        if (i + 1 == turns.size()) return out;  // the answer goes on from here
      }
    }
  }
  return out;
}

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

const Format& choose_format(std::string_view template_text, std::string_view architecture) {
  for (const Format& format : kFormats) {
    if (template_text.contains(format.marker)) return format;
  }
  if (architecture.starts_with("gemma")) return kFormats[2];
  if (architecture.starts_with("phi")) return kFormats[3];
  return kFormats[0];
}

std::string render_format(const Format& format, std::span<const api::Message> messages) {
  std::string out;
  std::string system;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const api::Message& message = messages[i];
    if (message.role == "system" && !format.system_role) {
      system += message.content + "\n\n";
      continue;
    }
    const bool assistant = message.role == "assistant";
    const std::string_view role = assistant                  ? format.assistant
                                  : message.role == "system" ? std::string_view("system")
                                                             : std::string_view("user");
    out += std::format("{}{}{}", format.before_role, role, format.after_role);
    if (!assistant) out += std::exchange(system, {});
    out += message.content;
    // An answer that was begun goes on.
    if (assistant && i + 1 == messages.size()) return out;
    out += format.end;
  }
  out += std::format("{}{}{}", format.before_role, format.assistant, format.after_role);
  return out;
}

}  // namespace

Result<std::string> render(const PromptInput& input) {
  if (input.messages.empty()) {
    return fail(ErrorCode::kInvalidArgument, "there are no messages to answer");
  }
  auto parts = parse(input.template_text);
  if (parts && is_bare(*parts)) {
    std::string out;
    for (const api::Message& message : input.messages) {
      if (!out.empty()) out += '\n';
      out += message.content;
    }
    return out;
  }
  if (parts) return render_turns(std::move(*parts), input.messages);
  const Format& format = choose_format(input.template_text, input.architecture);
  log::warn(
      "the model's template uses more than this version understands; its messages are "
      "rendered in {} form",
      format.name);
  return render_format(format, input.messages);
}

}  // namespace ollama::chat
