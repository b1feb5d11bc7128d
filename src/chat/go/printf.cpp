// fmt.Sprintf: what its verbs and flags make of values.
#include <algorithm>
#include <boost/json/object.hpp>
#include <charconv>
#include <cmath>
#include <format>
#include <optional>
#include <string>
#include <utility>

#include "chat/go/format.h"
#include "chat/go/literal.h"
#include "chat/go/number_text.h"

namespace ollama::chat::go {
namespace {

constexpr int kMaxWidth = 10'000;
constexpr int kMaxDigits = 1'000;         // of a number's precision
constexpr int kMaxPrecision = 1'000'000;  // of a text

struct Spec {
  bool minus = false;
  bool plus = false;
  bool sharp = false;
  bool space = false;
  bool zero = false;
  std::optional<int> width;
  std::optional<int> precision;
  std::string verb;  // one character
};

std::size_t rune_count(std::string_view text) {
  return static_cast<std::size_t>(std::ranges::count_if(
      text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; }));
}

void append_quoted(std::string& out, std::string_view rune, char quote, bool ascii) {
  constexpr std::string_view kMeanings = "\a\b\f\n\r\t\v\\";
  constexpr std::string_view kNames = "abfnrtv\\";
  const auto [code, length] = front_rune(rune);
  if (code == 0xFFFD && length == 1) {
    out += std::format("\\x{:02x}", static_cast<unsigned char>(rune[0]));
  } else if (code == static_cast<unsigned char>(quote)) {
    out += '\\';
    out += quote;
  } else if (const auto at = kMeanings.find(rune[0]); at != std::string_view::npos) {
    out += '\\';
    out += kNames[at];
  } else if (is_printable(code) && (code < 0x80 || !ascii)) {
    out += rune.substr(0, length);
  } else if (code < 0x80) {
    out += std::format("\\x{:02x}", code);
  } else {
    out += code < 0x10000 ? std::format("\\u{:04x}", code) : std::format("\\U{:08x}", code);
  }
}

std::string quoted(std::string_view text, char quote, bool ascii) {
  std::string out(1, quote);
  while (!text.empty()) {
    append_quoted(out, text, quote, ascii);
    text.remove_prefix(front_rune(text).second);
  }
  return out + quote;
}

class Formatter {
 public:
  Formatter(Sink& out, std::string_view format, std::span<const Value> values)
      : out_(out), format_(format), values_(values) {}

  Result<> run() {
    while (!format_.empty() && !out_.full()) {
      const std::size_t plain = std::min(format_.find('%'), format_.size());
      out_.add(format_.substr(0, plain));
      format_.remove_prefix(plain);
      if (format_.empty()) break;
      format_.remove_prefix(1);
      OLLAMA_TRY(directive());
    }
    if (!reordered_ && next_ < values_.size()) add_extra();
    return {};
  }

 private:
  // ---- Reading a directive

  Result<> directive() {
    Spec spec;
    bad_index_ = false;
    bool after_index = false;
    take_flags(spec);
    after_index |= take_index();
    OLLAMA_TRY(take_width(spec));
    if (format_.starts_with('.')) {
      format_.remove_prefix(1);
      after_index |= take_index();
      OLLAMA_TRY(take_precision(spec));
    }
    after_index |= take_index();
    if (format_.empty()) {
      out_.add("%!(NOVERB)");
      return {};
    }
    const std::size_t length = front_rune(format_).second;
    spec.verb = format_.substr(0, length);
    format_.remove_prefix(length);
    if (spec.verb == "v") spec.plus = false;  // means fields' names there
    if (spec.verb == "%") {
      out_.add('%');
    } else if (bad_index_) {
      out_.add(std::format("%!{}(BADINDEX)", spec.verb));
    } else if (next_ >= values_.size()) {
      out_.add(std::format("%!{}({})", spec.verb, after_index ? "BADINDEX" : "MISSING"));
    } else {
      const Value& value = values_[next_++];
      OLLAMA_TRY(check_digits(spec, value));
      print(spec, value);
    }
    return {};
  }

  void take_flags(Spec& spec) {
    for (; !format_.empty(); format_.remove_prefix(1)) {
      switch (format_[0]) {
        case '-':
          spec.minus = true;
          break;
        case '+':
          spec.plus = true;
          break;
        case '#':
          spec.sharp = true;
          break;
        case ' ':
          spec.space = true;
          break;
        case '0':
          spec.zero = true;
          break;
        default:
          return;
      }
    }
  }

  // "[n]": the value that comes next.
  bool take_index() {
    if (!format_.starts_with('[')) return false;
    reordered_ = true;
    const std::size_t close = format_.find(']');
    if (close == std::string_view::npos) {
      bad_index_ = true;
      return true;
    }
    std::size_t index = 0;
    const char* end = format_.data() + close;
    const auto [stop, error] = std::from_chars(format_.data() + 1, end, index);
    bad_index_ = error != std::errc{} || stop != end || index == 0 || index > values_.size();
    if (!bad_index_) next_ = index - 1;
    format_.remove_prefix(close + 1);
    return true;
  }

  // Digits, or * for the next value.
  std::optional<int> take_number(std::string_view complaint) {
    if (format_.starts_with('*')) {
      format_.remove_prefix(1);
      const bool good = next_ < values_.size() && values_[next_].is(Value::Kind::kInt);
      if (!good) {
        out_.add(complaint);
        if (next_ < values_.size()) ++next_;
        return std::nullopt;
      }
      const std::int64_t value = values_[next_++].integer();
      return static_cast<int>(
          std::clamp<std::int64_t>(value, -kMaxPrecision - 1, kMaxPrecision + 1));
    }
    int value = 0;
    const auto [end, error] =
        std::from_chars(format_.data(), format_.data() + format_.size(), value);
    if (end == format_.data() || format_[0] == '-') return std::nullopt;
    format_.remove_prefix(static_cast<std::size_t>(end - format_.data()));
    return error == std::errc{} ? value : kMaxPrecision + 1;
  }
  Result<> take_width(Spec& spec) {
    spec.width = take_number("%!(BADWIDTH)");
    if (!spec.width) return {};
    if (*spec.width < 0) {
      spec.minus = true;
      spec.width = -*spec.width;
    }
    if (*spec.width > kMaxWidth) {
      return fail(ErrorCode::kInvalidArgument, "a width of more than {}", kMaxWidth);
    }
    return {};
  }
  Result<> take_precision(Spec& spec) {
    const bool star = format_.starts_with('*');
    spec.precision = take_number("%!(BADPREC)");
    if (!spec.precision && !star) spec.precision = 0;
    if (spec.precision && *spec.precision < 0) spec.precision.reset();
    if (spec.precision && *spec.precision > kMaxPrecision) {
      return fail(ErrorCode::kInvalidArgument, "a precision of more than {}", kMaxPrecision);
    }
    return {};
  }
  static Result<> check_digits(const Spec& spec, const Value& value) {
    if (!value.is(Value::Kind::kString) && spec.precision.value_or(0) > kMaxDigits) {
      return fail(ErrorCode::kInvalidArgument, "a precision of more than {}", kMaxDigits);
    }
    return {};
  }

  void add_extra() {
    out_.add("%!(EXTRA ");
    for (std::size_t i = next_; i < values_.size(); ++i) {
      if (i > next_) out_.add(", ");
      add_typed(values_[i]);
    }
    out_.add(')');
  }
  void add_typed(const Value& value) {
    if (!value.is_nil()) {
      out_.add(value.type_name());
      out_.add('=');
    }
    print_value(out_, value);
  }
  void bad_verb(const Spec& spec, const Value& value) {
    out_.add("%!");
    out_.add(spec.verb);
    out_.add('(');
    add_typed(value);
    out_.add(')');
  }

  // ---- Values

  void print(const Spec& spec, const Value& value) {
    const char verb = spec.verb[0];
    if (verb == 'T') return pad(spec, value.is_nil() ? "<nil>" : value.type_name());
    const bool text_verb = std::string_view("vsqxX").contains(verb);
    if (value.prints_json() && text_verb) {
      Sink json(out_.limit() - out_.size());
      write_json(json, value);
      return print_text(spec, value, json.view());
    }
    switch (value.kind()) {
      case Value::Kind::kMissing:
      case Value::Kind::kNil:
        return verb == 'v' ? pad(spec, "<nil>") : bad_verb(spec, value);
      case Value::Kind::kBool:
        if (verb != 't' && verb != 'v') return bad_verb(spec, value);
        return pad(spec, value.boolean() ? "true" : "false");
      case Value::Kind::kInt:
        return print_int(spec, value);
      case Value::Kind::kFloat:
        return print_float(spec, value);
      case Value::Kind::kString:
        return print_text(spec, value, value.text());
      case Value::Kind::kList:
        return print_list(spec, value.list());
      case Value::Kind::kMap:
        return print_map(spec, value.map());
      case Value::Kind::kObject:
        return bad_verb(spec, value);
    }
  }

  void print_list(const Spec& spec, const Elements& list) {
    out_.add('[');
    for (std::size_t i = 0; i < list.size() && !out_.full(); ++i) {
      if (i > 0) out_.add(' ');
      print_inner(spec, list[i]);
    }
    out_.add(']');
  }
  // Inside of lists and maps, nil is the same whatever the verb.
  void print_inner(const Spec& spec, const Value& value) {
    if (value.is_nil()) return out_.add("<nil>");
    print(spec, value);
  }
  void print_map(const Spec& spec, const api::JsonObject& map) {
    out_.add("map[");
    bool first = true;
    for (const auto* member : sorted_members(map)) {
      if (!std::exchange(first, false)) out_.add(' ');
      print(spec, Value(std::string_view(member->key())));
      out_.add(':');
      print_inner(spec, Value::of(member->value()));
    }
    out_.add(']');
  }

  // To the width, counted in characters.
  void pad(const Spec& spec, std::string_view text) {
    const auto width = static_cast<std::size_t>(spec.width.value_or(0));
    const std::size_t have = rune_count(text);
    const std::size_t missing = width > have ? width - have : 0;
    if (!spec.minus) out_.fill(spec.zero ? '0' : ' ', missing);
    out_.add(text);
    if (spec.minus) out_.fill(' ', missing);
  }

  void print_text(const Spec& spec, const Value& value, std::string_view text) {
    const bool bytes = spec.verb == "x" || spec.verb == "X";
    if (spec.precision) text = cut(text, static_cast<std::size_t>(*spec.precision), bytes);
    if (bytes) {
      pad(spec, hex(spec, text));
    } else if (spec.verb == "q") {
      const bool raw = spec.sharp && text.find_first_of("`\n\r\x7f") == std::string_view::npos;
      pad(spec, raw ? std::format("`{}`", text) : quoted(text, '"', spec.plus));
    } else if (spec.verb == "v" || spec.verb == "s") {
      pad(spec, text);
    } else {
      bad_verb(spec, value);
    }
  }
  static std::string_view cut(std::string_view text, std::size_t count, bool bytes) {
    if (bytes) return text.substr(0, count);
    std::string_view rest = text;
    while (count-- > 0 && !rest.empty()) rest.remove_prefix(front_rune(rest).second);
    return text.substr(0, text.size() - rest.size());
  }
  static std::string hex(const Spec& spec, std::string_view text) {
    std::string out;
    for (const char c : text) {
      if (spec.space && !out.empty()) out += ' ';
      if (spec.sharp && (out.empty() || spec.space)) out += spec.verb == "x" ? "0x" : "0X";
      const auto byte = static_cast<unsigned char>(c);
      out += spec.verb == "x" ? std::format("{:02x}", byte) : std::format("{:02X}", byte);
    }
    return out;
  }

  void print_int(const Spec& spec, const Value& value) {
    const std::int64_t number = value.integer();
    const std::uint32_t code =
        number < 0 || number > 0x10FFFF ? 0xFFFD : static_cast<std::uint32_t>(number);
    std::string rune;
    append_utf8(rune, code);
    switch (spec.verb[0]) {
      case 'v':
      case 'd':
        return print_digits(spec, number, 10, "");
      case 'b':
        return print_digits(spec, number, 2, spec.sharp ? "0b" : "");
      case 'o':
        return print_digits(spec, number, 8, spec.sharp ? "0" : "");
      case 'O':
        return print_digits(spec, number, 8, "0o");
      case 'x':
        return print_digits(spec, number, 16, spec.sharp ? "0x" : "");
      case 'X':
        return print_digits(spec, number, 16, spec.sharp ? "0X" : "");
      case 'c':
        return pad(spec, rune);
      case 'q':
        return pad(spec, quoted(rune, '\'', spec.plus));
      case 'U':
        return pad(spec, std::format("U+{:04X}", static_cast<std::uint64_t>(number)));
      default:
        return bad_verb(spec, value);
    }
  }
  static std::string_view sign_of(const Spec& spec, bool negative) {
    return negative ? "-" : spec.plus ? "+" : spec.space ? " " : "";
  }
  void print_digits(const Spec& spec, std::int64_t number, int base, std::string_view prefix) {
    const bool negative = number < 0;
    const auto magnitude =
        negative ? ~static_cast<std::uint64_t>(number) + 1 : static_cast<std::uint64_t>(number);
    std::array<char, 65> buffer{};
    const auto end =
        std::to_chars(buffer.data(), buffer.data() + buffer.size(), magnitude, base).ptr;
    std::string digits(buffer.data(), end);
    if (spec.verb == "X") std::ranges::transform(digits, digits.begin(), upper);
    const std::string_view sign = sign_of(spec, negative);
    auto least = static_cast<std::size_t>(spec.precision.value_or(0));
    if (spec.precision == 0 && number == 0) digits.clear();
    if (!spec.precision && spec.zero && !spec.minus) {
      least = static_cast<std::size_t>(spec.width.value_or(0));
      least -= std::min(least, sign.size());
    }
    if (digits.size() < least) digits.insert(0, least - digits.size(), '0');
    Spec plain = spec;
    plain.zero = false;
    pad(plain, std::format("{}{}{}", sign, prefix, digits));
  }
  static char upper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; }

  void print_float(const Spec& spec, const Value& value) {
    char verb = spec.verb[0];
    if (verb == 'v') verb = 'g';
    if (!std::string_view("eEfFgGxX").contains(verb)) return bad_verb(spec, value);
    const char lower = static_cast<char>(verb | 0x20);
    std::optional<int> precision = spec.precision;
    if (!precision && (lower == 'e' || lower == 'f')) precision = 6;
    std::string text = float_text(value.number(), lower, precision);
    if (verb != lower) std::ranges::transform(text, text.begin(), upper);
    const bool negative = text.starts_with('-');
    if (negative || text.starts_with('+')) text.erase(0, 1);
    const std::string_view sign = sign_of(spec, negative);
    Spec plain = spec;
    if (spec.zero && !spec.minus && std::isfinite(value.number())) {
      auto least = static_cast<std::size_t>(spec.width.value_or(0));
      least -= std::min(least, sign.size());
      if (text.size() < least) text.insert(0, least - text.size(), '0');
    }
    plain.zero = false;
    pad(plain, std::format("{}{}", sign, text));
  }

  Sink& out_;
  std::string_view format_;
  std::span<const Value> values_;
  std::size_t next_ = 0;
  bool reordered_ = false;
  bool bad_index_ = false;
};

}  // namespace

Result<> print_format(Sink& out, std::string_view format, std::span<const Value> values) {
  return Formatter(out, format, values).run();
}

}  // namespace ollama::chat::go
