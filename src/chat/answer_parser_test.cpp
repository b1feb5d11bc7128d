// Answers as models of each family write them, in pieces of every size.
#include "chat/answer_parser.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <format>

#include "chat/call_watch.h"
#include "chat/told.h"
#include "chat/tool_syntax.h"

namespace ollama::chat {
namespace {

using testing::HasSubstr;

const std::vector<std::string> kOffered{"f", "get_weather"};

AnswerPiece parse(const AnswerFormat& format, std::string_view text, std::size_t piece,
                  AnswerParser::Options options = {.tools = kOffered}) {
  return parse_in_pieces(format, text, piece, std::move(options));
}

struct Case {
  const char* name;
  AnswerFormat format;
  const char* text;
  const char* expected;
};

const AnswerFormat kQwen{ToolSyntax::kHermes, "<think>", "</think>"};
const AnswerFormat kJson{ToolSyntax::kJson, "", ""};
const AnswerFormat kLlama{ToolSyntax::kLlama, "", ""};
const AnswerFormat kCoder{ToolSyntax::kQwenCoder, "", ""};
const AnswerFormat kGlm{ToolSyntax::kGlm, "<think>", "</think>"};
const AnswerFormat kMistral{ToolSyntax::kMistral, "[THINK]", "[/THINK]"};
const AnswerFormat kDeepSeek{ToolSyntax::kDeepSeek, "<think>", "</think>"};
const AnswerFormat kCommandR{ToolSyntax::kCommandR, "<|START_THINKING|>", "<|END_THINKING|>"};
const AnswerFormat kHarmony{ToolSyntax::kHarmony, "", ""};
const AnswerFormat kGemma{ToolSyntax::kGemma, "<|channel>thought", "<channel|>"};
const AnswerFormat kLfm{ToolSyntax::kLfm, "", ""};
const AnswerFormat kOlmo{ToolSyntax::kOlmo, "", ""};
const AnswerFormat kSilent{ToolSyntax::kNone, "", ""};

const Case kCases[] = {
    {"plain", kQwen, "Hello there.", "text=Hello there.|"},
    {"thinking", kQwen, "<think>\nwhat now\n</think>\n\nHi!", "thinking=what now|text=Hi!|"},
    {"thinking after blanks", kQwen, "\n <think>a</think>b", "thinking=a|text=b|"},
    {"thinking that never ends", kQwen, "<think>a b ", "thinking=a b|"},
    {"thinking later is text", kQwen, "a <think>b</think>", "text=a <think>b</think>|"},
    {"a smaller sign", kQwen, "< 3 and <thin", "text=< 3 and <thin|"},
    {"hermes", kQwen,
     "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"z\": 1, \"a\": \"x\"}}\n</tool_call>",
     R"(f{"z":1,"a":"x"}|)"},
    {"hermes, two and text", kQwen,
     "Let me "
     "see.\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</"
     "tool_call>\n<tool_call>{\"name\":\"get_weather\",\"arguments\":{\"city\":\"Bonn\"}}</"
     "tool_call>\n",
     "text=Let me see.\n|f{}|get_weather{\"city\":\"Bonn\"}|"},
    {"hermes, text after a call", kQwen,
     "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n\nThere.\n<tool_call>no</"
     "tool_call> \n"
     "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\nDone.\n",
     "text=\n\nThere.\n<tool_call>no</tool_call>\nDone.|f{}|f{}|"},
    {"hermes, thinking first", kQwen,
     "<think>hm</think>\n<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":1}}</tool_call>",
     R"(thinking=hm|f{"a":1}|)"},
    {"hermes, cut at the end", kQwen, "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":1}}",
     R"(f{"a":1}|)"},
    {"hermes, unknown tool", kQwen, "<tool_call>{\"name\":\"rm\",\"arguments\":{}}</tool_call>",
     "text=<tool_call>{\"name\":\"rm\",\"arguments\":{}}</tool_call>|"},
    {"hermes, no JSON", kQwen, "<tool_call>nothing</tool_call> ok",
     "text=<tool_call>nothing</tool_call> ok|"},
    {"hermes, a mark in a string", kQwen,
     "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":\"}{\\\"]\"}}</tool_call>",
     R"(f{"a":"}{\"]"}|)"},
    {"hermes, its end in a string", kQwen,
     "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":\"x </tool_call> \\\" "
     "<tool_call>\"}}</tool_call>",
     R"(f{"a":"x </tool_call> \" <tool_call>"}|)"},
    {"hermes, a string without an end", kQwen,
     "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":\"x}}\n</tool_call>\n"
     "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":\"y\"}}</tool_call>",
     "text=<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":\"x}}\n</tool_call>\n|f{\"a\":\"y\"}|"},
    {"hermes, a bracket too few", kQwen,
     "<tool_call>{\"name\":\"f\",\"arguments\":{}</tool_call> {}",
     "text=<tool_call>{\"name\":\"f\",\"arguments\":{}</tool_call> {}|"},
    {"hermes, python's quotes", kQwen,
     "<tool_call>{'name': 'f', 'arguments': {'a': 'it\\'s </tool_call>'}}</tool_call>",
     R"(f{"a":"it's </tool_call>"}|)"},
    {"hermes, several between the marks", kQwen,
     "<tool_call>{\"name\":\"f\"}\n{\"name\":\"f\",\"arguments\":{\"a\":1}}, "
     "[{\"name\":\"f\"}]\n</tool_call>",
     R"(f{}|f{"a":1}|f{}|)"},
    {"json", kJson, "{\"name\": \"f\", \"arguments\": {\"a\": 1}}", R"(f{"a":1}|)"},
    {"json, parameters, list", kJson,
     "[{\"name\":\"f\",\"parameters\":{}},{\"name\":\"f\",\"parameters\":{\"a\":2}}]",
     R"(f{}|f{"a":2}|)"},
    {"json, openai's", kJson,
     "{\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":1}\"}}",
     R"(f{"a":1}|)"},
    {"json, another object", kJson, "{\"colour\": \"red\"}", "text={\"colour\": \"red\"}|"},
    {"json, unknown tool", kJson, "{\"name\":\"Bob\",\"arguments\":{}}",
     "text={\"name\":\"Bob\",\"arguments\":{}}|"},
    {"json, a person", kJson, "{\"name\":\"f\",\"age\":3}", "text={\"name\":\"f\",\"age\":3}|"},
    {"json, after text", kJson, "So: {\"name\":\"f\",\"arguments\":{}}",
     "text=So: {\"name\":\"f\",\"arguments\":{}}|"},
    {"json, a list of words", kJson, "[red, green]", "text=[red, green]|"},
    {"json, cut", kJson, "{\"name\":\"f\",\"argum", "text={\"name\":\"f\",\"argum|"},
    {"json, one after the other", kJson,
     "{\"name\":\"f\",\"arguments\":{\"a\":1}}\n{\"name\":\"f\",\"arguments\":{}} , "
     "{\"name\":\"f\",\"arguments\":{\"a\":2}},[{\"name\":\"f\",\"arguments\":{\"a\":3}}]\n",
     R"(f{"a":1}|f{}|f{"a":2}|f{"a":3}|)"},
    {"json, text behind a call", kJson,
     "{\"name\":\"f\",\"arguments\":{}}, [1] and {\"name\":\"f\",\"arguments\":{}}",
     "text=, [1] and {\"name\":\"f\",\"arguments\":{}}|f{}|"},
    {"json, after blanks", kJson, " \n{\"name\":\"f\",\"arguments\":{}}", "f{}|"},
    {"mistral, after blanks", kMistral, " \n[{\"name\":\"f\",\"arguments\":{}}]", "f{}|"},
    {"llama, pythonic, and text", kLlama, "[f()] \n ok", "text= \n ok|f{}|"},
    {"json, separators alone", kJson, "{\"name\":\"f\",\"arguments\":{}},;", "text=,;|f{}|"},
    {"json, a separator before", kJson, ",{\"name\":\"f\",\"arguments\":{}}",
     "text=,{\"name\":\"f\",\"arguments\":{}}|"},
    {"json, another tool behind", kJson,
     "{\"name\":\"f\",\"arguments\":{}}\n{\"name\":\"rm\",\"arguments\":{}}",
     "text=\n{\"name\":\"rm\",\"arguments\":{}}|f{}|"},
    {"json, cut in the second", kJson, "{\"name\":\"f\",\"arguments\":{}}; {\"name\":\"f\"",
     "text=; {\"name\":\"f\"|f{}|"},
    {"llama", kLlama, "{\"name\": \"f\", \"parameters\": {\"a\": \"1\"}}", R"(f{"a":"1"}|)"},
    {"llama, tag", kLlama, "<|python_tag|>{\"name\":\"f\",\"parameters\":{}}", "f{}|"},
    {"llama, semicolon", kLlama,
     "<|python_tag|>{\"name\":\"f\",\"parameters\":{\"a\":1}}; "
     "{\"name\":\"f\",\"parameters\":{\"a\":2}}",
     R"(f{"a":1}|f{"a":2}|)"},
    {"llama, text and several", kLlama,
     "Well: <|python_tag|>{\"name\":\"f\",\"parameters\":{}}; "
     "<|python_tag|>{\"name\":\"f\",\"parameters\":{\"a\":2}}\n[f(a=3)], <b>",
     "text=Well: , <b>|f{}|f{\"a\":2}|f{\"a\":3}|"},
    {"llama, pythonic", kLlama,
     "[get_weather(city='San Francisco', days=2, metric=True), f(a=[1, -2.5], b={'k': None})]",
     R"(get_weather{"city":"San Francisco","days":2,"metric":true}|f{"a":[1,-2.5],"b":{"k":null}}|)"},
    {"llama, brackets", kLlama, "[sic] is Latin", "text=[sic] is Latin|"},
    {"llama, pythonic, escapes", kLlama,
     R"([f(s="caf\u00e9 \x41\r\b\f\0\a\v\101 \'\"", t='\U0001F600\ud83d\ude00')])",
     R"(f{"s":"café A\r\b\f\u0000\u0007\u000bA '\"","t":"😀😀"}|)"},
    {"llama, pythonic, what is no escape", kLlama,
     R"([f(a="\d+ \xZZ \u12", b="\ud83d \udE00x", c="\UFFFFFFFF")])",
     R"(f{"a":"\\d+ \\xZZ \\u12","b":"� �x","c":"�"}|)"},
    {"llama, pythonic, longer strings", kLlama,
     "[f(a=\"one \\\nline\", b=\"\"\"two\n\"lines\" \"\"\", c='', d=r'\\d\\'', e=(\"x\"\n 'y'))]",
     R"(f{"a":"one line","b":"two\n\"lines\" ","c":"","d":"\\d\\'","e":"xy"}|)"},
    {"llama, pythonic, values", kLlama,
     "[f(a=-1.5e-3, b=+2E+2, c=1_000, d=.5, e=[2., (1,), (3), {'k': (True, None,)}], g={1: {},}), "
     "]",
     R"(f{"a":-0.0015,"b":200,"c":1000,"d":0.5,"e":[2,[1],3,{"k":[true,null]}],"g":{"1":{}}}|)"},
    {"llama, pythonic, no values", kLlama, "[f(a=b)] and [f(1)]", "text=[f(a=b)] and [f(1)]|"},
    {"qwen coder", kCoder,
     "<tool_call>\n<function=f>\n<parameter=path>\n/tmp/x\n</parameter>\n<parameter=n>\n3\n</"
     "parameter>\n</function>\n</tool_call>",
     R"(f{"path":"/tmp/x","n":3}|)"},
    {"qwen coder, marks in values", kCoder,
     "<tool_call>\n<function=f>\n<parameter=a>\nsay <tool_call> and </tool_call>\n</parameter>\n"
     "<parameter=b>\n<a></function></a> <parameter=c> </parameter> x\n</parameter>\n"
     "</function>\n</tool_call>",
     R"(f{"a":"say <tool_call> and </tool_call>","b":"<a></function></a> <parameter=c> </parameter> x"}|)"},
    {"qwen coder, a call in a value", kCoder,
     "<tool_call>\n<function=f>\n<parameter=a>\n<tool_call>\n<function=f>\n</function>\n"
     "</tool_call>\n</parameter>\n</function>\n</tool_call>",
     R"(f{"a":"<tool_call>\n<function=f>\n</function>\n</tool_call>"}|)"},
    {"qwen coder, a call with a value in a value", kCoder,
     "<tool_call>\n<function=f>\n<parameter=a>\n<tool_call>\n<function=f>\n<parameter=b>\n1\n"
     "</parameter>\n</function>\n</tool_call>\n</parameter>\n</function>\n</tool_call>",
     R"(f{"a":"<tool_call>\n<function=f>\n<parameter=b>\n1\n</parameter>\n</function>\n</tool_call>"}|)"},
    {"qwen coder, what only begins a call in a value", kCoder,
     "<tool_call>\n<function=f>\n<parameter=a>\nsay <function=f>\n</parameter>\n</function>\n"
     "</tool_call>",
     R"(f{"a":"say <function=f>"}|)"},
    {"qwen coder, values without ends", kCoder,
     "<tool_call>\n<function=f>\n<parameter=a>\n1\n<parameter=b>\n2\n</function>\n</tool_call>\n"
     "<tool_call>\n<function=f>\n<parameter=a>\nx\n</parameter>\n</function>\n</tool_call>",
     R"(f{"a":1,"b":2}|f{"a":"x"}|)"},
    {"qwen coder, whose ends cannot be known", kCoder,
     "<tool_call>\n<function=f>\n<parameter=a>\n<parameter=b>\n2\n</parameter>\n</parameter>\n"
     "</function>\n</tool_call>",
     "text=<tool_call>\n<function=f>\n<parameter=a>\n<parameter=b>\n2\n</parameter>\n"
     "</parameter>\n</function>\n</tool_call>|"},
    {"qwen coder, no end of the function", kCoder,
     "<tool_call><function=f><parameter=a>1</parameter></tool_call>", R"(f{"a":1}|)"},
    {"qwen coder, no first mark", kCoder,
     "Well.\n<function=f>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>",
     "text=Well.\n|f{\"a\":1}|"},
    {"qwen coder, no last mark", kCoder, "<tool_call>\n<function=f>\n</function>\nDone.",
     "text=\nDone.|f{}|"},
    {"qwen coder, only the name of a mark", kCoder, "Write <function=f></function> there.",
     "text=Write <function=f></function> there.|"},
    {"qwen coder, two between the marks", kCoder,
     "<tool_call>\n<function=f>\n</function>\n<function=f>\n<parameter=a>\nx\n</parameter>\n"
     "</function>\n</tool_call>",
     R"(f{}|f{"a":"x"}|)"},
    {"qwen coder, json", kCoder, "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>",
     "f{}|"},
    {"glm", kGlm,
     "<think>x</think><tool_call>f\n<arg_key>a</arg_key>\n<arg_value>Bonn</arg_value>\n<arg_key>b</"
     "arg_key>\n<arg_value>[1,2]</arg_value>\n</tool_call>",
     R"(thinking=x|f{"a":"Bonn","b":[1,2]}|)"},
    {"glm, ends in a value", kGlm,
     "<tool_call>f<arg_key>a</arg_key><arg_value>x </tool_call> y</arg_value> z</arg_value>\n"
     "</tool_call>",
     R"(f{"a":"x </tool_call> y</arg_value> z"}|)"},
    {"glm, a call in a value", kGlm,
     "<tool_call>f<arg_key>a</arg_key><arg_value><tool_call>f<arg_key>b</arg_key><arg_value>1"
     "</arg_value></tool_call></arg_value></tool_call>",
     R"(f{"a":"<tool_call>f<arg_key>b</arg_key><arg_value>1</arg_value></tool_call>"}|)"},
    {"glm, what only begins a value in one", kGlm,
     "<tool_call>f<arg_key>a</arg_key><arg_value>say <arg_value></arg_value></tool_call>",
     R"(f{"a":"say <arg_value>"}|)"},
    {"glm, prose", kGlm, "<tool_call> is a mark, </tool_call> too",
     "text=<tool_call> is a mark, </tool_call> too|"},
    {"mistral", kMistral, "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"a\": 1}}]",
     R"(f{"a":1}|)"},
    {"mistral, lists", kMistral,
     "[TOOL_CALLS][{\"name\":\"f\",\"arguments\":{}}]\n[{\"name\":\"f\",\"arguments\":{}}], [TOOL",
     "text=, [TOOL|f{}|f{}|"},
    {"hermes, a comma between", kQwen,
     "<tool_call>{\"name\":\"f\"}</tool_call>,\n<tool_call>{\"name\":\"f\"}</tool_call>",
     "f{}|f{}|"},
    {"mistral, args", kMistral, "[TOOL_CALLS]f[ARGS]{\"a\": 1}[TOOL_CALLS]get_weather[ARGS]{}",
     R"(f{"a":1}|get_weather{}|)"},
    {"mistral, call id", kMistral, "[TOOL_CALLS]f[CALL_ID]abc123def[ARGS]{\"a\": 1}",
     R"(f{"a":1}|)"},
    {"mistral, name, blanks, id", kMistral,
     "[TOOL_CALLS] f [CALL_ID]a-1[ARGS] {\"a\": \"[TOOL_CALLS]}\"}[TOOL_CALLS]f{\"a\":'x'} ok",
     R"(text= ok|f{"a":"[TOOL_CALLS]}"}|f{"a":"x"}|)"},
    {"mistral, prose", kMistral, "[TOOL_CALLS]f[see] {\"a\":1}",
     "text=[TOOL_CALLS]f[see] {\"a\":1}|"},
    {"mistral, thinking", kMistral, "[THINK]a[/THINK]b", "thinking=a|text=b|"},
    {"mistral, text", kMistral, "[1] see there", "text=[1] see there|"},
    {"deepseek", kDeepSeek,
     "<think>a</"
     "think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\": "
     "1}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```"
     "json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
     R"(thinking=a|f{"a":1}|get_weather{}|)"},
    {"deepseek 3.1", kDeepSeek,
     "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": "
     "1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
     R"(f{"a":1}|)"},
    {"deepseek, its ends in strings", kDeepSeek,
     "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\":\"<｜tool▁call▁end｜>{\"}"
     "<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n"
     "{\"a\":\"<｜tool▁calls▁end｜>```\"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>Ok",
     R"(text=Ok|f{"a":"<｜tool▁call▁end｜>{"}|f{"a":"<｜tool▁calls▁end｜>```"}|)"},
    {"deepseek, cut behind a call", kDeepSeek,
     "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool",
     "f{}|"},
    {"deepseek, one without a list", kDeepSeek,
     "<｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\":1}<｜tool▁call▁end｜>", R"(f{"a":1}|)"},
    {"deepseek, no arguments", kDeepSeek,
     "<｜tool▁call▁begin｜>f<｜tool▁sep｜><｜tool▁call▁end｜>{}",
     "text=<｜tool▁call▁begin｜>f<｜tool▁sep｜><｜tool▁call▁end｜>{}|"},
    {"command-r", kCommandR,
     "Action: ```json\n[\n    {\n        \"tool_name\": \"f\",\n        \"parameters\": {\"a\": "
     "1}\n    }\n]```",
     R"(f{"a":1}|)"},
    {"command-r7b", kCommandR,
     "<|START_THINKING|>I will look.<|END_THINKING|><|START_ACTION|>[\n {\"tool_call_id\": \"0\", "
     "\"tool_name\": \"f\", \"parameters\": {\"a\": 1}}\n]<|END_ACTION|>",
     R"(thinking=I will look.|f{"a":1}|)"},
    {"command-r7b, its end in a string", kCommandR,
     "<|START_ACTION|>[{\"tool_name\":\"f\",\"parameters\":{\"a\":\"<|END_ACTION|>\"}}]"
     "<|END_ACTION|>",
     R"(f{"a":"<|END_ACTION|>"}|)"},
    {"command-r, prose", kCommandR, "Action: none needed", "text=Action: none needed|"},
    {"harmony", kHarmony,
     "<|channel|>analysis<|message|>Easy.<|end|><|start|>assistant<|channel|>final<|message|>Hi!",
     "thinking=Easy.|text=Hi!|"},
    {"harmony, call", kHarmony,
     "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary "
     "to=functions.f <|constrain|>json<|message|>{\"a\":1}<|call|>",
     R"(thinking=hm|f{"a":1}|)"},
    {"harmony, recipient first", kHarmony,
     "<|start|>assistant to=functions.f<|channel|>commentary json<|message|>{}", "f{}|"},
    {"harmony, preamble", kHarmony,
     "<|channel|>commentary<|message|>I will "
     "look.<|end|><|start|>assistant<|channel|>final<|message|>Done",
     "text=I will look.Done|"},
    {"harmony, a mark in what is no call", kHarmony,
     "<|start|>assistant to=functions.f<|message|>{\"a\"<|message|>:", "text={\"a\":|"},
    {"harmony, unknown tool", kHarmony,
     "<|channel|>commentary to=functions.rm<|message|>{\"a\":1}<|call|>", "text={\"a\":1}|"},
    {"harmony, no channel", kHarmony, "just text", "text=just text|"},
    {"gemma", kGemma,
     "<|channel>thought\nhm<channel|>Ok.<|tool_call>call:f{a:<|\"|>}x<|\"|>,b:{c:[1,true]}}<tool_"
     "call|>",
     R"(thinking=hm|text=Ok.|f{"a":"}x","b":{"c":[1,true]}}|)"},
    {"gemma, an end in a text", kGemma,
     "<|tool_call>call:f{a:<|\"|><tool_call|><|\"|>}<tool_call|>", R"(f{"a":"<tool_call|>"}|)"},
    {"gemma, a plain quote too few", kGemma, R"(<|tool_call>call:f{a:"x\" \n}",b:"\"}<tool_call|>)",
     R"(text=<|tool_call>call:f{a:"x\" \n}",b:"\"}|)"},
    {"gemma, escapes in plain quotes", kGemma,
     R"(<|tool_call>call:f{a:"x\" \n}",b:<|"|>\n"<|"|>}<tool_call|>)",
     R"(f{"a":"x\" \n}","b":"\\n\""}|)"},
    {"gemma, no call", kGemma, "<|tool_call>maybe", "text=<|tool_call>maybe|"},
    {"gemma, no object", kGemma, "<|tool_call>call:f{a} b", "text=<|tool_call>call:f{a} b|"},
    {"gemma, cut", kGemma, "<|tool_call>call:f{a:1", "text=<|tool_call>call:f{a:1|"},
    {"lfm", kLfm, "<|tool_call_start|>[f(a=1)]<|tool_call_end|>", R"(f{"a":1}|)"},
    {"lfm, its end in a string", kLfm,
     "<|tool_call_start|>[f(a='<|tool_call_end|>')]<|tool_call_end|> Ok",
     R"(text= Ok|f{"a":"<|tool_call_end|>"}|)"},
    {"lfm, json", kLfm,
     "<|tool_call_start|>[{\"name\":\"f\",\"arguments\":{\"a\":\"<|tool_call_end|>\"}}]"
     "<|tool_call_end|>",
     R"(f{"a":"<|tool_call_end|>"}|)"},
    {"lfm, nonsense", kLfm, "<|tool_call_start|>f<|tool_call_end|>",
     "text=<|tool_call_start|>f<|tool_call_end|>|"},
    {"olmo", kOlmo, "<function_calls>f(a=1)\nf()\n</function_calls>", R"(f{"a":1}|f{}|)"},
    {"olmo, its end in a string, lines in another", kOlmo,
     "<function_calls>\nf(a=\"</function_calls>\")\n[f(a='one\ntwo'), f()]\n</function_calls>",
     R"(f{"a":"</function_calls>"}|f{"a":"one\ntwo"}|f{}|)"},
    {"olmo, one of them no call", kOlmo, "<function_calls>f(a=1)\nf\n</function_calls>",
     "text=<function_calls>f(a=1)\nf\n</function_calls>|"},
    {"no calls", kSilent, "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>",
     "text=<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>|"},
};

// However the text arrives, the same comes out.
TEST(AnswerParser, ReadsWhatModelsWrite) {
  for (const Case& each : kCases) {
    for (const std::size_t piece :
         {std::size_t{1}, std::size_t{3}, std::size_t{7}, std::size_t{10000}}) {
      EXPECT_EQ(told(parse(each.format, each.text, piece)), each.expected)
          << each.name << " in pieces of " << piece;
    }
    const std::string_view text = each.text;
    for (std::size_t cut = 1; cut < text.size(); ++cut) {
      AnswerParser parser(each.format, {.tools = kOffered});
      AnswerPiece all = parser.feed(text.substr(0, cut));
      all.append(parser.feed(text.substr(cut)));
      all.append(parser.finish());
      EXPECT_EQ(told(all), each.expected) << each.name << " cut at " << cut;
    }
  }
}

// Where asked for, it is known where in the answer the text stood, and how far that is decided.
TEST(AnswerParser, TellsWhereTextStood) {
  for (const Case& each : kCases) {
    const std::string_view text = each.text;
    for (const std::size_t size : {std::size_t{1}, std::size_t{7}, std::size_t{10000}}) {
      AnswerParser parser(each.format, {.tools = kOffered, .ranges = true});
      std::size_t decided = 0;
      const auto check = [&](const AnswerPiece& piece, std::size_t fed) {
        std::string stood;
        for (const auto& [begin, end] : piece.ranges) {
          EXPECT_GE(begin, decided) << each.name << ": its bytes counted as decided";
          ASSERT_LE(end, fed) << each.name;
          stood += text.substr(begin, end - begin);
        }
        EXPECT_EQ(stood, piece.text) << each.name;
        decided = fed - parser.undecided();
      };
      for (std::size_t i = 0; i < text.size(); i += size) {
        const AnswerPiece piece = parser.feed(text.substr(i, size));
        check(piece, std::min(i + size, text.size()));
      }
      check(parser.finish(), text.size());
    }
  }
}

TEST(AnswerParser, WithoutToolsEverythingIsText) {
  for (const Case& each : kCases) {
    // Some marks are nobody's text.
    if (each.format.syntax == ToolSyntax::kHarmony || each.format.syntax == ToolSyntax::kGemma) {
      continue;
    }
    const AnswerPiece answer = parse(each.format, each.text, 4, {.tools = {}, .thinking = false});
    EXPECT_EQ(answer.text, each.text) << each.name;
    EXPECT_TRUE(answer.calls.empty());
  }
}

TEST(AnswerParser, BeginsInsideThinkingWhereThePromptDoes) {
  EXPECT_EQ(told(parse(kQwen, "\nhm\n</think>\n\nHi", 1, {.tools = {}, .inside_thinking = true})),
            "thinking=hm|text=Hi|");
  // Some open it again.
  EXPECT_EQ(told(parse(kQwen, "\n<think>\nhm\n</think>\n\nHi", 1,
                       {.tools = {}, .inside_thinking = true})),
            "thinking=hm|text=Hi|");
  EXPECT_EQ(told(parse(kQwen, "<thi", 1, {.tools = {}, .inside_thinking = true})),
            "thinking=<thi|");
}

// Text must not wait for the end of the answer.
TEST(AnswerParser, StreamsWhatIsCertain) {
  AnswerParser parser(kQwen, {.tools = kOffered});
  EXPECT_EQ(told(parser.feed("<think>one two")), "thinking=one two|");
  EXPECT_EQ(told(parser.feed(" three</thi")), "thinking= three|");
  EXPECT_EQ(told(parser.feed("nk>Hello <")), "text=Hello |");
  EXPECT_EQ(told(parser.feed("b> world")), "text=<b> world|");
  AnswerParser json(kJson, {.tools = kOffered});
  EXPECT_EQ(told(json.feed("{\"title\":")), "text={\"title\":|") << "no call begins so";
  AnswerParser python(kLlama, {.tools = kOffered});
  EXPECT_EQ(told(python.feed("[f(x) is")), "text=[f(x) is|") << "nothing names the argument";
  AnswerParser list(kJson, {.tools = kOffered});
  EXPECT_EQ(told(list.feed("[1, 2")), "text=[1, 2|");
}

// Nor a call for what may follow it.
TEST(AnswerParser, TellsCallsAsTheyEnd) {
  for (const auto& format : {kJson, kLlama}) {
    AnswerParser parser(format, {.tools = kOffered});
    EXPECT_EQ(told(parser.feed("{\"name\":\"f\",\"arguments\":{}")), "");
    EXPECT_EQ(told(parser.feed("}")), "f{}|");
    EXPECT_EQ(told(parser.feed(";\n")), "");
    EXPECT_EQ(told(parser.feed("{\"name\":\"f\",\"arguments\":{\"a\":1}}")), "f{\"a\":1}|");
    EXPECT_EQ(told(parser.feed(", so")), "text=, so|");
  }
}

// Every style that has JSON knows the same spellings.
TEST(AnswerParser, KnowsTheSpellingsOfJsonCalls) {
  const std::pair<const char*, const char*> spellings[] = {
      {R"({"name":"f","arguments":null})", "f{}|"},
      {R"({"name":"f","parameters":null,"id":"1"})", "f{}|"},
      {R"({"name":"f","arguments":"","type":"function"})", "f{}|"},
      {R"({"name":"f","arguments":[]})", "f{}|"},
      {R"({"name":"f","arguments":"{}"})", "f{}|"},
      {R"({"name":"f","arguments":"null"})", "f{}|"},
      {R"({"name":"f"})", "f{}|"},
      {R"({"type":"function","name":"f"})", "f{}|"},
      {R"({"tool_call_id":"0","tool_name":"f"})", "f{}|"},
      {R"({"arguments":{"a":1},"name":"f"})", R"(f{"a":1}|)"},
      {R"({"name":"f","arguments":"{\"a\":\"\\u00e9\\ud83d\\ude00\"}"})", R"(f{"a":"é😀"}|)"},
      {R"({"name":"f","arguments":{"a":1},"parameters":{"b":1}})", R"(f{"a":1}|)"},
      {R"({"name":"f","arguments":null,"parameters":{"b":1}})", R"(f{"b":1}|)"},
      {R"({"id":"x","type":"function","function":{"name":"f","arguments":{"a":1}}})",
       R"(f{"a":1}|)"},
      {R"({"type":"function","function":{"name":"f"},"arguments":{"a":1}})", R"(f{"a":1}|)"},
      {R"({"function":"f","arguments":{"a":1}})", R"(f{"a":1}|)"},
      {R"({"tool_calls":[{"function":{"name":"f","arguments":"{\"a\":1}"}},{"name":"f"}]})",
       R"(f{"a":1}|f{}|)"},
      {"{\"name\":\"f\",\"arguments\":{\"a\":True,\"b\":[1,None,],\"c\":\"one\ntwo\",},}",
       R"(f{"a":true,"b":[1,null],"c":"one\ntwo"}|)"},
      {R"({"name":"f","arguments":{"type":"object","properties":{}}})",
       R"(f{"type":"object","properties":{}}|)"},
      // These only look like one: another's name, half of one, a tool's definition.
      {R"({"name":"","arguments":{}})", nullptr},
      {R"({"name":7,"arguments":{}})", nullptr},
      {R"({"name":"f","arguments":7})", nullptr},
      {R"({"name":"f","arguments":[1]})", nullptr},
      {R"({"name":"f","arguments":"a=1"})", nullptr},
      {R"({"id":1,"name":"f"})", nullptr},
      {R"({"type":"function","name":"f","description":"d"})", nullptr},
      {R"({"name":"f","parameters":{"type":"object","properties":{"a":{}}}})", nullptr},
      {R"({"type":"function","function":{"name":"f","description":"d","parameters":)"
       R"({"type":"object","properties":{}}}})",
       nullptr},
  };
  for (const auto& [json, expected] : spellings) {
    const std::pair<AnswerFormat, std::string> answers[] = {
        {kJson, json},
        {kLlama, json},
        {kMistral, "[TOOL_CALLS]" + std::string(json)},
        {kQwen, "<tool_call>\n" + std::string(json) + "\n</tool_call>"},
        {kCoder, "<tool_call>" + std::string(json) + "</tool_call>"},
        {kCommandR, "<|START_ACTION|>" + std::string(json) + "<|END_ACTION|>"},
        {kLfm, "<|tool_call_start|>" + std::string(json) + "<|tool_call_end|>"}};
    for (const auto& [format, text] : answers) {
      const std::string told_so = expected == nullptr ? "text=" + text + "|" : expected;
      for (const std::size_t piece : {std::size_t{1}, std::size_t{5}, text.size()}) {
        EXPECT_EQ(told(parse(format, text, piece)), told_so) << text;
      }
    }
  }
}

TEST(AnswerParser, NumbersCalls) {
  const AnswerPiece answer =
      parse(kMistral,
            "[TOOL_CALLS][{\"name\":\"f\",\"arguments\":{}},{\"name\":\"f\",\"arguments\":{}}]", 5);
  ASSERT_EQ(answer.calls.size(), 2U);
  EXPECT_EQ(answer.calls[0].index, 0);
  EXPECT_EQ(answer.calls[1].index, 1);
}

// Values between tags are texts: whether "3" is a number, the tool's definition tells.
TEST(AnswerParser, GivesArgumentsTheTypesThatAreAskedFor) {
  api::ToolCall call;
  call.name = "f";
  call.arguments = {{"text", "3"},    {"number", " 3\n"},  {"whole", "3.5"}, {"either", "x"},
                    {"flag", "True"}, {"nothing", "null"}, {"list", "[1]"},  {"any", "{\"a\":1}"},
                    {"words", "a b"}, {"quoted", "\"3\""}, {"known", 7}};
  const auto tools = api::parse_json(
      R"([{"function":{"name":"g"}},{"function":{"name":"f","parameters":{"properties":{)"
      R"("text":{"type":"string"},"number":{"type":"number"},"whole":{"type":"integer"},)"
      R"("either":{"type":["integer","string"]},"flag":{"anyOf":[{"type":"boolean"},)"
      R"({"type":"null"}]},"nothing":{"type":["string","null"]},"list":{"type":"array"},)"
      R"("quoted":{"type":"string"}}}}}])");
  ASSERT_TRUE(tools);
  give_types(call, *tools);
  EXPECT_EQ(api::to_string(call.arguments),
            R"({"text":"3","number":3,"whole":"3.5","either":"x","flag":true,"nothing":null,)"
            R"("list":[1],"any":{"a":1},"words":"a b","quoted":"\"3\"","known":7})");
}

TEST(AnswerParser, LearnsItsFormatFromTemplates) {
  EXPECT_EQ(answer_format("... <tool_call> ... </think>", "qwen3").syntax, ToolSyntax::kHermes);
  EXPECT_EQ(answer_format("... <tool_call> ... </think>", "qwen3").think_open, "<think>");
  EXPECT_EQ(answer_format("<function= <tool_call>", "").syntax, ToolSyntax::kQwenCoder);
  EXPECT_EQ(answer_format("<tool_call> <arg_key>", "glm4").syntax, ToolSyntax::kGlm);
  EXPECT_EQ(answer_format("[TOOL_CALLS]", "llama").syntax, ToolSyntax::kMistral);
  EXPECT_EQ(answer_format("<|start_header_id|>", "llama").syntax, ToolSyntax::kLlama);
  EXPECT_EQ(answer_format("<|start|><|channel|>", "gpt-oss").syntax, ToolSyntax::kHarmony);
  EXPECT_EQ(answer_format("<|tool_call>call: <|channel>thought", "gemma4").syntax,
            ToolSyntax::kGemma);
  EXPECT_EQ(answer_format("<|channel>thought", "gemma4").think_open, "<|channel>thought");
  EXPECT_EQ(answer_format("<|tool_call_start|>", "lfm2").syntax, ToolSyntax::kLfm);
  EXPECT_EQ(answer_format("<function_calls>", "olmo2").syntax, ToolSyntax::kOlmo);
  EXPECT_EQ(answer_format("{{ .Prompt }}", "gemma2").syntax, ToolSyntax::kJson);
  EXPECT_TRUE(answer_format("{{ .Prompt }}", "gemma2").think_open.empty());
}

// A call with a long text for an argument, as each family writes it.
std::vector<std::pair<AnswerFormat, std::string>> long_calls(std::string_view text) {
  const auto with = [&](std::string_view format) {
    return std::vformat(format, std::make_format_args(text));
  };
  return {
      {kJson, with(R"({{"name": "f", "arguments": {{"a": "{}"}}}})")},
      {kLlama, with(R"({{"name": "f", "parameters": {{"a": "{}"}}}}; ok)")},
      {kLlama, with(R"([f(a="{}", b=[1]), f()] ok)")},
      {kQwen, with(R"(<tool_call>{{"name": "f", "arguments": {{"a": "{}"}}}}</tool_call>)")},
      {kCoder, with("<tool_call><function=f><parameter=a>{}</parameter></function></tool_call>")},
      {kGlm, with("<tool_call>f<arg_key>a</arg_key><arg_value>{}</arg_value></tool_call>")},
      {kMistral, with(R"([TOOL_CALLS] [{{"name": "f", "arguments": {{"a": "{}"}}}}])")},
      {kMistral, with(R"([TOOL_CALLS]f[ARGS]{{"a": "{}"}})")},
      {kDeepSeek, with("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{{\"a\": \"{}\"}}"
                       "<｜tool▁call▁end｜><｜tool▁calls▁end｜>")},
      {kCommandR, with("Action: ```json\n[{{\"tool_name\": \"f\", \"parameters\": {{\"a\": "
                       "\"{}\"}}}}]\n```")},
      {kCommandR, with(R"(<|START_ACTION|>[{{"tool_name": "f", "parameters": {{"a": "{}"}}}}])"
                       "<|END_ACTION|>")},
      {kGemma, with("<|tool_call>call:f{{a:<|\"|>{}<|\"|>}}<tool_call|>")},
      {kLfm, with(R"([f(a="{}")])")},
      {kLfm, with(R"(<|tool_call_start|>[f(a="{}")]<|tool_call_end|>)")},
      {kOlmo, with(R"(<function_calls>f(a="{}")</function_calls>)")},
  };
}

std::string repeated(std::string_view text, std::size_t size) {
  std::string result;
  while (result.size() < size) result += text;
  return result;
}

// A file that a model writes by a call comes in pieces of a few bytes: were each of them a reason
// to read all of it again, the time would go with the square of its size.
TEST(AnswerParser, ReadsLongCallsAFewTimes) {
  for (const auto& [format, call] : long_calls(repeated("it's {[ here ]} a\\\"b ", 100'000))) {
    CallWatch watch(call_syntax(format.syntax));
    std::size_t read = 0;
    for (std::size_t size = 3; size < call.size(); size += 3) {
      if (watch.worth_reading(std::string_view(call).substr(0, size))) read += size;
    }
    EXPECT_LT(read, 16 * call.size()) << call.substr(0, 40);
  }
}

// Nor may the end of one be missed: it is told as soon as it can be read.
TEST(AnswerParser, TellsLongCallsAtTheirEnd) {
  for (const auto& [format, call] : long_calls(repeated("{it's [ here }, a ", 1500))) {
    const std::string_view text = call;
    std::size_t whole = 64;  // behind the marks that begin it
    const auto read = call_syntax(format.syntax).read;
    while (read(text.substr(0, whole), false).kind != CallReading::Kind::kCalls) {
      ASSERT_LT(++whole, text.size() + 1) << text.substr(0, 40);
    }
    AnswerParser parser(format, {.tools = kOffered});
    std::size_t told = 0;
    while (told < text.size() && parser.feed(text.substr(told, 1)).calls.empty()) ++told;
    EXPECT_EQ(told + 1, whole) << text.substr(0, 40);
  }
}

// However long calls, and what only begins like them, are cut: the same comes out.
TEST(AnswerParser, LongAnswersAreTheSameHoweverTheyCome) {
  const std::string filler(400, 'x');
  const auto calls = long_calls(filler);
  std::vector<std::string> parts{filler, filler, "{", "}", "[", "]",        "\"",     "'",
                                 "\\",   ";",    ",", " ", "(", "</think>", "<|\"|>", "```"};
  for (const auto& [format, call] : calls) {
    parts.push_back(call);
    parts.push_back(call.substr(0, call.find(filler)));
    parts.push_back(call.substr(call.find(filler)));
  }
  EXPECT_TRUE(rc::check([&] {
    AnswerFormat format = calls[*rc::gen::inRange<std::size_t>(0, calls.size())].first;
    format.calls_end_thinking = *rc::gen::arbitrary<bool>();
    const bool inside = *rc::gen::arbitrary<bool>();
    const auto some = *rc::gen::container<std::vector<std::string>>(rc::gen::elementOf(parts));
    std::string text;
    for (const std::string& part : some) text += part;
    const auto parsed = [&](std::size_t piece) {
      return told(parse(format, text, piece, {.tools = kOffered, .inside_thinking = inside}));
    };
    const std::string whole = parsed(text.size() + 1);
    for (const std::size_t piece : {1U, 5U, 64U}) RC_ASSERT(parsed(piece) == whole);
  }));
}

// Whatever comes, nothing is lost but marks and blanks around them: without calls and thinking, the
// text is the text. Deep nesting ends in text as well.
// Cut by a limit behind the JSON: the call is whole, and its closing mark nobody's.
TEST(AnswerParser, ACallMayLackTheEndOfItsMark) {
  for (const char* end : {"", "\n", "\n</", "\n</tool_call"}) {
    const AnswerPiece answer =
        parse(kQwen, std::string("<tool_call>\n{\"name\": \"f\", \"arguments\": {}}") + end, 1);
    EXPECT_EQ(answer.calls.size(), 1U) << end;
    EXPECT_EQ(answer.text, "") << end;
  }
  EXPECT_EQ(parse(kQwen, "<tool_call>{\"name\": \"f\"", 1).calls.size(), 0U);
}

// Half a call is none, and must not be made: what came of it is text, in every family.
TEST(AnswerParser, ACallThatIsCutIsText) {
  for (const auto& [format, text] :
       {std::pair(kQwen, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"x"),
        std::pair(kCoder, "<tool_call>\n<function=f>\n<parameter=a>\nrm -r"),
        std::pair(kCoder, "<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n"),
        std::pair(kCoder, "<tool_call>\n<function=f>\n<parameter=a>\nx </tool_call> y"),
        std::pair(kCoder, "<tool_call>\n<function=f>\n<parameter=a>\nx </function> y"),
        std::pair(kQwen, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"</tool_call>"),
        std::pair(kGlm, "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n"),
        std::pair(kJson, "{\"name\": \"f\", \"arguments\": {\"a\": \"x"),
        std::pair(kLlama, "<|python_tag|>{\"name\": \"f\", \"parameters\": {"),
        std::pair(kLlama, "[get_weather(city='San"),
        std::pair(kMistral, "[TOOL_CALLS]f[ARGS]{\"a\": "),
        std::pair(kMistral, "[TOOL_CALLS][{\"name\": \"f\", \"argu"),
        std::pair(kDeepSeek, "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1"),
        std::pair(kCommandR, "<|START_ACTION|>[{\"tool_name\": \"f\", \"par"),
        std::pair(kGemma, "<|tool_call>call:f{a:1"), std::pair(kLfm, "<|tool_call_start|>[f(a="),
        std::pair(kOlmo, "<function_calls>f(a=1")}) {
    const AnswerPiece answer = parse(format, text, 3);
    EXPECT_TRUE(answer.calls.empty()) << text;
    EXPECT_EQ(answer.text, text);
  }
}

TEST(AnswerParser, LosesNothing) {
  ASSERT_TRUE(rc::check([] {
    const auto parts = *rc::gen::container<std::vector<std::string>>(rc::gen::element<std::string>(
        "<tool_call>", "</tool_call>", "{", "}", "[", "]", "\"name\"", ":", "\"f\"", ",", "x", "(",
        ")", "Action:", "```", "=", "'", "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>",
        "<function=", ">", "y ", "<|tool_call>", "call:", "<|\"|>", "<start_function_call>",
        "<|tool_call_start|>", "<function_calls>", "</function_calls>"));
    const auto syntax = *rc::gen::element(
        ToolSyntax::kJson, ToolSyntax::kLlama, ToolSyntax::kHermes, ToolSyntax::kQwenCoder,
        ToolSyntax::kGlm, ToolSyntax::kMistral, ToolSyntax::kDeepSeek, ToolSyntax::kCommandR,
        ToolSyntax::kGemma, ToolSyntax::kFunctionGemma, ToolSyntax::kLfm, ToolSyntax::kOlmo);
    const bool trims = *rc::gen::arbitrary<bool>();
    const auto piece = *rc::gen::inRange<std::size_t>(1, 9);
    std::string text;
    for (const std::string& part : parts) text += part;
    const AnswerPiece answer =
        parse({syntax, "", "", trims}, text, piece, {.tools = {"nothing"}, .thinking = false});
    RC_ASSERT(answer.calls.empty());
    RC_ASSERT(answer.text == text);
  }));
  for (const char* deep : {"[", "{\"name\":", "[f(a=[", "[TOOL_CALLS][", "<|tool_call>call:f{a:[",
                           "{\"name\":\"g\"};"}) {
    std::string text;
    for (int i = 0; i < 20000; ++i) text += deep;
    for (const auto& format : {kJson, kLlama, kMistral, kGemma}) {
      EXPECT_EQ(parse(format, text, text.size()).text.size(), text.size());
    }
  }
}

}  // namespace
}  // namespace ollama::chat
