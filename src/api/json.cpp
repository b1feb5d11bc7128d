// JSON text, the field reader, base64.
#include <array>
#include <boost/json/parser.hpp>
#include <boost/system/system_error.hpp>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <format>

#include "api/fields.h"
#include "api/types.h"

namespace ollama::api {
namespace {

// The length of the valid UTF-8 character at the front of `text`; 0 when there is none.
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
  };
  const auto continues = [&](std::size_t i) { return (byte(i) & 0xC0U) == 0x80U; };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return continues(1) ? 2 : 0;
  if (lead >= 0xE0 && lead <= 0xEF) {
    if (!continues(1) || !continues(2)) return 0;
    if (lead == 0xE0 && byte(1) < 0xA0) return 0;   // overlong
    if (lead == 0xED && byte(1) >= 0xA0) return 0;  // a surrogate
    return 3;
  }
  if (lead >= 0xF0 && lead <= 0xF4) {
    if (!continues(1) || !continues(2) || !continues(3)) return 0;
    if (lead == 0xF0 && byte(1) < 0x90) return 0;
    if (lead == 0xF4 && byte(1) >= 0x90) return 0;  // beyond U+10FFFF
    return 4;
  }
  return 0;
}

void write_string(std::string& out, std::string_view text) {
  out += '"';
  for (std::size_t i = 0; i < text.size();) {
    const char c = text[i];
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      default: {
        if (static_cast<unsigned char>(c) < 0x20) {
          out += std::format("\\u{:04x}", static_cast<unsigned>(c));
          break;
        }
        const std::size_t length = utf8_length(text.substr(i));
        // Invalid bytes would make the whole document invalid.
        out += length == 0 ? std::string_view("\\ufffd") : text.substr(i, length);
        i += std::max<std::size_t>(length, 1);
        continue;
      }
    }
    ++i;
  }
  out += '"';
}

void write_double(std::string& out, double value) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  // Plain notation in the range where people expect it.
  const double magnitude = std::abs(value);
  const bool plain = magnitude == 0 || (magnitude >= 1e-6 && magnitude < 1e21);
  std::array<char, 64> buffer{};
  const auto [end, error] =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                    plain ? std::chars_format::fixed : std::chars_format::scientific);
  out.append(buffer.data(), end);
}

// Depth is bounded by the parser for what came from outside.
void write(std::string& out, const Json& value);  // NOLINT(misc-no-recursion)

void write(std::string& out, const JsonObject& object) {  // NOLINT(misc-no-recursion)
  out += '{';
  bool first = true;
  for (const auto& [key, value] : object) {
    if (!first) out += ',';
    first = false;
    write_string(out, key);
    out += ':';
    write(out, value);
  }
  out += '}';
}

void write(std::string& out, const Json& value) {  // NOLINT(misc-no-recursion)
  switch (value.kind()) {
    case boost::json::kind::null:
      out += "null";
      break;
    case boost::json::kind::bool_:
      out += value.get_bool() ? "true" : "false";
      break;
    case boost::json::kind::int64:
      out += std::to_string(value.get_int64());
      break;
    case boost::json::kind::uint64:
      out += std::to_string(value.get_uint64());
      break;
    case boost::json::kind::double_:
      write_double(out, value.get_double());
      break;
    case boost::json::kind::string:
      write_string(out, value.get_string());
      break;
    case boost::json::kind::array: {
      out += '[';
      bool first = true;
      for (const Json& element : value.get_array()) {
        if (!first) out += ',';
        first = false;
        write(out, element);
      }
      out += ']';
      break;
    }
    case boost::json::kind::object:
      write(out, value.get_object());
      break;
  }
}

constexpr std::string_view kBase64Digits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

constexpr auto kBase64Values = [] {
  std::array<std::int8_t, 256> values{};
  values.fill(-1);
  for (std::size_t i = 0; i < kBase64Digits.size(); ++i) {
    values[static_cast<unsigned char>(kBase64Digits[i])] = static_cast<std::int8_t>(i);
  }
  return values;
}();

}  // namespace

Result<Json> parse_json(std::string_view text) {
  boost::json::parse_options options;
  options.max_depth = 256;
  options.allow_invalid_utf16 = true;
  options.numbers = boost::json::number_precision::precise;
  boost::json::parser parser(boost::json::storage_ptr(), options);
  boost::system::error_code error;
  const std::size_t used = parser.write_some(text, error);
  if (!error && used < text.size()) {
    // Blanks after the document were taken; this is something else.
    return fail(ErrorCode::kInvalidArgument, "invalid JSON at byte {}: text after the document",
                used);
  }
  if (error) {
    return fail(ErrorCode::kInvalidArgument, "invalid JSON at byte {}: {}", used, error.message());
  }
  return parser.release();
}

std::string to_string(const Json& json) {
  std::string out;
  write(out, json);
  return out;
}

std::string to_string(const JsonObject& object) {
  std::string out;
  write(out, object);
  return out;
}

std::string_view kind_text(const Json& value) {
  switch (value.kind()) {
    case boost::json::kind::null:
      return "null";
    case boost::json::kind::bool_:
      return "a boolean";
    case boost::json::kind::int64:
    case boost::json::kind::uint64:
    case boost::json::kind::double_:
      return "a number";
    case boost::json::kind::string:
      return "a string";
    case boost::json::kind::array:
      return "an array";
    case boost::json::kind::object:
      return "an object";
  }
  return "something else";
}

std::optional<double> number_of(const Json& value) {
  if (const auto* number = value.if_int64()) return static_cast<double>(*number);
  if (const auto* number = value.if_uint64()) return static_cast<double>(*number);
  if (const auto* number = value.if_double()) return *number;
  return std::nullopt;
}

void Fields::set(std::string_view name, std::string_view expected, const Json& value) {
  if (error_) return;
  error_ = Error(ErrorCode::kInvalidArgument,
                 std::format("\"{}\" must be {}, not {}", name, expected, kind_text(value)));
}

void Fields::set_number(std::string_view name, const Json& value) {
  if (!value.is_number() || has_fraction(value)) return set(name, "an integer", value);
  if (!error_)
    error_ = Error(ErrorCode::kInvalidArgument, std::format("\"{}\" is out of range", name));
}

void Fields::refuse(std::string_view what, const Json& value) {
  error_ = Error(ErrorCode::kInvalidArgument,
                 std::format("{} must be a JSON object, not {}", what, kind_text(value)));
}

void Fields::read(std::string_view name, std::string& out) {
  const Json* value = find(name);
  if (value == nullptr) return;
  if (const auto* text = value->if_string()) {
    out.assign(text->data(), text->size());
  } else {
    set(name, "a string", *value);
  }
}

void Fields::read(std::string_view name, bool& out) {
  std::optional<bool> value;
  read(name, value);
  out = value.value_or(out);
}

void Fields::read(std::string_view name, std::optional<bool>& out) {
  const Json* value = find(name);
  if (value == nullptr) return;
  if (const auto* flag = value->if_bool()) {
    out = *flag;
  } else {
    set(name, "a boolean", *value);
  }
}

void Fields::read(std::string_view name, double& out) {
  const Json* value = find(name);
  if (value == nullptr) return;
  if (const auto number = number_of(*value)) {
    out = *number;
  } else {
    set(name, "a number", *value);
  }
}

void Fields::read(std::string_view name, std::vector<std::string>& out) {
  each(name, [&](const Json& item) -> Result<> {
    const auto* text = item.if_string();
    if (text == nullptr) {
      return fail(ErrorCode::kInvalidArgument, "\"{}\" must hold strings, not {}", name,
                  kind_text(item));
    }
    out.emplace_back(text->data(), text->size());
    return {};
  });
}

void Fields::read(std::string_view name, JsonObject& out) {
  const Json* value = find(name);
  if (value == nullptr) return;
  if (const auto* object = value->if_object()) {
    out = *object;
  } else {
    set(name, "an object", *value);
  }
}

void Fields::read_role(std::string& out) {
  read("role", out);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
}

void Fields::read_time(std::string_view name, Time& out) {
  std::string text;
  read(name, text);
  if (text.empty() || error_) return;
  if (auto time = parse_time(text)) {
    out = *time;
  } else {
    error_ = time.error().with_context(std::format("\"{}\"", name));
  }
}

Result<std::string> decode_base64(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size() / 4 * 3);
  std::uint32_t group = 0;
  int digits = 0;
  int padding = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\n' || c == '\r') continue;
    const int value = kBase64Values[static_cast<unsigned char>(c)];
    const bool pad = c == '=' && digits + padding >= 2 && digits + padding < 4;
    if ((value < 0 && !pad) || (value >= 0 && padding > 0)) {
      return fail(ErrorCode::kInvalidArgument, "illegal base64 data at input byte {}", i);
    }
    if (pad) {
      ++padding;
      group <<= 6;
    } else {
      ++digits;
      group = (group << 6) | static_cast<std::uint32_t>(value);
    }
    if (digits + padding == 4) {
      for (int shift = 16; shift >= 8 * padding; shift -= 8) {
        bytes += static_cast<char>((group >> shift) & 0xFFU);
      }
      digits = 0;
      group = 0;
      // After padding, only line breaks may follow: `padding` keeps its value.
      if (padding > 0) padding = 4;
    }
  }
  if (digits != 0 || (padding != 0 && padding != 4)) {
    return fail(ErrorCode::kInvalidArgument, "illegal base64 data at input byte {}", text.size());
  }
  return bytes;
}

std::string encode_base64(std::string_view bytes) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t group = 0;
    const std::size_t count = std::min<std::size_t>(3, bytes.size() - i);
    for (std::size_t k = 0; k < 3; ++k) {
      group = (group << 8) | (k < count ? static_cast<unsigned char>(bytes[i + k]) : 0U);
    }
    for (std::size_t k = 0; k < 4; ++k) {
      text += k <= count ? kBase64Digits[(group >> (18 - 6 * k)) & 63U] : '=';
    }
  }
  return text;
}

}  // namespace ollama::api
