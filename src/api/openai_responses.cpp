// POST /v1/responses: items in, items out, and a stream that tells how each of them grows.
#include <algorithm>
#include <array>
#include <boost/json/array.hpp>
#include <unordered_map>

#include "api/foreign.h"
#include "api/openai.h"

namespace ollama::api::openai {
namespace {

using boost::json::array;

constexpr std::string_view kCustomInput = "input";  // the one argument of a tool that takes a text

// ---- Requests

// What a function's name stands for in the client's tools, where it is not a function's.
struct ToolOrigin {
  std::string name;
  std::string name_space;  // that it stands in, or empty
  bool custom = false;     // takes a text instead of arguments
};
using ToolOrigins = std::unordered_map<std::string, ToolOrigin>;

// Names in different namespaces may be the same.
std::string full_name(std::string_view name_space, std::string_view name) {
  if (name_space.empty()) return std::string(name);
  return std::format("{}{}{}", name_space, name_space.ends_with("__") ? "" : "__", name);
}

Result<> read_item_part(const Json& json, Message& message) {
  Fields fields(json, "a part of content");
  std::string type;
  std::string text;
  std::string image;
  fields.read("type", type);
  fields.read("text", text);
  if (type == "refusal") fields.read("refusal", text);
  fields.read("image_url", image);
  OLLAMA_TRY(std::move(fields).finish(true));
  if (type == "input_text" || type == "output_text" || type == "summary_text" ||
      type == "reasoning_text" || type == "refusal") {
    foreign::append_text(message.content, text);
    return {};
  }
  if (type == "input_image") {
    OLLAMA_ASSIGN(std::string bytes, foreign::image_of(image));
    message.images.push_back(std::move(bytes));
    return {};
  }
  return fail(ErrorCode::kInvalidArgument, "invalid content type \"{}\"", type);
}

Result<> read_content(Fields& fields, std::string_view name, Message& message) {
  const Json* content = fields.find(name);
  if (content == nullptr) return {};
  if (const auto* text = content->if_string()) {
    message.content = *text;
    return {};
  }
  const auto* parts = content->if_array();
  if (parts == nullptr) {
    return fail(ErrorCode::kInvalidArgument, "\"{}\" must be a string or an array, not {}", name,
                kind_text(*content));
  }
  for (const Json& part : *parts) OLLAMA_TRY(read_item_part(part, message));
  return {};
}

// What a model said in one go, reasoning and calls and text, is one message to its template.
Message& assistant_of(std::vector<Message>& messages) {
  if (messages.empty() || messages.back().role != "assistant") {
    messages.emplace_back().role = "assistant";
  }
  return messages.back();
}

// Of tools that run at OpenAI's, or that only OpenAI's models know: none is offered here, and what
// came of them tells other models nothing.
bool is_foreign_item(std::string_view type) {
  static constexpr std::array<std::string_view, 6> kOthers{
      "compaction", "compaction_trigger", "tool_search_output",
      "program",    "program_output",     "additional_tools"};
  return type.ends_with("_call") || type.ends_with("_call_output") || type.starts_with("mcp_") ||
         std::ranges::contains(kOthers, type);
}

// The `index`th of the request's.
Result<> read_item(const Json& json, std::size_t index, std::vector<Message>& messages) {
  Fields fields(json, "an item of input");
  std::string type = "message";
  std::string role;
  std::string name;
  std::string arguments;
  std::string call_id;
  std::string name_space;
  std::string text;
  fields.read("type", type);
  fields.read_role(role);
  fields.read("name", name);
  fields.read("call_id", call_id);
  if (type == "function_call") fields.read("arguments", arguments);
  if (type == "custom_tool_call") fields.read("input", text);
  if (type == "function_call" || type == "custom_tool_call") fields.read("namespace", name_space);
  Message read;
  if (type == "message") {
    OLLAMA_TRY(fields.check());
    OLLAMA_ASSIGN(read.role, foreign::openai_role(role, std::format("input[{}].role", index)));
    OLLAMA_TRY(read_content(fields, "content", read));
  } else if (type == "function_call" || type == "custom_tool_call") {
    OLLAMA_TRY(fields.check());
    if (name.empty()) return fail(ErrorCode::kInvalidArgument, "a {} has no name", type);
    ToolCall call{.id = call_id, .index = 0, .name = full_name(name_space, name), .arguments = {}};
    if (type == "custom_tool_call") {
      call.arguments[kCustomInput] = text;
    } else {
      OLLAMA_ASSIGN(call.arguments, foreign::arguments_of(arguments));
    }
    assistant_of(messages).tool_calls.push_back(std::move(call));
  } else if (type == "function_call_output" || type == "custom_tool_call_output") {
    read.role = "tool";
    read.tool_call_id = call_id;
    OLLAMA_TRY(read_content(fields, "output", read));
  } else if (type == "reasoning") {
    Message thought;
    OLLAMA_TRY(read_content(fields, "summary", thought));
    if (thought.content.empty()) OLLAMA_TRY(read_content(fields, "content", thought));
    foreign::append_text(assistant_of(messages).thinking, thought.content);
  } else if (type == "item_reference") {
    return fail(ErrorCode::kInvalidArgument,
                "nothing is stored here: send input items themselves instead of references to "
                "them, as clients do with \"store\": false");
  } else if (is_foreign_item(type)) {
    return fields.check();
  } else {
    return fail(ErrorCode::kInvalidArgument, "input items of type \"{}\" are not supported", type);
  }
  OLLAMA_TRY(std::move(fields).finish(true));
  if (read.role.empty()) return {};
  const bool answers = read.role == "assistant" && !messages.empty() &&
                       messages.back().role == "assistant" && messages.back().content.empty();
  if (answers) {
    messages.back().content = std::move(read.content);
  } else {
    messages.push_back(std::move(read));
  }
  return {};
}

Result<> read_input(const Json& input, std::vector<Message>& messages) {
  if (const auto* text = input.if_string()) {
    messages.emplace_back().role = "user";
    messages.back().content = *text;
    return {};
  }
  const auto* items = input.if_array();
  if (items == nullptr) {
    return fail(ErrorCode::kInvalidArgument, "\"input\" must be a string or an array, not {}",
                kind_text(input));
  }
  for (std::size_t i = 0; i < items->size(); ++i) OLLAMA_TRY(read_item((*items)[i], i, messages));
  name_answers(messages);
  return {};
}

// Tools that run at OpenAI's, or that only OpenAI's models know by their type.
bool is_foreign_tool(std::string_view type) {
  static constexpr std::array<std::string_view, 6> kTypes{
      "mcp", "code_interpreter", "image_generation", "local_shell", "shell", "apply_patch"};
  static constexpr std::array<std::string_view, 5> kBeginnings{
      "web_search", "file_search", "computer", "tool_search", "programmatic_"};
  return std::ranges::contains(kTypes, type) ||
         std::ranges::any_of(kBeginnings,
                             [&](std::string_view start) { return type.starts_with(start); });
}

// As functions: those of a namespace under longer names, and a tool that takes a text with that as
// its argument. What runs elsewhere the model is not told of.
class ToolReader {
 public:
  Result<> read(const Json& item) {
    Fields fields(item, "a tool");
    std::string type;
    fields.read("type", type);
    OLLAMA_TRY(fields.check());
    if (type != "namespace") return read_one(item, type, {});
    std::string name;
    fields.read("name", name);
    OLLAMA_TRY(fields.check());
    if (name.empty()) return fail(ErrorCode::kInvalidArgument, "a namespace of tools has no name");
    fields.each("tools", [&](const Json& inner) -> Result<> {
      Fields one(inner, "a tool");
      std::string inner_type;
      one.read("type", inner_type);
      OLLAMA_TRY(one.check());
      return read_one(inner, inner_type, name);
    });
    return fields.check();
  }
  // Each once.
  Json take_tools() { return std::move(tools_); }
  ToolOrigins take_origins() { return std::move(origins_); }

 private:
  Result<> read_one(const Json& item, std::string_view type, const std::string& name_space) {
    if (is_foreign_tool(type)) return {};
    if (type != "function" && type != "custom") {
      return fail(ErrorCode::kInvalidArgument, "tools of type \"{}\" are not supported", type);
    }
    const bool custom = type == "custom";
    OLLAMA_ASSIGN(JsonObject tool, foreign::tool_of(item, custom ? "" : "parameters"));
    JsonObject& function = tool["function"].as_object();
    const std::string name(function["name"].as_string());
    if (custom) make_custom(item, function);
    if (custom || !name_space.empty()) {
      const std::string full = full_name(name_space, name);
      function["name"] = full;
      origins_[full] = {.name = name, .name_space = name_space, .custom = custom};
    }
    tools_.emplace_back(std::move(tool));
    return {};
  }
  static void make_custom(const Json& item, JsonObject& function) {
    function["parameters"] = {
        {"type", "object"},
        {"properties", JsonObject{{kCustomInput, JsonObject{{"type", "string"}}}}},
        {"required", array{kCustomInput}}};
    const auto grammar = item.try_at_pointer("/format/definition");
    if (!grammar || !grammar->is_string()) return;
    // The text cannot be held to it, but the model may be told.
    const Json* told = function.if_contains("description");
    function["description"] = std::format(
        "{}{}{} has to meet this grammar:\n{}",
        told == nullptr ? std::string_view() : std::string_view(told->get_string()),
        told == nullptr ? "" : "\n", kCustomInput, std::string_view(grammar->get_string()));
  }

  array tools_;
  ToolOrigins origins_;
};

// {"type": "function", "name": "x"} as chat completions have it.
Result<Json> tool_choice_of(const Json& value) {
  const auto* object = value.if_object();
  const Json* name = object == nullptr ? nullptr : object->if_contains("name");
  if (name == nullptr || !name->is_string()) return foreign::checked_choice(value);
  Fields fields(*object);
  std::string name_space;
  fields.read("namespace", name_space);
  OLLAMA_TRY(fields.check());
  return JsonObject{{"type", "function"},
                    {"function", JsonObject{{"name", full_name(name_space, name->get_string())}}}};
}

Result<Json> parse_text_format(const Json& text) {
  const auto* object = text.if_object();
  if (object == nullptr) {
    return fail(ErrorCode::kInvalidArgument, "\"text\" must be a JSON object, not {}",
                kind_text(text));
  }
  const Json* format = object->if_contains("format");
  if (format == nullptr || format->is_null()) return Json();
  Fields fields(*format, "text.format");
  std::string type;
  Json schema;
  fields.read("type", type);
  fields.read_any("schema", schema);
  OLLAMA_TRY(std::move(fields).finish(true));
  if (type == "json_object") return Json("json");
  if (type == "text" || type.empty()) return Json();
  if (type != "json_schema") {
    return fail(ErrorCode::kInvalidArgument, "invalid text.format type \"{}\"", type);
  }
  if (schema.is_null()) return fail(ErrorCode::kInvalidArgument, "text.format has no schema");
  return schema;
}

// ---- Answers

// What a response repeats of its request, as it was sent; else OpenAI's defaults.
JsonObject repeated_of(const JsonObject& request) {
  JsonObject result{{"instructions", nullptr},
                    {"max_output_tokens", nullptr},
                    {"max_tool_calls", nullptr},
                    {"metadata", JsonObject()},
                    {"parallel_tool_calls", true},
                    {"prompt_cache_key", nullptr},
                    {"reasoning", JsonObject{{"effort", nullptr}, {"summary", nullptr}}},
                    {"safety_identifier", nullptr},
                    {"temperature", 1},
                    {"text", JsonObject{{"format", JsonObject{{"type", "text"}}}}},
                    {"tool_choice", "auto"},
                    {"tools", array()},
                    {"top_p", 1},
                    {"truncation", "auto"}};
  for (auto& [name, value] : result) {
    const Json* sent = request.if_contains(name);
    if (sent == nullptr || sent->is_null()) continue;
    const bool partial = sent->is_object() && value.is_object();
    if (!partial) {
      value = *sent;
      continue;
    }
    for (const auto& [key, inner] : sent->get_object()) value.get_object()[key] = inner;
  }
  // Clients expect of a function what it may have been sent without.
  if (auto* tools = result["tools"].if_array()) {
    for (Json& tool : *tools) {
      auto* object = tool.if_object();
      if (object == nullptr || (*object)["type"] != Json("function")) continue;
      for (const char* field : {"description", "parameters", "strict"})
        object->emplace(field, nullptr);
    }
  }
  return result;
}

class ResponsesFormat final : public ChatFormat {
 public:
  ResponsesFormat(std::string model, JsonObject repeated, ToolOrigins origins, bool encrypted)
      : id_(foreign::new_id("resp_")),
        model_(std::move(model)),
        created_(foreign::seconds_now()),
        repeated_(std::move(repeated)),
        origins_(std::move(origins)),
        encrypted_(encrypted) {}

  std::string_view stream_type() const override { return kEventStream; }

  std::string begin(const Metrics& /*prompt*/) override {
    if (std::exchange(begun_, true)) return {};
    const std::string text =
        event("response.created", {{"response", body("in_progress", nullptr)}});
    return text + event("response.in_progress", {{"response", body("in_progress", nullptr)}});
  }
  std::string piece(const ChatResponse& response, std::size_t /*choice*/) override {
    std::string text = begin(Metrics());
    cut_ = response.done && response.done_reason == "length";
    if (!response.message.thinking.empty()) text += reasoning(response.message.thinking);
    if (!response.message.content.empty()) text += content(response.message.content);
    for (const ToolCall& call : response.message.tool_calls) text += called(call);
    if (response.done) {
      text += close();
      text += event(cut_ ? "response.incomplete" : "response.completed",
                    {{"response", body(cut_ ? "incomplete" : "completed", &response.metrics)}});
    }
    return text;
  }
  std::string end() override { return {}; }
  std::string broken(const StatusError& error) override {
    cut_ = true;
    const std::string text = close();  // first: it counts events, and what was said stays
    JsonObject failed = body("failed", nullptr);
    failed["error"] = {{"code", "server_error"}, {"message", error.message}};
    return text + event("response.failed", {{"response", std::move(failed)}});
  }

  JsonObject whole(const std::vector<ChatResponse>& responses) override {
    const ChatResponse& response = responses.front();
    const Message& message = response.message;
    cut_ = response.done_reason == "length";
    if (!message.thinking.empty()) {
      open_ = Open::kReasoning;
      item_ = foreign::new_id("rs_");
      text_ = message.thinking;
      close();
    }
    if (!message.content.empty() || (message.thinking.empty() && message.tool_calls.empty())) {
      open_ = Open::kMessage;
      item_ = foreign::new_id("msg_");
      text_ = message.content;
      close();
    }
    for (const ToolCall& call : message.tool_calls) called(call);
    return body(cut_ ? "incomplete" : "completed", &response.metrics);
  }

 private:
  enum class Open : std::uint8_t { kNothing, kReasoning, kMessage };

  std::string event(std::string_view type, JsonObject fields) {
    JsonObject data{{"type", type}, {"sequence_number", sequence_++}};
    for (auto& [name, value] : fields) data[name] = std::move(value);
    return foreign::event(data, type);
  }

  JsonObject body(std::string_view status, const Metrics* metrics) const {
    JsonObject response{{"id", id_},
                        {"object", "response"},
                        {"created_at", created_},
                        {"completed_at", nullptr},
                        {"status", status},
                        {"background", false},
                        {"error", nullptr},
                        {"incomplete_details", nullptr},
                        {"model", model_},
                        {"output", output_},
                        {"previous_response_id", nullptr},
                        {"service_tier", "default"},
                        {"store", false},
                        {"top_logprobs", 0},
                        {"frequency_penalty", 0},
                        {"presence_penalty", 0},
                        {"usage", nullptr}};
    if (status == "completed") response["completed_at"] = foreign::seconds_now();
    for (const auto& [name, value] : repeated_) response[name] = value;
    if (status == "incomplete") {
      response["incomplete_details"] = JsonObject{{"reason", "max_output_tokens"}};
    }
    if (metrics != nullptr) {
      response["usage"] = {
          {"input_tokens", metrics->prompt_eval_count},
          {"input_tokens_details", JsonObject{{"cached_tokens", metrics->prompt_eval_cached_count},
                                              {"cache_write_tokens", 0}}},
          {"output_tokens", metrics->eval_count},
          {"output_tokens_details", JsonObject{{"reasoning_tokens", metrics->thinking_eval_count}}},
          {"total_tokens", metrics->prompt_eval_count + metrics->eval_count}};
    }
    return response;
  }

  // The item that is open, as it is now.
  JsonObject item(std::string_view status) const {
    if (open_ == Open::kReasoning) {
      array summary;
      if (!text_.empty()) summary.emplace_back(part());
      JsonObject thought{{"id", item_}, {"type", "reasoning"}, {"summary", std::move(summary)}};
      // Clients send back only reasoning that has it. There is no secret: it is the text.
      if (encrypted_) thought["encrypted_content"] = text_;
      return thought;
    }
    array content;
    if (status != "in_progress") content.emplace_back(part());
    return {{"id", item_},
            {"type", "message"},
            {"status", status},
            {"role", "assistant"},
            {"content", std::move(content)}};
  }
  JsonObject part() const {
    if (open_ == Open::kReasoning) return {{"type", "summary_text"}, {"text", text_}};
    return {
        {"type", "output_text"}, {"text", text_}, {"annotations", array()}, {"logprobs", array()}};
  }
  JsonObject place(std::string_view index_name) const {
    return {{"item_id", item_}, {"output_index", output_.size()}, {index_name, 0}};
  }
  JsonObject at(std::string_view index_name, std::string_view name, Json value) const {
    JsonObject fields = place(index_name);
    fields[name] = std::move(value);
    return fields;
  }

  std::string open(Open what) {
    if (open_ == what) return {};
    std::string text = close();
    open_ = what;
    item_ = foreign::new_id(what == Open::kReasoning ? "rs_" : "msg_");
    text += event("response.output_item.added",
                  {{"output_index", output_.size()}, {"item", item("in_progress")}});
    const bool reasoning = what == Open::kReasoning;
    return text + event(reasoning ? "response.reasoning_summary_part.added"
                                  : "response.content_part.added",
                        at(reasoning ? "summary_index" : "content_index", "part", part()));
  }
  std::string reasoning(std::string_view delta) {
    std::string text = open(Open::kReasoning);
    text_ += delta;
    return text + event("response.reasoning_summary_text.delta",
                        at("summary_index", "delta", Json(delta)));
  }
  std::string content(std::string_view delta) {
    std::string text = open(Open::kMessage);
    text_ += delta;
    JsonObject fields = at("content_index", "delta", Json(delta));
    fields["logprobs"] = array();
    return text + event("response.output_text.delta", std::move(fields));
  }
  // Ends the item that is open.
  std::string close() {
    if (open_ == Open::kNothing) return {};
    const bool reasoning = open_ == Open::kReasoning;
    const std::string_view index = reasoning ? "summary_index" : "content_index";
    JsonObject said = at(index, "text", Json(text_));
    if (!reasoning) said["logprobs"] = array();
    std::string text =
        event(reasoning ? "response.reasoning_summary_text.done" : "response.output_text.done",
              std::move(said));
    text += event(reasoning ? "response.reasoning_summary_part.done" : "response.content_part.done",
                  at(index, "part", part()));
    return text + finish(item(cut_ ? "incomplete" : "completed"));
  }
  std::string finish(JsonObject item) {
    std::string text =
        event("response.output_item.done", {{"output_index", output_.size()}, {"item", item}});
    output_.emplace_back(std::move(item));
    open_ = Open::kNothing;
    text_.clear();
    return text;
  }
  // A call is known whole: what it passes on is one piece.
  std::string called(const ToolCall& call) {
    std::string text = close();
    const auto found = origins_.find(call.name);
    const ToolOrigin origin = found == origins_.end()
                                  ? ToolOrigin{.name = call.name, .name_space = {}, .custom = false}
                                  : found->second;
    item_ = foreign::new_id(origin.custom ? "ctc_" : "fc_");
    const std::string_view passed = origin.custom ? "input" : "arguments";
    const std::string what = origin.custom ? custom_input(call) : to_string(call.arguments);
    JsonObject item{{"id", item_},
                    {"type", origin.custom ? "custom_tool_call" : "function_call"},
                    {"status", "in_progress"},
                    {passed, ""},
                    {"call_id", call.id.empty() ? foreign::new_id("call_") : call.id},
                    {"name", origin.name}};
    if (!origin.name_space.empty()) item["namespace"] = origin.name_space;
    text += event("response.output_item.added", {{"output_index", output_.size()}, {"item", item}});
    const JsonObject where{{"item_id", item_}, {"output_index", output_.size()}};
    const std::string_view kind =
        origin.custom ? "response.custom_tool_call_input" : "response.function_call_arguments";
    JsonObject delta = where;
    delta["delta"] = what;
    text += event(std::format("{}.delta", kind), std::move(delta));
    JsonObject done = where;
    if (!origin.custom) done["name"] = origin.name;
    done[passed] = what;
    text += event(std::format("{}.done", kind), std::move(done));
    item["status"] = "completed";
    item[passed] = what;
    return text + finish(std::move(item));
  }
  static std::string custom_input(const ToolCall& call) {
    const Json* input = call.arguments.if_contains(kCustomInput);
    const bool text = input != nullptr && input->is_string();
    return text ? std::string(input->get_string()) : to_string(call.arguments);
  }

  std::string id_;
  std::string model_;
  std::int64_t created_;
  JsonObject repeated_;
  ToolOrigins origins_;
  bool encrypted_;  // "reasoning.encrypted_content" is asked for
  std::int64_t sequence_ = 0;
  bool begun_ = false;
  bool cut_ = false;  // the answer ended at its limit
  Open open_ = Open::kNothing;
  std::string item_;  // id of the item that is open
  std::string text_;  // its text so far
  array output_;      // items that are complete
};

}  // namespace

Result<ForeignChat> parse_responses(const Json& json) {
  Fields fields(json);
  ForeignChat chat;
  ChatRequest& request = chat.request;
  std::string instructions;
  std::string previous;
  bool background = false;
  fields.read("model", request.model);
  fields.read("instructions", instructions);
  fields.read("previous_response_id", previous);
  fields.read("background", background);
  std::vector<std::string> include;
  fields.read("include", include);
  std::string truncation = "auto";
  fields.read("truncation", truncation);
  std::int32_t top_logprobs = 0;
  fields.read("top_logprobs", top_logprobs);
  const bool stored = fields.find("conversation") != nullptr || fields.find("prompt") != nullptr;
  request.stream = false;
  fields.read("stream", request.stream);
  fields.read("parallel_tool_calls", chat.parallel_tools);
  ToolReader tools;
  fields.each("tools", [&](const Json& item) { return tools.read(item); });
  fields.read_with("tool_choice", request.tool_choice, tool_choice_of);
  fields.read_with("text", request.format, parse_text_format);
  std::string effort;
  fields.read_with("reasoning", effort, [](const Json& value) {
    Fields inner(value, "reasoning");
    std::string told;
    inner.read("effort", told);
    return std::move(inner).finish(std::move(told));
  });
  Options& options = request.parsed_options;
  double temperature = 1;
  double top_p = 1;
  fields.read("temperature", temperature);
  fields.read("top_p", top_p);
  options.temperature = static_cast<float>(temperature);
  options.top_p = static_cast<float>(top_p);
  OLLAMA_TRY(foreign::read_limit(fields, "max_output_tokens", options));
  if (!instructions.empty()) {
    request.messages.emplace_back().role = "system";
    request.messages.back().content = instructions;
  }
  if (const Json* input = fields.find("input")) OLLAMA_TRY(read_input(*input, request.messages));
  OLLAMA_ASSIGN(chat, std::move(fields).finish(std::move(chat)));
  chat.request.tools = tools.take_tools();
  OLLAMA_TRY(foreign::apply_allowed_tools(chat.request));
  if (!previous.empty() || background || stored) {
    return fail(ErrorCode::kInvalidArgument,
                "nothing is stored here: send the whole conversation as input, without "
                "previous_response_id, conversation, prompt and background");
  }
  if (truncation != "auto" && truncation != "disabled") {
    return fail(ErrorCode::kInvalidArgument, "truncation must be \"auto\" or \"disabled\"");
  }
  chat.request.truncate = truncation == "auto";
  if (top_logprobs != 0 || std::ranges::contains(include, "message.output_text.logprobs")) {
    return fail(ErrorCode::kInvalidArgument,
                "responses tell no logprobs here: ask /v1/chat/completions for them");
  }
  if (!effort.empty()) {
    OLLAMA_ASSIGN(chat.request.think, foreign::effort_of(effort));
  }
  if (chat.request.messages.empty()) {
    return fail(ErrorCode::kInvalidArgument, "input is required");
  }
  chat.format = std::make_unique<ResponsesFormat>(
      chat.request.model, repeated_of(json.as_object()), tools.take_origins(),
      std::ranges::contains(include, std::string_view("reasoning.encrypted_content")));
  return chat;
}

}  // namespace ollama::api::openai
