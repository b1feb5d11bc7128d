#include "chat/python_calls.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <cctype>
#include <charconv>
#include <utility>

#include "tokenizer/utf8.h"

namespace ollama::chat {
namespace {

using std::string_view;
constexpr int kDeepest = 32;
constexpr string_view kBlanks = " \t\r\n";

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_octal(char c) { return c >= '0' && c <= '7'; }
bool is_surrogate(char32_t code) { return code >= 0xD800 && code < 0xE000; }

void append(std::string& out, char32_t code) {
  tokenizer::utf8::append(
      out, code > 0x10FFFF || is_surrogate(code) ? tokenizer::utf8::kReplacement : code);
}

// What a backslash and `c` stand for, where that is one byte; 0: it is not.
char escaped(char c) {
  static constexpr string_view kLetters = "nrtbfav\\'\"";
  static constexpr string_view kBytes = "\n\r\t\b\f\a\v\\'\"";
  const std::size_t at = kLetters.find(c);
  return at == string_view::npos ? '\0' : kBytes[at];
}

}  // namespace

std::optional<std::vector<api::ToolCall>> PythonReader::calls(bool bare) {
  std::vector<api::ToolCall> result;
  const bool listed = take('[');
  if (!listed && !bare) return std::nullopt;
  do {
    auto one = call();
    if (!one) return std::nullopt;
    result.push_back(std::move(*one));
  } while (take(',') && !(listed && rest_.starts_with(']')));
  if (listed && !take(']')) return std::nullopt;
  return result;
}

std::optional<api::ToolCall> PythonReader::call() {
  api::ToolCall result;
  result.name = word();
  if (result.name.empty() || !take('(')) return std::nullopt;
  while (!take(')')) {
    const std::string name = word();
    if (name.empty() || !take('=')) return std::nullopt;
    auto argument = value(0);
    if (!argument) return std::nullopt;
    result.arguments[name] = std::move(*argument);
    if (!take(',') && !rest_.starts_with(')')) return std::nullopt;
  }
  return result;
}

std::string PythonReader::word() {
  skip();
  const auto is_part = [](char c) {
    return (std::isalnum(static_cast<unsigned char>(c)) != 0) || c == '_' || c == '.' || c == '-';
  };
  const auto end = std::ranges::find_if_not(rest_, is_part);
  std::string result(rest_.begin(), end);
  rest_.remove_prefix(result.size());
  return result;
}

std::optional<api::Json> PythonReader::value(int depth) {
  skip();
  if (depth > kDeepest || rest_.empty()) return std::nullopt;
  if (at_string()) {
    auto text = strings();
    return text ? std::optional<api::Json>(string_view(*text)) : std::nullopt;
  }
  const char c = rest_.front();
  if (c == '[' || c == '(') return list(depth);
  if (c == '{') return dictionary(depth);
  if (is_digit(c) || string_view("+-.").contains(c)) return number();
  const std::string text = word();
  if (text == "True" || text == "true") return true;
  if (text == "False" || text == "false") return false;
  if (text == "None" || text == "null") return nullptr;
  return std::nullopt;
}

// Read as JSON, which has no underscores, no plus in front, and digits on both sides of a dot.
std::optional<api::Json> PythonReader::number() {
  std::string text;
  for (; !rest_.empty(); rest_.remove_prefix(1)) {
    const char c = rest_.front();
    const bool exponent = text.ends_with('e') || text.ends_with('E');
    const bool sign = (c == '-' || c == '+') && (text.empty() || exponent);
    if (!sign && !is_digit(c) && !string_view(".eE_").contains(c)) break;
    if (c == '_' || (c == '+' && text.empty())) continue;
    const bool lacks_digit = c == '.' ? text.empty() || text == "-" : text.ends_with('.');
    if (lacks_digit && !is_digit(c)) text += '0';
    text += c;
  }
  if (text.ends_with('.')) text += '0';
  auto parsed = api::parse_json(text);
  if (!parsed || !parsed->is_number()) return std::nullopt;
  return std::move(*parsed);
}

bool PythonReader::at_string() const {
  const std::size_t at = rest_.starts_with('r') || rest_.starts_with('R') ? 1 : 0;
  return at < rest_.size() && (rest_[at] == '"' || rest_[at] == '\'');
}

// Those that follow each other are one.
std::optional<std::string> PythonReader::strings() {
  std::string all;
  while (at_string()) {
    if (!string(all)) return std::nullopt;
    skip();
  }
  return all;
}

// false: it does not end.
bool PythonReader::string(std::string& out) {
  const bool raw = rest_.front() == 'r' || rest_.front() == 'R';
  if (raw) rest_.remove_prefix(1);
  const char quote = rest_.front();
  const bool triple = rest_.size() >= 3 && rest_[1] == quote && rest_[2] == quote;
  const string_view close = rest_.substr(0, triple ? 3 : 1);
  rest_.remove_prefix(close.size());
  while (!rest_.empty()) {
    if (rest_.starts_with(close)) {
      rest_.remove_prefix(close.size());
      return true;
    }
    const char c = rest_.front();
    rest_.remove_prefix(1);
    if (c == '\\' && !raw) {
      escape(out);
      continue;
    }
    out += c;
    // In a raw one a quote behind a backslash does not end it either.
    if (c == '\\' && !rest_.empty()) {
      out += rest_.front();
      rest_.remove_prefix(1);
    }
  }
  return false;
}

// Behind the backslash. What stands for nothing stays as it is.
void PythonReader::escape(std::string& out) {
  if (rest_.empty()) return;
  const char c = rest_.front();
  if (is_octal(c)) {
    const std::size_t length =
        std::min(rest_.find_first_not_of("01234567"), std::min<std::size_t>(rest_.size(), 3));
    unsigned value = 0;
    std::from_chars(rest_.data(), rest_.data() + length, value, 8);
    rest_.remove_prefix(length);
    append(out, value);
    return;
  }
  rest_.remove_prefix(1);
  if (c == '\n') return;  // the line goes on
  if (const char byte = escaped(c); byte != 0) {
    out += byte;
    return;
  }
  const std::size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
  auto found = digits == 0 ? std::nullopt : code(digits);
  if (!found) {
    out += '\\';
    out += c;
    return;
  }
  // Two halves, as in JSON.
  if (*found >= 0xD800 && *found < 0xDC00 && rest_.starts_with("\\u")) {
    const string_view behind = rest_;
    rest_.remove_prefix(2);
    const auto low = code(4);
    if (low && *low >= 0xDC00 && *low < 0xE000) {
      found = 0x10000 + ((*found - 0xD800) << 10) + (*low - 0xDC00);
    } else {
      rest_ = behind;
    }
  }
  append(out, *found);
}

std::optional<char32_t> PythonReader::code(std::size_t digits) {
  const string_view text = rest_.substr(0, digits);
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (error != std::errc() || end != text.data() + digits) return std::nullopt;
  rest_.remove_prefix(digits);
  return value;
}

std::optional<api::Json> PythonReader::list(int depth) {
  const bool tuple = rest_.front() == '(';
  const char close = tuple ? ')' : ']';
  rest_.remove_prefix(1);
  boost::json::array result;
  bool comma = false;
  while (!take(close)) {
    auto item = value(depth + 1);
    if (!item) return std::nullopt;
    result.push_back(std::move(*item));
    comma = take(',');
    if (!comma && !rest_.starts_with(close)) return std::nullopt;
  }
  // Parentheses alone make no tuple.
  if (tuple && result.size() == 1 && !comma) return std::move(result.front());
  return result;
}

std::optional<api::Json> PythonReader::dictionary(int depth) {
  rest_.remove_prefix(1);
  api::JsonObject result;
  while (!take('}')) {
    const auto key = value(depth + 1);
    if (!key || key->is_structured() || !take(':')) return std::nullopt;
    auto item = value(depth + 1);
    if (!item) return std::nullopt;
    // JSON's keys are texts.
    const std::string name =
        key->is_string() ? std::string(key->get_string()) : api::to_string(*key);
    result[name] = std::move(*item);
    if (!take(',') && !rest_.starts_with('}')) return std::nullopt;
  }
  return result;
}

void PythonReader::skip() {
  rest_.remove_prefix(std::min(rest_.find_first_not_of(kBlanks), rest_.size()));
}

bool PythonReader::take(char c) {
  skip();
  if (!rest_.starts_with(c)) return false;
  rest_.remove_prefix(1);
  skip();
  return true;
}

}  // namespace ollama::chat
