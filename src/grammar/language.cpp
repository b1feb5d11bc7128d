#include "grammar/language.h"

#include <algorithm>
#include <deque>

#include "tokenizer/utf8.h"

namespace ollama::grammar {
namespace {

// Of all the languages of one schema: some tenths of a second.
constexpr std::size_t kMaxWork = 1'500'000;
constexpr std::size_t kRangesOfWork = 8;  // that cost what a part of a term does
// Of one language in the grammar.
constexpr std::size_t kMaxTextStates = 6000;
// Of all of them, which is more than a grammar has room for.
constexpr std::size_t kMaxAllStates = 40'000;

constexpr ErrorConstant kTooManyStates{ErrorCode::kInvalidArgument,
                                       "together they make too large a grammar; shorter lengths or "
                                       "simpler patterns are needed"};

constexpr std::uint32_t number_of(Term term) { return static_cast<std::uint32_t>(term); }

std::uint32_t less(std::uint32_t n) { return n == kUnbounded || n == 0 ? n : n - 1; }

}  // namespace

std::size_t Language::Hash::operator()(const Item& item) const {
  std::uint64_t hash = item.size();
  for (const std::uint32_t value : item) {
    hash = (hash ^ value) * 0x9E3779B97F4A7C15ULL;
    hash ^= hash >> 29;
  }
  return hash;
}

Language::Language() {
  for (const Kind kind : {Kind::kEmpty, Kind::kNever, Kind::kAnything}) add(kind, {});
}

bool Language::too_large() const { return work_ > kMaxWork; }

// ---- Terms

Term Language::add(Kind kind, std::initializer_list<std::uint32_t> operands) {
  Item item{static_cast<std::uint32_t>(kind)};
  item.insert(item.end(), operands.begin(), operands.end());
  return add(std::move(item));
}

Term Language::add(Item item) {
  if (too_large()) return kNever;
  const auto [found, added] = terms_.try_emplace(std::move(item), static_cast<Term>(items_.size()));
  if (added) {
    work_ += found->first.size();
    items_.push_back(&found->first);
    nullable_.push_back(find_nullable(found->first));
  }
  return found->second;
}

bool Language::find_nullable(const Item& item) const {
  const std::span operands = std::span(item).subspan(1);
  const auto is_nullable = [&](std::uint32_t part) { return bool{nullable_[part]}; };
  switch (static_cast<Kind>(item.front())) {
    case Kind::kEmpty:
    case Kind::kAnything:
      return true;
    case Kind::kNever:
    case Kind::kSet:
      return false;
    case Kind::kSequence:
    case Kind::kBoth:
      return std::ranges::all_of(operands, is_nullable);
    case Kind::kChoice:
      return std::ranges::any_of(operands, is_nullable);
    case Kind::kNot:
      return !is_nullable(operands[0]);
    case Kind::kRepeat:
      return operands[1] == 0 || is_nullable(operands[0]);
    case Kind::kMultiple: {
      std::uint64_t rest = operands[3];
      for (std::uint32_t i = 0; i < operands[1]; ++i) rest = rest * 10 % operands[0];
      return rest == 0;
    }
  }
  return false;
}

Term Language::literal(std::string_view text) {
  std::vector<Term> parts;
  while (!text.empty()) {
    const auto character = tokenizer::utf8::decode_lenient(text);
    parts.push_back(characters({{character.code, character.code}}));
    text.remove_prefix(character.length);
  }
  return sequence(parts);
}

Term Language::characters(const CodeSet& set) {
  if (set.empty()) return kNever;
  std::vector<std::pair<char32_t, char32_t>> key;
  for (const auto& [first, last] : set.ranges()) key.emplace_back(first, last);
  const auto [found, added] =
      set_index_.try_emplace(std::move(key), static_cast<std::uint32_t>(sets_.size()));
  if (added) {
    work_ += set.ranges().size() / kRangesOfWork;
    sets_.push_back(set);
  }
  return add(Kind::kSet, {found->second});
}

// From the right, so that equal texts are equal terms.
Term Language::sequence(std::span<const Term> parts) {
  Term whole = kEmpty;
  for (std::size_t i = parts.size(); i > 0; --i) {
    const Term part = parts[i - 1];
    if (part == kNever || whole == kNever) return kNever;
    if (part == kEmpty) continue;
    if (whole == kEmpty || (part == kAnything && nullable(whole))) {
      whole = part;
    } else if (kind(part) == Kind::kSequence) {
      ++work_;
      const Item inner = item(part);
      const std::array<Term, 2> rest{static_cast<Term>(inner[2]), whole};
      const std::array<Term, 2> all{static_cast<Term>(inner[1]), sequence(rest)};
      whole = add(Kind::kSequence, {number_of(all[0]), number_of(all[1])});
    } else {
      whole = add(Kind::kSequence, {number_of(part), number_of(whole)});
    }
  }
  return whole;
}

// Sorted, each once, those of the same kind in place of themselves.
Term Language::add_flat(Kind of, std::span<const Term> parts, Term neutral, Term dominant) {
  Item flat;
  for (const Term part : parts) {
    if (part == dominant) return dominant;
    if (part == neutral) continue;
    if (kind(part) == of) {
      const auto inner = operands(part);
      flat.insert(flat.end(), inner.begin(), inner.end());
    } else {
      flat.push_back(number_of(part));
    }
  }
  work_ += flat.size();
  std::ranges::sort(flat);
  const auto [first, last] = std::ranges::unique(flat);
  flat.erase(first, last);
  if (flat.empty()) return neutral;
  if (flat.size() == 1) return static_cast<Term>(flat.front());
  flat.insert(flat.begin(), static_cast<std::uint32_t>(of));
  return add(std::move(flat));
}

Term Language::choice(std::span<const Term> options) {
  return add_flat(Kind::kChoice, options, kNever, kAnything);
}

Term Language::both(Term a, Term b) {
  const std::array<Term, 2> parts{a, b};
  return add_flat(Kind::kBoth, parts, kAnything, kNever);
}

Term Language::complement(Term part) {
  if (part == kNever) return kAnything;
  if (part == kAnything) return kNever;
  if (kind(part) == Kind::kNot) return static_cast<Term>(operands(part)[0]);
  return add(Kind::kNot, {number_of(part)});
}

Term Language::repeat(Term part, std::uint32_t min, std::uint32_t max) {
  if (max == 0 || part == kEmpty) return kEmpty;
  if (min > max) return kNever;
  if (part == kNever) return min == 0 ? kEmpty : kNever;
  if (min == 1 && max == 1) return part;
  const bool all = kind(part) == Kind::kSet && sets_[operands(part)[0]] == CodeSet().complement();
  if (all && min == 0 && max == kUnbounded) return kAnything;
  return add(Kind::kRepeat, {number_of(part), min, max});
}

Term Language::multiples(Multiple multiple) {
  return multiple_term(multiple.factor, multiple.decimals, 0, 0);
}

// Remainders that are the same after every further digit are one; where no digit need follow,
// apart from 0.
Term Language::multiple_term(std::uint32_t factor, std::uint32_t decimals, std::uint32_t fraction,
                             std::uint32_t rest) {
  const std::uint32_t period = Multiple{factor, decimals}.period();
  if (rest != 0 && (decimals > 0 || rest % period != 0)) {
    rest %= period;
  } else if (rest != 0) {
    rest = period;
  }
  return add(Kind::kMultiple, {factor, decimals, fraction, rest});
}

// ---- Derivatives

Term Language::derive(Term term, char32_t code) {  // NOLINT(misc-no-recursion): as deep as terms
  if (term == kAnything || term == kNever) return term;
  if (term == kEmpty || too_large()) return kNever;
  const std::uint64_t key = std::uint64_t{number_of(term)} << 21U | code;
  const auto known = derivatives_.find(key);
  if (known != derivatives_.end()) return known->second;
  const Term found = find_derivative(term, code);
  derivatives_.emplace(key, found);
  return found;
}

Term Language::find_derivative(Term term, char32_t code) {  // NOLINT(misc-no-recursion)
  const Item it = item(term);
  work_ += it.size();
  const auto part = [&](std::size_t i) { return static_cast<Term>(it[i]); };
  switch (kind(term)) {
    case Kind::kEmpty:
    case Kind::kNever:
    case Kind::kAnything:
      return term;
    case Kind::kSet:
      return sets_[it[1]].contains(code) ? kEmpty : kNever;
    case Kind::kSequence: {
      const Term first = sequence({derive(part(1), code), part(2)});
      return nullable(part(1)) ? choice({first, derive(part(2), code)}) : first;
    }
    case Kind::kChoice: {
      std::vector<Term> options;
      for (std::size_t i = 1; i < it.size(); ++i) options.push_back(derive(part(i), code));
      return choice(options);
    }
    case Kind::kBoth: {
      Term both_of = kAnything;
      for (std::size_t i = 1; i < it.size() && both_of != kNever; ++i) {
        both_of = both(both_of, derive(part(i), code));
      }
      return both_of;
    }
    case Kind::kNot:
      return complement(derive(part(1), code));
    case Kind::kRepeat:
      return sequence({derive(part(1), code), repeat(part(1), less(it[2]), less(it[3]))});
    case Kind::kMultiple: {
      const auto [factor, decimals, fraction, rest] = std::array{it[1], it[2], it[3], it[4]};
      if (code == '.' && fraction == 0) return multiple_term(factor, decimals, 1, rest);
      if (code < '0' || code > '9') return kNever;
      const std::uint32_t digit = code - '0';
      if (fraction == 1 && decimals == 0) return digit == 0 ? term : kNever;
      const auto next = static_cast<std::uint32_t>((std::uint64_t{rest} * 10 + digit) % factor);
      return multiple_term(factor, decimals - fraction, fraction, next);
    }
  }
  return kNever;
}

Result<bool> Language::contains(Term term, std::string_view text) {
  while (!text.empty()) {
    const auto character = tokenizer::utf8::decode_lenient(text);
    term = derive(term, character.code);
    text.remove_prefix(character.length);
  }
  if (too_large()) return fail(kTooManyStates);
  return nullable(term);
}

// ---- The automaton

std::vector<CodeSet> Language::classes(Term term) {
  std::vector<bool> seen(items_.size(), false);
  std::vector<Term> todo{term};
  std::vector<std::uint32_t> used;
  const CodeSet number{{'0', '9'}, {'.', '.'}};
  std::vector<CodeSet> found{CodeSet().complement()};
  const auto split = [&](const CodeSet& by) {
    if (too_large()) return;
    const CodeSet others = by.complement();
    std::vector<CodeSet> parts;
    for (const CodeSet& old : found) {
      work_ += 1 + (old.ranges().size() + by.ranges().size()) / kRangesOfWork;
      for (const CodeSet& side : {old.intersect(by), old.intersect(others)}) {
        if (!side.empty()) parts.push_back(side);
      }
    }
    found = std::move(parts);
  };
  while (!todo.empty()) {
    const Term at = todo.back();
    todo.pop_back();
    if (seen[number_of(at)]) continue;
    seen[number_of(at)] = true;
    const auto parts = operands(at);
    switch (kind(at)) {
      case Kind::kSet:
        used.push_back(parts[0]);
        break;
      case Kind::kMultiple:
        for (const CodeRange& range : number.ranges()) {
          for (char32_t c = range.first; c <= range.last; ++c) split(CodeSet{{c, c}});
        }
        break;
      case Kind::kRepeat:
        todo.push_back(static_cast<Term>(parts[0]));
        break;
      default:
        for (const std::uint32_t part : parts) todo.push_back(static_cast<Term>(part));
    }
  }
  for (const std::uint32_t set : used) split(sets_[set]);
  return found;
}

Result<std::vector<Language::State>> Language::states(Term term) {
  const std::vector<CodeSet> sets = classes(term);
  std::vector<Term> found{term};
  std::unordered_map<std::uint32_t, std::uint32_t> numbers{{number_of(term), 0}};
  std::vector<std::vector<std::uint32_t>> users(1);
  std::vector<State> all;
  std::size_t ranges_of_all = 0;
  for (const CodeSet& set : sets) ranges_of_all += set.ranges().size();
  for (std::uint32_t i = 0; i < found.size(); ++i) {
    work_ += ranges_of_all / kRangesOfWork;
    std::map<std::uint32_t, std::vector<CodeRange>> edges;
    for (const CodeSet& set : sets) {
      const Term to = derive(found[i], set.ranges().front().first);
      if (to == kNever) continue;
      const auto [number, added] =
          numbers.try_emplace(number_of(to), static_cast<std::uint32_t>(found.size()));
      if (added) {
        found.push_back(to);
        users.emplace_back();
      }
      auto& ranges = edges[number->second];
      ranges.insert(ranges.end(), set.ranges().begin(), set.ranges().end());
    }
    if (too_large() || found.size() > kMaxTextStates || ++states_ > kMaxAllStates) {
      return fail(kTooManyStates);
    }
    State state{.accepts = nullable(found[i])};
    for (const auto& [to, ranges] : edges) {
      users[to].push_back(i);
      state.edges.emplace_back(CodeSet(ranges), to);
    }
    all.push_back(std::move(state));
  }
  // Those from which a text can end, in their order.
  std::vector<bool> ends(all.size(), false);
  std::vector<std::uint32_t> todo;
  const auto mark = [&](std::uint32_t i) {
    if (!ends[i]) todo.push_back(i);
    ends[i] = true;
  };
  for (std::uint32_t i = 0; i < all.size(); ++i) {
    if (all[i].accepts) mark(i);
  }
  while (!todo.empty()) {
    const std::uint32_t i = todo.back();
    todo.pop_back();
    std::ranges::for_each(users[i], mark);
  }
  if (!ends[0]) return std::vector<State>();
  std::vector<std::uint32_t> renamed(all.size());
  std::uint32_t count = 0;
  for (std::size_t i = 0; i < all.size(); ++i) renamed[i] = ends[i] ? count++ : 0;
  std::vector<State> kept;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (!ends[i]) continue;
    std::erase_if(all[i].edges, [&](const auto& edge) { return !ends[edge.second]; });
    for (auto& edge : all[i].edges) edge.second = renamed[edge.second];
    kept.push_back(std::move(all[i]));
  }
  return kept;
}

Result<Expression> Language::write(Term term, Builder& builder, JsonText& json) {
  if (too_large()) return fail(kTooManyStates);  // whatever the term has become
  const auto known = written_.find(number_of(term));
  if (known != written_.end()) return known->second;
  auto made = write_states(term, builder, json);
  if (made && builder.too_large()) made = fail(kTooManyStates);
  written_.emplace(number_of(term), made);
  return made;
}

Result<Expression> Language::write_states(Term term, Builder& builder, JsonText& json) {
  OLLAMA_ASSIGN(const std::vector<State> all, states(term));
  if (all.empty()) return builder.never();
  std::vector<RuleId> rules;
  for (std::size_t i = 0; i < all.size(); ++i) rules.push_back(builder.declare("text"));
  for (std::uint32_t i = 0; i < all.size() && !builder.too_large(); ++i) {
    std::vector<Expression> options;
    if (all[i].accepts) options.push_back(builder.empty());
    // A state that leads to itself is a loop of nodes, which masks know.
    Expression loop = builder.empty();
    for (const auto& [set, to] : all[i].edges) {
      const Expression character = json.character_of(set);
      if (to == i) {
        loop = builder.repeat(character, 0, kUnbounded);
      } else {
        options.push_back(builder.sequence({character, builder.call(rules[to])}));
      }
    }
    builder.define(rules[i], builder.sequence({loop, builder.choice(options)}));
  }
  return builder.call(rules.front());
}

}  // namespace ollama::grammar
