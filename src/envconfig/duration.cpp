#include "envconfig/duration.h"

#include <cstdint>
#include <limits>
#include <optional>

#include "base/units.h"

namespace ollama::envconfig {
namespace {

constexpr std::uint64_t kLimit = std::uint64_t{1} << 63;  // magnitude of the smallest duration

struct Unit {
  std::string_view name;
  std::uint64_t nanoseconds;
};
// Two spellings of the micro sign: U+00B5 and the Greek letter U+03BC.
constexpr Unit kUnits[] = {
    {"ns", 1},         {"us", 1'000},        {"\u00b5s", 1'000},    {"\u03bcs", 1'000},
    {"ms", 1'000'000}, {"s", 1'000'000'000}, {"m", 60'000'000'000}, {"h", 3'600'000'000'000},
};

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Takes digits off the front of `text`; nullopt on overflow.
std::optional<std::uint64_t> take_whole(std::string_view& text) {
  std::uint64_t value = 0;
  while (!text.empty() && is_digit(text.front())) {
    if (value > kLimit / 10) return std::nullopt;
    value = value * 10 + static_cast<std::uint64_t>(text.front() - '0');
    if (value > kLimit) return std::nullopt;
    text.remove_prefix(1);
  }
  return value;
}

// Nanoseconds of a fraction's digits, rounded down; digits past the 18th do not count.
std::uint64_t fraction_of(std::string_view digits, std::uint64_t unit) {
  std::uint64_t value = 0;
  double scale = 1;
  for (const char c : digits.substr(0, 18)) {
    value = value * 10 + static_cast<std::uint64_t>(c - '0');
    scale *= 10;
  }
  return static_cast<std::uint64_t>(static_cast<double>(value) *
                                    (static_cast<double>(unit) / scale));
}

std::unexpected<Error> invalid(std::string_view text) {
  return fail(ErrorCode::kInvalidArgument,
              "invalid duration \"{}\": write it like \"90s\", \"5m\" or \"1h30m\"", text);
}

// `value` counts units of 10^-digits: without the zeros at the fraction's end.
std::string with_fraction(std::uint64_t value, int digits) {
  std::uint64_t divisor = 1;
  for (int i = 0; i < digits; ++i) divisor *= 10;
  std::string text = std::to_string(value / divisor);
  std::uint64_t rest = value % divisor;
  if (rest == 0) return text;
  text += '.';
  while (rest != 0) {
    divisor /= 10;
    text += static_cast<char>('0' + rest / divisor);
    rest %= divisor;
  }
  return text;
}

}  // namespace

Result<Duration> parse_duration(std::string_view text) {
  const std::string_view whole_text = text;
  bool negative = false;
  if (!text.empty() && (text.front() == '-' || text.front() == '+')) {
    negative = text.front() == '-';
    text.remove_prefix(1);
  }
  if (text == "0") return Duration(0);
  if (text.empty()) return invalid(whole_text);

  std::uint64_t total = 0;
  while (!text.empty()) {
    const bool has_whole = is_digit(text.front());
    const auto whole = take_whole(text);
    if (!whole) return invalid(whole_text);
    std::string_view fraction;
    if (!text.empty() && text.front() == '.') {
      text.remove_prefix(1);
      std::size_t end = 0;
      while (end < text.size() && is_digit(text[end])) ++end;
      fraction = text.substr(0, end);
      text.remove_prefix(end);
    }
    if (!has_whole && fraction.empty()) return invalid(whole_text);

    std::size_t end = 0;
    while (end < text.size() && text[end] != '.' && !is_digit(text[end])) ++end;
    const std::string_view name = text.substr(0, end);
    text.remove_prefix(end);
    std::uint64_t unit = 0;
    for (const Unit& candidate : kUnits) {
      if (candidate.name == name) unit = candidate.nanoseconds;
    }
    if (unit == 0 || *whole > kLimit / unit) return invalid(whole_text);
    const std::uint64_t part = *whole * unit + fraction_of(fraction, unit);
    if (part > kLimit || total > kLimit - part) return invalid(whole_text);
    total += part;
  }
  if (negative) {
    // The smallest duration has no positive counterpart.
    return Duration(static_cast<std::int64_t>(std::uint64_t{0} - total));
  }
  if (total > kLimit - 1) return invalid(whole_text);
  return Duration(static_cast<std::int64_t>(total));
}

std::string format_duration(Duration duration) {
  const std::int64_t count = duration.count();
  const bool negative = count < 0;
  const std::uint64_t value = negative ? std::uint64_t{0} - static_cast<std::uint64_t>(count)
                                       : static_cast<std::uint64_t>(count);
  if (value == 0) return "0s";

  std::string text = negative ? "-" : "";
  if (value < 1'000) return text + std::to_string(value) + "ns";
  if (value < 1'000'000) return text + with_fraction(value, 3) + "\u00b5s";
  if (value < 1'000'000'000) return text + with_fraction(value, 6) + "ms";

  const std::uint64_t minutes = value / 60'000'000'000;
  if (minutes >= 60) text += std::to_string(minutes / 60) + "h";
  if (minutes > 0) text += std::to_string(minutes % 60) + "m";
  return text + with_fraction(value % 60'000'000'000, 9) + "s";
}

Result<Duration> parse_keep_alive(std::string_view text) {
  if (const auto seconds = parse_number<std::int64_t>(text)) {
    constexpr std::int64_t kMostSeconds = std::numeric_limits<std::int64_t>::max() / 1'000'000'000;
    if (*seconds < 0 || *seconds > kMostSeconds) return kForever;
    return Duration(std::chrono::seconds(*seconds));
  }
  auto duration = parse_duration(text);
  if (duration && *duration < Duration(0)) return kForever;
  return duration;
}

}  // namespace ollama::envconfig
