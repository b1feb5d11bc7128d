// The grammar of the command line: commands, their flags, and what a user typed. Declarations are
// plain data; CLI11 does the parsing (command.cpp), help and error texts are worded as Ollama's, so
// that scripts and habits carry over.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace ollama::cmd {

enum class FlagKind : std::uint8_t { kBool, kString, kInt };

struct Flag {
  std::string name;  // "format", for --format
  char letter = 0;   // 'f', for -f
  FlagKind kind = FlagKind::kBool;
  std::string help;
  std::string fallback = {};  // the value when the flag is not given
  // What a bare --name means; a flag with it takes a value as --name=value only.
  std::string implied = {};
  std::string value_name = {};  // in the help text, instead of "string" or "int"
};

// What was typed after a command's name.
class Arguments {
 public:
  std::span<const std::string> positional() const { return positional_; }
  // The i-th positional argument; it must exist.
  const std::string& operator[](std::size_t i) const { return positional_[i]; }
  std::size_t size() const { return positional_.size(); }

  // Whether the flag was typed. Flags are asked for by the names they were declared with.
  bool given(std::string_view flag) const;
  bool boolean(std::string_view flag) const;
  const std::string& text(std::string_view flag) const;
  std::int64_t number(std::string_view flag) const;

 private:
  friend class Parser;
  struct Setting {
    std::string value;
    bool given = false;
  };
  const Setting& setting(std::string_view flag) const;

  std::vector<std::string> positional_;
  std::map<std::string, Setting, std::less<>> settings_;
};

struct Command {
  static constexpr std::size_t kAny = std::numeric_limits<std::size_t>::max();

  std::string name;
  std::string usage;    // the arguments, "MODEL [PROMPT]"; empty if there are none
  std::string summary;  // one line
  std::size_t min_arguments = 0;
  std::size_t max_arguments = 0;
  std::vector<Flag> flags = {};
  std::vector<std::string> aliases = {};
  // Environment variables that --help lists; {"*"} is the whole table.
  std::vector<std::string> environment = {};
  bool hidden = false;
  std::vector<Command> commands = {};  // a group of commands has no `run` of its own
  // Returns the exit status; an error is printed as "Error: ..." and exits with 1.
  std::function<Result<int>(const Arguments&)> run = {};
};

// A command and what it was asked.
struct Invocation {
  const Command* command = nullptr;
  std::string path;  // "ollama debug tokenize"
  Arguments arguments;
  bool help = false;
};

// Finds the command that `arguments` (without the program's name) mean. Errors: kInvalidArgument in
// the words of Ollama's command line: `unknown command "x" for "ollama"`, `unknown flag: --x`,
// `accepts 1 arg(s), received 0`.
Result<Invocation> parse(const Command& root, std::span<const std::string> arguments);

// What --help prints. `environment` is the section about the command's variables, or empty.
std::string help_text(const Command& command, std::string_view path, std::string_view environment);

}  // namespace ollama::cmd
