// Conversations through Go templates of both styles.
#include "chat/go/chat_values.h"
#include "chat/go/evaluator.h"
#include "chat/go_template.h"

namespace ollama::chat {
namespace {

using go::Extent;
using go::Field;
using go::Value;

class ChatRendering {
 public:
  ChatRendering(const GoTemplate& chat_template, const ChatData& data, const RenderOptions& options)
      : template_(chat_template), data_(data), options_(options) {}

  // The text around a gap.
  Result<std::string> fill_in() {
    return render({{.name = "Prompt", .value = Value(data_.prompt)},
                   {.name = "Suffix", .value = Value(data_.suffix)},
                   {.name = "Response", .value = Value(std::string_view())}},
                  Extent::kAll);
  }

  Result<std::string> all_messages() {
    const std::string system = go::system_text(data_.messages);
    return render(
        {{.name = "System", .value = Value(system)},
         {.name = "Messages", .value = values_.messages(data_.messages)},
         {.name = "Tools", .value = data_.tools == nullptr ? Value() : values_.tools(*data_.tools)},
         {.name = "Response", .value = Value(std::string_view())}},
        Extent::kAll);
  }

  // A turn is a system text, a prompt and a response, whichever there are, in this order.
  Result<std::string> turn_by_turn() {
    std::string out;
    std::string_view system;
    std::string_view prompt;
    std::string_view response;
    const auto turn = [&](Extent extent) -> Result<> {
      OLLAMA_ASSIGN(const std::string text, render({{.name = "System", .value = Value(system)},
                                                    {.name = "Prompt", .value = Value(prompt)},
                                                    {.name = "Response", .value = Value(response)}},
                                                   extent));
      out += text;
      if (!template_.uses("response")) out += response;
      if (out.size() > options_.limits.output) {
        return fail(ErrorCode::kInvalidArgument, "the template makes more than {} bytes",
                    options_.limits.output);
      }
      system = prompt = response = {};
      return {};
    };
    const Value messages = values_.messages(data_.messages);
    for (std::size_t i = 0; i < messages.list().size(); ++i) {
      const Value message = messages.list()[i];
      const std::string_view role = message.member("Role").text();
      const std::string_view content = message.member("Content").text();
      if (role == "assistant") {
        response = content;
        continue;
      }
      const bool is_system = role == "system";
      if (!is_system && role != "user") continue;
      if (!response.empty() || (is_system && !prompt.empty())) OLLAMA_TRY(turn(Extent::kAll));
      (is_system ? system : prompt) = content;
    }
    OLLAMA_TRY(turn(Extent::kUntilResponse));
    return out;
  }

 private:
  Result<std::string> render(std::vector<Field> fields, Extent extent) {
    const std::string_view level =
        data_.think ? std::string_view(data_.think->level) : std::string_view();
    fields.push_back({.name = "Think", .value = Value(data_.think && data_.think->enabled)});
    fields.push_back({.name = "ThinkLevel", .value = Value(level)});
    fields.push_back({.name = "IsThinkSet", .value = Value(data_.think.has_value())});
    return go::evaluate(template_.program(), values_.object(std::move(fields)), options_, extent);
  }

  const GoTemplate& template_;
  const ChatData& data_;
  const RenderOptions& options_;
  go::ChatValues values_;
};

}  // namespace

Result<std::string> render_chat(const GoTemplate& chat_template, const ChatData& data,
                                const RenderOptions& options) {
  ChatRendering rendering(chat_template, data, options);
  if (!data.prompt.empty() && !data.suffix.empty()) return rendering.fill_in();
  if (chat_template.uses("messages")) return rendering.all_messages();
  return rendering.turn_by_turn();
}

}  // namespace ollama::chat
