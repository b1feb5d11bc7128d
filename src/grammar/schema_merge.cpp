#include "grammar/schema_merge.h"

#include <algorithm>
#include <array>
#include <vector>

namespace ollama::grammar {
namespace {

using api::Json;
using api::JsonObject;
using JsonArray = boost::json::array;

constexpr std::array kLowerBounds{"minimum", "exclusiveMinimum", "minLength", "minItems",
                                  "minProperties"};
constexpr std::array kUpperBounds{"maximum", "exclusiveMaximum", "maxLength", "maxItems",
                                  "maxProperties"};
// What must be said once, or the same twice.
constexpr std::array kSingular{"pattern", "format", "prefixItems", "additionalItems",
                               "uniqueItems"};

constexpr ErrorConstant kTooManyCopies{ErrorCode::kInvalidArgument, "the schema is too large"};
constexpr std::size_t kTextOfUnit = 8;  // bytes that cost what a value does

Json both(const Json& a, const Json& b) {
  if (a == b) return a;
  return JsonObject{{"allOf", JsonArray{a, b}}};
}

// A text that is the same for equal values.
// NOLINTNEXTLINE(misc-no-recursion): JSON is parsed to a bounded depth
void append_key(const Json& value, std::string& key) {
  if (const auto* object = value.if_object()) {
    std::vector<std::string_view> names;
    for (const auto& member : *object) names.push_back(member.key());
    std::ranges::sort(names);
    key += '{';
    for (const std::string_view name : names) {
      key += api::to_string(Json(name));
      append_key(object->at(name), key);
    }
    key += '}';
  } else if (const auto* array = value.if_array()) {
    key += '[';
    for (const Json& item : *array) {
      append_key(item, key);
      key += ',';
    }
    key += ']';
  } else {
    key += api::to_string(value);
  }
}

Json merge_types(const Json& a, const Json& b) {
  const Values left(as_list(a));
  const Values right(as_list(b));
  Values found;
  JsonArray types;
  for (const Json& type : as_list(a)) {
    const bool fits = right.contains(type) || (type == "integer" && right.contains("number"));
    if (fits && found.add(type)) types.push_back(type);
  }
  for (const Json& type : as_list(b)) {
    const bool fits = type == "integer" && left.contains("number");
    if (fits && found.add(type)) types.push_back(type);
  }
  return types;
}

Json merge_enums(const Json& a, const Json& b) {
  const Values right(as_list(b));
  JsonArray values;
  for (const Json& value : as_list(a)) {
    if (right.contains(value)) values.push_back(value);
  }
  return values;
}

Json merge_required(const Json& a, const Json& b) {
  Values found;
  JsonArray names;
  for (const Json* list : {&a, &b}) {
    for (const Json& name : as_list(*list)) {
      if (found.add(name)) names.push_back(name);
    }
  }
  return names;
}

Json merge_bounds(const Json& a, const Json& b, bool lower) {
  // No numbers: for the compiler to refuse.
  if (!a.is_number() || !b.is_number()) return a.is_number() ? b : a;
  const bool a_is_less = a.to_number<double>() < b.to_number<double>();
  return a_is_less == lower ? b : a;
}

// What an object says of a property that it does not name.
const Json& of_others(const JsonObject& schema) {
  static const Json anything(true);
  const Json* additional = schema.if_contains("additionalProperties");
  return additional == nullptr ? anything : *additional;
}

Result<Json> merge_properties(const JsonObject& a, const JsonObject& b, CopyBudget& copies) {
  static const JsonObject none;
  const auto properties = [](const JsonObject& schema) -> const JsonObject& {
    const Json* found = schema.if_contains("properties");
    return found != nullptr && found->is_object() ? found->get_object() : none;
  };
  JsonObject merged;
  // A property of one, beside what the other says of it.
  const auto add = [&](std::string_view name, const Json& schema,
                       const JsonObject& other) -> Result<> {
    const Json* named = properties(other).if_contains(name);
    const Json& says = named != nullptr ? *named : of_others(other);
    if (named == nullptr && says == true) {
      merged[name] = schema;
      return {};
    }
    OLLAMA_TRY(copies.take(says));
    merged[name] = both(schema, says);
    return {};
  };
  for (const auto& [name, schema] : properties(a)) OLLAMA_TRY(add(name, schema, b));
  for (const auto& [name, schema] : properties(b)) {
    if (!properties(a).contains(name)) OLLAMA_TRY(add(name, schema, a));
  }
  return merged;
}

template <typename List>
bool among(const List& list, std::string_view key) {
  return std::ranges::contains(list, key);
}

}  // namespace

std::span<const Json> as_list(const Json& value) {
  if (!value.is_array()) return std::span(&value, 1);
  return std::span(value.get_array().data(), value.get_array().size());
}

std::string Values::key_of(const Json& value) {
  std::string key;
  // No number is the negative zero that way.
  append_key(value.is_number() ? Json(value.to_number<double>() + 0.0) : value, key);
  return key;
}

Result<> CopyBudget::take(std::size_t units) {
  if (units > left_) return fail(kTooManyCopies);
  left_ -= units;
  return {};
}

Result<> CopyBudget::take(const Json& value) {
  std::vector<const Json*> todo{&value};
  while (!todo.empty()) {
    const Json& item = *todo.back();
    todo.pop_back();
    std::size_t text = 0;
    if (const auto* object = item.if_object()) {
      for (const auto& member : *object) {
        text += member.key().size();
        todo.push_back(&member.value());
      }
    } else if (const auto* array = item.if_array()) {
      for (const Json& element : *array) todo.push_back(&element);
    } else if (const auto* string = item.if_string()) {
      text = string->size();
    }
    OLLAMA_TRY(take(1 + text / kTextOfUnit));
  }
  return {};
}

Result<> CopyBudget::take(const JsonObject& object) {
  for (const auto& member : object) {
    OLLAMA_TRY(take(member.key().size() / kTextOfUnit));
    OLLAMA_TRY(take(member.value()));
  }
  return {};
}

Result<JsonObject> merge_schemas(const JsonObject& a, const JsonObject& b, CopyBudget& copies) {
  OLLAMA_TRY(copies.take(a));
  OLLAMA_TRY(copies.take(b));
  JsonObject merged = a;
  for (const auto& [key, value] : b) {
    const Json* mine = a.if_contains(key);
    if (key == "properties" || mine == nullptr) {
      merged[key] = value;
    } else if (key == "type") {
      merged[key] = merge_types(*mine, value);
    } else if (key == "enum") {
      merged[key] = merge_enums(*mine, value);
    } else if (key == "required") {
      merged[key] = merge_required(*mine, value);
    } else if (among(kLowerBounds, key) || among(kUpperBounds, key)) {
      merged[key] = merge_bounds(*mine, value, among(kLowerBounds, key));
    } else if (key == "items" || key == "additionalProperties") {
      merged[key] = both(*mine, value);
    } else if (among(kSingular, key) && *mine != value) {
      return fail(ErrorCode::kInvalidArgument,
                  "\"{}\" is given twice for the same value, and only one can be enforced",
                  std::string_view(key));
    }
  }
  const bool tuples = merged.contains("prefixItems") &&
                      (a.contains("items") || a.contains("prefixItems")) &&
                      (b.contains("items") || b.contains("prefixItems"));
  if (tuples && !(a == b)) {
    return fail(ErrorCode::kInvalidArgument,
                "\"prefixItems\" and the items of another schema cannot be enforced together");
  }
  if (a.contains("properties") || b.contains("properties")) {
    OLLAMA_ASSIGN(merged["properties"], merge_properties(a, b, copies));
  }
  return merged;
}

}  // namespace ollama::grammar
