#include "chat/jinja/lexer.h"

#include <charconv>
#include <cmath>
#include <string>

#include "chat/jinja/unicode.h"

namespace ollama::chat::jinja {

namespace {

constexpr bool is_digit_byte(char c) { return c >= '0' && c <= '9'; }
constexpr bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}
constexpr bool is_name_byte(char c) { return is_name_start(c) || is_digit_byte(c); }

// Line breaks of any system as \n, and one at the end left out, as Jinja2 does.
std::string normalise(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\r') {
      out += text[i];
      continue;
    }
    out += '\n';
    if (i + 1 < text.size() && text[i + 1] == '\n') ++i;
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  Lexer(std::string_view text, Arena& arena) : arena_(arena), text_(arena.copy(normalise(text))) {}

  std::vector<Token> run() {
    while (at_ < text_.size()) read_text();
    tokens_.push_back({.kind = TokenKind::kEnd, .at = position(at_)});
    return std::move(tokens_);
  }

 private:
  // Asked for ascending places only.
  Position position(std::size_t at) {
    for (; counted_ < at; ++counted_) {
      if (text_[counted_] == '\n') {
        ++line_;
        line_begin_ = counted_ + 1;
      }
    }
    return {.line = line_, .column = static_cast<std::uint32_t>(at - line_begin_ + 1)};
  }

  std::string_view rest() const { return text_.substr(at_); }
  char sign_at(std::size_t at) const {
    return at < text_.size() && (text_[at] == '-' || text_[at] == '+') ? text_[at] : '\0';
  }
  void skip_blanks() { at_ = text_.size() - strip_left(rest()).size(); }

  // Text up to the next tag, then that tag.
  void read_text() {
    const std::size_t begin = at_;
    std::size_t open = text_.find('{', at_);
    while (open != std::string_view::npos &&
           (open + 1 >= text_.size() || !std::string_view("{%#").contains(text_[open + 1]))) {
      open = text_.find('{', open + 1);
    }
    if (open == std::string_view::npos) {
      push_text(begin, text_.substr(begin));
      at_ = text_.size();
      return;
    }
    const char type = text_[open + 1];
    const char sign = sign_at(open + 2);
    push_text(begin, before_tag(text_.substr(begin, open - begin), type != '{', sign));
    at_ = open;
    if (type == '#') {
      read_comment();
    } else if (type == '%' && read_raw()) {
      // done
    } else {
      read_tag(type == '%');
    }
  }

  // What is left of the text before a tag.
  std::string_view before_tag(std::string_view text, bool block, char sign) const {
    if (sign == '-') return strip_right(text);
    if (sign == '+' || !block) return text;
    const std::size_t line = text.rfind('\n') + 1;  // npos + 1 is 0
    if ((line > 0 || line_starting_) && strip_left(text.substr(line)).empty()) {
      return text.substr(0, line);
    }
    return text;
  }

  void push_text(std::size_t begin, std::string_view text) {
    if (text.empty()) return;
    tokens_.push_back({.kind = TokenKind::kText, .at = position(begin), .text = text});
  }

  // After a block's or comment's end: its line break goes, or with '-' all blanks.
  void after_tag(char sign, bool block) {
    if (sign == '-') {
      skip_blanks();
    } else if (sign != '+' && block && rest().starts_with('\n')) {
      ++at_;
    }
    line_starting_ = text_[at_ - 1] == '\n';
  }

  void read_comment() {
    const Position begin = position(at_);
    const std::size_t body = at_ + 2 + (sign_at(at_ + 2) != 0 ? 1 : 0);
    const std::size_t end = text_.find("#}", body);
    if (end == std::string_view::npos) raise_at(begin, "a comment is not closed by '#}}'");
    const char sign = end > body ? sign_at(end - 1) : '\0';
    at_ = end + 2;
    after_tag(sign, true);
  }

  // The place after `{% word %}` at `at`, and its last sign; npos where there is none.
  std::size_t match_word_tag(std::size_t at, std::string_view word, char& sign) const {
    at += 2;
    if (sign_at(at) != 0) ++at;
    const auto skip = [&] { at = text_.size() - strip_left(text_.substr(at)).size(); };
    skip();
    if (!text_.substr(at).starts_with(word)) return std::string_view::npos;
    at += word.size();
    skip();
    sign = sign_at(at);
    if (sign != 0) ++at;
    return text_.substr(at).starts_with("%}") ? at + 2 : std::string_view::npos;
  }

  bool read_raw() {
    char sign = 0;
    const std::size_t body = match_word_tag(at_, "raw", sign);
    if (body == std::string_view::npos || sign == '+') return false;
    const Position begin = position(at_);
    at_ = body;
    if (sign == '-') skip_blanks();
    line_starting_ = text_[at_ - 1] == '\n';
    for (std::size_t open = text_.find("{%", at_); open != std::string_view::npos;
         open = text_.find("{%", open + 2)) {
      const std::size_t end = match_word_tag(open, "endraw", sign);
      if (end == std::string_view::npos) continue;
      push_text(at_, before_tag(text_.substr(at_, open - at_), true, sign_at(open + 2)));
      at_ = end;
      after_tag(sign, true);
      return true;
    }
    raise_at(begin, "a raw block is not closed by '{{% endraw %}}'");
  }

  void read_tag(bool block) {
    tokens_.push_back(
        {.kind = block ? TokenKind::kBlockBegin : TokenKind::kVariableBegin, .at = position(at_)});
    const Position begin = tokens_.back().at;
    at_ += 2;
    if (sign_at(at_) != 0) ++at_;
    std::string open;  // brackets
    for (;;) {
      skip_blanks();
      if (at_ >= text_.size()) {
        raise_at(begin, "a tag is not closed by '{}'", block ? "%}" : "}}");
      }
      if (open.empty() && read_end(block)) return;
      read_token(open);
    }
  }

  bool read_end(bool block) {
    const char sign = block ? sign_at(at_) : text_[at_] == '-' ? '-' : '\0';
    const std::size_t skip = sign != 0 ? 1 : 0;
    if (!text_.substr(at_ + skip).starts_with(block ? "%}" : "}}")) return false;
    tokens_.push_back(
        {.kind = block ? TokenKind::kBlockEnd : TokenKind::kVariableEnd, .at = position(at_)});
    at_ += skip + 2;
    after_tag(sign, block);
    return true;
  }

  void read_token(std::string& open) {
    const char c = text_[at_];
    if (is_digit_byte(c)) {
      read_number();
    } else if (c == '"' || c == '\'') {
      read_string(c);
    } else if (is_name_start(c)) {
      read_name();
    } else {
      read_operator(open);
    }
  }

  void read_name() {
    const std::size_t begin = at_;
    while (at_ < text_.size() && is_name_byte(text_[at_])) ++at_;
    tokens_.push_back({.kind = TokenKind::kName,
                       .at = position(begin),
                       .text = text_.substr(begin, at_ - begin)});
  }

  void read_operator(std::string& open) {
    static constexpr std::string_view kOperators[] = {
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    for (const std::string_view op : kOperators) {
      if (!rest().starts_with(op)) continue;
      const Position at = position(at_);
      balance(open, op.front(), at);
      tokens_.push_back({.kind = TokenKind::kOperator, .at = at, .text = op});
      at_ += op.size();
      return;
    }
    raise_at(position(at_), "unexpected character in a tag");
  }

  static void balance(std::string& open, char c, Position at) {
    if (c == '(' || c == '[' || c == '{') {
      open += c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (c == ')' || c == ']' || c == '}') {
      if (open.empty()) raise_at(at, "unexpected '{}'", c);
      if (open.back() != c) raise_at(at, "unexpected '{}', expected '{}'", c, open.back());
      open.pop_back();
    }
  }

  // Digits with single underscores between them.
  std::string take_digits(bool (*is)(char)) {
    std::string digits;
    while (at_ < text_.size()) {
      const bool joined =
          text_[at_] == '_' && !digits.empty() && at_ + 1 < text_.size() && is(text_[at_ + 1]);
      if (!joined && !is(text_[at_])) break;
      if (!joined) digits += text_[at_];
      ++at_;
    }
    return digits;
  }

  void read_number() {
    const std::size_t begin = at_;
    Token token{.kind = TokenKind::kInteger, .at = position(begin)};
    if (read_based_integer(token)) return;
    std::string digits = take_digits(is_digit_byte);
    const bool after_dot = begin > 0 && text_[begin - 1] == '.';
    if (!after_dot && at_ + 1 < text_.size() && text_[at_] == '.' &&
        is_digit_byte(text_[at_ + 1])) {
      token.kind = TokenKind::kFloat;
      ++at_;
      digits += '.' + take_digits(is_digit_byte);
    }
    if (!after_dot) read_exponent(token, digits);
    const char* const end = digits.data() + digits.size();
    if (token.kind == TokenKind::kFloat) {
      if (std::from_chars(digits.data(), end, token.real).ec != std::errc{}) token.real = HUGE_VAL;
    } else if (std::from_chars(digits.data(), end, token.integer).ec != std::errc{}) {
      raise_at(token.at, "an integer is beyond 64 bits");
    }
    tokens_.push_back(token);
  }

  void read_exponent(Token& token, std::string& digits) {
    if (at_ >= text_.size() || (text_[at_] != 'e' && text_[at_] != 'E')) return;
    std::size_t after = at_ + 1;
    if (sign_at(after) != 0) ++after;
    if (after >= text_.size() || !is_digit_byte(text_[after])) return;
    token.kind = TokenKind::kFloat;
    digits += 'e';
    if (text_[after - 1] == '-') digits += '-';
    at_ = after;
    digits += take_digits(is_digit_byte);
  }

  // 0x, 0o, 0b
  bool read_based_integer(Token& token) {
    if (text_[at_] != '0' || at_ + 2 >= text_.size()) return false;
    const auto letter = static_cast<char>(text_[at_ + 1] | 0x20);
    const int base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
    if (base == 0) return false;
    std::string digits;
    std::size_t end = at_ + 2;
    for (; end < text_.size() && (is_name_byte(text_[end])); ++end) {
      if (text_[end] != '_') digits += text_[end];
    }
    const auto [stop, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), token.integer, base);
    if (error != std::errc{} || stop != digits.data() + digits.size()) {
      raise_at(token.at, "not a number that fits into 64 bits");
    }
    at_ = end;
    tokens_.push_back(token);
    return true;
  }

  void read_string(char quote) {
    const Position begin = position(at_);
    std::size_t end = at_ + 1;
    bool escaped = false;
    while (end < text_.size() && text_[end] != quote) {
      if (text_[end] == '\\') {
        escaped = true;
        ++end;
      }
      ++end;
    }
    if (end >= text_.size()) raise_at(begin, "a string is not closed by {}", quote);
    std::string_view text = text_.substr(at_ + 1, end - at_ - 1);
    if (escaped) text = arena_.copy(unescape(text, begin));
    tokens_.push_back({.kind = TokenKind::kString, .at = begin, .text = text});
    at_ = end + 1;
  }

  static std::string unescape(std::string_view text, Position at) {
    std::string out;
    while (!text.empty()) {
      const std::size_t plain = std::min(text.find('\\'), text.size());
      out += text.substr(0, plain);
      text.remove_prefix(plain);
      if (text.empty()) break;
      text.remove_prefix(1);
      append_escaped(out, text, at);
    }
    return out;
  }

  // The escape after a backslash, as Python reads it; unknown ones stay.
  static void append_escaped(std::string& out, std::string_view& text, Position at) {
    static constexpr std::string_view kFrom = "abfnrtv\\'\"";
    static constexpr std::string_view kTo = "\a\b\f\n\r\t\v\\'\"";
    const char c = text.front();
    text.remove_prefix(1);
    if (c == '\n') return;
    if (const std::size_t known = kFrom.find(c); known != std::string_view::npos) {
      out += kTo[known];
    } else if (c == 'x' || c == 'u' || c == 'U') {
      char32_t code = take_code(text, c == 'x' ? 2 : c == 'u' ? 4 : 8, 16, at);
      tokenizer::utf8::append(out, code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)
                                       ? tokenizer::utf8::kReplacement
                                       : code);
    } else if (c >= '0' && c <= '7') {
      char32_t code = static_cast<char32_t>(c - '0');
      for (int i = 0; i < 2 && !text.empty() && text.front() >= '0' && text.front() <= '7'; ++i) {
        code = code * 8 + static_cast<char32_t>(text.front() - '0');
        text.remove_prefix(1);
      }
      tokenizer::utf8::append(out, code);
    } else if (c == 'N') {
      raise_at(at, "characters by name (\\N) are not supported");
    } else {
      out += '\\';
      out += c;
    }
  }

  static char32_t take_code(std::string_view& text, std::size_t digits, int base, Position at) {
    std::uint32_t code = 0;
    const std::string_view part = text.substr(0, digits);
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), code, base);
    if (error != std::errc{} || end != part.data() + digits) {
      raise_at(at, "an escape of a string needs {} hexadecimal digits", digits);
    }
    text.remove_prefix(digits);
    return code;
  }

  Arena& arena_;
  std::string_view text_;
  std::size_t at_ = 0;
  std::vector<Token> tokens_;
  bool line_starting_ = true;  // whether a tag before at_ ended its line
  std::size_t counted_ = 0;
  std::uint32_t line_ = 1;
  std::size_t line_begin_ = 0;
};

}  // namespace

std::vector<Token> tokenize(std::string_view text, Arena& arena) {
  return Lexer(text, arena).run();
}

}  // namespace ollama::chat::jinja
