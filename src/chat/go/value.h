// The values that a Go template sees: small handles on data that lives elsewhere (a JSON document,
// a message, what the rendering keeps), cheap to copy.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "api/types.h"

namespace ollama::chat::go {

struct Object;
class Value;

// Elements of a list: of a JSON array, or values.
class Elements {
 public:
  explicit Elements(std::span<const api::Json> json) : json_(json.data()), size_(json.size()) {}
  explicit Elements(std::span<const Value> values);

  std::size_t size() const { return size_; }
  Value operator[](std::size_t i) const;
  // From `first` up to `last`, which are within the list.
  Elements slice(std::size_t first, std::size_t last) const;

 private:
  const api::Json* json_ = nullptr;  // else values_
  const Value* values_ = nullptr;
  std::size_t size_ = 0;
};

class Value {
 public:
  enum class Kind : std::uint8_t {
    kMissing,  // a key that is not there
    kNil,
    kBool,
    kInt,
    kFloat,
    kString,
    kList,
    kMap,     // a JSON object
    kObject,  // fields that have names in Go and in JSON, or a map of such
  };

  Value() : int_(0) {}
  static Value nil() { return Value(Kind::kNil); }
  explicit Value(bool value) : kind_(Kind::kBool), bool_(value) {}
  explicit Value(std::int64_t value) : kind_(Kind::kInt), int_(value) {}
  explicit Value(double value) : kind_(Kind::kFloat), float_(value) {}
  explicit Value(std::string_view text)
      : kind_(Kind::kString), text_(text.data()), size_(text.size()) {}
  explicit Value(Elements list) : kind_(Kind::kList), list_(list) {}
  explicit Value(const api::JsonObject& map) : kind_(Kind::kMap), map_(&map) {}
  explicit Value(const Object& object) : kind_(Kind::kObject), object_(&object) {}
  // Numbers become float64, as Go's encoding/json reads them into an interface. Refers to `json`.
  static Value of(const api::Json& json);

  // The same, to be printed as JSON, as what Ollama gives templates types with texts of their own.
  Value as_json() const {
    Value value = *this;
    value.prints_json_ = true;
    return value;
  }
  bool prints_json() const { return prints_json_ || kind_ == Kind::kObject; }

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool is_nil() const { return kind_ == Kind::kMissing || kind_ == Kind::kNil; }
  bool is_map() const { return kind_ == Kind::kMap || kind_ == Kind::kObject; }

  // Of the kind that the name says.
  bool boolean() const { return bool_; }
  std::int64_t integer() const { return int_; }
  double number() const { return float_; }
  std::string_view text() const { return {text_, size_}; }
  const Elements& list() const { return list_; }
  const api::JsonObject& map() const { return *map_; }
  const Object& object() const { return *object_; }

  // Go's truth: false are nil, false, 0 and what is empty.
  bool truth() const;
  // The member of a map or object; missing when there is none.
  Value member(std::string_view name) const;
  // What len says; -1 for what has no length.
  std::int64_t length() const;
  // As Go names the type: "float64", "[]interface {}".
  std::string_view type_name() const;

 private:
  explicit Value(Kind kind) : kind_(kind), int_(0) {}

  Kind kind_ = Kind::kMissing;
  bool prints_json_ = false;
  // NOLINTBEGIN(readability-identifier-naming): members of the class, whose types are named so
  union {
    bool bool_;
    std::int64_t int_ = 0;
    double float_;
    const char* text_;
    const api::JsonObject* map_;
    const Object* object_;
    Elements list_;
  };
  // NOLINTEND(readability-identifier-naming)
  std::size_t size_ = 0;  // of the text
};

struct Field {
  std::string_view name;       // in templates
  std::string_view json_name;  // empty: not in JSON
  bool omit_empty = false;     // in JSON
  Value value;
};

struct Object {
  std::span<const Field> fields;
  bool is_map = false;  // its names are data, in ascending order: a template may range over it
};

}  // namespace ollama::chat::go
