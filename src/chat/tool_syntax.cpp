#include "chat/tool_syntax.h"

#include <algorithm>
#include <array>
#include <boost/json/array.hpp>
#include <cctype>
#include <initializer_list>
#include <optional>

#include "chat/python_calls.h"

namespace ollama::chat {
namespace {

using Kind = CallReading::Kind;
using std::string_view;
constexpr std::size_t kEnd = string_view::npos;
constexpr string_view kJsonBlanks = " \t\r\n";
constexpr string_view kFence = "```";

string_view without_blanks(string_view text) {
  const std::size_t begin = text.find_first_not_of(kJsonBlanks);
  if (begin == kEnd) return {};
  return text.substr(begin, text.find_last_not_of(kJsonBlanks) - begin + 1);
}

bool consume(string_view& text, string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

CallReading calls_up_to(std::size_t length, std::vector<api::ToolCall> calls) {
  if (calls.empty()) return {};
  return {.kind = Kind::kCalls, .length = length, .calls = std::move(calls)};
}
CallReading texts_up_to(std::size_t length, api::ToolCall call) {
  CallReading reading = calls_up_to(length, {std::move(call)});
  reading.texts = true;
  return reading;
}
CallReading more_unless(bool ended) { return {.kind = ended ? Kind::kNone : Kind::kMore}; }
// Of what is not whole: kNone or kMore.
CallReading unfinished(Kind kind, bool ended) {
  return kind == Kind::kMore ? more_unless(ended) : CallReading();
}

// Of what a reader has given up: where nothing is left, more may come.
CallReading given_up(string_view rest, bool ended) {
  return rest.empty() ? more_unless(ended) : CallReading();
}

// Where `text` goes on behind blanks.
std::size_t past_blanks(string_view text, std::size_t at) {
  return std::min(text.find_first_not_of(kJsonBlanks, at), text.size());
}

// Whether one of the `marks` comes next, blanks apart; kMore: as far as it has come.
Kind comes(string_view text, std::initializer_list<string_view> marks) {
  text.remove_prefix(past_blanks(text, 0));
  Kind kind = Kind::kNone;
  for (const string_view mark : marks) {
    if (text.starts_with(mark)) return Kind::kCalls;
    if (mark.starts_with(text)) kind = Kind::kMore;
  }
  return kind;
}

// Calls up to `at`, with the mark that has to follow. Where the answer ends before the mark does,
// they are whole all the same.
CallReading closed_by(string_view close, string_view text, std::size_t at, bool ended,
                      std::vector<api::ToolCall> calls) {
  const Kind kind = comes(text.substr(at), {close});
  if (kind == Kind::kCalls) {
    return calls_up_to(past_blanks(text, at) + close.size(), std::move(calls));
  }
  if (kind == Kind::kNone) return {};
  return ended ? calls_up_to(text.size(), std::move(calls)) : more_unless(ended);
}

// Where a value ends: a mark that the call does not go on behind, with one of `next`, is part of
// it, and so are values within it. npos: that has not come.
std::size_t value_end(string_view text, std::size_t begin, string_view open, string_view close,
                      std::initializer_list<string_view> next, bool ended) {
  for (const bool nests : {true, false}) {
    std::size_t depth = 0;
    for (std::size_t at = text.find('<', begin); at != kEnd; at = text.find('<', at + 1)) {
      const string_view rest = text.substr(at);
      if (nests && rest.starts_with(open)) {
        ++depth;
      } else if (rest.starts_with(close) && depth > 0) {
        --depth;
      } else if (rest.starts_with(close) && comes(rest.substr(close.size()), next) != Kind::kNone) {
        return at;
      }
    }
    // What began like a value may have been a word.
    if (!ended) break;
  }
  return kEnd;
}

std::vector<api::ToolCall> parse_calls(string_view json) {
  const auto value = api::parse_json(json);
  return value ? calls_of(*value) : std::vector<api::ToolCall>();
}

// `text` without `rest`, its end, and without blanks before that.
std::size_t length_before(string_view rest, string_view text) {
  return text.substr(0, text.size() - rest.size()).find_last_not_of(kJsonBlanks) + 1;
}

// What JSON at the beginning of a text is.
struct Value {
  Kind kind = Kind::kNone;  // kCalls: it is whole
  std::size_t length = 0;
  api::Json json;
};
// Models write it as in Python as well: with None and True, with quotes of the other kind, lines
// that end within a text, or a comma behind the last member.
Value read_value(string_view text) {
  const std::size_t length = json_length(text);
  if (length == 0) return {.kind = Kind::kMore};
  if (length != kEnd) {
    if (auto json = api::parse_json(text.substr(0, length))) {
      return {.kind = Kind::kCalls, .length = length, .json = std::move(*json)};
    }
  }
  if (comes(text, {"{", "["}) != Kind::kCalls) return {};
  PythonReader reader(text);
  auto json = reader.value();
  if (!json) return {.kind = reader.rest().empty() ? Kind::kMore : Kind::kNone};
  return {
      .kind = Kind::kCalls, .length = length_before(reader.rest(), text), .json = std::move(*json)};
}

// Values that stand in text, quoted or not: what is JSON is that, the rest is a string.
api::Json value_of(string_view text) {
  if (auto value = api::parse_json(text)) return std::move(*value);
  return {text};
}

// ---- JSON, alone

// The first key tells whether an object can be a call, long before it ends.
bool may_be_call(string_view text) {
  static constexpr std::array<string_view, 10> kKeys{
      "name",         "function",  "type",       "id",   "tool_name",
      "tool_call_id", "arguments", "parameters", "args", "tool_calls"};
  std::size_t at = text.find_first_not_of(" \t\r\n[");
  if (at == kEnd) return true;
  if (text[at] != '{') return false;
  at = text.find_first_not_of(kJsonBlanks, at + 1);
  if (at == kEnd) return true;
  if (text[at] != '"') return false;
  const string_view key = text.substr(at + 1, text.find('"', at + 1) - at - 1);
  const bool whole = text.find('"', at + 1) != kEnd;
  return std::ranges::any_of(
      kKeys, [&](string_view known) { return whole ? known == key : known.starts_with(key); });
}

CallReading read_json(string_view text, bool ended) {
  if (!may_be_call(text)) return {};
  const Value value = read_value(text);
  if (value.kind != Kind::kCalls) return unfinished(value.kind, ended);
  return calls_up_to(value.length, calls_of(value.json));
}

// ---- Python's way: [f(a=1, b="x"), g()]

bool may_be_python(string_view text) {
  if (!consume(text, "[")) return false;
  const std::size_t at = text.find_first_not_of(kJsonBlanks);
  if (at == kEnd) return true;
  const auto c = static_cast<unsigned char>(text[at]);
  if (std::isalpha(c) == 0 && c != '_') return false;
  // A word in brackets is no call before its parenthesis comes.
  const std::size_t end = text.find_first_of("( ,]\"'", at);
  return end == kEnd || text[end] == '(';
}

CallReading read_python(string_view text, bool ended) {
  if (!may_be_python(text)) return {};
  PythonReader reader(text);
  if (auto calls = reader.calls()) {
    return calls_up_to(length_before(reader.rest(), text), std::move(*calls));
  }
  return given_up(reader.rest(), ended);
}

constexpr string_view kPythonTag = "<|python_tag|>";

CallReading read_llama(string_view text, bool ended) {
  string_view rest = text;
  consume(rest, kPythonTag);
  rest.remove_prefix(past_blanks(rest, 0));
  if (rest.empty()) return more_unless(ended);
  CallReading reading = may_be_python(rest) && !may_be_call(rest.substr(1))
                            ? read_python(rest, ended)
                            : read_json(rest, ended);
  reading.length += text.size() - rest.size();
  return reading;
}

// ---- Between <tool_call> and </tool_call>

constexpr string_view kOpen = "<tool_call>";
constexpr string_view kClose = "</tool_call>";

// JSON between two marks, each of which may stand in a string as well.
CallReading read_json_between(string_view open, string_view close, string_view text, bool ended) {
  std::vector<api::ToolCall> calls;
  std::size_t at = open.size();
  do {
    const Value value = read_value(text.substr(at));
    if (value.kind != Kind::kCalls) return unfinished(value.kind, ended);
    auto found = calls_of(value.json);
    if (found.empty()) return {};
    std::ranges::move(found, std::back_inserter(calls));
    at += value.length;
    // Some put several there.
    const std::size_t next = past_blanks(text, at);
    if (text.substr(next).starts_with(',')) at = next + 1;
  } while (comes(text.substr(at), {"{", "["}) == Kind::kCalls);
  return closed_by(close, text, at, ended, std::move(calls));
}

CallReading read_hermes(string_view text, bool ended) {
  return read_json_between(kOpen, kClose, text, ended);
}

constexpr string_view kFunction = "<function=";

// <function=f> <parameter=a> 1 </parameter> </function>, or several of them, between the marks. One
// of these may be missing.
class QwenCoder {
 public:
  QwenCoder(string_view text, bool ended) : text_(text), ended_(ended) {}

  CallReading read() {
    if (text_.starts_with(kOpen)) at_ = kOpen.size();
    std::vector<api::ToolCall> calls;
    Kind more = Kind::kCalls;
    while (more == Kind::kCalls) {
      api::ToolCall call;
      const Kind kind = function(call);
      if (kind != Kind::kCalls) return unfinished(kind, ended_);
      calls.push_back(std::move(call));
      more = comes(text_.substr(at_), {kFunction});
    }
    if (more == Kind::kMore && !ended_) return {.kind = Kind::kMore};
    const bool open = text_.starts_with(kOpen) && comes(text_.substr(at_), {kClose}) == Kind::kNone;
    CallReading reading = open ? calls_up_to(at_, std::move(calls))
                               : closed_by(kClose, text_, at_, ended_, std::move(calls));
    reading.texts = true;
    return reading;
  }

 private:
  static constexpr string_view kFunctionEnd = "</function>";
  static constexpr string_view kParameter = "<parameter=";
  static constexpr string_view kParameterEnd = "</parameter>";

  Kind function(api::ToolCall& call) {
    if (const Kind kind = take(kFunction); kind != Kind::kCalls) return kind;
    string_view word;
    if (const Kind kind = name(word); kind != Kind::kCalls) return kind;
    call.name = word;
    while (true) {
      const Kind kind = comes(text_.substr(at_), {kParameter, kFunctionEnd, kClose});
      if (kind != Kind::kCalls) return kind;
      if (take(kParameter) != Kind::kCalls) break;
      if (const Kind named = name(word); named != Kind::kCalls) return named;
      string_view found;
      if (const Kind valued = value(found); valued != Kind::kCalls) return valued;
      consume(found, "\n");
      if (found.ends_with('\n')) found.remove_suffix(1);
      call.arguments[word] = found;
    }
    take(kFunctionEnd);
    return Kind::kCalls;
  }
  Kind take(string_view mark) {
    const Kind kind = comes(text_.substr(at_), {mark});
    if (kind == Kind::kCalls) at_ = past_blanks(text_, at_) + mark.size();
    return kind;
  }
  // Up to the end of the mark that it is in.
  Kind name(string_view& word) {
    const std::size_t end = text_.find_first_of("<>\n", at_);
    if (end == kEnd) return Kind::kMore;
    if (text_[end] != '>') return Kind::kNone;
    word = without_blanks(text_.substr(at_, end - at_));
    at_ = end + 1;
    return Kind::kCalls;
  }

  // Any mark may stand in a value: it ends with the </parameter> that the call goes on behind.
  // Some leave that out. Then the next parameter ends it, or the end of the function, which is
  // certain only where no </parameter> comes before another function. `nests`: calls in the value
  // are passed over.
  Kind value(string_view& found, bool nests = true) {
    const std::size_t begin = at_;
    std::size_t end_of_function = kEnd;
    std::size_t depth = 0;
    bool nested = false;
    const auto ends = [&](std::size_t end, std::size_t next) {
      found = text_.substr(begin, end - begin);
      at_ = next;
      return Kind::kCalls;
    };
    for (std::size_t at = text_.find('<', begin); at != kEnd; at = text_.find('<', at + 1)) {
      const string_view rest = text_.substr(at);
      const auto goes_on = [&](string_view mark, std::initializer_list<string_view> next) {
        return comes(rest.substr(mark.size()), next) != Kind::kNone;
      };
      if (nests && rest.starts_with(kFunction)) {
        if (end_of_function != kEnd) return ends(end_of_function, end_of_function);
        ++depth;
        nested = true;
      } else if (depth > 0) {
        if (rest.starts_with(kFunctionEnd)) --depth;
      } else if (rest.starts_with(kParameterEnd)) {
        if (goes_on(kParameterEnd, {kParameter, kFunctionEnd, kClose})) {
          return ends(at, at + kParameterEnd.size());
        }
        // Whose it is cannot be known.
        if (lacks_end_) return Kind::kNone;
      } else if (rest.starts_with(kFunctionEnd)) {
        const bool first = end_of_function == kEnd;
        if (first && goes_on(kFunctionEnd, {kClose, kFunction})) end_of_function = at;
      } else if (rest.starts_with(kParameter)) {
        if (end_of_function != kEnd) return ends(end_of_function, end_of_function);
        const std::size_t name_end = rest.find_first_of("<>\n", kParameter.size());
        if (name_end == kEnd || name_end + 1 == rest.size()) return Kind::kMore;
        // As they are written: on a line of its own.
        if (text_[at - 1] == '\n' && rest.substr(name_end).starts_with(">\n")) {
          lacks_end_ = true;
          return ends(at, at);
        }
      }
    }
    if (!ended_) return Kind::kMore;
    if (end_of_function != kEnd) return ends(end_of_function, end_of_function);
    // What began like a call may have been a word.
    return nested ? value(found, false) : Kind::kNone;
  }

  string_view text_;
  bool ended_;
  std::size_t at_ = 0;
  bool lacks_end_ = false;  // a value without </parameter> has come
};

CallReading read_qwen_coder(string_view text, bool ended) {
  if (text.starts_with(kOpen) && comes(text.substr(kOpen.size()), {kFunction}) == Kind::kNone) {
    return read_hermes(text, ended);
  }
  return QwenCoder(text, ended).read();
}

CallReading read_glm(string_view text, bool ended) {
  static constexpr string_view kKey = "<arg_key>";
  static constexpr string_view kKeyEnd = "</arg_key>";
  static constexpr string_view kValue = "<arg_value>";
  static constexpr string_view kValueEnd = "</arg_value>";
  std::size_t at = past_blanks(text, kOpen.size());
  const std::size_t name_end = text.find_first_of(" \t\r\n<", at);
  // Without the last mark more arguments may have followed.
  if (name_end == kEnd) return more_unless(ended);
  api::ToolCall call;
  call.name = text.substr(at, name_end - at);
  at = past_blanks(text, name_end);
  while (text.substr(at).starts_with(kKey)) {
    at += kKey.size();
    const std::size_t key_end = text.find(kKeyEnd, at);
    if (key_end == kEnd) return more_unless(ended);
    const string_view key = without_blanks(text.substr(at, key_end - at));
    at = past_blanks(text, key_end + kKeyEnd.size());
    const Kind valued = comes(text.substr(at), {kValue});
    if (valued != Kind::kCalls) return unfinished(valued, ended);
    at += kValue.size();
    const std::size_t end = value_end(text, at, kValue, kValueEnd, {kKey, kClose}, ended);
    if (end == kEnd) return more_unless(ended);
    call.arguments[key] = text.substr(at, end - at);
    at = past_blanks(text, end + kValueEnd.size());
  }
  const Kind kind = comes(text.substr(at), {kClose, kKey});
  if (kind == Kind::kMore) return more_unless(ended);
  return kind == Kind::kNone ? CallReading() : texts_up_to(at + kClose.size(), std::move(call));
}

// ---- Gemma: call:f{key:value,...}, texts between marks of their own

class Keyed {
 public:
  Keyed(string_view text, string_view quote) : rest_(text), quote_(quote) {}

  // nullopt: it is none, or where it has come to an end, not all of it.
  std::optional<api::ToolCall> call() {
    skip();
    if (!take("call:")) return std::nullopt;
    const auto name = word("{");
    if (!name) return std::nullopt;
    api::ToolCall result;
    result.name = without_blanks(*name);
    auto arguments = object(0);
    if (!arguments) return std::nullopt;
    result.arguments = std::move(*arguments);
    return result;
  }
  string_view rest() const { return rest_; }

 private:
  static constexpr int kDeepest = 32;
  static constexpr std::size_t kLongestWord = 1024;  // a name, a key, a number

  std::optional<api::JsonObject> object(int depth) {
    rest_.remove_prefix(1);
    api::JsonObject result;
    while (true) {
      skip();
      if (take("}")) return result;
      std::optional<std::string> key = at_text() ? text() : word(":");
      if (!key || !take(":")) return std::nullopt;
      auto member = value(depth + 1);
      if (!member) return std::nullopt;
      result[without_blanks(*key)] = std::move(*member);
      skip();
      if (!take(",") && !rest_.starts_with('}')) return std::nullopt;
    }
  }
  std::optional<api::Json> value(int depth) {
    skip();
    if (depth > kDeepest || rest_.empty()) return std::nullopt;
    if (rest_.front() == '{') {
      auto members = object(depth);
      return members ? std::optional<api::Json>(std::move(*members)) : std::nullopt;
    }
    if (rest_.front() == '[') return list(depth);
    if (at_text()) {
      auto found = text();
      return found ? std::optional<api::Json>(std::string_view(*found)) : std::nullopt;
    }
    const auto bare = word(",}]");
    return bare ? std::optional(value_of(without_blanks(*bare))) : std::nullopt;
  }
  std::optional<api::Json> list(int depth) {
    rest_.remove_prefix(1);
    boost::json::array result;
    while (true) {
      skip();
      if (take("]")) return result;
      auto item = value(depth + 1);
      if (!item) return std::nullopt;
      result.push_back(std::move(*item));
      skip();
      if (!take(",") && !rest_.starts_with(']')) return std::nullopt;
    }
  }
  bool at_text() const { return rest_.starts_with(quote_) || rest_.starts_with('"'); }
  std::optional<std::string> text() {
    const bool marked = rest_.starts_with(quote_);
    const std::size_t size = marked ? quote_.size() : 1;
    const std::size_t end = marked ? rest_.find(quote_, size) : end_of_json_text();
    if (end >= rest_.size()) {
      rest_ = {};
      return std::nullopt;
    }
    std::string result(rest_.substr(size, end - size));
    if (!marked) {
      const auto json = api::parse_json(rest_.substr(0, end + size));
      if (json && json->is_string()) result = json->get_string();
    }
    rest_.remove_prefix(end + size);
    return result;
  }
  // The quote that ends it.
  std::size_t end_of_json_text() const {
    std::size_t at = 1;
    while (at < rest_.size() && rest_[at] != '"') at += rest_[at] == '\\' ? 2 : 1;
    return at;
  }
  // Up to one of the `ends`.
  std::optional<std::string> word(string_view ends) {
    const std::size_t end = rest_.substr(0, kLongestWord).find_first_of(ends);
    if (end == kEnd && rest_.size() >= kLongestWord) return std::nullopt;
    if (end == kEnd) {
      rest_ = {};
      return std::nullopt;
    }
    std::string result(rest_.substr(0, end));
    rest_.remove_prefix(end);
    return result;
  }
  void skip() { rest_.remove_prefix(std::min(rest_.find_first_not_of(kJsonBlanks), rest_.size())); }
  bool take(string_view mark) {
    // What may still become the mark is an end.
    if (rest_.size() < mark.size() && mark.starts_with(rest_)) {
      rest_ = {};
      return false;
    }
    return consume(rest_, mark);
  }

  string_view rest_;
  string_view quote_;
};

CallReading read_keyed(string_view text, bool ended, string_view open, string_view close,
                       string_view quote) {
  Keyed reader(text.substr(open.size()), quote);
  auto call = reader.call();
  if (!call) return given_up(reader.rest(), ended);
  string_view rest = reader.rest();
  rest.remove_prefix(std::min(rest.find_first_not_of(kJsonBlanks), rest.size()));
  if (rest.size() < close.size() && close.starts_with(rest) && !ended) return {.kind = Kind::kMore};
  // A call without its end is one.
  consume(rest, close.substr(0, rest.size()));
  return calls_up_to(text.size() - rest.size(), {std::move(*call)});
}

constexpr string_view kGemmaOpen = "<|tool_call>";
constexpr string_view kGemmaClose = "<tool_call|>";
constexpr string_view kFunctionOpen = "<start_function_call>";
constexpr string_view kFunctionClose = "<end_function_call>";

CallReading read_gemma(string_view text, bool ended) {
  return read_keyed(text, ended, kGemmaOpen, kGemmaClose, "<|\"|>");
}
CallReading read_function_gemma(string_view text, bool ended) {
  return read_keyed(text, ended, kFunctionOpen, kFunctionClose, "<escape>");
}

// ---- LFM2 and Olmo 3: Python's calls between marks

constexpr string_view kLfmOpen = "<|tool_call_start|>";
constexpr string_view kLfmClose = "<|tool_call_end|>";
constexpr string_view kOlmoOpen = "<function_calls>";
constexpr string_view kOlmoClose = "</function_calls>";

CallReading read_python_between(string_view open, string_view close, string_view text, bool ended) {
  std::vector<api::ToolCall> calls;
  std::size_t at = past_blanks(text, open.size());
  while (at < text.size() && text[at] != '<') {
    PythonReader reader(text.substr(at));
    auto found = reader.calls(true);
    if (!found) return given_up(reader.rest(), ended);
    std::ranges::move(*found, std::back_inserter(calls));
    at = text.size() - reader.rest().size();
  }
  return closed_by(close, text, at, ended, std::move(calls));
}

CallReading read_lfm(string_view text, bool ended) {
  if (!text.starts_with(kLfmOpen)) return read_python(text, ended);
  const string_view inside = text.substr(kLfmOpen.size());
  const std::size_t at = inside.find_first_not_of(" \t\r\n[");
  if (at == kEnd) return more_unless(ended);
  const auto read = inside[at] == '{' ? read_json_between : read_python_between;
  return read(kLfmOpen, kLfmClose, text, ended);
}

CallReading read_olmo(string_view text, bool ended) {
  return read_python_between(kOlmoOpen, kOlmoClose, text, ended);
}

CallReading read_nothing(string_view /*text*/, bool /*ended*/) { return {}; }

// ---- Mistral

constexpr string_view kToolCalls = "[TOOL_CALLS]";

// f[ARGS]{...} or f{...}; "f[CALL_ID]x" has an id that nobody needs.
CallReading read_named(string_view text, bool ended) {
  static constexpr string_view kId = "[CALL_ID]";
  static constexpr string_view kArguments = "[ARGS]";
  std::size_t at = text.find_first_of(" \t\r\n[{");
  if (at == kEnd) return more_unless(ended);
  api::ToolCall call;
  call.name = text.substr(0, at);
  const Kind kind = comes(text.substr(at), {kId, kArguments, "{"});
  if (kind != Kind::kCalls) return unfinished(kind, ended);
  at = past_blanks(text, at);
  if (text.substr(at).starts_with(kId)) {
    at = text.find_first_of("[{", at + kId.size());
    if (at == kEnd) return more_unless(ended);
  }
  const Kind marked = comes(text.substr(at), {kArguments, "{"});
  if (marked != Kind::kCalls) return unfinished(marked, ended);
  if (text.substr(at).starts_with(kArguments)) at += kArguments.size();
  const Value value = read_value(text.substr(at));
  if (value.kind != Kind::kCalls) return unfinished(value.kind, ended);
  if (!value.json.is_object()) return {};
  call.arguments = value.json.get_object();
  return calls_up_to(at + value.length, {std::move(call)});
}

CallReading read_mistral(string_view text, bool ended) {
  string_view rest = text;
  consume(rest, kToolCalls);
  const std::size_t blanks = std::min(rest.find_first_not_of(kJsonBlanks), rest.size());
  rest.remove_prefix(blanks);
  if (rest.empty()) return more_unless(ended);
  CallReading reading =
      rest.front() == '[' || rest.front() == '{' ? read_json(rest, ended) : read_named(rest, ended);
  reading.length += text.size() - rest.size();
  return reading;
}

// ---- DeepSeek

constexpr string_view kCallsBegin = "<｜tool▁calls▁begin｜>";
constexpr string_view kCallsEnd = "<｜tool▁calls▁end｜>";
constexpr string_view kCallBegin = "<｜tool▁call▁begin｜>";
constexpr string_view kCallEnd = "<｜tool▁call▁end｜>";
constexpr string_view kCallSeparator = "<｜tool▁sep｜>";

// "function<sep>name\n```json\n{...}\n```", or "name<sep>{...}", between the marks of a call.
CallReading read_deepseek_call(string_view text, bool ended) {
  const std::size_t separator = text.find(kCallSeparator);
  const std::size_t brace = text.find('{');
  const std::size_t end = text.find(kCallEnd);
  if (brace == kEnd && end == kEnd) return more_unless(ended);
  if (brace > end || separator > brace) return {};
  const string_view before =
      without_blanks(text.substr(kCallBegin.size(), separator - kCallBegin.size()));
  string_view between = text.substr(0, brace).substr(separator + kCallSeparator.size());
  const string_view named = without_blanks(between.substr(0, between.find(kFence)));
  const Value value = read_value(text.substr(brace));
  if (value.kind != Kind::kCalls) return unfinished(value.kind, ended);
  api::ToolCall call;
  call.name = named.empty() ? before : named;
  call.arguments = value.json.get_object();
  std::size_t at = brace + value.length;
  const Kind fenced = comes(text.substr(at), {kFence});
  if (fenced == Kind::kMore) {
    return ended ? calls_up_to(text.size(), {std::move(call)}) : more_unless(ended);
  }
  if (fenced == Kind::kCalls) at = past_blanks(text, at) + kFence.size();
  return closed_by(kCallEnd, text, at, ended, {std::move(call)});
}

CallReading read_deepseek(string_view text, bool ended) {
  if (text.starts_with(kCallBegin)) return read_deepseek_call(text, ended);
  std::vector<api::ToolCall> calls;
  std::size_t at = kCallsBegin.size();
  while (true) {
    const Kind kind = comes(text.substr(at), {kCallBegin, kCallsEnd});
    if (kind == Kind::kMore) {
      return ended ? calls_up_to(text.size(), std::move(calls)) : more_unless(ended);
    }
    // What else comes is not theirs.
    if (kind == Kind::kNone) return calls_up_to(at, std::move(calls));
    at = past_blanks(text, at);
    if (text.substr(at).starts_with(kCallsEnd)) {
      return calls_up_to(at + kCallsEnd.size(), std::move(calls));
    }
    CallReading one = read_deepseek_call(text.substr(at), ended);
    if (one.kind != Kind::kCalls) return one;
    std::ranges::move(one.calls, std::back_inserter(calls));
    at += one.length;
  }
}

// ---- Command-R

constexpr string_view kAction = "Action:";
constexpr string_view kActionBegin = "<|START_ACTION|>";
constexpr string_view kActionEnd = "<|END_ACTION|>";

CallReading read_command_r(string_view text, bool ended) {
  if (text.starts_with(kActionBegin)) {
    return read_json_between(kActionBegin, kActionEnd, text, ended);
  }
  string_view rest = text.substr(kAction.size());
  const std::size_t fence = rest.find_first_not_of(kJsonBlanks);
  if (fence == kEnd) return more_unless(ended);
  rest.remove_prefix(fence);
  if (!rest.starts_with(kFence)) {
    return kFence.starts_with(rest) ? more_unless(ended) : CallReading();
  }
  const std::size_t list = rest.find_first_of("[{");
  if (list == kEnd) return more_unless(ended);
  const std::size_t length = json_length(rest.substr(list));
  if (length == kEnd) return {};
  if (length == 0) return more_unless(ended);
  const std::size_t close = rest.find(kFence, list + length);
  if (close == kEnd && !ended) return {.kind = Kind::kMore};
  std::vector<api::ToolCall> calls = parse_calls(rest.substr(list, length));
  // It answers the user by such a call as well.
  std::erase_if(calls, [](const api::ToolCall& call) { return call.name == "directly-answer"; });
  const std::size_t end = close == kEnd ? rest.size() : close + kFence.size();
  return calls_up_to(text.size() - rest.size() + end, std::move(calls));
}

constexpr std::array<string_view, 1> kLlamaOpeners{kPythonTag};
constexpr std::array<string_view, 1> kTagOpeners{kOpen};
constexpr std::array<string_view, 2> kQwenCoderOpeners{kOpen, kFunction};
constexpr std::array<string_view, 1> kMistralOpeners{kToolCalls};
constexpr std::array<string_view, 2> kDeepSeekOpeners{kCallsBegin, kCallBegin};
constexpr std::array<string_view, 2> kCommandROpeners{kActionBegin, kAction};
constexpr std::array<string_view, 4> kCommandRSilent{"<|START_TEXT|>", "<|END_TEXT|>",
                                                     "<|START_RESPONSE|>", "<|END_RESPONSE|>"};
constexpr std::array<string_view, 1> kGemmaOpeners{kGemmaOpen};
constexpr std::array<string_view, 2> kGemmaSilent{kGemmaClose, "<|tool_response>"};
constexpr std::array<string_view, 1> kFunctionOpeners{kFunctionOpen};
constexpr std::array<string_view, 1> kFunctionSilent{"<start_function_response>"};
constexpr std::array<string_view, 1> kLfmOpeners{kLfmOpen};
constexpr std::array<string_view, 1> kOlmoOpeners{kOlmoOpen};
constexpr std::array<string_view, 1> kTagClosers{kClose};
constexpr std::array<string_view, 2> kQwenCoderClosers{kClose, "</function>"};
constexpr std::array<string_view, 2> kDeepSeekClosers{kCallsEnd, kCallEnd};
constexpr std::array<string_view, 1> kCommandRClosers{kActionEnd};
constexpr std::array<string_view, 1> kGemmaClosers{kGemmaClose};
constexpr std::array<string_view, 1> kFunctionClosers{kFunctionClose};
constexpr std::array<string_view, 1> kLfmClosers{kLfmClose};
constexpr std::array<string_view, 1> kOlmoClosers{kOlmoClose};
constexpr string_view kJsonQuotes = "\"";
constexpr string_view kPythonQuotes = "\"'";

// null, "" and [] stand for no arguments.
bool is_nothing(const api::Json& value) {
  if (const auto* text = value.if_string()) return without_blanks(*text).empty();
  const auto* list = value.if_array();
  return value.is_null() || (list != nullptr && list->empty());
}

bool has_type(const api::JsonObject& object, string_view type) {
  const auto* value = object.if_contains("type");
  const auto* text = value == nullptr ? nullptr : value->if_string();
  return text != nullptr && *text == type;
}

// Where a model repeats how a tool is defined.
bool is_schema(const api::JsonObject& object) {
  const auto* properties = object.if_contains("properties");
  return has_type(object, "object") && properties != nullptr && properties->is_object();
}

// What an object says of arguments, in any of the spellings; kNone: that there are none.
enum class Arguments : std::uint8_t { kMissing, kNone, kGiven, kWrong };
Arguments arguments_of(const api::JsonObject& object, api::JsonObject& arguments) {
  Arguments found = Arguments::kMissing;
  for (const string_view key : {"arguments", "parameters", "args"}) {
    const auto* value = object.if_contains(key);
    if (value == nullptr) continue;
    if (is_nothing(*value)) {
      found = Arguments::kNone;
      continue;
    }
    // Some write them as a text.
    const auto parsed =
        value->is_string() ? api::parse_json(value->get_string()) : Result<api::Json>(*value);
    if (parsed && is_nothing(*parsed)) return Arguments::kNone;
    if (!parsed || !parsed->is_object()) return Arguments::kWrong;
    if (key == "parameters" && is_schema(parsed->get_object())) return Arguments::kWrong;
    arguments = parsed->get_object();
    return Arguments::kGiven;
  }
  return found;
}

// An object in any of the spellings.
std::optional<api::ToolCall> call_of(const api::JsonObject& object) {
  const auto* function = object.if_contains("function");
  const auto* inner = function == nullptr ? nullptr : function->if_object();
  const api::JsonObject& named = inner == nullptr ? object : *inner;
  api::ToolCall call;
  for (const char* key : {"name", "tool_name", "function"}) {
    const auto* value = named.if_contains(key);
    if (value != nullptr && value->is_string() && call.name.empty())
      call.name = value->get_string();
  }
  if (call.name.empty()) return std::nullopt;
  Arguments found = arguments_of(named, call.arguments);
  // Beside the function as well.
  if (found == Arguments::kMissing && inner != nullptr) {
    found = arguments_of(object, call.arguments);
  }
  if (found == Arguments::kWrong) return std::nullopt;
  if (found != Arguments::kMissing) return call;
  // Nothing but a name is a call without arguments only where nothing else is said, or that it is a
  // call.
  const bool says_so = named.contains("tool_name") || has_type(named, "function");
  if (named.size() == 1 || (says_so && !named.contains("description"))) return call;
  return std::nullopt;
}

// What a schema's "type", or the branches of its "anyOf", allow; empty: anything.
std::vector<std::string_view> schema_types(const api::Json* schema) {
  std::vector<std::string_view> types;
  const auto* object = schema == nullptr ? nullptr : schema->if_object();
  if (object == nullptr) return types;
  if (const auto* branches = object->if_contains("anyOf"); branches && branches->is_array()) {
    for (const api::Json& branch : branches->get_array()) {
      const auto type = branch.try_at_pointer("/type");
      if (type && type->is_string()) types.emplace_back(type->get_string());
    }
    return types;
  }
  const auto* type = object->if_contains("type");
  if (type != nullptr && type->is_string()) types.emplace_back(type->get_string());
  if (type != nullptr && type->is_array()) {
    for (const api::Json& each : type->get_array()) {
      if (each.is_string()) types.emplace_back(each.get_string());
    }
  }
  return types;
}

string_view json_type_of(const api::Json& value) {
  if (value.is_null()) return "null";
  if (value.is_bool()) return "boolean";
  if (value.is_int64() || value.is_uint64()) return "integer";
  if (value.is_number()) return "number";
  if (value.is_array()) return "array";
  return value.is_object() ? "object" : "string";
}

api::Json typed(string_view text, const std::vector<string_view>& types) {
  const string_view bare = without_blanks(text);
  if (types.empty()) return value_of(bare);
  const auto allows = [&](string_view type) { return std::ranges::contains(types, type); };
  // As Python writes them.
  if (allows("boolean") && (bare == "True" || bare == "False")) return bare == "True";
  if (bare == "None" && allows("null")) return nullptr;
  auto value = api::parse_json(bare);
  if (value && !value->is_string()) {
    const string_view type = json_type_of(*value);
    if (allows(type) || (type == "integer" && allows("number"))) return std::move(*value);
  }
  // Texts in quotes where something else was asked for.
  if (value && value->is_string() && !allows("string")) return std::move(*value);
  return {text};
}

}  // namespace

void give_types(api::ToolCall& call, const api::Json& definitions) {
  const api::Json* properties = nullptr;
  if (const auto* list = definitions.if_array()) {
    for (const api::Json& tool : *list) {
      boost::system::error_code none;
      const auto* name = tool.find_pointer("/function/name", none);
      if (name == nullptr || *name != api::Json(std::string_view(call.name))) continue;
      properties = tool.find_pointer("/function/parameters/properties", none);
      break;
    }
  }
  const auto* known = properties == nullptr ? nullptr : properties->if_object();
  for (auto& [name, value] : call.arguments) {
    if (!value.is_string()) continue;
    const std::string text(value.get_string());
    value = typed(text, schema_types(known == nullptr ? nullptr : known->if_contains(name)));
  }
}

std::vector<api::ToolCall> calls_of(const api::Json& json) {
  std::vector<api::ToolCall> calls;
  const auto add = [&](const api::Json& value) {
    const auto* object = value.if_object();
    auto call = object == nullptr ? std::nullopt : call_of(*object);
    if (call) calls.push_back(std::move(*call));
    return call.has_value();
  };
  // Some write the answer's message.
  const auto* object = json.if_object();
  const auto* wrapped =
      object != nullptr && object->size() == 1 ? object->if_contains("tool_calls") : nullptr;
  if (const auto* list = wrapped == nullptr ? json.if_array() : wrapped->if_array()) {
    if (!std::ranges::all_of(*list, add)) calls.clear();
  } else {
    add(json);
  }
  return calls;
}

std::size_t json_length(string_view text) {
  const std::size_t begin = text.find_first_not_of(kJsonBlanks);
  if (begin == kEnd) return 0;
  if (text[begin] != '{' && text[begin] != '[') return kEnd;
  static constexpr string_view kBetween = " \t\r\n,:+-.";
  std::size_t depth = 0;
  bool quoted = false;
  for (std::size_t i = begin; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        quoted = false;
      } else if (static_cast<unsigned char>(c) < 0x20) {
        return kEnd;
      }
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if (c == '}' || c == ']') {
      if (--depth == 0) return i + 1;
    } else if (std::isalnum(static_cast<unsigned char>(c)) == 0 && !kBetween.contains(c)) {
      return kEnd;
    }
  }
  return 0;
}

const CallSyntax& call_syntax(ToolSyntax syntax) {
  static constexpr CallSyntax kJson{
      .openers = {}, .bare = true, .read = read_json, .quotes = kJsonQuotes};
  static constexpr CallSyntax kLlama{
      .openers = kLlamaOpeners, .bare = true, .read = read_llama, .quotes = kPythonQuotes};
  static constexpr CallSyntax kHermes{
      .openers = kTagOpeners, .read = read_hermes, .closers = kTagClosers};
  static constexpr CallSyntax kQwenCoder{
      .openers = kQwenCoderOpeners, .read = read_qwen_coder, .closers = kQwenCoderClosers};
  static constexpr CallSyntax kGlm{
      .openers = kTagOpeners, .read = read_glm, .closers = kTagClosers};
  static constexpr CallSyntax kMistral{
      .openers = kMistralOpeners, .bare = true, .read = read_mistral, .quotes = kJsonQuotes};
  static constexpr CallSyntax kDeepSeek{
      .openers = kDeepSeekOpeners, .read = read_deepseek, .closers = kDeepSeekClosers};
  static constexpr CallSyntax kCommandR{.openers = kCommandROpeners,
                                        .read = read_command_r,
                                        .silent = kCommandRSilent,
                                        .closers = kCommandRClosers,
                                        .quotes = kJsonQuotes};
  static constexpr CallSyntax kGemma{.openers = kGemmaOpeners,
                                     .read = read_gemma,
                                     .silent = kGemmaSilent,
                                     .closers = kGemmaClosers};
  static constexpr CallSyntax kFunctionGemma{.openers = kFunctionOpeners,
                                             .read = read_function_gemma,
                                             .silent = kFunctionSilent,
                                             .closers = kFunctionClosers};
  static constexpr CallSyntax kLfm{.openers = kLfmOpeners,
                                   .bare = true,
                                   .read = read_lfm,
                                   .closers = kLfmClosers,
                                   .quotes = kPythonQuotes};
  static constexpr CallSyntax kOlmo{
      .openers = kOlmoOpeners, .read = read_olmo, .closers = kOlmoClosers};
  static constexpr CallSyntax kNone{.openers = {}, .read = read_nothing};
  switch (syntax) {
    case ToolSyntax::kLlama:
      return kLlama;
    case ToolSyntax::kHermes:
      return kHermes;
    case ToolSyntax::kQwenCoder:
      return kQwenCoder;
    case ToolSyntax::kGlm:
      return kGlm;
    case ToolSyntax::kMistral:
      return kMistral;
    case ToolSyntax::kDeepSeek:
      return kDeepSeek;
    case ToolSyntax::kCommandR:
      return kCommandR;
    case ToolSyntax::kGemma:
      return kGemma;
    case ToolSyntax::kFunctionGemma:
      return kFunctionGemma;
    case ToolSyntax::kLfm:
      return kLfm;
    case ToolSyntax::kOlmo:
      return kOlmo;
    case ToolSyntax::kNone:
      return kNone;
    case ToolSyntax::kJson:
    case ToolSyntax::kHarmony:
      break;
  }
  return kJson;
}

}  // namespace ollama::chat
