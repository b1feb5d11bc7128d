#include "chat/go/typescript.h"

#include <array>
#include <utility>

namespace ollama::chat::go {
namespace {

constexpr int kMaxDepth = 32;

std::string_view type_of(std::string_view json_type) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 7> kTypes{{
      {"string", "string"},
      {"number", "number"},
      {"integer", "number"},
      {"boolean", "boolean"},
      {"array", "any[]"},
      {"object", "Record<string, any>"},
      {"null", "null"},
  }};
  for (const auto& [json, typescript] : kTypes) {
    if (json == json_type) return typescript;
  }
  return "any";
}

Value either(const Value& property, std::string_view go_name, std::string_view json_name) {
  const Value value = property.member(go_name);
  return value.is_nil() ? property.member(json_name) : value;
}

std::string union_of(const Elements& list, auto type) {
  std::string out;
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (i > 0) out += " | ";
    out += type(list[i]);
  }
  return out;
}

std::string typescript_at(const Value& property, int depth) {
  if (depth > kMaxDepth) return "any";
  const Value any_of = either(property, "AnyOf", "anyOf");
  if (any_of.is(Value::Kind::kList) && any_of.truth()) {
    return union_of(any_of.list(),
                    [depth](const Value& one) { return typescript_at(one, depth + 1); });
  }
  const Value type = either(property, "Type", "type");
  if (type.is(Value::Kind::kList) && type.truth()) {
    return union_of(type.list(), [](const Value& one) {
      return std::string(one.is(Value::Kind::kString) ? type_of(one.text()) : "any");
    });
  }
  return std::string(type.is(Value::Kind::kString) ? type_of(type.text()) : "any");
}

}  // namespace

std::string typescript_type(const Value& property) { return typescript_at(property, 0); }

}  // namespace ollama::chat::go
