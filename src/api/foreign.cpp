#include "api/foreign.h"

#include <algorithm>
#include <array>
#include <boost/json/array.hpp>
#include <random>
#include <unordered_set>

namespace ollama::api::foreign {

std::string new_id(std::string_view prefix) {
  static constexpr std::string_view kLetters =
      "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  static constexpr std::size_t kLength = 24;
  std::random_device random;
  std::uniform_int_distribution<std::size_t> letter(0, kLetters.size() - 1);
  std::string id(prefix);
  for (std::size_t i = 0; i < kLength; ++i) id += kLetters[letter(random)];
  return id;
}

std::int64_t seconds_now() {
  return std::chrono::duration_cast<std::chrono::seconds>(now().time_since_epoch()).count();
}

std::string event(const JsonObject& data, std::string_view name) {
  std::string text;
  if (!name.empty()) text.append("event: ").append(name).append("\n");
  return text.append("data: ").append(to_string(data)).append("\n\n");
}

Result<std::vector<std::string>> texts_of(const Json& value, std::string_view name) {
  if (const auto* text = value.if_string()) return std::vector{std::string(*text)};
  if (!value.is_array()) {
    return fail(ErrorCode::kInvalidArgument,
                "\"{}\" must be a string or an array of strings, not {}", name, kind_text(value));
  }
  std::vector<std::string> texts;
  const JsonObject holder{{name, value}};
  Fields fields(holder);
  fields.read(name, texts);
  return std::move(fields).finish(std::move(texts));
}

Result<std::string> image_of(std::string_view url) {
  static constexpr std::string_view kBase64 = ";base64,";
  const std::size_t at = url.find(kBase64);
  const bool typed = url.starts_with("data:image/") && at != std::string_view::npos;
  // Without a type it may be anything, as in the native API.
  if (!typed && !url.starts_with("data:;base64,")) {
    return fail(ErrorCode::kInvalidArgument,
                "invalid image input: images are sent as data:image/...;base64,...");
  }
  return decode_base64(url.substr(at + kBase64.size()));
}

Result<JsonObject> arguments_of(std::string_view text) {
  if (text.find_first_not_of(" \t\r\n") == std::string_view::npos) return JsonObject();
  auto json = parse_json(text);
  if (!json || !json->is_object()) {
    return fail(ErrorCode::kInvalidArgument, "invalid tool call arguments: not a JSON object");
  }
  return std::move(json->as_object());
}

Result<> read_limit(Fields& fields, std::string_view name, Options& options) {
  if (fields.find(name) == nullptr) return {};
  std::int32_t& limit = options.num_predict.emplace();
  fields.read(name, limit);
  if (limit >= -2) return {};
  return fail(ErrorCode::kInvalidArgument, "\"{}\" must be 0 or more, or -1 for no limit, not {}",
              name, limit);
}

Result<> check_role(std::string_view role, std::span<const std::string_view> allowed,
                    std::string_view place) {
  if (std::ranges::contains(allowed, role)) return {};
  std::string names;
  for (std::size_t i = 0; i < allowed.size(); ++i) {
    if (i > 0) names += i + 1 < allowed.size() ? ", " : " or ";
    names += allowed[i];
  }
  if (role.empty()) {
    return fail(ErrorCode::kInvalidArgument, "{} is required: it must be {}", place, names);
  }
  return fail(ErrorCode::kInvalidArgument, "{} must be {}, not \"{}\"", place, names, role);
}

Result<std::string> openai_role(std::string_view role, std::string_view place) {
  static constexpr std::array<std::string_view, 6> kRoles{"system",    "developer", "user",
                                                          "assistant", "tool",      "function"};
  OLLAMA_TRY(check_role(role, kRoles, place));
  if (role == "developer") return "system";
  if (role == "function") return "tool";  // its older name
  return std::string(role);
}

void append_text(std::string& text, std::string_view part) {
  if (!text.empty()) text += '\n';
  text += part;
}

JsonObject tool_json(std::string_view name, std::string_view description, Json parameters) {
  JsonObject function{{"name", name}};
  if (!description.empty()) function["description"] = description;
  function["parameters"] = parameters.is_null()
                               ? Json(JsonObject{{"type", "object"}, {"properties", JsonObject()}})
                               : std::move(parameters);
  return {{"type", "function"}, {"function", std::move(function)}};
}

Result<JsonObject> tool_of(const Json& value, std::string_view schema) {
  Fields fields(value, "a tool");
  std::string name;
  std::string description;
  Json parameters;
  fields.read("name", name);
  fields.read("description", description);
  if (!schema.empty()) fields.read_any(schema, parameters);
  OLLAMA_TRY(fields.check());
  if (name.empty()) return fail(ErrorCode::kInvalidArgument, "a tool has no name");
  if (!parameters.is_null() && !parameters.is_object()) {
    return fail(ErrorCode::kInvalidArgument, "tool \"{}\": \"{}\" must be a JSON object, not {}",
                name, schema, kind_text(parameters));
  }
  return tool_json(name, description, std::move(parameters));
}

Result<Json> checked_choice(const Json& value) {
  const auto* word = value.if_string();
  const bool known = word != nullptr && (*word == "auto" || *word == "none" || *word == "required");
  if (known || value.is_object()) return value;
  if (word != nullptr) {
    return fail(
        ErrorCode::kInvalidArgument,
        "\"tool_choice\" must be \"auto\", \"none\", \"required\" or a function, not \"{}\"",
        std::string_view(*word));
  }
  return fail(ErrorCode::kInvalidArgument,
              "\"tool_choice\" must be \"auto\", \"none\", \"required\" or a function, not {}",
              kind_text(value));
}

Result<> apply_allowed_tools(ChatRequest& request) {
  const auto* choice = request.tool_choice.if_object();
  const Json* type = choice == nullptr ? nullptr : choice->if_contains("type");
  if (type == nullptr || *type != Json("allowed_tools")) return {};
  const Json* nested = choice->if_contains("allowed_tools");
  const Json given = nested == nullptr ? request.tool_choice : *nested;
  Fields fields(given, "allowed_tools");
  std::string mode;
  std::unordered_set<std::string> missing;
  fields.read("mode", mode);
  fields.each("tools", [&](const Json& tool) -> Result<> {
    const auto inner = tool.try_at_pointer("/function/name");
    const auto name = inner ? inner : tool.try_at_pointer("/name");
    if (!name || !name->is_string()) {
      return fail(ErrorCode::kInvalidArgument, "allowed_tools: a tool has no name");
    }
    missing.emplace(name->get_string());
    return {};
  });
  OLLAMA_TRY(std::move(fields).finish(true));
  if (mode != "auto" && mode != "required") {
    return fail(ErrorCode::kInvalidArgument,
                "allowed_tools: mode must be \"auto\" or \"required\"");
  }
  boost::json::array kept;
  if (const auto* tools = request.tools.if_array()) {
    for (const Json& tool : *tools) {
      const auto name = tool.try_at_pointer("/function/name");
      if (!name || !name->is_string()) continue;
      if (missing.erase(std::string(name->get_string())) > 0) kept.push_back(tool);
    }
  }
  if (!missing.empty()) {
    return fail(ErrorCode::kInvalidArgument, "allowed_tools names a tool that is not in tools");
  }
  request.tools = std::move(kept);
  request.tool_choice = mode;
  return {};
}

Result<Think> effort_of(std::string_view effort) {
  if (effort == "none") return Think{.enabled = false, .level = {}};
  if (effort == "minimal") return Think{.enabled = true, .level = "low"};
  if (effort == "xhigh") return Think{.enabled = true, .level = "max"};
  for (const std::string_view level : {"low", "medium", "high", "max"}) {
    if (effort == level) return Think{.enabled = true, .level = std::string(level)};
  }
  return fail(ErrorCode::kInvalidArgument,
              "invalid reasoning effort \"{}\": none, low, medium or high", effort);
}

}  // namespace ollama::api::foreign
