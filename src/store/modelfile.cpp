#include "store/modelfile.h"

#include <algorithm>
#include <array>
#include <boost/json/array.hpp>
#include <format>
#include <iterator>

#include "base/log.h"

namespace ollama::store {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kMaxSize = std::size_t{64} << 20;
constexpr std::string_view kTripleQuote = "\"\"\"";
constexpr std::array<std::string_view, 11> kCommands = {
    "from",   "license", "template", "system",  "adapter",  "renderer",
    "parser", "draft",   "requires", "message", "parameter"};
// Options that older models set and that mean nothing any more.
constexpr std::array<std::string_view, 11> kRetired = {
    "penalize_newline", "low_vram", "f16_kv",       "logits_all",   "vocab_only", "use_mlock",
    "mirostat",         "numa",     "mirostat_tau", "mirostat_eta", "tfs_z"};

bool is_blank(char c) { return c == ' ' || c == '\t'; }
bool is_line_end(char c) { return c == '\n' || c == '\r'; }

std::string lower(std::string_view text) {
  std::string result(text);
  std::ranges::transform(result, result.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return result;
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\v\f";
  const std::size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

// The text without its quotes; nullopt while the quotes are open.
std::optional<std::string_view> unquote(std::string_view text) {
  if (text.starts_with(kTripleQuote)) {
    if (text.size() < 6 || !text.ends_with(kTripleQuote)) return std::nullopt;
    return text.substr(3, text.size() - 6);
  }
  if (text.starts_with('"')) {
    if (text.size() < 2 || !text.ends_with('"')) return std::nullopt;
    return text.substr(1, text.size() - 2);
  }
  return text;
}

// A value that is being read: tells at which line end it is complete. Looks at the text only when a
// quote was its last character, so that a file of line ends takes no quadratic time.
class Value {
 public:
  void add(char c) {
    raw_ += c;
    if (is_blank(c) || is_line_end(c)) return;
    if (first_ == 0) first_ = c;
    maybe_closed_ = c == '"';
  }
  // To be asked at a line's end, and at the end of the text.
  std::optional<std::string_view> finished() {
    if (first_ == '"' && !maybe_closed_) return std::nullopt;
    maybe_closed_ = false;
    return unquote(trim(raw_));
  }

 private:
  std::string raw_;
  char first_ = 0;
  bool maybe_closed_ = false;
};

// Does `quote` + text + `quote` end where it should, and not at the end of an earlier line?
bool can_quote(std::string_view text, std::string_view quote) {
  Value value;
  for (const char c : quote) value.add(c);
  for (const char c : text) {
    if (is_line_end(c) && value.finished()) return false;
    value.add(c);
  }
  // """ opens the longer form.
  return quote.size() == 3 || !text.starts_with("\"\"");
}

std::string with_quotes(std::string_view text) {
  const bool plain = !text.empty() && text.find_first_of("\r\n") == std::string_view::npos &&
                     trim(text) == text && text.front() != '"';
  if (plain) return std::string(text);
  const bool single = text.find('"') == std::string_view::npos || !can_quote(text, kTripleQuote);
  const std::string quote(single && can_quote(text, "\"") ? "\"" : kTripleQuote);
  return quote + std::string(text) + quote;
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Result<Modelfile> parse() {
    while (skip_to_command()) {
      OLLAMA_TRY(parse_command());
    }
    const bool has_from = std::ranges::any_of(
        file_.commands, [](const Command& command) { return command.name == "from"; });
    if (!has_from) return fail(ErrorCode::kInvalidArgument, "no FROM line");
    return std::move(file_);
  }

 private:
  template <typename... Args>
  std::unexpected<Error> error(std::format_string<Args...> format, Args&&... args) const {
    return fail(ErrorCode::kInvalidArgument, "(line {}): {}", start_,
                std::format(format, std::forward<Args>(args)...));
  }

  bool at_end() const { return at_ == text_.size(); }

  char next() {
    const char c = text_[at_++];
    // "\r\n" is one line end.
    if (c == '\n' || (c == '\r' && (at_end() || text_[at_] != '\n'))) ++line_;
    return c;
  }

  // Past blanks, line ends and comments; false at the end of the text.
  bool skip_to_command() {
    while (!at_end()) {
      const char c = text_[at_];
      if (c == '#') {
        while (!at_end() && !is_line_end(text_[at_])) next();
      } else if (is_blank(c) || is_line_end(c)) {
        next();
      } else {
        start_ = line_;
        return true;
      }
    }
    return false;
  }

  // A word and the one blank after it; the blank must be there.
  Result<std::string_view> take_word(std::string_view what, auto&& belongs) {
    const std::size_t begin = at_;
    while (!at_end() && belongs(text_[at_])) next();
    const std::string_view word = text_.substr(begin, at_ - begin);
    if (at_end() || is_line_end(text_[at_])) return error("{} needs a value", what);
    if (!is_blank(text_[at_])) {
      return error("\"{}\" is not {}",
                   text_.substr(begin, std::min<std::size_t>(at_ - begin + 1, 40)), what);
    }
    next();
    while (!at_end() && is_blank(text_[at_])) next();
    return word;
  }

  // To the end of the line, or of the quotes.
  Result<std::string> take_value() {
    Value value;
    while (!at_end()) {
      const char c = text_[at_];
      if (is_line_end(c)) {
        if (const auto text = value.finished()) return std::string(*text);
      }
      next();
      // Other control characters have no place in a text file.
      const auto byte = static_cast<unsigned char>(c);
      if ((byte >= 0x20 && byte != 0x7f) || is_blank(c) || is_line_end(c)) value.add(c);
    }
    if (const auto text = value.finished()) return std::string(*text);
    return error("the quotes that begin here are never closed");
  }

  Result<> parse_command() {
    Command command;
    command.line = start_;
    const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
    OLLAMA_ASSIGN(const std::string_view name, take_word("a command", is_letter));
    command.name = lower(name);
    if (!std::ranges::contains(kCommands, command.name)) {
      return error(
          "command must be one of \"from\", \"license\", \"template\", \"system\", \"adapter\", "
          "\"renderer\", \"parser\", \"parameter\", \"message\", \"requires\", or \"draft\"");
    }
    if (command.name == "parameter") {
      OLLAMA_ASSIGN(command.key, take_word("a parameter's name", [&](char c) {
                      return is_letter(c) || (c >= '0' && c <= '9') || c == '_';
                    }));
    } else if (command.name == "message") {
      OLLAMA_ASSIGN(command.key, take_word("a message's role", is_letter));
      command.key = lower(command.key);
      if (command.key != "system" && command.key != "user" && command.key != "assistant") {
        return error("message role must be one of \"system\", \"user\", or \"assistant\"");
      }
    }
    OLLAMA_ASSIGN(command.value, take_value());
    if (command.value.empty() && (command.name == "from" || command.name == "adapter" ||
                                  command.name == "parameter" || command.name == "draft")) {
      return error("{} needs a value", command.name);
    }
    file_.commands.push_back(std::move(command));
    return {};
  }

  std::string_view text_;
  std::size_t at_ = 0;
  int line_ = 1;
  int start_ = 1;  // line of the command that is read
  Modelfile file_;
};

void append_utf8(std::string& out, char32_t c) {
  const auto add = [&out](char32_t byte) { out += static_cast<char>(byte); };
  if (c < 0x80) {
    add(c);
  } else if (c < 0x800) {
    add(0xC0 | (c >> 6));
    add(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    add(0xE0 | (c >> 12));
    add(0x80 | ((c >> 6) & 0x3F));
    add(0x80 | (c & 0x3F));
  } else {
    add(0xF0 | (c >> 18));
    add(0x80 | ((c >> 12) & 0x3F));
    add(0x80 | ((c >> 6) & 0x3F));
    add(0x80 | (c & 0x3F));
  }
}

// What is no character becomes U+FFFD.
std::string from_utf16(std::string_view bytes, bool big_endian) {
  constexpr char32_t kReplacement = 0xFFFD;
  const auto unit = [&](std::size_t at) -> char32_t {
    const auto first = static_cast<unsigned char>(bytes[at]);
    const auto second = static_cast<unsigned char>(bytes[at + 1]);
    return big_endian ? first << 8U | second : second << 8U | first;
  };
  std::string text;
  std::size_t at = 0;
  for (; at + 1 < bytes.size(); at += 2) {
    char32_t c = unit(at);
    if (c >= 0xD800 && c < 0xE000) {
      const char32_t low = c < 0xDC00 && at + 3 < bytes.size() ? unit(at + 2) : 0;
      const bool pair = low >= 0xDC00 && low < 0xE000;
      c = pair ? 0x10000 + ((c - 0xD800) << 10U) + (low - 0xDC00) : kReplacement;
      if (pair) at += 2;
    }
    append_utf8(text, c);
  }
  if (at < bytes.size()) append_utf8(text, kReplacement);
  return text;
}

bool looks_like_file(std::string_view text) {
  return text.starts_with('.') || text.starts_with('/') || text.starts_with('~') ||
         lower(text).ends_with(".gguf");
}

}  // namespace

Result<Modelfile> parse_modelfile(std::string_view text) {
  if (text.size() > kMaxSize) return fail(ErrorCode::kInvalidArgument, "the Modelfile is too long");
  // Notepad and PowerShell's > write these.
  if (text.starts_with("\xff\xfe") || text.starts_with("\xfe\xff")) {
    return Parser(from_utf16(text.substr(2), text.front() == '\xfe')).parse();
  }
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  return Parser(text).parse();
}

std::string to_text(const Modelfile& modelfile) {
  std::string text;
  for (const Command& command : modelfile.commands) {
    std::ranges::transform(command.name, std::back_inserter(text), [](char c) {
      return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    });
    if (!command.key.empty()) text += " " + command.key;
    text += " " + with_quotes(command.value) + "\n";
  }
  return text;
}

Result<CreatePlan> plan_create(const Modelfile& modelfile, const fs::path& directory,
                               const fs::path& home) {
  CreatePlan plan;
  api::CreateRequest& request = plan.request;
  for (const Command& command : modelfile.commands) {
    const auto error = [&](const Error& cause) {
      return std::unexpected(cause.with_context(std::format("(line {})", command.line)));
    };
    const auto local = [&](const std::string& text) {
      if (text.starts_with("~/") && !home.empty()) return home / text.substr(2);
      return directory / text;
    };
    const std::string& value = command.value;
    std::error_code ignored;
    if (command.name == "from") {
      const fs::path path = local(value);
      if (fs::exists(path, ignored) && !fs::is_directory(path, ignored)) {
        plan.model_files.push_back(path);
      } else if (fs::is_directory(path, ignored) &&
                 (looks_like_file(value) || fs::exists(path / "config.json", ignored))) {
        plan.model_folder = path;
      } else if (looks_like_file(value)) {
        return error(Error(ErrorCode::kNotFound, std::format("{}: no such file", path.string())));
      } else {
        request.from = value;
      }
    } else if (command.name == "adapter" || command.name == "draft") {
      const fs::path path = local(value);
      if (!fs::is_regular_file(path, ignored)) {
        return error(Error(ErrorCode::kNotFound, std::format("{}: no such file", path.string())));
      }
      (command.name == "draft" ? plan.draft_files : plan.adapter_files).push_back(path);
    } else if (command.name == "template") {
      request.template_text = value;
    } else if (command.name == "system") {
      request.system = value;
    } else if (command.name == "license") {
      request.license.push_back(value);
    } else if (command.name == "renderer") {
      request.renderer = value;
    } else if (command.name == "parser") {
      request.parser = value;
    } else if (command.name == "requires") {
      auto version = parse_version(value);
      if (!version) return error(version.error());
      request.requires_version = std::move(*version);
    } else if (command.name == "message") {
      api::Message message;
      message.role = command.key;
      message.content = value;
      request.messages.push_back(std::move(message));
    } else if (std::ranges::contains(kRetired, command.key)) {
      log::warn("parameter '{}' is deprecated and ignored", command.key);
    } else {
      auto parsed = api::parse_parameter(command.key, {value});
      if (!parsed) return error(parsed.error());
      // Several lines of a list add up; of other parameters, the last counts.
      auto* list = parsed->if_array();
      auto* before = request.parameters.if_contains(command.key);
      if (list != nullptr && before != nullptr) {
        for (auto& item : *list) before->as_array().push_back(std::move(item));
      } else {
        request.parameters.insert_or_assign(command.key, std::move(*parsed));
      }
    }
  }
  return plan;
}

Result<std::string> parse_version(std::string_view text) {
  std::string_view rest = text.substr(text.starts_with('v') ? 1 : 0);
  const std::string version(rest);
  const auto take = [&rest](auto&& belongs) {
    const auto end = std::ranges::find_if_not(rest, belongs);
    const auto size = static_cast<std::size_t>(end - rest.begin());
    const std::string_view taken = rest.substr(0, size);
    rest.remove_prefix(size);
    return taken;
  };
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  const auto invalid = [&] {
    return fail(ErrorCode::kInvalidArgument, "requires must be a version like 0.14.0, not \"{}\"",
                text.substr(0, 100));
  };
  int numbers = 0;
  for (bool more = true; more; ++numbers) {
    const std::string_view number = take(is_digit);
    if (number.empty() || number.size() > 9 || (number.size() > 1 && number[0] == '0')) {
      return invalid();
    }
    more = numbers < 2 && rest.starts_with('.');
    if (more) rest.remove_prefix(1);
  }
  // Of a release before that one, or a build of it.
  for (const char mark : {'-', '+'}) {
    if (!rest.starts_with(mark)) continue;
    rest.remove_prefix(1);
    const std::string_view label = take([&](char c) {
      return is_digit(c) || c == '.' || c == '-' || (c >= 'a' && c <= 'z') ||
             (c >= 'A' && c <= 'Z');
    });
    if (numbers < 3 || label.empty()) return invalid();
  }
  if (!rest.empty()) return invalid();
  return version;
}

bool is_newer(std::string_view version, std::string_view than) {
  const auto numbers = [](std::string_view text) {
    std::array<int, 3> result{};
    std::size_t at = 0;
    for (const char c : text) {
      if (c == '.') {
        if (++at == result.size()) break;
      } else if (c >= '0' && c <= '9') {
        result[at] = result[at] * 10 + (c - '0');
      } else {
        break;
      }
    }
    return result;
  };
  const auto ours = parse_version(version);
  const auto theirs = parse_version(than);
  return ours && theirs && numbers(*ours) > numbers(*theirs);
}

}  // namespace ollama::store
