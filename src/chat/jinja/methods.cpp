// Methods of strings.
#include <algorithm>

#include "chat/jinja/builtins.h"
#include "chat/jinja/interpreter.h"
#include "chat/jinja/operators.h"
#include "chat/jinja/unicode.h"

namespace ollama::chat::jinja {

namespace {

constexpr std::size_t kNowhere = std::string_view::npos;

// Splitting and joining

class Splitter {
 public:
  Splitter(Interpreter& in, const Call& call) : in_(in) {
    const auto [separator, most] = parameters(call, {"sep", "maxsplit"});
    if (!separator.missing() && !separator.is_none()) {
      separator_ = text_argument(separator, "sep");
      if (separator_->empty()) raise("empty separator");
    }
    const std::int64_t count = integer_argument(most, "maxsplit", -1);
    left_ = count < 0 ? SIZE_MAX : static_cast<std::size_t>(count);
  }

  Value forward(std::string_view text) {
    in_.charge_bytes(text.size());
    if (!separator_) {
      text = strip_left(text);
      while (!text.empty()) {
        const std::size_t end = left_ == 0 ? text.size() : blank(text);
        add(text.substr(0, end));
        text = strip_left(text.substr(end));
      }
      return made();
    }
    for (;;) {
      const std::size_t at = left_ == 0 ? kNowhere : find_text(text, *separator_);
      if (at == kNowhere) break;
      add(text.substr(0, at));
      text.remove_prefix(at + separator_->size());
    }
    add(text);
    return made();
  }

  Value backward(std::string_view text) {
    in_.charge_bytes(text.size());
    if (!separator_) {
      text = strip_right(text);
      while (!text.empty()) {
        const std::size_t begin = left_ == 0 ? 0 : last_word(text);
        add(text.substr(begin));
        text = strip_right(text.substr(0, begin));
      }
    } else {
      in_.charge(text.size() / 16 * std::min<std::size_t>(separator_->size(), text.size()) / 16);
      for (;;) {
        const std::size_t at = left_ == 0 ? kNowhere : text.rfind(*separator_);
        if (at == kNowhere) break;
        add(text.substr(at + separator_->size()));
        text = text.substr(0, at);
      }
      add(text);
    }
    std::ranges::reverse(parts_);
    return made();
  }

 private:
  void add(std::string_view part) {
    in_.charge(1);
    parts_.emplace_back(part);
    if (left_ != SIZE_MAX && left_ > 0) --left_;
  }
  Value made() { return wrap_list(in_, in_.arena.copy(parts_)); }

  static std::size_t blank(std::string_view text) {
    std::size_t at = 0;
    while (at < text.size()) {
      const std::size_t length = character_length(text.substr(at));
      if (is_space(character_code(text.substr(at, length)))) break;
      at += length;
    }
    return at;
  }
  static std::size_t last_word(std::string_view text) {
    while (!text.empty()) {
      const std::size_t length = last_character_length(text);
      if (is_space(character_code(text.substr(text.size() - length)))) break;
      text.remove_suffix(length);
    }
    return text.size();
  }

  Interpreter& in_;
  std::optional<std::string_view> separator_;
  std::size_t left_ = SIZE_MAX;
  std::vector<Value> parts_;
};

Value join_items(Interpreter& in, std::string_view separator, const Call& call) {
  const auto [items] = parameters(call, {"iterable"}, 1);
  std::string out;
  Walk walk(in, items);
  std::size_t index = 0;
  for (Value item; walk.next(in, item); ++index) {
    require_defined(item);
    if (!item.string()) {
      raise("sequence item {}: expected str instance, {} found", index, type_name(item.kind()));
    }
    if (index > 0) out += separator;
    append_text(in, out, item);
  }
  return make_string(in, out);
}

Value partition(Interpreter& in, std::string_view text, const Call& call, bool last) {
  const auto [separator] = parameters(call, {"sep"}, 1);
  const std::string_view by = text_argument(separator, "sep");
  if (by.empty()) raise("empty separator");
  in.charge_bytes(text.size());
  if (last) in.charge(text.size() / 16 * std::min(by.size(), text.size()) / 16);
  const std::size_t at = last ? text.rfind(by) : find_text(text, by);
  const Value nothing{std::string_view()};
  if (at == kNowhere) {
    return last ? make_list(in, {nothing, nothing, Value(text)}, Kind::kTuple)
                : make_list(in, {Value(text), nothing, nothing}, Kind::kTuple);
  }
  return make_list(in, {Value(text.substr(0, at)), Value(by), Value(text.substr(at + by.size()))},
                   Kind::kTuple);
}

// Searching

struct Part {
  std::string_view text;
  std::int64_t begin = 0;  // in characters
};
// The part of a text that optional bounds leave.
Part bounded(Interpreter& in, const Value& object, const Value& start, const Value& end) {
  if (start.missing() && end.missing()) return {.text = object.text()};
  std::int64_t begin = integer_argument(start, "start", 0);
  const auto size = static_cast<std::int64_t>(length(in, object));
  if (begin < 0) begin = std::max<std::int64_t>(0, begin + size);
  return {.text = slice(in, object, start, end, Value()).text(), .begin = begin};
}

std::int64_t search(Interpreter& in, const Value& object, const Call& call, bool last) {
  const auto [needle, start, end] = parameters(call, {"sub", "start", "end"}, 1);
  const std::string_view wanted = text_argument(needle, "sub");
  const Part part = bounded(in, object, start, end);
  in.charge_bytes(part.text.size());
  if (last) in.charge(part.text.size() / 16 * std::min(wanted.size(), part.text.size()) / 16);
  const std::size_t at = last ? part.text.rfind(wanted) : find_text(part.text, wanted);
  if (at == kNowhere) return -1;
  return part.begin + static_cast<std::int64_t>(count_characters(part.text.substr(0, at)));
}

Value search_or_fail(Interpreter& in, const Value& object, const Call& call, bool last) {
  const std::int64_t at = search(in, object, call, last);
  if (at < 0) raise("substring not found");
  return Value(at);
}

Value count_of(Interpreter& in, const Value& object, const Call& call) {
  const auto [needle, start, end] = parameters(call, {"sub", "start", "end"}, 1);
  const std::string_view wanted = text_argument(needle, "sub");
  const std::string_view text = bounded(in, object, start, end).text;
  in.charge_bytes(text.size());
  if (wanted.empty()) return Value(static_cast<std::int64_t>(count_characters(text)) + 1);
  std::int64_t count = 0;
  for (std::size_t at = find_text(text, wanted); at != kNowhere;
       at = find_text(text, wanted, at + wanted.size())) {
    ++count;
  }
  return Value(count);
}

Value has_end(Interpreter& in, const Value& object, const Call& call, bool prefix) {
  const auto [wanted, start, end] = parameters(call, {"affix", "start", "end"}, 1);
  const std::string_view text = bounded(in, object, start, end).text;
  const auto matches = [&](const Value& each) {
    const std::string_view affix = text_argument(each, "affix");
    in.charge_bytes(affix.size());
    return prefix ? text.starts_with(affix) : text.ends_with(affix);
  };
  if (!wanted.is(Kind::kTuple)) return Value(matches(wanted));
  return Value(std::ranges::any_of(wanted.as_list().items, matches));
}

// Changing

Value stripped(Interpreter& in, std::string_view text, const Call& call, bool left, bool right) {
  const auto [set] = parameters(call, {"chars"});
  std::optional<std::string_view> characters;
  if (!set.missing() && !set.is_none()) characters = text_argument(set, "chars");
  in.charge_bytes(text.size());
  if (characters && characters->size() > 64) in.charge(text.size() / 32 * characters->size());
  if (left) text = strip_left(text, characters);
  if (right) text = strip_right(text, characters);
  return Value(text);
}

Value without_affix(std::string_view text, const Call& call, bool prefix) {
  const auto [wanted] = parameters(call, {"affix"}, 1);
  const std::string_view affix = text_argument(wanted, "affix");
  if (affix.empty()) return Value(text);
  if (prefix && text.starts_with(affix)) text.remove_prefix(affix.size());
  if (!prefix && text.ends_with(affix)) text.remove_suffix(affix.size());
  return Value(text);
}

Value justified(Interpreter& in, std::string_view text, const Call& call, MethodId method) {
  const auto [width, with] = parameters(call, {"width", "fillchar"}, 1);
  const std::string_view fill = with.missing() ? " " : text_argument(with, "fillchar");
  if (count_characters(fill) != 1) raise("the fill character must be exactly one character long");
  const auto size = static_cast<std::int64_t>(count_characters(text));
  const std::int64_t wanted = integer_argument(width, "width", 0);
  if (wanted <= size) return Value(text);
  const auto missing = static_cast<std::size_t>(wanted - size);
  in.check_size(missing);
  in.check_size(text.size() + missing * fill.size());
  in.charge_bytes(missing * fill.size());
  const std::size_t left = method == MethodId::kLjust ? 0
                           : method == MethodId::kRjust
                               ? missing
                               : missing / 2 + (missing & static_cast<std::size_t>(wanted) & 1);
  std::string out;
  for (std::size_t i = 0; i < left; ++i) out += fill;
  out += text;
  for (std::size_t i = left; i < missing; ++i) out += fill;
  return make_string(in, out);
}

Value zero_filled(Interpreter& in, std::string_view text, const Call& call) {
  const auto [width] = parameters(call, {"width"}, 1);
  const std::int64_t wanted = integer_argument(width, "width", 0);
  const auto size = static_cast<std::int64_t>(count_characters(text));
  if (wanted <= size) return Value(text);
  in.check_size(static_cast<std::size_t>(wanted));
  const std::size_t sign = text.starts_with('-') || text.starts_with('+') ? 1 : 0;
  std::string out(text.substr(0, sign));
  out.append(static_cast<std::size_t>(wanted - size), '0');
  out += text.substr(sign);
  return make_string(in, out);
}

Value replaced(Interpreter& in, std::string_view text, const Call& call) {
  const auto [from, to, count] = parameters(call, {"old", "new", "count"}, 2);
  return replace_text(in, text, text_argument(from, "old"), text_argument(to, "new"),
                      integer_argument(count, "count", -1));
}

Value expanded(Interpreter& in, std::string_view text, const Call& call) {
  const auto [size] = parameters(call, {"tabsize"});
  const auto width = static_cast<std::size_t>(
      std::clamp<std::int64_t>(integer_argument(size, "tabsize", 8), 0, 1000));
  std::string out;
  std::size_t column = 0;
  for (const char c : text) {
    if (c == '\t') {
      const std::size_t blanks = width == 0 ? 0 : width - column % width;
      out.append(blanks, ' ');
      column += blanks;
    } else {
      out += c;
      column = c == '\n' || c == '\r' ? 0 : column + (tokenizer::utf8::is_continuation(c) ? 0 : 1);
    }
    in.charge(1);
    in.check_size(out.size());
  }
  return make_string(in, out);
}

Value cased(Interpreter& in, std::string_view text, const Call& call, Case to) {
  expect_no_arguments(call);
  in.charge_bytes(text.size() * 4);
  return make_string(in, convert_case(text, to));
}

// Asking

template <typename Predicate>
bool all_characters(std::string_view text, Predicate predicate) {
  if (text.empty()) return false;
  while (!text.empty()) {
    const std::size_t length = character_length(text);
    if (!predicate(character_code(text.substr(0, length)))) return false;
    text.remove_prefix(length);
  }
  return true;
}

bool is_title(std::string_view text) {
  bool after_letter = false;
  bool any = false;
  const bool fits = all_characters(text, [&](char32_t code) {
    const bool upper = is_upper(code);
    const bool lower = is_lower(code);
    if (upper ? after_letter : (lower && !after_letter)) return false;
    after_letter = upper || lower;
    any = any || after_letter;
    return true;
  });
  return fits && any;
}

bool ask(std::string_view text, MethodId method) {
  switch (method) {
    case MethodId::kIsascii:
      return is_ascii(text);
    case MethodId::kIsalpha:
      return all_characters(text, is_alpha);
    case MethodId::kIsdecimal:
    case MethodId::kIsdigit:
    case MethodId::kIsnumeric:
      return all_characters(text, is_digit);
    case MethodId::kIsspace:
      return all_characters(text, is_space);
    case MethodId::kIsprintable:
      return text.empty() || all_characters(text, is_printable);
    case MethodId::kIstitle:
      return is_title(text);
    case MethodId::kIsidentifier:
      return all_characters(text,
                            [](char32_t c) { return is_alpha(c) || is_digit(c) || c == '_'; }) &&
             !is_digit(static_cast<unsigned char>(text.front()));
    default:
      return all_characters(text, [](char32_t c) { return is_alpha(c) || is_digit(c); });
  }
}

// Some letter, and none of the other case.
bool is_all(std::string_view text, bool (*wanted)(char32_t), bool (*other)(char32_t)) {
  bool any = false;
  return all_characters(text,
                        [&](char32_t code) {
                          any = any || wanted(code);
                          return !other(code);
                        }) &&
         any;
}

Value call_on_text(Interpreter& in, const Value& object, MethodId method, const Call& call) {
  const std::string_view text = object.text();
  switch (method) {
    case MethodId::kSplit:
      return Splitter(in, call).forward(text);
    case MethodId::kRsplit:
      return Splitter(in, call).backward(text);
    case MethodId::kStrip:
      return stripped(in, text, call, true, true);
    case MethodId::kLstrip:
      return stripped(in, text, call, true, false);
    case MethodId::kRstrip:
      return stripped(in, text, call, false, true);
    case MethodId::kStartswith:
      return has_end(in, object, call, true);
    case MethodId::kEndswith:
      return has_end(in, object, call, false);
    case MethodId::kReplace:
      return replaced(in, text, call);
    case MethodId::kJoin:
      return join_items(in, text, call);
    case MethodId::kUpper:
      return cased(in, text, call, Case::kUpper);
    case MethodId::kLower:
    case MethodId::kCasefold:
      return cased(in, text, call, Case::kLower);
    case MethodId::kTitle:
      return cased(in, text, call, Case::kTitle);
    case MethodId::kCapitalize:
      return cased(in, text, call, Case::kCapital);
    case MethodId::kSwapcase:
      return cased(in, text, call, Case::kSwapped);
    case MethodId::kFind:
      return Value(search(in, object, call, false));
    case MethodId::kRfind:
      return Value(search(in, object, call, true));
    case MethodId::kIndex:
      return search_or_fail(in, object, call, false);
    case MethodId::kRindex:
      return search_or_fail(in, object, call, true);
    case MethodId::kCount:
      return count_of(in, object, call);
    case MethodId::kPartition:
      return partition(in, text, call, false);
    case MethodId::kRpartition:
      return partition(in, text, call, true);
    case MethodId::kRemoveprefix:
      return without_affix(text, call, true);
    case MethodId::kRemovesuffix:
      return without_affix(text, call, false);
    case MethodId::kSplitlines: {
      const auto [keep] = parameters(call, {"keepends"});
      return wrap_list(in, in.arena.copy(split_lines(in, text, truthy(keep))));
    }
    case MethodId::kCenter:
    case MethodId::kLjust:
    case MethodId::kRjust:
      return justified(in, text, call, method);
    case MethodId::kZfill:
      return zero_filled(in, text, call);
    case MethodId::kExpandtabs:
      return expanded(in, text, call);
    case MethodId::kFormat:
      return make_string(in, brace_format(in, text, call.positional, call.named));
    case MethodId::kFormatMap: {
      const auto [values] = parameters(call, {"mapping"}, 1);
      std::vector<Argument> named;
      if (!values.dict()) raise("format_map() needs a dict");
      Walk walk(in, values);
      Value key;
      for (Argument each; walk.next_pair(key, each.value); named.push_back(each)) {
        each.name = to_text(in, key);
      }
      return make_string(in, brace_format(in, text, {}, named));
    }
    case MethodId::kIslower:
    case MethodId::kIsupper: {
      expect_no_arguments(call);
      in.charge_bytes(text.size() * 4);
      const bool upper = method == MethodId::kIsupper;
      return Value(upper ? is_all(text, is_upper, is_lower) : is_all(text, is_lower, is_upper));
    }
    default:
      expect_no_arguments(call);
      in.charge_bytes(text.size() * 4);
      return Value(ask(text, method));
  }
}

}  // namespace

Value call_string_method(Interpreter& in, const Value& object, MethodId method, const Call& call) {
  const Value result = call_on_text(in, object, method, call);
  return object.is_safe() && result.string() ? Value::safe(result.text()) : result;
}

}  // namespace ollama::chat::jinja
