// A plain JSON Schema validator for tests, written from the standard and not from the compiler: it
// walks a value beside its schema. Patterns are the standard library's.
#pragma once

#include <chrono>
#include <cmath>
#include <optional>
#include <regex>
#include <string>
#include <vector>

#include "api/types.h"
#include "tokenizer/utf8.h"

namespace ollama::grammar {

class Validator {
 public:
  explicit Validator(const api::Json& root) : root_(root) {}
  bool valid(const api::Json& value) const { return valid(root_, value); }

 private:
  using Json = api::Json;

  static std::size_t characters(std::string_view text) {
    std::size_t count = 0;
    for (const char c : text) count += (static_cast<unsigned char>(c) & 0xC0U) != 0x80U ? 1 : 0;
    return count;
  }
  // A character each.
  static std::wstring wide(std::string_view text) {
    std::wstring codes;
    while (!text.empty()) {
      const auto character = tokenizer::utf8::decode_lenient(text);
      codes += static_cast<wchar_t>(character.code);
      text.remove_prefix(character.length);
    }
    return codes;
  }
  static bool equal(const Json& a, const Json& b) {
    if (a.is_number() && b.is_number()) return a.to_number<double>() == b.to_number<double>();
    return a == b;
  }
  static bool is_type(const Json& value, std::string_view type) {
    if (type == "object") return value.is_object();
    if (type == "array") return value.is_array();
    if (type == "string") return value.is_string();
    if (type == "boolean") return value.is_bool();
    if (type == "null") return value.is_null();
    if (type == "number") return value.is_number();
    return type == "integer" && value.is_number() &&
           std::floor(value.to_number<double>()) == value.to_number<double>();
  }

  bool valid(const Json& schema, const Json& value) const {
    if (schema.is_bool()) return schema.get_bool();
    for (const auto& [key, rule] : schema.get_object()) {
      if (!holds(schema.get_object(), key, rule, value)) return false;
    }
    return true;
  }

  bool holds(const api::JsonObject& schema, std::string_view key, const Json& rule,
             const Json& value) const {
    const auto any = [&](auto&& items, auto test) {
      return std::any_of(items.begin(), items.end(), test);
    };
    const auto is_valid = [&](const Json& part) { return valid(part, value); };
    if (key == "type") {
      if (rule.is_string()) return is_type(value, rule.get_string());
      return any(rule.get_array(), [&](const Json& t) { return is_type(value, t.get_string()); });
    }
    if (key == "enum") {
      return any(rule.get_array(), [&](const Json& item) { return equal(item, value); });
    }
    if (key == "const") return equal(rule, value);
    if (key == "anyOf" || key == "oneOf") return any(rule.get_array(), is_valid);
    if (key == "allOf") return std::ranges::all_of(rule.get_array(), is_valid);
    if (key == "$ref") {
      return valid(root_.at_pointer(std::string_view(rule.get_string()).substr(1)), value);
    }
    if (value.is_number()) return number_holds(key, rule, value.to_number<double>());
    if (value.is_string()) return string_holds(key, rule, std::string_view(value.get_string()));
    if (value.is_array()) return array_holds(schema, key, rule, value.get_array());
    if (value.is_object()) return object_holds(schema, key, rule, value.get_object());
    return true;
  }

  static bool number_holds(std::string_view key, const Json& rule, double value) {
    if (key == "minimum") return value >= rule.to_number<double>();
    if (key == "maximum") return value <= rule.to_number<double>();
    if (key == "exclusiveMinimum") return value > rule.to_number<double>();
    if (key == "exclusiveMaximum") return value < rule.to_number<double>();
    if (key == "multipleOf") return std::remainder(value, rule.to_number<double>()) == 0;
    return true;
  }
  static bool string_holds(std::string_view key, const Json& rule, std::string_view value) {
    if (key == "minLength") return characters(value) >= rule.to_number<std::size_t>();
    if (key == "maxLength") return characters(value) <= rule.to_number<std::size_t>();
    if (key == "pattern") {
      return std::regex_search(wide(value), std::wregex(wide(rule.get_string())));
    }
    if (key == "format") return format_holds(rule.get_string(), std::string(value));
    return true;
  }
  // The numbers in a text, which is otherwise of the form that `pattern` says.
  static std::optional<std::vector<unsigned>> numbers(const std::string& text,
                                                      const char* pattern) {
    std::smatch match;
    if (!std::regex_match(text, match, std::regex(pattern))) return std::nullopt;
    std::vector<unsigned> found;
    for (std::size_t i = 1; i < match.size(); ++i) {
      found.push_back(static_cast<unsigned>(std::stoul(match[i].str())));
    }
    return found;
  }
  static bool format_holds(std::string_view format, const std::string& value) {
    if (format == "date") {
      const auto parts = numbers(value, "(\\d{4})-(\\d{2})-(\\d{2})");
      using namespace std::chrono;  // NOLINT(google-build-using-namespace)
      return parts && year_month_day(year(static_cast<int>((*parts)[0])), month((*parts)[1]),
                                     day((*parts)[2]))
                          .ok();
    }
    if (format == "uuid") {
      return std::regex_match(value,
                              std::regex("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"));
    }
    if (format == "ipv4") {
      const auto parts = numbers(value, "(\\d{1,3})\\.(\\d{1,3})\\.(\\d{1,3})\\.(\\d{1,3})");
      return parts && std::ranges::all_of(*parts, [](unsigned byte) { return byte <= 255; });
    }
    if (format == "email") {
      return std::regex_match(value,
                              std::regex("[\\w!#$%&'*+/=?^`{|}~.-]{1,64}@[\\w-]+(\\.[\\w-]+)+"));
    }
    if (format == "uri") {
      return std::regex_match(value, std::regex("[A-Za-z][\\w+.-]*:[^\\s#\"<>\\\\^`{|}]*"
                                                "(#[^\\s#\"<>\\\\^`{|}]*)?"));
    }
    return true;
  }

  bool array_holds(const api::JsonObject& schema, std::string_view key, const Json& rule,
                   const boost::json::array& value) const {
    if (key == "minItems") return value.size() >= rule.to_number<std::size_t>();
    if (key == "maxItems") return value.size() <= rule.to_number<std::size_t>();
    if (key == "uniqueItems" && rule == true) {
      for (std::size_t i = 0; i < value.size(); ++i) {
        for (std::size_t j = 0; j < i; ++j) {
          if (equal(value[i], value[j])) return false;
        }
      }
    }
    if (key == "prefixItems") {
      for (std::size_t i = 0; i < std::min(value.size(), rule.get_array().size()); ++i) {
        if (!valid(rule.get_array()[i], value[i])) return false;
      }
    }
    if (key == "items") {
      const Json* prefix = schema.if_contains("prefixItems");
      for (std::size_t i = prefix == nullptr ? 0 : prefix->get_array().size(); i < value.size();
           ++i) {
        if (!valid(rule, value[i])) return false;
      }
    }
    return true;
  }

  bool object_holds(const api::JsonObject& schema, std::string_view key, const Json& rule,
                    const api::JsonObject& value) const {
    if (key == "minProperties") return value.size() >= rule.to_number<std::size_t>();
    if (key == "maxProperties") return value.size() <= rule.to_number<std::size_t>();
    if (key == "required") {
      return std::ranges::all_of(rule.get_array(), [&](const Json& name) {
        return value.contains(std::string_view(name.get_string()));
      });
    }
    if (key == "properties") {
      return std::ranges::all_of(rule.get_object(), [&](const auto& member) {
        const Json* found = value.if_contains(member.key());
        return found == nullptr || valid(member.value(), *found);
      });
    }
    const auto matches = [](std::string_view name, std::string_view pattern) {
      return std::regex_search(wide(name), std::wregex(wide(pattern)));
    };
    if (key == "propertyNames") {
      return std::ranges::all_of(value, [&](const auto& member) {
        return valid(rule, Json(boost::json::string(member.key())));
      });
    }
    const Json* patterns = schema.if_contains("patternProperties");
    if (key == "patternProperties") {
      return std::ranges::all_of(rule.get_object(), [&](const auto& pattern) {
        return std::ranges::all_of(value, [&](const auto& member) {
          return !matches(member.key(), pattern.key()) || valid(pattern.value(), member.value());
        });
      });
    }
    if (key == "additionalProperties" ||
        (key == "unevaluatedProperties" && !schema.contains("additionalProperties") &&
         !schema.contains("anyOf") && !schema.contains("allOf"))) {
      const Json* properties = schema.if_contains("properties");
      return std::ranges::all_of(value, [&](const auto& member) {
        const bool named =
            (properties != nullptr && properties->get_object().contains(member.key())) ||
            (patterns != nullptr &&
             std::ranges::any_of(patterns->get_object(), [&](const auto& pattern) {
               return matches(member.key(), pattern.key());
             }));
        return named || valid(rule, member.value());
      });
    }
    return true;
  }

  const Json& root_;
};

}  // namespace ollama::grammar
