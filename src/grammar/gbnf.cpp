// GBNF, llama.cpp's notation for grammars:
//   root ::= "yes" | no{1,3}  # a comment
//   no   ::= [^\x00-\x1F"]+ ("," " "? root)*
#include <charconv>
#include <optional>

#include "grammar/builder.h"
#include "grammar/json_text.h"
#include "tokenizer/utf8.h"

namespace ollama::grammar {
namespace {

constexpr int kMaxParentheses = 100;  // inside one another
constexpr std::uint32_t kMaxRepeats = 1'000'000;

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '_';
}

// Blanks, line ends and comments.
void skip_space(std::string_view& text) {
  while (!text.empty()) {
    if (text.front() == '#') {
      text.remove_prefix(std::min(text.find('\n'), text.size()));
    } else if (std::string_view(" \t\r\n").contains(text.front())) {
      text.remove_prefix(1);
    } else {
      return;
    }
  }
}

std::string_view take_name(std::string_view& text) {
  std::size_t length = 0;
  while (length < text.size() && is_name_character(text[length])) ++length;
  const std::string_view found = text.substr(0, length);
  text.remove_prefix(length);
  return found;
}

class GbnfParser {
 public:
  explicit GbnfParser(std::string_view text) : text_(text), rest_(text) {}

  Result<GrammarPtr> parse() {
    skip();
    while (!rest_.empty()) OLLAMA_TRY(rule());
    for (const auto& [name, rule] : rules_) {
      if (!rule.defined) {
        return fail(ErrorCode::kInvalidArgument, "invalid grammar: the rule '{}' is not defined",
                    shortened(name));
      }
    }
    const auto root = rules_.find("root");
    if (root == rules_.end()) {
      return fail(ErrorCode::kInvalidArgument, "invalid grammar: there is no rule 'root'");
    }
    auto grammar = b_.finish(root->second.id);
    if (!grammar) return std::unexpected(grammar.error().with_context("invalid grammar"));
    return grammar;
  }

 private:
  struct Rule {
    RuleId id{};
    bool defined = false;
  };

  template <typename T = Expression>
  Result<T> error(std::string_view why) const {
    const std::string_view before = text_.substr(0, text_.size() - rest_.size());
    const auto line = 1 + std::ranges::count(before, '\n');
    const std::size_t start = before.rfind('\n');
    const std::size_t column =
        before.size() - (start == std::string_view::npos ? 0 : start + 1) + 1;
    return fail(ErrorCode::kInvalidArgument, "invalid grammar, line {}, column {}: {}", line,
                column, why);
  }

  bool peek(std::string_view what) const { return rest_.starts_with(what); }
  bool take(std::string_view what) {
    if (!peek(what)) return false;
    rest_.remove_prefix(what.size());
    return true;
  }
  void skip() { skip_space(rest_); }
  std::string_view name() { return take_name(rest_); }
  Rule& rule_of(std::string_view name) {
    const auto [found, added] = rules_.try_emplace(std::string(name));
    if (added) found->second.id = b_.declare(name);
    return found->second;
  }

  Result<> rule() {
    const std::string_view rule_name = name();
    if (rule_name.empty()) return error<void>("a rule begins with its name");
    skip();
    if (!take("::=")) return error<void>("::= follows a rule's name");
    skip();
    if (rule_of(rule_name).defined) return error<void>("this rule is defined already");
    OLLAMA_ASSIGN(const Expression body, alternatives());
    Rule& defined = rule_of(rule_name);
    defined.defined = true;
    b_.define(defined.id, body);
    if (!rest_.empty() && !at_rule()) return error<void>("this belongs to no rule");
    return {};
  }
  // Whether the next rule begins here.
  bool at_rule() const {
    std::string_view ahead = rest_;
    if (take_name(ahead).empty()) return false;
    skip_space(ahead);
    return ahead.starts_with("::=");
  }

  Result<Expression> alternatives() {  // NOLINT(misc-no-recursion): kMaxParentheses
    std::vector<Expression> options;
    do {
      skip();
      OLLAMA_ASSIGN(const Expression option, sequence());
      options.push_back(option);
    } while (take("|"));
    return b_.choice(options);
  }

  Result<Expression> sequence() {  // NOLINT(misc-no-recursion): kMaxParentheses
    std::vector<Expression> parts;
    while (!rest_.empty() && !peek("|") && !peek(")") && !at_rule()) {
      OLLAMA_ASSIGN(const Expression part, element());
      OLLAMA_ASSIGN(const Expression whole, repeated(part));
      parts.push_back(whole);
      skip();
    }
    return b_.sequence(parts);
  }

  Result<Expression> element() {  // NOLINT(misc-no-recursion): kMaxParentheses
    if (b_.too_large()) return error(kTooLarge.message);
    if (take("\"")) return quoted();
    if (take("[")) return bracket();
    if (take(".")) return b_.characters(CodeSet().complement());
    if (take("(")) {
      if (++parentheses_ > kMaxParentheses) return error("parentheses nest too deeply");
      OLLAMA_ASSIGN(const Expression inner, alternatives());
      if (!take(")")) return error("a parenthesis is not closed");
      --parentheses_;
      return inner;
    }
    const std::string_view called = name();
    if (called.empty())
      return error("a text in quotes, [a class], a rule's name or (...) is expected");
    return b_.call(rule_of(called).id);
  }

  Result<Expression> repeated(Expression part) {
    // Several of these one after the other mean repeats of repeats.
    for (int i = 0; i < 8; ++i) {
      skip_blanks();
      if (take("*")) {
        part = b_.repeat(part, 0, kUnbounded);
      } else if (take("+")) {
        part = b_.repeat(part, 1, kUnbounded);
      } else if (take("?")) {
        part = b_.optional(part);
      } else if (take("{")) {
        OLLAMA_ASSIGN(part, braces(part));
      } else {
        return part;
      }
      part = b_.shared(part, "a repeated part");
    }
    return error("repeats of repeats of repeats");
  }
  void skip_blanks() {
    while (peek(" ") || peek("\t")) rest_.remove_prefix(1);
  }

  Result<Expression> braces(Expression part) {
    const auto number = [&]() -> std::optional<std::uint32_t> {
      skip_blanks();
      std::uint32_t value = 0;
      const auto [end, problem] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value);
      if (problem != std::errc() || value > kMaxRepeats) return std::nullopt;
      rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
      skip_blanks();
      return value;
    };
    const auto min = number();
    auto max = min;
    if (take(",")) {
      max = number();
      if (!max && peek("}")) max = kUnbounded;
      if (min || max != kUnbounded) {
        if (max && take("}") && min.value_or(0) <= *max)
          return b_.repeat(part, min.value_or(0), *max);
      }
    } else if (min && take("}")) {
      return b_.repeat(part, *min, *min);
    }
    return error("a repeat is {n}, {n,} or {n,m}, with numbers up to a million");
  }

  // One character of a text or class, escapes undone.
  Result<char32_t> character() {
    if (take("\\")) {
      if (rest_.empty()) return error<char32_t>("a backslash at the end");
      const char c = rest_.front();
      rest_.remove_prefix(1);
      switch (c) {
        case 'n':
          return U'\n';
        case 'r':
          return U'\r';
        case 't':
          return U'\t';
        case 'x':
          return hex(2);
        case 'u':
          return hex(4);
        case 'U':
          return hex(8);
        case '\\':
        case '"':
        case '[':
        case ']':
        case '-':
        case '^':
          return static_cast<char32_t>(c);
        default:
          return error<char32_t>("this escape is not known");
      }
    }
    const auto decoded = tokenizer::utf8::decode_lenient(rest_);
    if (!decoded.valid) return error<char32_t>("this is not UTF-8");
    rest_.remove_prefix(decoded.length);
    return decoded.code;
  }
  Result<char32_t> hex(std::size_t digits) {
    std::uint32_t code = 0;
    const auto [end, problem] =
        std::from_chars(rest_.data(), rest_.data() + std::min(digits, rest_.size()), code, 16);
    if (problem != std::errc() || end != rest_.data() + digits || CodeSet{{code, code}}.empty()) {
      return error<char32_t>("an escape names no character, or has too few digits");
    }
    rest_.remove_prefix(digits);
    return static_cast<char32_t>(code);
  }

  Result<Expression> quoted() {
    std::string bytes;
    while (!take("\"")) {
      if (rest_.empty() || peek("\n")) return error("a text is not closed");
      OLLAMA_ASSIGN(const char32_t code, character());
      tokenizer::utf8::append(bytes, code);
    }
    return b_.literal(bytes);
  }

  Result<Expression> bracket() {
    const bool negated = take("^");
    std::vector<CodeRange> ranges;
    while (!take("]")) {
      if (rest_.empty() || peek("\n")) return error("a class is not closed");
      OLLAMA_ASSIGN(const char32_t first, character());
      char32_t last = first;
      if (peek("-") && !peek("-]")) {
        take("-");
        if (rest_.empty()) return error("a class is not closed");
        OLLAMA_ASSIGN(last, character());
        if (last < first) return error("a range goes from one character to a later one");
      }
      ranges.push_back({first, last});
    }
    const CodeSet set(std::move(ranges));
    return b_.characters(negated ? set.complement() : set);
  }

  std::string_view text_;
  std::string_view rest_;
  Builder b_;
  std::map<std::string, Rule, std::less<>> rules_;
  int parentheses_ = 0;
};

}  // namespace

Result<GrammarPtr> compile_gbnf(std::string_view text) { return GbnfParser(text).parse(); }

}  // namespace ollama::grammar
