#include "chat/jinja/value.h"

#include <bit>
#include <functional>

#include "chat/jinja/operators.h"
#include "chat/jinja/unicode.h"

namespace ollama::chat::jinja {

namespace {

// Beyond that many entries a dict has an index.
constexpr std::uint32_t kIndexedFrom = 9;

std::size_t hash_key(Runtime& run, const Value& key) {
  switch (key.kind()) {
    case Kind::kString:
      return std::hash<std::string_view>{}(key.text());
    case Kind::kBool:
    case Kind::kInt:
      return std::hash<double>{}(static_cast<double>(key.integer()));
    case Kind::kFloat:
      return std::hash<double>{}(key.real());
    case Kind::kTuple: {
      const Nested nested(run);
      run.charge(key.as_list().items.size());
      std::size_t hash = 17;
      for (const Value& item : key.as_list().items) hash = hash * 31 + hash_key(run, item);
      return hash;
    }
    case Kind::kList:
    case Kind::kJsonArray:
    case Kind::kDict:
    case Kind::kJsonObject:
    case Kind::kView:
      raise("unhashable type: '{}'", type_name(key.kind()));
    default:
      return static_cast<std::size_t>(key.kind());
  }
}

std::uint32_t* index_slot(Runtime& run, const Dict& dict, const Value& key) {
  const std::size_t mask = dict.index.size() - 1;
  std::size_t at = hash_key(run, key) & mask;
  while (dict.index[at] != 0 && !equal(run, dict.entries[dict.index[at] - 1].key, key)) {
    run.charge(1);
    at = (at + 1) & mask;
  }
  return &dict.index[at];
}

Entry* find_entry(Runtime& run, const Dict& dict, const Value& key) {
  if (!dict.index.empty()) {
    const std::uint32_t at = *index_slot(run, dict, key);
    return at == 0 ? nullptr : &dict.entries[at - 1];
  }
  (void)hash_key(run, key);
  for (Entry& entry : dict.entries.first(dict.size)) {
    if (equal(run, entry.key, key)) return &entry;
  }
  return nullptr;
}

void grow(Runtime& run, Dict& dict) {
  const std::size_t capacity = dict.entries.empty() ? 4 : dict.entries.size() * 2;
  const std::span<Entry> entries = run.arena.array<Entry>(capacity);
  std::ranges::copy(dict.used(), entries.begin());
  dict.entries = entries;
  if (capacity < kIndexedFrom) return;
  dict.index = run.arena.array<std::uint32_t>(capacity * 2);
  for (std::uint32_t i = 0; i < dict.size; ++i) {
    *index_slot(run, dict, dict.entries[i].key) = i + 1;
  }
}

}  // namespace

Value from_json(const boost::json::value& json) {
  switch (json.kind()) {
    case boost::json::kind::null:
      return Value::none();
    case boost::json::kind::bool_:
      return Value(json.get_bool());
    case boost::json::kind::int64:
      return Value(json.get_int64());
    case boost::json::kind::uint64:
      if (std::cmp_less_equal(json.get_uint64(), INT64_MAX)) {
        return Value(static_cast<std::int64_t>(json.get_uint64()));
      }
      return Value(static_cast<double>(json.get_uint64()));
    case boost::json::kind::double_:
      return Value(json.get_double());
    case boost::json::kind::string:
      return Value(std::string_view(json.get_string()));
    case boost::json::kind::array:
      return Value::of(Kind::kJsonArray, &json.get_array());
    case boost::json::kind::object:
      return Value::of(Kind::kJsonObject, &json.get_object());
  }
  return Value::none();
}

Value wrap_list(Runtime& run, std::span<const Value> items, Kind kind) {
  return Value::of(kind, run.arena.make<List>(List{.items = items}));
}
Value make_list(Runtime& run, std::span<const Value> items, Kind kind) {
  const std::span<Value> copy = run.arena.array<Value>(items.size());
  std::ranges::copy(items, copy.begin());
  return wrap_list(run, copy, kind);
}
Value make_list(Runtime& run, std::initializer_list<Value> items, Kind kind) {
  return make_list(run, std::span(items.begin(), items.size()), kind);
}
Value make_string(Runtime& run, std::string_view text) { return Value(run.arena.copy(text)); }

Value dict_find(const Value& dict, std::string_view key) {
  if (dict.is(Kind::kJsonObject)) {
    const boost::json::object& object = dict.json_object();
    const auto* const found = object.if_contains(key);
    return found == nullptr ? Value() : from_json(*found);
  }
  const Dict& own = dict.as_dict();
  if (!own.index.empty()) {
    const std::size_t mask = own.index.size() - 1;
    for (std::size_t at = std::hash<std::string_view>{}(key)&mask; own.index[at] != 0;
         at = (at + 1) & mask) {
      const Entry& entry = own.entries[own.index[at] - 1];
      if (entry.key.string() && entry.key.text() == key) return entry.value;
    }
    return {};
  }
  for (const Entry& entry : own.used()) {
    if (entry.key.string() && entry.key.text() == key) return entry.value;
  }
  return {};
}

Value dict_find(Runtime& run, const Value& dict, const Value& key) {
  if (key.string()) return dict_find(dict, key.text());
  if (dict.is(Kind::kJsonObject)) {
    (void)hash_key(run, key);
    return {};
  }
  const Entry* entry = find_entry(run, dict.as_dict(), key);
  return entry == nullptr ? Value() : entry->value;
}

std::size_t dict_size(const Value& dict) {
  return dict.is(Kind::kJsonObject) ? dict.json_object().size() : dict.as_dict().size;
}

void dict_set(Runtime& run, Dict& dict, const Value& key, const Value& value) {
  run.charge(1);
  if (Entry* entry = find_entry(run, dict, key)) {
    entry->value = value;
    return;
  }
  if (dict.size == dict.entries.size()) grow(run, dict);
  dict.entries[dict.size] = {.key = key, .value = value};
  ++dict.size;
  if (!dict.index.empty()) *index_slot(run, dict, key) = dict.size;
}

Walk::Walk(Runtime& run, const Value& value) : of_(value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      break;
    case Kind::kGenerator:
      if (value.as_list().walked) break;
      value.as<List>().walked = true;
      [[fallthrough]];
    case Kind::kList:
    case Kind::kTuple:
      size_ = value.as_list().items.size();
      break;
    case Kind::kView:
      of_ = value.as<View>().dict;
      view_ = value.as<View>().kind;
      pairs_ = view_ == ViewKind::kItems;
      [[fallthrough]];
    default:
      size_ = length(run, value);
      if (!of_.string() && !of_.dict() && !of_.is(Kind::kRange) && !of_.is(Kind::kJsonArray)) {
        raise("'{}' object is not iterable", type_name(value.kind()));
      }
      if (of_.dict()) run.charge(size_);
  }
}

Value Walk::entry(std::size_t index, bool value) const {
  if (of_.is(Kind::kJsonObject)) {
    const auto& pair = of_.json_object().begin()[index];
    return value ? from_json(pair.value()) : Value(std::string_view(pair.key()));
  }
  const Entry& entry = of_.as_dict().entries[index];
  return value ? entry.value : entry.key;
}

bool Walk::next_pair(Value& key, Value& value) {
  if (index_ >= size_) return false;
  key = entry(index_, false);
  value = entry(index_, true);
  ++index_;
  return true;
}

bool Walk::next(Runtime& run, Value& item) {
  if (index_ >= size_) return false;
  run.charge(1);
  switch (of_.kind()) {
    case Kind::kJsonArray:
      item = from_json(of_.json_array()[index_]);
      break;
    case Kind::kDict:
    case Kind::kJsonObject:
      if (pairs_) {
        item = make_list(run, {entry(index_, false), entry(index_, true)}, Kind::kTuple);
      } else {
        item = entry(index_, view_ == ViewKind::kValues);
      }
      break;
    case Kind::kRange: {
      const Range& range = of_.as<Range>();
      item = Value(range.start + static_cast<std::int64_t>(index_) * range.step);
      break;
    }
    case Kind::kString: {
      const std::string_view rest = of_.text().substr(byte_);
      const std::size_t bytes = character_length(rest);
      item = Value(rest.substr(0, bytes));
      byte_ += bytes;
      break;
    }
    default:
      item = of_.as_list().items[index_];
  }
  ++index_;
  return true;
}

std::span<const Value> to_items(Runtime& run, const Value& value) {
  if (value.is(Kind::kList) || value.is(Kind::kTuple)) return value.as_list().items;
  Walk walk(run, value);
  run.charge(walk.size());
  const std::span<Value> items = run.arena.array<Value>(walk.size());
  for (Value& item : items) walk.next(run, item);
  return items;
}

bool has_length(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kString:
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kJsonArray:
    case Kind::kDict:
    case Kind::kJsonObject:
    case Kind::kRange:
    case Kind::kView:
      return true;
    default:
      return false;
  }
}

std::size_t length(Runtime& run, const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return 0;
    case Kind::kString:
      run.charge_bytes(value.text().size());
      return count_characters(value.text());
    case Kind::kList:
    case Kind::kTuple:
      return value.as_list().items.size();
    case Kind::kJsonArray:
      return value.json_array().size();
    case Kind::kDict:
    case Kind::kJsonObject:
      return dict_size(value);
    case Kind::kRange:
      return static_cast<std::size_t>(value.as<Range>().size);
    case Kind::kView:
      return dict_size(value.as<View>().dict);
    default:
      raise("object of type '{}' has no len()", type_name(value.kind()));
  }
}

bool truthy(const Value& value) {
  switch (value.kind()) {
    case Kind::kMissing:
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInt:
      return value.integer() != 0;
    case Kind::kFloat:
      return value.real() != 0;
    case Kind::kString:
      return !value.text().empty();
    case Kind::kList:
    case Kind::kTuple:
      return !value.as_list().items.empty();
    case Kind::kJsonArray:
      return !value.json_array().empty();
    case Kind::kDict:
    case Kind::kJsonObject:
      return dict_size(value) != 0;
    case Kind::kRange:
      return value.as<Range>().size != 0;
    case Kind::kView:
      return dict_size(value.as<View>().dict) != 0;
    default:
      return true;
  }
}

std::string_view type_name(Kind kind) {
  switch (kind) {
    case Kind::kMissing:
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return "str";
    case Kind::kList:
    case Kind::kJsonArray:
      return "list";
    case Kind::kTuple:
      return "tuple";
    case Kind::kGenerator:
      return "generator";
    case Kind::kDict:
    case Kind::kJsonObject:
      return "dict";
    case Kind::kRange:
      return "range";
    case Kind::kView:
      return "dict view";
    case Kind::kNamespace:
      return "Namespace";
    case Kind::kLoop:
      return "LoopContext";
    case Kind::kMacro:
      return "Macro";
    case Kind::kGlobal:
      return "function";
    case Kind::kMethod:
      return "method";
    case Kind::kCycler:
      return "Cycler";
    case Kind::kJoiner:
      return "Joiner";
  }
  return "object";
}

void raise_undefined(const Value& value) {
  switch (value.why()) {
    case Why::kName:
      raise("'{}' is undefined", value.text());
    case Why::kAttribute:
      raise("'{} object' has no attribute '{}'", type_name(value.undefined_of()), value.text());
    case Why::kElement:
      raise("'{} object' has no element '{}'", type_name(value.undefined_of()), value.text());
    case Why::kUnsafe:
      raise("access to attribute '{}' of '{}' object is unsafe", value.text(),
            type_name(value.undefined_of()));
    case Why::kParameter:
      raise("parameter '{}' was not provided", value.text());
    case Why::kNothing:
      break;
  }
  raise("{}", value.text());
}

}  // namespace ollama::chat::jinja
