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

// Lists are compared element by element.
constexpr std::size_t kMaxPairs = 1'000'000;

Json both(const Json& a, const Json& b) {
  if (a == b) return a;
  return JsonObject{{"allOf", JsonArray{a, b}}};
}

JsonArray as_list(const Json& value) {
  return value.is_array() ? value.get_array() : JsonArray{value};
}

bool lists(const JsonArray& list, const Json& value) {
  return std::ranges::any_of(list, [&](const Json& item) { return same_value(item, value); });
}

Json merge_types(const Json& a, const Json& b) {
  const JsonArray left = as_list(a);
  const JsonArray right = as_list(b);
  JsonArray types;
  for (const Json& type : left) {
    if (lists(right, type) || (type == "integer" && lists(right, "number"))) types.push_back(type);
  }
  for (const Json& type : right) {
    if (type == "integer" && lists(left, "number") && !lists(types, type)) types.push_back(type);
  }
  return types;
}

Json merge_enums(const Json& a, const Json& b) {
  JsonArray values;
  for (const Json& value : as_list(a)) {
    if (lists(as_list(b), value)) values.push_back(value);
  }
  return values;
}

Json merge_required(const Json& a, const Json& b) {
  JsonArray names = as_list(a);
  for (const Json& name : as_list(b)) {
    if (!lists(names, name)) names.push_back(name);
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

Json merge_properties(const JsonObject& a, const JsonObject& b) {
  static const JsonObject none;
  const auto properties = [](const JsonObject& schema) -> const JsonObject& {
    const Json* found = schema.if_contains("properties");
    return found != nullptr && found->is_object() ? found->get_object() : none;
  };
  const auto with = [](const Json& schema, const Json& others) {
    return others == true ? schema : both(schema, others);
  };
  JsonObject merged;
  for (const auto& [name, schema] : properties(a)) {
    const Json* other = properties(b).if_contains(name);
    merged[name] = other != nullptr ? both(schema, *other) : with(schema, of_others(b));
  }
  for (const auto& [name, schema] : properties(b)) {
    if (!properties(a).contains(name)) merged[name] = with(schema, of_others(a));
  }
  return merged;
}

template <typename List>
bool among(const List& list, std::string_view key) {
  return std::ranges::contains(list, key);
}

}  // namespace

bool same_value(const Json& a, const Json& b) {
  if (a.is_number() && b.is_number()) return a.to_number<double>() == b.to_number<double>();
  return a == b;
}

Result<JsonObject> merge_schemas(const JsonObject& a, const JsonObject& b) {
  JsonObject merged = a;
  for (const auto& [key, value] : b) {
    const Json* mine = a.if_contains(key);
    if (mine != nullptr && mine->is_array() && value.is_array() &&
        mine->get_array().size() * value.get_array().size() > kMaxPairs) {
      return fail(ErrorCode::kInvalidArgument, "\"{}\" is too long to be given twice",
                  std::string_view(key));
    }
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
    merged["properties"] = merge_properties(a, b);
  }
  return merged;
}

}  // namespace ollama::grammar
