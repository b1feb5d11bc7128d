#include "grammar/json_text.h"

#include <algorithm>
#include <format>

#include "tokenizer/utf8.h"

namespace ollama::grammar {
namespace {

constexpr std::uint32_t kIndentation = 32;
// Enough for what people write; without an end a model may not find one.
constexpr std::uint32_t kNumberDigits = 32;

// Keys that share so much with a property's name are left out rather than told apart from it.
constexpr std::size_t kTellApart = 64;
constexpr std::size_t kKeptEscapes = 64;

const CodeSet kHex{{'0', '9'}, {'a', 'f'}, {'A', 'F'}};
const CodeSet kDigit{{'0', '9'}};

// A backslash and what may follow it; of \u surrogates only in pairs.
Expression escape(Builder& b) {
  const Expression hex = b.characters(kHex);
  const Expression d = b.characters({{'d', 'd'}, {'D', 'D'}});
  const Expression ordinary =
      b.characters({{'0', '9'}, {'a', 'c'}, {'A', 'C'}, {'e', 'f'}, {'E', 'F'}});
  const Expression code = b.choice({
      b.sequence({ordinary, hex, hex, hex}),
      b.sequence({d, b.characters({{'0', '7'}}), hex, hex}),
      b.sequence({d, b.characters({{'8', '9'}, {'a', 'b'}, {'A', 'B'}}), hex, hex, b.literal("\\u"),
                  d, b.characters({{'c', 'f'}, {'C', 'F'}}), hex, hex}),
  });
  const Expression simple = b.characters({{'"', '"'},
                                          {'\\', '\\'},
                                          {'/', '/'},
                                          {'b', 'b'},
                                          {'f', 'f'},
                                          {'n', 'n'},
                                          {'r', 'r'},
                                          {'t', 't'}});
  return b.sequence({b.literal("\\"), b.choice({simple, b.sequence({b.literal("u"), code})})});
}

// The character in a JSON string that must not stand there itself.
std::string escaped(char32_t code) {
  switch (code) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\b':
      return "\\b";
    case '\f':
      return "\\f";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    default:
      return std::format("\\u{:04x}", static_cast<unsigned>(code));
  }
}

// The characters of a key; nullopt where it is no text.
std::optional<std::u32string> codes_of(std::string_view name) {
  std::u32string codes;
  while (!name.empty()) {
    const auto character = tokenizer::utf8::decode_lenient(name);
    if (!character.valid) return std::nullopt;
    codes.push_back(character.code);
    name.remove_prefix(character.length);
  }
  return codes;
}

}  // namespace

std::string json_quoted(std::string_view text) {
  return api::to_string(api::Json(boost::json::string(text)));
}

JsonText::JsonText(Builder& builder)
    : b_(builder),
      space_(b_.choice(
          {b_.empty(), b_.literal(" "),
           b_.sequence({b_.literal("\n"),
                        b_.repeat(b_.characters({{' ', ' '}, {'\t', '\t'}}), 0, kIndentation)})})),
      character_(b_.choice({b_.characters(plain_characters()), b_.shared(escape(b_), "escape")})) {}

Expression JsonText::character_of(const CodeSet& set) {
  return b_.choice({b_.characters(set.intersect(plain_characters())),
                    escapes_of(set.intersect(plain_characters().complement()))});
}

// The characters of `special`, each escaped. There are few such sets, and many uses of each.
Expression JsonText::escapes_of(const CodeSet& special) {
  const auto known = std::ranges::find(escapes_, special, &std::pair<CodeSet, Expression>::first);
  if (known != escapes_.end()) return known->second;
  std::vector<std::string> escapes;
  for (const auto& [first, last] : special.ranges()) {
    for (char32_t code = first; code <= last; ++code) escapes.push_back(escaped(code));
  }
  const Expression made = b_.shared(b_.literals(escapes), "escape");
  if (escapes_.size() < kKeptEscapes) escapes_.emplace_back(special, made);
  return made;
}

Expression JsonText::quoted(Expression content) {
  return b_.sequence({b_.literal("\""), content, b_.literal("\"")});
}

Expression JsonText::string(std::uint32_t min, std::uint32_t max) {
  return quoted(b_.repeat(character_, min, max));
}

Expression JsonText::integer() {
  const Expression digits = b_.sequence(
      {b_.characters({{'1', '9'}}), b_.repeat(b_.characters(kDigit), 0, kNumberDigits - 1)});
  return b_.choice({b_.literal("0"), b_.sequence({b_.optional(b_.literal("-")), digits})});
}

Expression JsonText::number() {
  const Expression digit = b_.characters(kDigit);
  const Expression whole = b_.choice(
      {b_.literal("0"),
       b_.sequence({b_.characters({{'1', '9'}}), b_.repeat(digit, 0, kNumberDigits - 1)})});
  const Expression fraction = b_.sequence({b_.literal("."), b_.repeat(digit, 1, kNumberDigits)});
  // No more than a double holds.
  const Expression large =
      b_.choice({b_.sequence({b_.literal("1"), digit, digit}),
                 b_.sequence({b_.literal("2"), b_.characters({{'0', '6'}}), digit})});
  const Expression exponent = b_.sequence({b_.characters({{'e', 'e'}, {'E', 'E'}}),
                                           b_.optional(b_.characters({{'+', '+'}, {'-', '-'}})),
                                           b_.choice({b_.repeat(digit, 1, 2), large})});
  return b_.sequence(
      {b_.optional(b_.literal("-")), whole, b_.optional(fraction), b_.optional(exponent)});
}

Expression JsonText::list(char open, Expression element, std::uint32_t min, std::uint32_t max,
                          char close) {
  const Expression begin = b_.literal(std::string_view(&open, 1));
  const Expression end = b_.literal(std::string_view(&close, 1));
  const Expression none = b_.sequence({begin, space_, end});
  if (max == 0 || (b_.is_never(element) && min == 0)) return none;
  const auto less = [](std::uint32_t n) { return n == kUnbounded || n == 0 ? n : n - 1; };
  const Expression more =
      b_.repeat(b_.sequence({b_.literal(","), space_, element, space_}), less(min), less(max));
  const Expression some = b_.sequence({begin, space_, element, space_, more, end});
  return min == 0 ? b_.choice({none, some}) : some;
}

Expression JsonText::member(std::string_view name, Expression value) {
  return b_.sequence({b_.literal(json_quoted(name).substr(1) + ":"), space_, value});
}

Expression JsonText::other_member(std::span<const std::string> names, Expression value) {
  // Up to where it is another one, a key is spelled in the one way in which a name is told apart.
  std::vector<std::u32string> sorted;
  for (const std::string& name : names) {
    if (auto codes = codes_of(name)) sorted.push_back(std::move(*codes));
  }
  std::ranges::sort(sorted);
  return b_.sequence({other_key(sorted, 0), b_.literal("\":"), space_, value});
}

// What may follow a key's beginning, the first `from` characters of all `names`, so that the whole
// is none of them.
// NOLINTNEXTLINE(misc-no-recursion): bounded by kTellApart
Expression JsonText::other_key(std::span<const std::u32string> names, std::size_t from) {
  if (!key_rest_) {
    key_rest_ = b_.declare("the rest of a key");
    b_.define(*key_rest_, b_.repeat(character_, 0, kUnbounded));
  }
  const Expression rest = b_.call(*key_rest_);
  if (names.empty()) return rest;
  if (from == kTellApart || b_.too_large()) return b_.never();
  std::vector<Expression> options;
  if (names.front().size() > from) options.push_back(b_.empty());
  while (!names.empty() && names.front().size() == from) names = names.subspan(1);
  std::vector<CodeRange> taken;
  while (!names.empty()) {
    const char32_t code = names.front()[from];
    const auto same = static_cast<std::size_t>(
        std::ranges::find_if(names, [&](const auto& name) { return name[from] != code; }) -
        names.begin());
    options.push_back(
        b_.sequence({character_of({{code, code}}), other_key(names.first(same), from + 1)}));
    taken.push_back({code, code});
    names = names.subspan(same);
  }
  options.push_back(b_.sequence({character_of(CodeSet(taken).complement()), rest}));
  return b_.choice(options);
}

Expression JsonText::any_value() {
  if (!value_) define_any();
  return b_.call(*value_);
}
Expression JsonText::any_object() {
  if (!value_) define_any();
  return b_.call(object_);
}
Expression JsonText::any_array() {
  if (!value_) define_any();
  return b_.call(array_);
}

void JsonText::define_any() {
  value_ = b_.declare("value");
  object_ = b_.declare("object");
  array_ = b_.declare("array");
  const Expression value = b_.call(*value_);
  const Expression pair = b_.sequence({string(0, kUnbounded), b_.literal(":"), space_, value});
  b_.define(object_, list('{', pair, 0, kUnbounded, '}'));
  b_.define(array_, list('[', value, 0, kUnbounded, ']'));
  b_.define(*value_, b_.choice({b_.call(object_), b_.call(array_), string(0, kUnbounded), number(),
                                b_.literals({"true", "false", "null"})}));
}

}  // namespace ollama::grammar
