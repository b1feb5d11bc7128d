#include "api/types.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <boost/json/array.hpp>

#include "envconfig/duration.h"

namespace ollama::api {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

Json json_of(std::string_view text) {
  auto json = parse_json(text);
  if (!json) ADD_FAILURE() << text << ": " << json.error().message();
  return json ? *json : Json();
}

std::string message_of(const auto& result) {
  return result ? "(no error)" : std::string(result.error().message());
}

// ---- JSON text ---------------------------------------------------------------------------------

TEST(JsonText, RefusesWhatIsNotJson) {
  for (const char* text : {"", " ", "{", "{\"a\":1", "[1,]", "nul", "1 2", "{} x", "\"\x01\"",
                           "\"\xff\"", "{'a':1}", "01", "+1"}) {
    const auto json = parse_json(text);
    ASSERT_FALSE(json) << text;
    EXPECT_EQ(json.error().code(), ErrorCode::kInvalidArgument);
    EXPECT_THAT(message_of(json), HasSubstr("invalid JSON at byte"));
  }
  EXPECT_TRUE(parse_json(" {} \n"));
}

// A body of brackets must not overflow the stack.
TEST(JsonText, DepthIsBounded) {
  EXPECT_FALSE(parse_json(std::string(100'000, '[')));
  EXPECT_TRUE(parse_json(std::string(200, '[') + std::string(200, ']')));
}

TEST(JsonText, WritesNumbersAsPeopleDo) {
  EXPECT_EQ(to_string(json_of("[0.7,1e4,1e-7,1e300,3.0,-0.5,12345678901234567890,-1]")),
            "[0.7,10000,1e-07,1e+300,3,-0.5,12345678901234567890,-1]");
}

TEST(JsonText, WritesValidTextWhateverTheBytes) {
  EXPECT_EQ(to_string(Json("a\"\\\n\x01\xff\xed\xa0\x80\xc3\xa9")),
            "\"a\\\"\\\\\\n\\u0001\\ufffd\\ufffd\\ufffd\\ufffd\xc3\xa9\"");
  ASSERT_TRUE(rc::check(
      [](const std::string& bytes) { RC_ASSERT(parse_json(to_string(Json(bytes))).has_value()); }));
}

TEST(JsonText, RoundTripsDoubles) {
  ASSERT_TRUE(rc::check([](double value) {
    const auto back = parse_json(to_string(Json(value)));
    RC_ASSERT(back.has_value());
    RC_ASSERT(back->to_number<double>() == value);
  }));
}

// ---- base64 ------------------------------------------------------------------------------------

TEST(Base64, RoundTrips) {
  EXPECT_EQ(encode_base64("f"), "Zg==");
  EXPECT_EQ(encode_base64("fo"), "Zm8=");
  EXPECT_EQ(decode_base64("Zm9v\r\nYmFy"), "foobar");
  ASSERT_TRUE(rc::check([](const std::string& bytes) {
    const auto back = decode_base64(encode_base64(bytes));
    RC_ASSERT(back.has_value());
    RC_ASSERT(*back == bytes);
  }));
}

TEST(Base64, RefusesBrokenText) {
  for (const char* text : {"Z", "Zg", "Zg=", "Zg==Zg==", "=", "====", "Zm9v=", "Z g=", "Zg=a",
                           "data:image/png;base64,Zg==", "Zg===", "Z==="}) {
    EXPECT_THAT(message_of(decode_base64(text)), HasSubstr("illegal base64")) << text;
  }
}

// ---- time --------------------------------------------------------------------------------------

TEST(Time, WritesRfc3339) {
  EXPECT_EQ(format_time(Time(1'700'000'000s)), "2023-11-14T22:13:20Z");
  EXPECT_EQ(format_time(Time(1'700'000'000s + 120ms)), "2023-11-14T22:13:20.12Z");
  EXPECT_EQ(format_time(Time(1ns)), "1970-01-01T00:00:00.000000001Z");
  EXPECT_EQ(format_time(Time{}), "0001-01-01T00:00:00Z");
}

TEST(Time, ReadsAnyOffset) {
  EXPECT_EQ(parse_time("2023-11-14T22:13:20.12Z"), Time(1'700'000'000s + 120ms));
  EXPECT_EQ(parse_time("2023-11-15T00:13:20+02:00"), Time(1'700'000'000s));
  EXPECT_EQ(parse_time("2023-11-14T16:43:20.000000001-05:30"), Time(1'700'000'000s + 1ns));
  EXPECT_EQ(parse_time("0001-01-01T00:00:00Z"), Time{});
  EXPECT_EQ(parse_time("2318-01-01T00:00:00Z"), Time::max());
}

TEST(Time, RefusesWhatIsNoTime) {
  for (const char* text :
       {"", "2023-11-14", "2023-13-01T00:00:00Z", "2023-02-30T00:00:00Z", "2023-11-14T24:00:00Z",
        "2023-11-14T22:13:20", "2023-11-14T22:13:20.Z", "2023-11-14T22:13:20+2:00",
        "2023-11-14T22:13:20Zz", "xxxx-11-14T22:13:20Z", "2023-11-14T22:13:20.1"}) {
    EXPECT_FALSE(parse_time(text)) << text;
  }
}

TEST(Time, RoundTrips) {
  ASSERT_TRUE(rc::check([](std::int64_t count) {
    // The years that have 64-bit nanoseconds in full.
    const Time time(std::chrono::nanoseconds(count / 100 * 98));
    const auto back = parse_time(format_time(time));
    RC_ASSERT(back.has_value());
    RC_ASSERT(back->time_since_epoch().count() == time.time_since_epoch().count());
  }));
}

// ---- options -----------------------------------------------------------------------------------

Result<Options> options_of(std::string_view text, std::vector<std::string>* unknown = nullptr) {
  return parse_options(json_of(text).as_object(), unknown);
}

TEST(Options, EveryOptionRoundTrips) {
  const char* text =
      R"({"num_ctx":2048,"num_batch":256,"num_gpu":-1,"main_gpu":1,"use_mmap":false,"num_thread":4,)"
      R"("draft_num_predict":3,"num_keep":24,"seed":9007199254740993,"num_predict":-2,"top_k":20,)"
      R"("top_p":0.9,"min_p":0.05,"typical_p":0.7,"repeat_last_n":-1,"temperature":0.8,)"
      R"("repeat_penalty":1.2,"presence_penalty":1.5,"frequency_penalty":-0.1,"mirostat":2,)"
      R"("mirostat_tau":5.5,"mirostat_eta":0.2,"dynatemp_range":0.3,"dynatemp_exponent":1.5,)"
      R"("xtc_probability":0.6,"xtc_threshold":0.15,"dry_multiplier":0.8,"dry_base":1.75,)"
      R"("dry_allowed_length":3,"dry_penalty_last_n":-1,"dry_sequence_breakers":["\n",":"],)"
      R"("stop":["\n","x"],"logit_bias":{"7":-100}})";
  std::vector<std::string> unknown;
  const auto options = options_of(text, &unknown);
  ASSERT_TRUE(options) << options.error().message();
  EXPECT_THAT(unknown, IsEmpty());
  EXPECT_EQ(to_string(to_json(*options)), text);
  EXPECT_EQ(json_of(text).as_object().size(), option_names().size())
      << "an option is missing from this test";
}

TEST(Options, WrongTypesAreNamedAsOllamaNamesThem) {
  for (const auto& [text, message] : std::initializer_list<std::pair<const char*, const char*>>{
           {R"({"temperature":"hot"})", R"(option "temperature" must be of type float32)"},
           {R"({"num_ctx":"big"})", R"(option "num_ctx" must be of type integer)"},
           {R"({"num_ctx":true})", R"(option "num_ctx" must be of type integer)"},
           {R"({"use_mmap":1})", R"(option "use_mmap" must be of type boolean)"},
           {R"({"stop":"x"})", R"(option "stop" must be of type array)"},
           {R"({"stop":[1]})", R"(option "stop" must be of an array of strings)"},
           {R"({"num_ctx":99999999999})", R"(option "num_ctx" is out of range)"},
           {R"({"temperature":1e300})", R"(option "temperature" is out of range)"},
           {R"({"logit_bias":{"a":1}})", R"(option "logit_bias" must map token ids to numbers)"},
           {R"({"logit_bias":{"-1":1}})", R"(option "logit_bias" must map token ids to numbers)"},
           {R"({"logit_bias":{"1":"x"}})", R"(option "logit_bias" must map token ids to numbers)"},
           {R"({"logit_bias":{"400":1,"0400":1}})",
            R"(option "logit_bias" must name token 400 as "400")"},
           {R"({"logit_bias":{"-0":1}})", R"(option "logit_bias" must name token 0 as "0")"},
           {R"({"logit_bias":{"1":101}})",
            R"(option "logit_bias" must hold numbers of -100 to 100)"},
           {R"({"mirostat":"on"})", R"(option "mirostat" must be of type integer)"},
           {R"({"dry_sequence_breakers":":"})",
            R"(option "dry_sequence_breakers" must be of type array)"},
       }) {
    EXPECT_EQ(message_of(options_of(text)), message);
  }
}

TEST(Options, NullsAreSkippedAndUnknownOnesNamed) {
  std::vector<std::string> unknown;
  const auto options = options_of(R"({"top_k":null,"tfs_z":1,"num_ctx":3.7})", &unknown);
  ASSERT_TRUE(options);
  EXPECT_EQ(options->top_k, std::nullopt);
  EXPECT_EQ(options->num_ctx, 3);
  EXPECT_THAT(unknown, ElementsAre("tfs_z"));
}

TEST(Options, RequestsOverrideModels) {
  Options model;
  model.temperature = 0.0F;
  model.top_k = 10;
  Options request;
  request.top_k = 5;
  const Options merged = merge(model, request);
  EXPECT_EQ(merged.temperature, 0.0F);
  EXPECT_EQ(merged.top_k, 5);
}

TEST(Options, ParametersFromText) {
  EXPECT_EQ(to_string(*parse_parameter("temperature", {"0.7"})), "0.7");
  EXPECT_EQ(to_string(*parse_parameter("num_ctx", {"4096"})), "4096");
  EXPECT_EQ(to_string(*parse_parameter("use_mmap", {"True"})), "true");
  EXPECT_EQ(to_string(*parse_parameter("stop", {"a", "b"})), R"(["a","b"])");
  EXPECT_EQ(message_of(parse_parameter("nonsense", {"1"})), "unknown parameter 'nonsense'");
  EXPECT_EQ(message_of(parse_parameter("temperature", {"hot"})), "invalid float value [hot]");
  EXPECT_EQ(message_of(parse_parameter("temperature", {"nan"})), "invalid float value [nan]");
  EXPECT_EQ(message_of(parse_parameter("num_ctx", {"1.5"})), "invalid int value [1.5]");
  EXPECT_EQ(message_of(parse_parameter("use_mmap", {"maybe"})), "invalid bool value [maybe]");
}

// ---- requests ----------------------------------------------------------------------------------

TEST(Requests, GenerateWithEveryField) {
  const auto request = parse_generate_request(json_of(
      R"({"model":"m","prompt":"p","suffix":"s","system":"y","template":"t","context":[1,2],)"
      R"("stream":false,"raw":true,"format":{"type":"object"},"keep_alive":"10m","images":["Zm9v"],)"
      R"("options":{"temperature":0},"think":"high","truncate":false,"shift":false,"logprobs":true,)"
      R"("top_logprobs":3,"_debug_render_only":true,"unknown":1})"));
  ASSERT_TRUE(request) << request.error().message();
  EXPECT_EQ(request->model, "m");
  EXPECT_EQ(request->template_text, "t");
  EXPECT_THAT(request->context, ElementsAre(1, 2));
  EXPECT_FALSE(request->streaming());
  EXPECT_TRUE(request->raw);
  EXPECT_EQ(to_string(request->format), R"({"type":"object"})");
  EXPECT_EQ(request->keep_alive, 10min);
  EXPECT_THAT(request->images, ElementsAre("foo"));
  EXPECT_EQ(request->parsed_options.temperature, 0.0F);
  EXPECT_EQ(request->think, (Think{true, "high"}));
  EXPECT_EQ(request->truncate, false);
  EXPECT_EQ(request->shift, false);
  EXPECT_TRUE(request->logprobs);
  EXPECT_EQ(request->top_logprobs, 3);
  EXPECT_TRUE(request->debug_render_only);
  // The client sends it as the server reads it.
  const auto again = parse_generate_request(to_json(*request));
  ASSERT_TRUE(again) << again.error().message();
  EXPECT_EQ(to_string(to_json(*again)), to_string(to_json(*request)));
}

TEST(Requests, NullsCountAsMissing) {
  const auto request = parse_generate_request(json_of(
      R"({"model":"m","prompt":null,"stream":null,"format":null,"options":null,"think":null,)"
      R"("images":null,"keep_alive":null,"context":null})"));
  ASSERT_TRUE(request) << request.error().message();
  EXPECT_TRUE(request->streaming());
  EXPECT_EQ(request->keep_alive, std::nullopt);
}

TEST(Requests, WrongTypesNameTheField) {
  for (const auto& [text, message] : std::initializer_list<std::pair<const char*, const char*>>{
           {"[]", "the body must be a JSON object, not an array"},
           {R"({"model":3})", R"("model" must be a string, not a number)"},
           {R"({"stream":"yes"})", R"("stream" must be a boolean, not a string)"},
           {R"({"context":["a"]})", R"("context" must hold integers)"},
           {R"({"context":[1e12]})", R"("context" must hold integers)"},
           {R"({"images":[1]})", R"("images" must hold base64 strings, not a number)"},
           {R"({"images":["?"]})", "illegal base64 data at input byte 0"},
           {R"({"options":[]})", R"("options" must be an object, not an array)"},
           {R"({"options":{"seed":"x"}})", R"(option "seed" must be of type integer)"},
           {R"({"think":"deeply"})", R"(invalid think value: "deeply")"},
           {R"({"think":1})", "think must be a boolean or string"},
           {R"({"keep_alive":"soon"})", R"(invalid duration "soon")"},
           {R"({"keep_alive":true})", R"("keep_alive" must be a duration)"},
           {R"({"top_logprobs":1e10})", R"("top_logprobs" is out of range)"},
           {R"({"top_logprobs":2.5})", R"("top_logprobs" must be an integer, not a number)"},
           {R"({"context":[1.5]})", R"("context" must hold integers)"},
       }) {
    const auto request = parse_generate_request(json_of(text));
    ASSERT_FALSE(request) << text;
    EXPECT_EQ(request.error().code(), ErrorCode::kInvalidArgument) << text;
    EXPECT_THAT(message_of(request), HasSubstr(message)) << text;
  }
}

TEST(Requests, KeepAliveForms) {
  const auto keep_alive = [](std::string_view value) {
    return parse_generate_request(json_of(std::format("{{\"keep_alive\":{}}}", value)))
        .value()
        .keep_alive;
  };
  EXPECT_EQ(keep_alive("300"), 300s);
  EXPECT_EQ(keep_alive("1.5"), 1500ms);
  EXPECT_EQ(keep_alive("0"), 0s);
  EXPECT_EQ(keep_alive("-1"), envconfig::kForever);
  EXPECT_EQ(keep_alive("1e18"), envconfig::kForever);
  EXPECT_EQ(keep_alive("\"-1m\""), envconfig::kForever);
  EXPECT_EQ(keep_alive("\"24h\""), 24h);
}

TEST(Requests, ChatWithTools) {
  const char* text =
      R"({"model":"m","messages":[{"role":"USER","content":"hi","images":["Zm9v"]},)"
      R"({"role":"assistant","content":"","thinking":"hm","tool_calls":[{"id":"c1","function":)"
      R"({"index":1,"name":"f","arguments":{"b":1,"a":[2]}}}]},)"
      R"({"role":"tool","content":"3","tool_name":"f","tool_call_id":"c1"}],)"
      R"("tools":[{"type":"function"}]})";
  const auto request = parse_chat_request(json_of(text));
  ASSERT_TRUE(request) << request.error().message();
  ASSERT_EQ(request->messages.size(), 3U);
  EXPECT_EQ(request->messages[0].role, "user");
  EXPECT_THAT(request->messages[0].images, ElementsAre("foo"));
  ASSERT_EQ(request->messages[1].tool_calls.size(), 1U);
  EXPECT_EQ(request->messages[1].tool_calls[0].name, "f");
  EXPECT_EQ(to_string(request->messages[1].tool_calls[0].arguments), R"({"b":1,"a":[2]})");
  EXPECT_EQ(request->messages[2].tool_name, "f");
  std::string expected(text);
  expected.replace(expected.find("USER"), 4, "user");
  EXPECT_EQ(to_string(to_json(*request)), expected);
}

// Some clients send the id alone, and templates show the name.
TEST(Requests, ChatNamesTheToolThatAnswers) {
  const auto request = parse_chat_request(json_of(
      R"({"model":"m","messages":[)"
      R"({"role":"tool","content":"0","tool_call_id":"c1"},)"
      R"({"role":"assistant","tool_calls":[{"id":"c1","function":{"name":"f"}},{"function":{"name":"g"}}]},)"
      R"({"role":"tool","content":"1","tool_call_id":"c1"},{"role":"tool","content":"2"},)"
      R"({"role":"tool","content":"3","tool_call_id":"c1","tool_name":"own"}]})"));
  ASSERT_TRUE(request) << request.error().message();
  std::vector<std::string> names;
  for (const Message& message : request->messages) names.push_back(message.tool_name);
  EXPECT_THAT(names, ElementsAre("", "", "f", "", "own")) << "calls come before their answers";
}

TEST(Requests, ChatRefusesWrongShapes) {
  for (const char* text :
       {R"({"messages":{}})", R"({"messages":["hi"]})", R"({"messages":[{"content":[]}]})",
        R"({"tools":{}})", R"({"tools":[5]})", R"({"tools":[{"function":"f"}]})",
        R"({"messages":[{"tool_calls":[{"function":{"arguments":"{}"}}]}]})",
        R"({"messages":[{"tool_calls":[3]}]})"}) {
    EXPECT_FALSE(parse_chat_request(json_of(text))) << text;
  }
}

TEST(Requests, EmbedInput) {
  EXPECT_THAT(parse_embed_request(json_of(R"({"input":"a"})"))->input, ElementsAre("a"));
  EXPECT_THAT(parse_embed_request(json_of(R"({"input":["a","b"]})"))->input, ElementsAre("a", "b"));
  EXPECT_THAT(parse_embed_request(json_of(R"({"input":""})"))->input, IsEmpty());
  EXPECT_THAT(parse_embed_request(json_of(R"({})"))->input, IsEmpty());
  EXPECT_EQ(message_of(parse_embed_request(json_of(R"({"input":[1]})"))), "invalid input type");
  EXPECT_EQ(message_of(parse_embed_request(json_of(R"({"input":{}})"))), "invalid input type");
  EXPECT_TRUE(parse_embed_request(json_of(R"({"input":"a","dimensions":0})")));
  EXPECT_EQ(message_of(parse_embed_request(json_of(R"({"input":"a","dimensions":-1})"))),
            "\"dimensions\" must be 1 or more, or 0 for all, not -1");
}

// Fails when a client of an old Ollama gets a model without what its Modelfile says.
TEST(Requests, CreateRefusesWhatItWouldHaveToIgnore) {
  for (const char* old : {R"({"model":"a","from":"b","modelfile":"FROM b\nSYSTEM x"})",
                          R"({"model":"a","path":"/tmp/Modelfile"})"}) {
    EXPECT_THAT(message_of(parse_create_request(json_of(old))), HasSubstr("no longer accepted"));
  }
  EXPECT_TRUE(
      parse_create_request(json_of(R"({"model":"a","from":"b","modelfile":"","path":null})")));
}

TEST(Requests, CreateAndTheOlderNames) {
  const auto request = parse_create_request(json_of(
      R"({"name":"n","from":"f","files":{"m.gguf":"sha256:00"},"license":"MIT",)"
      R"("parameters":{"top_k":1},"messages":[{"role":"user","content":"x"}],"requires":"0.1"})"));
  ASSERT_TRUE(request) << request.error().message();
  EXPECT_EQ(request->model, "n");
  EXPECT_THAT(request->files, ElementsAre(File{"m.gguf", "sha256:00"}));
  EXPECT_THAT(request->license, ElementsAre("MIT"));
  EXPECT_EQ(request->requires_version, "0.1");
  EXPECT_EQ(parse_show_request(json_of(R"({"name":"n"})"))->model, "n");
  EXPECT_EQ(parse_delete_request(json_of(R"({"model":"m","name":"n"})"))->model, "m");
  EXPECT_FALSE(parse_create_request(json_of(R"({"files":{"a":1}})")));
  EXPECT_FALSE(parse_create_request(json_of(R"({"license":[1]})")));
}

// ---- responses ---------------------------------------------------------------------------------

TEST(Responses, GenerateLeavesOutWhatOllamaLeavesOut) {
  GenerateResponse response;
  response.model = "m";
  response.created_at = Time(1'700'000'000s);
  response.response = "Hi";
  EXPECT_EQ(to_string(to_json(response)),
            R"({"model":"m","created_at":"2023-11-14T22:13:20Z","response":"Hi","done":false})");
  response.done = true;
  response.done_reason = "stop";
  response.context = {1, 2};
  response.metrics = {10ns, 1ns, 5, 0, 2ns, 7, 3ns};
  const std::string text = to_string(to_json(response));
  EXPECT_EQ(
      text,
      R"({"model":"m","created_at":"2023-11-14T22:13:20Z","response":"Hi","done":true,)"
      R"("done_reason":"stop","context":[1,2],"total_duration":10,"load_duration":1,)"
      R"("prompt_eval_count":5,"prompt_eval_cached_count":0,"prompt_eval_duration":2,"eval_count":7,"eval_duration":3})");
  EXPECT_EQ(to_string(to_json(*parse_generate_response(json_of(text)))), text);
}

TEST(Responses, Chat) {
  const char* text =
      R"({"model":"m","created_at":"2023-11-14T22:13:20Z","message":{"role":"assistant",)"
      R"("content":"Hi"},"done":true,"done_reason":"stop","logprobs":[{"token":"Hi",)"
      R"("logprob":-0.5,"bytes":[72,105],"top_logprobs":[{"token":"Ho","logprob":-1.5}]}],)"
      R"("total_duration":10,"eval_count":1})";
  const auto response = parse_chat_response(json_of(text));
  ASSERT_TRUE(response) << response.error().message();
  EXPECT_EQ(to_string(to_json(*response)), text);
}

TEST(Responses, ListsShowAndProgressRoundTrip) {
  const char* details =
      R"({"parent_model":"","format":"gguf","family":"llama","families":["llama"],)"
      R"("parameter_size":"260.03K","quantization_level":"F16"})";
  const std::string list =
      R"({"models":[{"name":"a:latest","model":"a:latest","modified_at":"2023-11-14T22:13:20Z",)"
      R"("size":7,"digest":"00","details":)" +
      std::string(details) + "}]}";
  EXPECT_EQ(to_string(to_json(*parse_list_response(json_of(list)))), list);
  const std::string processes =
      R"({"models":[{"name":"a","model":"a","size":7,"digest":"00","details":)" +
      std::string(details) +
      R"(,"expires_at":"2023-11-14T22:13:20Z","size_vram":3,"context_length":512}]})";
  EXPECT_EQ(to_string(to_json(*parse_process_response(json_of(processes)))), processes);
  const std::string show =
      R"({"license":"MIT","modelfile":"FROM a","parameters":"top_k 1","template":"t","system":"s",)"
      R"("details":)" +
      std::string(details) +
      R"(,"messages":[{"role":"user","content":"x"}],"model_info":{"general.architecture":"llama"},)"
      R"("tensors":[{"name":"w","type":"F16","shape":[4,2]}],"capabilities":["completion"],)"
      R"("modified_at":"2023-11-14T22:13:20Z"})";
  EXPECT_EQ(to_string(to_json(*parse_show_response(json_of(show)))), show);
  const char* progress = R"({"status":"pulling","digest":"sha256:1","total":5,"completed":2})";
  EXPECT_EQ(to_string(to_json(*parse_progress_response(json_of(progress)))), progress);
  EXPECT_EQ(to_string(to_json(ListResponse{})), R"({"models":[]})");
}

// The digits of a float, not of the double that it is widened to.
TEST(Responses, EmbeddingsAreShort) {
  EmbedResponse response;
  response.model = "m";
  response.embeddings = {{0.1F, -3e-5F}};
  EXPECT_EQ(to_string(to_json(response)), R"({"model":"m","embeddings":[[0.1,-0.00003]]})");
}

TEST(Errors, StatusAndBody) {
  const StatusError error = status_error(Error(ErrorCode::kNotFound, "model 'x' not found"));
  EXPECT_EQ(error.status, 404);
  EXPECT_EQ(to_string(to_json(error)), R"({"error":"model 'x' not found"})");
  EXPECT_EQ(status_of(ErrorCode::kInvalidArgument), 400);
  EXPECT_EQ(status_of(ErrorCode::kUnavailable), 503);
  EXPECT_EQ(status_of(ErrorCode::kInternal), 500);
}

// Any document is either understood or refused; none may crash a parser.
TEST(Requests, ArbitraryShapes) {
  const auto value = rc::gen::element<std::string>("null", "true", "1", "-1", "1e300", "\"x\"",
                                                   "[]", "{}", "[1]", "[\"a\"]", "[{}]",
                                                   "{\"function\":{}}", "{\"a\":\"b\"}", "[[1.5]]");
  const auto key = rc::gen::element<std::string>(
      "model", "messages", "options", "images", "tools", "input", "files", "context", "think",
      "keep_alive", "models", "details", "embeddings", "logprobs", "message", "tensors");
  ASSERT_TRUE(rc::check([&] {
    const auto fields = *rc::gen::container<std::vector<std::pair<std::string, std::string>>>(
        rc::gen::pair(key, value));
    std::string text;
    for (const auto& [name, content] : fields) {
      text += std::format("{}\"{}\":{}", text.empty() ? "" : ",", name, content);
    }
    const Json json = json_of("{" + text + "}");
    (void)parse_generate_request(json);
    (void)parse_chat_request(json);
    (void)parse_embed_request(json);
    (void)parse_create_request(json);
    (void)parse_list_response(json);
    (void)parse_show_response(json);
    (void)parse_embed_response(json);
    const auto chat = parse_chat_response(json);
    if (chat) RC_ASSERT(parse_json(to_string(to_json(*chat))).has_value());
  }));
}

}  // namespace
}  // namespace ollama::api
