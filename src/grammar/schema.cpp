// JSON Schema to grammar.
#include <algorithm>
#include <array>
#include <cmath>
#include <deque>
#include <optional>
#include <set>

#include "grammar/formats.h"
#include "grammar/grammar.h"
#include "grammar/json_text.h"
#include "grammar/numbers.h"
#include "grammar/regex.h"
#include "grammar/schema_merge.h"

namespace ollama::grammar {
namespace {

using api::Json;
using api::JsonObject;
using JsonArray = boost::json::array;

// Subschemas looked at, and how deep one lies in another: what allOf and anyOf multiply counts.
constexpr std::size_t kMaxSchemas = 20'000;
constexpr int kMaxNesting = 60;
constexpr std::uint32_t kMaxCount = 1'000'000'000;
// Of a path in messages.
constexpr std::size_t kLongestPath = 1000;

// Keywords of JSON Schema that say which values are valid and are not enforced here.
constexpr std::array kUnsupported{"not",
                                  "if",
                                  "then",
                                  "else",
                                  "multipleOf",
                                  "patternProperties",
                                  "propertyNames",
                                  "contains",
                                  "minContains",
                                  "maxContains",
                                  "dependencies",
                                  "dependentRequired",
                                  "dependentSchemas",
                                  "unevaluatedItems",
                                  "unevaluatedProperties",
                                  "$dynamicRef",
                                  "$recursiveRef"};
constexpr std::array kTypes{"object", "array", "string", "number", "integer", "boolean", "null"};
// The keywords that say something of one type of value, which is meant where no type is given.
constexpr std::array<std::pair<std::string_view, std::string_view>, 20> kTypeOfKeyword{{
    {"properties", "object"},
    {"required", "object"},
    {"additionalProperties", "object"},
    {"minProperties", "object"},
    {"maxProperties", "object"},
    {"items", "array"},
    {"prefixItems", "array"},
    {"additionalItems", "array"},
    {"minItems", "array"},
    {"maxItems", "array"},
    {"uniqueItems", "array"},
    {"minLength", "string"},
    {"maxLength", "string"},
    {"pattern", "string"},
    {"format", "string"},
    {"minimum", "number"},
    {"maximum", "number"},
    {"exclusiveMinimum", "number"},
    {"exclusiveMaximum", "number"},
    {"contentEncoding", "string"},
}};

std::string_view type_of(const Json& value) {
  if (value.is_object()) return "object";
  if (value.is_array()) return "array";
  if (value.is_string()) return "string";
  if (value.is_bool()) return "boolean";
  return value.is_null() ? "null" : "number";
}

bool is_integer(const Json& value) {
  if (const double* number = value.if_double()) return std::floor(*number) == *number;
  return value.is_number();
}

std::uint64_t code_points(std::string_view text) {
  return static_cast<std::uint64_t>(std::ranges::count_if(
      text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

struct Counts {
  std::uint32_t min = 0;
  std::uint32_t max = kUnbounded;
};

class SchemaCompiler {
 public:
  explicit SchemaCompiler(const Json& root) : root_(root), json_(b_) {}

  Result<GrammarPtr> compile() {
    const RuleId start = reference("#");
    bool dead_end = false;
    while (!pending_.empty()) {
      const auto [pointer, rule] = pending_.front();
      pending_.pop_front();
      const Json* schema = resolve(pointer);
      if (schema == nullptr) {
        return fail(ErrorCode::kInvalidArgument,
                    "invalid schema: $ref \"{}\" leads nowhere; references lead to a place in the "
                    "schema itself, as in \"#/$defs/name\"",
                    shortened(pointer));
      }
      path_ = shortened(pointer, kLongestPath);
      auto body = value(*schema);
      if (!body) return fail(std::move(body));
      b_.define(rule, *body);
      if (b_.is_never(*body) && pointer == "#") return impossible_root();
      dead_end = dead_end || b_.is_never(*body);
    }
    auto grammar = b_.finish(start);
    if (!grammar && dead_end) return impossible_root();
    if (!grammar) return std::unexpected(grammar.error().with_context("invalid schema"));
    return grammar;
  }

 private:
  // ---- Errors

  template <typename T = Expression, typename... Args>
  Result<T> error(std::format_string<Args...> format, Args&&... args) const {
    return fail(ErrorCode::kInvalidArgument, "invalid schema, at {}: {}", path_,
                std::format(format, std::forward<Args>(args)...));
  }
  // No value is valid: only fatal where one must be. The first reason is the one to tell.
  template <typename... Args>
  Expression impossible(std::format_string<Args...> format, Args&&... args) {
    if (reason_.empty()) {
      reason_ = std::format("at {}: {}", path_, std::format(format, std::forward<Args>(args)...));
    }
    return b_.never();
  }
  Result<GrammarPtr> impossible_root() const {
    return fail(ErrorCode::kInvalidArgument, "no value can meet the schema; {}", reason_);
  }

  // Extends the path of messages as long as it lives, if it is not long already.
  class Step {
   public:
    Step(SchemaCompiler& compiler, std::string_view name)
        : path_(compiler.path_), length_(path_.size()) {
      if (length_ < kLongestPath) path_.append("/").append(shortened(name));
    }
    ~Step() { path_.resize(length_); }
    Step(const Step&) = delete;
    Step& operator=(const Step&) = delete;

   private:
    std::string& path_;
    std::size_t length_;
  };

  // ---- References

  RuleId reference(const std::string& pointer) {
    const auto [found, added] = references_.try_emplace(pointer);
    if (added) {
      found->second = b_.declare(pointer);
      pending_.emplace_back(pointer, found->second);
    }
    return found->second;
  }

  const Json* resolve(std::string_view pointer) const {
    if (!pointer.starts_with('#')) return nullptr;
    std::string decoded;
    for (std::size_t i = 1; i < pointer.size(); ++i) {
      unsigned code = 0;
      const char* digits = pointer.data() + i + 1;
      if (pointer[i] == '%' && i + 2 < pointer.size() &&
          std::from_chars(digits, digits + 2, code, 16).ptr == digits + 2) {
        decoded += static_cast<char>(code);
        i += 2;
      } else {
        decoded += pointer[i];
      }
    }
    if (decoded.empty()) return &root_;
    boost::system::error_code problem;
    const Json* found = root_.find_pointer(decoded, problem);
    return problem ? nullptr : found;
  }

  // ---- Any schema

  Result<Expression> value(const Json& schema) {  // NOLINT(misc-no-recursion): kMaxNesting
    OLLAMA_TRY(count());
    if (const bool* anything = schema.if_bool()) {
      return *anything ? json_.any_value() : impossible("false is what no value meets");
    }
    if (!schema.is_object()) return error("a schema is an object, true or false");
    return nested([&] { return combined(schema); });  // NOLINT(misc-no-recursion)
  }
  Result<> count() {
    if (++schemas_ > kMaxSchemas) return error<void>("the schema is too large");
    return {};
  }
  // What `make` makes, inside all that is being made.
  template <typename Make>
  Result<Expression> nested(Make make) {  // NOLINT(misc-no-recursion)
    if (nesting_ == kMaxNesting) {
      return error("more than {} schemas inside one another", kMaxNesting);
    }
    ++nesting_;
    auto expression = make();
    --nesting_;
    // What is used twice shall not be written twice.
    if (!expression) return expression;
    if (b_.too_large()) return error("{}", kTooLarge.message);
    return b_.shared(*expression, path_);
  }

  // What a schema says beside its references and alternatives.
  struct Parts {
    JsonObject own;
    std::vector<const JsonArray*> alternatives;  // one of each must hold
    std::vector<std::string> references;
    bool never = false;
  };

  Result<Expression> combined(const Json& schema) {  // NOLINT(misc-no-recursion)
    if (std::ranges::none_of(schema.get_object(),
                             [](const auto& member) { return combines(member.key()); })) {
      return plain(schema.get_object());
    }
    Parts parts;
    OLLAMA_TRY(gather(schema, parts, 0));
    if (!parts.never && parts.own.empty() && parts.alternatives.empty() &&
        parts.references.size() == 1) {
      return b_.call(reference(parts.references.front()));
    }
    return together(std::move(parts));
  }
  // Whether a keyword says more than what plain() enforces.
  static bool combines(std::string_view keyword) {
    static constexpr std::array kThese{"$ref",  "allOf",    "anyOf",          "oneOf",
                                       "const", "nullable", "contentEncoding"};
    return std::ranges::contains(kThese, keyword) || std::ranges::contains(kUnsupported, keyword);
  }

  // What meets all the parts, and what they refer to.
  Result<Expression> together(Parts parts) {  // NOLINT(misc-no-recursion)
    // Beside other keywords a reference is what it refers to.
    int followed = 0;
    while (!parts.references.empty()) {
      const std::string pointer = std::move(parts.references.back());
      parts.references.pop_back();
      const Json* target = resolve(pointer);
      if (target == nullptr) {
        return error("$ref \"{}\" leads nowhere in this schema", shortened(pointer));
      }
      if (++followed > kMaxNesting) {
        return error("$ref \"{}\" leads back to itself", shortened(pointer));
      }
      OLLAMA_TRY(gather(*target, parts, 0));
    }
    if (parts.never) return impossible("false is what no value meets");
    if (parts.alternatives.empty()) return plain(parts.own);

    const JsonArray& first = *parts.alternatives.front();
    parts.alternatives.erase(parts.alternatives.begin());
    if (first.empty()) return impossible("there is no alternative to choose");
    std::vector<Expression> options;
    for (std::size_t i = 0; i < first.size(); ++i) {
      const Json& alternative = first[i];
      const Step step(*this, std::format("anyOf/{}", i));
      const bool alone = parts.own.empty() && parts.alternatives.empty();
      OLLAMA_ASSIGN(const Expression option, alone ? value(alternative) : with(parts, alternative));
      options.push_back(option);
    }
    return b_.choice(options);
  }
  // One alternative beside all else.
  Result<Expression> with(const Parts& others,
                          const Json& alternative) {  // NOLINT(misc-no-recursion)
    OLLAMA_TRY(count());
    OLLAMA_TRY(take(others.own));
    OLLAMA_TRY(take(others.alternatives.size()));
    Parts parts{.own = others.own, .alternatives = {}, .references = {}};
    OLLAMA_TRY(gather(alternative, parts, 0));
    parts.alternatives.insert(parts.alternatives.end(), others.alternatives.begin(),
                              others.alternatives.end());
    return nested([&] { return together(std::move(parts)); });  // NOLINT(misc-no-recursion)
  }

  // Adds what `schema` says to `parts`, which must not outlive it.
  Result<> gather(const Json& schema, Parts& parts, int depth) {  // NOLINT(misc-no-recursion)
    if (const bool* anything = schema.if_bool()) {
      parts.never = parts.never || !*anything;
      return {};
    }
    if (!schema.is_object()) return error<void>("a schema is an object, true or false");
    if (depth == kMaxNesting || ++schemas_ > kMaxSchemas) {
      return error<void>("the schema is too large");
    }
    JsonObject own;
    const JsonArray* all = nullptr;  // after its own, whose properties come first
    for (const auto& [key, item] : schema.get_object()) {
      const std::string_view name = key;
      if (std::ranges::contains(kUnsupported, name)) {
        return error<void>("\"{}\" is not supported", name);
      }
      if (name == "$ref") {
        if (!item.is_string()) return error<void>("\"$ref\" is a string");
        OLLAMA_TRY(take(item));
        parts.references.emplace_back(item.get_string());
      } else if (name == "allOf" || name == "anyOf" || name == "oneOf") {
        if (!item.is_array()) return error<void>("\"{}\" is an array of schemas", name);
        if (name == "allOf") {
          all = &item.get_array();
        } else {
          parts.alternatives.push_back(&item.get_array());
        }
      } else if (name == "const") {
        OLLAMA_TRY(take(item));
        OLLAMA_TRY(merge({{"enum", JsonArray{item}}}, parts.own));
      } else if (name == "nullable") {
        // OpenAPI's way to allow null, beside whatever the type is.
        if (item == true) OLLAMA_TRY(allow_null(own, schema.get_object()));
      } else if (says_something(name) && !own.contains(name)) {
        OLLAMA_TRY(take(item));
        own[name] = item;
      }
    }
    OLLAMA_TRY(merge(std::move(own), parts.own));
    if (all == nullptr) return {};
    for (const Json& part : *all) OLLAMA_TRY(gather(part, parts, depth + 1));
    return {};
  }
  static bool says_something(std::string_view keyword) {
    return keyword == "type" || keyword == "enum" ||
           (keyword != "contentEncoding" &&
            std::ranges::contains(kTypeOfKeyword, keyword, [](const auto& p) { return p.first; }));
  }
  // Of the budget for copies.
  Result<> take(const auto& what) {
    auto taken = copies_.take(what);
    if (!taken) return error<void>("{}", taken.error().message());
    return taken;
  }
  Result<> merge(JsonObject schema, JsonObject& into) {
    if (into.empty()) {
      into = std::move(schema);
      return {};
    }
    if (schema.empty()) return {};
    auto merged = merge_schemas(into, schema, copies_);
    if (!merged) return error<void>("{}", merged.error().message());
    into = std::move(*merged);
    return {};
  }
  Result<> allow_null(JsonObject& own, const JsonObject& schema) const {
    const Json* type = schema.if_contains("type");
    if (type == nullptr) return error<void>("\"nullable\" needs a \"type\" beside it");
    JsonArray types = type->is_array() ? type->get_array() : JsonArray{*type};
    types.push_back("null");
    own["type"] = std::move(types);
    return {};
  }

  // ---- A schema that is keywords alone

  Result<Expression> plain(const JsonObject& schema) {  // NOLINT(misc-no-recursion)
    // References bring it here again and again.
    for (const char* keyword : {"type", "enum", "required"}) {
      if (const Json* item = schema.if_contains(keyword)) OLLAMA_TRY(take(*item));
    }
    OLLAMA_ASSIGN(const std::set<std::string_view> types, types_of(schema));
    if (const Json* values = schema.if_contains("enum")) return enumeration(schema, *values, types);
    if (types.empty() && !schema.contains("type")) return json_.any_value();
    if (types.empty()) return impossible("no type is left that all of it allows");
    std::vector<Expression> options;
    for (const std::string_view type : types) {
      OLLAMA_ASSIGN(const Expression option, of_type(type, schema));
      options.push_back(option);
    }
    return b_.choice(options);
  }

  // The types that values may have; none with an empty schema, which means any.
  Result<std::set<std::string_view>> types_of(const JsonObject& schema) const {
    std::set<std::string_view> types;
    const Json* given = schema.if_contains("type");
    if (given == nullptr) {
      for (const auto& [keyword, type] : kTypeOfKeyword) {
        if (schema.contains(keyword)) types.insert(type);
      }
      return types;
    }
    const JsonArray list = given->is_array() ? given->get_array() : JsonArray{*given};
    for (const Json& type : list) {
      if (!type.is_string() ||
          !std::ranges::contains(kTypes, std::string_view(type.get_string()))) {
        return error<std::set<std::string_view>>(
            "{} is no type; types are object, array, string, number, integer, boolean and null",
            shortened(api::to_string(type)));
      }
      types.insert(*std::ranges::find(kTypes, std::string_view(type.get_string())));
    }
    if (types.contains("number")) types.erase("integer");
    return types;
  }

  // NOLINTNEXTLINE(misc-no-recursion)
  Result<Expression> of_type(std::string_view type, const JsonObject& schema) {
    if (type == "object") return object(schema);
    if (type == "array") return array(schema);
    if (type == "string") return string(schema);
    if (type == "boolean") return b_.literals({"true", "false"});
    if (type == "null") return b_.literal("null");
    return number(schema, type == "integer");
  }

  // ---- Keywords' values

  Result<Counts> counts(const JsonObject& schema, std::string_view min_key,
                        std::string_view max_key) const {
    Counts found;
    for (const auto& [key, out] :
         {std::pair(min_key, &found.min), std::pair(max_key, &found.max)}) {
      const Json* item = schema.if_contains(key);
      if (item == nullptr) continue;
      const double number = item->is_number() ? item->to_number<double>() : -1;
      if (!(number >= 0) || std::floor(number) != number) {
        return error<Counts>("\"{}\" is a whole number from 0", key);
      }
      // More than that is never said.
      *out = static_cast<std::uint32_t>(std::min<double>(number, kMaxCount));
      if (out == &found.max && number >= kMaxCount) *out = kUnbounded;
    }
    return found;
  }

  struct Bounds {
    NumberRange range;
    bool none = false;  // no number is within them
  };
  Result<Bounds> number_bounds(const JsonObject& schema, bool integer) const {
    Bounds bounds{.range = {.low = {}, .high = {}, .integer = integer}};
    for (const bool low : {true, false}) {
      for (const bool exclusive : {false, true}) {
        const std::string_view key = low ? (exclusive ? "exclusiveMinimum" : "minimum")
                                         : (exclusive ? "exclusiveMaximum" : "maximum");
        const Json* item = schema.if_contains(key);
        if (item == nullptr) continue;
        if (!item->is_number()) return error<Bounds>("\"{}\" is a number", key);
        auto decimal = Decimal::parse(*item);
        if (!decimal) return error<Bounds>("{}", decimal.error().message());
        if (decimal->huge()) {
          if (decimal->negative != low) bounds.none = true;
          continue;
        }
        std::optional<Bound>& bound = low ? bounds.range.low : bounds.range.high;
        const int order = bound ? compare(*decimal, bound->value) : 0;
        // The narrower one counts.
        if (!bound || (low ? order > 0 : order < 0) || order == 0) bound = {*decimal, exclusive};
      }
    }
    return bounds;
  }

  // ---- Scalars

  Result<Expression> number(const JsonObject& schema, bool integer) {
    OLLAMA_ASSIGN(const Bounds bounds, number_bounds(schema, integer));
    const NumberRange& range = bounds.range;
    if (!bounds.none && !range.low && !range.high) {
      return integer ? json_.integer() : json_.number();
    }
    const Expression within = bounds.none ? b_.never() : bounded_number(range, b_);
    if (!b_.is_never(within)) return within;
    return impossible("no {} is within its minimum and maximum", integer ? "integer" : "number");
  }

  Result<Expression> string(const JsonObject& schema) {
    OLLAMA_ASSIGN(const Counts length, counts(schema, "minLength", "maxLength"));
    if (length.min > length.max) {
      return impossible("minLength {} is above maxLength {}", length.min, length.max);
    }
    const Json* pattern = schema.if_contains("pattern");
    const Json* format = schema.if_contains("format");
    for (const auto& [key, item] : {std::pair("pattern", pattern), std::pair("format", format)}) {
      if (item != nullptr && !item->is_string()) return error("\"{}\" is a string", key);
    }
    const std::optional<std::string> form =
        format == nullptr ? std::nullopt : format_pattern(format->get_string(), kUnbounded);
    if (pattern == nullptr && !form) return json_.string(length.min, length.max);
    if (pattern != nullptr && form) {
      return error("\"pattern\" and \"format\": \"{}\" cannot be enforced together",
                   std::string_view(format->get_string()));
    }
    if (pattern != nullptr) OLLAMA_TRY(take(pattern->get_string().size()));
    auto content = compile_pattern(form ? *form : std::string_view(pattern->get_string()),
                                   {length.min, length.max}, b_, json_);
    if (!content) return error("{}", content.error().message());
    if (b_.is_never(*content)) return impossible("no string matches its pattern and length");
    return json_.quoted(*content);
  }

  Result<Expression> enumeration(const JsonObject& schema, const Json& values,
                                 const std::set<std::string_view>& types) {
    if (!values.is_array()) return error("\"enum\" is an array");
    if (values.get_array().empty()) return impossible("enum has no value that may be taken");
    std::vector<std::string> texts;
    for (const Json& item : values.get_array()) {
      OLLAMA_ASSIGN(const bool fits, allows(schema, item, types));
      if (fits) texts.push_back(api::to_string(item));
    }
    if (texts.empty()) return impossible("no value of enum meets the other keywords beside it");
    return b_.literals(std::move(texts));
  }

  // Whether a value of an enum meets the keywords beside it.
  Result<bool> allows(const JsonObject& schema, const Json& value,
                      const std::set<std::string_view>& types) const {
    const std::string_view type = type_of(value);
    if (schema.contains("type") && !types.contains(type) &&
        !(type == "number" && is_integer(value) && types.contains("integer"))) {
      return false;
    }
    if (type == "number") {
      OLLAMA_ASSIGN(const Bounds bounds, number_bounds(schema, false));
      if (bounds.none) return false;
      const auto& [low, high, _] = bounds.range;
      if (!low && !high) return true;
      OLLAMA_ASSIGN(const Decimal number, Decimal::parse(value));
      const int above = low ? compare(number, low->value) : 1;
      const int below = high ? compare(high->value, number) : 1;
      return above >= (low && low->exclusive ? 1 : 0) && below >= (high && high->exclusive ? 1 : 0);
    }
    if (type == "string") {
      OLLAMA_ASSIGN(const Counts length, counts(schema, "minLength", "maxLength"));
      const std::uint64_t size = code_points(std::string_view(value.get_string()));
      if (size < length.min || size > length.max) return false;
    }
    for (const auto& [keyword, of] : kTypeOfKeyword) {
      const Json* rule = of == type ? schema.if_contains(keyword) : nullptr;
      if (rule == nullptr || keyword == "minLength" || keyword == "maxLength") continue;
      // A format that is not known binds nothing.
      const bool binds =
          keyword != "format" ||
          (rule->is_string() && format_pattern(rule->get_string(), kUnbounded).has_value());
      if (binds) return error<bool>("\"{}\" beside \"enum\" is not supported", keyword);
    }
    return true;
  }

  // ---- Arrays

  Result<Expression> array(const JsonObject& schema) {  // NOLINT(misc-no-recursion)
    OLLAMA_ASSIGN(Counts count, counts(schema, "minItems", "maxItems"));
    if (count.min > count.max) {
      return impossible("minItems {} is above maxItems {}", count.min, count.max);
    }
    if (const Json* unique = schema.if_contains("uniqueItems");
        unique != nullptr && *unique == true) {
      return error("\"uniqueItems\" is not supported");
    }
    const Json* items = schema.if_contains("items");
    const Json* prefix = schema.if_contains("prefixItems");
    if (prefix == nullptr && items != nullptr && items->is_array()) {
      // Until draft 2019-09.
      prefix = items;
      items = schema.if_contains("additionalItems");
    }
    if (prefix != nullptr && !prefix->is_array()) return error("\"prefixItems\" is an array");
    if (prefix != nullptr && !prefix->get_array().empty()) {
      return tuple(prefix->get_array(), items, count);
    }
    OLLAMA_ASSIGN(const Expression element, element_of(items));
    if (b_.is_never(element)) {
      if (count.min > 0) return b_.never();
      count.max = 0;
    }
    return json_.list('[', element, count.min, count.max, ']');
  }

  Result<Expression> element_of(const Json* items) {  // NOLINT(misc-no-recursion)
    if (items == nullptr) return json_.any_value();
    const Step step(*this, "items");
    return value(*items);
  }

  // Elements with schemas of their own, then those of `items`.
  // NOLINTNEXTLINE(misc-no-recursion)
  Result<Expression> tuple(const JsonArray& prefix, const Json* items, Counts count) {
    if (prefix.size() > 200) return error("\"prefixItems\" has more than 200 elements");
    const Expression comma = b_.sequence({b_.literal(","), json_.space()});
    const auto size = static_cast<std::uint32_t>(prefix.size());
    OLLAMA_ASSIGN(const Expression element, element_of(items));
    const auto past = [&](std::uint32_t n) { return n == kUnbounded ? n : n - std::min(n, size); };
    Expression rest =
        b_.repeat(b_.sequence({comma, element, json_.space()}), past(count.min), past(count.max));
    for (std::uint32_t i = size; i > 0; --i) {
      if (i > count.max) {
        rest = b_.empty();
        continue;
      }
      const Step step(*this, std::format("prefixItems/{}", i - 1));
      OLLAMA_ASSIGN(const Expression part, value(prefix[i - 1]));
      rest = b_.sequence({i == 1 ? json_.space() : comma, part, json_.space(), rest});
      if (i > count.min) rest = b_.optional(rest);
    }
    // Nothing at all has room for a space as well.
    if (count.max == 0) rest = json_.space();
    return b_.sequence({b_.literal("["), rest, b_.literal("]")});
  }

  // ---- Objects

  struct Property {
    std::string name;
    Expression member;
    bool required = false;
  };

  Result<Expression> object(const JsonObject& schema) {  // NOLINT(misc-no-recursion)
    OLLAMA_ASSIGN(const Counts count, counts(schema, "minProperties", "maxProperties"));
    if (count.min > count.max) {
      return impossible("minProperties {} is above maxProperties {}", count.min, count.max);
    }
    std::vector<std::string> names;  // also of those that no value has
    OLLAMA_ASSIGN(std::optional<std::vector<Property>> known, properties(schema, names));
    if (!known) return b_.never();
    OLLAMA_ASSIGN(const Expression others, other_properties(schema, names));
    OLLAMA_ASSIGN(const Counts extra, fit_count(*known, count, !b_.is_never(others)));
    if (extra.min > extra.max) {
      return impossible(
          "there are too few or too many properties for minProperties {} and "
          "maxProperties {}",
          count.min, count.max);
    }
    if (known->empty()) {
      const Expression member = b_.sequence({b_.literal("\""), others});
      return json_.list('{', member, extra.min, extra.max, '}');
    }
    return members(*known, b_.is_never(others) ? b_.never() : others, extra);
  }

  // The properties by name, in order, without those that no value has. nullopt: one of those is
  // required.
  // NOLINTNEXTLINE(misc-no-recursion)
  Result<std::optional<std::vector<Property>>> properties(const JsonObject& schema,
                                                          std::vector<std::string>& names) {
    using Found = std::optional<std::vector<Property>>;
    static const Json anything(true);
    OLLAMA_ASSIGN(const std::vector<std::string> required, required_of(schema));
    const std::set<std::string_view> must_be(required.begin(), required.end());
    std::set<std::string, std::less<>> seen;
    std::vector<Property> found;
    const auto add = [&](std::string_view name, const Json& item) -> Result<bool> {
      const Step step(*this, std::format("properties/{}", name));
      OLLAMA_TRY(take(name.size()));
      const bool must = must_be.contains(name);
      seen.emplace(name);
      names.emplace_back(name);
      OLLAMA_ASSIGN(const Expression content, value(item));
      if (b_.is_never(content)) return !must;
      found.push_back({std::string(name), json_.member(name, content), must});
      return true;
    };
    if (const Json* given = schema.if_contains("properties")) {
      if (!given->is_object()) return error<Found>("\"properties\" is an object");
      for (const auto& [name, item] : given->get_object()) {
        OLLAMA_ASSIGN(const bool possible, add(name, item));
        if (!possible) return Found();
      }
    }
    for (const std::string& name : required) {
      if (seen.contains(name)) continue;
      const Json* additional = schema.if_contains("additionalProperties");
      if (additional != nullptr && *additional == false) {
        impossible("the property {} is required, and additionalProperties forbids it",
                   json_quoted(shortened(name)));
        return Found();
      }
      OLLAMA_ASSIGN(const bool possible, add(name, additional == nullptr ? anything : *additional));
      if (!possible) return Found();
    }
    return Found(std::move(found));
  }

  Result<std::vector<std::string>> required_of(const JsonObject& schema) const {
    std::vector<std::string> names;
    const Json* required = schema.if_contains("required");
    if (required == nullptr) return names;
    if (!required->is_array()) {
      return error<std::vector<std::string>>("\"required\" is an array of names");
    }
    for (const Json& name : required->get_array()) {
      if (!name.is_string()) {
        return error<std::vector<std::string>>("\"required\" is an array of names");
      }
      names.emplace_back(name.get_string());
    }
    return names;
  }

  // A property that the schema does not name; never() where there may be none. A schema with
  // properties means these and no others, unless it says so.
  // NOLINTNEXTLINE(misc-no-recursion)
  Result<Expression> other_properties(const JsonObject& schema,
                                      const std::vector<std::string>& names) {
    const Json* additional = schema.if_contains("additionalProperties");
    if (additional == nullptr && !names.empty()) return b_.never();
    const Step step(*this, "additionalProperties");
    if (additional == nullptr || *additional == true) {
      return json_.other_member(names, json_.any_value());
    }
    if (*additional == false) return b_.never();
    OLLAMA_ASSIGN(const Expression content, value(*additional));
    return b_.is_never(content) ? content : json_.other_member(names, content);
  }

  // Keeps to minProperties and maxProperties by what is simplest: optional properties are required,
  // or left out, and others are counted. The count of these; a minimum above the maximum: none.
  Result<Counts> fit_count(std::vector<Property>& known, Counts count, bool others) const {
    constexpr Counts kNone{1, 0};
    const auto required = static_cast<std::uint32_t>(
        std::ranges::count_if(known, [](const Property& p) { return p.required; }));
    if (required > count.max) return kNone;
    auto size = static_cast<std::uint32_t>(known.size());
    const auto kept = std::remove_if(known.rbegin(), known.rend(), [&](const Property& property) {
      const bool surplus = size > count.max && !property.required;
      if (surplus) --size;
      return surplus;
    });
    known.erase(known.begin(), kept.base());
    std::uint32_t missing = count.min - std::min(count.min, required);
    const std::uint32_t from_others = others ? 1 : 0;
    for (Property& property : known) {
      if (missing > from_others && !std::exchange(property.required, true)) --missing;
    }
    if (!others) return missing == 0 ? Counts{0, 0} : kNone;
    if (missing > 1) {
      // One name can come twice, and counts once.
      return error<Counts>(
          "\"minProperties\" cannot be enforced where it takes more than one property that the "
          "schema does not name");
    }
    return Counts{missing, count.max == kUnbounded ? kUnbounded : count.max - size};
  }

  // "{", the properties in order, the others, "}".
  Expression members(const std::vector<Property>& known, Expression others, Counts extra) {
    const Expression space = json_.space();
    const Expression quote = b_.literal("\"");
    const Expression comma = b_.sequence({b_.literal(","), space, quote});
    const Expression end = b_.literal("}");
    const auto one_less = [](std::uint32_t n) { return n == kUnbounded || n == 0 ? n : n - 1; };
    // A member that may come next, from behind its first quote, and all that follows it.
    Expression next = b_.never();
    if (extra.max > 0) {
      const Expression more =
          b_.repeat(b_.sequence({comma, others, space}), one_less(extra.min), one_less(extra.max));
      next = as_rule(b_.sequence({others, space, more, end}));
    }
    bool may_end = extra.min == 0;  // without any of them
    for (std::size_t i = known.size(); i > 0; --i) {
      const Property& property = known[i - 1];
      const Expression after = b_.choice({b_.sequence({comma, next}), may_end ? end : b_.never()});
      const Expression here = b_.sequence({property.member, space, after});
      next = as_rule(property.required ? here : b_.choice({here, next}));
      may_end = may_end && !property.required;
    }
    return b_.sequence({b_.literal("{"), space,
                        b_.choice({b_.sequence({quote, next}), may_end ? end : b_.never()})});
  }
  Expression as_rule(Expression body) {
    if (b_.is_never(body)) return body;
    const RuleId rule = b_.declare("members at " + path_);
    b_.define(rule, body);
    return b_.call(rule);
  }

  const Json& root_;
  Builder b_;
  JsonText json_;
  std::map<std::string, RuleId> references_;
  std::deque<std::pair<std::string, RuleId>> pending_;
  std::string path_;
  std::string reason_;
  std::size_t schemas_ = 0;
  CopyBudget copies_;
  int nesting_ = 0;
};

}  // namespace

Result<GrammarPtr> compile_schema(const api::Json& schema) {
  return SchemaCompiler(schema).compile();
}

Result<GrammarPtr> compile_json() {
  Builder builder;
  JsonText json(builder);
  const RuleId root = builder.declare("root");
  builder.define(root, json.any_object());
  return builder.finish(root);
}

Result<GrammarPtr> compile_format(const api::Json& format) {
  if (!format.is_string()) {
    if (format.is_object() || format.is_bool()) return compile_schema(format);
    return fail(ErrorCode::kInvalidArgument,
                "invalid format: it is \"json\", a JSON schema or a GBNF grammar");
  }
  const std::string_view text = format.get_string();
  if (text == "json") return compile_json();
  if (text.contains("::=")) return compile_gbnf(text);
  return fail(ErrorCode::kInvalidArgument,
              "invalid format: {}; expected \"json\", a JSON schema or a GBNF grammar",
              json_quoted(shortened(text)));
}

}  // namespace ollama::grammar
