#include "chat/jinja_chat.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <format>
#include <map>

#include "chat/images.h"

namespace ollama::chat {

namespace {

constexpr std::size_t kShortId = 9;

bool is_short_id(std::string_view id) {
  return id.size() == kShortId && std::ranges::all_of(id, [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
         });
}

// Tool calls and their results name each other by id: clients may leave ids out, and some templates
// want ids of one form. The messages outlive it.
class Ids {
 public:
  explicit Ids(bool shorten) : shorten_(shorten) {}

  std::string of_call(const api::ToolCall& call) {
    const std::size_t index = calls_.size();
    std::string id = call.id;
    if (id.empty() || (shorten_ && !is_short_id(id)))
      id = std::format("call{:05}", (index + 1) % 100'000);
    by_id_.emplace(call.id, index);
    by_name_.emplace(call.name, index);
    calls_.push_back({.id = id});
    return id;
  }

  // Of a tool's result: the id of the call that it names, else of the first that is unanswered.
  std::string of_result(const api::Message& result) {
    if (!result.tool_call_id.empty()) {
      Call* const named = first(by_id_, result.tool_call_id);
      return named != nullptr ? answer(*named) : result.tool_call_id;
    }
    if (Call* const named = first(by_name_, result.tool_name)) return answer(*named);
    while (first_ < calls_.size() && calls_[first_].answered) ++first_;
    return first_ < calls_.size() ? answer(calls_[first_]) : std::string();
  }

 private:
  struct Call {
    std::string id;
    bool answered = false;
  };
  // Calls that share a key, in their order.
  using Index = std::multimap<std::string_view, std::size_t>;

  // The first that is unanswered.
  Call* first(Index& index, std::string_view key) {
    for (auto at = index.lower_bound(key); at != index.end() && at->first == key;) {
      Call& call = calls_[at->second];
      if (!call.answered) return &call;
      at = index.erase(at);
    }
    return nullptr;
  }
  static std::string answer(Call& call) {
    call.answered = true;
    return call.id;
  }

  bool shorten_;
  std::vector<Call> calls_;
  Index by_id_;
  Index by_name_;
  std::size_t first_ = 0;  // those before it are answered
};

api::JsonObject text_part(std::string_view text) {
  return api::JsonObject{{"type", "text"}, {"text", text}};
}

boost::json::array make_calls(const api::Message& message, Ids& ids) {
  boost::json::array calls;
  for (const api::ToolCall& call : message.tool_calls) {
    api::JsonObject function{{"name", call.name}, {"arguments", call.arguments}};
    calls.push_back(api::JsonObject{
        {"id", ids.of_call(call)}, {"type", "function"}, {"function", std::move(function)}});
  }
  return calls;
}

// The system's text put before the first user message's.
std::vector<api::Message> merge_system(std::span<const api::Message> messages) {
  std::vector<api::Message> merged(messages.begin() + 1, messages.end());
  const auto user = std::ranges::find(merged, "user", &api::Message::role);
  if (user == merged.end()) {
    api::Message first = messages.front();
    first.role = "user";
    merged.insert(merged.begin(), std::move(first));
  } else {
    const api::Message& system = messages.front();
    user->content = system.content + "\n\n" + user->content;
    user->images.insert(user->images.begin(), system.images.begin(), system.images.end());
  }
  return merged;
}

bool continues(std::span<const api::Message> messages) {
  const api::Message& last = messages.back();
  return last.role == "assistant" && last.tool_calls.empty() && !last.content.empty();
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r\n";
  const std::size_t first = text.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlank) - first + 1);
}

// Up to the end of the last message's text, or as it is where a template changed that.
void cut_after(std::string& prompt, std::string_view content) {
  std::size_t size = content.size();
  std::size_t at = prompt.rfind(content);
  if (at == std::string::npos) {
    const std::string_view inner = trimmed(content);
    size = inner.size();
    at = prompt.rfind(inner);
  }
  if (at != std::string::npos) prompt.resize(at + size);
}

}  // namespace

Result<JinjaChat> JinjaChat::create(std::string_view template_text, Tokens tokens) {
  OLLAMA_ASSIGN(JinjaTemplate parsed, JinjaTemplate::parse(template_text));
  JinjaChat chat(std::move(parsed), std::move(tokens));
  chat.parts_ = chat.wants_parts();
  return chat;
}

// Whether a text is lost unless it comes as a part. A template that fails on so short a
// conversation is taken for one that wants texts.
bool JinjaChat::wants_parts() const {
  constexpr std::string_view kProbe = "probe of a text";
  if (!template_.mentions("text")) return false;
  const auto shows = [&](api::Json content) {
    boost::json::array messages;
    messages.push_back(api::JsonObject{{"role", "user"}, {"content", std::move(content)}});
    const api::JsonObject context{{"messages", std::move(messages)},
                                  {"add_generation_prompt", true},
                                  {"bos_token", tokens_.bos},
                                  {"eos_token", tokens_.eos}};
    JinjaOptions options;
    options.limits.steps = 100'000;
    const auto text = template_.render(context, options);
    return text && text->contains(kProbe);
  };
  if (shows(api::Json(kProbe))) return false;
  boost::json::array parts;
  parts.push_back(text_part(kProbe));
  return shows(std::move(parts));
}

api::Json JinjaChat::make_content(const api::Message& message, std::size_t& images) const {
  const bool image_parts = !message.images.empty() && template_.mentions("image");
  boost::json::array parts;
  if (!image_parts) {
    const std::string content = content_with_marks(message, images);
    if (!parts_) return api::Json(std::string_view(content));
    parts.push_back(text_part(content));
    return parts;
  }
  for (std::size_t i = 0; i < message.images.size(); ++i) {
    parts.push_back(api::JsonObject{{"type", "image"}});
    ++images;
  }
  parts.push_back(text_part(message.content));
  return parts;
}

api::JsonObject JinjaChat::make_message(const api::Message& message, std::size_t& images) const {
  api::JsonObject made{{"role", message.role}, {"content", make_content(message, images)}};
  if (!message.thinking.empty()) {
    made["reasoning_content"] = message.thinking;
    for (const char* name : {"thinking", "reasoning"}) {
      if (template_.mentions(name)) made[name] = message.thinking;
    }
  }
  if (message.role == "tool" && !message.tool_name.empty()) made["name"] = message.tool_name;
  return made;
}

void JinjaChat::add_thinking(api::JsonObject& context, const api::Think& think) const {
  context["enable_thinking"] = think.enabled;
  context["thinking"] = think.enabled;
  if (!think.level.empty()) context["reasoning_effort"] = think.level;
}

api::JsonObject JinjaChat::make_context(const JinjaConversation& conversation, Form form) const {
  boost::json::array messages;
  std::size_t images = 0;
  Ids ids(form.short_ids);
  for (const api::Message& message : conversation.messages) {
    api::JsonObject made = make_message(message, images);
    if (!message.tool_calls.empty()) made["tool_calls"] = make_calls(message, ids);
    if (message.role == "tool") {
      if (const std::string id = ids.of_result(message); !id.empty()) made["tool_call_id"] = id;
    }
    messages.push_back(std::move(made));
  }
  api::JsonObject context{{"messages", std::move(messages)},
                          {"add_generation_prompt", !continues(conversation.messages)},
                          {"bos_token", tokens_.bos},
                          {"eos_token", tokens_.eos}};
  const auto add_list = [&](std::string_view name, const api::Json* list) {
    if (list != nullptr && list->is_array() && !list->get_array().empty()) context[name] = *list;
  };
  add_list("tools", conversation.tools);
  add_list("documents", conversation.documents);
  if (conversation.think) add_thinking(context, *conversation.think);
  return context;
}

Result<std::string> JinjaChat::render_form(const JinjaConversation& conversation, Form form,
                                           const JinjaOptions& options) const {
  JinjaConversation shown = conversation;
  std::vector<api::Message> merged;
  if (form.system_in_user) {
    merged = merge_system(conversation.messages);
    shown.messages = merged;
  }
  return template_.render(make_context(shown, form), options);
}

Result<std::string> JinjaChat::render(const JinjaConversation& conversation,
                                      const JinjaOptions& options) const {
  const std::span<const api::Message> messages = conversation.messages;
  if (messages.empty()) return fail(ErrorCode::kInvalidArgument, "there are no messages");
  Result<std::string> prompt = render_form(conversation, {}, options);
  const bool has_calls = std::ranges::any_of(
      messages, [](const api::Message& message) { return !message.tool_calls.empty(); });
  const bool has_system = messages.front().role == "system";
  for (const Form form : {Form{.short_ids = true}, Form{.system_in_user = true},
                          Form{.short_ids = true, .system_in_user = true}}) {
    if (prompt || prompt.error().code() != ErrorCode::kInvalidArgument) break;
    if ((form.short_ids && !has_calls) || (form.system_in_user && !has_system)) continue;
    // Of a template that accepts no form, the first error says most.
    if (auto other = render_form(conversation, form, options)) prompt = std::move(other);
  }
  if (!prompt) return prompt;
  if (continues(messages)) {
    std::size_t images = 0;
    for (const api::Message& before : messages.first(messages.size() - 1)) {
      images += before.images.size();
    }
    cut_after(*prompt, content_with_marks(messages.back(), images));
  }
  if (tokens_.adds_bos && !tokens_.bos.empty() && prompt->starts_with(tokens_.bos)) {
    prompt->erase(0, tokens_.bos.size());
  }
  return prompt;
}

}  // namespace ollama::chat
