// A parsed Go template: flat arrays of nodes that refer to one another by index.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "chat/go/functions.h"

namespace ollama::chat::go {

inline constexpr std::uint32_t kNone = ~0U;

// A run in one of Program's arrays.
struct Run {
  std::uint32_t first = 0;
  std::uint32_t count = 0;
};

// An operand of a command.
struct Operand {
  enum class Kind : std::uint8_t {
    kDot,
    kNil,
    kBool,
    kInt,
    kFloat,
    kString,
    kField,     // .A.B
    kVariable,  // $x.A.B
    kChain,     // (pipeline).A.B
    kFunction,
    kPipeline,  // in parentheses
  };
  Kind kind = Kind::kDot;
  std::uint32_t position = 0;
  Run names = {};               // of kField, kVariable, kChain
  std::uint32_t reference = 0;  // slot of a variable, pipeline of kChain and kPipeline
  Function function = {};
  std::string_view text = {};  // of kString; the name of a variable or function
  union {
    bool boolean;
    std::int64_t integer = 0;
    double number;
  };
};

struct Command {
  Run operands;  // in Program::operands
};

struct Pipeline {
  std::uint32_t position = 0;
  Run commands;                                      // in Program::commands
  std::array<std::uint32_t, 2> slots{kNone, kNone};  // of $a, $b :=
  std::uint32_t targets = 0;                         // of these
};

struct Node {
  enum class Kind : std::uint8_t {
    kText,
    kAction,
    kIf,
    kRange,
    kWith,
    kTemplate,
    kBreak,
    kContinue,
  };
  Kind kind = Kind::kText;
  std::uint32_t position = 0;  // of its {{ or its text: ascending in the source
  std::uint32_t pipeline = kNone;
  std::string_view text = {};  // of kText; the name of kTemplate
  Run body = {};               // in Program::lists
  Run otherwise = {};          // of else
};

// The main template has an empty name.
struct Definition {
  std::string_view name;
  Run body = {};            // in Program::lists
  std::uint32_t slots = 1;  // variables that live at once; the first is $
};

struct Program {
  std::string source;
  std::deque<std::string> strings;  // what literals mean, where that is not in the source
  std::vector<Operand> operands;
  std::vector<std::string_view> names;
  std::vector<Command> commands;
  std::vector<Pipeline> pipelines;
  std::vector<Node> nodes;
  std::vector<std::uint32_t> lists;  // of nodes
  std::vector<Definition> definitions;

  template <typename T>
  static std::span<const T> items(const std::vector<T>& array, Run run) {
    return std::span(array).subspan(run.first, run.count);
  }
  std::span<const Operand> operands_of(const Command& command) const {
    return items(operands, command.operands);
  }
  std::span<const Command> commands_of(const Pipeline& pipeline) const {
    return items(commands, pipeline.commands);
  }
  std::span<const std::string_view> names_of(const Operand& operand) const {
    return items(names, operand.names);
  }
  std::span<const std::uint32_t> nodes_of(Run list) const { return items(lists, list); }
  const Definition* find(std::string_view name) const {
    for (const Definition& definition : definitions) {
      if (definition.name == name) return &definition;
    }
    return nullptr;
  }
  const Definition& main() const { return definitions.front(); }
};

}  // namespace ollama::chat::go
