#include "cmd/command.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cassert>
#include <format>

#include "base/units.h"

namespace ollama::cmd {
namespace {

std::optional<bool> parse_boolean(std::string_view text) {
  for (std::string_view yes : {"true", "1", "t", "T", "TRUE", "True"}) {
    if (text == yes) return true;
  }
  for (std::string_view no : {"false", "0", "f", "F", "FALSE", "False"}) {
    if (text == no) return false;
  }
  return std::nullopt;
}

bool is_flag(std::string_view argument) { return argument.size() > 1 && argument[0] == '-'; }

std::string unknown_flag(std::string_view argument) {
  if (argument.starts_with("--")) {
    return std::format("unknown flag: {}", argument.substr(0, argument.find('=')));
  }
  return std::format("unknown shorthand flag: '{}' in {}", argument[1], argument);
}

// How many letters have to change to make `b` of `a`.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

std::string unknown_command(const Command& group, std::string_view path, std::string_view name) {
  std::string message = std::format("unknown command \"{}\" for \"{}\"", name, path);
  std::string similar;
  for (const Command& command : group.commands) {
    if (command.hidden) continue;
    if (edit_distance(name, command.name) <= 2 || command.name.starts_with(name)) {
      similar += std::format("\t{}\n", command.name);
    }
  }
  if (!similar.empty()) message += "\n\nDid you mean this?\n" + similar;
  return message;
}

const Command* find_command(const Command& group, std::string_view name) {
  for (const Command& command : group.commands) {
    if (command.name == name || std::ranges::contains(command.aliases, name)) return &command;
  }
  return nullptr;
}

std::string kind_name(const Flag& flag) {
  if (!flag.value_name.empty()) return flag.value_name;
  switch (flag.kind) {
    case FlagKind::kBool:
      return "";
    case FlagKind::kString:
      return "string";
    case FlagKind::kInt:
      return "int";
  }
  return "";
}

struct HelpLine {
  std::string left;
  std::string_view right;
};

std::string help_lines(const std::vector<HelpLine>& lines) {
  std::size_t width = 0;
  for (const HelpLine& line : lines) width = std::max(width, line.left.size());
  std::string text;
  for (const auto& [left, right] : lines) {
    text += std::format("{:<{}}   {}\n", left, width, right);
  }
  return text;
}

}  // namespace

// ---- Arguments ----------------------------------------------------------------------------------

const Arguments::Setting& Arguments::setting(std::string_view flag) const {
  const auto found = settings_.find(flag);
  assert(found != settings_.end() && "a flag that the command does not declare");
  return found->second;
}

bool Arguments::given(std::string_view flag) const { return setting(flag).given; }

bool Arguments::boolean(std::string_view flag) const {
  return parse_boolean(setting(flag).value).value_or(false);
}

const std::string& Arguments::text(std::string_view flag) const { return setting(flag).value; }

std::int64_t Arguments::number(std::string_view flag) const {
  return parse_number<std::int64_t>(setting(flag).value).value_or(0);
}

// ---- Parsing ------------------------------------------------------------------------------------

// Reads one command's arguments.
class Parser {
 public:
  explicit Parser(const Command& command) : command_(command) {
    app_.allow_extras();
    app_.set_help_flag();
    help_ = app_.add_flag("-h,--help");
    for (const Flag& flag : command.flags) {
      std::string names = "--" + flag.name;
      if (flag.letter != 0) names = std::format("-{},{}", flag.letter, names);
      const bool valueless = flag.kind == FlagKind::kBool || !flag.implied.empty();
      CLI::Option* option = valueless ? app_.add_flag(names) : add_valued(names);
      options_.push_back(option);
    }
    positional_ = app_.add_option("arguments")->expected(-1)->take_all();
  }

  Result<Arguments> parse(std::span<const std::string> arguments, bool& help) {
    std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
    try {
      app_.parse(std::move(reversed));
    } catch (const CLI::ParseError& error) {
      const std::string last = arguments.empty() ? "" : arguments.back();
      if (is_flag(last)) {
        return fail(ErrorCode::kInvalidArgument, "flag needs an argument: {}", last);
      }
      return fail(ErrorCode::kInvalidArgument, "{}", error.what());
    }
    help = help_->count() > 0;
    for (const std::string& extra : app_.remaining()) {
      if (is_flag(extra) && extra != "--" && !help) {
        return fail(ErrorCode::kInvalidArgument, "{}", unknown_flag(extra));
      }
    }

    Arguments result;
    for (std::size_t i = 0; i < options_.size(); ++i) {
      OLLAMA_ASSIGN(auto setting, read(command_.flags[i], *options_[i]));
      result.settings_.emplace(command_.flags[i].name, std::move(setting));
    }
    if (positional_->count() > 0) result.positional_ = positional_->results();
    return result;
  }

 private:
  CLI::Option* add_valued(const std::string& names) {
    return app_.add_option(names)->expected(1)->multi_option_policy(
        CLI::MultiOptionPolicy::TakeLast);
  }

  static Result<Arguments::Setting> read(const Flag& flag, const CLI::Option& option) {
    if (option.count() == 0) return Arguments::Setting{flag.fallback, false};
    std::string value = option.results().back();
    if (!flag.implied.empty() && value == "true") value = flag.implied;
    if (flag.kind == FlagKind::kBool && !parse_boolean(value)) {
      return fail(ErrorCode::kInvalidArgument,
                  "invalid argument \"{}\" for \"--{}\" flag: must be true or false", value,
                  flag.name);
    }
    if (flag.kind == FlagKind::kInt && !parse_number<std::int64_t>(value)) {
      return fail(ErrorCode::kInvalidArgument,
                  "invalid argument \"{}\" for \"--{}\" flag: must be a whole number", value,
                  flag.name);
    }
    return Arguments::Setting{std::move(value), true};
  }

  const Command& command_;
  CLI::App app_;
  CLI::Option* help_ = nullptr;
  CLI::Option* positional_ = nullptr;
  std::vector<CLI::Option*> options_;
};

namespace {

Result<> check_count(const Command& command, std::size_t count) {
  const std::size_t least = command.min_arguments;
  const std::size_t most = command.max_arguments;
  if (count >= least && count <= most) return {};
  if (least == most) {
    return fail(ErrorCode::kInvalidArgument, "accepts {} arg(s), received {}", least, count);
  }
  if (count < least) {
    return fail(ErrorCode::kInvalidArgument, "requires at least {} arg(s), only received {}", least,
                count);
  }
  return fail(ErrorCode::kInvalidArgument, "accepts at most {} arg(s), received {}", most, count);
}

// `ollama help a b` is `ollama a b --help`.
Result<Invocation> parse_help(const Command& root, std::span<const std::string> topic) {
  Invocation invocation{.command = &root, .path = root.name, .arguments = {}, .help = true};
  for (const std::string& name : topic) {
    const Command* command = find_command(*invocation.command, name);
    if (command == nullptr) {
      return fail(ErrorCode::kInvalidArgument, "{}",
                  unknown_command(*invocation.command, invocation.path, name));
    }
    invocation.command = command;
    invocation.path += " " + command->name;
  }
  return invocation;
}

}  // namespace

Result<Invocation> parse(const Command& root, std::span<const std::string> arguments) {
  if (!arguments.empty() && arguments[0] == "help") return parse_help(root, arguments.subspan(1));

  Invocation invocation{.command = &root, .path = root.name, .arguments = {}, .help = false};
  std::vector<std::string> rest(arguments.begin(), arguments.end());
  // The first word that is no flag names the command, at each level.
  while (!invocation.command->commands.empty()) {
    const auto word = std::ranges::find_if_not(rest, is_flag);
    if (word == rest.end()) break;
    const Command* command = find_command(*invocation.command, *word);
    if (command == nullptr) {
      return fail(ErrorCode::kInvalidArgument, "{}",
                  unknown_command(*invocation.command, invocation.path, *word));
    }
    invocation.command = command;
    invocation.path += " " + command->name;
    rest.erase(word);
  }

  Parser parser(*invocation.command);
  OLLAMA_ASSIGN(invocation.arguments, parser.parse(rest, invocation.help));
  if (!invocation.help) {
    OLLAMA_TRY(check_count(*invocation.command, invocation.arguments.size()));
  }
  return invocation;
}

// ---- Help ---------------------------------------------------------------------------------------

std::string help_text(const Command& command, std::string_view path, std::string_view environment) {
  std::string text = command.summary + "\n\nUsage:\n";
  const bool group = !command.commands.empty();
  if (command.run || !group) {
    const std::string usage = command.usage.empty() ? "" : " " + command.usage;
    text += std::format("  {}{} [flags]\n", path, usage);
  }
  if (group) text += std::format("  {} [command]\n", path);
  if (!command.aliases.empty()) {
    text += std::format("\nAliases:\n  {}", command.name);
    for (const std::string& alias : command.aliases) text += ", " + alias;
    text += '\n';
  }
  if (group) {
    std::size_t width = 11;
    for (const Command& child : command.commands) width = std::max(width, child.name.size());
    text += "\nAvailable Commands:\n";
    for (const Command& child : command.commands) {
      if (!child.hidden) text += std::format("  {:<{}} {}\n", child.name, width, child.summary);
    }
    if (path.find(' ') == std::string_view::npos) {
      text += std::format("  {:<{}} {}\n", "help", width, "Help about any command");
    }
  }

  std::vector<HelpLine> lines;
  std::vector<std::string> texts;
  texts.reserve(command.flags.size() + 1);  // the lines hold views of them
  for (const Flag& flag : command.flags) {
    std::string left = flag.letter == 0 ? std::string(6, ' ') : std::format("  -{}, ", flag.letter);
    left += "--" + flag.name;
    if (const std::string kind = kind_name(flag); !kind.empty()) {
      left += flag.implied.empty() ? " " + kind : std::format(" {}[=\"{}\"]", kind, flag.implied);
    }
    std::string right = flag.help;
    if (!flag.fallback.empty() && flag.kind == FlagKind::kString) {
      right += std::format(" (default \"{}\")", flag.fallback);
    } else if (!flag.fallback.empty() && flag.kind == FlagKind::kInt) {
      right += std::format(" (default {})", flag.fallback);
    }
    texts.push_back(std::move(right));
    lines.push_back({std::move(left), texts.back()});
  }
  texts.push_back("help for " + command.name);
  lines.push_back({"  -h, --help", texts.back()});
  text += "\nFlags:\n" + help_lines(lines);

  if (!environment.empty()) text += std::format("\n{}", environment);
  if (group) {
    text +=
        std::format("\nUse \"{} [command] --help\" for more information about a command.\n", path);
  }
  return text;
}

}  // namespace ollama::cmd
