// Dates, in the C locale.
#include <array>
#include <chrono>

#include "chat/jinja/builtins.h"

namespace ollama::chat::jinja {

namespace {

constexpr std::array<std::string_view, 7> kDays{"Sunday",   "Monday", "Tuesday", "Wednesday",
                                                "Thursday", "Friday", "Saturday"};
constexpr std::array<std::string_view, 12> kMonths{"January",   "February", "March",    "April",
                                                   "May",       "June",     "July",     "August",
                                                   "September", "October",  "November", "December"};

class DateWriter {
 public:
  explicit DateWriter(std::chrono::local_seconds time)
      : day_(std::chrono::floor<std::chrono::days>(time)), date_(day_), clock_(time - day_) {}

  // `flag` is '-' (no padding), or 0.
  void append(std::string& out, char code, char flag) const {
    const auto number = [&](long value, int width, char fill = '0') {
      if (flag == '-') {
        out += std::format("{}", value);
      } else if (fill == ' ') {
        out += std::format("{:>{}}", value, width);
      } else {
        out += std::format("{:0{}}", value, width);
      }
    };
    const auto both = [&](std::string_view codes, std::string_view between) {
      for (std::size_t i = 0; i < codes.size(); ++i) {
        if (i > 0) out += between;
        append(out, codes[i], 0);
      }
    };
    const long hour = clock_.hours().count();
    const auto month = static_cast<unsigned>(date_.month());
    switch (code) {
      case 'Y':
        return number(year(), 4);
      case 'y':
        return number(year() % 100, 2);
      case 'C':
        return number(year() / 100, 2);
      case 'm':
        return number(month, 2);
      case 'd':
        return number(static_cast<unsigned>(date_.day()), 2);
      case 'e':
        return number(static_cast<unsigned>(date_.day()), 2, ' ');
      case 'j':
        return number(day_of_year() + 1, 3);
      case 'H':
        return number(hour, 2);
      case 'k':
        return number(hour, 2, ' ');
      case 'I':
        return number((hour + 11) % 12 + 1, 2);
      case 'l':
        return number((hour + 11) % 12 + 1, 2, ' ');
      case 'M':
        return number(clock_.minutes().count(), 2);
      case 'S':
        return number(clock_.seconds().count(), 2);
      case 'f':
        return number(0, 6);
      case 'p':
        out += hour < 12 ? "AM" : "PM";
        return;
      case 'P':
        out += hour < 12 ? "am" : "pm";
        return;
      case 'A':
        out += kDays[weekday()];
        return;
      case 'a':
        out += kDays[weekday()].substr(0, 3);
        return;
      case 'B':
        out += kMonths[month - 1];
        return;
      case 'b':
      case 'h':
        out += kMonths[month - 1].substr(0, 3);
        return;
      case 'w':
        return number(static_cast<long>(weekday()), 1);
      case 'u':
        return number(static_cast<long>((weekday() + 6) % 7 + 1), 1);
      case 'U':
        return number((day_of_year() + 7 - static_cast<long>(weekday())) / 7, 2);
      case 'W':
        return number((day_of_year() + 7 - static_cast<long>((weekday() + 6) % 7)) / 7, 2);
      case 's':
        return number((day_ + clock_.to_duration()).time_since_epoch().count(), 1);
      case 'F':
        return both("Ymd", "-");
      case 'D':
      case 'x':
        return both("mdy", "/");
      case 'T':
      case 'X':
        return both("HMS", ":");
      case 'R':
        return both("HM", ":");
      case 'c':
        return both("abeTY", " ");
      case 'n':
        out += '\n';
        return;
      case 't':
        out += '\t';
        return;
      case '%':
        out += '%';
        return;
      case 'z':
      case 'Z':
        return;  // a local time has no zone
      default:
        out += '%';
        if (flag != 0) out += flag;
        out += code;
    }
  }

 private:
  long year() const { return static_cast<int>(date_.year()); }
  std::size_t weekday() const { return std::chrono::weekday(day_).c_encoding(); }
  long day_of_year() const {
    return (day_ - std::chrono::local_days(date_.year() / std::chrono::January / 1)).count();
  }

  std::chrono::local_days day_;
  std::chrono::year_month_day date_;
  std::chrono::hh_mm_ss<std::chrono::seconds> clock_;
};

}  // namespace

std::string format_date(std::string_view format, std::chrono::local_seconds time) {
  const DateWriter writer(time);
  std::string out;
  for (std::size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 == format.size()) {
      out += format[i];
      continue;
    }
    char flag = 0;
    if (format[i + 1] == '-' && i + 2 < format.size()) {
      flag = '-';
      ++i;
    }
    writer.append(out, format[++i], flag);
  }
  return out;
}

}  // namespace ollama::chat::jinja
