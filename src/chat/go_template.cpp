#include "chat/go_template.h"

#include <algorithm>

#include "chat/go/analysis.h"
#include "chat/go/evaluator.h"
#include "chat/go/parser.h"

namespace ollama::chat {

GoTemplate::GoTemplate(std::shared_ptr<const go::Program> program)
    : program_(std::move(program)),
      names_(
          std::make_shared<const std::set<std::string, std::less<>>>(go::names_used(*program_))) {}

Result<GoTemplate> GoTemplate::parse(std::string text) {
  OLLAMA_ASSIGN(auto program, go::parse_program(std::move(text)));
  return GoTemplate(std::move(program));
}

Result<std::string> GoTemplate::render(const api::Json& data, const RenderOptions& options) const {
  return go::evaluate(*program_, go::Value::of(data), options);
}

bool GoTemplate::uses(std::string_view name) const { return names_->contains(name); }

std::optional<GoTemplate::Tags> GoTemplate::thinking_tags() const {
  auto [open, close] = go::thinking_tags(*program_);
  if (open.empty() || close.empty()) return std::nullopt;
  return Tags{.open = std::move(open), .close = std::move(close)};
}

}  // namespace ollama::chat
