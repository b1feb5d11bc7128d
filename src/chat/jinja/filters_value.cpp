// Filters on any value, and finding filters by name.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <unordered_map>

#include "base/units.h"
#include "chat/jinja/builtins.h"
#include "chat/jinja/filters.h"
#include "chat/jinja/interpreter.h"
#include "chat/jinja/operators.h"
#include "chat/jinja/unicode.h"

namespace ollama::chat::jinja {

namespace {

Value filter_default(Interpreter&, const Value& input, const Call& call) {
  const auto [otherwise, boolean] = parameters(call, {"default_value", "boolean"});
  if (!input.undefined() && (!truthy(boolean) || truthy(input))) return input;
  return otherwise.missing() ? Value(std::string_view()) : otherwise;
}

Value filter_length(Interpreter& in, const Value& input, const Call& call) {
  expect_no_arguments(call);
  return Value(static_cast<std::int64_t>(length(in, input)));
}

Value filter_abs(Interpreter&, const Value& input, const Call& call) {
  expect_no_arguments(call);
  return absolute(input);
}

Value filter_attr(Interpreter& in, const Value& input, const Call& call) {
  const auto [name] = parameters(call, {"name"}, 1);
  const std::string_view wanted = text_argument(name, "name");
  if (input.dict() && !has_method(input.kind(), find_method(wanted))) {
    return Value::undefined(Why::kAttribute, wanted, input.kind());
  }
  return in.attribute(input, wanted, find_method(wanted));
}

// ---- Numbers

// The text without blanks around it and underscores between digits.
std::string numeral(std::string_view text) {
  std::string out;
  text = strip(text);
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool joins = text[i] == '_' && i > 0 && i + 1 < text.size() && text[i - 1] != '_';
    if (!joins) out += text[i];
  }
  return out;
}

std::optional<double> parse_real(std::string_view text) {
  std::string number = numeral(text);
  if (number.starts_with('+')) number.erase(0, 1);
  const std::string lower = convert_case(number, Case::kLower);
  const bool negative = lower.starts_with('-');
  const std::string_view magnitude = std::string_view(lower).substr(negative ? 1 : 0);
  if (magnitude == "inf" || magnitude == "infinity") return negative ? -HUGE_VAL : HUGE_VAL;
  if (magnitude == "nan") return NAN;
  if (magnitude.empty() ||
      !(magnitude.front() == '.' || (magnitude.front() >= '0' && magnitude.front() <= '9'))) {
    return std::nullopt;
  }
  return parse_number<double>(lower);
}

std::optional<std::int64_t> parse_integer(std::string_view text, std::int64_t base) {
  std::string digits = numeral(text);
  const bool negative = digits.starts_with('-');
  if (negative || digits.starts_with('+')) digits.erase(0, 1);
  const auto prefix = [&](char letter, std::int64_t of) {
    if (digits.size() > 2 && digits[0] == '0' && (digits[1] | 0x20) == letter &&
        (base == of || base == 0)) {
      digits.erase(0, 2);
      base = of;
    }
  };
  prefix('x', 16);
  prefix('o', 8);
  prefix('b', 2);
  if (base == 0) base = 10;
  if (base < 2 || base > 36 || digits.empty() || digits.front() == '-') return std::nullopt;
  if (negative) digits.insert(digits.begin(), '-');
  std::int64_t value = 0;
  const char* const end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, value, static_cast<int>(base));
  if (error == std::errc::result_out_of_range) raise("an integer is beyond 64 bits");
  if (error != std::errc{} || stop != end) return std::nullopt;
  return value;
}

std::optional<std::int64_t> truncate(double value) {
  if (!std::isfinite(value)) return std::nullopt;
  if (!(std::fabs(value) < 9.2e18)) raise("an integer is beyond 64 bits");
  return static_cast<std::int64_t>(value);
}

Value filter_int(Interpreter&, const Value& input, const Call& call) {
  const auto [otherwise, base] = parameters(call, {"default", "base"});
  require_defined(input);
  const Value fallback = otherwise.missing() ? Value(std::int64_t{0}) : otherwise;
  std::optional<std::int64_t> value;
  if (input.string()) {
    value = parse_integer(input.text(), integer_argument(base, "base", 10));
    if (!value) {
      const auto real = parse_real(input.text());
      if (real) value = truncate(*real);
    }
  } else if (input.integral()) {
    value = input.integer();
  } else if (input.is(Kind::kFloat)) {
    value = truncate(input.real());
  }
  return value ? Value(*value) : fallback;
}

Value filter_float(Interpreter&, const Value& input, const Call& call) {
  const auto [otherwise] = parameters(call, {"default"});
  require_defined(input);
  if (input.number()) return Value(input.real());
  if (input.string()) {
    if (const auto value = parse_real(input.text())) return Value(*value);
  }
  return otherwise.missing() ? Value(0.0) : otherwise;
}

// To the nearest, halves to even, as the decimal number that the double is.
double round_decimal(double value, std::int64_t precision) {
  if (!std::isfinite(value) || precision > 320) return value;
  if (precision < -308) return std::copysign(0.0, value);
  if (precision < 0) {
    const double scale = std::pow(10.0, static_cast<double>(-precision));
    return std::nearbyint(value / scale) * scale;
  }
  std::array<char, 800> buffer;
  const int size =
      std::snprintf(buffer.data(), buffer.size(), "%.*f", static_cast<int>(precision), value);
  double rounded = value;
  std::from_chars(buffer.data(), buffer.data() + size, rounded);
  return rounded;
}

Value filter_round(Interpreter&, const Value& input, const Call& call) {
  const auto [precision, method] = parameters(call, {"precision", "method"});
  const std::string_view how = method.missing() ? "common" : text_argument(method, "method");
  const std::int64_t digits = integer_argument(precision, "precision", 0);
  require_defined(input);
  if (!input.number()) raise("type {} doesn't define __round__ method", type_name(input.kind()));
  if (how == "common") {
    if (!input.integral()) return Value(round_decimal(input.real(), digits));
    if (digits >= 0) return Value(input.integer());
    const double rounded = round_decimal(static_cast<double>(input.integer()), digits);
    return Value(truncate(rounded).value_or(0));
  }
  if (how != "ceil" && how != "floor") raise("method must be common, ceil or floor");
  const double scale = std::pow(10.0, static_cast<double>(digits));
  const double scaled = input.real() * scale;
  return Value((how == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

// ---- Others

Value filter_tojson(Interpreter& in, const Value& input, const Call& call) {
  const auto [ensure_ascii, indent, separators, sort_keys] =
      parameters(call, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style{.ensure_ascii = truthy(ensure_ascii), .sort_keys = truthy(sort_keys)};
  if (!indent.missing() && !indent.is_none()) {
    style.indented = true;
    style.item_separator = ",";
    if (indent.string()) {
      style.indent = indent.text();
    } else {
      const std::int64_t width = integer_argument(indent, "indent", 0);
      if (width > 1000) raise("'indent' of tojson is at most 1000");
      style.indent.assign(static_cast<std::size_t>(std::max<std::int64_t>(width, 0)), ' ');
    }
  }
  if (!separators.missing() && !separators.is_none()) {
    const std::span<const Value> pair = to_items(in, separators);
    if (pair.size() != 2) raise("'separators' of tojson are two texts");
    style.item_separator = text_argument(pair[0], "separators");
    style.key_separator = text_argument(pair[1], "separators");
  }
  std::string out;
  append_json(in, out, input, style);
  return make_string(in, out);
}

Value filter_pprint(Interpreter& in, const Value& input, const Call& call) {
  expect_no_arguments(call);
  std::string out;
  append_repr(in, out, input);
  return make_string(in, out);
}

Value filter_random(Interpreter&, const Value&, const Call&) {
  raise("'random' is not supported: the same conversation must give the same prompt");
}

constexpr FilterName kValueFilters[] = {
    {"abs", filter_abs},       {"attr", filter_attr},       {"count", filter_length},
    {"d", filter_default},     {"default", filter_default}, {"float", filter_float},
    {"int", filter_int},       {"length", filter_length},   {"pprint", filter_pprint},
    {"random", filter_random}, {"round", filter_round},     {"tojson", filter_tojson},
};

}  // namespace

std::span<const FilterName> value_filters() { return kValueFilters; }

FilterFunction find_filter(std::string_view name) {
  for (const auto filters : {value_filters(), text_filters(), sequence_filters()}) {
    const auto at = std::ranges::find(filters, name, &FilterName::name);
    if (at != filters.end()) return at->function;
  }
  return nullptr;
}

}  // namespace ollama::chat::jinja
