// Filters on text. Whatever they are given is made text first, as Jinja does.
#include <algorithm>

#include "chat/jinja/builtins.h"
#include "chat/jinja/filters.h"
#include "chat/jinja/interpreter.h"
#include "chat/jinja/operators.h"
#include "chat/jinja/unicode.h"

namespace ollama::chat::jinja {

namespace {

std::string_view input_text(Interpreter& in, const Value& input) {
  const std::string_view text = to_text(in, input);
  in.charge_bytes(text.size());
  return text;
}

template <Case kCase>
Value filter_case(Interpreter& in, const Value& input, const Call& call) {
  expect_no_arguments(call);
  const std::string_view text = input_text(in, input);
  in.charge_bytes(text.size() * 4);
  return make_string(in, convert_case(text, kCase));
}

// Jinja's own idea of a title: words begin after blanks, '-' and opening brackets.
Value filter_title(Interpreter& in, const Value& input, const Call& call) {
  expect_no_arguments(call);
  std::string_view text = input_text(in, input);
  in.charge_bytes(text.size() * 4);
  std::string out;
  bool begins = true;
  while (!text.empty()) {
    const std::string_view character = text.substr(0, character_length(text));
    out += convert_case(character, begins ? Case::kUpper : Case::kLower);
    begins = is_space(character_code(character)) || std::string_view("-({[<").contains(character);
    text.remove_prefix(character.size());
  }
  return make_string(in, out);
}

Value filter_trim(Interpreter& in, const Value& input, const Call& call) {
  const auto [chars] = parameters(call, {"chars"});
  const std::string_view text = input_text(in, input);
  std::string_view trimmed;
  if (chars.missing() || chars.is_none()) {
    trimmed = strip(text);
  } else {
    const std::string_view set = text_argument(chars, "chars");
    if (set.size() > 64) in.charge(text.size() / 32 * set.size());
    trimmed = strip(text, set);
  }
  return input.is_safe() ? Value::safe(trimmed) : Value(trimmed);
}

Value filter_replace(Interpreter& in, const Value& input, const Call& call) {
  const auto [from, to, count] = parameters(call, {"old", "new", "count"}, 2);
  return replace_text(in, input_text(in, input), to_text(in, from), to_text(in, to),
                      integer_argument(count, "count", -1));
}

Value filter_indent(Interpreter& in, const Value& input, const Call& call) {
  const auto [width, first, blank] = parameters(call, {"width", "first", "blank"});
  (void)text_argument(input, "indent's text");
  std::string indention;
  if (width.string()) {
    indention = width.text();
  } else {
    const std::int64_t blanks = integer_argument(width, "width", 4);
    in.check_size(static_cast<std::size_t>(std::max<std::int64_t>(blanks, 0)));
    indention.assign(static_cast<std::size_t>(std::max<std::int64_t>(blanks, 0)), ' ');
  }
  // With one more line break, so that one at the end gives an empty line.
  const std::string_view text = in.arena.join(in.arena.copy(input_text(in, input)), "\n");
  const std::vector<Value> lines = split_lines(in, text, false);
  std::string out;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += '\n';
    const bool indents = i == 0 ? truthy(first) : truthy(blank) || !lines[i].text().empty();
    in.check_size(out.size() + indention.size() + lines[i].text().size());
    if (indents) out += indention;
    out += lines[i].text();
  }
  in.charge_bytes(out.size());
  return make_string(in, out);
}

Value filter_wordcount(Interpreter& in, const Value& input, const Call& call) {
  expect_no_arguments(call);
  std::int64_t count = 0;
  bool inside = false;
  std::string_view text = input_text(in, input);
  in.charge_bytes(text.size() * 4);
  while (!text.empty()) {
    const std::size_t length = character_length(text);
    const char32_t code = character_code(text.substr(0, length));
    const bool word = code == '_' || is_alpha(code) || is_digit(code);
    if (word && !inside) ++count;
    inside = word;
    text.remove_prefix(length);
  }
  return Value(count);
}

Value filter_truncate(Interpreter& in, const Value& input, const Call& call) {
  const auto [most, kill, end, leeway] = parameters(call, {"length", "killwords", "end", "leeway"});
  const std::string_view text =
      input.undefined() ? std::string_view() : text_argument(input, "truncate's text");
  in.charge_bytes(text.size() * 4);
  const std::int64_t length = integer_argument(most, "length", 255);
  const std::string_view tail = end.missing() ? "..." : text_argument(end, "end");
  const auto tail_size = static_cast<std::int64_t>(count_characters(tail));
  const std::int64_t slack = integer_argument(leeway, "leeway", 5);
  if (length < tail_size) raise("expected length >= {}, got {}", tail_size, length);
  if (slack < 0) raise("expected leeway >= 0, got {}", slack);
  const auto size = static_cast<std::int64_t>(count_characters(text));
  if (size - slack <= length) return Value(text);
  std::string_view kept =
      text.substr(0, byte_of(text, static_cast<std::size_t>(length - tail_size)));
  if (!truthy(kill)) {
    const std::size_t blank = kept.rfind(' ');
    if (blank != std::string_view::npos) kept = kept.substr(0, blank);
  }
  return make_string(in, std::string(kept) + std::string(tail));
}

Value filter_center(Interpreter& in, const Value& input, const Call& call) {
  const auto [width] = parameters(call, {"width"});
  const Value wide = width.missing() ? Value(std::int64_t{80}) : width;
  return call_string_method(in, Value(input_text(in, input)), MethodId::kCenter,
                            {.positional = std::span(&wide, 1)});
}

Value filter_format(Interpreter& in, const Value& input, const Call& call) {
  if (!call.positional.empty() && !call.named.empty()) {
    raise("positional and keyword arguments cannot be used together");
  }
  Value values = wrap_list(in, call.positional, Kind::kTuple);
  if (!call.named.empty()) {
    auto* const dict = in.arena.make<Dict>();
    for (const Argument& each : call.named) dict_set(in, *dict, Value(each.name), each.value);
    values = Value::of(Kind::kDict, dict);
  }
  return make_string(in, percent_format(in, input_text(in, input), values));
}

Value filter_string(Interpreter& in, const Value& input, const Call& call) {
  expect_no_arguments(call);
  return input.string() ? input : Value(input_text(in, input));
}

Value filter_safe(Interpreter& in, const Value& input, const Call& call) {
  expect_no_arguments(call);
  return Value::safe(input_text(in, input));
}

Value filter_escape(Interpreter& in, const Value& input, const Call& call) {
  expect_no_arguments(call);
  if (input.is_safe()) return input;
  const std::string escaped = escape_html(input_text(in, input));
  return Value::safe(in.arena.copy(escaped));
}

Value filter_forceescape(Interpreter& in, const Value& input, const Call& call) {
  expect_no_arguments(call);
  const std::string escaped = escape_html(input_text(in, input));
  return Value::safe(in.arena.copy(escaped));
}

Value filter_urlencode(Interpreter& in, const Value& input, const Call& call) {
  expect_no_arguments(call);
  std::string out;
  for (const char c : input_text(in, input)) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       std::string_view("_.-~/").contains(c);
    if (plain) {
      out += c;
    } else {
      out += std::format("%{:02X}", static_cast<unsigned>(static_cast<unsigned char>(c)));
    }
  }
  return make_string(in, out);
}

constexpr FilterName kTextFilters[] = {
    {"capitalize", filter_case<Case::kCapital>},
    {"center", filter_center},
    {"e", filter_escape},
    {"escape", filter_escape},
    {"forceescape", filter_forceescape},
    {"format", filter_format},
    {"indent", filter_indent},
    {"lower", filter_case<Case::kLower>},
    {"replace", filter_replace},
    {"safe", filter_safe},
    {"string", filter_string},
    {"title", filter_title},
    {"trim", filter_trim},
    {"truncate", filter_truncate},
    {"upper", filter_case<Case::kUpper>},
    {"urlencode", filter_urlencode},
    {"wordcount", filter_wordcount},
};

}  // namespace

std::span<const FilterName> text_filters() { return kTextFilters; }

Value replace_text(Runtime& run, std::string_view text, std::string_view from, std::string_view to,
                   std::int64_t count) {
  run.charge_bytes(text.size());
  std::uint64_t left = count < 0 ? UINT64_MAX : static_cast<std::uint64_t>(count);
  std::string out;
  while (left > 0) {
    std::size_t at = 0;
    if (from.empty()) {  // between all characters, and at both ends
      out += to;
      if (text.empty()) return make_string(run, out);
      at = character_length(text);
      out += text.substr(0, at);
    } else {
      at = find_text(text, from);
      if (at == std::string_view::npos) break;
      out += text.substr(0, at);
      out += to;
      at += from.size();
    }
    text.remove_prefix(at);
    --left;
    run.charge_bytes(to.size());
    run.check_size(out.size() + text.size());
  }
  if (out.empty()) return Value(text);
  out += text;
  return make_string(run, out);
}

std::vector<Value> split_lines(Runtime& run, std::string_view text, bool keep_ends) {
  run.charge_bytes(text.size() * 2);
  std::vector<Value> lines;
  while (!text.empty()) {
    std::size_t at = 0;
    std::size_t end = 0;  // bytes of the line's end
    while (at < text.size() && end == 0) {
      const std::size_t length = character_length(text.substr(at));
      const char32_t code = character_code(text.substr(at, length));
      const bool breaks = (code >= 0x0A && code <= 0x0D) || (code >= 0x1C && code <= 0x1E) ||
                          code == 0x85 || code == 0x2028 || code == 0x2029;
      if (breaks) {
        end = text.substr(at).starts_with("\r\n") ? 2 : length;
      } else {
        at += length;
      }
    }
    run.charge(1);
    lines.emplace_back(text.substr(0, at + (keep_ends ? end : 0)));
    text.remove_prefix(at + end);
  }
  return lines;
}

}  // namespace ollama::chat::jinja
