// JSON Schema to grammar.
#include <algorithm>
#include <array>
#include <bit>
#include <deque>
#include <optional>
#include <set>

#include "grammar/formats.h"
#include "grammar/grammar.h"
#include "grammar/json_text.h"
#include "grammar/keywords.h"
#include "grammar/language.h"
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
// Of a path in messages.
constexpr std::size_t kLongestPath = 1000;
// Patterns of patternProperties, each of which a key meets or does not.
constexpr std::size_t kMaxPatterns = 5;
// Of different values in an array: every set of them is a state.
constexpr std::size_t kMaxUnique = 10;

// Keywords of JSON Schema that say which values are valid and are not enforced here.
constexpr std::array kUnsupported{"not",
                                  "if",
                                  "contains",
                                  "dependencies",
                                  "dependentRequired",
                                  "dependentSchemas",
                                  "unevaluatedItems",
                                  "unevaluatedProperties",
                                  "$dynamicRef",
                                  "$recursiveRef"};
constexpr std::array kTypes{"object", "array", "string", "number", "integer", "boolean", "null"};
// The keywords that say something of one type of value, which is meant where no type is given.
constexpr std::array<std::pair<std::string_view, std::string_view>, 23> kTypeOfKeyword{{
    {"properties", "object"},
    {"required", "object"},
    {"additionalProperties", "object"},
    {"patternProperties", "object"},
    {"propertyNames", "object"},
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
    {"multipleOf", "number"},
    {"contentEncoding", "string"},
}};

class SchemaCompiler {
 public:
  explicit SchemaCompiler(const Json& root) : root_(root), json_(b_) {}

  Result<GrammarPtr> compile() {
    const RuleId start = reference("#");
    bool dead_end = false;
    while (!pending_.empty()) {
      const auto [pointer, rule] = pending_.front();
      pending_.pop_front();
      const Json* schema = target_of(root_, pointer);
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

  // A result of what does not know where in the schema it is.
  template <typename T>
  Result<T> here(Result<T> result) const {
    if (!result) return error<T>("{}", result.error().message());
    return result;
  }

  // What a schema says beside its references and alternatives.
  struct Parts {
    JsonObject own;
    std::vector<const JsonArray*> alternatives;  // one of each must hold
    std::vector<std::string> references;
    bool never = false;
  };

  Result<Expression> combined(const Json& schema) {  // NOLINT(misc-no-recursion)
    if (std::ranges::none_of(schema.get_object(), [](const auto& member) {
          return combines(member.key(), member.value());
        })) {
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
  // Whether a keyword says more than what plain() enforces, or less than it seems to.
  static bool combines(std::string_view keyword, const Json& value) {
    static constexpr std::array kThese{"$ref", "allOf", "anyOf", "oneOf", "const", "nullable"};
    return std::ranges::contains(kThese, keyword) || std::ranges::contains(kUnsupported, keyword) ||
           (is_of_type(keyword) && !says_something(keyword, value));
  }

  // What meets all the parts, and what they refer to.
  Result<Expression> together(Parts parts) {  // NOLINT(misc-no-recursion)
    OLLAMA_TRY(follow(parts));
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
    OLLAMA_TRY(gather(alternative, parts, 1));
    parts.alternatives.insert(parts.alternatives.end(), others.alternatives.begin(),
                              others.alternatives.end());
    return nested([&] { return together(std::move(parts)); });  // NOLINT(misc-no-recursion)
  }

  // Beside other keywords a reference is what it refers to.
  Result<> follow(Parts& parts) {
    int followed = 0;
    while (!parts.references.empty()) {
      const std::string pointer = std::move(parts.references.back());
      parts.references.pop_back();
      const Json* target = target_of(root_, pointer);
      if (target == nullptr) {
        return error<void>("$ref \"{}\" leads nowhere in this schema", shortened(pointer));
      }
      if (++followed > kMaxNesting) {
        return error<void>("$ref \"{}\" leads back to itself", shortened(pointer));
      }
      OLLAMA_TRY(gather(*target, parts, 1));
    }
    return {};
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
        OLLAMA_TRY(unsupported(name, item, schema.get_object(), own, parts, depth));
        continue;
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
      } else if (says_something(name, item) && !own.contains(name)) {
        OLLAMA_TRY(take(item));
        own[name] = item;
      }
    }
    OLLAMA_TRY(merge(std::move(own), parts.own));
    if (all == nullptr) return {};
    for (const Json& part : *all) OLLAMA_TRY(gather(part, parts, depth + 1));
    return {};
  }
  static bool is_of_type(std::string_view keyword) {
    return std::ranges::contains(kTypeOfKeyword, keyword, [](const auto& p) { return p.first; });
  }
  static bool says_something(std::string_view keyword, const Json& value) {
    if (keyword == "type" || keyword == "enum") return true;
    if (keyword == "patternProperties") return value != Json(JsonObject());
    if (keyword == "propertyNames") {
      return value != true && value != Json(JsonObject()) &&
             value != Json(JsonObject{{"type", "string"}});
    }
    return keyword != "contentEncoding" && is_of_type(keyword);
  }
  // Of the keywords that are not enforced, those forms that say nothing, or what others say too.
  Result<> unsupported(std::string_view name, const Json& item, const JsonObject& schema,
                       JsonObject& own, Parts& parts, int depth) {
    const bool composed =
        std::ranges::any_of(std::array{"allOf", "anyOf", "oneOf", "$ref"},
                            [&](const char* keyword) { return schema.contains(keyword); });
    if (name == "not" && (item == true || item == Json(JsonObject()))) {
      parts.never = true;
      return {};
    }
    if (name == "not" && item == false) return {};
    if (name == "if" && !schema.contains("then") && !schema.contains("else")) return {};
    if (name.starts_with("depend") && item == Json(JsonObject())) return {};
    if (name.starts_with("unevaluated")) {
      if (item == true) return {};
      const bool items = name == "unevaluatedItems";
      const std::string_view same = items ? "items" : "additionalProperties";
      // Beside allOf and its like it is about what they say as well, which is one schema here.
      if (!composed && !(items && schema.contains("items") && schema.at("items").is_array())) {
        if (schema.contains(same)) return {};
        OLLAMA_TRY(take(item));
        own[same] = item;
        return {};
      }
      if (!items && item == false && depth == 0) {
        own[name] = item;
        return {};
      }
    }
    return error<void>("\"{}\" is not supported", name);
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
    OLLAMA_TRY(check_joined(into, schema));
    for (const char* key : {"pattern", "format", "multipleOf"}) OLLAMA_TRY(join(key, into, schema));
    auto merged = merge_schemas(into, schema, copies_);
    if (!merged) return error<void>("{}", merged.error().message());
    into = std::move(*merged);
    return {};
  }
  // What one value must meet twice becomes a list in both.
  Result<> join(std::string_view key, JsonObject& a, JsonObject& b) {
    Json* one = a.if_contains(key);
    Json* other = b.if_contains(key);
    if (one == nullptr || other == nullptr || *one == *other) return {};
    Values seen;
    JsonArray all;
    for (const Json* list : {one, other}) {
      OLLAMA_TRY(take(*list));
      for (const Json& item : as_list(*list)) {
        if (seen.add(item)) all.push_back(item);
      }
    }
    *one = all;
    *other = std::move(all);
    return {};
  }
  // Which names patternProperties means depends on what stands beside it.
  Result<> check_joined(const JsonObject& a, const JsonObject& b) const {
    for (const auto& [one, other] : {std::pair(&a, &b), std::pair(&b, &a)}) {
      if (one->contains("propertyNames") && other->contains("propertyNames") &&
          one->at("propertyNames") != other->at("propertyNames")) {
        return error<void>("\"propertyNames\" is given twice, and only one can be enforced");
      }
      if (!one->contains("patternProperties")) continue;
      for (const char* key : {"properties", "additionalProperties", "patternProperties"}) {
        if (other->contains(key)) {
          return error<void>(
              "\"patternProperties\" and the \"{}\" of another schema cannot be enforced together",
              key);
        }
      }
    }
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
    for (const char* keyword : {"type", "enum", "required", "pattern", "format", "multipleOf"}) {
      if (const Json* item = schema.if_contains(keyword)) OLLAMA_TRY(take(*item));
    }
    OLLAMA_ASSIGN(const std::set<std::string_view> types, types_of(schema));
    if (const Json* values = schema.if_contains("enum")) return enumeration(schema, *values);
    if (types.empty() && !schema.contains("type") && !schema.contains("unevaluatedProperties")) {
      return json_.any_value();
    }
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

  // ---- Scalars

  Result<Expression> number(const JsonObject& schema, bool integer) {
    OLLAMA_ASSIGN(const NumberBounds bounds, here(number_bounds(schema, integer)));
    OLLAMA_ASSIGN(const std::vector<Multiple> factors, here(multiples(schema)));
    const NumberRange& range = bounds.range;
    if (!range.low && !range.high && factors.empty()) {
      return integer ? json_.integer() : json_.number();
    }
    const std::string_view kind = integer ? "integer" : "number";
    const Expression within = bounded_number(range, b_);
    if (b_.is_never(within)) return impossible("no {} is within its minimum and maximum", kind);
    if (factors.empty()) return within;
    return multiple_of(factors, range, kind);
  }

  Result<Expression> multiple_of(const std::vector<Multiple>& factors, NumberRange range,
                                 std::string_view kind) {
    // Every remainder at every digit is a state.
    constexpr std::size_t kDigitStates = 3000;
    constexpr std::size_t kFewDigits = 6;
    std::size_t remainders = 1;
    for (const Multiple& multiple : factors) {
      remainders = std::min(remainders * multiple.period(), kDigitStates);
    }
    if (remainders * kFewDigits > kDigitStates) {
      return error("\"multipleOf\" is too large to be enforced, beside others or by itself");
    }
    range.most_digits = std::min(Decimal::kMostDigits, kDigitStates / remainders);
    Term term = bounded_number(range, language_);
    const Term sign = language_.optional(language_.literal("-"));
    for (const Multiple& multiple : factors) {
      term = language_.both(term, language_.sequence({sign, language_.multiples(multiple)}));
    }
    auto written = language_.write(term, b_, json_);
    if (!written) return error("\"multipleOf\": {}", written.error().message());
    if (!b_.is_never(*written)) return written;
    return impossible("no {} of up to {} digits is within its minimum and maximum and a multiple",
                      kind, range.most_digits);
  }

  // Which of the keywords a schema has, and what it says by them.
  static std::string said(const JsonObject& schema, std::initializer_list<const char*> keywords) {
    std::string text;
    for (const char* keyword : keywords) {
      if (const Json* item = schema.if_contains(keyword)) {
        text += std::format(", \"{}\": {}", keyword, api::to_string(*item));
      }
    }
    return text;
  }

  Result<Expression> string(const JsonObject& schema) {
    OLLAMA_ASSIGN(const Counts length, here(counts(schema, "minLength", "maxLength")));
    if (length.min > length.max) {
      return impossible("minLength {} is above maxLength {}", length.min, length.max);
    }
    OLLAMA_ASSIGN(const std::vector<std::string> given, here(texts(schema, "pattern")));
    OLLAMA_ASSIGN(const std::vector<std::string> formats, here(texts(schema, "format")));
    for (const std::string& pattern : given) OLLAMA_TRY(take(pattern.size()));
    // Texts of the same kind are one rule, and the patterns of formats are read once.
    std::string key = std::format("{} {}", length.min, length.max);
    for (const auto* list : {&formats, &given}) {
      key += '\n';
      for (const std::string& text : *list) key += json_quoted(text);
    }
    const auto known = texts_.find(key);
    if (known != texts_.end()) return known->second;
    OLLAMA_ASSIGN(Expression made, text(schema, length, given, formats));
    if (b_.is_never(made)) return made;
    made = b_.shared(made, path_);
    texts_.emplace(std::move(key), made);
    return made;
  }

  Result<Expression> text(const JsonObject& schema, Counts length,
                          const std::vector<std::string>& given,
                          const std::vector<std::string>& formats) {
    std::vector<std::string> patterns = given;
    std::string names;  // of what is to be met
    const auto add_name = [&](std::string_view keyword, std::string_view text) {
      names += std::format("{}\"{}\": {}", names.empty() ? "" : ", ", keyword,
                           json_quoted(shortened(text)));
    };
    for (const std::string& format : formats) {
      auto pattern = format_pattern(format, length.max);
      if (!pattern) continue;
      patterns.push_back(std::move(*pattern));
      add_name("format", format);
    }
    if (patterns.empty()) return json_.string(length.min, length.max);
    for (const std::string& pattern : given) add_name("pattern", pattern);
    names = shortened(names, kLongestPath) + said(schema, {"minLength", "maxLength"});
    Expression content = b_.never();
    bool written = false;
    if (patterns.size() == 1) {
      OLLAMA_ASSIGN(const Pattern pattern, here(Pattern::parse(patterns.front())));
      const auto simple = pattern.write({length.min, length.max}, b_, json_);
      written = simple.has_value();
      content = simple.value_or(content);
    }
    if (!written) {
      OLLAMA_ASSIGN(const Term term, here(string_language(schema, language_)));
      auto made = language_.write(term, b_, json_);
      // A long text of a known format is rather given up than all of them.
      if (!made && patterns.size() > given.size() && length.min <= kShortText) {
        JsonObject shorter;
        for (const char* keyword : {"pattern", "format", "minLength"}) {
          if (const Json* item = schema.if_contains(keyword)) shorter[keyword] = *item;
        }
        shorter["maxLength"] = std::min(length.max, kShortText);
        OLLAMA_ASSIGN(const Term part, here(string_language(shorter, language_)));
        made = language_.write(part, b_, json_);
      }
      if (!made) return error("{}: {}", names, made.error().message());
      content = *made;
    }
    if (b_.too_large()) return error("{}", kTooLarge.message);
    if (b_.is_never(content)) return impossible("no string meets {}", names);
    return json_.quoted(content);
  }

  Result<Expression> enumeration(const JsonObject& schema, const Json& values) {
    if (!values.is_array()) return error("\"enum\" is an array");
    if (values.get_array().empty()) return impossible("enum has no value that may be taken");
    OLLAMA_ASSIGN(const std::vector<const Json*> kept, allowed(schema, values.get_array()));
    if (kept.empty()) return impossible("no value of enum meets the other keywords beside it");
    std::vector<std::string> texts;
    for (const Json* item : kept) texts.push_back(api::to_string(*item));
    return b_.literals(std::move(texts));
  }
  // The values of an enum that meet what stands beside it.
  Result<std::vector<const Json*>> allowed(const JsonObject& schema, const JsonArray& values) {
    return here(values_that_meet(root_, schema, values, language_, copies_));
  }

  // ---- Arrays

  Result<Expression> array(const JsonObject& schema) {  // NOLINT(misc-no-recursion)
    OLLAMA_ASSIGN(Counts count, here(counts(schema, "minItems", "maxItems")));
    if (count.min > count.max) {
      return impossible("minItems {} is above maxItems {}", count.min, count.max);
    }
    const Json* items = schema.if_contains("items");
    const Json* unique = schema.if_contains("uniqueItems");
    if (unique != nullptr && *unique == true && count.max > 1) {
      return unique_array(schema, items, count);
    }
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

  // An array whose elements are different: of a few values that an enum lists. Rules for every set
  // of those that are left.
  Result<Expression> unique_array(const JsonObject& schema, const Json* items, Counts count) {
    Parts parts;
    if (items != nullptr && !schema.contains("prefixItems")) {
      const Step step(*this, "items");
      OLLAMA_TRY(gather(*items, parts, 0));
      OLLAMA_TRY(follow(parts));
    }
    const Json* listed = parts.own.if_contains("enum");
    const JsonArray truths{false, true};
    if (listed == nullptr && parts.own == JsonObject{{"type", "boolean"}})
      parts.own["enum"] = truths;
    listed = parts.own.if_contains("enum");
    std::vector<const Json*> values;
    if (listed != nullptr && listed->is_array() && parts.alternatives.empty() && !parts.never) {
      OLLAMA_ASSIGN(values, allowed(parts.own, listed->get_array()));
      Values seen;
      std::erase_if(values, [&](const Json* item) { return !seen.add(*item); });
    }
    if (values.empty() || values.size() > kMaxUnique) {
      return error(
          "\"uniqueItems\" is enforced only where \"items\" is an enum of at most {} values, or "
          "\"maxItems\" is 1",
          kMaxUnique);
    }
    const std::size_t size = values.size();
    if (count.min > size) {
      return impossible("minItems {} is above the number of different values", count.min);
    }
    const Expression space = json_.space();
    const Expression comma = b_.sequence({b_.literal(","), space});
    std::vector<Expression> elements;
    for (const Json* item : values) {
      const RuleId rule = b_.declare("element at " + path_);
      b_.define(rule, b_.sequence({b_.literal(api::to_string(*item)), space}));
      elements.push_back(b_.call(rule));
    }
    // After the elements whose bits are set. Larger sets come first.
    std::vector<Expression> rest(std::size_t{1} << size);
    for (std::size_t set = rest.size(); set > 0; --set) {
      const std::size_t taken = set - 1;
      const auto have = static_cast<std::uint32_t>(std::popcount(taken));
      if (have > count.max) continue;
      std::vector<Expression> options;
      for (std::size_t i = 0; i < size && have < count.max; ++i) {
        const std::size_t bit = std::size_t{1} << i;
        if ((taken & bit) == 0) options.push_back(b_.sequence({elements[i], rest[taken | bit]}));
      }
      const Expression next = b_.choice(options);
      const Expression end = have >= count.min ? b_.literal("]") : b_.never();
      if (have == 0) return b_.sequence({b_.literal("["), space, b_.choice({end, next})});
      const RuleId rule = b_.declare("elements at " + path_);
      b_.define(rule, b_.choice({end, b_.sequence({comma, next})}));
      rest[taken] = b_.call(rule);
    }
    return b_.never();
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
    OLLAMA_ASSIGN(const Counts count, here(counts(schema, "minProperties", "maxProperties")));
    if (count.min > count.max) {
      return impossible("minProperties {} is above maxProperties {}", count.min, count.max);
    }
    OLLAMA_ASSIGN(const NameRules rules, name_rules(schema));
    std::vector<std::string> names;  // also of those that no value has
    OLLAMA_ASSIGN(std::optional<std::vector<Property>> known, properties(schema, rules, names));
    if (!known) return b_.never();
    OLLAMA_ASSIGN(const Expression others, other_properties(schema, rules, names));
    OLLAMA_ASSIGN(const Counts extra, fit_count(*known, count, !b_.is_never(others)));
    if (extra.min > extra.max) {
      return impossible("its properties are too few or too many for {}",
                        said(schema, {"minProperties", "maxProperties"}).substr(2));
    }
    if (known->empty()) {
      const Expression member = b_.sequence({b_.literal("\""), others});
      return json_.list('{', member, extra.min, extra.max, '}');
    }
    return members(*known, b_.is_never(others) ? b_.never() : others, extra);
  }

  // What propertyNames and patternProperties say of names.
  struct NameRules {
    std::optional<Term> allowed;
    std::vector<std::pair<Term, const Json*>> patterns;  // and the schemas of the values
  };
  Result<NameRules> name_rules(const JsonObject& schema) {  // NOLINT(misc-no-recursion)
    NameRules rules;
    if (const Json* names = schema.if_contains("propertyNames")) {
      const Step step(*this, "propertyNames");
      OLLAMA_ASSIGN(rules.allowed, allowed_names(*names));
    }
    const Json* patterns = schema.if_contains("patternProperties");
    if (patterns == nullptr) return rules;
    if (!patterns->is_object()) return error<NameRules>("\"patternProperties\" is an object");
    if (patterns->get_object().size() > kMaxPatterns) {
      return error<NameRules>("\"patternProperties\" has more than {} patterns", kMaxPatterns);
    }
    for (const auto& [text, item] : patterns->get_object()) {
      OLLAMA_TRY(take(text.size()));
      OLLAMA_ASSIGN(const Pattern pattern, here(Pattern::parse(text)));
      OLLAMA_ASSIGN(const Term term, here(pattern.language(language_)));
      rules.patterns.emplace_back(term, &item);
    }
    return rules;
  }
  Result<Term> allowed_names(const Json& names) {
    Parts parts;
    OLLAMA_TRY(gather(names, parts, 0));
    OLLAMA_TRY(follow(parts));
    if (!parts.alternatives.empty()) {
      return error<Term>("alternatives for names cannot be enforced; an enum or a pattern can");
    }
    OLLAMA_ASSIGN(const std::set<std::string_view> types, types_of(parts.own));
    if (parts.never || (!types.empty() && !types.contains("string"))) return language_.never();
    const Json* listed = parts.own.if_contains("enum");
    if (listed == nullptr || !listed->is_array()) {
      return here(string_language(parts.own, language_));
    }
    OLLAMA_ASSIGN(const std::vector<const Json*> kept, allowed(parts.own, listed->get_array()));
    std::vector<Term> options;
    for (const Json* item : kept) {
      if (item->is_string()) options.push_back(language_.literal(item->get_string()));
    }
    return language_.choice(options);
  }
  // Where a value has one schema, that; otherwise `joined`, which becomes all of them.
  Result<const Json*> one_schema(std::span<const Json* const> schemas, Json& joined) {
    if (schemas.size() == 1) return schemas.front();
    JsonArray all;
    for (const Json* schema : schemas) {
      OLLAMA_TRY(take(*schema));
      all.push_back(*schema);
    }
    joined = JsonObject{{"allOf", std::move(all)}};
    return &joined;
  }
  // The schema of a property: its own, if there is one, and those of the patterns that its name
  // matches; `others` where there is none. It may be `joined`.
  Result<const Json*> schema_of(std::string_view name, const Json* own, const NameRules& rules,
                                const Json& others, Json& joined) {
    std::vector<const Json*> all;
    if (own != nullptr) all.push_back(own);
    for (const auto& [pattern, item] : rules.patterns) {
      OLLAMA_ASSIGN(const bool matches, here(language_.contains(pattern, name)));
      if (matches) all.push_back(item);
    }
    if (all.empty()) return &others;
    return one_schema(all, joined);
  }

  // The properties by name, in order, without those that no value has. nullopt: one of those is
  // required.
  // NOLINTNEXTLINE(misc-no-recursion)
  Result<std::optional<std::vector<Property>>> properties(const JsonObject& schema,
                                                          const NameRules& rules,
                                                          std::vector<std::string>& names) {
    using Found = std::optional<std::vector<Property>>;
    OLLAMA_ASSIGN(const std::vector<std::string> required, required_of(schema));
    const std::set<std::string_view> must_be(required.begin(), required.end());
    std::set<std::string, std::less<>> seen;
    std::vector<Property> found;
    static const Json anything(true);
    const Json* additional = schema.if_contains("additionalProperties");
    const auto add = [&](std::string_view name, const Json* own) -> Result<bool> {
      const Step step(*this, std::format("properties/{}", name));
      OLLAMA_TRY(take(name.size()));
      const bool must = must_be.contains(name);
      seen.emplace(name);
      names.emplace_back(name);
      if (rules.allowed) {
        OLLAMA_ASSIGN(const bool may_be, here(language_.contains(*rules.allowed, name)));
        if (!may_be) {
          impossible("the property {} is required, and propertyNames forbids it",
                     json_quoted(shortened(name)));
          return !must;
        }
      }
      Json joined;
      OLLAMA_ASSIGN(
          const Json* item,
          schema_of(name, own, rules, additional == nullptr ? anything : *additional, joined));
      if (own == nullptr && *item == false) {
        impossible("the property {} is required, and additionalProperties forbids it",
                   json_quoted(shortened(name)));
        return false;
      }
      OLLAMA_ASSIGN(const Expression content, value(*item));
      if (b_.is_never(content)) return !must;
      found.push_back({std::string(name), json_.member(name, content), must});
      return true;
    };
    if (const Json* given = schema.if_contains("properties")) {
      if (!given->is_object()) return error<Found>("\"properties\" is an object");
      for (const auto& [name, item] : given->get_object()) {
        OLLAMA_ASSIGN(const bool possible, add(name, &item));
        if (!possible) return Found();
      }
    }
    for (const std::string& name : required) {
      if (seen.contains(name)) continue;
      OLLAMA_ASSIGN(const bool possible, add(name, nullptr));
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
  Result<Expression> other_properties(const JsonObject& schema, const NameRules& rules,
                                      const std::vector<std::string>& names) {
    static const Json anything(true);
    static const Json nothing(false);
    const Json* additional = schema.if_contains("additionalProperties");
    if (additional == nullptr) {
      const bool closed =
          !names.empty() || !rules.patterns.empty() || schema.contains("unevaluatedProperties");
      additional = closed ? &nothing : &anything;
    }
    if (rules.allowed || !rules.patterns.empty()) return named_by(rules, names, *additional);
    if (*additional == false) return b_.never();
    const Step step(*this, "additionalProperties");
    OLLAMA_ASSIGN(const Expression content, value(*additional));
    return b_.is_never(content) ? content : json_.other_member(names, content);
  }

  // For each choice of patterns, a property with a name that matches these and no others.
  // NOLINTNEXTLINE(misc-no-recursion)
  Result<Expression> named_by(const NameRules& rules, const std::vector<std::string>& names,
                              const Json& others) {
    std::vector<Term> known;
    for (const std::string& name : names) known.push_back(language_.literal(name));
    Term free = language_.complement(language_.choice(known));
    if (rules.allowed) free = language_.both(free, *rules.allowed);
    const std::string_view where = rules.patterns.empty() ? "propertyNames" : "patternProperties";
    std::vector<Expression> options;
    for (std::size_t matched = 0; matched < std::size_t{1} << rules.patterns.size(); ++matched) {
      Term name = free;
      std::vector<const Json*> schemas;
      for (std::size_t i = 0; i < rules.patterns.size(); ++i) {
        const auto& [pattern, item] = rules.patterns[i];
        const bool matches = ((matched >> i) & 1U) != 0;
        name = language_.both(name, matches ? pattern : language_.complement(pattern));
        if (matches) schemas.push_back(item);
      }
      if (matched == 0 && others == false) continue;
      auto key = language_.write(name, b_, json_);
      if (!key) return error("\"{}\": {}", where, key.error().message());
      if (b_.is_never(*key)) continue;
      const Step step(*this, matched == 0 ? "additionalProperties" : "patternProperties");
      Json joined;
      const Json* schema = &others;
      if (matched != 0) {
        OLLAMA_ASSIGN(schema, one_schema(schemas, joined));
      }
      OLLAMA_ASSIGN(const Expression content, value(*schema));
      if (!b_.is_never(content)) options.push_back(json_.keyed_member(*key, content));
    }
    return b_.choice(options);
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
  Language language_;
  std::map<std::string, RuleId> references_;
  std::map<std::string, Expression> texts_;
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
