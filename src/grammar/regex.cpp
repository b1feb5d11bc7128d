#include "grammar/regex.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "tokenizer/utf8.h"

namespace ollama::grammar {
namespace {

constexpr int kMaxGroups = 50;  // inside one another
constexpr std::uint32_t kMaxTurns = 1'000'000;
constexpr std::size_t kMaxRanges = 50'000;  // in one class

const CodeSet kDigits{{'0', '9'}};
const CodeSet kWord{{'0', '9'}, {'A', 'Z'}, {'a', 'z'}, {'_', '_'}};
// White space on which every implementation agrees, and what any of them takes for it.
const CodeSet kSpace{{'\t', '\r'}, {' ', ' '}};
const CodeSet kMaybeSpace{{'\t', '\r'},     {0x1C, ' '},      {0x85, 0x85},     {0xA0, 0xA0},
                          {0x1680, 0x1680}, {0x180E, 0x180E}, {0x2000, 0x200A}, {0x2028, 0x2029},
                          {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
const CodeSet kLineEnds{{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};
// What a model writes for an undefined part of a string. No control characters, though any would
// match.
const CodeSet& anything() { return plain_characters(); }

// A part of a pattern and the lengths of what it matches, in characters.
struct Part {
  Expression expression{};
  Lengths lengths{0, 0};
  // Where the part is one class, repeated: that class and how often, for bounds to be met.
  std::optional<Expression> single = std::nullopt;
};

std::uint64_t add(std::uint64_t a, std::uint64_t b) {
  return a >= kUnbounded || b >= kUnbounded ? kUnbounded
                                            : std::min<std::uint64_t>(a + b, kUnbounded);
}
std::uint64_t multiply(std::uint64_t a, std::uint64_t b) {
  if (a == 0 || b == 0) return 0;
  return a >= kUnbounded || b >= kUnbounded ? kUnbounded
                                            : std::min<std::uint64_t>(a * b, kUnbounded);
}

class PatternParser {
 public:
  PatternParser(std::string_view pattern, Lengths wanted, Builder& builder, JsonText& json)
      : pattern_(pattern), rest_(pattern), wanted_(wanted), b_(builder), json_(json) {}

  Result<Expression> parse() {
    std::vector<Expression> branches;
    do {
      OLLAMA_ASSIGN(const Expression branch, top_branch());
      branches.push_back(branch);
    } while (take('|'));
    return b_.choice(branches);
  }

 private:
  template <typename T = Expression>
  Result<T> error(std::string_view why) const {
    return fail(ErrorCode::kInvalidArgument, "pattern {}, at character {}: {}",
                json_quoted(shortened(pattern_)), pattern_.size() - rest_.size() + 1, why);
  }
  bool peek(char c) const { return rest_.starts_with(c); }
  bool take(char c) {
    if (!peek(c)) return false;
    rest_.remove_prefix(1);
    return true;
  }

  // One alternative of the whole, with its own anchors.
  Result<Expression> top_branch() {
    const bool from_start = take('^');
    while (take('^')) {
    }
    OLLAMA_ASSIGN(Part part, concatenation());
    const bool to_end = take('$');
    while (take('$')) {
    }
    if (peek(')')) return error("there is nothing for this to close");
    if (!rest_.empty() && !peek('|')) return error("an anchor may stand only at either end");
    const Expression any = json_.character_of(anything());
    if (from_start && to_end && part.single) {
      const auto min = static_cast<std::uint32_t>(
          std::min<std::uint64_t>(std::max(part.lengths.min, wanted_.min), kUnbounded - 1));
      const auto max = static_cast<std::uint32_t>(std::min(part.lengths.max, wanted_.max));
      return b_.repeat(*part.single, min, max);
    }
    const Expression around = b_.repeat(any, 0, kUnbounded);
    const std::uint64_t most = from_start && to_end ? part.lengths.max : kUnbounded;
    if (part.lengths.min < wanted_.min || most > wanted_.max) {
      return error(
          "minLength and maxLength beside a pattern are met only where the pattern says so itself, "
          "or is one class between ^ and $");
    }
    return b_.sequence(
        {from_start ? b_.empty() : around, part.expression, to_end ? b_.empty() : around});
  }

  Result<Part> alternatives() {  // NOLINT(misc-no-recursion): bounded by kMaxGroups
    std::vector<Expression> options;
    Lengths lengths{kUnbounded, 0};
    do {
      OLLAMA_ASSIGN(const Part part, concatenation());
      options.push_back(part.expression);
      lengths = {std::min(lengths.min, part.lengths.min), std::max(lengths.max, part.lengths.max)};
    } while (take('|'));
    return Part{b_.choice(options), lengths};
  }

  Result<Part> concatenation() {  // NOLINT(misc-no-recursion): bounded by kMaxGroups
    std::vector<Expression> parts;
    Part whole;
    while (!rest_.empty() && !peek('|') && !peek(')') && !peek('$')) {
      if (b_.too_large()) return error<Part>(kTooLarge.message);
      OLLAMA_ASSIGN(Part part, atom());
      OLLAMA_ASSIGN(part, repeated(part));
      parts.push_back(part.expression);
      whole.lengths = {add(whole.lengths.min, part.lengths.min),
                       add(whole.lengths.max, part.lengths.max)};
      whole.single = part.single;
    }
    if (parts.size() != 1) whole.single.reset();
    whole.expression = b_.sequence(parts);
    return whole;
  }

  Result<Part> repeated(Part part) {
    std::uint32_t min = 1;
    std::uint32_t max = 1;
    if (take('*')) {
      min = 0;
      max = kUnbounded;
    } else if (take('+')) {
      max = kUnbounded;
    } else if (take('?')) {
      min = 0;
    } else if (peek('{')) {
      OLLAMA_TRY(braces(min, max));
    } else {
      return part;
    }
    take('?');  // a lazy repeat matches the same texts
    if (peek('*') || peek('+') || peek('?') || peek('{')) return error<Part>("repeated twice");
    const bool one = part.single && part.lengths.min == 1 && part.lengths.max == 1;
    part.expression = b_.repeat(part.expression, min, max);
    part.lengths = {multiply(part.lengths.min, min), multiply(part.lengths.max, max)};
    if (!one) part.single.reset();
    return part;
  }

  Result<> braces(std::uint32_t& min, std::uint32_t& max) {
    rest_.remove_prefix(1);
    const auto number = [&](std::uint32_t& out) {
      const auto [end, problem] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), out);
      if (problem != std::errc() || out > kMaxTurns) return false;
      rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
      return true;
    };
    bool good = number(min);
    max = min;
    if (good && take(',')) {
      max = kUnbounded;
      if (!peek('}')) good = number(max);
    }
    if (!good || !take('}') || max < min) {
      return error<void>("a repeat is {n}, {n,} or {n,m}, with numbers up to a million");
    }
    return {};
  }

  Part of_set(const CodeSet& set) {
    const Expression one = json_.character_of(set);
    return {one, {1, 1}, one};
  }

  Result<Part> atom() {  // NOLINT(misc-no-recursion): bounded by kMaxGroups
    if (take('(')) return group();
    if (take('[')) {
      OLLAMA_ASSIGN(const CodeSet set, bracket());
      return of_set(set);
    }
    if (take('.')) return of_set(kLineEnds.complement().intersect(anything()));
    if (peek('*') || peek('+') || peek('?') || peek('{')) {
      return error<Part>("there is nothing to repeat");
    }
    if (peek('^')) return error<Part>("an anchor may stand only at either end");
    if (take('\\')) {
      OLLAMA_ASSIGN(const CodeSet set, escape(false));
      return of_set(set);
    }
    OLLAMA_ASSIGN(const char32_t code, character());
    return of_set({{code, code}});
  }

  Result<Part> group() {  // NOLINT(misc-no-recursion): bounded by kMaxGroups
    if (++groups_ > kMaxGroups) return error<Part>("groups nest too deeply");
    if (take('?')) {
      const bool named = rest_.size() > 1 && peek('<') && rest_[1] != '=' && rest_[1] != '!';
      if (named) {
        const std::size_t end = rest_.find('>');
        if (end == std::string_view::npos) return error<Part>("the group's name does not end");
        rest_.remove_prefix(end + 1);
      } else if (!take(':')) {
        return error<Part>("lookaround and flags are not supported");
      }
    }
    OLLAMA_ASSIGN(Part inner, alternatives());
    if (peek('$')) return error<Part>("an anchor may stand only at either end");
    if (!take(')')) return error<Part>("a group is not closed");
    --groups_;
    return inner;
  }

  Result<char32_t> character() {
    const auto decoded = tokenizer::utf8::decode_lenient(rest_);
    rest_.remove_prefix(decoded.length);
    return decoded.code;
  }

  // What follows a backslash.
  Result<CodeSet> escape(bool in_class) {
    if (rest_.empty()) return error<CodeSet>("a backslash at the end");
    const char c = rest_.front();
    rest_.remove_prefix(1);
    const auto one = [](char32_t code) { return CodeSet{{code, code}}; };
    switch (c) {
      case 'd':
        return kDigits;
      case 'D':
        return kDigits.complement();
      case 'w':
        return kWord;
      case 'W':
        return kWord.complement();
      case 's':
        return kSpace;
      case 'S':
        return kMaybeSpace.complement();
      case 'n':
        return one('\n');
      case 'r':
        return one('\r');
      case 't':
        return one('\t');
      case 'f':
        return one('\f');
      case 'v':
        return one('\v');
      case '0':
        return one(0);
      case 'x':
        return hex(2);
      case 'u':
        return hex(4);
      case 'b':
        if (in_class) return one('\b');
        return error<CodeSet>("word boundaries are not supported");
      default:
        break;
    }
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (letter || (c >= '1' && c <= '9')) {
      return error<CodeSet>("this escape is not supported");
    }
    rest_ = pattern_.substr(pattern_.size() - rest_.size() - 1);
    OLLAMA_ASSIGN(const char32_t code, character());
    return one(code);
  }

  Result<CodeSet> hex(std::size_t digits) {
    std::uint32_t code = 0;
    if (rest_.size() < digits) return error<CodeSet>("an escape is cut off");
    const auto [end, problem] = std::from_chars(rest_.data(), rest_.data() + digits, code, 16);
    if (problem != std::errc() || end != rest_.data() + digits) {
      return error<CodeSet>("an escape has other than hexadecimal digits");
    }
    rest_.remove_prefix(digits);
    CodeSet set{{code, code}};
    if (set.empty()) return error<CodeSet>("half of a surrogate pair is no character");
    return set;
  }

  // After "[".
  Result<CodeSet> bracket() {
    const bool negated = take('^');
    std::vector<CodeRange> ranges;
    while (!peek(']')) {
      if (rest_.empty()) return error<CodeSet>("a class is not closed");
      if (ranges.size() > kMaxRanges) return error<CodeSet>("a class has too many characters");
      OLLAMA_ASSIGN(const CodeSet first, class_item());
      const bool range = rest_.size() > 1 && peek('-') && rest_[1] != ']';
      if (!range) {
        ranges.insert(ranges.end(), first.ranges().begin(), first.ranges().end());
        continue;
      }
      take('-');
      OLLAMA_ASSIGN(const CodeSet last, class_item());
      const auto code = [](const CodeSet& set) -> std::optional<char32_t> {
        if (set.ranges().size() != 1) return std::nullopt;
        const auto [from, to] = set.ranges().front();
        return from == to ? std::optional(from) : std::nullopt;
      };
      if (!code(first) || !code(last) || *code(first) > *code(last)) {
        return error<CodeSet>("a range goes from one character to a later one");
      }
      ranges.push_back({*code(first), *code(last)});
    }
    take(']');
    const CodeSet set(std::move(ranges));
    return negated ? set.complement() : set;
  }
  Result<CodeSet> class_item() {
    if (take('\\')) return escape(true);
    if (rest_.empty()) return error<CodeSet>("a class is not closed");
    OLLAMA_ASSIGN(const char32_t code, character());
    return CodeSet{{code, code}};
  }

  std::string_view pattern_;
  std::string_view rest_;
  Lengths wanted_;
  Builder& b_;
  JsonText& json_;
  int groups_ = 0;
};

}  // namespace

Result<Expression> compile_pattern(std::string_view pattern, Lengths lengths, Builder& builder,
                                   JsonText& json) {
  return PatternParser(pattern, lengths, builder, json).parse();
}

}  // namespace ollama::grammar
