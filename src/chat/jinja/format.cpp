#include "chat/jinja/format.h"

#include <cmath>
#include <cstdio>

#include "base/units.h"
#include "chat/jinja/operators.h"
#include "chat/jinja/unicode.h"

namespace ollama::chat::jinja {

namespace {

constexpr std::size_t kMaxWidth = 10'000;
constexpr int kMaxPrecision = 100;

// One field's way of being written, of either syntax.
struct Spec {
  std::string_view fill = " ";
  char align = 0;  // '<', '>', '^', '=' or none given
  char sign = '-';
  bool alternate = false;
  char grouping = 0;
  std::size_t width = 0;
  int precision = -1;
  char type = 0;
};

std::string digits_of(std::uint64_t value, unsigned base, bool upper) {
  const std::string_view symbols = upper ? "0123456789ABCDEF" : "0123456789abcdef";
  std::string digits;
  do {
    digits.insert(digits.begin(), symbols[static_cast<std::size_t>(value % base)]);
    value /= base;
  } while (value != 0);
  return digits;
}

std::string group(std::string digits, char separator) {
  if (separator == 0) return digits;
  std::size_t end = digits.find_first_not_of("0123456789");
  if (end == std::string::npos) end = digits.size();
  for (std::size_t at = end; at > 3; at -= 3) digits.insert(at - 3, 1, separator);
  return digits;
}

std::string padded(const Spec& spec, std::string_view sign, std::string_view body,
                   char default_align) {
  const std::size_t size = count_characters(sign) + count_characters(body);
  std::string pad;
  const std::size_t missing = spec.width > size ? spec.width - size : 0;
  const auto fill = [&](std::size_t count) {
    std::string out;
    for (std::size_t i = 0; i < count; ++i) out += spec.fill;
    return out;
  };
  const std::string text = std::string(sign) + std::string(body);
  switch (spec.align == 0 ? default_align : spec.align) {
    case '<':
      return text + fill(missing);
    case '^':
      return fill(missing / 2) + text + fill(missing - missing / 2);
    case '=':
      return std::string(sign) + fill(missing) + std::string(body);
    default:
      return fill(missing) + text;
  }
}

std::string_view sign_of(const Spec& spec, bool negative) {
  if (negative) return "-";
  return spec.sign == '+' ? "+" : spec.sign == ' ' ? " " : "";
}

std::string format_integer(const Spec& spec, std::int64_t value) {
  const bool negative = value < 0;
  const std::uint64_t magnitude =
      negative ? 0 - static_cast<std::uint64_t>(value) : static_cast<std::uint64_t>(value);
  std::string prefix(sign_of(spec, negative));
  std::string digits;
  switch (spec.type) {
    case 'b':
      digits = digits_of(magnitude, 2, false);
      if (spec.alternate) prefix += "0b";
      break;
    case 'o':
      digits = digits_of(magnitude, 8, false);
      if (spec.alternate) prefix += "0o";
      break;
    case 'x':
    case 'X':
      digits = digits_of(magnitude, 16, spec.type == 'X');
      if (spec.alternate) prefix += spec.type == 'X' ? "0X" : "0x";
      break;
    case 'c':
      if (value < 0 || value > 0x10FFFF) raise("%c arg not in range(0x110000)");
      tokenizer::utf8::append(digits, static_cast<char32_t>(value));
      return padded(spec, "", digits, '<');
    default:
      digits = group(digits_of(magnitude, 10, false), spec.grouping);
  }
  return padded(spec, prefix, digits, '>');
}

std::string format_float(const Spec& spec, double value) {
  const std::string_view sign = sign_of(spec, std::signbit(value));
  const double magnitude = std::fabs(value);
  const bool upper = spec.type == 'F' || spec.type == 'E' || spec.type == 'G';
  if (!std::isfinite(value)) {
    const std::string_view name = std::isnan(value) ? (upper ? "NAN" : "nan")
                                  : upper           ? "INF"
                                                    : "inf";
    return padded(spec, sign, name, '>');
  }
  if (spec.type == 0 && spec.precision < 0) {
    return padded(spec, sign, group(float_text(magnitude), spec.grouping), '>');
  }
  const char type = spec.type == 0 || spec.type == 'n' ? 'g' : spec.type == '%' ? 'f' : spec.type;
  const double shown = spec.type == '%' ? magnitude * 100 : magnitude;
  const int precision = spec.precision < 0 ? 6 : spec.precision;
  const char pattern[] = {'%', '.', '*', type, '\0'};
  std::array<char, 512> buffer;
  const int size = std::snprintf(buffer.data(), buffer.size(), pattern, precision, shown);
  std::string digits(buffer.data(), static_cast<std::size_t>(std::clamp(size, 0, 511)));
  digits = group(std::move(digits), spec.grouping);
  if (spec.type == '%') digits += '%';
  return padded(spec, sign, digits, '>');
}

std::string format_text(const Spec& spec, std::string_view text) {
  if (spec.precision >= 0) {
    text = text.substr(0, byte_of(text, static_cast<std::size_t>(spec.precision)));
  }
  return padded(spec, "", text, '<');
}

std::size_t read_width(std::string_view& text) {
  std::size_t width = 0;
  while (!text.empty() && text.front() >= '0' && text.front() <= '9') {
    width = width * 10 + static_cast<std::size_t>(text.front() - '0');
    if (width > kMaxWidth) raise("a width beyond {} is not supported", kMaxWidth);
    text.remove_prefix(1);
  }
  return width;
}

int read_precision(std::string_view& text) {
  const std::size_t precision = read_width(text);
  return static_cast<int>(std::min<std::size_t>(precision, kMaxPrecision));
}

// ---- %

// What Python takes for a mapping here: no value of it need be used.
bool is_mapping(const Value& value) {
  return value.dict() || value.list() || value.is(Kind::kRange) || value.undefined();
}

class PercentFormatter {
 public:
  PercentFormatter(Runtime& run, const Value& values) : run_(run), values_(values) {
    if (values.is(Kind::kTuple)) items_ = values.as_list().items;
  }

  std::string format(std::string_view format) {
    while (!format.empty()) {
      const std::size_t percent = std::min(format.find('%'), format.size());
      out_ += format.substr(0, percent);
      run_.charge_bytes(percent);
      run_.check_size(out_.size());
      format.remove_prefix(percent);
      if (format.empty()) break;
      format.remove_prefix(1);
      write_field(format);
    }
    if (!named_ && !is_mapping(values_) &&
        (values_.is(Kind::kTuple) ? next_ < items_.size() : next_ == 0)) {
      raise("not all arguments converted during string formatting");
    }
    return std::move(out_);
  }

 private:
  Value take() {
    if (values_.is(Kind::kTuple) ? next_ >= items_.size() : next_ > 0) {
      raise("not enough arguments for format string");
    }
    const Value value = values_.is(Kind::kTuple) ? items_[next_] : values_;
    ++next_;
    return value;
  }

  void write_field(std::string_view& format) {
    Spec spec;
    Value value;
    if (format.starts_with('(')) {
      const std::size_t close = format.find(')');
      if (close == std::string_view::npos) raise("incomplete format key");
      if (!values_.dict()) raise("format requires a mapping");
      named_ = true;
      value = dict_find(values_, format.substr(1, close - 1));
      if (value.missing())
        raise("'{}' is not in the values to format", format.substr(1, close - 1));
      format.remove_prefix(close + 1);
    }
    bool zero = false;
    for (; !format.empty() && std::string_view("-+ #0").contains(format.front());
         format.remove_prefix(1)) {
      if (format.front() == '-') spec.align = '<';
      if (format.front() == '+') spec.sign = '+';
      if (format.front() == ' ' && spec.sign != '+') spec.sign = ' ';
      if (format.front() == '#') spec.alternate = true;
      if (format.front() == '0') zero = true;
    }
    spec.width = read_width(format);
    if (format.starts_with('.')) {
      format.remove_prefix(1);
      spec.precision = read_precision(format);
    }
    if (format.empty()) raise("incomplete format");
    spec.type = format.front();
    format.remove_prefix(1);
    if (spec.type == '%') {
      out_ += '%';
      return;
    }
    if (value.missing()) value = take();
    if (zero && spec.align == 0 && value.number()) {
      spec.fill = "0";
      spec.align = '=';
    }
    write_value(spec, value);
  }

  void write_value(Spec spec, const Value& value) {
    if (spec.align == 0) spec.align = '>';
    switch (spec.type) {
      case 's':
        out_ += format_text(spec, to_text(run_, value));
        return;
      case 'r':
      case 'a': {
        std::string text;
        append_repr(run_, text, value);
        out_ += format_text(spec, text);
        return;
      }
      case 'c':
        out_ += value.string() ? format_text(spec, value.text())
                               : format_integer(spec, value.integer());
        return;
      default:
        break;
    }
    if (!value.number()) {
      require_defined(value);
      raise("%{} format: a real number is required, not {}", spec.type, type_name(value.kind()));
    }
    if (std::string_view("diuoxX").contains(spec.type)) {
      if (value.is(Kind::kFloat) &&
          (std::string_view("oxX").contains(spec.type) || !(std::fabs(value.real()) < 9e18))) {
        raise("%{} format: an integer is required, not float", spec.type);
      }
      out_ += format_integer(
          spec, value.is(Kind::kFloat) ? static_cast<std::int64_t>(value.real()) : value.integer());
    } else if (std::string_view("eEfFgG").contains(spec.type)) {
      out_ += format_float(spec, value.real());
    } else {
      raise("unsupported format character '{}'", spec.type);
    }
  }

  Runtime& run_;
  const Value& values_;
  std::span<const Value> items_;
  std::size_t next_ = 0;
  bool named_ = false;
  std::string out_;
};

// ---- {}

Spec parse_spec(std::string_view text) {
  Spec spec;
  if (!text.empty()) {
    const std::size_t first = character_length(text);
    const auto is_align = [](char c) { return c == '<' || c == '>' || c == '^' || c == '='; };
    if (text.size() > first && is_align(text[first])) {
      spec.fill = text.substr(0, first);
      spec.align = text[first];
      text.remove_prefix(first + 1);
    } else if (is_align(text.front())) {
      spec.align = text.front();
      text.remove_prefix(1);
    }
  }
  const auto take = [&](std::string_view any) {
    if (text.empty() || !any.contains(text.front())) return '\0';
    const char taken = text.front();
    text.remove_prefix(1);
    return taken;
  };
  if (const char sign = take("+- ")) spec.sign = sign;
  spec.alternate = take("#") != 0;
  if (text.starts_with('0') && spec.align == 0) {
    spec.fill = "0";
    spec.align = '=';
  }
  spec.width = read_width(text);
  spec.grouping = take(",_");
  if (take(".") != 0) spec.precision = read_precision(text);
  spec.type = take("bcdeEfFgGnosxX%");
  if (!text.empty()) raise("Invalid format specifier");
  return spec;
}

std::string format_value(Runtime& run, const Value& value, std::string_view text) {
  if (text.empty()) return std::string(to_text(run, value));
  const Spec spec = parse_spec(text);
  const bool whole = spec.type == 0 || std::string_view("bcdnoxX").contains(spec.type);
  if (value.is(Kind::kInt) || (value.is(Kind::kBool) && spec.type != 0 && spec.type != 's')) {
    if (spec.type == 's') raise("Unknown format code 's' for object of type 'int'");
    return whole ? format_integer(spec, value.integer()) : format_float(spec, value.real());
  }
  if (value.is(Kind::kFloat)) {
    if (spec.type != 0 && !std::string_view("eEfFgGn%").contains(spec.type)) {
      raise("Unknown format code '{}' for object of type 'float'", spec.type);
    }
    return format_float(spec, value.real());
  }
  if (spec.type != 0 && spec.type != 's') {
    raise("Unknown format code '{}' for object of type '{}'", spec.type, type_name(value.kind()));
  }
  if (!value.string() && !value.is(Kind::kBool)) {
    require_defined(value);
    raise("unsupported format string passed to {}.__format__", type_name(value.kind()));
  }
  return format_text(spec, to_text(run, value));
}

class BraceFormatter {
 public:
  BraceFormatter(Runtime& run, std::span<const Value> positional, std::span<const Argument> named)
      : run_(run), positional_(positional), named_(named) {}

  std::string format(std::string_view format, int depth = 0) {
    std::string out;
    while (!format.empty()) {
      const char c = format.front();
      if (format.starts_with("{{") || format.starts_with("}}")) {
        out += c;
        format.remove_prefix(2);
      } else if (c == '}') {
        raise("Single '}}' encountered in format string");
      } else if (c != '{') {
        const std::size_t plain = std::min(format.find_first_of("{}"), format.size());
        out += format.substr(0, plain);
        format.remove_prefix(plain);
      } else {
        if (depth > 1) raise("Max string recursion exceeded");
        out += field(take_field(format), depth);
      }
      run_.charge(1);
      run_.check_size(out.size());
    }
    return out;
  }

 private:
  // What stands between the braces, which may hold others.
  static std::string_view take_field(std::string_view& format) {
    int open = 0;
    for (std::size_t at = 0; at < format.size(); ++at) {
      if (format[at] == '{') ++open;
      if (format[at] == '}' && --open == 0) {
        const std::string_view inside = format.substr(1, at - 1);
        format.remove_prefix(at + 1);
        return inside;
      }
    }
    raise("expected '}}' before end of string");
  }

  std::string field(std::string_view text, int depth) {
    const std::size_t colon = std::min(text.find(':'), text.size());
    std::string_view name = text.substr(0, colon);
    const std::string_view spec = colon < text.size() ? text.substr(colon + 1) : std::string_view();
    char conversion = 0;
    if (const std::size_t mark = name.find('!'); mark != std::string_view::npos) {
      if (mark + 2 != name.size()) raise("expected ':' after conversion specifier");
      conversion = name[mark + 1];
      name = name.substr(0, mark);
    }
    Value value = lookup(name);
    if (conversion == 'r' || conversion == 'a') {
      std::string repr;
      append_repr(run_, repr, value);
      value = make_string(run_, repr);
    } else if (conversion == 's') {
      value = Value(to_text(run_, value));
    } else if (conversion != 0) {
      raise("Unknown conversion specifier '{}'", conversion);
    }
    const std::string inner = spec.contains('{') ? format(spec, depth + 1) : std::string(spec);
    return format_value(run_, value, inner);
  }

  Value lookup(std::string_view name) {
    const std::size_t end = std::min(name.find_first_of(".["), name.size());
    Value value = argument(name.substr(0, end));
    name.remove_prefix(end);
    while (!name.empty()) {
      const bool bracket = name.front() == '[';
      const std::size_t stop =
          bracket ? name.find(']') : std::min(name.find_first_of(".[", 1), name.size());
      if (stop == std::string_view::npos) raise("Missing ']' in format string");
      const std::string_view key = name.substr(1, stop - 1);
      const auto index = parse_number<std::int64_t>(key);
      const Value item = find_item(run_, value, index ? Value(*index) : Value(key));
      if (item.missing()) raise("'{}' has no element '{}'", type_name(value.kind()), key);
      value = item;
      name.remove_prefix(bracket ? stop + 1 : stop);
    }
    return value;
  }

  Value argument(std::string_view name) {
    if (name.empty()) return positional(next_++);
    if (const auto index = parse_number<std::size_t>(name)) return positional(*index);
    for (const Argument& argument : named_) {
      if (argument.name == name) return argument.value;
    }
    raise("'{}' is not among the values to format", name);
  }
  Value positional(std::size_t index) const {
    if (index >= positional_.size()) raise("Replacement index {} out of range", index);
    return positional_[index];
  }

  Runtime& run_;
  std::span<const Value> positional_;
  std::span<const Argument> named_;
  std::size_t next_ = 0;
};

}  // namespace

std::string percent_format(Runtime& run, std::string_view format, const Value& values) {
  return PercentFormatter(run, values).format(format);
}

std::string brace_format(Runtime& run, std::string_view format, std::span<const Value> positional,
                         std::span<const Argument> named) {
  return BraceFormatter(run, positional, named).format(format);
}

}  // namespace ollama::chat::jinja
