#include "chat/go/functions.h"

#include <algorithm>
#include <array>
#include <format>
#include <limits>

#include "chat/go/format.h"
#include "chat/go/lexer.h"
#include "chat/go/literal.h"
#include "chat/go/typescript.h"

namespace ollama::chat::go {
namespace {

using Kind = Value::Kind;
using Arguments = std::span<const Value>;

constexpr std::size_t kAny = std::numeric_limits<std::size_t>::max();

struct Entry {
  std::string_view name;
  Function function;
  Arity arity;
};
// In the order of the enumeration.
constexpr std::array kFunctions{
    Entry{"and", Function::kAnd, {1, kAny}},
    Entry{"or", Function::kOr, {1, kAny}},
    Entry{"call", Function::kCall, {1, kAny}},
    Entry{"html", Function::kHtml, {0, kAny}},
    Entry{"index", Function::kIndex, {1, kAny}},
    Entry{"js", Function::kJs, {0, kAny}},
    Entry{"len", Function::kLen, {1, 1}},
    Entry{"not", Function::kNot, {1, 1}},
    Entry{"print", Function::kPrint, {0, kAny}},
    Entry{"printf", Function::kPrintf, {1, kAny}},
    Entry{"println", Function::kPrintln, {0, kAny}},
    Entry{"slice", Function::kSlice, {1, 4}},
    Entry{"urlquery", Function::kUrlQuery, {0, kAny}},
    Entry{"eq", Function::kEq, {2, kAny}},
    Entry{"ge", Function::kGe, {2, 2}},
    Entry{"gt", Function::kGt, {2, 2}},
    Entry{"le", Function::kLe, {2, 2}},
    Entry{"lt", Function::kLt, {2, 2}},
    Entry{"ne", Function::kNe, {2, 2}},
    Entry{"json", Function::kJson, {1, 1}},
    Entry{"currentDate", Function::kCurrentDate, {0, kAny}},
    Entry{"yesterdayDate", Function::kYesterdayDate, {0, kAny}},
    Entry{"toTypeScriptType", Function::kTypeScriptType, {1, 1}},
};
static_assert(std::ranges::all_of(kFunctions, [i = 0](const Entry& entry) mutable {
  return static_cast<int>(entry.function) == i++;
}));

std::unexpected<Error> wrong(std::string_view message) {
  return fail(ErrorCode::kInvalidArgument, "{}", message);
}

// ---- Texts

// What a function wrote, kept.
Result<Value> kept(Sink& sink, Host& host) {
  if (sink.full()) return wrong("it makes more text than a rendering may");
  OLLAMA_ASSIGN(const std::string_view text, host.keep(sink.take()));
  return Value(text);
}

template <typename Write>
Result<Value> made(Host& host, Write write) {
  Sink sink(host.room());
  write(sink);
  return kept(sink, host);
}

// The arguments as one text, which `escape` then writes, character by character.
template <typename Escape>
Result<Value> escaped(Arguments arguments, Host& host, Escape escape) {
  Sink plain(host.room());
  if (arguments.size() == 1) {
    print_action(plain, arguments[0]);
  } else {
    for (std::size_t i = 0; i < arguments.size(); ++i) {
      const bool text = arguments[i].is(Kind::kString) || arguments[i].is_nil();
      const bool after = i > 0 && (arguments[i - 1].is(Kind::kString) || arguments[i - 1].is_nil());
      if (i > 0 && !text && !after) plain.add(' ');
      print_action(plain, arguments[i]);
    }
  }
  return made(host, [&](Sink& out) {
    for (std::string_view rest = plain.view(); !rest.empty();) {
      const std::size_t length = front_rune(rest).second;
      escape(out, rest.substr(0, length));
      rest.remove_prefix(length);
    }
  });
}

void escape_html(Sink& out, std::string_view rune) {
  switch (rune[0]) {
    case '\0':
      return out.add("\xEF\xBF\xBD");
    case '"':
      return out.add("&#34;");
    case '\'':
      return out.add("&#39;");
    case '&':
      return out.add("&amp;");
    case '<':
      return out.add("&lt;");
    case '>':
      return out.add("&gt;");
    default:
      return out.add(rune);
  }
}

void escape_js(Sink& out, std::string_view rune) {
  const std::uint32_t code = front_rune(rune).first;
  if (code == '\\' || code == '\'' || code == '"') {
    out.add('\\');
    out.add(rune);
  } else if (!is_printable(code) || std::string_view("<>&=").contains(rune[0])) {
    out.add(std::format("\\u{:04X}", code));
  } else {
    out.add(rune);
  }
}

void escape_query_byte(Sink& out, char c) {
  const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     std::string_view("-_.~").contains(c);
  if (plain) {
    out.add(c);
  } else if (c == ' ') {
    out.add('+');
  } else {
    out.add(std::format("%{:02X}", static_cast<unsigned char>(c)));
  }
}
void escape_query(Sink& out, std::string_view rune) {
  for (const char c : rune) escape_query_byte(out, c);
}

Result<Value> printf(Arguments arguments, Host& host) {
  if (!arguments[0].is(Kind::kString)) {
    return wrong(std::format("the format is {}, not a string", arguments[0].type_name()));
  }
  Sink sink(host.room());
  OLLAMA_TRY(print_format(sink, arguments[0].text(), arguments.subspan(1)));
  return kept(sink, host);
}

Result<Value> date(Arguments arguments, Host& host, int days) {
  for (const Value& argument : arguments) {
    if (!argument.is(Kind::kString)) return wrong("a date's format must be a string");
  }
  const std::chrono::year_month_day day(std::chrono::floor<std::chrono::days>(host.now()) +
                                        std::chrono::days(days));
  OLLAMA_ASSIGN(const std::string_view text, host.keep(std::format("{:%F}", day)));
  return Value(text);
}

// ---- Comparing

enum class Order : std::uint8_t { kLess, kEqual, kGreater };

template <typename T>
Order order_of(const T& a, const T& b) {
  return a < b ? Order::kLess : b < a ? Order::kGreater : Order::kEqual;
}

Result<bool> equal(const Value& a, const Value& b) {
  if (a.is_nil() || b.is_nil()) return a.is_nil() && b.is_nil();
  if (a.kind() != b.kind()) return wrong("incompatible types for comparison");
  switch (a.kind()) {
    case Kind::kBool:
      return a.boolean() == b.boolean();
    case Kind::kInt:
      return a.integer() == b.integer();
    case Kind::kFloat:
      return a.number() == b.number();
    case Kind::kString:
      return a.text() == b.text();
    default:
      return wrong(std::format("{} cannot be compared", a.type_name()));
  }
}

Result<bool> equals_any(Arguments arguments) {
  for (const Value& other : arguments.subspan(1)) {
    OLLAMA_ASSIGN(const bool same, equal(arguments[0], other));
    if (same) return true;
  }
  return false;
}

Result<Order> compare(const Value& a, const Value& b) {
  for (const Value* value : {&a, &b}) {
    if (!value->is(Kind::kInt) && !value->is(Kind::kFloat) && !value->is(Kind::kString)) {
      return wrong("invalid type for comparison");
    }
  }
  if (a.kind() != b.kind()) return wrong("incompatible types for comparison");
  if (a.is(Kind::kInt)) return order_of(a.integer(), b.integer());
  if (a.is(Kind::kFloat)) return order_of(a.number(), b.number());
  return order_of(a.text(), b.text());
}

Result<Value> comparison(Function function, Arguments arguments) {
  if (function == Function::kEq || function == Function::kNe) {
    OLLAMA_ASSIGN(const bool same, equals_any(arguments));
    return Value(same == (function == Function::kEq));
  }
  OLLAMA_ASSIGN(const Order order, compare(arguments[0], arguments[1]));
  switch (function) {
    case Function::kLt:
      return Value(order == Order::kLess);
    case Function::kLe:
      return Value(order != Order::kGreater);
    case Function::kGt:
      return Value(order == Order::kGreater);
    default:
      return Value(order != Order::kLess);
  }
}

// ---- Lists and maps

// An index from 0 to `limit`.
Result<std::size_t> index_of(const Value& value, std::size_t limit) {
  if (!value.is(Kind::kInt)) {
    return wrong(std::format("an index is an integer, not {}", value.type_name()));
  }
  if (value.integer() < 0 || std::cmp_greater(value.integer(), limit)) {
    return wrong(std::format("index out of range: {}", value.integer()));
  }
  return static_cast<std::size_t>(value.integer());
}

Result<Value> element(const Value& value, const Value& key) {
  if (value.is_map()) {
    if (!key.is(Kind::kString)) {
      return wrong(std::format("a map's key is a string, not {}", key.type_name()));
    }
    return value.member(key.text());
  }
  if (!value.is(Kind::kList) && !value.is(Kind::kString)) {
    return wrong(std::format("{} has no elements", value.type_name()));
  }
  const auto length = static_cast<std::size_t>(value.length());
  OLLAMA_ASSIGN(const std::size_t i, index_of(key, length));
  if (i == length) return wrong(std::format("index out of range: {}", i));
  if (value.is(Kind::kList)) return value.list()[i];
  return Value(static_cast<std::int64_t>(static_cast<unsigned char>(value.text()[i])));
}

Result<Value> index(Arguments arguments) {
  Value value = arguments[0];
  if (value.is_nil()) return wrong("index of nil");
  for (const Value& key : arguments.subspan(1)) {
    OLLAMA_ASSIGN(value, element(value, key));
  }
  return value;
}

Result<Value> slice(Arguments arguments) {
  const Value& value = arguments[0];
  const bool text = value.is(Kind::kString);
  if (!text && !value.is(Kind::kList)) {
    return wrong(std::format("{} cannot be sliced", value.type_name()));
  }
  if (text && arguments.size() == 4) return wrong("a string cannot be sliced with three indexes");
  const auto length = static_cast<std::size_t>(value.length());
  std::array<std::size_t, 3> ends{0, length, length};
  for (std::size_t i = 1; i < arguments.size(); ++i) {
    OLLAMA_ASSIGN(ends[i - 1], index_of(arguments[i], length));
  }
  if (ends[0] > ends[1] || ends[1] > ends[2]) {
    return wrong(std::format("invalid slice index: {} > {}", ends[0], ends[1]));
  }
  if (text) return Value(value.text().substr(ends[0], ends[1] - ends[0]));
  const Value part(value.list().slice(ends[0], ends[1]));
  return value.prints_json() ? part.as_json() : part;
}

}  // namespace

std::optional<Function> find_function(std::string_view name) {
  const auto found = std::ranges::find(kFunctions, name, &Entry::name);
  if (found == kFunctions.end()) return std::nullopt;
  return found->function;
}

std::string_view function_name(Function function) {
  return kFunctions[static_cast<std::size_t>(function)].name;
}

Arity arity_of(Function function) { return kFunctions[static_cast<std::size_t>(function)].arity; }

Result<Value> call(Function function, Arguments arguments, Host& host) {
  switch (function) {
    case Function::kAnd:
    case Function::kOr:
      return arguments.back();
    case Function::kCall:
      return wrong("there is nothing that can be called");
    case Function::kHtml:
      return escaped(arguments, host, escape_html);
    case Function::kIndex:
      return index(arguments);
    case Function::kJs:
      return escaped(arguments, host, escape_js);
    case Function::kLen: {
      const std::int64_t length = arguments[0].length();
      if (length < 0) return wrong(std::format("len of {}", arguments[0].type_name()));
      return Value(length);
    }
    case Function::kNot:
      return Value(!arguments[0].truth());
    case Function::kPrint:
      return made(host, [&](Sink& out) { print_all(out, arguments); });
    case Function::kPrintf:
      return printf(arguments, host);
    case Function::kPrintln:
      return made(host, [&](Sink& out) { print_line(out, arguments); });
    case Function::kSlice:
      return slice(arguments);
    case Function::kUrlQuery:
      return escaped(arguments, host, escape_query);
    case Function::kEq:
    case Function::kGe:
    case Function::kGt:
    case Function::kLe:
    case Function::kLt:
    case Function::kNe:
      return comparison(function, arguments);
    case Function::kJson:
      return made(host, [&](Sink& out) { write_json(out, arguments[0]); });
    case Function::kCurrentDate:
      return date(arguments, host, 0);
    case Function::kYesterdayDate:
      return date(arguments, host, -1);
    case Function::kTypeScriptType: {
      OLLAMA_ASSIGN(const std::string_view text, host.keep(typescript_type(arguments[0])));
      return Value(text);
    }
  }
  return wrong("an unknown function");
}

}  // namespace ollama::chat::go
