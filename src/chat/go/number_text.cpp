#include "chat/go/number_text.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

namespace ollama::chat::go {
namespace {

// The longest: 309 digits, a point and 1,000 more.
using Buffer = std::array<char, 1400>;

std::string written(double value, std::chars_format format, std::optional<int> precision) {
  Buffer buffer;
  char* const end = buffer.data() + buffer.size();
  const auto result = precision ? std::to_chars(buffer.data(), end, value, format, *precision)
                                : std::to_chars(buffer.data(), end, value, format);
  return {buffer.data(), result.ptr};
}

int exponent_of(const std::string& scientific) {
  int exponent = 0;
  const auto at = scientific.find('e') + 1;
  const char* first = scientific.data() + at + (scientific[at] == '+' ? 1 : 0);
  std::from_chars(first, scientific.data() + scientific.size(), exponent);
  return exponent;
}

// "-1.cp+1" as Go has it: "-0x1.cp+01".
std::string hexadecimal(std::string text) {
  const auto sign = text.find_first_of("+-", text.find('p'));
  if (sign != std::string::npos && text.size() - sign == 2) text.insert(sign + 1, 1, '0');
  return text.insert(text.starts_with('-') ? 1 : 0, "0x");
}

// 'g' with a precision drops the zeros at the end.
std::string without_zeros(std::string text) {
  const auto e = text.find('e');
  std::string mantissa = text.substr(0, e);
  const std::string rest = e == std::string::npos ? "" : text.substr(e);
  if (mantissa.contains('.')) {
    mantissa.erase(mantissa.find_last_not_of('0') + 1);
    if (mantissa.ends_with('.')) mantissa.pop_back();
  }
  return mantissa + rest;
}

}  // namespace

std::string float_text(double value, char verb, std::optional<int> precision) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value < 0 ? "-Inf" : "+Inf";
  if (verb == 'e') return written(value, std::chars_format::scientific, precision);
  if (verb == 'f') return written(value, std::chars_format::fixed, precision);
  if (verb == 'x') return hexadecimal(written(value, std::chars_format::hex, precision));
  const int digits = std::max(precision.value_or(6), 1);
  const std::string scientific = written(value, std::chars_format::scientific,
                                         precision ? std::optional(digits - 1) : std::nullopt);
  const int exponent = exponent_of(scientific);
  if (exponent < -4 || exponent >= digits) {
    return precision ? without_zeros(scientific) : scientific;
  }
  if (!precision) return written(value, std::chars_format::fixed, std::nullopt);
  return without_zeros(
      written(value, std::chars_format::fixed, std::max(digits - 1 - exponent, 0)));
}

std::string json_number(double value) {
  if (!std::isfinite(value)) return "null";
  const double magnitude = std::abs(value);
  if (magnitude == 0 || (magnitude >= 1e-6 && magnitude < 1e21)) {
    return written(value, std::chars_format::fixed, std::nullopt);
  }
  std::string text = written(value, std::chars_format::scientific, std::nullopt);
  // e-09 is e-9 there.
  if (const auto at = text.find("e-0"); at != std::string::npos) text.erase(at + 2, 1);
  return text;
}

}  // namespace ollama::chat::go
