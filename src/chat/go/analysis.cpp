#include "chat/go/analysis.h"

#include <algorithm>

namespace ollama::chat::go {
namespace {

constexpr std::string_view kBlanks = " \t\r\n\v\f";

std::string trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(kBlanks) - first + 1));
}

bool has_name(const Program& program, const Operand& operand, std::string_view name) {
  return operand.kind == Operand::Kind::kField &&
         std::ranges::contains(program.names_of(operand), name);
}

// Whether `wanted` holds of any operand of the pipeline, those in parentheses included.
template <typename Wanted>
bool any_operand(const Program& program, std::uint32_t pipeline, const Wanted& wanted) {
  if (pipeline == kNone) return false;
  for (const Command& command : program.commands_of(program.pipelines[pipeline])) {
    for (const Operand& operand : program.operands_of(command)) {
      if (wanted(operand)) return true;
      const bool nested =
          operand.kind == Operand::Kind::kPipeline || operand.kind == Operand::Kind::kChain;
      if (nested && any_operand(program, operand.reference, wanted)) return true;
    }
  }
  return false;
}
bool uses(const Program& program, std::uint32_t pipeline, std::string_view name) {
  return any_operand(program, pipeline,
                     [&](const Operand& operand) { return has_name(program, operand, name); });
}

// ---- Thinking

// Looks for .Thinking in the nodes of ranges over .Messages.
class ThinkingFinder {
 public:
  explicit ThinkingFinder(const Program& program) : program_(program) {}

  void visit(Run nodes, bool in_messages) {
    for (const std::uint32_t id : program_.nodes_of(nodes)) {
      const Node& node = program_.nodes[id];
      if (in_messages && prints_thinking(node)) take(nodes);
      const bool range = node.kind == Node::Kind::kRange;
      const bool inside = range ? uses(program_, node.pipeline, "Messages") : in_messages;
      visit(node.body, inside);
      visit(node.otherwise, inside);
    }
  }
  std::pair<std::string, std::string> tags() && { return std::move(tags_); }

 private:
  // Conditions mention it too, outside of the tags.
  bool prints_thinking(const Node& node) const {
    return node.kind == Node::Kind::kAction &&
           any_operand(program_, node.pipeline, [this](const Operand& operand) {
             return (operand.kind == Operand::Kind::kField ||
                     operand.kind == Operand::Kind::kVariable) &&
                    std::ranges::contains(program_.names_of(operand), "Thinking");
           });
  }
  void take(Run nodes) {
    const Node& first = program_.nodes[program_.nodes_of(nodes).front()];
    const Node& last = program_.nodes[program_.nodes_of(nodes).back()];
    if (first.kind == Node::Kind::kText) tags_.first = trimmed(first.text);
    if (last.kind == Node::Kind::kText) tags_.second = trimmed(last.text);
  }

  const Program& program_;
  std::pair<std::string, std::string> tags_;
};

}  // namespace

std::set<std::string, std::less<>> names_used(const Program& program) {
  std::set<std::string, std::less<>> names;
  const auto add = [&](std::string_view name) {
    std::string lower(name);
    std::ranges::transform(lower, lower.begin(), [](char c) {
      return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    });
    names.insert(std::move(lower));
  };
  for (const Operand& operand : program.operands) {
    for (const std::string_view name : program.names_of(operand)) add(name);
    if (operand.kind == Operand::Kind::kVariable) add(operand.text);
  }
  return names;
}

std::uint32_t response_position(const Program& program) {
  std::uint32_t position = kNone;
  const auto visit = [&](this const auto& self, Run nodes) -> void {
    for (const std::uint32_t id : program.nodes_of(nodes)) {
      const Node& node = program.nodes[id];
      if (node.kind == Node::Kind::kAction && uses(program, node.pipeline, "Response")) {
        position = std::min(position, node.position);
      }
      self(node.body);
      self(node.otherwise);
    }
  };
  visit(program.main().body);
  return position;
}

std::pair<std::string, std::string> thinking_tags(const Program& program) {
  ThinkingFinder finder(program);
  for (const Definition& definition : program.definitions) finder.visit(definition.body, false);
  return std::move(finder).tags();
}

}  // namespace ollama::chat::go
