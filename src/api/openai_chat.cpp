#include <boost/json/array.hpp>

#include "api/foreign.h"
#include "api/openai.h"

namespace ollama::api::openai {
namespace {

using boost::json::array;
using foreign::append_text;

constexpr std::size_t kMostChoices = 128;
constexpr std::int32_t kMostLogprobs = 20;

// ---- Requests

Result<> read_part(const Json& json, Message& message) {
  Fields fields(json, "a part of content");
  std::string type;
  std::string text;
  fields.read("type", type);
  fields.read("text", text);
  if (type == "refusal") fields.read("refusal", text);
  const Json* image = fields.find("image_url");
  OLLAMA_TRY(fields.check());
  if (type == "text" || type == "refusal") {
    append_text(message.content, text);
    return {};
  }
  if (type == "image_url") {
    const auto* object = image == nullptr ? nullptr : image->if_object();
    const Json* url = object == nullptr ? image : object->if_contains("url");
    if (url == nullptr || !url->is_string()) {
      return fail(ErrorCode::kInvalidArgument, "invalid message format: image_url has no url");
    }
    OLLAMA_ASSIGN(std::string bytes, foreign::image_of(url->get_string()));
    message.images.push_back(std::move(bytes));
    return {};
  }
  return fail(ErrorCode::kInvalidArgument, "invalid message format: parts of type \"{}\"", type);
}

Result<> read_content(const Json& json, Message& message) {
  if (const auto* text = json.if_string()) {
    message.content = *text;
    return {};
  }
  const auto* parts = json.if_array();
  if (parts == nullptr) {
    return fail(ErrorCode::kInvalidArgument, "invalid message content type: {}", kind_text(json));
  }
  for (const Json& part : *parts) OLLAMA_TRY(read_part(part, message));
  return {};
}

Result<ToolCall> parse_call(const Json& json) {
  Fields fields(json, "a tool call");
  ToolCall call;
  JsonObject function;
  fields.read("id", call.id);
  fields.read("index", call.index);
  fields.read("function", function);
  OLLAMA_ASSIGN(call, std::move(fields).finish(std::move(call)));
  Fields inner(function);
  std::string arguments;
  inner.read("name", call.name);
  inner.read("arguments", arguments);
  OLLAMA_ASSIGN(call, std::move(inner).finish(std::move(call)));
  if (call.name.empty()) return fail(ErrorCode::kInvalidArgument, "a tool call has no name");
  OLLAMA_ASSIGN(call.arguments, foreign::arguments_of(arguments));
  return call;
}

// The `index`th of the request's.
Result<Message> parse_message(const Json& json, std::size_t index) {
  Fields fields(json, "a message");
  Message message;
  fields.read_role(message.role);
  fields.read("reasoning", message.thinking);
  if (message.thinking.empty()) fields.read("reasoning_content", message.thinking);
  fields.read("name", message.tool_name);
  fields.read("tool_call_id", message.tool_call_id);
  fields.each("tool_calls", [&](const Json& item) -> Result<> {
    OLLAMA_ASSIGN(ToolCall call, parse_call(item));
    message.tool_calls.push_back(std::move(call));
    return {};
  });
  const Json* content = fields.find("content");
  if (content != nullptr) OLLAMA_TRY(read_content(*content, message));
  OLLAMA_ASSIGN(message, std::move(fields).finish(std::move(message)));
  OLLAMA_ASSIGN(message.role,
                foreign::openai_role(message.role, std::format("messages[{}].role", index)));
  // An assistant may have said nothing, and a tool too.
  if (content == nullptr && (message.role == "user" || message.role == "system")) {
    return fail(ErrorCode::kInvalidArgument, "messages[{}].content is required", index);
  }
  if (message.role != "tool") message.tool_name.clear();  // a speaker's name, which none is told
  return message;
}

// OpenAI's defaults hold, not the model's.
Result<> read_sampling(Fields& fields, Options& options) {
  double temperature = 1;
  double top_p = 1;
  double frequency = 0;
  double presence = 0;
  fields.read("temperature", temperature);
  fields.read("top_p", top_p);
  fields.read("frequency_penalty", frequency);
  fields.read("presence_penalty", presence);
  options.temperature = static_cast<float>(temperature);
  options.top_p = static_cast<float>(top_p);
  if (fields.find("frequency_penalty")) options.frequency_penalty = static_cast<float>(frequency);
  if (fields.find("presence_penalty")) options.presence_penalty = static_cast<float>(presence);
  if (fields.find("seed")) {
    options.seed.emplace();
    fields.read("seed", *options.seed);
  }
  if (fields.find("logit_bias")) {
    options.logit_bias.emplace();
    fields.read("logit_bias", *options.logit_bias);
    OLLAMA_TRY(parse_logit_bias(*options.logit_bias));
  }
  return {};
}

void read_stop(Fields& fields, Options& options) {
  fields.read_with("stop", options.stop,
                   [](const Json& value) -> Result<std::optional<std::vector<std::string>>> {
                     OLLAMA_ASSIGN(auto texts, foreign::texts_of(value, "stop"));
                     return texts;
                   });
}

Result<Json> parse_format(const Json& json) {
  Fields fields(json, "response_format");
  std::string type;
  Json described;
  fields.read("type", type);
  fields.read_any("json_schema", described);
  OLLAMA_TRY(std::move(fields).finish(true));
  if (type == "text" || type.empty()) return Json();
  if (type == "json_object") return Json("json");
  if (type != "json_schema") {
    return fail(ErrorCode::kInvalidArgument, "invalid response_format type \"{}\"", type);
  }
  const auto* object = described.if_object();
  const Json* schema = object == nullptr ? nullptr : object->if_contains("schema");
  if (schema == nullptr) {
    return fail(ErrorCode::kInvalidArgument, "response_format has no json_schema.schema");
  }
  return *schema;
}

// They stay as they are; what is no function with a name cannot be called.
Result<Json> checked_tools(const Json& value) {
  const auto* tools = value.if_array();
  if (tools == nullptr) {
    return fail(ErrorCode::kInvalidArgument, "\"tools\" must be an array, not {}",
                kind_text(value));
  }
  for (const Json& tool : *tools) {
    const auto name = tool.try_at_pointer("/function/name");
    if (!name || !(*name).is_string()) {
      return fail(ErrorCode::kInvalidArgument, "\"tools\" must hold functions with a name");
    }
    const auto parameters = tool.try_at_pointer("/function/parameters");
    if (parameters && !(*parameters).is_null() && !(*parameters).is_object()) {
      return fail(ErrorCode::kInvalidArgument,
                  "tool \"{}\": \"parameters\" must be a JSON object, not {}",
                  std::string_view((*name).get_string()), kind_text(*parameters));
    }
  }
  return value;
}

Result<bool> parse_stream_options(const Json& value) {
  Fields fields(value, "stream_options");
  bool include_usage = false;
  fields.read("include_usage", include_usage);
  return std::move(fields).finish(include_usage);
}

Result<std::optional<Think>> parse_effort(const Json& value) {
  const auto* text = value.if_string();
  if (text == nullptr) {
    return fail(ErrorCode::kInvalidArgument, "reasoning effort must be a string, not {}",
                kind_text(value));
  }
  OLLAMA_ASSIGN(Think think, foreign::effort_of(*text));
  return think;
}

Result<std::size_t> choices_of(Fields& fields, std::string_view name) {
  std::int64_t choices = 1;
  fields.read(name, choices);
  if (choices < 1 || choices > static_cast<std::int64_t>(kMostChoices)) {
    return fail(ErrorCode::kInvalidArgument, "\"{}\" must be 1 to {}", name, kMostChoices);
  }
  return static_cast<std::size_t>(choices);
}

// ---- Answers

std::string_view finish_reason(const ChatResponse& response, bool called) {
  if (response.done_reason == "length") return "length";
  return called ? "tool_calls" : "stop";
}

JsonObject usage_json(const Metrics& metrics) {
  return {{"prompt_tokens", metrics.prompt_eval_count},
          {"completion_tokens", metrics.eval_count},
          {"total_tokens", metrics.prompt_eval_count + metrics.eval_count},
          {"prompt_tokens_details", {{"cached_tokens", metrics.prompt_eval_cached_count}}},
          {"completion_tokens_details", {{"reasoning_tokens", metrics.thinking_eval_count}}}};
}

array calls_json(const std::vector<ToolCall>& calls, std::size_t first, bool numbered) {
  array result;
  for (const ToolCall& call : calls) {
    JsonObject object;
    if (numbered) object["index"] = first + result.size();
    object["id"] = call.id.empty() ? foreign::new_id("call_") : call.id;
    object["type"] = "function";
    object["function"] = {{"name", call.name}, {"arguments", to_string(call.arguments)}};
    result.emplace_back(std::move(object));
  }
  return result;
}

JsonObject logprob_json(const TokenLogprob& token) {
  array bytes;
  for (const std::int32_t byte : token.bytes) bytes.emplace_back(byte);
  return {{"token", token.token}, {"logprob", token.logprob}, {"bytes", std::move(bytes)}};
}

Json logprobs_json(const std::vector<Logprob>& logprobs) {
  if (logprobs.empty()) return nullptr;
  array content;
  for (const Logprob& logprob : logprobs) {
    JsonObject token = logprob_json(logprob);
    array top;
    for (const TokenLogprob& other : logprob.top) top.emplace_back(logprob_json(other));
    token["top_logprobs"] = std::move(top);
    content.emplace_back(std::move(token));
  }
  return JsonObject{{"content", std::move(content)}, {"refusal", nullptr}};
}

class OpenAiFormat final : public ChatFormat {
 public:
  OpenAiFormat(std::string model, bool include_usage)
      : id_(foreign::new_id("chatcmpl-")),
        model_(std::move(model)),
        include_usage_(include_usage),
        created_(foreign::seconds_now()) {}

  std::string_view stream_type() const override { return kEventStream; }

  std::string piece(const ChatResponse& response, std::size_t choice) override {
    std::string text;
    // Clients put a message together from the differences: what a chunk repeats, they have twice.
    // And they take a choice's first chunk for its beginning, not for a part of it.
    if (calls_.size() <= choice) {
      calls_.resize(choice + 1);
      text = chunk(choice, {{"role", "assistant"}, {"content", ""}, {"refusal", nullptr}});
    }
    const Message& message = response.message;
    JsonObject delta;
    if (!message.content.empty()) delta["content"] = message.content;
    if (!message.thinking.empty()) delta["reasoning"] = message.thinking;
    if (!message.tool_calls.empty()) {
      delta["tool_calls"] = calls_json(message.tool_calls, calls_[choice], true);
      calls_[choice] += message.tool_calls.size();
    }
    Json reason;
    if (response.done) {
      reason = finish_reason(response, calls_[choice] > 0);
      add_usage(response.metrics);
    }
    return text + chunk(choice, std::move(delta), logprobs_json(response.logprobs), reason);
  }

  std::string end() override {
    std::string text;
    if (include_usage_) {
      JsonObject data = frame("chat.completion.chunk");
      data["choices"] = array();
      data["usage"] = usage_json(usage_);
      text = foreign::event(data);
    }
    return text + "data: [DONE]\n\n";
  }

  std::string broken(const StatusError& error) override {
    return foreign::event(error_json(error));
  }

  JsonObject whole(const std::vector<ChatResponse>& responses) override {
    array choices;
    for (const ChatResponse& response : responses) {
      const Message& message = response.message;
      JsonObject object{{"role", "assistant"}, {"content", message.content}};
      if (!message.thinking.empty()) object["reasoning"] = message.thinking;
      if (!message.tool_calls.empty()) {
        object["tool_calls"] = calls_json(message.tool_calls, 0, false);
      }
      object["refusal"] = nullptr;
      choices.emplace_back(
          JsonObject{{"index", choices.size()},
                     {"message", std::move(object)},
                     {"logprobs", logprobs_json(response.logprobs)},
                     {"finish_reason", finish_reason(response, !message.tool_calls.empty())}});
      add_usage(response.metrics);
    }
    JsonObject data = frame("chat.completion");
    data["choices"] = std::move(choices);
    data["usage"] = usage_json(usage_);
    return data;
  }

 private:
  JsonObject frame(std::string_view object) const {
    return {{"id", id_},
            {"object", object},
            {"created", created_},
            {"model", model_},
            {"system_fingerprint", "fp_ollama"}};
  }
  std::string chunk(std::size_t choice, JsonObject delta, Json logprobs = nullptr,
                    Json finish_reason = nullptr) const {
    JsonObject data = frame("chat.completion.chunk");
    data["choices"] = array{JsonObject{{"index", choice},
                                       {"delta", std::move(delta)},
                                       {"logprobs", std::move(logprobs)},
                                       {"finish_reason", std::move(finish_reason)}}};
    if (include_usage_) data["usage"] = nullptr;
    return foreign::event(data);
  }
  // All choices have one prompt.
  void add_usage(const Metrics& metrics) {
    usage_.prompt_eval_count = metrics.prompt_eval_count;
    usage_.prompt_eval_cached_count = metrics.prompt_eval_cached_count;
    usage_.eval_count += metrics.eval_count;
    usage_.thinking_eval_count += metrics.thinking_eval_count;
  }

  std::string id_;
  std::string model_;
  bool include_usage_;
  std::int64_t created_;
  std::vector<std::size_t> calls_;  // of each choice, so far
  Metrics usage_;
};

}  // namespace

JsonObject error_json(const StatusError& error) {
  const std::string_view type = error.status == 404   ? "not_found_error"
                                : error.status == 401 ? "authentication_error"
                                : error.status >= 400 && error.status < 500
                                    ? "invalid_request_error"
                                    : "api_error";
  // What programs decide by.
  const Json code = error.status == 404   ? Json("model_not_found")
                    : error.status == 401 ? Json("invalid_api_key")
                                          : Json();
  return {
      {"error", {{"message", error.message}, {"type", type}, {"param", nullptr}, {"code", code}}}};
}

Result<ForeignChat> parse_chat(const Json& json) {
  Fields fields(json);
  ForeignChat chat;
  ChatRequest& request = chat.request;
  bool include_usage = false;
  fields.read("model", request.model);
  fields.each("messages", [&](const Json& item) -> Result<> {
    OLLAMA_ASSIGN(Message message, parse_message(item, request.messages.size()));
    request.messages.push_back(std::move(message));
    return {};
  });
  name_answers(request.messages);
  request.stream = false;
  fields.read("stream", request.stream);
  fields.read_with("stream_options", include_usage, parse_stream_options);
  OLLAMA_TRY(read_sampling(fields, request.parsed_options));
  OLLAMA_TRY(foreign::read_limit(fields, "max_tokens", request.parsed_options));
  OLLAMA_TRY(foreign::read_limit(fields, "max_completion_tokens", request.parsed_options));
  read_stop(fields, request.parsed_options);
  fields.read_with("response_format", request.format, parse_format);
  fields.read_with("tools", request.tools, checked_tools);
  fields.read_with("tool_choice", request.tool_choice, foreign::checked_choice);
  fields.read("parallel_tool_calls", chat.parallel_tools);
  fields.read_with("reasoning_effort", request.think, parse_effort);
  fields.read_with("reasoning", request.think, [&](const Json& value) {
    Fields inner(value, "reasoning");
    std::optional<Think> think = request.think;
    inner.read_with("effort", think, parse_effort);
    return std::move(inner).finish(std::move(think));
  });
  fields.read("logprobs", request.logprobs);
  fields.read("top_logprobs", request.top_logprobs);
  request.text_logprobs = true;
  OLLAMA_ASSIGN(chat.choices, choices_of(fields, "n"));
  OLLAMA_ASSIGN(chat, std::move(fields).finish(std::move(chat)));
  OLLAMA_TRY(foreign::apply_allowed_tools(chat.request));
  if (chat.request.messages.empty()) {
    return fail(ErrorCode::kInvalidArgument, "[] is too short - 'messages'");
  }
  chat.format = std::make_unique<OpenAiFormat>(chat.request.model, include_usage);
  return chat;
}

// ---- Completions

namespace {

Result<> read_prompts(const Json& value, std::string_view name, Completion& completion) {
  if (value.is_string()) {
    completion.prompts.emplace_back(value.get_string());
    return {};
  }
  const auto* list = value.if_array();
  if (list != nullptr && !list->empty() && list->front().is_number()) {
    const JsonObject holder{{name, value}};
    Fields fields(holder);
    fields.read(name, completion.token_prompts.emplace_back());
    OLLAMA_TRY(std::move(fields).finish(true));
    return {};
  }
  if (list != nullptr && !list->empty() && list->front().is_array()) {
    for (const Json& one : *list) {
      const auto* tokens = one.if_array();
      if (tokens == nullptr || tokens->empty() || !tokens->front().is_number()) {
        return fail(ErrorCode::kInvalidArgument, "\"{}\" must hold either texts or lists of tokens",
                    name);
      }
      OLLAMA_TRY(read_prompts(one, name, completion));
    }
    return {};
  }
  OLLAMA_ASSIGN(completion.prompts, foreign::texts_of(value, name));
  return {};
}

Result<> check_choices(const Completion& completion) {
  if (completion.request.top_logprobs < 0 || completion.request.top_logprobs > kMostLogprobs) {
    return fail(ErrorCode::kInvalidArgument, "\"logprobs\" must be 0 to {}", kMostLogprobs);
  }
  if (completion.best_of < completion.choices) {
    return fail(ErrorCode::kInvalidArgument, "\"best_of\" must be at least \"n\"");
  }
  if (completion.best_of > completion.choices && completion.request.streaming()) {
    return fail(ErrorCode::kInvalidArgument, "\"best_of\" above \"n\" cannot be streamed");
  }
  return {};
}

// In characters, also of tokens that are a part of one: the one that begins it counts.
std::int64_t characters(const std::vector<std::int32_t>& bytes) {
  return std::ranges::count_if(bytes, [](std::int32_t byte) { return (byte & 0xC0) != 0x80; });
}

}  // namespace

Result<Completion> parse_completion(const Json& json) {
  Fields fields(json);
  Completion completion;
  GenerateRequest& request = completion.request;
  fields.read("model", request.model);
  if (const Json* prompt = fields.find("prompt"))
    OLLAMA_TRY(read_prompts(*prompt, "prompt", completion));
  request.stream = false;
  fields.read("stream", request.stream);
  fields.read_with("stream_options", completion.include_usage, parse_stream_options);
  fields.read("suffix", request.suffix);
  fields.read("echo", completion.echo);
  OLLAMA_TRY(read_sampling(fields, request.parsed_options));
  OLLAMA_TRY(foreign::read_limit(fields, "max_tokens", request.parsed_options));
  read_stop(fields, request.parsed_options);
  fields.read("logprobs", request.top_logprobs);
  request.logprobs = fields.find("logprobs") != nullptr;
  OLLAMA_ASSIGN(completion.choices, choices_of(fields, "n"));
  completion.best_of = completion.choices;
  if (fields.find("best_of") != nullptr) {
    OLLAMA_ASSIGN(completion.best_of, choices_of(fields, "best_of"));
  }
  OLLAMA_ASSIGN(completion, std::move(fields).finish(std::move(completion)));
  OLLAMA_TRY(check_choices(completion));
  if (completion.prompts.empty() && completion.token_prompts.empty()) {
    completion.prompts.emplace_back();
  }
  return completion;
}

CompletionFormat::CompletionFormat(std::string model, bool include_usage, std::size_t choices)
    : id_(foreign::new_id("cmpl-")),
      model_(std::move(model)),
      include_usage_(include_usage),
      choices_(choices),
      created_(foreign::seconds_now()) {}

JsonObject CompletionFormat::frame() const {
  return {{"id", id_},
          {"object", "text_completion"},
          {"created", created_},
          {"model", model_},
          {"system_fingerprint", "fp_ollama"}};
}

void CompletionFormat::begin(std::size_t index, std::string_view echo) {
  if (offsets_.size() <= index) offsets_.resize(index + 1);
  offsets_[index] =
      std::ranges::count_if(echo, [](char c) { return (static_cast<unsigned>(c) & 0xC0) != 0x80; });
}

// The chosen token is one of its alternatives, be it a likely one or not.
Json CompletionFormat::logprobs(const std::vector<Logprob>& logprobs, std::size_t index) {
  if (logprobs.empty()) return nullptr;
  if (offsets_.size() <= index) offsets_.resize(index + 1);
  array tokens;
  array values;
  array alternatives;
  array offsets;
  bool any = false;
  for (const Logprob& logprob : logprobs) {
    tokens.emplace_back(logprob.token);
    values.emplace_back(logprob.logprob);
    offsets.emplace_back(offsets_[index]);
    offsets_[index] += characters(logprob.bytes);
    JsonObject best;
    for (const TokenLogprob& other : logprob.top) best.emplace(other.token, other.logprob);
    any = any || !best.empty();
    best.emplace(logprob.token, logprob.logprob);
    alternatives.emplace_back(std::move(best));
  }
  return JsonObject{{"tokens", std::move(tokens)},
                    {"token_logprobs", std::move(values)},
                    {"top_logprobs", any ? Json(std::move(alternatives)) : Json()},
                    {"text_offset", std::move(offsets)}};
}

void CompletionFormat::add_usage(const Metrics& metrics, std::size_t index) {
  if (index % choices_ == 0) {
    usage_.prompt_eval_count += metrics.prompt_eval_count;
    usage_.prompt_eval_cached_count += metrics.prompt_eval_cached_count;
  }
  usage_.eval_count += metrics.eval_count;
}

std::string CompletionFormat::piece(const GenerateResponse& response, std::size_t index) {
  JsonObject choice{{"text", response.response},
                    {"index", index},
                    {"logprobs", logprobs(response.logprobs, index)},
                    {"finish_reason", nullptr}};
  if (response.done) {
    choice["finish_reason"] = response.done_reason == "length" ? "length" : "stop";
    add_usage(response.metrics, index);
  }
  JsonObject data = frame();
  data["choices"] = array{std::move(choice)};
  if (include_usage_) data["usage"] = nullptr;
  return foreign::event(data);
}

std::string CompletionFormat::end() {
  std::string text;
  if (include_usage_) {
    JsonObject data = frame();
    data["choices"] = array();
    data["usage"] = usage_json(usage_);
    text = foreign::event(data);
  }
  return text + "data: [DONE]\n\n";
}

JsonObject CompletionFormat::whole(const std::vector<GenerateResponse>& responses) {
  array choices;
  for (const GenerateResponse& response : responses) {
    choices.emplace_back(
        JsonObject{{"text", response.response},
                   {"index", choices.size()},
                   {"logprobs", logprobs(response.logprobs, choices.size())},
                   {"finish_reason", response.done_reason == "length" ? "length" : "stop"}});
    add_usage(response.metrics, choices.size() - 1);
  }
  JsonObject data = frame();
  data["choices"] = std::move(choices);
  data["usage"] = usage_json(usage_);
  return data;
}

// ---- Embeddings and models

Result<Embeddings> parse_embeddings(const Json& json) {
  Fields fields(json);
  Embeddings result;
  Completion input;
  std::string encoding = "float";
  fields.read("model", result.request.model);
  fields.read("dimensions", result.request.dimensions);
  fields.read("encoding_format", encoding);
  if (const Json* value = fields.find("input")) OLLAMA_TRY(read_prompts(*value, "input", input));
  OLLAMA_ASSIGN(result, std::move(fields).finish(std::move(result)));
  OLLAMA_TRY(check_dimensions(result.request.dimensions));
  if (encoding != "float" && encoding != "base64") {
    return fail(ErrorCode::kInvalidArgument, "encoding_format must be \"float\" or \"base64\"");
  }
  result.base64 = encoding == "base64";
  result.request.input = std::move(input.prompts);
  result.tokens = std::move(input.token_prompts);
  if (result.request.input.empty() && result.tokens.empty()) {
    return fail(ErrorCode::kInvalidArgument, "invalid input");
  }
  return result;
}

JsonObject embeddings_json(const EmbedResponse& response, bool base64) {
  array data;
  for (const std::vector<float>& embedding : response.embeddings) {
    Json value;
    if (base64) {
      static_assert(std::endian::native == std::endian::little);
      value = encode_base64(
          {reinterpret_cast<const char*>(embedding.data()), embedding.size() * sizeof(float)});
    } else {
      value = embedding_json(embedding);
    }
    data.emplace_back(JsonObject{
        {"object", "embedding"}, {"embedding", std::move(value)}, {"index", data.size()}});
  }
  return {{"object", "list"},
          {"data", std::move(data)},
          {"model", response.model},
          {"usage",
           {{"prompt_tokens", response.prompt_eval_count},
            {"total_tokens", response.prompt_eval_count}}}};
}

JsonObject model_json(std::string_view name, Time created, std::string_view owner) {
  return {{"id", name},
          {"object", "model"},
          {"created",
           std::chrono::duration_cast<std::chrono::seconds>(created.time_since_epoch()).count()},
          {"owned_by", owner}};
}

JsonObject models_json(const ListResponse& models) {
  array data;
  for (const ListModel& model : models.models) {
    const std::size_t slash = model.name.find('/');
    data.emplace_back(model_json(model.name, model.modified_at,
                                 slash == std::string::npos
                                     ? std::string_view("library")
                                     : std::string_view(model.name).substr(0, slash)));
  }
  return {{"object", "list"}, {"data", std::move(data)}};
}

}  // namespace ollama::api::openai
