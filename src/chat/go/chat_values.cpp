#include "chat/go/chat_values.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <format>

#include "chat/images.h"

namespace ollama::chat::go {
namespace {

constexpr int kMaxDepth = 32;  // of a property's properties

const api::JsonObject kNoMembers;

const api::JsonObject& object_at(const api::JsonObject& map, std::string_view name) {
  const api::Json* found = map.if_contains(name);
  const auto* object = found == nullptr ? nullptr : found->if_object();
  return object == nullptr ? kNoMembers : *object;
}
Value text_at(const api::JsonObject& map, std::string_view name) {
  const api::Json* found = map.if_contains(name);
  const auto* text = found == nullptr ? nullptr : found->if_string();
  return Value(text == nullptr ? std::string_view("") : std::string_view(*text));
}
// Anything; nil where there is nothing.
Value any_at(const api::JsonObject& map, std::string_view name) {
  const api::Json* found = map.if_contains(name);
  return found == nullptr ? Value::nil() : Value::of(*found);
}
Value list_at(const api::JsonObject& map, std::string_view name) {
  const Value value = any_at(map, name);
  return value.is(Value::Kind::kList) ? value : Value(Elements(std::span<const Value>()));
}
// A type's name, or a list of several.
Value type_at(const api::JsonObject& map) {
  const Value value = any_at(map, "type");
  if (value.is(Value::Kind::kList) && value.list().size() == 1) return value.list()[0];
  return value.is_nil() ? Value(std::string_view("")) : value;
}

}  // namespace

Value ChatValues::list(std::vector<Value> values) {
  return Value(Elements(std::span<const Value>(lists_.emplace_back(std::move(values)))));
}

Value ChatValues::object(std::vector<Field> fields, bool is_map) {
  const std::vector<Field>& kept = fields_.emplace_back(std::move(fields));
  return Value(objects_.emplace_back(Object{.fields = kept, .is_map = is_map}));
}

// ---- Messages

// With the marks of its images, which are added to the others.
std::string_view ChatValues::content_of(const api::Message& message, std::vector<Value>& images) {
  if (message.images.empty()) return message.content;
  for (std::size_t i = 0; i < message.images.size(); ++i) {
    images.emplace_back(text(image_mark(images_ + i)));
  }
  return text(content_with_marks(message, images_));
}

Value ChatValues::messages(std::span<const api::Message> messages) {
  std::vector<Collated> all;
  all.reserve(messages.size());
  for (const api::Message& message : messages) {
    const bool joins =
        !all.empty() && all.back().message->role == message.role && message.role != "tool";
    if (!joins) all.push_back({.message = &message, .thinking = message.thinking});
    Collated& to = all.back();
    const std::string_view content = content_of(message, to.images);
    if (to.content.empty()) {
      to.content = content;
    } else if (!content.empty()) {
      to.content = text(std::format("{}\n\n{}", to.content, content));
    }
    if (to.thinking.empty()) to.thinking = message.thinking;
    for (const api::ToolCall& call : message.tool_calls) to.tool_calls.push_back(&call);
  }
  std::vector<Value> values;
  values.reserve(all.size());
  for (const Collated& collated : all) values.push_back(message(collated));
  return list(std::move(values));
}

Value ChatValues::message(const Collated& collated) {
  std::vector<Value> calls;
  for (const api::ToolCall* call : collated.tool_calls) calls.push_back(tool_call(*call));
  const api::Message& first = *collated.message;
  return object({
      {.name = "Role", .json_name = "role", .value = Value(first.role)},
      {.name = "Content", .json_name = "content", .value = Value(collated.content)},
      {.name = "Thinking",
       .json_name = "thinking",
       .omit_empty = true,
       .value = Value(collated.thinking)},
      {.name = "Images", .json_name = "images", .omit_empty = true, .value = list(collated.images)},
      {.name = "ToolCalls",
       .json_name = "tool_calls",
       .omit_empty = true,
       .value = list(std::move(calls)).as_json()},
      {.name = "ToolName",
       .json_name = "tool_name",
       .omit_empty = true,
       .value = Value(first.tool_name)},
      {.name = "ToolCallID",
       .json_name = "tool_call_id",
       .omit_empty = true,
       .value = Value(first.tool_call_id)},
  });
}

Value ChatValues::tool_call(const api::ToolCall& call) {
  const Value function = object({
      {.name = "Index",
       .json_name = "index",
       .omit_empty = true,
       .value = Value(std::int64_t{call.index})},
      {.name = "Name", .json_name = "name", .value = Value(call.name)},
      {.name = "Arguments", .json_name = "arguments", .value = Value(call.arguments).as_json()},
  });
  return object({
      {.name = "ID", .json_name = "id", .omit_empty = true, .value = Value(call.id)},
      {.name = "Function", .json_name = "function", .value = function},
  });
}

std::string system_text(std::span<const api::Message> messages) {
  std::string text;
  bool first = true;
  for (const api::Message& message : messages) {
    if (message.role != "system") continue;
    if (!std::exchange(first, false)) text += "\n\n";
    text += message.content;
  }
  return text;
}

// ---- Tools

Value ChatValues::tools(const api::Json& tools) {
  std::vector<Value> values;
  if (const auto* array = tools.if_array()) {
    for (const api::Json& item : *array) {
      values.push_back(tool(item.is_object() ? item.get_object() : kNoMembers));
    }
  }
  return list(std::move(values)).as_json();
}

Value ChatValues::tool(const api::JsonObject& tool) {
  const api::JsonObject& function = object_at(tool, "function");
  const Value described = object({
      {.name = "Name", .json_name = "name", .value = text_at(function, "name")},
      {.name = "Description",
       .json_name = "description",
       .value = text_at(function, "description")},
      {.name = "Parameters",
       .json_name = "parameters",
       .value = parameters(object_at(function, "parameters"))},
  });
  return object({
      {.name = "Type", .json_name = "type", .value = text_at(tool, "type")},
      {.name = "Items", .json_name = "items", .omit_empty = true, .value = any_at(tool, "items")},
      {.name = "Function", .json_name = "function", .value = described},
  });
}

Value ChatValues::parameters(const api::JsonObject& parameters) {
  const api::Json* properties = parameters.if_contains("properties");
  return object({
      {.name = "Type", .json_name = "type", .value = text_at(parameters, "type")},
      {.name = "Defs",
       .json_name = "$defs",
       .omit_empty = true,
       .value = any_at(parameters, "$defs")},
      {.name = "Items",
       .json_name = "items",
       .omit_empty = true,
       .value = any_at(parameters, "items")},
      {.name = "Required",
       .json_name = "required",
       .omit_empty = true,
       .value = list_at(parameters, "required")},
      {.name = "Properties",
       .json_name = "properties",
       .value = this->properties(properties == nullptr ? nullptr : properties->if_object(), 0)},
  });
}

Value ChatValues::properties(const api::JsonObject* properties, int depth) {
  std::vector<Field> fields;
  if (properties != nullptr && depth < kMaxDepth) {
    fields.reserve(properties->size());
    for (const auto& [name, value] : *properties) {
      fields.push_back({.name = name, .value = property(value, depth)});
    }
    std::ranges::sort(fields, {}, &Field::name);
  }
  return object(std::move(fields), true);
}

Value ChatValues::property(const api::Json& property, int depth) {
  const api::JsonObject& map = property.is_object() ? property.get_object() : kNoMembers;
  std::vector<Value> any_of;
  if (const auto* found = map.if_contains("anyOf"); found != nullptr && found->is_array()) {
    for (const api::Json& one : found->get_array()) {
      if (depth < kMaxDepth) any_of.push_back(this->property(one, depth + 1));
    }
  }
  const api::Json* inner = map.if_contains("properties");
  return object({
      {.name = "AnyOf", .json_name = "anyOf", .omit_empty = true, .value = list(std::move(any_of))},
      {.name = "Type", .json_name = "type", .omit_empty = true, .value = type_at(map)},
      {.name = "Items", .json_name = "items", .omit_empty = true, .value = any_at(map, "items")},
      {.name = "Description",
       .json_name = "description",
       .omit_empty = true,
       .value = text_at(map, "description")},
      {.name = "Enum", .json_name = "enum", .omit_empty = true, .value = list_at(map, "enum")},
      {.name = "Properties",
       .json_name = "properties",
       .omit_empty = true,
       .value = properties(inner == nullptr ? nullptr : inner->if_object(), depth + 1)},
      {.name = "Required",
       .json_name = "required",
       .omit_empty = true,
       .value = list_at(map, "required")},
  });
}

}  // namespace ollama::chat::go
