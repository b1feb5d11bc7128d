#include "chat/go/value.h"

#include <algorithm>
#include <boost/json/array.hpp>

namespace ollama::chat::go {

Elements::Elements(std::span<const Value> values) : values_(values.data()), size_(values.size()) {}

Value Elements::operator[](std::size_t i) const {
  return json_ != nullptr ? Value::of(json_[i]) : values_[i];
}

Elements Elements::slice(std::size_t first, std::size_t last) const {
  return json_ != nullptr ? Elements(std::span(json_ + first, last - first))
                          : Elements(std::span(values_ + first, last - first));
}

Value Value::of(const api::Json& json) {
  switch (json.kind()) {
    case boost::json::kind::null:
      return nil();
    case boost::json::kind::bool_:
      return Value(json.get_bool());
    case boost::json::kind::int64:
      return Value(static_cast<double>(json.get_int64()));
    case boost::json::kind::uint64:
      return Value(static_cast<double>(json.get_uint64()));
    case boost::json::kind::double_:
      return Value(json.get_double());
    case boost::json::kind::string:
      return Value(std::string_view(json.get_string()));
    case boost::json::kind::array: {
      const auto& array = json.get_array();
      return Value(Elements(std::span(array.data(), array.size())));
    }
    case boost::json::kind::object:
      return Value(json.get_object());
  }
  return nil();
}

bool Value::truth() const {
  switch (kind_) {
    case Kind::kMissing:
    case Kind::kNil:
      return false;
    case Kind::kBool:
      return bool_;
    case Kind::kInt:
      return int_ != 0;
    case Kind::kFloat:
      return float_ != 0;
    case Kind::kObject:
      return !object_->is_map || !object_->fields.empty();
    case Kind::kString:
    case Kind::kList:
    case Kind::kMap:
      return length() > 0;
  }
  return false;
}

Value Value::member(std::string_view name) const {
  if (kind_ == Kind::kMap) {
    const api::Json* found = map_->if_contains(name);
    return found == nullptr ? Value() : of(*found);
  }
  if (kind_ != Kind::kObject) return {};
  const auto found = std::ranges::find(object_->fields, name, &Field::name);
  return found == object_->fields.end() ? Value() : found->value;
}

std::int64_t Value::length() const {
  switch (kind_) {
    case Kind::kString:
      return static_cast<std::int64_t>(size_);
    case Kind::kList:
      return static_cast<std::int64_t>(list_.size());
    case Kind::kMap:
      return static_cast<std::int64_t>(map_->size());
    case Kind::kObject:
      return object_->is_map ? static_cast<std::int64_t>(object_->fields.size()) : -1;
    default:
      return -1;
  }
}

std::string_view Value::type_name() const {
  switch (kind_) {
    case Kind::kMissing:
    case Kind::kNil:
      return "nil";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float64";
    case Kind::kString:
      return "string";
    case Kind::kList:
      return "[]interface {}";
    case Kind::kMap:
      return "map[string]interface {}";
    case Kind::kObject:
      return object_->is_map ? "map" : "struct";
  }
  return "";
}

}  // namespace ollama::chat::go
