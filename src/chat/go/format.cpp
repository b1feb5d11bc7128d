#include "chat/go/format.h"

#include <algorithm>
#include <boost/json/object.hpp>
#include <format>
#include <optional>
#include <string>
#include <utility>

#include "chat/go/literal.h"
#include "chat/go/number_text.h"

namespace ollama::chat::go {
namespace {

constexpr std::string_view kNil = "<nil>";
constexpr std::string_view kNoValue = "<no value>";

void write_json_string(Sink& out, std::string_view text) {
  out.add('"');
  while (!text.empty()) {
    // Runs that need nothing go out at once.
    const auto plain = [](char c) {
      return static_cast<unsigned char>(c) >= 0x20 && static_cast<unsigned char>(c) < 0x7F &&
             c != '"' && c != '\\' && c != '<' && c != '>' && c != '&';
    };
    const auto run = static_cast<std::size_t>(std::ranges::find_if_not(text, plain) - text.begin());
    out.add(text.substr(0, run));
    text.remove_prefix(run);
    if (text.empty()) break;
    constexpr std::string_view kEscaped = "\"\\\n\r\t\b\f";
    constexpr std::string_view kLetters = "\"\\nrtbf";
    const auto [code, length] = front_rune(text);
    if (const auto at = kEscaped.find(text[0]); at != std::string_view::npos) {
      out.add('\\');
      out.add(kLetters[at]);
    } else if (code < 0x20 || code == '<' || code == '>' || code == '&' || code == 0x2028 ||
               code == 0x2029 || (code == 0xFFFD && length == 1)) {
      out.add(std::format("\\u{:04x}", code));
    } else {
      out.add(text.substr(0, length));
    }
    text.remove_prefix(length);
  }
  out.add('"');
}

void write_json_of(Sink& out, const api::Json& json);

void write_json_list(Sink& out, const Elements& list) {
  out.add('[');
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (i > 0) out.add(',');
    write_json(out, list[i]);
  }
  out.add(']');
}

void write_json_map(Sink& out, const api::JsonObject& map) {
  out.add('{');
  bool first = true;
  for (const auto* member : sorted_members(map)) {
    if (!std::exchange(first, false)) out.add(',');
    write_json_string(out, member->key());
    out.add(':');
    write_json_of(out, member->value());
  }
  out.add('}');
}

void write_json_object(Sink& out, const Object& object) {
  out.add('{');
  bool first = true;
  for (const Field& field : object.fields) {
    const std::string_view name = object.is_map ? field.name : field.json_name;
    if (!object.is_map && name.empty()) continue;
    if (field.omit_empty && !field.value.truth()) continue;
    if (!std::exchange(first, false)) out.add(',');
    write_json_string(out, name);
    out.add(':');
    write_json(out, field.value);
  }
  out.add('}');
}

// Integers keep all their digits.
void write_json_of(Sink& out, const api::Json& json) {
  if (const auto* number = json.if_int64()) {
    out.add(std::to_string(*number));
  } else if (const auto* big = json.if_uint64()) {
    out.add(std::to_string(*big));
  } else if (const auto* array = json.if_array()) {
    out.add('[');
    for (std::size_t i = 0; i < array->size(); ++i) {
      if (i > 0) out.add(',');
      write_json_of(out, (*array)[i]);
    }
    out.add(']');
  } else {
    write_json(out, Value::of(json));
  }
}

}  // namespace

std::vector<const api::JsonObject::value_type*> sorted_members(const api::JsonObject& map) {
  std::vector<const api::JsonObject::value_type*> members;
  members.reserve(map.size());
  for (const auto& member : map) members.push_back(&member);
  std::ranges::sort(members, {}, [](const auto* m) { return std::string_view(m->key()); });
  return members;
}

void write_json(Sink& out, const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kMissing:
    case Value::Kind::kNil:
      return out.add("null");
    case Value::Kind::kBool:
      return out.add(value.boolean() ? "true" : "false");
    case Value::Kind::kInt:
      return out.add(std::to_string(value.integer()));
    case Value::Kind::kFloat:
      return out.add(json_number(value.number()));
    case Value::Kind::kString:
      return write_json_string(out, value.text());
    case Value::Kind::kList:
      return write_json_list(out, value.list());
    case Value::Kind::kMap:
      return write_json_map(out, value.map());
    case Value::Kind::kObject:
      return write_json_object(out, value.object());
  }
}

void print_action(Sink& out, const Value& value) {
  if (value.is(Value::Kind::kString)) return out.add(value.text());
  if (value.is_nil()) return out.add(kNoValue);
  print_value(out, value);
}

void print_value(Sink& out, const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kMissing:
    case Value::Kind::kNil:
      return out.add(kNil);
    case Value::Kind::kBool:
      return out.add(value.boolean() ? "true" : "false");
    case Value::Kind::kInt:
      return out.add(std::to_string(value.integer()));
    case Value::Kind::kFloat:
      return out.add(float_text(value.number(), 'g', std::nullopt));
    case Value::Kind::kString:
      return out.add(value.text());
    case Value::Kind::kList: {
      if (value.prints_json()) return write_json(out, value);
      out.add('[');
      for (std::size_t i = 0; i < value.list().size(); ++i) {
        if (i > 0) out.add(' ');
        print_value(out, value.list()[i]);
      }
      return out.add(']');
    }
    case Value::Kind::kMap: {
      if (value.prints_json()) return write_json(out, value);
      out.add("map[");
      bool first = true;
      for (const auto* member : sorted_members(value.map())) {
        if (!std::exchange(first, false)) out.add(' ');
        out.add(member->key());
        out.add(':');
        print_value(out, Value::of(member->value()));
      }
      return out.add(']');
    }
    case Value::Kind::kObject:
      return write_json(out, value);
  }
}

void print_all(Sink& out, std::span<const Value> values) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (i > 0 && !values[i].is(Value::Kind::kString) && !values[i - 1].is(Value::Kind::kString)) {
      out.add(' ');
    }
    print_value(out, values[i]);
  }
}

void print_line(Sink& out, std::span<const Value> values) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (i > 0) out.add(' ');
    print_value(out, values[i]);
  }
  out.add('\n');
}

}  // namespace ollama::chat::go
