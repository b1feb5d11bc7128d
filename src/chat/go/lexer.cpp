#include "chat/go/lexer.h"

#include <algorithm>
#include <array>
#include <format>

namespace ollama::chat::go {
namespace {

constexpr std::string_view kOpenMark = "{{";
constexpr std::string_view kCloseMark = "}}";
constexpr std::string_view kCommentOpen = "/*";
constexpr std::string_view kCommentClose = "*/";
constexpr std::size_t kTrimMark = 2;  // "- " or " -"
constexpr std::string_view kSpaces = " \t\r\n";

bool is_space(char c) { return kSpaces.contains(c); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
// Letters beyond ASCII are taken as they come.
bool is_word(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         (static_cast<unsigned char>(c) & 0x80U) != 0;
}

struct Keyword {
  std::string_view text;
  TokenKind kind;
};
constexpr std::array kKeywords{
    Keyword{"block", TokenKind::kBlock},       Keyword{"break", TokenKind::kBreak},
    Keyword{"continue", TokenKind::kContinue}, Keyword{"define", TokenKind::kDefine},
    Keyword{"else", TokenKind::kElse},         Keyword{"end", TokenKind::kEndKeyword},
    Keyword{"false", TokenKind::kBool},        Keyword{"if", TokenKind::kIf},
    Keyword{"nil", TokenKind::kNil},           Keyword{"range", TokenKind::kRange},
    Keyword{"template", TokenKind::kTemplate}, Keyword{"true", TokenKind::kBool},
    Keyword{"with", TokenKind::kWith},
};

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {}

  Result<std::vector<Token>> run() {
    bool trim = false;  // the last action took the blanks after it
    while (true) {
      std::size_t open = source_.find(kOpenMark, at_);
      const bool end = open == std::string_view::npos;
      if (end) open = source_.size();
      add_text(open, trim, !end && trims_left(open + kOpenMark.size()));
      at_ = open;
      if (end) break;
      OLLAMA_ASSIGN(trim, action());
    }
    add(TokenKind::kEnd, at_, at_);
    return std::move(tokens_);
  }

 private:
  char peek(std::size_t ahead = 0) const {
    return at_ + ahead < source_.size() ? source_[at_ + ahead] : '\0';
  }
  bool at_end() const { return at_ >= source_.size(); }
  bool starts(std::string_view text, std::size_t at) const {
    return source_.substr(std::min(at, source_.size())).starts_with(text);
  }
  bool trims_left(std::size_t at) const {
    return at + 1 < source_.size() && source_[at] == '-' && is_space(source_[at + 1]);
  }
  // " -}}"
  bool trims_right(std::size_t at) const {
    return at + 1 < source_.size() && is_space(source_[at]) && source_[at + 1] == '-' &&
           starts(kCloseMark, at + kTrimMark);
  }
  std::unexpected<Error> fail_here(std::string_view message) const {
    return fail_at(source_, std::min(at_, source_.size()), message);
  }
  void add(TokenKind kind, std::size_t first, std::size_t last) {
    tokens_.push_back({.kind = kind,
                       .position = static_cast<std::uint32_t>(first),
                       .text = source_.substr(first, last - first)});
  }

  void add_text(std::size_t last, bool trim_front, bool trim_back) {
    std::size_t first = at_;
    if (trim_front) first = std::min(source_.find_first_not_of(kSpaces, first), last);
    while (trim_back && last > first && is_space(source_[last - 1])) --last;
    if (last > first) add(TokenKind::kText, first, last);
  }

  // From {{ to }}; whether the blanks that follow are to go.
  Result<bool> action() {
    const std::size_t open = at_;
    at_ += kOpenMark.size();
    if (trims_left(at_)) at_ += kTrimMark;
    if (starts(kCommentOpen, at_)) return comment();
    add(TokenKind::kOpen, open, at_);
    int parens = 0;
    while (true) {
      const bool trim = trims_right(at_);
      if (trim || starts(kCloseMark, at_)) {
        if (parens > 0) return fail_here("a ( is not closed");
        const std::size_t close = at_ + (trim ? kTrimMark : 0);
        at_ = close + kCloseMark.size();
        add(TokenKind::kClose, close, at_);
        return trim;
      }
      OLLAMA_TRY(token(parens));
    }
  }

  Result<bool> comment() {
    const std::size_t end = source_.find(kCommentClose, at_ + kCommentOpen.size());
    if (end == std::string_view::npos) return fail_here("a comment is not closed");
    at_ = end + kCommentClose.size();
    const bool trim = trims_right(at_);
    if (trim) at_ += kTrimMark;
    if (!starts(kCloseMark, at_)) return fail_here("a comment must end with */}}");
    at_ += kCloseMark.size();
    return trim;
  }

  Result<> token(int& parens) {
    if (at_end()) return fail_here("an action is not closed by }}");
    const std::size_t first = at_;
    const char c = peek();
    if (is_space(c)) {
      while (!at_end() && is_space(peek()) && !trims_right(at_)) ++at_;
      add(TokenKind::kSpace, first, at_);
      return {};
    }
    switch (c) {
      case '=':
        return symbol(TokenKind::kAssign, 1);
      case ':':
        if (peek(1) != '=') return fail_here("expected :=");
        return symbol(TokenKind::kDeclare, 2);
      case '|':
        return symbol(TokenKind::kPipe, 1);
      case ',':
        return symbol(TokenKind::kComma, 1);
      case '(':
        ++parens;
        return symbol(TokenKind::kOpenParen, 1);
      case ')':
        if (parens-- == 0) return fail_here("unexpected )");
        return symbol(TokenKind::kCloseParen, 1);
      case '"':
        return quoted('"', TokenKind::kString);
      case '\'':
        return quoted('\'', TokenKind::kChar);
      case '`':
        return raw_string();
      case '$':
        return name(TokenKind::kVariable);
      default:
        break;
    }
    if (c == '.' && !is_digit(peek(1))) return name(TokenKind::kField);
    if (c == '.' || c == '+' || c == '-' || is_digit(c)) return number();
    if (is_word(c)) return name(TokenKind::kIdentifier);
    return fail_here(std::format("unexpected {} in an action", excerpt(source_.substr(at_, 1))));
  }

  Result<> symbol(TokenKind kind, std::size_t length) {
    add(kind, at_, at_ + length);
    at_ += length;
    return {};
  }

  Result<> quoted(char quote, TokenKind kind) {
    const std::size_t first = at_++;
    while (peek() != quote) {
      if (peek() == '\\') ++at_;
      if (at_end() || peek() == '\n') return fail_at(source_, first, "a quote is not closed");
      ++at_;
    }
    ++at_;
    add(kind, first, at_);
    return {};
  }

  Result<> raw_string() {
    const std::size_t end = source_.find('`', at_ + 1);
    if (end == std::string_view::npos) return fail_here("a ` is not closed");
    add(TokenKind::kRawString, at_, end + 1);
    at_ = end + 1;
    return {};
  }

  // A field, a variable or an identifier; the first two may be no more than their sign.
  Result<> name(TokenKind kind) {
    const std::size_t first = at_;
    if (kind != TokenKind::kIdentifier) ++at_;
    while (!at_end() && is_word(peek())) ++at_;
    if (!at_terminator()) {
      return fail_here(std::format("unexpected {}", excerpt(source_.substr(at_, 1))));
    }
    const std::string_view text = source_.substr(first, at_ - first);
    if (text == ".") kind = TokenKind::kDot;
    if (kind == TokenKind::kIdentifier) {
      const auto keyword = std::ranges::find(kKeywords, text, &Keyword::text);
      if (keyword != kKeywords.end()) kind = keyword->kind;
    }
    add(kind, first, at_);
    return {};
  }
  bool at_terminator() const {
    return at_end() || is_space(peek()) || std::string_view(".,|:)(").contains(peek()) ||
           starts(kCloseMark, at_);
  }

  // Everything that belongs to it; the parser checks its form.
  Result<> number() {
    const std::size_t first = at_++;
    while (!at_end()) {
      const char c = peek();
      const char before = source_[at_ - 1];
      const bool sign = (c == '+' || c == '-') && std::string_view("eEpP").contains(before);
      if (!is_word(c) && c != '.' && !sign) break;
      ++at_;
    }
    add(TokenKind::kNumber, first, at_);
    return {};
  }

  std::string_view source_;
  std::size_t at_ = 0;
  std::vector<Token> tokens_;
};

}  // namespace

Result<std::vector<Token>> tokenize(std::string_view source) { return Lexer(source).run(); }

std::unexpected<Error> fail_at(std::string_view source, std::size_t position,
                               std::string_view message) {
  const std::string_view before = source.substr(0, std::min(position, source.size()));
  const auto line = 1 + std::ranges::count(before, '\n');
  const std::size_t column = before.size() - (before.rfind('\n') + 1) + 1;
  return fail(ErrorCode::kInvalidArgument, "template:{}:{}: {}", line, column, message);
}

std::string excerpt(std::string_view text) {
  constexpr std::size_t kLongest = 40;
  std::string out = "'";
  for (const char c : text.substr(0, kLongest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7F) {
      out += std::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  if (text.size() > kLongest) out += "...";
  return out + "'";
}

}  // namespace ollama::chat::go
