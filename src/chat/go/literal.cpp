#include "chat/go/literal.h"

#include <algorithm>
#include <charconv>

#include "tokenizer/utf8.h"

namespace ollama::chat::go {
namespace {

constexpr std::uint32_t kReplacement = 0xFFFD;

bool has_any(std::string_view text, std::string_view characters) {
  return text.find_first_of(characters) != std::string_view::npos;
}

struct Digits {
  int base = 10;
  std::string text;
  bool negative = false;
};

// Sign and base, taken off, and underscores between digits.
std::optional<Digits> digits_of(std::string_view text) {
  Digits result;
  if (text.starts_with('-') || text.starts_with('+')) {
    result.negative = text[0] == '-';
    text.remove_prefix(1);
  }
  if (text.size() > 1 && text[0] == '0') {
    const char mark = static_cast<char>(text[1] | 0x20);
    result.base = mark == 'x' ? 16 : mark == 'b' ? 2 : 8;
    if (mark == 'x' || mark == 'b' || mark == 'o') {
      text.remove_prefix(2);
      if (text.starts_with('_')) text.remove_prefix(1);
    }
  }
  if (text.empty() || text.starts_with('_') || text.ends_with('_') || text.contains("__")) {
    return std::nullopt;
  }
  result.text = text;
  std::erase(result.text, '_');
  return result;
}

template <typename T>
std::optional<T> whole(std::string_view text, auto... how) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, how...);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// What an escape stands for: a code to be written as UTF-8, or a byte.
struct Escape {
  std::uint32_t code = 0;
  bool byte = false;
};

// After the backslash; takes what belongs to it.
std::optional<Escape> take_escape(std::string_view& text, char quote) {
  constexpr std::string_view kNames = "abfnrtv\\";
  constexpr std::string_view kMeanings = "\a\b\f\n\r\t\v\\";
  if (text.empty()) return std::nullopt;
  const char c = text[0];
  if (c == quote) {
    text.remove_prefix(1);
    return Escape{.code = static_cast<unsigned char>(c)};
  }
  if (const auto name = kNames.find(c); name != std::string_view::npos) {
    text.remove_prefix(1);
    return Escape{.code = static_cast<unsigned char>(kMeanings[name])};
  }
  const std::size_t length = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 3;
  const bool octal = c >= '0' && c <= '7';
  if (!octal && length == 3) return std::nullopt;
  if (!octal) text.remove_prefix(1);
  if (text.size() < length) return std::nullopt;
  const auto code = whole<std::uint32_t>(text.substr(0, length), octal ? 8 : 16);
  text.remove_prefix(length);
  if (!code) return std::nullopt;
  const bool byte = octal || c == 'x';
  const bool surrogate = *code >= 0xD800 && *code < 0xE000;
  if (byte ? *code > 255 : *code > 0x10FFFF || surrogate) return std::nullopt;
  return Escape{.code = *code, .byte = byte};
}

}  // namespace

std::optional<std::variant<std::int64_t, double>> parse_number(std::string_view text) {
  const auto digits = digits_of(text);
  if (!digits) return std::nullopt;
  const bool hex = digits->base == 16;
  if (has_any(digits->text, hex ? ".pP" : ".eE")) {
    const auto value =
        whole<double>(digits->text, hex ? std::chars_format::hex : std::chars_format::general);
    if (!value) return std::nullopt;
    return digits->negative ? -*value : *value;
  }
  const std::string signed_text = (digits->negative ? "-" : "") + digits->text;
  const auto value = whole<std::int64_t>(signed_text, digits->base);
  if (!value) return std::nullopt;
  return *value;
}

std::optional<std::int64_t> parse_char(std::string_view text) {
  if (text.size() < 3) return std::nullopt;
  text = text.substr(1, text.size() - 2);
  if (text[0] == '\\') {
    text.remove_prefix(1);
    const auto escape = take_escape(text, '\'');
    if (!escape || !text.empty()) return std::nullopt;
    return escape->code;
  }
  const auto [code, length] = front_rune(text);
  if (length != text.size()) return std::nullopt;
  return code;
}

std::optional<std::string> parse_string(std::string_view text) {
  if (text.size() < 2) return std::nullopt;
  text = text.substr(1, text.size() - 2);
  std::string out;
  while (!text.empty()) {
    const std::size_t plain = std::min(text.find('\\'), text.size());
    out += text.substr(0, plain);
    text.remove_prefix(plain);
    if (text.empty()) break;
    text.remove_prefix(1);
    const auto escape = take_escape(text, '"');
    if (!escape) return std::nullopt;
    if (escape->byte) {
      out += static_cast<char>(escape->code);
    } else {
      append_utf8(out, escape->code);
    }
  }
  return out;
}

void append_utf8(std::string& out, std::uint32_t code) {
  if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) code = kReplacement;
  tokenizer::utf8::append(out, code);
}

std::pair<std::uint32_t, std::size_t> front_rune(std::string_view text) {
  if (text.empty()) return {0, 1};
  if (tokenizer::utf8::scan_strict(text).status != tokenizer::utf8::Status::kComplete) {
    return {kReplacement, 1};
  }
  const tokenizer::utf8::Character rune = tokenizer::utf8::decode_lenient(text);
  return {rune.code, rune.length};
}

bool is_printable(std::uint32_t code) {
  if (code < 0x7F) return code >= 0x20;
  if (code < 0xA1) return false;
  const bool blank = code == 0xAD || (code >= 0x2000 && code <= 0x200F) ||
                     (code >= 0x2028 && code <= 0x202F) || code == 0x205F || code == 0x3000;
  const bool special = code == 0xFEFF || (code >= 0xE000 && code < 0xF900) || code >= 0xF0000;
  return !blank && !special;
}

}  // namespace ollama::chat::go
