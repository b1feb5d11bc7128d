#include "grammar/keywords.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>

#include "grammar/formats.h"
#include "grammar/regex.h"

namespace ollama::grammar {
namespace {

using api::Json;
using api::JsonObject;

constexpr std::uint32_t kMaxCount = 1'000'000'000;
constexpr int kMaxDepthOfChecks = 60;
constexpr std::size_t kKeywordsOfUnit = 8;  // that cost what a copied value does

template <typename... Args>
std::unexpected<Error> error(std::format_string<Args...> format, Args&&... args) {
  return fail(ErrorCode::kInvalidArgument, format, std::forward<Args>(args)...);
}

std::uint64_t code_points(std::string_view text) {
  return static_cast<std::uint64_t>(std::ranges::count_if(
      text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

bool is_whole(const Json& value) {
  if (const double* number = value.if_double()) return std::floor(*number) == *number;
  return value.is_number();
}

// What the standard says of one value, keyword by keyword.
class Check {
 public:
  Check(const Json& root, Language& language, CopyBudget& budget)
      : root_(root), language_(language), budget_(budget) {}

  Result<bool> valid(const Json& schema, const Json& value) {  // NOLINT(misc-no-recursion)
    if (const bool* any = schema.if_bool()) return *any;
    if (!schema.is_object()) return error("a schema is an object, true or false");
    return valid(schema.get_object(), value, false);
  }
  // `listed`: it is one of the schema's enum.
  // NOLINTNEXTLINE(misc-no-recursion)
  Result<bool> valid(const JsonObject& schema, const Json& value, bool listed) {
    OLLAMA_TRY(budget_.take(1 + schema.size() / kKeywordsOfUnit));
    if (++depth_ > kMaxDepthOfChecks) return error("the schema is too deep for its enum");
    bool good = true;
    for (const auto& [key, rule] : schema) {
      if (listed && key == "enum") continue;
      OLLAMA_ASSIGN(good, general(key, rule, value, schema));
      if (!good) break;
    }
    if (good) {
      OLLAMA_ASSIGN(good, by_type(schema, value));
    }
    --depth_;
    return good;
  }

 private:
  static bool is_type(const Json& value, const Json& type) {
    const std::string_view name = type.is_string() ? std::string_view(type.get_string()) : "";
    return name == type_of(value) || (name == "integer" && is_whole(value));
  }

  // NOLINTNEXTLINE(misc-no-recursion)
  Result<bool> general(std::string_view key, const Json& rule, const Json& value,
                       const JsonObject& schema) {
    if (key == "type") {
      OLLAMA_TRY(budget_.take(as_list(rule).size() / kKeywordsOfUnit));
      const Json* nullable = schema.if_contains("nullable");
      return (nullable != nullptr && *nullable == true && value.is_null()) ||
             std::ranges::any_of(as_list(rule), [&](const Json& t) { return is_type(value, t); });
    }
    if (key == "enum" || key == "const") {
      OLLAMA_TRY(budget_.take(value));
      const auto [known, added] = listed_.try_emplace(&rule);
      if (added) {
        OLLAMA_TRY(budget_.take(rule));
        known->second = Values(key == "const" ? std::span(&rule, 1) : as_list(rule));
      }
      return known->second.contains(value);
    }
    if (key == "not") {
      OLLAMA_ASSIGN(const bool met, valid(rule, value));
      return !met;
    }
    if (key == "$ref") {
      OLLAMA_TRY(budget_.take(rule));
      const std::string_view pointer = rule.is_string() ? std::string_view(rule.get_string()) : "";
      const Json* target = target_of(root_, pointer);
      if (target == nullptr) return error("$ref \"{}\" leads nowhere", shortened(pointer));
      return valid(*target, value);
    }
    if (key == "allOf" || key == "anyOf" || key == "oneOf") {
      std::size_t met = 0;
      for (const Json& part : as_list(rule)) {
        OLLAMA_ASSIGN(const bool one, valid(part, value));
        met += one ? 1 : 0;
      }
      return key == "allOf" ? met == as_list(rule).size() : met > 0;
    }
    for (const std::string_view unknown :
         {"if", "contains", "dependentRequired", "dependentSchemas", "dependencies",
          "unevaluatedItems", "unevaluatedProperties", "$dynamicRef", "$recursiveRef"}) {
      if (key == unknown) return error("\"{}\" beside \"enum\" is not supported", key);
    }
    return true;
  }

  // NOLINTNEXTLINE(misc-no-recursion)
  Result<bool> by_type(const JsonObject& schema, const Json& value) {
    if (value.is_number()) return number(schema, value);
    if (value.is_string()) return string(schema, value.get_string());
    if (value.is_array()) return array(schema, value.get_array());
    if (value.is_object()) return object(schema, value.get_object());
    return true;
  }

  Result<bool> number(const JsonObject& schema, const Json& value) {
    OLLAMA_ASSIGN(const NumberBounds bounds, number_bounds(schema, false));
    if (bounds.none) return false;
    const auto& low = bounds.range.low;
    const auto& high = bounds.range.high;
    if (const Json* rule = schema.if_contains("multipleOf")) OLLAMA_TRY(budget_.take(*rule));
    OLLAMA_ASSIGN(const std::vector<Multiple> factors, multiples(schema));
    if (!low && !high && factors.empty()) return true;
    OLLAMA_ASSIGN(const Decimal number, Decimal::parse(value));
    if (low && compare(number, low->value) < (low->exclusive ? 1 : 0)) return false;
    if (high && compare(high->value, number) < (high->exclusive ? 1 : 0)) return false;
    const std::string digits =
        number.whole + (number.fraction.empty() ? "" : "." + number.fraction);
    for (const Multiple& multiple : factors) {
      OLLAMA_ASSIGN(const bool met, language_.contains(language_.multiples(multiple), digits));
      if (!met) return false;
    }
    return true;
  }

  Result<bool> string(const JsonObject& schema, std::string_view value) {
    OLLAMA_ASSIGN(const Counts length, counts(schema, "minLength", "maxLength"));
    const std::uint64_t size = code_points(value);
    if (size < length.min || size > length.max) return false;
    if (!schema.contains("pattern") && !schema.contains("format")) return true;
    OLLAMA_TRY(budget_.take(value.size()));
    const auto [known, added] = texts_.try_emplace(&schema, language_.never());
    if (added) {
      for (const char* key : {"pattern", "format"}) {
        OLLAMA_ASSIGN(const std::vector<std::string> all, texts(schema, key));
        for (const std::string& text : all) OLLAMA_TRY(budget_.take(text.size()));
      }
      OLLAMA_ASSIGN(known->second, string_language(schema, language_));
    }
    return language_.contains(known->second, value);
  }

  // NOLINTNEXTLINE(misc-no-recursion)
  Result<bool> array(const JsonObject& schema, const boost::json::array& value) {
    OLLAMA_ASSIGN(const Counts count, counts(schema, "minItems", "maxItems"));
    if (value.size() < count.min || value.size() > count.max) return false;
    const Json* unique = schema.if_contains("uniqueItems");
    if (unique != nullptr && *unique == true) {
      Values seen;
      for (const Json& item : value) {
        OLLAMA_TRY(budget_.take(item));
        if (!seen.add(item)) return false;
      }
    }
    const Json* items = schema.if_contains("items");
    const Json* prefix = schema.if_contains("prefixItems");
    if (prefix == nullptr && items != nullptr && items->is_array()) {
      prefix = items;
      items = schema.if_contains("additionalItems");
    }
    const auto first = prefix == nullptr ? std::span<const Json>() : as_list(*prefix);
    for (std::size_t i = 0; i < value.size(); ++i) {
      const Json* rule = i < first.size() ? &first[i] : items;
      if (rule == nullptr) continue;
      OLLAMA_ASSIGN(const bool met, valid(*rule, value[i]));
      if (!met) return false;
    }
    return true;
  }

  // NOLINTNEXTLINE(misc-no-recursion)
  Result<bool> object(const JsonObject& schema, const JsonObject& value) {
    OLLAMA_ASSIGN(const Counts count, counts(schema, "minProperties", "maxProperties"));
    if (value.size() < count.min || value.size() > count.max) return false;
    if (const Json* required = schema.if_contains("required")) {
      OLLAMA_TRY(budget_.take(as_list(*required).size()));
      for (const Json& name : as_list(*required)) {
        if (name.is_string() && !value.contains(name.get_string())) return false;
      }
    }
    const auto in = [&](std::string_view key) -> const JsonObject* {
      const Json* found = schema.if_contains(key);
      return found == nullptr ? nullptr : found->if_object();
    };
    const JsonObject* properties = in("properties");
    const JsonObject* patterns = in("patternProperties");
    const Json* names = schema.if_contains("propertyNames");
    const Json* others = schema.if_contains("additionalProperties");
    for (const auto& [name, item] : value) {
      std::vector<const Json*> rules;
      if (properties != nullptr && properties->contains(name))
        rules.push_back(&properties->at(name));
      if (patterns != nullptr) {
        for (const auto& [pattern, rule] : *patterns) {
          OLLAMA_TRY(budget_.take(1 + name.size()));
          OLLAMA_ASSIGN(const Term term, names_of(pattern, rule));
          OLLAMA_ASSIGN(const bool matches, language_.contains(term, name));
          if (matches) rules.push_back(&rule);
        }
      }
      if (rules.empty() && others != nullptr) rules.push_back(others);
      for (const Json* rule : rules) {
        OLLAMA_ASSIGN(const bool met, valid(*rule, item));
        if (!met) return false;
      }
      if (names == nullptr) continue;
      OLLAMA_ASSIGN(const bool met, valid(*names, Json(boost::json::string(name))));
      if (!met) return false;
    }
    return true;
  }

  // The language of a pattern of patternProperties that has this rule.
  Result<Term> names_of(std::string_view pattern, const Json& rule) {
    const auto [known, added] = names_.try_emplace(&rule, language_.never());
    if (added) {
      OLLAMA_TRY(budget_.take(pattern.size()));
      OLLAMA_ASSIGN(const Pattern parsed, Pattern::parse(pattern));
      OLLAMA_ASSIGN(known->second, parsed.language(language_));
    }
    return known->second;
  }

  const Json& root_;
  Language& language_;
  CopyBudget& budget_;
  // What parts of the schema say, which all values are held against.
  std::map<const Json*, Values> listed_;
  std::map<const JsonObject*, Term> texts_;
  std::map<const Json*, Term> names_;
  int depth_ = 0;
};

}  // namespace

Result<Counts> counts(const JsonObject& schema, std::string_view min_key,
                      std::string_view max_key) {
  Counts found;
  for (const auto& [key, out] : {std::pair(min_key, &found.min), std::pair(max_key, &found.max)}) {
    const Json* item = schema.if_contains(key);
    if (item == nullptr) continue;
    const double number = item->is_number() ? item->to_number<double>() : -1;
    if (!(number >= 0) || std::floor(number) != number) {
      return error("\"{}\" is a whole number from 0", key);
    }
    // More than that is never said.
    *out = static_cast<std::uint32_t>(std::min<double>(number, kMaxCount));
    if (out == &found.max && number >= kMaxCount) *out = kUnbounded;
  }
  return found;
}

Result<NumberBounds> number_bounds(const JsonObject& schema, bool integer) {
  NumberBounds bounds{.range = {.low = {}, .high = {}, .integer = integer}};
  for (const bool low : {true, false}) {
    for (const bool exclusive : {false, true}) {
      const std::string_view key = low ? (exclusive ? "exclusiveMinimum" : "minimum")
                                       : (exclusive ? "exclusiveMaximum" : "maximum");
      const Json* item = schema.if_contains(key);
      if (item == nullptr) continue;
      if (!item->is_number()) return error("\"{}\" is a number", key);
      auto decimal = Decimal::parse(*item);
      if (!decimal) return error("\"{}\": {}", key, decimal.error().message());
      if (decimal->huge()) {
        if (decimal->negative != low) {
          return error("\"{}\" allows only numbers of more than {} digits, which are not written",
                       key, Decimal::kMostWhole);
        }
        continue;
      }
      std::optional<Bound>& bound = low ? bounds.range.low : bounds.range.high;
      const Bound found = Bound{*decimal, exclusive}.inclusive(low);
      const int order = bound ? compare(found.value, bound->value) : 0;
      // The narrower one counts.
      if (!bound || (low ? order > 0 : order < 0) || order == 0) bound = found;
    }
  }
  return bounds;
}

Result<std::vector<Multiple>> multiples(const JsonObject& schema) {
  std::vector<Multiple> found;
  const Json* rule = schema.if_contains("multipleOf");
  if (rule == nullptr) return found;
  for (const Json& item : as_list(*rule)) {
    if (!item.is_number() || item.to_number<double>() <= 0) {
      return error("\"multipleOf\" is a number above 0");
    }
    auto decimal = Decimal::parse(item);
    if (!decimal) return error("\"multipleOf\": {}", decimal.error().message());
    const std::string digits = decimal->whole + decimal->fraction;
    Multiple multiple{.decimals = static_cast<std::uint32_t>(decimal->fraction.size())};
    const auto [end, problem] =
        std::from_chars(digits.data(), digits.data() + digits.size(), multiple.factor);
    if (problem != std::errc() || multiple.factor > 1'000'000) {
      return error("\"multipleOf\": {} is too large to be enforced", api::to_string(item));
    }
    found.push_back(multiple);
  }
  return found;
}

Result<std::vector<std::string>> texts(const JsonObject& schema, std::string_view key) {
  std::vector<std::string> found;
  const Json* rule = schema.if_contains(key);
  if (rule == nullptr) return found;
  for (const Json& text : as_list(*rule)) {
    if (!text.is_string()) return error("\"{}\" is a string", key);
    found.emplace_back(text.get_string());
  }
  return found;
}

const Json* target_of(const Json& root, std::string_view reference) {
  if (!reference.starts_with('#')) return nullptr;
  std::string decoded;
  for (std::size_t i = 1; i < reference.size(); ++i) {
    unsigned code = 0;
    const char* digits = reference.data() + i + 1;
    if (reference[i] == '%' && i + 2 < reference.size() &&
        std::from_chars(digits, digits + 2, code, 16).ptr == digits + 2) {
      decoded += static_cast<char>(code);
      i += 2;
    } else {
      decoded += reference[i];
    }
  }
  if (decoded.empty()) return &root;
  boost::system::error_code problem;
  const Json* found = root.find_pointer(decoded, problem);
  return problem ? nullptr : found;
}

std::string_view type_of(const Json& value) {
  if (value.is_object()) return "object";
  if (value.is_array()) return "array";
  if (value.is_string()) return "string";
  if (value.is_bool()) return "boolean";
  return value.is_null() ? "null" : "number";
}

Result<Term> string_language(const JsonObject& schema, Language& language) {
  OLLAMA_ASSIGN(const Counts length, counts(schema, "minLength", "maxLength"));
  OLLAMA_ASSIGN(std::vector<std::string> patterns, texts(schema, "pattern"));
  OLLAMA_ASSIGN(const std::vector<std::string> formats, texts(schema, "format"));
  for (const std::string& format : formats) {
    if (auto pattern = format_pattern(format, length.max)) patterns.push_back(std::move(*pattern));
  }
  Term term = language.repeat(language.characters(CodeSet().complement()), length.min, length.max);
  for (const std::string& pattern : patterns) {
    OLLAMA_ASSIGN(const Pattern parsed, Pattern::parse(pattern));
    OLLAMA_ASSIGN(const Term one, parsed.language(language));
    term = language.both(term, one);
  }
  return term;
}

Result<std::vector<const Json*>> values_that_meet(const Json& root, const JsonObject& schema,
                                                  std::span<const Json> values, Language& language,
                                                  CopyBudget& budget) {
  Check check(root, language, budget);
  std::vector<const Json*> kept;
  for (const Json& value : values) {
    OLLAMA_ASSIGN(const bool good, check.valid(schema, value, true));
    if (good) kept.push_back(&value);
  }
  return kept;
}

}  // namespace ollama::grammar
