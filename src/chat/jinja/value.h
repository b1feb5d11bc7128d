// Values of a template: 16 bytes, copied freely. What they point to lies in an arena, in the
// template or in the context, and is never changed but for namespaces, loops, cyclers and joiners.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>

#include "chat/jinja/runtime.h"

namespace ollama::chat::jinja {

enum class Kind : std::uint8_t {
  kMissing,    // no value at all: an argument not given, a variable not set yet
  kUndefined,  // Jinja's: prints as nothing, fails when used
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kList,
  kTuple,
  kGenerator,  // what a filter such as map gives; can be walked once
  kJsonArray,  // a list of the context
  kDict,
  kJsonObject,  // a dict of the context
  kRange,
  kView,  // a dict's keys(), values() or items()
  kNamespace,
  kLoop,
  kMacro,
  kGlobal,  // range, namespace, ...
  kMethod,  // bound to its object
  kCycler,
  kJoiner,
};

enum class GlobalId : std::uint8_t;
struct List;
struct Dict;
struct Range;
struct View;
struct LoopState;
struct Macro;
struct Method;
struct Cycler;
struct Joiner;

// Of an undefined value: what it stands for, which its error tells.
enum class Why : std::uint8_t { kName, kAttribute, kElement, kUnsafe, kParameter, kNothing };

class Value {
 public:
  Value() = default;
  explicit Value(bool value) : kind_(Kind::kBool) { data_.integer = value ? 1 : 0; }
  explicit Value(std::int64_t value) : kind_(Kind::kInt) { data_.integer = value; }
  explicit Value(double value) : kind_(Kind::kFloat) { data_.real = value; }
  // The text must outlive the value.
  explicit Value(std::string_view text) : Value(Kind::kString, text) {}
  explicit Value(const char*) = delete;

  static Value none() { return of(Kind::kNone, nullptr); }
  static Value undefined(Why why, std::string_view name, Kind of_kind = Kind::kMissing) {
    Value value(Kind::kUndefined, name);
    value.flags_ = static_cast<std::uint8_t>(why);
    value.other_ = of_kind;
    return value;
  }
  static Value safe(std::string_view text) {
    Value value(text);
    value.flags_ = 1;
    return value;
  }
  static Value global(GlobalId id) {
    Value value = of(Kind::kGlobal, nullptr);
    value.data_.integer = static_cast<std::int64_t>(id);
    return value;
  }
  static Value of(Kind kind, const void* pointer) {
    Value value;
    value.kind_ = kind;
    value.data_.pointer = pointer;
    return value;
  }

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool missing() const { return kind_ == Kind::kMissing; }
  bool undefined() const { return kind_ == Kind::kUndefined; }
  bool is_none() const { return kind_ == Kind::kNone; }
  bool string() const { return kind_ == Kind::kString; }
  // Python's bool is an int.
  bool integral() const { return kind_ == Kind::kInt || kind_ == Kind::kBool; }
  bool number() const { return integral() || kind_ == Kind::kFloat; }
  bool dict() const { return kind_ == Kind::kDict || kind_ == Kind::kJsonObject; }
  bool list() const { return kind_ == Kind::kList || kind_ == Kind::kJsonArray; }

  bool boolean() const { return data_.integer != 0; }
  std::int64_t integer() const { return data_.integer; }
  double real() const {
    return kind_ == Kind::kFloat ? data_.real : static_cast<double>(data_.integer);
  }
  std::string_view text() const { return {data_.text, size_}; }
  bool is_safe() const { return kind_ == Kind::kString && flags_ != 0; }
  Why why() const { return static_cast<Why>(flags_); }
  Kind undefined_of() const { return other_; }
  GlobalId global_id() const { return static_cast<GlobalId>(data_.integer); }
  const void* pointer() const { return data_.pointer; }

  const List& as_list() const {
    return *static_cast<const List*>(data_.pointer);
  }  // tuple, generator
  const Dict& as_dict() const { return *static_cast<const Dict*>(data_.pointer); }  // namespace
  Dict& as_namespace() const { return *static_cast<Dict*>(const_cast<void*>(data_.pointer)); }
  const boost::json::array& json_array() const {
    return *static_cast<const boost::json::array*>(data_.pointer);
  }
  const boost::json::object& json_object() const {
    return *static_cast<const boost::json::object*>(data_.pointer);
  }
  template <typename T>
  T& as() const {
    return *static_cast<T*>(const_cast<void*>(data_.pointer));
  }

 private:
  Value(Kind kind, std::string_view text)
      : kind_(kind), size_(static_cast<std::uint32_t>(text.size())) {
    data_.text = text.data();
  }

  Kind kind_ = Kind::kMissing;
  std::uint8_t flags_ = 0;
  Kind other_ = Kind::kMissing;
  std::uint32_t size_ = 0;
  union {
    std::int64_t integer;
    double real;
    const char* text;
    const void* pointer;
  } data_{.integer = 0};
};
static_assert(sizeof(Value) == 16);

struct List {
  std::span<const Value> items;
  bool walked = false;  // of a generator
  bool group = false;   // a tuple of groupby's, whose items are also `grouper` and `list`
};

struct Entry {
  Value key;
  Value value;
};

// Keeps the order in which keys were first set.
struct Dict {
  std::span<Entry> entries;  // capacity
  std::uint32_t size = 0;
  std::span<std::uint32_t> index;  // of larger ones: position + 1 by hash, linear probing

  std::span<const Entry> used() const { return entries.first(size); }
};

struct Range {
  std::int64_t start = 0;
  std::int64_t step = 1;
  std::int64_t size = 0;
  std::int64_t stop = 0;  // as it was given: only printing needs it
};

enum class ViewKind : std::uint8_t { kKeys, kValues, kItems };
struct View {
  Value dict;
  ViewKind kind = ViewKind::kKeys;
};

struct Cycler {
  std::span<const Value> items;
  std::size_t next = 0;
};
struct Joiner {
  Value separator;
  bool used = false;
};

// The JSON of a context as a value, which refers to it.
Value from_json(const boost::json::value& json);

// ---- Making values
Value make_list(Runtime& run, std::span<const Value> items, Kind kind = Kind::kList);
Value make_list(Runtime& run, std::initializer_list<Value> items, Kind kind = Kind::kList);
// Not copied: `items` must lie in the arena.
Value wrap_list(Runtime& run, std::span<const Value> items, Kind kind = Kind::kList);
Value make_string(Runtime& run, std::string_view text);

// ---- Dicts of either kind
// nullptr or the value's place; a key that cannot be hashed fails.
Value dict_find(Runtime& run, const Value& dict, const Value& key);  // kMissing where there is none
Value dict_find(const Value& dict, std::string_view key);
std::size_t dict_size(const Value& dict);
void dict_set(Runtime& run, Dict& dict, const Value& key, const Value& value);

// ---- Walking
// Walks whatever Python could: lists, tuples, dicts' keys, strings' characters, ... Undefined
// values are empty; others fail.
class Walk {
 public:
  Walk() = default;
  Walk(Runtime& run, const Value& value);
  bool next(Runtime& run, Value& item);
  // As next, but with a dict's item taken apart, if `value` is such a view.
  bool pairs() const { return pairs_; }
  bool next_pair(Value& key, Value& value);
  // How many there are in all, including those walked.
  std::size_t size() const { return size_; }

 private:
  Value entry(std::size_t index, bool value) const;

  Value of_;
  std::size_t index_ = 0;
  std::size_t size_ = 0;
  std::size_t byte_ = 0;  // of a string
  ViewKind view_ = ViewKind::kKeys;
  bool pairs_ = false;
};

// All items, in the arena.
std::span<const Value> to_items(Runtime& run, const Value& value);
// len(): fails for what has none.
std::size_t length(Runtime& run, const Value& value);
bool has_length(const Value& value);

bool truthy(const Value& value);
std::string_view type_name(Kind kind);  // Python's: "str", "dict", ...
// Fails with what an undefined value stands for.
[[noreturn]] void raise_undefined(const Value& value);
inline void require_defined(const Value& value) {
  if (value.undefined()) raise_undefined(value);
}

}  // namespace ollama::chat::jinja
