#include "api/anthropic.h"

#include <algorithm>
#include <array>
#include <boost/json/array.hpp>

#include "api/foreign.h"

namespace ollama::api::anthropic {
namespace {

using boost::json::array;

constexpr std::string_view kNoThreads =
    "thread: no conversation is kept here, send the whole of it without thread";

// ---- Requests

Result<std::string> image_of(const JsonObject& source) {
  Fields fields(source);
  std::string type;
  std::string data;
  fields.read("type", type);
  fields.read("data", data);
  OLLAMA_TRY(std::move(fields).finish(true));
  if (type != "base64") {
    return fail(ErrorCode::kInvalidArgument,
                "image source type \"{}\": images are sent as base64, this server fetches nothing",
                type);
  }
  return decode_base64(data);
}

// The text of a document that is sent as such.
Result<std::string> document_of(const JsonObject& source) {
  Fields fields(source);
  std::string type;
  std::string text;
  fields.read("type", type);
  if (type == "text") fields.read("data", text);
  OLLAMA_TRY(std::move(fields).finish(true));
  if (type != "text") {
    return fail(ErrorCode::kInvalidArgument,
                "document source type \"{}\": documents are sent as text, no file is read here",
                type);
  }
  return text;
}

// The image or document that a block has.
Result<> read_source(Fields& fields, std::string_view type, Message& message) {
  JsonObject source;
  fields.read("source", source);
  OLLAMA_TRY(fields.check());
  OLLAMA_ASSIGN(std::string shown, type == "image" ? image_of(source) : document_of(source));
  if (type == "image") {
    message.images.push_back(std::move(shown));
  } else {
    foreign::append_text(message.content, shown);
  }
  return {};
}

// A text, or blocks of text, documents and images; others tell a model nothing.
Result<> read_blocks(const Json& value, std::string_view name, Message& message) {
  if (const auto* text = value.if_string()) {
    message.content = *text;
    return {};
  }
  const auto* blocks = value.if_array();
  if (blocks == nullptr) {
    return fail(ErrorCode::kInvalidArgument, "{} must be a string or an array, not {}", name,
                kind_text(value));
  }
  for (const Json& block : *blocks) {
    Fields fields(block, "a content block");
    std::string type;
    std::string text;
    fields.read("type", type);
    fields.read("text", text);
    OLLAMA_TRY(fields.check());
    if (type == "text") foreign::append_text(message.content, text);
    if (type == "image" || type == "document") OLLAMA_TRY(read_source(fields, type, message));
  }
  return {};
}

// Results of tools are messages of their own; the rest of a message's blocks are one.
class MessageReader {
 public:
  explicit MessageReader(std::vector<Message>& messages) : messages_(messages) {}

  Result<> read(const Json& json) {
    const std::size_t index = next_++;
    Fields fields(json, "a message");
    Message message;
    fields.read_role(message.role);
    const Json* content = fields.find("content");
    OLLAMA_ASSIGN(message, std::move(fields).finish(std::move(message)));
    // Not Anthropic's, but what programs send that were written for others.
    if (message.role != "system") {
      static constexpr std::array<std::string_view, 2> kRoles{"user", "assistant"};
      OLLAMA_TRY(
          foreign::check_role(message.role, kRoles, std::format("messages[{}].role", index)));
    }
    if (content == nullptr) {
      return fail(ErrorCode::kInvalidArgument, "messages: content is required");
    }
    if (const auto* text = content->if_string()) {
      message.content = *text;
    } else if (const auto* blocks = content->if_array()) {
      for (const Json& block : *blocks) OLLAMA_TRY(read_block(block, message));
    } else {
      return fail(ErrorCode::kInvalidArgument, "messages: content must be a string or an array");
    }
    const bool empty = message.content.empty() && message.images.empty() &&
                       message.tool_calls.empty() && message.thinking.empty();
    if (!empty || !had_results_) messages_.push_back(std::move(message));
    had_results_ = false;
    return {};
  }

 private:
  Result<> read_block(const Json& json, Message& message) {
    Fields fields(json, "a content block");
    std::string type;
    fields.read("type", type);
    OLLAMA_TRY(fields.check());
    if (type == "text") {
      std::string text;
      fields.read("text", text);
      foreign::append_text(message.content, text);
    } else if (type == "image" || type == "document") {
      OLLAMA_TRY(read_source(fields, type, message));
    } else if (type == "thinking") {
      std::string text;
      fields.read("thinking", text);
      foreign::append_text(message.thinking, text);
    } else if (type == "tool_use") {
      ToolCall& call = message.tool_calls.emplace_back();
      fields.read("id", call.id);
      fields.read("name", call.name);
      fields.read("input", call.arguments);
      OLLAMA_TRY(fields.check());
      if (call.id.empty() || call.name.empty()) {
        return fail(ErrorCode::kInvalidArgument, "messages: a tool_use block needs id and name");
      }
    } else if (type == "tool_result") {
      OLLAMA_TRY(read_result(fields));
    } else if (type != "redacted_thinking") {
      return fail(ErrorCode::kInvalidArgument,
                  "messages: content blocks of type \"{}\" are not supported", type);
    }
    return std::move(fields).finish(true).transform([](bool) {});
  }
  Result<> read_result(Fields& fields) {
    Message result;
    result.role = "tool";
    fields.read("tool_use_id", result.tool_call_id);
    if (const Json* content = fields.find("content")) {
      OLLAMA_TRY(read_blocks(*content, "messages: content of a tool_result block", result));
    }
    messages_.push_back(std::move(result));
    had_results_ = true;
    return {};
  }

  std::vector<Message>& messages_;
  std::size_t next_ = 0;  // of the request's messages
  bool had_results_ = false;
};

Result<JsonObject> parse_tool(const Json& json) {
  Fields fields(json, "a tool");
  std::string type = "custom";
  fields.read("type", type);
  OLLAMA_TRY(fields.check());
  if (type != "custom") {
    return fail(ErrorCode::kInvalidArgument, "tools of type \"{}\" are not supported", type);
  }
  return foreign::tool_of(json, "input_schema");
}

// auto, any, none or a tool, in OpenAI's form.
Result<Json> parse_tool_choice(const Json& json, bool& parallel) {
  Fields fields(json, "tool_choice");
  std::string type;
  std::string name;
  bool alone = false;
  fields.read("type", type);
  fields.read("name", name);
  fields.read("disable_parallel_tool_use", alone);
  OLLAMA_TRY(std::move(fields).finish(true));
  parallel = !alone;
  if (type == "auto" || type == "none") return Json(type);
  if (type == "any") return Json("required");
  if (type != "tool" || name.empty()) {
    return fail(ErrorCode::kInvalidArgument,
                "tool_choice: type must be auto, any, none, or tool with a name");
  }
  return Json(JsonObject{{"type", "function"}, {"function", JsonObject{{"name", name}}}});
}

// How many tokens are thought is up to the model.
Result<std::optional<Think>> parse_thinking(const Json& json) {
  Fields fields(json, "thinking");
  std::string type;
  std::int64_t budget = 0;
  fields.read("type", type);
  fields.read("budget_tokens", budget);
  OLLAMA_TRY(std::move(fields).finish(true));
  if (type != "enabled" && type != "disabled" && type != "adaptive") {
    return fail(ErrorCode::kInvalidArgument,
                "thinking: type must be enabled, disabled or adaptive, not \"{}\"", type);
  }
  if (budget < 0) {
    return fail(ErrorCode::kInvalidArgument, "thinking: budget_tokens must be 0 or more, not {}",
                budget);
  }
  if (type == "adaptive") return std::nullopt;  // the model may think, as it does unasked
  return Think{.enabled = type == "enabled", .level = {}};
}

// A schema that the answer has to meet.
Result<Json> parse_output_format(const Json& json) {
  Fields fields(json, "output_config.format");
  std::string type;
  Json schema;
  fields.read("type", type);
  fields.read_any("schema", schema);
  OLLAMA_TRY(std::move(fields).finish(true));
  if (type != "json_schema" || !schema.is_object()) {
    return fail(ErrorCode::kInvalidArgument,
                "output_config.format: type must be json_schema, with a schema");
  }
  return schema;
}

struct OutputConfig {
  Json schema;
  std::string effort;  // how much thinking an answer is worth
};
Result<OutputConfig> parse_output_config(const Json& json) {
  Fields fields(json, "output_config");
  OutputConfig config;
  fields.read_with("format", config.schema, parse_output_format);
  fields.read("effort", config.effort);
  return std::move(fields).finish(std::move(config));
}

// Where the request does not say more of thinking.
void apply_effort(std::string_view effort, std::optional<Think>& think) {
  if (effort == "xhigh") effort = "high";
  const bool known = effort == "low" || effort == "medium" || effort == "high" || effort == "max";
  if (known) think = Think{.enabled = true, .level = std::string(effort)};
}

void read_sampling(Fields& fields, Options& options) {
  double temperature = 1;
  fields.read("temperature", temperature);
  options.temperature = static_cast<float>(temperature);
  if (fields.find("top_p")) {
    double top_p = 1;
    fields.read("top_p", top_p);
    options.top_p = static_cast<float>(top_p);
  }
  if (fields.find("top_k")) {
    options.top_k.emplace();
    fields.read("top_k", *options.top_k);
  }
  if (fields.find("stop_sequences")) {
    options.stop.emplace();
    fields.read("stop_sequences", *options.stop);
  }
  if (fields.find("max_tokens")) {
    options.num_predict.emplace();
    fields.read("max_tokens", *options.num_predict);
  }
}

// ---- Answers

JsonObject usage_json(const Metrics& metrics) {
  // What is read from a cache does not count among the input's.
  return {{"input_tokens", metrics.prompt_eval_count - metrics.prompt_eval_cached_count},
          {"output_tokens", metrics.eval_count},
          {"cache_creation_input_tokens", 0},
          {"cache_read_input_tokens", metrics.prompt_eval_cached_count},
          {"cache_creation", nullptr},
          {"output_tokens_details", JsonObject{{"thinking_tokens", metrics.thinking_eval_count}}},
          {"server_tool_use", nullptr},
          {"inference_geo", nullptr},
          {"service_tier", "standard"},
          {"speed", nullptr}};
}

class AnthropicFormat final : public ChatFormat {
 public:
  // `stops`: the request's own. Those of the model end its turn.
  AnthropicFormat(std::string model, std::vector<std::string> stops)
      : id_(foreign::new_id("msg_")), model_(std::move(model)), stops_(std::move(stops)) {}

  std::string_view stream_type() const override { return kEventStream; }

  // Clients take the input's tokens from here, and are told that the server is at work.
  std::string begin(const Metrics& prompt) override {
    if (std::exchange(begun_, true)) return {};
    JsonObject message = body(array(), nullptr, nullptr, prompt);
    return event("message_start", {{"message", std::move(message)}}) + event("ping", {});
  }
  std::string piece(const ChatResponse& response, std::size_t /*choice*/) override {
    std::string text = begin(Metrics());
    const Message& message = response.message;
    if (!message.thinking.empty()) {
      text += open(Open::kThinking, {{"type", "thinking"}, {"thinking", ""}, {"signature", ""}});
      text += delta({{"type", "thinking_delta"}, {"thinking", message.thinking}});
    }
    if (!message.content.empty()) {
      text += open(Open::kText, text_json({}));
      text += delta({{"type", "text_delta"}, {"text", message.content}});
    }
    for (const ToolCall& call : message.tool_calls) text += called(call);
    if (response.done) {
      text += close();
      text +=
          event("message_delta", {{"delta", JsonObject{{"stop_reason", stop_reason(response)},
                                                       {"stop_sequence", stop_sequence(response)},
                                                       {"stop_details", nullptr},
                                                       {"container", nullptr}}},
                                  {"usage", usage_json(response.metrics)}});
      text += event("message_stop", {});
    }
    return text;
  }
  std::string end() override { return {}; }
  std::string broken(const StatusError& error) override {
    return foreign::event(error_json(error), "error");
  }

  JsonObject whole(const std::vector<ChatResponse>& responses) override {
    const ChatResponse& response = responses.front();
    const Message& message = response.message;
    array content;
    if (!message.thinking.empty()) {
      content.emplace_back(
          JsonObject{{"type", "thinking"}, {"thinking", message.thinking}, {"signature", ""}});
    }
    if (!message.content.empty() || (content.empty() && message.tool_calls.empty())) {
      content.emplace_back(text_json(message.content));
    }
    for (const ToolCall& call : message.tool_calls) {
      content.emplace_back(call_json(call, call.arguments));
    }
    called_ = !message.tool_calls.empty();
    return body(std::move(content), Json(stop_reason(response)), stop_sequence(response),
                response.metrics);
  }

 private:
  enum class Open : std::uint8_t { kNothing, kThinking, kText };

  static std::string event(std::string_view type, JsonObject fields) {
    JsonObject data{{"type", type}};
    for (auto& [name, value] : fields) data[name] = std::move(value);
    return foreign::event(data, type);
  }
  JsonObject body(array content, Json reason, Json stop_sequence, const Metrics& metrics) const {
    return {{"id", id_},
            {"type", "message"},
            {"role", "assistant"},
            {"model", model_},
            {"content", std::move(content)},
            {"stop_reason", std::move(reason)},
            {"stop_sequence", std::move(stop_sequence)},
            {"stop_details", nullptr},
            {"container", nullptr},
            {"diagnostics", nullptr},
            {"usage", usage_json(metrics)}};
  }
  std::string_view stop_reason(const ChatResponse& response) const {
    if (response.done_reason == "length") return "max_tokens";
    if (called_) return "tool_use";
    return stop_sequence(response).is_null() ? "end_turn" : "stop_sequence";
  }
  Json stop_sequence(const ChatResponse& response) const {
    const std::string& stop = response.stopped_by;
    return !stop.empty() && std::ranges::contains(stops_, stop) ? Json(stop) : Json();
  }
  static JsonObject text_json(std::string_view text) {
    return {{"type", "text"}, {"text", text}, {"citations", nullptr}};
  }
  static JsonObject call_json(const ToolCall& call, JsonObject input) {
    return {{"type", "tool_use"},
            {"id", call.id.empty() ? foreign::new_id("toolu_") : call.id},
            {"name", call.name},
            {"input", std::move(input)},
            {"caller", JsonObject{{"type", "direct"}}}};
  }
  std::string begin_block(JsonObject block) {
    return event("content_block_start", {{"index", index_}, {"content_block", std::move(block)}});
  }
  std::string delta(JsonObject what) {
    return event("content_block_delta", {{"index", index_}, {"delta", std::move(what)}});
  }
  std::string open(Open what, JsonObject block) {
    if (open_ == what) return {};
    std::string text = close();
    open_ = what;
    return text + begin_block(std::move(block));
  }
  std::string close() {
    if (open_ == Open::kNothing) return {};
    std::string text;
    // Clients send thinking back with its signature; there is none to check here.
    if (open_ == Open::kThinking) text = delta({{"type", "signature_delta"}, {"signature", ""}});
    open_ = Open::kNothing;
    return text + event("content_block_stop", {{"index", index_++}});
  }
  std::string called(const ToolCall& call) {
    called_ = true;
    std::string text = close();  // first: it counts blocks
    text += begin_block(call_json(call, {}));
    text += delta({{"type", "input_json_delta"}, {"partial_json", to_string(call.arguments)}});
    return text + event("content_block_stop", {{"index", index_++}});
  }

  std::string id_;
  std::string model_;
  std::vector<std::string> stops_;
  bool begun_ = false;
  bool called_ = false;
  Open open_ = Open::kNothing;
  std::size_t index_ = 0;
};

Result<ForeignChat> parse_common(Fields& fields) {
  const Json* messages = fields.find("messages");
  if (messages == nullptr) {
    return fail(ErrorCode::kInvalidArgument, "messages: Field required");
  }
  if (const auto* list = messages->if_array(); list != nullptr && list->empty()) {
    return fail(ErrorCode::kInvalidArgument, "messages: at least one message is required");
  }
  if (fields.find("thread") != nullptr) {
    return fail(ErrorCode::kInvalidArgument, "{}", kNoThreads);
  }
  ForeignChat chat;
  ChatRequest& request = chat.request;
  fields.read("model", request.model);
  request.stream = false;
  fields.read("stream", request.stream);
  if (const Json* system = fields.find("system")) {
    Message message;
    message.role = "system";
    OLLAMA_TRY(read_blocks(*system, "system", message));
    if (!message.content.empty()) request.messages.push_back(std::move(message));
  }
  MessageReader reader(request.messages);
  fields.each("messages", [&](const Json& item) { return reader.read(item); });
  name_answers(request.messages);
  array tools;
  fields.each("tools", [&](const Json& item) -> Result<> {
    OLLAMA_ASSIGN(JsonObject tool, parse_tool(item));
    tools.emplace_back(std::move(tool));
    return {};
  });
  request.tools = std::move(tools);
  fields.read_with("tool_choice", request.tool_choice, [&](const Json& value) {
    return parse_tool_choice(value, chat.parallel_tools);
  });
  fields.read_with("thinking", request.think, parse_thinking);
  request.may_not_think = true;
  OutputConfig output;
  fields.read_with("output_config", output, parse_output_config);
  request.format = std::move(output.schema);
  if (!request.think) apply_effort(output.effort, request.think);
  // Programs that do not ask for thoughts take the first block for the text.
  if (!request.think && fields.find("thinking") == nullptr) request.think = Think{};
  fields.read_with("output_format", request.format, parse_output_format);  // its older place
  read_sampling(fields, request.parsed_options);
  return chat;
}

}  // namespace

JsonObject error_json(const StatusError& error, std::string_view request_id) {
  const std::string_view type = [&]() -> std::string_view {
    switch (error.status) {
      case 400:
      case 501:
        return "invalid_request_error";
      case 401:
        return "authentication_error";
      case 403:
        return "permission_error";
      case 404:
        return "not_found_error";
      case 413:
        return "request_too_large";
      case 429:
        return "rate_limit_error";
      case 503:
        return "overloaded_error";
      default:
        return "api_error";
    }
  }();
  JsonObject body{{"type", type}, {"message", error.message}};
  if (error.message == kNoThreads) {
    // What makes Anthropic's client go on with whole conversations.
    body["details"] = JsonObject{{"error_code", "thread_unsupported_request"}};
  }
  return {{"type", "error"},
          {"error", std::move(body)},
          {"request_id", request_id.empty() ? Json() : Json(request_id)}};
}

Result<ForeignChat> parse_messages(const Json& json) {
  Fields fields(json);
  OLLAMA_ASSIGN(ForeignChat chat, parse_common(fields));
  OLLAMA_ASSIGN(chat, std::move(fields).finish(std::move(chat)));
  if (chat.request.parsed_options.num_predict.value_or(0) <= 0) {
    return fail(ErrorCode::kInvalidArgument, "max_tokens is required and must be positive");
  }
  chat.format = std::make_unique<AnthropicFormat>(
      chat.request.model, chat.request.parsed_options.stop.value_or(std::vector<std::string>()));
  return chat;
}

Result<ChatRequest> parse_count_tokens(const Json& json) {
  Fields fields(json);
  OLLAMA_ASSIGN(ForeignChat chat, parse_common(fields));
  OLLAMA_ASSIGN(chat, std::move(fields).finish(std::move(chat)));
  return std::move(chat.request);
}

JsonObject model_json(std::string_view name, Time created) {
  return {{"type", "model"},
          {"id", name},
          {"display_name", name},
          {"created_at", format_time(created)},
          {"max_input_tokens", nullptr},
          {"max_tokens", nullptr},
          {"capabilities", nullptr},
          {"lifecycle", "active"},
          {"line", nullptr},
          {"deprecated_at", nullptr},
          {"retires_at", nullptr}};
}

JsonObject models_json(const ListResponse& models) {
  array data;
  for (const ListModel& model : models.models) {
    data.emplace_back(model_json(model.name, model.modified_at));
  }
  const auto end_id = [&](const std::vector<ListModel>& list, std::size_t at) {
    return list.empty() ? Json() : Json(list[at].name);
  };
  return {{"data", std::move(data)},
          {"has_more", false},
          {"first_id", end_id(models.models, 0)},
          {"last_id", end_id(models.models, models.models.size() - 1)}};
}

}  // namespace ollama::api::anthropic
