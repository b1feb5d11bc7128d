// Other APIs' requests as native ones, and answers as their clients expect them, event by event.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/array.hpp>
#include <regex>

#include "api/anthropic.h"
#include "api/openai.h"

namespace ollama::api {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

Json body_of(std::string_view text) {
  auto json = parse_json(text);
  if (!json) ADD_FAILURE() << text << ": " << json.error().message();
  return json ? *json : Json();
}

// Ids and times, which differ each time, as # and 0.
std::string steady(const std::string& text) {
  static const std::regex ids(
      "(chatcmpl-|cmpl-|resp_|msg_|rs_|fc_|call_|toolu_|req_)[0-9A-Za-z]{24}");
  static const std::regex times("(\"created(_at)?\"):[0-9]+");
  return std::regex_replace(std::regex_replace(text, ids, "$1#"), times, "$1:0");
}

ForeignChat parsed(Result<ForeignChat> (*parse)(const Json&), std::string_view text) {
  auto chat = parse(body_of(text));
  if (!chat) ADD_FAILURE() << chat.error().message();
  return chat ? std::move(*chat) : ForeignChat();
}

ChatResponse piece(std::string text, std::string thinking = {}) {
  ChatResponse response;
  response.message.role = "assistant";
  response.message.content = std::move(text);
  response.message.thinking = std::move(thinking);
  return response;
}
ChatResponse call(std::string name, JsonObject arguments) {
  ChatResponse response = piece("");
  response.message.tool_calls.push_back(
      {.id = "call_1", .index = 0, .name = std::move(name), .arguments = std::move(arguments)});
  return response;
}
ChatResponse last(std::string reason = "stop") {
  ChatResponse response = piece("");
  response.done = true;
  response.done_reason = std::move(reason);
  response.metrics.prompt_eval_count = 5;
  response.metrics.prompt_eval_cached_count = 2;
  response.metrics.eval_count = 3;
  response.metrics.thinking_eval_count = 1;
  return response;
}
std::string streamed(ChatFormat& format, const std::vector<ChatResponse>& responses) {
  std::string text;
  for (const ChatResponse& response : responses) text += format.piece(response, 0);
  return steady(text + format.end());
}
// The names of a stream's events in order, repeated ones once.
std::vector<std::string> event_names(const std::string& stream) {
  std::vector<std::string> names;
  static const std::regex name("event: (\\S+)");
  for (std::sregex_iterator it(stream.begin(), stream.end(), name), end; it != end; ++it) {
    if (names.empty() || names.back() != (*it)[1].str()) names.push_back((*it)[1].str());
  }
  return names;
}

// ---- OpenAI's chat completions

TEST(OpenAiChat, BecomesANativeRequest) {
  const ForeignChat chat = parsed(openai::parse_chat, R"({
    "model": "m", "stream": true, "n": 2, "seed": 7, "temperature": 0.5, "max_completion_tokens": 9,
    "stop": "END", "reasoning_effort": "low", "frequency_penalty": 1, "parallel_tool_calls": false,
    "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
    "tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required",
    "messages": [
      {"role": "Developer", "content": "be brief"},
      {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]},
      {"role": "assistant", "content": null, "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"z\":1,\"a\":2}"}}]},
      {"role": "tool", "tool_call_id": "c1", "content": "42"}]})");
  const ChatRequest& request = chat.request;
  EXPECT_EQ(chat.choices, 2U);
  EXPECT_FALSE(chat.parallel_tools);
  ASSERT_EQ(request.messages.size(), 4U);
  EXPECT_EQ(request.messages[0].role, "system");
  EXPECT_EQ(request.messages[1].content, "a\nb");
  EXPECT_THAT(request.messages[1].images, ElementsAre("hi"));
  EXPECT_EQ(to_string(request.messages[2].tool_calls.at(0).arguments), R"({"z":1,"a":2})");
  EXPECT_EQ(request.messages[3].tool_name, "f") << "found by the call's id";
  EXPECT_TRUE(request.streaming());
  EXPECT_EQ(request.parsed_options.seed, 7);
  EXPECT_EQ(request.parsed_options.temperature, 0.5F);
  EXPECT_EQ(request.parsed_options.top_p, 1.0F) << "OpenAI's default, not the model's";
  EXPECT_EQ(request.parsed_options.num_predict, 9);
  EXPECT_THAT(*request.parsed_options.stop, ElementsAre("END"));
  EXPECT_EQ(request.think->level, "low");
  EXPECT_EQ(to_string(request.format), R"({"type":"object"})");
  EXPECT_EQ(request.tool_choice, Json("required"));
}

TEST(OpenAiChat, DoesNotStreamUnlessAsked) {
  EXPECT_FALSE(
      parsed(openai::parse_chat, R"({"model":"m","messages":[{"role":"user","content":"a"}]})")
          .request.streaming());
}

TEST(OpenAiChat, AllowsSomeOfTheTools) {
  const std::string tools =
      R"("messages":[{"role":"user","content":"a"}],"tools":[{"type":"function","function":{"name":"f"}},)"
      R"({"type":"function","function":{"name":"g"}}],"tool_choice":{"type":"allowed_tools",)"
      R"("allowed_tools":{"mode":"required","tools":[{"type":"function","function":{"name":")";
  const ForeignChat chat = parsed(openai::parse_chat, "{" + tools + "g\"}}]}}}");
  EXPECT_EQ(to_string(chat.request.tools), R"([{"type":"function","function":{"name":"g"}}])");
  EXPECT_EQ(chat.request.tool_choice, Json("required"));
  EXPECT_FALSE(openai::parse_chat(body_of("{" + tools + "h\"}}]}}}")));

  const ForeignChat responses = parsed(
      openai::parse_responses,
      R"({"input":"a","tools":[{"type":"function","name":"f"},{"type":"function","name":"g"}],)"
      R"("tool_choice":{"type":"allowed_tools","mode":"auto","tools":[{"type":"function","name":"f"}]}})");
  EXPECT_EQ(responses.request.tools.as_array().size(), 1U);
  EXPECT_EQ(responses.request.tool_choice, Json("auto"));
}

TEST(OpenAiChat, RefusesWhatItCannotUse) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"messages":[]})", "'messages'"},
      {R"([])", "a JSON object"},
      {R"({"messages":[{"role":"user","content":7}]})", "invalid message content type"},
      {R"({"messages":[{"role":"user","content":[{"type":"audio"}]}]})", "\"audio\""},
      {R"({"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://x"}}]}]})",
       "base64"},
      {R"({"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"{"}}]}]})",
       "invalid tool call arguments"},
      {R"({"tools":[{"type":"custom","custom":{"name":"f"}}],"messages":[{"role":"user","content":"a"}]})",
       "functions with a name"},
      {R"({"tools":{},"messages":[{"role":"user","content":"a"}]})", "must be an array"},
      {R"({"stream_options":{"include_usage":"yes"},"messages":[{"role":"user","content":"a"}]})",
       "\"include_usage\""},
      {R"({"max_tokens":3.5,"messages":[{"role":"user","content":"a"}]})",
       "\"max_tokens\" must be an integer, not a number"},
      {R"({"messages":["a"]})", "a message must be a JSON object, not a string"},
      {R"({"messages":[{"role":"user","content":["a"]}]})",
       "a part of content must be a JSON object"},
      {R"({"messages":[{"role":"assistant","tool_calls":[1]}]})",
       "a tool call must be a JSON object"},
      {R"({"n":0,"messages":[{"role":"user","content":"a"}]})", "\"n\" must be 1"},
      {R"({"stop":[1],"messages":[{"role":"user","content":"a"}]})", "\"stop\""},
      {R"({"reasoning_effort":"huge","messages":[{"role":"user","content":"a"}]})", "huge"},
      {R"({"response_format":{"type":"xml"},"messages":[{"role":"user","content":"a"}]})", "xml"},
      {R"({"messages":[{"role":"user","content":"a"},{"role":"robot","content":"a"}]})",
       "messages[1].role must be system, developer, user, assistant, tool or function, not "
       "\"robot\""},
      {R"({"messages":[{"content":"a"}]})", "messages[0].role is required"},
      {R"({"messages":[{"role":"user","text":"a"}]})", "messages[0].content is required"},
      {R"({"max_tokens":-5,"messages":[{"role":"user","content":"a"}]})",
       "\"max_tokens\" must be 0 or more, or -1 for no limit, not -5"},
  };
  for (const auto& [text, message] : cases) {
    const auto chat = openai::parse_chat(body_of(text));
    ASSERT_FALSE(chat) << text;
    EXPECT_EQ(chat.error().code(), ErrorCode::kInvalidArgument);
    EXPECT_THAT(std::string(chat.error().message()), HasSubstr(message)) << text;
  }
}

// What is of the wrong kind is named, with what it should be.
TEST(ForeignRequests, NameWhatIsOfTheWrongKind) {
  const auto message_of = [](const auto& result) {
    return result ? std::string("taken") : std::string(result.error().message());
  };
  const auto chat = [&](std::string_view fields) {
    return message_of(openai::parse_chat(
        body_of(std::format(R"({{"messages":[{{"role":"user","content":"a"}}],{}}})", fields))));
  };
  EXPECT_EQ(chat(R"("tools":5)"), "\"tools\" must be an array, not a number");
  EXPECT_EQ(chat(R"("tool_choice":5)"),
            R"("tool_choice" must be "auto", "none", "required" or a function, not a number)");
  EXPECT_THAT(chat(R"("tool_choice":"maybe")"), HasSubstr("not \"maybe\""));
  EXPECT_EQ(chat(R"("response_format":5)"), "response_format must be a JSON object, not a number");
  EXPECT_EQ(chat(R"("stop":5)"), "\"stop\" must be a string or an array of strings, not a number");
  EXPECT_EQ(chat(R"("messages":{})"), "\"messages\" must be an array, not an object");
  EXPECT_EQ(chat(R"("reasoning":5)"), "reasoning must be a JSON object, not a number");
  EXPECT_THAT(chat(R"("reasoning":{"effort":5})"), HasSubstr("effort must be a string"));
  EXPECT_EQ(chat(R"("tools":[{"type":"function","function":{"name":"f","parameters":5}}])"),
            "tool \"f\": \"parameters\" must be a JSON object, not a number");
  EXPECT_EQ(chat(R"("stream_options":5)"), "stream_options must be a JSON object, not a number");

  const auto responses = [&](std::string_view fields) {
    return message_of(openai::parse_responses(body_of(std::format("{{{}}}", fields))));
  };
  EXPECT_EQ(responses(R"("input":5)"), "\"input\" must be a string or an array, not a number");
  EXPECT_THAT(responses(R"("input":[{"role":"robot","content":"a"}])"),
              HasSubstr("input[0].role must be system"));
  EXPECT_THAT(responses(R"("input":[{"content":"a"}])"), HasSubstr("input[0].role is required"));
  EXPECT_EQ(chat(R"("messages":[{"role":"assistant","tool_calls":[{"function":{}}]}])"),
            "a tool call has no name");
  EXPECT_EQ(responses(R"("input":[{"type":"function_call","arguments":"{}"}])"),
            "a function_call has no name");
  EXPECT_THAT(responses(R"("input":"a","tool_choice":5)"), HasSubstr("\"tool_choice\" must be"));
  EXPECT_THAT(responses(R"("input":"a","reasoning":{"effort":5})"),
              HasSubstr("\"effort\" must be a string"));
  EXPECT_EQ(responses(R"("input":"a","text":{"format":5})"),
            "text.format must be a JSON object, not a number");

  const auto messages = [&](std::string_view fields) {
    return message_of(anthropic::parse_messages(body_of(std::format(
        R"({{"max_tokens":1,"messages":[{{"role":"user","content":"a"}}],{}}})", fields))));
  };
  EXPECT_EQ(messages(R"("system":5)"), "system must be a string or an array, not a number");
  EXPECT_EQ(messages(R"("thinking":{"type":"on"})"),
            "thinking: type must be enabled, disabled or adaptive, not \"on\"");
  EXPECT_EQ(messages(R"("thinking":{"type":"enabled","budget_tokens":-1})"),
            "thinking: budget_tokens must be 0 or more, not -1");
  EXPECT_EQ(messages(R"("thinking":{"type":"enabled","budget_tokens":1.5})"),
            "\"budget_tokens\" must be an integer, not a number");
  EXPECT_EQ(messages(R"("stop_sequences":"x")"),
            "\"stop_sequences\" must be an array, not a string");

  EXPECT_THAT(message_of(openai::parse_embeddings(body_of(R"({"input":"a","dimensions":-1})"))),
              HasSubstr("\"dimensions\" must be 1 or more"));
}

// As programs send them that were written for others.
TEST(ForeignRequests, TakeOtherWaysToSayTheSame) {
  const ForeignChat chat = parsed(openai::parse_chat, R"({"messages":[
    {"role":"user","content":[{"type":"image_url","image_url":"data:;base64,aGk="}]},
    {"role":"function","name":"f","content":"42"}]})");
  EXPECT_THAT(chat.request.messages[0].images, ElementsAre("hi"));
  EXPECT_EQ(chat.request.messages[1].role, "tool");
  EXPECT_EQ(chat.request.messages[1].tool_name, "f");
  EXPECT_TRUE(chat.request.text_logprobs);
  const ForeignChat messages = parsed(anthropic::parse_messages, R"({"max_tokens":1,"messages":[
    {"role":"system","content":"s"},{"role":"User","content":[{"type":"tool_result","tool_use_id":"t1",
      "content":[{"type":"image","source":{"type":"base64","data":"aGk="}}]}]}]})");
  EXPECT_EQ(messages.request.messages[0].role, "system");
  EXPECT_THAT(messages.request.messages[1].images, ElementsAre("hi"));
}

TEST(OpenAiChat, StreamsChunks) {
  const ForeignChat chat =
      parsed(openai::parse_chat,
             R"({"model":"m","stream":true,"stream_options":{"include_usage":true},
                 "messages":[{"role":"user","content":"a"}]})");
  const std::string stream =
      streamed(*chat.format, {piece("", "hm"), piece("Hi"), call("f", {{"a", 1}}), last()});
  const std::string head =
      R"(data: {"id":"chatcmpl-#","object":"chat.completion.chunk","created":0,"model":"m","system_fingerprint":"fp_ollama","choices":)";
  EXPECT_EQ(
      stream,
      head +
          R"([{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}],"usage":null})"
          "\n\n" +
          head +
          R"([{"index":0,"delta":{"reasoning":"hm"},"logprobs":null,"finish_reason":null}],"usage":null})"
          "\n\n" +
          head +
          R"([{"index":0,"delta":{"content":"Hi"},"logprobs":null,"finish_reason":null}],"usage":null})"
          "\n\n" +
          head +
          R"([{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]},"logprobs":null,"finish_reason":null}],"usage":null})"
          "\n\n" +
          head +
          R"([{"index":0,"delta":{},"logprobs":null,"finish_reason":"tool_calls"}],"usage":null})"
          "\n\n" +
          head +
          R"([],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8,"prompt_tokens_details":{"cached_tokens":2},"completion_tokens_details":{"reasoning_tokens":1}}})"
          "\n\ndata: [DONE]\n\n");
}

// Clients keep a choice's first chunk and add the others to it.
TEST(OpenAiChat, BeginsEachChoiceOnce) {
  const ForeignChat chat =
      parsed(openai::parse_chat,
             R"({"model":"m","stream":true,"n":2,"messages":[{"role":"user","content":"a"}]})");
  for (const std::size_t choice : {0U, 1U}) {
    ChatResponse first = piece("Hi");
    first.logprobs.emplace_back().token = "Hi";
    const std::string begun = chat.format->piece(first, choice);
    const std::string opening =
        std::format(R"({{"index":{},"delta":{{"role":"assistant","content":"","refusal":null}},)"
                    R"("logprobs":null,"finish_reason":null}})",
                    choice);
    EXPECT_THAT(begun, HasSubstr(opening));
    EXPECT_LT(begun.find(opening), begun.find(R"("token":"Hi")"));
    EXPECT_THAT(begun, HasSubstr(R"("refusal":null},"finish_reason":null)"));
    EXPECT_THAT(chat.format->piece(piece("!"), choice), Not(HasSubstr("role")));
  }
}

TEST(OpenAiChat, AnswersWhole) {
  ForeignChat chat = parsed(openai::parse_chat,
                            R"({"model":"m","n":2,"messages":[{"role":"user","content":"a"}]})");
  ChatResponse one = last();
  one.message.content = "Hi";
  ChatResponse two = last("length");
  two.message.content = "Ho";
  EXPECT_EQ(
      steady(to_string(chat.format->whole({one, two}))),
      R"({"id":"chatcmpl-#","object":"chat.completion","created":0,"model":"m","system_fingerprint":"fp_ollama","choices":[)"
      R"({"index":0,"message":{"role":"assistant","content":"Hi","refusal":null},"logprobs":null,"finish_reason":"stop"},)"
      R"({"index":1,"message":{"role":"assistant","content":"Ho","refusal":null},"logprobs":null,"finish_reason":"length"}],)"
      R"("usage":{"prompt_tokens":5,"completion_tokens":6,"total_tokens":11,"prompt_tokens_details":{"cached_tokens":2},"completion_tokens_details":{"reasoning_tokens":2}}})");
}

TEST(OpenAi, TellsErrorsInItsShape) {
  EXPECT_EQ(
      to_string(openai::error_json({404, "model 'x' not found"})),
      R"({"error":{"message":"model 'x' not found","type":"not_found_error","param":null,"code":"model_not_found"}})");
  EXPECT_THAT(to_string(openai::error_json({401, "x"})), HasSubstr(R"("code":"invalid_api_key")"));
  EXPECT_THAT(to_string(openai::error_json({400, "x"})), HasSubstr(R"("code":null)"));
  EXPECT_THAT(to_string(openai::error_json({400, "x"})), HasSubstr("invalid_request_error"));
  EXPECT_THAT(to_string(openai::error_json({500, "x"})), HasSubstr("api_error"));
}

TEST(OpenAi, ReadsCompletionsAndEmbeddings) {
  const auto completion = openai::parse_completion(
      body_of(R"({"model":"m","prompt":["a","b"],"echo":true,"max_tokens":3,"suffix":"z"})"));
  ASSERT_TRUE(completion);
  EXPECT_THAT(completion->prompts, ElementsAre("a", "b"));
  EXPECT_TRUE(completion->echo);
  EXPECT_EQ(completion->request.suffix, "z");
  const auto tokens =
      openai::parse_embeddings(body_of(R"({"input":[[1,2],[3]],"encoding_format":"base64"})"));
  ASSERT_TRUE(tokens);
  EXPECT_THAT(tokens->tokens, ElementsAre(ElementsAre(1, 2), ElementsAre(3)));
  EXPECT_TRUE(tokens->base64);
  EXPECT_FALSE(openai::parse_embeddings(body_of(R"({"model":"m"})")));
  // They would lose their order.
  for (const char* mixed : {R"({"input":[[1,2],"a"]})", R"({"input":["a",[1]]})"}) {
    const auto refused = openai::parse_embeddings(body_of(mixed));
    ASSERT_FALSE(refused) << mixed;
    EXPECT_THAT(std::string(refused.error().message()), HasSubstr("\"input\" must hold"));
  }
  EXPECT_FALSE(openai::parse_embeddings(body_of(R"({"input":"a","encoding_format":"hex"})")));
  EXPECT_FALSE(openai::parse_completion(body_of(R"({"prompt":{}})")));
  EmbedResponse response;
  response.model = "m";
  response.embeddings = {{1.0F, -2.0F}};
  response.prompt_eval_count = 4;
  EXPECT_EQ(
      to_string(openai::embeddings_json(response, true)),
      R"({"object":"list","data":[{"object":"embedding","embedding":"AACAPwAAAMA=","index":0}],)"
      R"("model":"m","usage":{"prompt_tokens":4,"total_tokens":4}})");
  EXPECT_THAT(to_string(openai::embeddings_json(response, false)), HasSubstr("[1,-2]"));
  response.embeddings = {{0.1F}};
  EXPECT_THAT(to_string(openai::embeddings_json(response, false)), HasSubstr("[0.1]"));
}

TEST(OpenAi, ReadsWhatIsAskedOfSampling) {
  const auto chat = openai::parse_chat(
      body_of(R"({"model":"m","messages":[{"role":"user","content":"a"}],"logit_bias":{"5":-100},)"
              R"("logprobs":true,"top_logprobs":2})"));
  ASSERT_TRUE(chat);
  EXPECT_EQ(to_string(*chat->request.parsed_options.logit_bias), R"({"5":-100})");
  EXPECT_EQ(chat->request.top_logprobs, 2);
  EXPECT_FALSE(openai::parse_chat(body_of(
      R"({"model":"m","messages":[{"role":"user","content":"a"}],"logit_bias":{"5":101}})")));
  EXPECT_FALSE(openai::parse_completion(body_of(R"({"model":"m","logit_bias":{"x":1}})")));
  const auto completion =
      openai::parse_completion(body_of(R"({"model":"m","n":2,"best_of":4,"logprobs":0})"));
  ASSERT_TRUE(completion);
  EXPECT_EQ(completion->best_of, 4U);
  EXPECT_TRUE(completion->request.logprobs);
  EXPECT_EQ(openai::parse_completion(body_of(R"({"model":"m","n":2})"))->best_of, 2U);
  for (const char* bad : {R"({"n":2,"best_of":1})", R"({"n":1,"best_of":2,"stream":true})",
                          R"({"logprobs":21})", R"({"logprobs":-1})", R"({"best_of":129})"}) {
    EXPECT_FALSE(openai::parse_completion(body_of(bad))) << bad;
  }
}

TEST(OpenAi, WritesLogprobsOfCompletions) {
  openai::CompletionFormat format("m", false, 1);
  format.begin(0, "\xC3\xA9!");  // two characters
  GenerateResponse response;
  const auto logprob = [](std::string token, double value, std::vector<std::int32_t> bytes) {
    Logprob result;
    result.token = std::move(token);
    result.logprob = value;
    result.bytes = std::move(bytes);
    return result;
  };
  response.logprobs = {logprob("\xEF\xBF\xBD", -1, {0xC3}), logprob("\xEF\xBF\xBD", -1, {0xA9})};
  EXPECT_THAT(format.piece(response, 0),
              HasSubstr(R"("logprobs":{"tokens":["�","�"],"token_logprobs":[-1,-1],)"
                        R"("top_logprobs":null,"text_offset":[2,3]})"));
  response.logprobs = {logprob("b", -2, {'b'})};
  response.logprobs[0].top = {{"a", -0.5, {}}};
  EXPECT_THAT(format.piece(response, 0),
              HasSubstr(R"("top_logprobs":[{"a":-0.5,"b":-2}],"text_offset":[3]})"));
}

// ---- OpenAI's responses

TEST(OpenAiResponses, BecomeANativeRequest) {
  const ForeignChat chat = parsed(openai::parse_responses, R"({
    "model": "m", "instructions": "be brief", "max_output_tokens": 9, "reasoning": {"effort": "high"},
    "text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}},
    "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
    "tool_choice": {"type": "function", "name": "f"},
    "input": [
      {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
      {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
      {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
      {"type": "function_call_output", "call_id": "c1", "output": "42"}]})");
  const std::vector<Message>& messages = chat.request.messages;
  ASSERT_EQ(messages.size(), 4U);
  EXPECT_EQ(messages[0].content, "be brief");
  EXPECT_EQ(messages[2].thinking, "hm");
  EXPECT_EQ(messages[2].tool_calls.at(0).name, "f") << "reasoning and call are one message";
  EXPECT_EQ(messages[3].role, "tool");
  EXPECT_EQ(messages[3].tool_name, "f");
  EXPECT_EQ(chat.request.think->level, "high");
  EXPECT_EQ(to_string(chat.request.format), R"({"type":"object"})");
  EXPECT_EQ(to_string(chat.request.tools),
            R"([{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}])");
  EXPECT_EQ(to_string(chat.request.tool_choice), R"({"type":"function","function":{"name":"f"}})");
  EXPECT_FALSE(openai::parse_responses(
      body_of(R"({"model":"m","input":"a","previous_response_id":"resp_1"})")));
  EXPECT_FALSE(
      openai::parse_responses(body_of(R"({"model":"m","input":"a","conversation":"conv_1"})")));
  EXPECT_FALSE(
      openai::parse_responses(body_of(R"({"model":"m","input":"a","prompt":{"id":"pmpt_1"}})")));
  const auto reference = openai::parse_responses(
      body_of(R"({"model":"m","input":[{"type":"item_reference","id":"rs_1"}]})"));
  ASSERT_FALSE(reference);
  EXPECT_THAT(std::string(reference.error().message()), HasSubstr("\"store\": false"));
  EXPECT_FALSE(openai::parse_responses(
      body_of(R"({"model":"m","input":"a","text":{"format":{"type":"xml"}}})")));
}

// As agents send them: tools that run elsewhere, tools that take a text, and namespaces.
TEST(OpenAiResponses, OffersWhatCanBeCalledHere) {
  const ForeignChat chat = parsed(openai::parse_responses, R"({"model":"m","stream":true,
    "tools":[{"type":"web_search"},{"type":"mcp","server_label":"s"},
      {"type":"custom","name":"patch","description":"d","format":{"type":"grammar","syntax":"lark","definition":"start: /a/"}},
      {"type":"namespace","name":"git","description":"n","tools":[{"type":"function","name":"log"},{"type":"tool_search"}]}],
    "tool_choice":{"type":"function","name":"log","namespace":"git"},
    "input":[{"role":"user","content":"a"},
      {"type":"web_search_call","id":"ws_1","status":"completed"},
      {"type":"custom_tool_call","call_id":"c1","name":"patch","input":"aa"},
      {"type":"custom_tool_call_output","call_id":"c1","output":"done"},
      {"type":"function_call","call_id":"c2","namespace":"git","name":"log","arguments":"{}"},
      {"type":"function_call_output","call_id":"c2","output":"none"},
      {"type":"message","role":"assistant","content":[{"type":"refusal","refusal":"no"}]}]})");
  const auto* tools = chat.request.tools.if_array();
  ASSERT_TRUE(tools != nullptr && tools->size() == 2);
  EXPECT_EQ(
      to_string((*tools)[0]),
      R"({"type":"function","function":{"name":"patch","description":"d\ninput has to meet this grammar:\nstart: /a/",)"
      R"("parameters":{"type":"object","properties":{"input":{"type":"string"}},"required":["input"]}}})");
  EXPECT_EQ((*tools)[1].at_pointer("/function/name"), Json("git__log"));
  EXPECT_EQ(chat.request.tool_choice.at_pointer("/function/name"), Json("git__log"));
  const std::vector<Message>& messages = chat.request.messages;
  ASSERT_EQ(messages.size(), 6U);
  EXPECT_EQ(to_string(messages[1].tool_calls.at(0).arguments), R"({"input":"aa"})");
  EXPECT_EQ(messages[2].tool_name, "patch");
  EXPECT_EQ(messages[3].tool_calls.at(0).name, "git__log");
  EXPECT_EQ(messages[4].tool_name, "git__log");
  EXPECT_EQ(messages[5].content, "no");

  const std::string stream =
      streamed(*chat.format, {call("patch", {{"input", "a\"b"}}), call("git__log", {{"n", 1}}),
                              call("other", {}), last()});
  EXPECT_THAT(
      event_names(stream),
      ElementsAre("response.created", "response.in_progress", "response.output_item.added",
                  "response.custom_tool_call_input.delta", "response.custom_tool_call_input.done",
                  "response.output_item.done", "response.output_item.added",
                  "response.function_call_arguments.delta", "response.function_call_arguments.done",
                  "response.output_item.done", "response.output_item.added",
                  "response.function_call_arguments.delta", "response.function_call_arguments.done",
                  "response.output_item.done", "response.completed"));
  EXPECT_THAT(
      stream,
      HasSubstr(
          R"("type":"custom_tool_call","status":"completed","input":"a\"b","call_id":"call_1","name":"patch"})"));
  EXPECT_THAT(
      stream,
      HasSubstr(
          R"("status":"completed","arguments":"{\"n\":1}","call_id":"call_1","name":"log","namespace":"git"})"));
  EXPECT_THAT(stream, HasSubstr(R"("name":"other","arguments":"{}"})"));
}

TEST(OpenAiResponses, RefuseToolsThatNobodyKnows) {
  for (const auto& [tools, why] :
       {std::pair(R"([{"type":"fuction","name":"f"}])", "type \"fuction\""),
        std::pair(R"([{"name":"f"}])", "type \"\""), std::pair(R"([{"type":"custom"}])", "no name"),
        std::pair(R"([{"type":"namespace","tools":[]}])", "namespace of tools has no name"),
        std::pair(R"([{"type":"namespace","name":"n","tools":[{"type":"function"}]}])", "no name"),
        std::pair(R"({})", "must be an array")}) {
    const auto refused = openai::parse_responses(
        body_of(std::format(R"({{"model":"m","input":"a","tools":{}}})", tools)));
    ASSERT_FALSE(refused) << tools;
    EXPECT_THAT(std::string(refused.error().message()), HasSubstr(why));
  }
}

TEST(OpenAiResponses, StreamInOrder) {
  const ForeignChat chat =
      parsed(openai::parse_responses, R"({"model":"m","stream":true,"input":"a"})");
  const std::string stream = streamed(
      *chat.format, {piece("", "hm"), piece("Hi"), piece("!"), call("f", {{"a", 1}}), last()});
  EXPECT_THAT(
      event_names(stream),
      ElementsAre("response.created", "response.in_progress", "response.output_item.added",
                  "response.reasoning_summary_part.added", "response.reasoning_summary_text.delta",
                  "response.reasoning_summary_text.done", "response.reasoning_summary_part.done",
                  "response.output_item.done", "response.output_item.added",
                  "response.content_part.added", "response.output_text.delta",
                  "response.output_text.done", "response.content_part.done",
                  "response.output_item.done", "response.output_item.added",
                  "response.function_call_arguments.delta", "response.function_call_arguments.done",
                  "response.output_item.done", "response.completed"));
  EXPECT_THAT(stream, HasSubstr(R"("type":"output_text","text":"Hi!")"));
  EXPECT_THAT(stream, HasSubstr(R"("total_tokens":8)"));
  // The numbers of events have no gap.
  for (int i = 0; i < 20; ++i) {
    EXPECT_THAT(stream, HasSubstr(std::format("\"sequence_number\":{},", i)));
  }
}

TEST(OpenAiResponses, BeginBeforeTheFirstPiece) {
  const ForeignChat chat =
      parsed(openai::parse_responses, R"({"model":"m","stream":true,"input":"a"})");
  EXPECT_THAT(event_names(chat.format->begin(Metrics())),
              ElementsAre("response.created", "response.in_progress"));
  EXPECT_THAT(streamed(*chat.format, {piece("Hi"), last()}), Not(HasSubstr("response.created")));
}

TEST(OpenAiResponses, BreakInOrder) {
  const ForeignChat chat =
      parsed(openai::parse_responses, R"({"model":"m","stream":true,"input":"a"})");
  std::string stream = chat.format->piece(piece("Hi"), 0);
  stream += chat.format->broken({500, "x"});
  EXPECT_THAT(stream, HasSubstr(R"({"type":"response.output_text.done","sequence_number":5,)"));
  EXPECT_THAT(stream, HasSubstr(R"({"type":"response.failed","sequence_number":8,)"));
  EXPECT_THAT(steady(stream), HasSubstr(R"("output":[{"id":"msg_#","type":"message")"));
}

TEST(OpenAiResponses, GiveReasoningThatClientsSendBack) {
  ChatResponse answer = last();
  answer.message.thinking = "hm";
  const auto told = [&](const char* request) {
    return steady(to_string(parsed(openai::parse_responses, request).format->whole({answer})));
  };
  EXPECT_THAT(
      told(R"({"model":"m","input":"a","include":["reasoning.encrypted_content"]})"),
      HasSubstr(R"("summary":[{"type":"summary_text","text":"hm"}],"encrypted_content":"hm")"));
  EXPECT_THAT(told(R"({"model":"m","input":"a"})"), Not(HasSubstr("encrypted_content")));
}

TEST(OpenAiResponses, RefuseWhatTheyWouldNotHonour) {
  for (const auto& [text, message] :
       {std::pair(R"({"input":"a","truncation":"x"})", "truncation must be"),
        std::pair(R"({"input":"a","top_logprobs":2})", "no logprobs"),
        std::pair(R"({"input":"a","text":5})", "\"text\" must be a JSON object"),
        std::pair(R"({"input":"a","tools":[{"type":"function"}]})", "a tool has no name")}) {
    const auto chat = openai::parse_responses(body_of(text));
    ASSERT_FALSE(chat) << text;
    EXPECT_THAT(std::string(chat.error().message()), HasSubstr(message)) << text;
  }
  EXPECT_EQ(
      parsed(openai::parse_responses, R"({"input":"a","truncation":"disabled"})").request.truncate,
      false);
}

TEST(OpenAiResponses, AnswerWhole) {
  const ForeignChat chat = parsed(openai::parse_responses, R"({"model":"m","input":"a",
    "temperature":0,"tools":[{"type":"function","name":"f","strict":true}]})");
  ChatResponse answer = last("length");
  answer.message.content = "Hi";
  const std::string text = steady(to_string(chat.format->whole({answer})));
  EXPECT_THAT(text, HasSubstr(R"("status":"incomplete")"));
  EXPECT_THAT(
      text,
      HasSubstr(
          R"("tools":[{"type":"function","name":"f","strict":true,"description":null,"parameters":null}])"));
  EXPECT_THAT(text, HasSubstr(R"("temperature":0,)"));
  EXPECT_THAT(text, HasSubstr(R"("tool_choice":"auto")"));
  EXPECT_THAT(
      text,
      HasSubstr(
          R"("output":[{"id":"msg_#","type":"message","status":"incomplete","role":"assistant","content":[{"type":"output_text","text":"Hi","annotations":[],"logprobs":[]}]}])"));
}

// ---- Anthropic's messages

TEST(AnthropicMessages, BecomeANativeRequest) {
  const ForeignChat chat = parsed(anthropic::parse_messages, R"({
    "model": "m", "max_tokens": 9, "system": [{"type": "text", "text": "be brief"}],
    "stop_sequences": ["END"], "top_k": 3, "thinking": {"type": "enabled", "budget_tokens": 1024},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "string"}}},
    "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
    "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
    "messages": [
      {"role": "user", "content": "a"},
      {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "tool_use", "id": "t1", "name": "f", "input": {"z": 1, "a": 2}}]},
      {"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "42"}]},
        {"type": "text", "text": "go on"}]}]})");
  const std::vector<Message>& messages = chat.request.messages;
  ASSERT_EQ(messages.size(), 5U);
  EXPECT_EQ(messages[0].content, "be brief");
  EXPECT_EQ(messages[2].thinking, "hm");
  EXPECT_EQ(to_string(messages[2].tool_calls.at(0).arguments), R"({"z":1,"a":2})");
  EXPECT_EQ(messages[3].role, "tool");
  EXPECT_EQ(messages[3].content, "42");
  EXPECT_EQ(messages[3].tool_name, "f");
  EXPECT_EQ(messages[4].content, "go on");
  EXPECT_EQ(chat.request.parsed_options.num_predict, 9);
  EXPECT_EQ(chat.request.parsed_options.top_k, 3);
  EXPECT_EQ(to_string(chat.request.format), R"({"type":"string"})");
  EXPECT_TRUE(chat.request.think->enabled);
  EXPECT_EQ(chat.request.tool_choice, Json("required"));
  EXPECT_FALSE(chat.parallel_tools);
  EXPECT_EQ(
      to_string(chat.request.tools),
      R"([{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"}}}])");
}

TEST(AnthropicMessages, ThinkAsMuchAsTheyAreWorth) {
  const auto think = [](std::string_view fields) {
    return parsed(
               anthropic::parse_messages,
               std::format(R"({{"max_tokens":1,"messages":[{{"role":"user","content":"a"}}],{}}})",
                           fields))
        .request.think;
  };
  EXPECT_EQ(think(R"("output_config":{"effort":"low"})")->level, "low");
  EXPECT_EQ(think(R"("output_config":{"effort":"xhigh"},"thinking":{"type":"adaptive"})")->level,
            "high");
  EXPECT_EQ(think(R"("output_config":{"effort":"later"})"), Think{});
  EXPECT_EQ(think(R"("stream":false)"), Think{}) << "nobody asked";
  EXPECT_EQ(think(R"("thinking":{"type":"adaptive"})"), std::nullopt) << "the model decides";
  EXPECT_FALSE(
      think(R"("output_config":{"effort":"low"},"thinking":{"type":"disabled"})")->enabled);
}

TEST(AnthropicMessages, ReadDocumentsOfText) {
  const std::string_view messages = R"({{"model":"m","max_tokens":1,"messages":[
    {{"role":"user","content":[{{"type":"document","source":{0}}},{{"type":"text","text":"b"}}]}},
    {{"role":"user","content":[{{"type":"tool_result","tool_use_id":"t",
      "content":[{{"type":"document","source":{0}}}]}}]}}]}})";
  const std::string text = R"({"type":"text","media_type":"text/plain","data":"a"})";
  const ForeignChat chat =
      parsed(anthropic::parse_messages, std::vformat(messages, std::make_format_args(text)));
  ASSERT_EQ(chat.request.messages.size(), 2U);
  EXPECT_EQ(chat.request.messages[0].content, "a\nb");
  EXPECT_EQ(chat.request.messages[1].content, "a");
  const std::string file = R"({"type":"base64","media_type":"application/pdf","data":"aGk="})";
  const auto refused =
      anthropic::parse_messages(body_of(std::vformat(messages, std::make_format_args(file))));
  ASSERT_FALSE(refused);
  EXPECT_THAT(std::string(refused.error().message()), HasSubstr("documents are sent as text"));
}

TEST(AnthropicMessages, ReadTheOlderPlaceOfAFormat) {
  const ForeignChat chat = parsed(anthropic::parse_messages, R"({"model":"m","max_tokens":1,
    "output_format":{"type":"json_schema","schema":{"type":"string"}},
    "messages":[{"role":"user","content":"a"}]})");
  EXPECT_EQ(to_string(chat.request.format), R"({"type":"string"})");
}

// A message of results alone is no empty message beside them.
TEST(AnthropicMessages, ResultsStandAlone) {
  const ForeignChat chat =
      parsed(anthropic::parse_messages, R"({"model":"m","max_tokens":1,"messages":[
    {"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"42"}]}]})");
  ASSERT_EQ(chat.request.messages.size(), 1U);
  EXPECT_EQ(chat.request.messages[0].role, "tool");
}

TEST(AnthropicMessages, RefuseWhatTheyCannotUse) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"model":"m","messages":[{"role":"user","content":"a"}]})", "max_tokens"},
      {R"({"model":"m","max_tokens":1})", "messages"},
      {R"({"model":"m","max_tokens":1,"messages":[]})", "at least one message"},
      {R"({"max_tokens":1,"messages":[{"role":"robot","content":"a"}]})", "role"},
      {R"({"max_tokens":1,"messages":[{"role":"user"}]})", "content is required"},
      {R"({"max_tokens":1,"messages":[{"role":"user","content":"a"},{"role":"robot","content":"a"}]})",
       "messages[1].role must be user or assistant, not \"robot\""},
      {R"({"max_tokens":1,"messages":[{"role":"assistant","content":[{"type":"tool_use","name":"f"}]}]})",
       "a tool_use block needs id and name"},
      {R"({"max_tokens":1,"messages":[{"role":"user","content":[{"type":"video"}]}]})", "video"},
      {R"({"max_tokens":1,"messages":[{"role":"user","content":[{"type":"image","source":{"type":"url"}}]}]})",
       "base64"},
      {R"({"max_tokens":1,"messages":["a"]})", "a message must be a JSON object, not a string"},
      {R"({"max_tokens":1,"messages":[{"role":"user","content":["a"]}]})",
       "a content block must be a JSON object"},
      {R"({"max_tokens":1,"tools":[{}],"messages":[{"role":"user","content":"a"}]})",
       "a tool has no name"},
      {R"({"max_tokens":1,"tools":[{"name":"f","input_schema":"x"}],"messages":[{"role":"user","content":"a"}]})",
       "\"input_schema\" must be a JSON object, not a string"},
      {R"({"max_tokens":1,"tools":[5],"messages":[{"role":"user","content":"a"}]})",
       "a tool must be a JSON object"},
      {R"({"max_tokens":1,"tool_choice":{"type":"x"},"messages":[{"role":"user","content":"a"}]})",
       "tool_choice"},
      {R"({"max_tokens":1,"output_config":{"format":{"type":"xml"}},"messages":[{"role":"user","content":"a"}]})",
       "output_config.format"},
      {R"({"max_tokens":1,"tools":[{"type":"bash_20250124","name":"bash"}],"messages":[{"role":"user","content":"a"}]})",
       "bash_20250124"},
  };
  for (const auto& [text, message] : cases) {
    const auto chat = anthropic::parse_messages(body_of(text));
    ASSERT_FALSE(chat) << text;
    EXPECT_THAT(std::string(chat.error().message()), HasSubstr(message)) << text;
  }
}

TEST(AnthropicMessages, StreamInOrder) {
  const ForeignChat chat = parsed(
      anthropic::parse_messages,
      R"({"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"a"}]})");
  const std::string stream =
      streamed(*chat.format, {piece("", "hm"), piece("Hi"), call("f", {{"a", 1}}), last()});
  EXPECT_THAT(event_names(stream),
              ElementsAre("message_start", "ping", "content_block_start", "content_block_delta",
                          "content_block_stop", "content_block_start", "content_block_delta",
                          "content_block_stop", "content_block_start", "content_block_delta",
                          "content_block_stop", "message_delta", "message_stop"));
  EXPECT_THAT(
      stream,
      HasSubstr(
          R"({"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Hi"}})"));
  EXPECT_THAT(stream, HasSubstr(R"("index":2,"content_block":{"type":"tool_use")"));
  EXPECT_THAT(stream, HasSubstr(R"({"type":"input_json_delta","partial_json":"{\"a\":1}"})"));
  EXPECT_THAT(stream, HasSubstr(R"("stop_reason":"tool_use")"));
  EXPECT_THAT(stream, HasSubstr(R"("output_tokens":3)"));
}

// Clients take the input's tokens from the first event, which does not wait for the first piece.
TEST(AnthropicMessages, BeginWithThePromptsTokens) {
  const ForeignChat chat = parsed(
      anthropic::parse_messages,
      R"({"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"a"}]})");
  Metrics prompt;
  prompt.prompt_eval_count = 5;
  prompt.prompt_eval_cached_count = 2;
  const std::string begun = chat.format->begin(prompt);
  EXPECT_THAT(event_names(begun), ElementsAre("message_start", "ping"));
  EXPECT_THAT(begun, HasSubstr(R"("usage":{"input_tokens":3,"output_tokens":0,)"
                               R"("cache_creation_input_tokens":0,"cache_read_input_tokens":2,)"));
  EXPECT_THAT(streamed(*chat.format, {piece("Hi"), last()}), Not(HasSubstr("message_start")));
}

TEST(AnthropicMessages, AnswerWhole) {
  const ForeignChat chat =
      parsed(anthropic::parse_messages,
             R"({"model":"m","max_tokens":9,"messages":[{"role":"user","content":"a"}]})");
  ChatResponse answer = last();
  answer.message.content = "Hi";
  EXPECT_EQ(
      steady(to_string(chat.format->whole({answer}))),
      R"({"id":"msg_#","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"Hi","citations":null}],)"
      R"("stop_reason":"end_turn","stop_sequence":null,"stop_details":null,"container":null,)"
      R"("diagnostics":null,"usage":{"input_tokens":3,"output_tokens":3,)"
      R"("cache_creation_input_tokens":0,"cache_read_input_tokens":2,"cache_creation":null,)"
      R"("output_tokens_details":{"thinking_tokens":1},"server_tool_use":null,)"
      R"("inference_geo":null,"service_tier":"standard","speed":null}})");
}

TEST(AnthropicMessages, AnAnswerCutAmongThoughtsHasNoText) {
  const ForeignChat chat =
      parsed(anthropic::parse_messages,
             R"({"model":"m","max_tokens":9,"messages":[{"role":"user","content":"a"}]})");
  ChatResponse answer = last("length");
  answer.message.thinking = "Hm";
  EXPECT_THAT(steady(to_string(chat.format->whole({answer}))),
              HasSubstr(R"("content":[{"type":"thinking","thinking":"Hm","signature":""}],)"));
}

// A stop of the model's own, which the client knows nothing of, ends the turn.
TEST(AnthropicMessages, NamesTheStopSequenceOfTheRequest) {
  for (const auto& [stopped_by, told] :
       {std::pair("END", R"("stop_reason":"stop_sequence","stop_sequence":"END")"),
        std::pair("<|im_end|>", R"("stop_reason":"end_turn","stop_sequence":null)"),
        std::pair("", R"("stop_reason":"end_turn","stop_sequence":null)")}) {
    const ForeignChat chat = parsed(anthropic::parse_messages,
                                    R"({"model":"m","max_tokens":9,"stop_sequences":["a","END"],)"
                                    R"("messages":[{"role":"user","content":"a"}]})");
    ChatResponse answer = last();
    answer.stopped_by = stopped_by;
    EXPECT_THAT(to_string(chat.format->whole({answer})), HasSubstr(told));
    EXPECT_THAT(streamed(*chat.format, {answer}), HasSubstr(told));
  }
}

TEST(Anthropic, TellsErrorsInItsShape) {
  EXPECT_EQ(
      steady(to_string(anthropic::error_json({404, "x"}))),
      R"({"type":"error","error":{"type":"not_found_error","message":"x"},"request_id":null})");
  EXPECT_THAT(to_string(anthropic::error_json({401, "x"})), HasSubstr("authentication_error"));
  const auto thread = anthropic::parse_messages(body_of(
      R"({"max_tokens":1,"thread":{"type":"create"},"messages":[{"role":"user","content":"a"}]})"));
  ASSERT_FALSE(thread);
  EXPECT_THAT(to_string(anthropic::error_json({400, std::string(thread.error().message())})),
              HasSubstr(R"("details":{"error_code":"thread_unsupported_request"})"));
}

}  // namespace
}  // namespace ollama::api
