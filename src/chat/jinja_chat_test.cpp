#include "chat/jinja_chat.h"

#include <gtest/gtest.h>

#include <boost/json/parse.hpp>

namespace ollama::chat::jinja {
namespace {

api::Message message(std::string role, std::string content) {
  api::Message made;
  made.role = std::move(role);
  made.content = std::move(content);
  return made;
}

std::string render(std::string_view text, const JinjaConversation& conversation,
                   const JinjaChat::Tokens& tokens = {.bos = "<s>", .eos = "</s>"}) {
  const auto chat = JinjaChat::create(text, tokens);
  if (!chat) return std::string(chat.error().message());
  const auto prompt = chat->render(conversation);
  return prompt ? *prompt : std::string(prompt.error().message());
}

constexpr std::string_view kRoles =
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}";

TEST(JinjaChat, RolesContentsAndTokens) {
  const std::vector talk{message("system", "S"), message("user", "U")};
  EXPECT_EQ(render(kRoles, {.messages = talk}), "<s><system>S</s><user>U</s><assistant>");
  // A tokenizer that begins every prompt with the token must not get it twice.
  EXPECT_EQ(render(kRoles, {.messages = talk}, {.bos = "<s>", .eos = "|", .adds_bos = true}),
            "<system>S|<user>U|<assistant>");
}

// An answer that is given as the last message is to be continued: closed, the model would begin
// another one.
TEST(JinjaChat, ContinuesAnAnswer) {
  const std::vector talk{message("user", "Count"), message("assistant", " 1, 2 ")};
  EXPECT_EQ(render(kRoles, {.messages = talk}), "<s><user>Count</s><assistant> 1, 2 ");
  EXPECT_EQ(
      render("{% for m in messages %}[{{ m.content | trim }}]{% endfor %}", {.messages = talk}),
      "[Count][1, 2");
}

TEST(JinjaChat, ToolsAndCalls) {
  std::vector talk{message("user", "?"), message("assistant", ""), message("tool", "21")};
  api::ToolCall call;
  call.name = "f";
  call.arguments = {{"b", 1}, {"a", "x"}};
  talk[1].tool_calls = {call, call};
  talk[2].tool_name = "f";
  const api::Json tools = boost::json::parse(R"([{"type":"function","function":{"name":"f"}}])");
  EXPECT_EQ(render("{% for t in tools %}{{ t.function.name }};{% endfor %}"
                   "{% for m in messages %}{% for c in m.tool_calls %}{{ c.id }} {{ c.type }} "
                   "{{ c.function.name }} {{ c.function.arguments | tojson }};{% endfor %}"
                   "{% if m.role == 'tool' %}{{ m.name }} {{ m.tool_call_id }} {{ m.content }}"
                   "{% endif %}{% endfor %}",
                   {.messages = talk, .tools = &tools}),
            "f;call00001 function f {\"b\": 1, \"a\": \"x\"};"
            "call00002 function f {\"b\": 1, \"a\": \"x\"};f call00001 21");
  // No tools is no list: templates ask `if tools`, and `if tools is defined`.
  EXPECT_EQ(render("{{ tools is defined }}", {.messages = talk}), "False");
}

// Each result is of the call that it names, else of the first one of its tool, else of the first.
TEST(JinjaChat, ResultsFindTheirCalls) {
  std::vector<api::Message> talk{message("user", "?"), message("assistant", "")};
  for (const auto& [id, name] : {std::pair("x", "f"), std::pair("", "g"), std::pair("x", "f"),
                                 std::pair("", "f"), std::pair("y", "h")}) {
    api::ToolCall call;
    call.id = id;
    call.name = name;
    talk[1].tool_calls.push_back(call);
  }
  for (const auto& [id, name] :
       {std::pair("", "f"), std::pair("x", ""), std::pair("x", ""), std::pair("z", "f"),
        std::pair("", "k"), std::pair("", "h"), std::pair("", "f"), std::pair("", "f")}) {
    talk.push_back(message("tool", "1"));
    talk.back().tool_call_id = id;
    talk.back().tool_name = name;
  }
  EXPECT_EQ(render("{% for m in messages %}{% for c in m.tool_calls %}{{ c.id }} {% endfor %}"
                   "{% if m.role == 'tool' %}{{ m.tool_call_id }};{% endif %}{% endfor %}",
                   {.messages = talk}),
            "x call00002 x call00004 y x;x;x;z;call00002;y;call00004;;");
}

// Mistral's templates refuse ids that OpenAI's clients make.
TEST(JinjaChat, IdsThatATemplateRefuses) {
  std::vector talk{message("user", "?"), message("assistant", ""), message("tool", "21")};
  api::ToolCall call;
  call.id = "call_0123456789abcdef";
  call.name = "f";
  talk[1].tool_calls = {call};
  talk[2].tool_call_id = call.id;
  EXPECT_EQ(render("{% for m in messages %}{% for c in m.tool_calls %}{% if c.id | length != 9 %}"
                   "{{ raise_exception('length 9') }}{% endif %}{{ c.id }}{% endfor %}"
                   "{{ m.tool_call_id }}{% endfor %}",
                   {.messages = talk}),
            "call00001call00001");
  EXPECT_EQ(render("{{ messages[1].tool_calls[0].id }}", {.messages = talk}), call.id);
}

TEST(JinjaChat, SystemThatATemplateRefuses) {
  const std::vector talk{message("system", "S"), message("user", "U")};
  EXPECT_EQ(render("{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}"
                   "{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}",
                   {.messages = talk}),
            "<user>S\n\nU");
  EXPECT_EQ(render("{{ raise_exception('never') }}", {.messages = talk}),
            "line 1, column 19: never");
}

TEST(JinjaChat, Thinking) {
  std::vector talk{message("user", "?"), message("assistant", "A"), message("user", "!")};
  talk[1].thinking = "T";
  constexpr std::string_view kText =
      "{{ messages[1].reasoning_content }} {{ enable_thinking is defined }} {{ enable_thinking }} "
      "{{ reasoning_effort }}";
  EXPECT_EQ(render(kText, {.messages = talk}), "T False  ");
  EXPECT_EQ(render(kText, {.messages = talk, .think = api::Think{.enabled = false}}),
            "T True False ");
  EXPECT_EQ(
      render(kText, {.messages = talk, .think = api::Think{.enabled = true, .level = "high"}}),
      "T True True high");
}

TEST(JinjaChat, ImagesAndParts) {
  std::vector talk{message("user", "what?")};
  talk[0].images = {"bytes", "bytes"};
  EXPECT_EQ(render("{{ messages[0].content }}", {.messages = talk}), "[img-0][img-1]what?");
  // Parts, of which the template knows those of text alone.
  EXPECT_EQ(
      render("{% for p in messages[0].content %}{{ p.text }}{% endfor %}", {.messages = talk}),
      "[img-0][img-1]what?");
  std::vector begun{message("user", "what?"), message("assistant", "this [img] is")};
  begun[1].images = {"bytes"};
  EXPECT_EQ(render("{% for m in messages %}{{ m.content }}<end>{% endfor %}", {.messages = begun}),
            "what?<end>this [img-0] is");
  constexpr std::string_view kParts =
      "{% for p in messages[0].content %}{% if p.type == 'image' %}<i>{% elif p.type == 'text' %}"
      "{{ p.text }}{% endif %}{% endfor %}";
  EXPECT_EQ(render(kParts, {.messages = talk}), "<i><i>what?");
  talk[0].images.clear();
  EXPECT_EQ(render(kParts, {.messages = talk}), "what?");
}

TEST(JinjaChat, Errors) {
  EXPECT_EQ(render("{{ x }}", {}), "there are no messages");
  EXPECT_EQ(render("{% if %}", {}), "line 1, column 7: expected an expression, got '%}'");
}

}  // namespace
}  // namespace ollama::chat::jinja
