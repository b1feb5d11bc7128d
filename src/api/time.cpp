#include <charconv>
#include <format>

#include "api/types.h"
#include "base/units.h"

namespace ollama::api {
namespace {

constexpr std::string_view kZeroTime = "0001-01-01T00:00:00Z";

}  // namespace

Time now() {
  return std::chrono::time_point_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now());
}

std::string format_time(Time time) {
  if (time == Time{}) return std::string(kZeroTime);
  const auto days = std::chrono::floor<std::chrono::days>(time);
  const std::chrono::year_month_day date(days);
  const std::chrono::hh_mm_ss clock(time - days);
  std::string text =
      std::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}", static_cast<int>(date.year()),
                  static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                  clock.hours().count(), clock.minutes().count(), clock.seconds().count());
  if (clock.subseconds().count() != 0) {
    std::string fraction = std::format(".{:09}", clock.subseconds().count());
    while (fraction.ends_with('0')) fraction.pop_back();
    text += fraction;
  }
  return text + "Z";
}

Result<Time> parse_time(std::string_view text) {
  const auto invalid = [whole = text] {
    return fail(ErrorCode::kInvalidArgument, "invalid time \"{}\": RFC 3339 is expected", whole);
  };
  if (text == kZeroTime) return Time{};
  // YYYY-MM-DDTHH:MM:SS, then a fraction, then Z or an offset.
  if (text.size() < 20 || text[4] != '-' || text[7] != '-' ||
      (text[10] != 'T' && text[10] != 't') || text[13] != ':' || text[16] != ':') {
    return invalid();
  }
  const auto field = [&](std::size_t at, std::size_t length) {
    return parse_number<unsigned>(text.substr(at, length));
  };
  const auto year = field(0, 4);
  const auto month = field(5, 2);
  const auto day = field(8, 2);
  const auto hour = field(11, 2);
  const auto minute = field(14, 2);
  const auto second = field(17, 2);
  if (!year || !month || !day || !hour || !minute || !second) return invalid();
  const std::chrono::year_month_day date(std::chrono::year(static_cast<int>(*year)),
                                         std::chrono::month(*month), std::chrono::day(*day));
  if (!date.ok() || *hour > 23 || *minute > 59 || *second > 59) return invalid();

  text.remove_prefix(19);
  std::int64_t nanoseconds = 0;
  if (text.front() == '.') {
    text.remove_prefix(1);
    std::size_t digits = 0;
    for (; digits < text.size() && text[digits] >= '0' && text[digits] <= '9'; ++digits) {
      if (digits < 9) nanoseconds = nanoseconds * 10 + (text[digits] - '0');
    }
    if (digits == 0) return invalid();
    for (std::size_t i = digits; i < 9; ++i) nanoseconds *= 10;
    text.remove_prefix(digits);
  }

  std::chrono::minutes offset(0);
  if (text.size() == 6 && (text[0] == '+' || text[0] == '-') && text[3] == ':') {
    const auto hours = parse_number<unsigned>(text.substr(1, 2));
    const auto minutes = parse_number<unsigned>(text.substr(4, 2));
    if (!hours || !minutes || *hours > 23 || *minutes > 59) return invalid();
    offset = std::chrono::minutes(*hours * 60 + *minutes);
    if (text[0] == '-') offset = -offset;
  } else if (text != "Z" && text != "z") {
    return invalid();
  }

  // Beyond what 64 bits of nanoseconds hold, the nearest time they do hold.
  if (*year > 2261) return Time::max();
  if (*year < 1678) return Time::min();
  return Time(std::chrono::sys_days(date)) + std::chrono::hours(*hour) +
         std::chrono::minutes(*minute) + std::chrono::seconds(*second) - offset +
         std::chrono::nanoseconds(nanoseconds);
}

}  // namespace ollama::api
