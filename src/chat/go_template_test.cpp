#include "chat/go_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <fstream>
#include <iterator>

namespace ollama::chat {
namespace {

using testing::HasSubstr;

api::Json read_json(const std::string& name) {
  std::ifstream file(std::string(OLLAMA_TEST_DATA "/chat/") + name);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  return api::parse_json(text).value();
}

Result<std::string> rendered(std::string text, const api::Json& data = {},
                             const RenderOptions& options = {}) {
  OLLAMA_ASSIGN(const GoTemplate parsed, GoTemplate::parse(std::move(text)));
  return parsed.render(data, options);
}
std::string error_of(const Result<std::string>& result) {
  return result ? "rendered: " + *result : std::string(result.error().message());
}

std::vector<api::Message> messages_of(std::string_view json) {
  std::vector<api::Message> messages;
  const api::Json list = api::parse_json(json).value();
  for (const api::Json& item : list.as_array()) {
    messages.push_back(api::parse_message(item).value());
  }
  return messages;
}

// ---- What Go and Ollama render

class GoCases : public testing::TestWithParam<const char*> {};

// Every case as Go has it: a template that renders otherwise gives a model another prompt than the
// one it was trained on.
TEST_P(GoCases, RenderAsGoDoes) {
  const api::Json file = read_json(GetParam());
  for (const api::Json& one : file.at("cases").as_array()) {
    const std::string name(one.at("name").as_string());
    const api::Json* own = one.as_object().if_contains("data");
    const api::Json& data = own == nullptr || own->is_null() ? file.at("data") : *own;
    const auto result = rendered(std::string(one.at("template").as_string()), data);
    if (one.as_object().contains("error")) {
      EXPECT_FALSE(result.has_value()) << name << ": " << *result;
      if (!result) {
        EXPECT_THAT(error_of(result), testing::MatchesRegex("template:[0-9]+:[0-9]+: .*")) << name;
      }
    } else {
      EXPECT_EQ(result.value_or(error_of(result)), one.at("expected").as_string()) << name;
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Files, GoCases,
                         testing::Values("go-template.json", "go-conformance.json"));

// Ollama's own templates, conversations through .Messages.
TEST(GoChat, OllamasTemplates) {
  const api::Json file = read_json("go-chat-templates.json");
  for (const auto& [name, one] : file.at("templates").as_object()) {
    const auto parsed = GoTemplate::parse(std::string(one.at("template").as_string()));
    ASSERT_TRUE(parsed.has_value()) << name << ": " << parsed.error().message();
    for (const auto& [conversation, expected] : one.at("expected").as_object()) {
      const auto messages = messages_of(api::to_string(file.at("messages").at(conversation)));
      EXPECT_EQ(render_chat(*parsed, {.messages = messages}).value(), expected.as_string())
          << name << " " << conversation;
    }
  }
}

// ---- Conversations

// Whatever the style, a message that is lost or glued to another changes what the model answers.
TEST(GoChat, MessagesOfOneRoleBecomeOne) {
  const auto messages = messages_of(R"([
    {"role":"system","content":"S1"},{"role":"user","content":"a"},{"role":"user","content":"b"},
    {"role":"system","content":"S2"},{"role":"assistant","content":""},
    {"role":"assistant","content":"c"},{"role":"tool","content":"1","tool_name":"f"},
    {"role":"tool","content":"2","tool_name":"g"}])");
  const auto parsed = GoTemplate::parse(
                          "{{ .System }}|{{ range .Messages }}[{{ .Role }} {{ .ToolName }}:{{ "
                          ".Content }}]{{ end }}")
                          .value();
  EXPECT_EQ(render_chat(parsed, {.messages = messages}).value(),
            "S1\n\nS2|[system :S1][user :a\n\nb][system :S2][assistant :c][tool f:1][tool g:2]");
}

// The older style: a rendering for each turn, the last one up to where the answer goes.
TEST(GoChat, TurnsEndWhereTheAnswerBegins) {
  const auto messages = messages_of(R"([
    {"role":"system","content":"S"},{"role":"user","content":"q1"},
    {"role":"assistant","content":"a1"},{"role":"user","content":"q2"}])");
  const auto whole = [&](std::string text) {
    return render_chat(GoTemplate::parse(std::move(text)).value(), {.messages = messages}).value();
  };
  EXPECT_EQ(whole("{{ if .System }}<{{ .System }}>{{ end }}[{{ .Prompt }}]{{ .Response }}<end>"),
            "<S>[q1]a1<end>[q2]");
  // In a block, and what follows it.
  EXPECT_EQ(whole("[{{ .Prompt }}]{{ if true }}({{ .Response }}){{ else }}x{{ end }}<end>"),
            "[q1](a1)<end>[q2](");
  // A condition on it is not the place; a template without it ends with it.
  EXPECT_EQ(whole("{{ if .Response }}!{{ end }}[{{ .Prompt }}]{{ .Response }};"), "![q1]a1;[q2]");
  EXPECT_EQ(whole("[{{ .Prompt }}]"), "[q1]a1[q2]");
}

TEST(GoChat, BegunAnswersGoOn) {
  const auto messages =
      messages_of(R"([{"role":"user","content":"q"},{"role":"assistant","content":"1, 2"}])");
  const auto parsed = GoTemplate::parse("{{ .Prompt }}|{{ .Response }}|").value();
  EXPECT_EQ(render_chat(parsed, {.messages = messages}).value(), "q|1, 2");
}

TEST(GoChat, FillsAGap) {
  const auto parsed = GoTemplate::parse(
                          "{{ if .Suffix }}<PRE>{{ .Prompt }}<SUF>{{ .Suffix }}<MID>{{ else }}"
                          "{{ .Prompt }}{{ end }}")
                          .value();
  EXPECT_EQ(render_chat(parsed, {.prompt = "a", .suffix = "b"}).value(), "<PRE>a<SUF>b<MID>");
  EXPECT_TRUE(parsed.uses("suffix"));
  EXPECT_FALSE(parsed.uses("tools"));
}

// "think" may be unset, off, on or a level; templates tell all of these apart.
TEST(GoChat, Thinking) {
  const auto messages = messages_of(R"([{"role":"user","content":"q"}])");
  const auto parsed = GoTemplate::parse(
                          "{{ range .Messages }}{{ end }}{{ .IsThinkSet }} {{ .Think }} "
                          "'{{ .ThinkLevel }}'")
                          .value();
  const auto with = [&](std::optional<api::Think> think) {
    return render_chat(parsed, {.messages = messages, .think = std::move(think)}).value();
  };
  EXPECT_EQ(with(std::nullopt), "false false ''");
  EXPECT_EQ(with(api::Think{.enabled = false, .level = ""}), "true false ''");
  EXPECT_EQ(with(api::Think{.enabled = true, .level = "high"}), "true true 'high'");
}

constexpr std::string_view kTools = R"([{"type":"function","function":{"name":"get_weather",
  "strict":true,"description":"The weather <now>","parameters":{"type":"object",
  "additionalProperties":false,"required":["city"],"properties":{
    "unit":{"type":["string","null"],"enum":["C","F"]},
    "city":{"description":"Where","type":"string","minLength":1},
    "any":{"anyOf":[{"type":"integer"},{"type":"array"}]}}}}}])";

// As Ollama's types write them: known fields in a fixed order, properties by name, as JSON that
// Go's encoder makes.
TEST(GoChat, ToolsAreJson) {
  const api::Json tools = api::parse_json(kTools).value();
  const auto messages = messages_of(R"([{"role":"user","content":"q"}])");
  const auto with = [&](std::string text) {
    const auto parsed = GoTemplate::parse("{{ if .Messages }}{{ end }}" + text).value();
    return render_chat(parsed, {.messages = messages, .tools = &tools}).value();
  };
  const std::string function =
      R"({"name":"get_weather","description":"The weather \u003cnow\u003e","parameters":)"
      R"({"type":"object","required":["city"],"properties":{)"
      R"("any":{"anyOf":[{"type":"integer"},{"type":"array"}]},)"
      R"("city":{"type":"string","description":"Where"},)"
      R"("unit":{"type":["string","null"],"enum":["C","F"]}}}})";
  EXPECT_EQ(with("{{ .Tools }}"), R"([{"type":"function","function":)" + function + "}]");
  EXPECT_EQ(with("{{ json .Tools }}"), with("{{ .Tools }}"));
  EXPECT_EQ(with("{{ .Tools.String }}"), with("{{ .Tools }}"));
  EXPECT_EQ(with("{{ range .Tools }}{{ .Function }}{{ end }}"), function);
  EXPECT_EQ(with("{{ range .Tools }}{{ range $name, $p := .Function.Parameters.Properties }}"
                 "{{ $name }}: {{ $p | toTypeScriptType }} {{ .Description }};{{ end }}{{ end }}"),
            "any: number | any[] ;city: string Where;unit: string | null ;");
  EXPECT_EQ(with("{{ len .Tools }}{{ (index .Tools 0).Function.Name }}"), "1get_weather");
}

TEST(GoChat, ToolCallsAndTheirAnswers) {
  const auto messages = messages_of(R"([{"role":"user","content":"q"},
    {"role":"assistant","content":"","thinking":"hm","tool_calls":[
      {"id":"1","function":{"name":"f","arguments":{"z":"<","a":[1,2.5,null]}}}]},
    {"role":"tool","content":"21","tool_name":"f","tool_call_id":"1"}])");
  const auto parsed =
      GoTemplate::parse(
          "{{ range .Messages }}{{ with .Thinking }}({{ . }}){{ end }}{{ range .ToolCalls }}"
          "{{ .ID }} {{ .Function.Name }}{{ .Function.Arguments }}{{ json .Function.Arguments }}"
          "{{ range $k, $v := .Function.Arguments }} {{ $k }}={{ $v }}{{ end }}{{ end }}"
          "{{ if eq .Role \"tool\" }} {{ .ToolName }}/{{ .ToolCallID }}: {{ .Content }}{{ end }}"
          "{{ end }}")
          .value();
  EXPECT_EQ(render_chat(parsed, {.messages = messages}).value(),
            R"((hm)1 f{"a":[1,2.5,null],"z":"\u003c"}{"a":[1,2.5,null],"z":"\u003c"})"
            " a=[1 2.5 <nil>] z=< f/1: 21");
}

TEST(GoChat, ImagesAreMarked) {
  const auto messages = messages_of(R"([{"role":"user","content":"see","images":["YQ==","Yg=="]},
    {"role":"assistant","content":"ok"},{"role":"user","content":"and [img] here","images":["Yw=="]}
    ])");
  const auto parsed =
      GoTemplate::parse("{{ range .Messages }}{{ .Content }}{{ len .Images }};{{ end }}").value();
  EXPECT_EQ(render_chat(parsed, {.messages = messages}).value(),
            "[img-0][img-1]see2;ok0;and [img-2] here1;");
}

TEST(GoTemplate, TellsTheDate) {
  const RenderOptions options{.now = std::chrono::local_days{std::chrono::year(2026) / 3 / 1} +
                                     std::chrono::hours(1)};
  EXPECT_EQ(
      rendered("{{ currentDate }} {{ yesterdayDate }} {{ currentDate \"2006\" }}", {}, options)
          .value(),
      "2026-03-01 2026-02-28 2026-03-01");
}

// ---- What a template tells of its model

TEST(GoTemplate, RevealsThinkingTags) {
  const auto tags = [](std::string text) {
    return GoTemplate::parse(std::move(text)).value().thinking_tags();
  };
  const auto qwen = tags(
      "{{ range $i, $_ := .Messages }}{{ if eq .Role \"assistant\" }}{{ if .Thinking }}\n<think>\n"
      "{{ .Thinking }}\n</think>\n{{ end }}{{ .Content }}{{ end }}{{ end }}");
  ASSERT_TRUE(qwen.has_value());
  EXPECT_EQ(qwen->open, "<think>");
  EXPECT_EQ(qwen->close, "</think>");
  EXPECT_FALSE(tags("{{ range .Messages }}{{ .Content }}{{ end }}").has_value());
  EXPECT_FALSE(tags("<think>{{ .Thinking }}</think>").has_value());
  EXPECT_FALSE(tags("{{ range .Tools }}<a>{{ .Thinking }}</a>{{ end }}").has_value());
}

// ---- Errors and limits

TEST(GoTemplate, ErrorsNameThePlace) {
  const auto at = [](std::string text, std::string_view data = "{}") {
    return error_of(rendered(std::move(text), api::parse_json(data).value()));
  };
  EXPECT_EQ(at("a\nb {{ nosuch }}"), "template:2:6: there is no function 'nosuch'");
  EXPECT_THAT(at("{{ if .X }}\n"), HasSubstr("template:2:1: "));
  EXPECT_EQ(at("\n\n  {{ index .L 1 }}", R"({"L":[]})"),
            "template:3:6: index: index out of range: 1");
  EXPECT_THAT(at("{{ .A\n.B\x01 }}"), HasSubstr("'\\x01'"));
}

// Each of these would otherwise take a runner's time or memory for good.
TEST(GoTemplate, LimitsEndHostileTemplates) {
  const auto ends_with = [](std::string text, std::string_view reason,
                            const RenderOptions& options = {}) {
    EXPECT_THAT(error_of(rendered(std::move(text), {}, options)), HasSubstr(reason));
  };
  const auto repeat = [](std::string_view text, int times) {
    std::string all;
    for (int i = 0; i < times; ++i) all += text;
    return all;
  };
  ends_with(repeat("{{if 1}}", 100'000), "nested deeper");
  ends_with("{{ " + repeat("(", 10'000) + "1" + repeat(")", 10'000) + " }}", "nested deeper");
  ends_with(repeat("{{ if 1 }}{{ else ", 10'000), "template:");
  ends_with("{{ define \"a\" }}{{ template \"a\" }}{{ end }}{{ template \"a\" }}", "nested deeper");
  std::string doubling;
  for (int i = 0; i < 60; ++i) {
    doubling += std::format(
        "{{{{define \"{}\"}}}}{{{{template \"{}\"}}}}{{{{template \"{}\"}}}}{{{{end}}}}", i, i + 1,
        i + 1);
  }
  RenderOptions few;
  few.limits.steps = 10'000;
  ends_with(doubling + "{{define \"60\"}}{{end}}{{template \"0\"}}", "more than 10000 steps", few);
  ends_with("{{ range 1000000000000000000 }}{{ end }}", "more than 10000 steps", few);
  ends_with("{{ range 1000000000 }}{{ range 1000000000 }}{{ end }}{{ end }}",
            "more than 10000 steps", few);
  ends_with("{{ printf \"%1000000000d\" 1 }}", "width");
  ends_with("{{ printf \"%*d\" 1000000000 1 }}", "width");
  ends_with("{{ printf \"%.1000000000f\" 1.5 }}", "precision");
  ends_with("{{ $x := \"0123456789\" }}{{ range 100 }}{{ $x = print $x $x }}{{ end }}", "more");
  RenderOptions small;
  small.limits.output = 1000;
  ends_with("{{ range 100 }}0123456789-{{ end }}", "more than 1000 bytes", small);
  RenderOptions hurried;
  hurried.limits.time = std::chrono::milliseconds(-1);
  ends_with("{{ range 100000 }}{{ end }}", "longer than", hurried);
  ends_with(std::string((1U << 20) + 1, 'x'), "longer than");
}

// Any bytes are a template or a clear error; texts made of the language's own parts reach deepest.
TEST(GoTemplate, AnyTextIsRenderedOrRefused) {
  const std::vector<std::string> parts{
      "{{",     "}}",        "{{- ",    " -}}",   " ",        "if ",      "else ", "end", "range ",
      "with ",  ".",         "$x",      ":=",     "=",        "|",        "(",     ")",   ".A",
      "\"s\"",  "'c'",       "`r`",     "1",      "-",        ",",        "$",     "nil", "true",
      "len ",   "printf",    "define ", "\n",     "/*",       "*/",       "x",     "\\",  "\xff",
      "block ", "template ", "break",   "index ", "{{ .A }}", "{{ end }}"};
  const api::Json data = api::parse_json(R"({"A":{"A":[1,"x"]}})").value();
  EXPECT_TRUE(rc::check([&](const std::vector<std::uint8_t>& choices) {
    std::string text;
    for (const std::uint8_t choice : choices) text += parts[choice % parts.size()];
    const auto result = rendered(text, data);
    if (!result) RC_ASSERT(result.error().message().starts_with("template:"));
  }));
}

}  // namespace
}  // namespace ollama::chat
