// Values as text: str(), repr() and json.dumps().
#include <algorithm>
#include <charconv>
#include <cmath>
#include <vector>

#include "chat/jinja/interpreter.h"
#include "chat/jinja/operators.h"
#include "chat/jinja/unicode.h"

namespace ollama::chat::jinja {

namespace {

void append_integer(std::string& out, std::int64_t value) {
  std::array<char, 24> buffer;
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value).ptr;
  out.append(buffer.data(), end);
}

// Python escapes what cannot be seen.
void append_escape(std::string& out, char32_t code) {
  if (code < 0x100) {
    out += std::format("\\x{:02x}", static_cast<unsigned>(code));
  } else if (code < 0x10000) {
    out += std::format("\\u{:04x}", static_cast<unsigned>(code));
  } else {
    out += std::format("\\U{:08x}", static_cast<unsigned>(code));
  }
}

void append_quoted(std::string& out, std::string_view text) {
  const bool doubled = text.contains('\'') && !text.contains('"');
  const char quote = doubled ? '"' : '\'';
  out += quote;
  while (!text.empty()) {
    const std::size_t length = character_length(text);
    const std::string_view character = text.substr(0, length);
    const char c = character.front();
    if (c == '\\' || c == quote) {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (const char32_t code = character_code(character); !is_printable(code)) {
      append_escape(out, code);
    } else {
      out += character;
    }
    text.remove_prefix(length);
  }
  out += quote;
}

void append_items(Runtime& run, std::string& out, const Value& value, char open, char close) {
  const Nested nested(run);
  out += open;
  Walk walk(run, value);
  Value item;
  for (bool first = true; walk.next(run, item); first = false) {
    if (!first) out += ", ";
    append_repr(run, out, item);
  }
  if (value.is(Kind::kTuple) && walk.size() == 1) out += ',';
  out += close;
}

void append_dict(Runtime& run, std::string& out, const Value& value) {
  const Nested nested(run);
  out += '{';
  Walk walk(run, value);
  Value key;
  Value item;
  for (bool first = true; walk.next_pair(key, item); first = false) {
    if (!first) out += ", ";
    append_repr(run, out, key);
    out += ": ";
    append_repr(run, out, item);
  }
  out += '}';
}

void append_view(Runtime& run, std::string& out, const Value& value) {
  const ViewKind kind = value.as<View>().kind;
  out += kind == ViewKind::kKeys     ? "dict_keys("
         : kind == ViewKind::kValues ? "dict_values("
                                     : "dict_items(";
  append_items(run, out, value, '[', ']');
  out += ')';
}

void append_range(std::string& out, const Range& range) {
  out += std::format("range({}, {}", range.start, range.stop);
  if (range.step != 1) out += std::format(", {}", range.step);
  out += ')';
}

}  // namespace

std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  if (value == 0) return std::signbit(value) ? "-0.0" : "0.0";
  std::array<char, 40> buffer;
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                 std::chars_format::scientific)
                       .ptr;
  const std::string_view text(buffer.data(), end);
  const std::size_t e = text.find('e');
  int exponent = 0;
  std::from_chars(text.data() + e + (text[e + 1] == '+' ? 2 : 1), end, exponent);
  if (exponent < -4 || exponent >= 16) return std::string(text);
  std::array<char, 64> plain;
  const auto stop =
      std::to_chars(plain.data(), plain.data() + plain.size(), value, std::chars_format::fixed).ptr;
  std::string out(plain.data(), stop);
  if (!out.contains('.')) out += ".0";
  return out;
}

void append_text(Runtime& run, std::string& out, const Value& value) {
  if (!value.string()) {
    if (!value.undefined()) append_repr(run, out, value);
    return;
  }
  run.charge_bytes(value.text().size());
  run.check_size(out.size() + value.text().size());
  out += value.text();
}

void append_repr(Runtime& run, std::string& out, const Value& value) {
  run.charge(1);
  run.check_size(out.size());
  switch (value.kind()) {
    case Kind::kMissing:
    case Kind::kUndefined:
      out += "Undefined";
      break;
    case Kind::kNone:
      out += "None";
      break;
    case Kind::kBool:
      out += value.boolean() ? "True" : "False";
      break;
    case Kind::kInt:
      append_integer(out, value.integer());
      break;
    case Kind::kFloat:
      out += float_text(value.real());
      break;
    case Kind::kString:
      run.charge(value.text().size() / 4);
      if (value.is_safe()) out += "Markup(";
      append_quoted(out, value.text());
      if (value.is_safe()) out += ')';
      break;
    case Kind::kList:
    case Kind::kJsonArray:
      append_items(run, out, value, '[', ']');
      break;
    case Kind::kTuple:
      append_items(run, out, value, '(', ')');
      break;
    case Kind::kDict:
    case Kind::kJsonObject:
      append_dict(run, out, value);
      break;
    case Kind::kRange:
      append_range(out, value.as<Range>());
      break;
    case Kind::kView:
      append_view(run, out, value);
      break;
    case Kind::kNamespace:
      out += "<Namespace ";
      append_dict(run, out, Value::of(Kind::kDict, value.pointer()));
      out += '>';
      break;
    case Kind::kMacro:
      out += "<Macro ";
      append_quoted(out, macro_name(value));
      out += '>';
      break;
    default:
      out += std::format("<{} object>", type_name(value.kind()));
  }
}

std::string_view to_text(Runtime& run, const Value& value) {
  if (value.string()) return value.text();
  if (value.undefined()) return {};
  std::string out;
  append_text(run, out, value);
  return run.arena.copy(out);
}

std::string escape_html(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

// ---- JSON

namespace {

void append_json_character(std::string& out, std::string_view character, bool ensure_ascii) {
  const char c = character.front();
  switch (c) {
    case '"':
      out += "\\\"";
      return;
    case '\\':
      out += "\\\\";
      return;
    case '\n':
      out += "\\n";
      return;
    case '\r':
      out += "\\r";
      return;
    case '\t':
      out += "\\t";
      return;
    case '\f':
      out += "\\f";
      return;
    case '\b':
      out += "\\b";
      return;
    default:
      break;
  }
  const char32_t code = character_code(character);
  if (code < 0x20 || (ensure_ascii && code >= 0x7F && code < 0x10000 && code != 0x7F)) {
    out += std::format("\\u{:04x}", static_cast<unsigned>(code));
  } else if (ensure_ascii && code >= 0x10000) {
    const auto rest = static_cast<unsigned>(code) - 0x10000;
    out += std::format("\\u{:04x}\\u{:04x}", 0xD800 + (rest >> 10), 0xDC00 + (rest & 0x3FF));
  } else {
    out += character;
  }
}

void append_json_string(Runtime& run, std::string& out, std::string_view text, bool ensure_ascii) {
  run.charge_bytes(text.size());
  run.check_size(out.size() + text.size());
  out += '"';
  std::size_t plain = 0;  // where what needs no escape begins
  for (std::size_t at = 0; at < text.size();) {
    const auto byte = static_cast<unsigned char>(text[at]);
    if (byte >= 0x20 && byte != '"' && byte != '\\' && (byte < 0x80 || !ensure_ascii)) {
      ++at;
      continue;
    }
    out += text.substr(plain, at - plain);
    const std::size_t length = character_length(text.substr(at));
    append_json_character(out, text.substr(at, length), ensure_ascii);
    at += length;
    plain = at;
  }
  out += text.substr(plain);
  out += '"';
}

class JsonWriter {
 public:
  JsonWriter(Runtime& run, std::string& out, const JsonStyle& style)
      : run_(run), out_(out), style_(style) {}

  void write(const Value& value) {
    run_.charge(1);
    switch (value.kind()) {
      case Kind::kNone:
        out_ += "null";
        return;
      case Kind::kBool:
        out_ += value.boolean() ? "true" : "false";
        return;
      case Kind::kInt:
        append_integer(out_, value.integer());
        return;
      case Kind::kFloat:
        write_float(value.real());
        return;
      case Kind::kString:
        append_json_string(run_, out_, value.text(), style_.ensure_ascii);
        return;
      case Kind::kList:
      case Kind::kTuple:
        write_list(value);
        return;
      case Kind::kJsonArray:
        write_json_array(value.json_array());
        return;
      case Kind::kDict:
      case Kind::kJsonObject:
        write_dict(value);
        return;
      default:
        raise("Object of type {} is not JSON serializable", type_name(value.kind()));
    }
  }

 private:
  // An integer of the context that no value could hold.
  void write_json(const boost::json::value& json) {
    if (json.is_uint64() && std::cmp_greater(json.get_uint64(), INT64_MAX)) {
      out_ += std::to_string(json.get_uint64());
    } else {
      write(from_json(json));
    }
  }

  void write_float(double value) {
    if (std::isnan(value)) {
      out_ += "NaN";
    } else if (std::isinf(value)) {
      out_ += value < 0 ? "-Infinity" : "Infinity";
    } else {
      out_ += float_text(value);
    }
  }

  void new_line() {
    if (!style_.indented) return;
    run_.check_size(out_.size() + style_.indent.size() * level_);
    out_ += '\n';
    for (std::size_t i = 0; i < level_; ++i) out_ += style_.indent;
  }
  void begin_item(bool first) {
    if (!first) out_ += style_.item_separator;
    new_line();
  }

  void write_list(const Value& value) {
    const std::span<const Value> items = value.as_list().items;
    if (items.empty()) {
      out_ += "[]";
      return;
    }
    const Nested nested(run_);
    out_ += '[';
    ++level_;
    for (std::size_t i = 0; i < items.size(); ++i) {
      begin_item(i == 0);
      write(items[i]);
    }
    --level_;
    new_line();
    out_ += ']';
  }

  void write_json_array(const boost::json::array& array) {
    if (array.empty()) {
      out_ += "[]";
      return;
    }
    const Nested nested(run_);
    out_ += '[';
    ++level_;
    for (std::size_t i = 0; i < array.size(); ++i) {
      begin_item(i == 0);
      write_json(array[i]);
    }
    --level_;
    new_line();
    out_ += ']';
  }

  void write_key(const Value& key) {
    if (key.string()) {
      append_json_string(run_, out_, key.text(), style_.ensure_ascii);
    } else if (key.number() || key.is_none()) {
      out_ += '"';
      write(key);
      out_ += '"';
    } else {
      raise("keys must be str, int, float, bool or None, not {}", type_name(key.kind()));
    }
    out_ += style_.key_separator;
  }

  void write_dict(const Value& value) {
    if (dict_size(value) == 0) {
      out_ += "{}";
      return;
    }
    const Nested nested(run_);
    out_ += '{';
    ++level_;
    if (style_.sort_keys) {
      write_sorted(value);
    } else if (value.is(Kind::kJsonObject)) {
      bool first = true;
      for (const auto& pair : value.json_object()) {
        begin_item(first);
        write_key(Value(std::string_view(pair.key())));
        write_json(pair.value());
        first = false;
      }
    } else {
      bool first = true;
      for (const Entry& entry : value.as_dict().used()) {
        begin_item(first);
        write_key(entry.key);
        write(entry.value);
        first = false;
      }
    }
    --level_;
    new_line();
    out_ += '}';
  }

  void write_sorted(const Value& value) {
    std::vector<Entry> entries;
    Walk walk(run_, value);
    for (Entry entry; walk.next_pair(entry.key, entry.value);) entries.push_back(entry);
    std::ranges::stable_sort(
        entries, [&](const Entry& a, const Entry& b) { return compare(run_, a.key, b.key) == -1; });
    for (std::size_t i = 0; i < entries.size(); ++i) {
      begin_item(i == 0);
      write_key(entries[i].key);
      write(entries[i].value);
    }
  }

  Runtime& run_;
  std::string& out_;
  const JsonStyle& style_;
  std::size_t level_ = 0;
};

}  // namespace

void append_json(Runtime& run, std::string& out, const Value& value, const JsonStyle& style) {
  JsonWriter(run, out, style).write(value);
}

}  // namespace ollama::chat::jinja
