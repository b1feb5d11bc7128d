// Prompts of the built-in renderers, to the byte, and answers as their parsers read them.
#include "chat/builtin.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <fstream>
#include <iterator>
#include <map>

#include "chat/jinja_chat.h"
#include "chat/prompt.h"
#include "chat/told.h"

namespace ollama::chat {
namespace {

using testing::HasSubstr;

api::Json builtin_data(const char* name) {
  std::ifstream file(std::string(OLLAMA_TEST_DATA "/chat/") + name);
  return boost::json::parse(std::string(std::istreambuf_iterator<char>(file), {}));
}

const RenderOptions kOneMorning{.now = std::chrono::local_days(std::chrono::year(2026) / 11 / 23) +
                                       std::chrono::minutes(570)};

Result<std::string> render_by(std::string_view renderer, const api::Json& conversation) {
  OLLAMA_ASSIGN(const api::ChatRequest request, api::parse_chat_request(conversation));
  PromptRenderer prompts(PromptRenderer::Model{.jinja = "{{ nothing }}"});
  return prompts.render(
      {.chat = {.messages = request.messages, .tools = &request.tools, .think = request.think},
       .template_text = "{{ .Prompt }}",
       .renderer = renderer},
      kOneMorning);
}

// Parameters may be left out of a tool.
TEST(Builtin, ToolsNeedNoParameters) {
  const api::Json conversation = boost::json::parse(
      R"({"messages":[{"role":"user","content":"a"}],"tools":[{"type":"function","function":{"name":"noon"}}]})");
  const api::Json data = builtin_data("builtin.json");
  for (const auto& [renderer, prompts] : data.at("renderers").as_object()) {
    const auto prompt = render_by(renderer, conversation);
    EXPECT_TRUE(prompt) << renderer << ": " << prompt.error().message();
  }
}

// {"conversations": {NAME: a request}, "renderers": {RENDERER: {NAME: prompt}}}.
TEST(Builtin, RendersAsOllamaDoes) {
  const api::Json data = builtin_data("builtin.json");
  std::size_t compared = 0;
  for (const auto& [renderer, prompts] : data.at("renderers").as_object()) {
    for (const auto& [name, expected] : prompts.as_object()) {
      const auto prompt = render_by(renderer, data.at("conversations").at(name));
      ASSERT_TRUE(prompt) << renderer << ", " << name << ": " << prompt.error().message();
      EXPECT_EQ(*prompt, std::string_view(expected.as_string())) << renderer << ", " << name;
      ++compared;
    }
  }
  EXPECT_GT(compared, 150U);
}

// Where a vendor's own template is there, it makes the same of nearly every conversation.
TEST(Builtin, RendersAsVendorsDo) {
  struct Same {
    const char* renderer;
    const char* model;
    std::vector<std::string> but;  // cases that Ollama renders otherwise, and why
  };
  const Same vendors[] = {
      {"qwen3.5", "Qwen3.5-4B", {}},
      {"nemotron-3-nano", "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", {}},
      {"gemma4-large", "google-gemma-4-31B-it", {}},
      {"harmony", "openai-gpt-oss-120b", {"no-generation-prompt"}},
      // This one calls functions tools, in other words than its vendor's first template.
      {"qwen3-coder", "Qwen3-Coder", {"tools", "tool-call-and-result"}},
      // Its vendor's own system text is for the model's SYSTEM.
      {"ministral",
       "Mistral-Small-3.2-24B-Instruct-2506",
       {"user", "no-generation-prompt", "tools", "thinking", "thinking-off", "unicode"}},
  };
  const api::Json models = builtin_data("jinja.json");
  for (const Same& same : vendors) {
    const auto parsed = JinjaTemplate::parse(*builtin_template(same.renderer));
    ASSERT_TRUE(parsed) << parsed.error().message();
    for (const api::Json& each : models.at(same.model).at("cases").as_array()) {
      const std::string name(each.at("name").as_string());
      if (std::ranges::contains(same.but, name) || !each.as_object().contains("expected")) continue;
      const auto prompt = parsed->render(each.at("context").as_object(), {.now = kOneMorning.now});
      ASSERT_TRUE(prompt) << same.renderer << ", " << name << ": " << prompt.error().message();
      std::string expected(each.at("expected").as_string());
      // The fixture's vocabulary has another beginning of texts.
      if (expected.starts_with("<s>") && prompt->starts_with("<bos>")) {
        expected.replace(0, 3, "<bos>");
      }
      EXPECT_EQ(*prompt, expected) << same.renderer << ", " << name;
    }
  }
}

TEST(Builtin, NamesThatAreNotKnown) {
  EXPECT_FALSE(builtin_template("nosuch"));
  EXPECT_FALSE(builtin_template(""));
  EXPECT_FALSE(builtin_parser("nosuch"));
  EXPECT_TRUE(check_builtin("", ""));
  EXPECT_TRUE(check_builtin("qwen3-coder", "qwen3-coder"));
  EXPECT_THAT(check_builtin("qwen9", "").error().message(),
              HasSubstr("the built-in renderer \"qwen9\" is not known; those that are: cogito, "));
  EXPECT_THAT(check_builtin("", "qwen9").error().message(),
              HasSubstr("the built-in parser \"qwen9\" is not known; those that are: cogito, "));
  const api::Json conversation = builtin_data("builtin.json").at("conversations").at("begun");
  EXPECT_THAT(render_by("qwen9", conversation).error().message(), HasSubstr("is not known"));
}

TEST(Builtin, Gemma4IsOfTwoSizes) {
  EXPECT_EQ(resolve_renderer("qwen3-coder", "gemma4:31b", "31B"), "qwen3-coder");
  EXPECT_EQ(resolve_renderer("gemma4", "gemma4:e4b", "31B"), "gemma4-small");
  EXPECT_EQ(resolve_renderer("gemma4", "my-Gemma-31B", ""), "gemma4-large");
  EXPECT_EQ(resolve_renderer("gemma4", "mine", "25.8B"), "gemma4-large");
  EXPECT_EQ(resolve_renderer("gemma4", "mine", "8.0B"), "gemma4-small");
  EXPECT_EQ(resolve_renderer("gemma4", "mine", "270M"), "gemma4-small");
  EXPECT_EQ(resolve_renderer("gemma4", "mine", ""), "gemma4-small");
}

struct Heard {
  const char* parser;
  const char* answer;
  const char* expected;
  bool inside_thinking = false;
};

// The names of get_weather's arguments are as in the data's conversation "tools".
const Heard kHeard[] = {
    {"qwen3", "Hm.\n<tool_call>\n{\"name\": \"add\", \"arguments\": {\"list\": [1]}}\n</tool_call>",
     "text=Hm.|add{\"list\":[1]}|"},
    {"qwen3-thinking",
     "I look.\n</think>\n\nHm.<tool_call>{\"name\":\"add\",\"arguments\":{}}</tool_call>",
     "thinking=I look.|text=Hm.|add{}|", true},
    {"qwen3-thinking", "I look.\n<tool_call>{\"name\":\"add\",\"arguments\":{}}</tool_call>",
     "thinking=I look.|add{}|", true},
    {"qwen3-thinking",
     "I look.\n<tool_call>{\"name\":\"add\",\"arguments\":{}}</tool_call>\n</think>\n\nHm.",
     "thinking=I look.|text=Hm.|add{}|", true},
    {"qwen3-thinking",
     "I look.\n<tool_call>{\"name\":\"add\",\"arguments\":{\"list\":[\"</think>\"]}}</tool_call>",
     "thinking=I look.\n<tool_call>{\"name\":\"add\",\"arguments\":{\"list\":[\"|"
     "text=\"]}}</tool_call>|",
     true},
    {"qwen3-thinking", "A <tool_call> is due.\n</think>\n\nHm.</tool_call>",
     "thinking=A <tool_call> is due.|text=Hm.</tool_call>|", true},
    {"qwen3-thinking", "Not <tool_call>rm</tool_call> \n</think>Hm.",
     "thinking=Not <tool_call>rm</tool_call>|text=Hm.|", true},
    {"qwen3-thinking", "I <tool_call", "thinking=I <tool_call|", true},
    {"qwen3-coder",
     "Hm.\n<tool_call>\n<function=get_weather>\n<parameter=city>\n53111\n</parameter>\n</"
     "function>\n"
     "</tool_call>\n<tool_call>\n<function=add>\n<parameter=list>\n[1, 2]\n</parameter>\n"
     "<parameter=exact>\nTrue\n</parameter>\n</function>\n</tool_call>",
     R"(text=Hm.|get_weather{"city":"53111"}|add{"list":[1,2],"exact":true}|)"},
    {"qwen3.5",
     "I look.\n</think>\n\nHm.\n\n<tool_call>\n<function=get_weather>\n<parameter=city>\nBonn\n"
     "</parameter>\n</function>\n</tool_call>",
     R"(thinking=I look.|text=Hm.|get_weather{"city":"Bonn"}|)", true},
    {"nemotron-3-nano",
     "I look.\n</think>\nHm.<tool_call>\n<function=get_weather>\n<parameter=city>\nBonn\n"
     "</parameter>\n</function>\n</tool_call>\n",
     R"(thinking=I look.|text=Hm.|get_weather{"city":"Bonn"}|)", true},
    {"qwen3-vl-instruct", "<tool_call>\n{\"name\":\"add\",\"arguments\":{}}\n</tool_call>",
     "add{}|"},
    {"qwen3-vl-thinking", "I look.\n</think>\n\nHm.", "thinking=I look.|text=Hm.|", true},
    {"ministral", "[THINK]I look.[/THINK]Hm.[TOOL_CALLS]get_weather[ARGS]{\"city\": \"Bonn\"}",
     R"(thinking=I look.|text=Hm.|get_weather{"city":"Bonn"}|)"},
    {"harmony",
     "<|channel|>analysis<|message|>I "
     "look.<|end|><|start|>assistant<|channel|>commentary<|message|>"
     "Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather "
     "<|constrain|>json<|message|>{\"city\":\"Bonn\"}<|call|>",
     R"(thinking=I look.|text=Hm.|get_weather{"city":"Bonn"}|)"},
    {"deepseek3",
     "I "
     "look.</"
     "think>Hm.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{\"city\":"
     "\"Bonn\"}<｜tool▁call▁end｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{}<｜tool▁call▁end｜>"
     "<｜tool▁calls▁end｜>",
     R"(thinking=I look.|text=Hm.|get_weather{"city":"Bonn"}|add{}|)", true},
    {"cogito",
     "I "
     "look.\n</"
     "think>\nHm.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n"
     "```json\n{\"city\":\"Bonn\"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
     R"(thinking=I look.|text=Hm.|get_weather{"city":"Bonn"}|)", true},
    {"glm-4.6",
     "\n<think>I look.</think>\nHm.\n<tool_call>get_weather\n<arg_key>city</arg_key>\n"
     "<arg_value>Bonn</arg_value>\n</tool_call>",
     R"(thinking=I look.|text=Hm.|get_weather{"city":"Bonn"}|)"},
    {"glm-4.7",
     "I look.</think>Hm.<tool_call>get_weather<arg_key>city</arg_key><arg_value>53111</arg_value>"
     "</tool_call><tool_call>add<arg_key>list</arg_key><arg_value>[1]</arg_value></tool_call>",
     R"(thinking=I look.|text=Hm.|get_weather{"city":"53111"}|add{"list":[1]}|)", true},
    {"glm-ocr", "<think></think>\nHm.", "text=Hm.|"},
    {"olmo3",
     "Hm.<function_calls>get_weather(city=\"Bonn\", unit=\"celsius\")\nadd(list=[1, 2], exact=true)"
     "</function_calls>",
     R"(text=Hm.|get_weather{"city":"Bonn","unit":"celsius"}|add{"list":[1,2],"exact":true}|)"},
    {"olmo3-think", "I look.\n</think>\nHm. <tool_call>", "thinking=I look.|text=Hm. <tool_call>|",
     true},
    {"lfm2", "<|tool_call_start|>[get_weather(city='Bonn'), add(list=[1])]<|tool_call_end|>Hm.",
     R"(text=Hm.|get_weather{"city":"Bonn"}|add{"list":[1]}|)"},
    {"lfm2", "[get_weather(city=\"Bonn\")]", R"(get_weather{"city":"Bonn"}|)"},
    {"lfm2-thinking",
     "<think>\nI look.\n</think>\n\nHm.<|tool_call_start|>add(list=[1])<|tool_call_end|>",
     R"(thinking=I look.|text=Hm.|add{"list":[1]}|)"},
    {"gemma4",
     "<|channel>thought\nI look.<channel|>Hm.<|tool_call>call:get_weather{city:<|\"|>Bo{n}<|\"|>}"
     "<tool_call|><|tool_call>call:add{exact:true,list:[1,2.5,{a:<|\"|>b<|\"|>}]}<tool_call|>"
     "<|tool_response>",
     R"(thinking=I look.|text=Hm.|get_weather{"city":"Bo{n}"}|add{"exact":true,"list":[1,2.5,{"a":"b"}]}|)"},
    {"gemma4", "I look.\n<channel|>Hm.<|tool_call>call:add{}", "thinking=I look.|text=Hm.|add{}|",
     true},
    {"gemma4-no-thinking", "Hm. <|tool_call>call:nosuch{}<tool_call|>",
     "text=Hm. <|tool_call>call:nosuch{}|"},
    {"functiongemma",
     "<start_function_call>call:get_weather{city:<escape>Bonn, a {<escape>,unit:celsius}"
     "<end_function_call><start_function_response>",
     R"(get_weather{"city":"Bonn, a {","unit":"celsius"}|)"},
    {"cohere",
     "I look.<|END_THINKING|><|START_TEXT|>Hm.<|END_TEXT|><|START_ACTION|>[\n    "
     "{\"tool_call_id\": "
     "\"0\", \"tool_name\": \"get_weather\", \"parameters\": {\"city\": "
     "\"Bonn\"}}\n]<|END_ACTION|>",
     R"(thinking=I look.|text=Hm.|get_weather{"city":"Bonn"}|)", true},
    {"passthrough", "<think>a</think><tool_call>{\"name\":\"add\",\"arguments\":{}}</tool_call>",
     "text=<think>a</think><tool_call>{\"name\":\"add\",\"arguments\":{}}</tool_call>|"},
};

// In pieces of every size.
TEST(Builtin, ReadsAnswers) {
  const api::Json tools = builtin_data("builtin.json").at("conversations").at("tools").at("tools");
  for (const Heard& heard : kHeard) {
    const auto parser = builtin_parser(heard.parser);
    ASSERT_TRUE(parser) << heard.parser;
    const std::string_view text = heard.answer;
    for (const std::size_t piece : {std::size_t{1}, std::size_t{5}, text.size()}) {
      const AnswerPiece all = parse_in_pieces(parser->format, text, piece,
                                              {.tools = {"get_weather", "add"},
                                               .inside_thinking = heard.inside_thinking,
                                               .definitions = tools});
      EXPECT_EQ(told(all), heard.expected) << heard.parser << " in pieces of " << piece;
    }
  }
}

TEST(Builtin, ThoughtsThatNobodyAskedFor) {
  const auto answer = [](const char* parser, std::string_view text) {
    AnswerParser reader(builtin_parser(parser)->format, {.thinking = false});
    AnswerPiece all = reader.feed(text);
    all.append(reader.finish());
    return told(all);
  };
  // Gemma opens a channel though it has nothing to think.
  EXPECT_EQ(answer("gemma4", "<|channel>thought\n<channel|>Hm."), "text=Hm.|");
  EXPECT_EQ(answer("gemma4", "Hm."), "text=Hm.|");
  EXPECT_EQ(answer("qwen3", "<think>a</think>"), "text=<think>a</think>|");
}

TEST(Builtin, ParsersSayWhatModelsCanDo) {
  EXPECT_TRUE(builtin_parser("qwen3-coder")->tools);
  EXPECT_FALSE(builtin_parser("qwen3-coder")->thinking);
  EXPECT_TRUE(builtin_parser("harmony")->thinking);
  EXPECT_FALSE(builtin_parser("olmo3-think")->tools);
  EXPECT_FALSE(builtin_parser("passthrough")->tools);
}

}  // namespace
}  // namespace ollama::chat
