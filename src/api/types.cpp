#include "api/types.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <format>
#include <unordered_map>

#include "api/fields.h"
#include "base/units.h"
#include "envconfig/duration.h"

namespace ollama::api {
namespace {

using boost::json::array;

// ---- reading
// -------------------------------------------------------------------------------------

Result<Duration> parse_keep_alive(const Json& value) {
  if (const auto number = number_of(value)) {
    constexpr double kMostSeconds = 9'223'372'036.0;
    if (*number < 0 || *number >= kMostSeconds) return envconfig::kForever;
    return Duration(static_cast<std::int64_t>(*number * 1e9));
  }
  if (const auto* text = value.if_string()) {
    return envconfig::parse_keep_alive(std::string_view(*text));
  }
  return fail(ErrorCode::kInvalidArgument, "\"keep_alive\" must be a duration or seconds, not {}",
              kind_text(value));
}

Result<Think> parse_think(const Json& value) {
  if (const auto* flag = value.if_bool()) return Think{*flag, {}};
  if (const auto* text = value.if_string()) {
    const std::string_view level(*text);
    for (const std::string_view known : {"low", "medium", "high", "max"}) {
      if (level == known) return Think{true, std::string(level)};
    }
    return fail(ErrorCode::kInvalidArgument,
                "invalid think value: \"{}\" (must be \"high\", \"medium\", \"low\", \"max\", "
                "true, or false)",
                level);
  }
  return fail(ErrorCode::kInvalidArgument,
              "think must be a boolean or string (\"high\", \"medium\", \"low\", \"max\", true, "
              "or false)");
}

template <typename T>
Result<std::optional<T>> some(Result<T> result) {
  if (!result) return fail(std::move(result));
  return std::optional<T>(std::move(*result));
}

void read_keep_alive(Fields& fields, std::optional<Duration>& out) {
  fields.read_with("keep_alive", out,
                   [](const Json& value) { return some(parse_keep_alive(value)); });
}

void read_options(Fields& fields, JsonObject& raw, Options& parsed) {
  fields.read("options", raw);
  fields.read_with("options", parsed, parse_options_value);
}

void read_images(Fields& fields, std::vector<std::string>& out) {
  fields.each("images", [&](const Json& item) -> Result<> {
    const auto* text = item.if_string();
    if (text == nullptr) {
      return fail(ErrorCode::kInvalidArgument, "\"images\" must hold base64 strings, not {}",
                  kind_text(item));
    }
    OLLAMA_ASSIGN(std::string bytes, decode_base64(*text));
    out.push_back(std::move(bytes));
    return {};
  });
}

void read_tool_calls(Fields& fields, std::vector<ToolCall>& out) {
  fields.each("tool_calls", [&](const Json& item) -> Result<> {
    OLLAMA_ASSIGN(ToolCall call, parse_tool_call(item));
    out.push_back(std::move(call));
    return {};
  });
}

void read_messages(Fields& fields, std::vector<Message>& out) {
  fields.each("messages", [&](const Json& item) -> Result<> {
    OLLAMA_ASSIGN(Message message, parse_message(item));
    out.push_back(std::move(message));
    return {};
  });
}

void read_inference(Fields& fields, InferenceRequest& request) {
  fields.read("model", request.model);
  fields.read("template", request.template_text);
  fields.read("stream", request.stream);
  fields.read_any("format", request.format);
  read_keep_alive(fields, request.keep_alive);
  read_options(fields, request.options, request.parsed_options);
  fields.read_with("think", request.think,
                   [](const Json& value) { return some(parse_think(value)); });
  fields.read("truncate", request.truncate);
  fields.read("shift", request.shift);
  fields.read("logprobs", request.logprobs);
  fields.read("top_logprobs", request.top_logprobs);
  fields.read("_debug_render_only", request.debug_render_only);
}

// "model", or the "name" that older clients send.
void read_model(Fields& fields, std::string& out) {
  fields.read("model", out);
  if (out.empty()) fields.read("name", out);
}

void read_files(Fields& fields, std::string_view name, std::vector<File>& out) {
  JsonObject object;
  fields.read(name, object);
  fields.read_with(name, out, [&](const Json&) -> Result<std::vector<File>> {
    std::vector<File> files;
    for (const auto& [file, digest] : object) {
      const auto* text = digest.if_string();
      if (text == nullptr) {
        return fail(ErrorCode::kInvalidArgument, "\"{}\" must map file names to digests", name);
      }
      files.push_back({std::string(file), std::string(*text)});
    }
    return files;
  });
}

// A string, or an array of strings.
Result<std::vector<std::string>> parse_texts(const Json& value, std::string_view message) {
  std::vector<std::string> texts;
  if (const auto* text = value.if_string()) {
    if (!text->empty()) texts.emplace_back(*text);
    return texts;
  }
  const auto* items = value.if_array();
  if (items == nullptr) return fail(ErrorCode::kInvalidArgument, "{}", message);
  for (const Json& item : *items) {
    const auto* text = item.if_string();
    if (text == nullptr) return fail(ErrorCode::kInvalidArgument, "{}", message);
    texts.emplace_back(*text);
  }
  return texts;
}

void read_metrics(Fields& fields, Metrics& metrics) {
  fields.read("total_duration", metrics.total_duration);
  fields.read("load_duration", metrics.load_duration);
  fields.read("prompt_eval_count", metrics.prompt_eval_count);
  fields.read("prompt_eval_cached_count", metrics.prompt_eval_cached_count);
  fields.read("prompt_eval_duration", metrics.prompt_eval_duration);
  fields.read("eval_count", metrics.eval_count);
  fields.read("eval_duration", metrics.eval_duration);
}

void read_token_logprob(Fields& fields, TokenLogprob& out) {
  fields.read("token", out.token);
  fields.read("logprob", out.logprob);
  fields.read("bytes", out.bytes);
}

void read_logprobs(Fields& fields, std::vector<Logprob>& out) {
  fields.each("logprobs", [&](const Json& item) -> Result<> {
    Fields inner(item);
    Logprob entry;
    read_token_logprob(inner, entry);
    inner.each("top_logprobs", [&](const Json& top) -> Result<> {
      Fields top_fields(top);
      TokenLogprob alternative;
      read_token_logprob(top_fields, alternative);
      OLLAMA_ASSIGN(alternative, std::move(top_fields).finish(std::move(alternative)));
      entry.top.push_back(std::move(alternative));
      return {};
    });
    OLLAMA_ASSIGN(entry, std::move(inner).finish(std::move(entry)));
    out.push_back(std::move(entry));
    return {};
  });
}

void read_debug_info(Fields& fields, std::optional<DebugInfo>& out) {
  fields.read_with("_debug_info", out, [](const Json& json) {
    Fields inner(json);
    DebugInfo info;
    inner.read("rendered_template", info.rendered_template);
    inner.read("image_count", info.image_count);
    return some(std::move(inner).finish(std::move(info)));
  });
}

Result<ModelDetails> parse_details(const Json& json) {
  Fields fields(json);
  ModelDetails details;
  fields.read("parent_model", details.parent_model);
  fields.read("format", details.format);
  fields.read("family", details.family);
  fields.read("families", details.families);
  fields.read("parameter_size", details.parameter_size);
  fields.read("quantization_level", details.quantization_level);
  fields.read("context_length", details.context_length);
  fields.read("embedding_length", details.embedding_length);
  return std::move(fields).finish(std::move(details));
}

// ---- writing
// -------------------------------------------------------------------------------------

// Fields that are left out when they are empty.
void put(JsonObject& object, std::string_view name, const std::string& value) {
  if (!value.empty()) object.emplace(name, value);
}
void put(JsonObject& object, std::string_view name, bool value) {
  if (value) object.emplace(name, true);
}
void put(JsonObject& object, std::string_view name, const std::optional<bool>& value) {
  if (value) object.emplace(name, *value);
}
template <typename T>
  requires(std::integral<T> && !std::same_as<T, bool>)
void put(JsonObject& object, std::string_view name, T value) {
  if (value != 0) object.emplace(name, value);
}
void put(JsonObject& object, std::string_view name, Duration value) {
  put(object, name, value.count());
}
void put(JsonObject& object, std::string_view name, const JsonObject& value) {
  if (!value.empty()) object.emplace(name, value);
}

array strings(const std::vector<std::string>& values) {
  array result;
  result.reserve(values.size());
  for (const std::string& value : values) result.emplace_back(value);
  return result;
}
template <typename T>
array numbers(const std::vector<T>& values) {
  array result;
  result.reserve(values.size());
  for (const T value : values) result.emplace_back(value);
  return result;
}
// Any list whose elements have a to_json.
template <typename T, typename F>
array objects(const std::vector<T>& values, F&& to) {
  array result;
  result.reserve(values.size());
  for (const T& value : values) result.emplace_back(to(value));
  return result;
}

void put_strings(JsonObject& object, std::string_view name, const std::vector<std::string>& v) {
  if (!v.empty()) object.emplace(name, strings(v));
}
void put_images(JsonObject& object, const std::vector<std::string>& images) {
  if (images.empty()) return;
  array encoded;
  for (const std::string& image : images) encoded.emplace_back(encode_base64(image));
  object.emplace("images", std::move(encoded));
}
void put_tool_calls(JsonObject& object, const std::vector<ToolCall>& calls) {
  if (calls.empty()) return;
  object.emplace("tool_calls", objects(calls, [](const ToolCall& call) { return to_json(call); }));
}
void put_messages(JsonObject& object, const std::vector<Message>& messages) {
  if (messages.empty()) return;
  object.emplace("messages",
                 objects(messages, [](const Message& message) { return to_json(message); }));
}
void put_keep_alive(JsonObject& object, const std::optional<Duration>& keep_alive) {
  if (!keep_alive) return;
  if (*keep_alive < Duration(0) || *keep_alive == envconfig::kForever) {
    object.emplace("keep_alive", -1);
  } else {
    object.emplace("keep_alive", envconfig::format_duration(*keep_alive));
  }
}
void put_options(JsonObject& object, const JsonObject& raw, const Options& parsed) {
  put(object, "options", raw.empty() ? to_json(parsed) : raw);
}
void put_metrics(JsonObject& object, const Metrics& metrics) {
  put(object, "total_duration", metrics.total_duration);
  put(object, "load_duration", metrics.load_duration);
  put(object, "prompt_eval_count", metrics.prompt_eval_count);
  if (metrics.prompt_eval_count != 0) {
    object.emplace("prompt_eval_cached_count", metrics.prompt_eval_cached_count);
  }
  put(object, "prompt_eval_duration", metrics.prompt_eval_duration);
  put(object, "eval_count", metrics.eval_count);
  put(object, "eval_duration", metrics.eval_duration);
}
JsonObject json_of(const TokenLogprob& logprob) {
  JsonObject object;
  object.emplace("token", logprob.token);
  object.emplace("logprob", logprob.logprob);
  if (!logprob.bytes.empty()) object.emplace("bytes", numbers(logprob.bytes));
  return object;
}
void put_logprobs(JsonObject& object, const std::vector<Logprob>& logprobs) {
  if (logprobs.empty()) return;
  object.emplace(
      "logprobs", objects(logprobs, [](const Logprob& logprob) {
        JsonObject entry = json_of(logprob);
        if (!logprob.top.empty()) {
          entry.emplace("top_logprobs",
                        objects(logprob.top, [](const TokenLogprob& top) { return json_of(top); }));
        }
        return entry;
      }));
}
void put_debug_info(JsonObject& object, const std::optional<DebugInfo>& info) {
  if (!info) return;
  JsonObject inner;
  inner.emplace("rendered_template", info->rendered_template);
  put(inner, "image_count", info->image_count);
  object.emplace("_debug_info", std::move(inner));
}

void put_inference(JsonObject& object, const InferenceRequest& request) {
  put(object, "template", request.template_text);
  put(object, "stream", request.stream);
  if (!request.format.is_null()) object.emplace("format", request.format);
  put_keep_alive(object, request.keep_alive);
  put_options(object, request.options, request.parsed_options);
  if (request.think) {
    if (request.think->level.empty()) {
      object.emplace("think", request.think->enabled);
    } else {
      object.emplace("think", request.think->level);
    }
  }
  put(object, "truncate", request.truncate);
  put(object, "shift", request.shift);
  put(object, "logprobs", request.logprobs);
  put(object, "top_logprobs", request.top_logprobs);
  put(object, "_debug_render_only", request.debug_render_only);
}

JsonObject files_json(const std::vector<File>& files) {
  JsonObject object;
  for (const File& file : files) object.insert_or_assign(file.name, file.digest);
  return object;
}

}  // namespace

// ---- requests
// ------------------------------------------------------------------------------------

void name_answers(std::vector<Message>& messages) {
  std::unordered_map<std::string_view, std::string_view> called;
  for (Message& message : messages) {
    for (const ToolCall& call : message.tool_calls) called.try_emplace(call.id, call.name);
    if (message.role != "tool" || !message.tool_name.empty() || message.tool_call_id.empty()) {
      continue;
    }
    if (const auto found = called.find(message.tool_call_id); found != called.end()) {
      message.tool_name = found->second;
    }
  }
}

Result<GenerateRequest> parse_generate_request(const Json& json) {
  Fields fields(json);
  GenerateRequest request;
  read_inference(fields, request);
  fields.read("prompt", request.prompt);
  fields.read("suffix", request.suffix);
  fields.read("system", request.system);
  fields.read("context", request.context);
  fields.read("raw", request.raw);
  read_images(fields, request.images);
  return std::move(fields).finish(std::move(request));
}

Result<ChatRequest> parse_chat_request(const Json& json) {
  Fields fields(json);
  ChatRequest request;
  read_inference(fields, request);
  read_messages(fields, request.messages);
  fields.read_any("tools", request.tools);
  fields.read_any("tool_choice", request.tool_choice);
  OLLAMA_ASSIGN(request, std::move(fields).finish(std::move(request)));
  if (!request.tools.is_null()) {
    const auto* tools = request.tools.if_array();
    if (tools == nullptr) {
      return fail(ErrorCode::kInvalidArgument, "\"tools\" must be an array, not {}",
                  kind_text(request.tools));
    }
    for (const Json& tool : *tools) {
      Fields inner(tool, "a tool");
      JsonObject function;
      inner.read("function", function);
      OLLAMA_TRY(inner.check());
    }
  }
  name_answers(request.messages);
  return request;
}

Result<EmbedRequest> parse_embed_request(const Json& json) {
  Fields fields(json);
  EmbedRequest request;
  fields.read("model", request.model);
  fields.read_with("input", request.input, [&](const Json& value) {
    request.single_input = value.is_string();
    return parse_texts(value, "invalid input type");
  });
  read_keep_alive(fields, request.keep_alive);
  fields.read("truncate", request.truncate);
  fields.read("dimensions", request.dimensions);
  read_options(fields, request.options, request.parsed_options);
  OLLAMA_ASSIGN(request, std::move(fields).finish(std::move(request)));
  OLLAMA_TRY(check_dimensions(request.dimensions));
  return request;
}

Result<EmbeddingsRequest> parse_embeddings_request(const Json& json) {
  Fields fields(json);
  EmbeddingsRequest request;
  fields.read("model", request.model);
  fields.read("prompt", request.prompt);
  read_keep_alive(fields, request.keep_alive);
  read_options(fields, request.options, request.parsed_options);
  return std::move(fields).finish(std::move(request));
}

Result<ShowRequest> parse_show_request(const Json& json) {
  Fields fields(json);
  ShowRequest request;
  read_model(fields, request.model);
  fields.read("system", request.system);
  fields.read("template", request.template_text);
  fields.read("verbose", request.verbose);
  fields.read("plan", request.plan);
  fields.read("options", request.options);
  return std::move(fields).finish(std::move(request));
}

Result<CreateRequest> parse_create_request(const Json& json) {
  Fields fields(json);
  CreateRequest request;
  read_model(fields, request.model);
  fields.read("stream", request.stream);
  fields.read("quantize", request.quantize);
  if (request.quantize.empty()) fields.read("quantization", request.quantize);
  fields.read("from", request.from);
  read_files(fields, "files", request.files);
  read_files(fields, "adapters", request.adapters);
  read_files(fields, "draft_files", request.draft_files);
  fields.read("template", request.template_text);
  fields.read_with("license", request.license, [](const Json& value) {
    return parse_texts(value, "\"license\" must be a string or an array of strings");
  });
  fields.read("system", request.system);
  fields.read("parameters", request.parameters);
  read_messages(fields, request.messages);
  fields.read("renderer", request.renderer);
  fields.read("parser", request.parser);
  fields.read("requires", request.requires_version);
  // Of Ollama before 0.5.5. Ignoring them would make another model than the one that is meant.
  for (const std::string_view old : {"modelfile", "path"}) {
    std::string text;
    fields.read(old, text);
    if (!text.empty()) {
      return fail(ErrorCode::kInvalidArgument,
                  "\"{}\" is no longer accepted: send what the Modelfile says in the fields "
                  "\"from\" or \"files\", \"template\", \"system\", \"parameters\" and so on, "
                  "as `ollama create -f` does",
                  old);
    }
  }
  return std::move(fields).finish(std::move(request));
}

Result<CopyRequest> parse_copy_request(const Json& json) {
  Fields fields(json);
  CopyRequest request;
  fields.read("source", request.source);
  fields.read("destination", request.destination);
  return std::move(fields).finish(std::move(request));
}

Result<DeleteRequest> parse_delete_request(const Json& json) {
  Fields fields(json);
  DeleteRequest request;
  read_model(fields, request.model);
  return std::move(fields).finish(std::move(request));
}

Result<TransferRequest> parse_transfer_request(const Json& json) {
  Fields fields(json);
  TransferRequest request;
  read_model(fields, request.model);
  fields.read("insecure", request.insecure);
  fields.read("stream", request.stream);
  return std::move(fields).finish(std::move(request));
}

Result<ToolCall> parse_tool_call(const Json& json) {
  Fields fields(json, "a tool call");
  ToolCall call;
  fields.read("id", call.id);
  JsonObject function;
  fields.read("function", function);
  OLLAMA_ASSIGN(call, std::move(fields).finish(std::move(call)));

  Fields inner(function);
  inner.read("index", call.index);
  inner.read("name", call.name);
  inner.read("arguments", call.arguments);
  return std::move(inner).finish(std::move(call));
}

Result<Message> parse_message(const Json& json) {
  Fields fields(json, "a message");
  Message message;
  fields.read_role(message.role);
  fields.read("content", message.content);
  fields.read("thinking", message.thinking);
  read_images(fields, message.images);
  read_tool_calls(fields, message.tool_calls);
  fields.read("tool_name", message.tool_name);
  fields.read("tool_call_id", message.tool_call_id);
  return std::move(fields).finish(std::move(message));
}

JsonObject to_json(const GenerateRequest& request) {
  JsonObject object;
  object.emplace("model", request.model);
  object.emplace("prompt", request.prompt);
  put(object, "suffix", request.suffix);
  put(object, "system", request.system);
  if (!request.context.empty()) object.emplace("context", numbers(request.context));
  put(object, "raw", request.raw);
  put_images(object, request.images);
  put_inference(object, request);
  return object;
}

JsonObject to_json(const ChatRequest& request) {
  JsonObject object;
  object.emplace("model", request.model);
  object.emplace("messages", objects(request.messages,
                                     [](const Message& message) { return to_json(message); }));
  if (!request.tools.is_null()) object.emplace("tools", request.tools);
  if (!request.tool_choice.is_null()) object.emplace("tool_choice", request.tool_choice);
  put_inference(object, request);
  return object;
}

JsonObject to_json(const EmbedRequest& request) {
  JsonObject object;
  object.emplace("model", request.model);
  if (request.single_input && request.input.size() == 1) {
    object.emplace("input", request.input.front());
  } else {
    object.emplace("input", strings(request.input));
  }
  put_keep_alive(object, request.keep_alive);
  put(object, "truncate", request.truncate);
  put(object, "dimensions", request.dimensions);
  put_options(object, request.options, request.parsed_options);
  return object;
}

JsonObject to_json(const EmbeddingsRequest& request) {
  JsonObject object;
  object.emplace("model", request.model);
  object.emplace("prompt", request.prompt);
  put_keep_alive(object, request.keep_alive);
  put_options(object, request.options, request.parsed_options);
  return object;
}

JsonObject to_json(const ShowRequest& request) {
  JsonObject object;
  object.emplace("model", request.model);
  put(object, "system", request.system);
  put(object, "template", request.template_text);
  put(object, "verbose", request.verbose);
  put(object, "plan", request.plan);
  put(object, "options", request.options);
  return object;
}

JsonObject to_json(const CreateRequest& request) {
  JsonObject object;
  object.emplace("model", request.model);
  put(object, "stream", request.stream);
  put(object, "quantize", request.quantize);
  put(object, "from", request.from);
  put(object, "files", files_json(request.files));
  put(object, "draft_files", files_json(request.draft_files));
  put(object, "adapters", files_json(request.adapters));
  put(object, "template", request.template_text);
  put_strings(object, "license", request.license);
  put(object, "system", request.system);
  put(object, "parameters", request.parameters);
  put_messages(object, request.messages);
  put(object, "renderer", request.renderer);
  put(object, "parser", request.parser);
  put(object, "requires", request.requires_version);
  return object;
}

JsonObject to_json(const CopyRequest& request) {
  JsonObject object;
  object.emplace("source", request.source);
  object.emplace("destination", request.destination);
  return object;
}

JsonObject to_json(const DeleteRequest& request) {
  JsonObject object;
  object.emplace("model", request.model);
  return object;
}

JsonObject to_json(const TransferRequest& request) {
  JsonObject object;
  object.emplace("model", request.model);
  put(object, "insecure", request.insecure);
  put(object, "stream", request.stream);
  return object;
}

JsonObject to_json(const Message& message) {
  JsonObject object;
  object.emplace("role", message.role);
  object.emplace("content", message.content);
  put(object, "thinking", message.thinking);
  put_images(object, message.images);
  put_tool_calls(object, message.tool_calls);
  put(object, "tool_name", message.tool_name);
  put(object, "tool_call_id", message.tool_call_id);
  return object;
}

JsonObject to_json(const ToolCall& call) {
  JsonObject function;
  function.emplace("index", call.index);
  function.emplace("name", call.name);
  function.emplace("arguments", call.arguments);
  JsonObject object;
  put(object, "id", call.id);
  object.emplace("function", std::move(function));
  return object;
}

// ---- responses
// -----------------------------------------------------------------------------------

JsonObject to_json(const GenerateResponse& response) {
  JsonObject object;
  object.emplace("model", response.model);
  object.emplace("created_at", format_time(response.created_at));
  object.emplace("response", response.response);
  put(object, "thinking", response.thinking);
  object.emplace("done", response.done);
  put(object, "done_reason", response.done_reason);
  if (!response.context.empty()) object.emplace("context", numbers(response.context));
  put_metrics(object, response.metrics);
  put_tool_calls(object, response.tool_calls);
  put_debug_info(object, response.debug_info);
  put_logprobs(object, response.logprobs);
  return object;
}

JsonObject to_json(const ChatResponse& response) {
  JsonObject object;
  object.emplace("model", response.model);
  object.emplace("created_at", format_time(response.created_at));
  object.emplace("message", to_json(response.message));
  object.emplace("done", response.done);
  put(object, "done_reason", response.done_reason);
  put_debug_info(object, response.debug_info);
  put_logprobs(object, response.logprobs);
  put_metrics(object, response.metrics);
  return object;
}

Json embedding_json(const std::vector<float>& embedding) {
  array values;
  values.reserve(embedding.size());
  for (const float value : embedding) {
    char buffer[32];
    const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
    values.emplace_back(parse_number<double>({buffer, end}).value_or(static_cast<double>(value)));
  }
  return values;
}

JsonObject to_json(const EmbedResponse& response) {
  JsonObject object;
  object.emplace("model", response.model);
  object.emplace("embeddings", objects(response.embeddings, embedding_json));
  put(object, "total_duration", response.total_duration);
  put(object, "load_duration", response.load_duration);
  put(object, "prompt_eval_count", response.prompt_eval_count);
  return object;
}

JsonObject to_json(const EmbeddingsResponse& response) {
  JsonObject object;
  object.emplace("embedding", numbers(response.embedding));
  return object;
}

JsonObject to_json(const ModelDetails& details) {
  JsonObject object;
  object.emplace("parent_model", details.parent_model);
  object.emplace("format", details.format);
  object.emplace("family", details.family);
  object.emplace("families", details.families.empty() ? Json() : Json(strings(details.families)));
  object.emplace("parameter_size", details.parameter_size);
  object.emplace("quantization_level", details.quantization_level);
  if (details.context_length > 0) object.emplace("context_length", details.context_length);
  if (details.embedding_length > 0) object.emplace("embedding_length", details.embedding_length);
  return object;
}

JsonObject to_json(const ListResponse& response) {
  JsonObject object;
  object.emplace("models", objects(response.models, [](const ListModel& model) {
                   JsonObject entry;
                   entry.emplace("name", model.name);
                   entry.emplace("model", model.model);
                   entry.emplace("modified_at", format_time(model.modified_at));
                   entry.emplace("size", model.size);
                   entry.emplace("digest", model.digest);
                   entry.emplace("details", to_json(model.details));
                   put_strings(entry, "capabilities", model.capabilities);
                   return entry;
                 }));
  return object;
}

JsonObject to_json(const ProcessResponse& response) {
  JsonObject object;
  object.emplace("models", objects(response.models, [](const ProcessModel& model) {
                   JsonObject entry;
                   entry.emplace("name", model.name);
                   entry.emplace("model", model.model);
                   entry.emplace("size", model.size);
                   entry.emplace("digest", model.digest);
                   entry.emplace("details", to_json(model.details));
                   entry.emplace("expires_at", format_time(model.expires_at));
                   entry.emplace("size_vram", model.size_vram);
                   entry.emplace("context_length", model.context_length);
                   if (model.loading < 1) entry.emplace("loading", model.loading);
                   return entry;
                 }));
  return object;
}

JsonObject to_json(const ShowResponse& response) {
  JsonObject object;
  put(object, "license", response.license);
  put(object, "modelfile", response.modelfile);
  put(object, "parameters", response.parameters);
  put(object, "template", response.template_text);
  put(object, "system", response.system);
  put(object, "renderer", response.renderer);
  put(object, "parser", response.parser);
  object.emplace("details", to_json(response.details));
  put_messages(object, response.messages);
  object.emplace("model_info", response.model_info);
  put(object, "projector_info", response.projector_info);
  if (!response.tensors.empty()) {
    object.emplace("tensors", objects(response.tensors, [](const Tensor& tensor) {
                     JsonObject entry;
                     entry.emplace("name", tensor.name);
                     entry.emplace("type", tensor.type);
                     entry.emplace("shape", numbers(tensor.shape));
                     return entry;
                   }));
  }
  put_strings(object, "capabilities", response.capabilities);
  object.emplace("modified_at", format_time(response.modified_at));
  put(object, "requires", response.requires_version);
  if (response.plan) object.emplace("plan", to_json(*response.plan));
  return object;
}

JsonObject to_json(const MemoryPlan& plan) {
  JsonObject object;
  object.emplace("context_length", plan.context_length);
  object.emplace("num_parallel", plan.num_parallel);
  object.emplace("kv_cache_type", plan.kv_cache_type);
  object.emplace("layers_on_gpu", plan.layers_on_gpu);
  object.emplace("layers", plan.layers);
  object.emplace("devices", objects(plan.devices, [](const PlannedDevice& device) {
                   JsonObject entry;
                   entry.emplace("name", device.name);
                   entry.emplace("description", device.description);
                   entry.emplace("library", device.library);
                   entry.emplace("layers", device.layers);
                   entry.emplace("output", device.output);
                   entry.emplace("weights", device.weights);
                   entry.emplace("cache", device.cache);
                   entry.emplace("graph", device.graph);
                   entry.emplace("free", device.free);
                   entry.emplace("kept_free", device.kept_free);
                   entry.emplace("reason", device.reason);
                   return entry;
                 }));
  object.emplace("gains", strings(plan.gains));
  return object;
}

Result<MemoryPlan> parse_memory_plan(const Json& json) {
  Fields fields(json);
  MemoryPlan plan;
  fields.read("context_length", plan.context_length);
  fields.read("num_parallel", plan.num_parallel);
  fields.read("kv_cache_type", plan.kv_cache_type);
  fields.read("layers_on_gpu", plan.layers_on_gpu);
  fields.read("layers", plan.layers);
  fields.each("devices", [&](const Json& item) -> Result<> {
    Fields inner(item);
    PlannedDevice device;
    inner.read("name", device.name);
    inner.read("description", device.description);
    inner.read("library", device.library);
    inner.read("layers", device.layers);
    inner.read("output", device.output);
    inner.read("weights", device.weights);
    inner.read("cache", device.cache);
    inner.read("graph", device.graph);
    inner.read("free", device.free);
    inner.read("kept_free", device.kept_free);
    inner.read("reason", device.reason);
    OLLAMA_ASSIGN(device, std::move(inner).finish(std::move(device)));
    plan.devices.push_back(std::move(device));
    return {};
  });
  fields.read("gains", plan.gains);
  return std::move(fields).finish(std::move(plan));
}

JsonObject to_json(const ProgressResponse& response) {
  JsonObject object;
  object.emplace("status", response.status);
  put(object, "digest", response.digest);
  put(object, "total", response.total);
  put(object, "completed", response.completed);
  return object;
}

JsonObject to_json(const VersionResponse& response) {
  JsonObject object;
  object.emplace("version", response.version);
  return object;
}

Result<GenerateResponse> parse_generate_response(const Json& json) {
  Fields fields(json);
  GenerateResponse response;
  fields.read("model", response.model);
  fields.read_time("created_at", response.created_at);
  fields.read("response", response.response);
  fields.read("thinking", response.thinking);
  fields.read("done", response.done);
  fields.read("done_reason", response.done_reason);
  fields.read("context", response.context);
  read_metrics(fields, response.metrics);
  read_tool_calls(fields, response.tool_calls);
  read_debug_info(fields, response.debug_info);
  read_logprobs(fields, response.logprobs);
  return std::move(fields).finish(std::move(response));
}

Result<ChatResponse> parse_chat_response(const Json& json) {
  Fields fields(json);
  ChatResponse response;
  fields.read("model", response.model);
  fields.read_time("created_at", response.created_at);
  fields.read_with("message", response.message, parse_message);
  fields.read("done", response.done);
  fields.read("done_reason", response.done_reason);
  read_debug_info(fields, response.debug_info);
  read_logprobs(fields, response.logprobs);
  read_metrics(fields, response.metrics);
  return std::move(fields).finish(std::move(response));
}

Result<EmbedResponse> parse_embed_response(const Json& json) {
  Fields fields(json);
  EmbedResponse response;
  fields.read("model", response.model);
  fields.each("embeddings", [&](const Json& row) -> Result<> {
    const auto* values = row.if_array();
    if (values == nullptr) {
      return fail(ErrorCode::kInvalidArgument, "\"embeddings\" must hold arrays, not {}",
                  kind_text(row));
    }
    std::vector<float> embedding;
    embedding.reserve(values->size());
    for (const Json& value : *values) {
      const auto number = number_of(value);
      if (!number) {
        return fail(ErrorCode::kInvalidArgument, "\"embeddings\" must hold numbers, not {}",
                    kind_text(value));
      }
      embedding.push_back(static_cast<float>(*number));
    }
    response.embeddings.push_back(std::move(embedding));
    return {};
  });
  fields.read("total_duration", response.total_duration);
  fields.read("load_duration", response.load_duration);
  fields.read("prompt_eval_count", response.prompt_eval_count);
  return std::move(fields).finish(std::move(response));
}

Result<EmbeddingsResponse> parse_embeddings_response(const Json& json) {
  Fields fields(json);
  EmbeddingsResponse response;
  fields.each("embedding", [&](const Json& value) -> Result<> {
    const auto number = number_of(value);
    if (!number) {
      return fail(ErrorCode::kInvalidArgument, "\"embedding\" must hold numbers, not {}",
                  kind_text(value));
    }
    response.embedding.push_back(*number);
    return {};
  });
  return std::move(fields).finish(std::move(response));
}

Result<ListResponse> parse_list_response(const Json& json) {
  Fields fields(json);
  ListResponse response;
  fields.each("models", [&](const Json& item) -> Result<> {
    Fields inner(item);
    ListModel model;
    inner.read("name", model.name);
    inner.read("model", model.model);
    inner.read_time("modified_at", model.modified_at);
    inner.read("size", model.size);
    inner.read("digest", model.digest);
    inner.read_with("details", model.details, parse_details);
    inner.read("capabilities", model.capabilities);
    OLLAMA_ASSIGN(model, std::move(inner).finish(std::move(model)));
    response.models.push_back(std::move(model));
    return {};
  });
  return std::move(fields).finish(std::move(response));
}

Result<ProcessResponse> parse_process_response(const Json& json) {
  Fields fields(json);
  ProcessResponse response;
  fields.each("models", [&](const Json& item) -> Result<> {
    Fields inner(item);
    ProcessModel model;
    inner.read("name", model.name);
    inner.read("model", model.model);
    inner.read("size", model.size);
    inner.read("digest", model.digest);
    inner.read_with("details", model.details, parse_details);
    inner.read_time("expires_at", model.expires_at);
    inner.read("size_vram", model.size_vram);
    inner.read("context_length", model.context_length);
    inner.read("loading", model.loading);
    OLLAMA_ASSIGN(model, std::move(inner).finish(std::move(model)));
    response.models.push_back(std::move(model));
    return {};
  });
  return std::move(fields).finish(std::move(response));
}

Result<ShowResponse> parse_show_response(const Json& json) {
  Fields fields(json);
  ShowResponse response;
  fields.read("license", response.license);
  fields.read("modelfile", response.modelfile);
  fields.read("parameters", response.parameters);
  fields.read("template", response.template_text);
  fields.read("system", response.system);
  fields.read("renderer", response.renderer);
  fields.read("parser", response.parser);
  fields.read_with("details", response.details, parse_details);
  read_messages(fields, response.messages);
  fields.read("model_info", response.model_info);
  fields.read("projector_info", response.projector_info);
  fields.each("tensors", [&](const Json& item) -> Result<> {
    Fields inner(item);
    Tensor tensor;
    inner.read("name", tensor.name);
    inner.read("type", tensor.type);
    inner.read("shape", tensor.shape);
    OLLAMA_ASSIGN(tensor, std::move(inner).finish(std::move(tensor)));
    response.tensors.push_back(std::move(tensor));
    return {};
  });
  fields.read("capabilities", response.capabilities);
  fields.read_time("modified_at", response.modified_at);
  fields.read("requires", response.requires_version);
  fields.read_with("plan", response.plan.emplace(), parse_memory_plan);
  if (response.plan->devices.empty()) response.plan.reset();
  return std::move(fields).finish(std::move(response));
}

Result<ProgressResponse> parse_progress_response(const Json& json) {
  Fields fields(json);
  ProgressResponse response;
  fields.read("status", response.status);
  fields.read("digest", response.digest);
  fields.read("total", response.total);
  fields.read("completed", response.completed);
  return std::move(fields).finish(std::move(response));
}

Result<VersionResponse> parse_version_response(const Json& json) {
  Fields fields(json);
  VersionResponse response;
  fields.read("version", response.version);
  return std::move(fields).finish(std::move(response));
}

// ---- errors
// --------------------------------------------------------------------------------------

JsonObject to_json(const StatusError& error) {
  JsonObject object;
  object.emplace("error", error.message);
  return object;
}

int status_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return 400;
    case ErrorCode::kNotFound:
      return 404;
    case ErrorCode::kAlreadyExists:
      return 409;
    case ErrorCode::kUnsupported:
      return 400;
    case ErrorCode::kPermission:
      return 403;
    case ErrorCode::kCancelled:
      return 499;
    case ErrorCode::kUnavailable:
      return 503;
    case ErrorCode::kCorrupt:
    case ErrorCode::kOutOfMemory:
    case ErrorCode::kNoRoom:
    case ErrorCode::kTimeout:
    case ErrorCode::kIo:
    case ErrorCode::kInternal:
      return 500;
  }
  return 500;
}

StatusError status_error(const Error& error) {
  return {status_of(error.code()), std::string(error.message())};
}

}  // namespace ollama::api
