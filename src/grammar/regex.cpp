#include "grammar/regex.h"

#include <algorithm>
#include <charconv>

#include "tokenizer/utf8.h"

namespace ollama::grammar {
namespace {

constexpr int kMaxGroups = 50;  // inside one another
constexpr std::uint32_t kMaxTurns = 1'000'000;
constexpr std::size_t kMaxRanges = 50'000;      // in one class
constexpr std::size_t kMaxNodes = 200'000;      // about what a grammar has room for
constexpr std::size_t kMaxParts = 2000;         // of one that is no grammar by itself
constexpr std::uint32_t kMaxSpelledTurns = 16;  // of a repeat that looks ahead

const CodeSet kDigits{{'0', '9'}};
const CodeSet kWord{{'0', '9'}, {'A', 'Z'}, {'a', 'z'}, {'_', '_'}};
// White space on which every implementation agrees, and what any of them takes for it.
const CodeSet kSpace{{'\t', '\r'}, {' ', ' '}};
const CodeSet kMaybeSpace{{'\t', '\r'},     {0x1C, ' '},      {0x85, 0x85},     {0xA0, 0xA0},
                          {0x1680, 0x1680}, {0x180E, 0x180E}, {0x2000, 0x200A}, {0x2028, 0x2029},
                          {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
const CodeSet kLineEnds{{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

CodeSet any_character() { return CodeSet().complement(); }

std::uint64_t add(std::uint64_t a, std::uint64_t b) {
  return a >= kUnbounded || b >= kUnbounded ? kUnbounded
                                            : std::min<std::uint64_t>(a + b, kUnbounded);
}
std::uint64_t multiply(std::uint64_t a, std::uint64_t b) {
  if (a == 0 || b == 0) return 0;
  return a >= kUnbounded || b >= kUnbounded ? kUnbounded
                                            : std::min<std::uint64_t>(a * b, kUnbounded);
}

// The characters that an escape means for every implementation, and for any of them: white space
// is not the same for all. What a class takes must be sure, and so must be what it leaves out.
struct Meaning {
  CodeSet sure;
  CodeSet maybe;

  static Meaning of(const CodeSet& set) { return {set, set}; }
  Meaning opposite() const { return {maybe.complement(), sure.complement()}; }
};

}  // namespace

// ---- Reading

class PatternParser {
 public:
  explicit PatternParser(std::string_view pattern) : pattern_(pattern), rest_(pattern) {}

  Result<Pattern> parse() {
    OLLAMA_TRY(alternatives());
    if (!rest_.empty()) return error<Pattern>("there is nothing for this to close");
    made_.text_ = pattern_;
    return std::move(made_);
  }

 private:
  using Index = Pattern::NodeIndex;
  using Kind = Pattern::Kind;
  using Node = Pattern::Node;

  template <typename T = Index>
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
  bool take(std::string_view text) {
    if (!rest_.starts_with(text)) return false;
    rest_.remove_prefix(text.size());
    return true;
  }

  Index add(Node node) {
    made_.nodes_.push_back(std::move(node));
    return static_cast<Index>(made_.nodes_.size() - 1);
  }
  Index add(Kind kind) { return add(Node{.kind = kind, .plain = false}); }
  Index add_set(CodeSet set) {
    return add(Node{.kind = Kind::kSet, .set = std::move(set), .lengths = {1, 1}});
  }
  const Node& at(Index index) const { return made_.nodes_[index]; }

  Result<Index> alternatives() {  // NOLINT(misc-no-recursion): bounded by kMaxGroups
    Node node{.kind = Kind::kChoice, .lengths = {kUnbounded, 0}};
    do {
      OLLAMA_ASSIGN(const Index option, concatenation());
      node.parts.push_back(option);
      const auto [min, max] = at(option).lengths;
      node.lengths = {std::min(node.lengths.min, min), std::max(node.lengths.max, max)};
      node.plain = node.plain && at(option).plain;
      if (made_.nodes_.size() > kMaxNodes) return error(kTooLarge.message);
    } while (take('|'));
    return add(std::move(node));
  }

  Result<Index> concatenation() {  // NOLINT(misc-no-recursion): bounded by kMaxGroups
    Node node{.kind = Kind::kSequence};
    while (!rest_.empty() && !peek('|') && !peek(')')) {
      if (made_.nodes_.size() > kMaxNodes) return error(kTooLarge.message);
      OLLAMA_ASSIGN(Index part, atom());
      OLLAMA_ASSIGN(part, repeated(part));
      node.parts.push_back(part);
      const auto [min, max] = at(part).lengths;
      node.lengths = {grammar::add(node.lengths.min, min), grammar::add(node.lengths.max, max)};
      node.plain = node.plain && at(part).plain;
    }
    return add(std::move(node));
  }

  bool repeats() const { return peek('*') || peek('+') || peek('?') || peek('{'); }

  Result<Index> repeated(Index part) {
    if (!repeats()) return part;
    if (at(part).kind >= Kind::kStart) return error("there is nothing to repeat");
    Node node{.kind = Kind::kRepeat, .parts = {part}, .min = 1, .max = 1};
    if (take('*')) {
      node.min = 0;
      node.max = kUnbounded;
    } else if (take('+')) {
      node.max = kUnbounded;
    } else if (take('?')) {
      node.min = 0;
    } else {
      OLLAMA_TRY(braces(node.min, node.max));
    }
    take('?');  // a lazy repeat matches the same texts
    if (repeats()) return error("repeated twice");
    node.lengths = {multiply(at(part).lengths.min, node.min),
                    multiply(at(part).lengths.max, node.max)};
    node.plain = at(part).plain;
    return add(std::move(node));
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

  Result<Index> atom() {  // NOLINT(misc-no-recursion): bounded by kMaxGroups
    if (take('(')) return group();
    if (take('[')) {
      OLLAMA_ASSIGN(CodeSet set, bracket());
      return add_set(std::move(set));
    }
    if (take('.')) return add_set(kLineEnds.complement());
    if (take('^')) return add(Kind::kStart);
    if (take('$')) return add(Kind::kEnd);
    if (repeats()) return error("there is nothing to repeat");
    if (take('\\')) {
      OLLAMA_ASSIGN(Meaning meaning, escape(false));
      return add_set(std::move(meaning.sure));
    }
    const char32_t code = character();
    return add_set({{code, code}});
  }

  Result<Index> group() {  // NOLINT(misc-no-recursion): bounded by kMaxGroups
    if (++groups_ > kMaxGroups) return error("groups nest too deeply");
    std::optional<Kind> ahead;
    if (take("?=")) {
      ahead = Kind::kAhead;
    } else if (take("?!")) {
      ahead = Kind::kNotAhead;
    } else if (peek('?') && !take("?:")) {
      if (rest_.starts_with("?<=") || rest_.starts_with("?<!")) {
        return error("lookbehind is not supported");
      }
      if (!rest_.starts_with("?<")) return error("flags are not supported");
      const std::size_t end = rest_.find('>');
      if (end == std::string_view::npos) return error("the group's name does not end");
      rest_.remove_prefix(end + 1);
    }
    OLLAMA_ASSIGN(const Index inner, alternatives());
    if (!take(')')) return error("a group is not closed");
    --groups_;
    if (!ahead) return inner;
    return add(Node{.kind = *ahead, .parts = {inner}, .plain = false});
  }

  char32_t character() {
    const auto decoded = tokenizer::utf8::decode_lenient(rest_);
    rest_.remove_prefix(decoded.length);
    return decoded.code;
  }

  // What follows a backslash.
  Result<Meaning> escape(bool in_class) {
    if (rest_.empty()) return error<Meaning>("a backslash at the end");
    const char c = rest_.front();
    rest_.remove_prefix(1);
    const auto one = [](char32_t code) { return Meaning::of({{code, code}}); };
    switch (c) {
      case 'd':
        return Meaning::of(kDigits);
      case 'D':
        return Meaning::of(kDigits).opposite();
      case 'w':
        return Meaning::of(kWord);
      case 'W':
        return Meaning::of(kWord).opposite();
      case 's':
        return Meaning{kSpace, kMaybeSpace};
      case 'S':
        return Meaning{kSpace, kMaybeSpace}.opposite();
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
        return error<Meaning>("word boundaries are not supported");
      default:
        break;
    }
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (letter || (c >= '1' && c <= '9')) {
      return error<Meaning>("this escape is not supported");
    }
    rest_ = pattern_.substr(pattern_.size() - rest_.size() - 1);
    return one(character());
  }

  Result<Meaning> hex(std::size_t digits) {
    std::uint32_t code = 0;
    if (rest_.size() < digits) return error<Meaning>("an escape is cut off");
    const auto [end, problem] = std::from_chars(rest_.data(), rest_.data() + digits, code, 16);
    if (problem != std::errc() || end != rest_.data() + digits) {
      return error<Meaning>("an escape has other than hexadecimal digits");
    }
    rest_.remove_prefix(digits);
    const CodeSet set{{code, code}};
    if (set.empty()) return error<Meaning>("half of a surrogate pair is no character");
    return Meaning::of(set);
  }

  // After "[".
  Result<CodeSet> bracket() {
    const bool negated = take('^');
    std::vector<CodeRange> sure;
    std::vector<CodeRange> maybe;
    const auto add_to = [](std::vector<CodeRange>& ranges, const CodeSet& set) {
      ranges.insert(ranges.end(), set.ranges().begin(), set.ranges().end());
    };
    // What may be white space is in one of \s and \S, whichever.
    bool space = false;
    bool no_space = false;
    while (!peek(']')) {
      if (rest_.empty()) return error<CodeSet>("a class is not closed");
      if (std::max(sure.size(), maybe.size()) > kMaxRanges) {
        return error<CodeSet>("a class has too many characters");
      }
      space = space || rest_.starts_with("\\s");
      no_space = no_space || rest_.starts_with("\\S");
      OLLAMA_ASSIGN(const Meaning first, class_item());
      const bool range = rest_.size() > 1 && peek('-') && rest_[1] != ']';
      if (!range) {
        add_to(sure, first.sure);
        add_to(maybe, first.maybe);
        continue;
      }
      take('-');
      OLLAMA_ASSIGN(const Meaning last, class_item());
      const auto code = [](const Meaning& meaning) -> std::optional<char32_t> {
        if (meaning.sure.ranges().size() != 1) return std::nullopt;
        const auto [from, to] = meaning.sure.ranges().front();
        return from == to ? std::optional(from) : std::nullopt;
      };
      if (!code(first) || !code(last) || *code(first) > *code(last)) {
        return error<CodeSet>("a range goes from one character to a later one");
      }
      for (auto* ranges : {&sure, &maybe}) ranges->push_back({*code(first), *code(last)});
    }
    take(']');
    if (space && no_space) return negated ? CodeSet() : any_character();
    return negated ? CodeSet(maybe).complement() : CodeSet(sure);
  }
  Result<Meaning> class_item() {
    if (take('\\')) return escape(true);
    if (rest_.empty()) return error<Meaning>("a class is not closed");
    const char32_t code = character();
    return Meaning::of({{code, code}});
  }

  std::string_view pattern_;
  std::string_view rest_;
  Pattern made_;
  int groups_ = 0;
};

Result<Pattern> Pattern::parse(std::string_view text) { return PatternParser(text).parse(); }

std::unexpected<Error> Pattern::error(std::string_view why) const {
  return fail(ErrorCode::kInvalidArgument, "pattern {}: {}", json_quoted(shortened(text_)), why);
}

// ---- As a grammar

std::optional<Pattern::Branch> Pattern::branch_of(NodeIndex index) const {
  Branch branch{.parts = nodes_[index].parts};
  while (!branch.parts.empty() && nodes_[branch.parts.front()].kind == Kind::kStart) {
    branch.from_start = true;
    branch.parts = branch.parts.subspan(1);
  }
  while (!branch.parts.empty() && nodes_[branch.parts.back()].kind == Kind::kEnd) {
    branch.to_end = true;
    branch.parts = branch.parts.first(branch.parts.size() - 1);
  }
  const auto plain = [&](NodeIndex part) { return nodes_[part].plain; };
  if (!std::ranges::all_of(branch.parts, plain)) return std::nullopt;
  return branch;
}

template <typename Made, typename Maker, typename OfSet>
// NOLINTNEXTLINE(misc-no-recursion): bounded by kMaxGroups
Made Pattern::plain(NodeIndex index, Maker& maker, const OfSet& of_set) const {
  if (maker.too_large()) return maker.never();
  const Node& node = nodes_[index];
  if (node.kind == Kind::kSet) return of_set(node.set);
  std::vector<Made> parts;
  for (const NodeIndex part : node.parts) parts.push_back(plain<Made>(part, maker, of_set));
  if (node.kind == Kind::kRepeat) return maker.repeat(parts.front(), node.min, node.max);
  return node.kind == Kind::kChoice ? maker.choice(parts) : maker.sequence(parts);
}

std::optional<Expression> Pattern::write(Lengths wanted, Builder& builder, JsonText& json) const {
  std::vector<Expression> options;
  const Expression around = builder.repeat(json.character(), 0, kUnbounded);
  const auto of_set = [&](const CodeSet& set) { return json.character_of(set); };
  for (const NodeIndex index : root().parts) {
    const auto branch = branch_of(index);
    if (!branch) return std::nullopt;
    const bool whole = branch->from_start && branch->to_end;
    const Node& only = nodes_[branch->parts.size() == 1 ? branch->parts.front() : index];
    const bool one_class =
        only.kind == Kind::kSet ||
        (only.kind == Kind::kRepeat && nodes_[only.parts.front()].kind == Kind::kSet);
    if (whole && one_class) {
      const CodeSet& set = only.kind == Kind::kSet ? only.set : nodes_[only.parts.front()].set;
      const auto min = static_cast<std::uint32_t>(
          std::min<std::uint64_t>(std::max(only.lengths.min, wanted.min), kUnbounded - 1));
      const auto max = static_cast<std::uint32_t>(std::min(only.lengths.max, wanted.max));
      options.push_back(builder.repeat(json.character_of(set), min, max));
      continue;
    }
    const auto [min, max] = nodes_[index].lengths;
    if (min < wanted.min || (whole ? max : kUnbounded) > wanted.max) return std::nullopt;
    std::vector<Expression> parts;
    if (!branch->from_start) parts.push_back(around);
    for (const NodeIndex part : branch->parts)
      parts.push_back(plain<Expression>(part, builder, of_set));
    if (!branch->to_end) parts.push_back(around);
    options.push_back(builder.sequence(parts));
  }
  return builder.choice(options);
}

// ---- As a language

Result<Term> Pattern::language(Language& language) const {
  // Derivatives look as deep as parts that may be empty follow one another.
  if (nodes_.size() > kMaxParts) return error("it has too many parts");
  const auto root = static_cast<NodeIndex>(nodes_.size() - 1);
  OLLAMA_ASSIGN(const Term at_start, term(root, language.anything(), Place::kStart, language));
  OLLAMA_ASSIGN(const Term later, term(root, language.anything(), Place::kPast, language));
  const Term before =
      language.sequence({language.characters(any_character()), language.anything()});
  return language.choice({at_start, language.sequence({before, later})});
}

Term Pattern::plain_term(NodeIndex index, Language& language) const {
  return plain<Term>(index, language, [&](const CodeSet& set) { return language.characters(set); });
}

// The texts that a node and then `rest`, all that follows it, match.
// NOLINTNEXTLINE(misc-no-recursion): bounded by kMaxGroups
Result<Term> Pattern::term(NodeIndex index, Term rest, Place place, Language& language) const {
  const Node& node = nodes_[index];
  if (node.plain) return language.sequence({plain_term(index, language), rest});
  switch (node.kind) {
    case Kind::kSet:
      break;
    case Kind::kSequence: {
      std::vector<Place> places;
      for (const NodeIndex part : node.parts) {
        places.push_back(place);
        place = after(place, part);
      }
      for (std::size_t i = node.parts.size(); i > 0; --i) {
        OLLAMA_ASSIGN(rest, term(node.parts[i - 1], rest, places[i - 1], language));
      }
      return rest;
    }
    case Kind::kChoice: {
      std::vector<Term> options;
      for (const NodeIndex part : node.parts) {
        OLLAMA_ASSIGN(const Term option, term(part, rest, place, language));
        options.push_back(option);
      }
      return language.choice(options);
    }
    case Kind::kRepeat:
      return turns(node, rest, place, language);
    case Kind::kStart:
      if (place == Place::kUnknown) {
        return error("^ cannot follow what may be empty or not");
      }
      return place == Place::kStart ? rest : language.never();
    case Kind::kEnd:
      return language.nullable(rest) ? language.empty() : language.never();
    case Kind::kAhead:
    case Kind::kNotAhead: {
      OLLAMA_ASSIGN(const Term ahead,
                    term(node.parts.front(), language.anything(), place, language));
      return language.both(node.kind == Kind::kAhead ? ahead : language.complement(ahead), rest);
    }
  }
  return rest;
}

// NOLINTNEXTLINE(misc-no-recursion): bounded by kMaxGroups
Result<Term> Pattern::turns(const Node& repeat, Term rest, Place place, Language& language) const {
  if (repeat.max > kMaxSpelledTurns) {
    return error("an anchor or lookahead cannot be in what is repeated without end or often");
  }
  const NodeIndex body = repeat.parts.front();
  Term made = rest;
  for (std::uint32_t turn = repeat.max; turn > 0; --turn) {
    const Place here = turn == 1 ? place : after(place, body);
    OLLAMA_ASSIGN(const Term taken, term(body, made, here, language));
    made = turn > repeat.min ? language.choice({rest, taken}) : taken;
  }
  return made;
}

Pattern::Place Pattern::after(Place place, NodeIndex index) const {
  const auto [min, max] = nodes_[index].lengths;
  if (min > 0) return Place::kPast;
  return place == Place::kStart && max > 0 ? Place::kUnknown : place;
}

}  // namespace ollama::grammar
