// Python's operators on values, and values as text.
#pragma once

#include <string>
#include <string_view>

#include "chat/jinja/value.h"

namespace ollama::chat::jinja {

enum class BinaryOp : std::uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower
};
enum class CompareOp : std::uint8_t {
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn
};

bool equal(Runtime& run, const Value& left, const Value& right);
// -1, 0 or 1, and 2 for what has no order (NaN); fails for types without an order.
int compare(Runtime& run, const Value& left, const Value& right, std::string_view op = "<");
bool contains(Runtime& run, const Value& container, const Value& item);
bool compare(Runtime& run, CompareOp op, const Value& left, const Value& right);
Value binary(Runtime& run, BinaryOp op, const Value& left, const Value& right);
Value negate(const Value& value);
Value absolute(const Value& value);

// object[key] and object.key without methods; kMissing where there is nothing.
Value find_item(Runtime& run, const Value& object, const Value& key);
// Bounds are kMissing where they were left out.
Value slice(Runtime& run, const Value& object, const Value& start, const Value& stop,
            const Value& step);

// ---- Text
// str(): what printing a value gives.
void append_text(Runtime& run, std::string& out, const Value& value);
// repr(): strings in quotes.
void append_repr(Runtime& run, std::string& out, const Value& value);
// str() as a string that lives in the arena or where the value's does.
std::string_view to_text(Runtime& run, const Value& value);
std::string float_text(double value);  // Python's repr
// HTML's characters as entities.
std::string escape_html(std::string_view text);

// json.dumps()
struct JsonStyle {
  bool ensure_ascii = false;
  bool indented = false;
  std::string indent = {};  // for each level
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
};
void append_json(Runtime& run, std::string& out, const Value& value, const JsonStyle& style);

}  // namespace ollama::chat::jinja
