#include "cmd/prompt_input.h"

#include <utility>

namespace ollama::cmd {
namespace {

constexpr std::string_view kQuotes = "\"\"\"";

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n") == std::string_view::npos;
}

}  // namespace

PromptInput::Event PromptInput::add(std::string_view line, bool pasting) {
  if (block_ != Block::kNone) {
    if (!line.ends_with(kQuotes)) {
      text_ += line;
      text_ += '\n';
      return {Kind::kMore, {}};
    }
    text_ += line.substr(0, line.size() - kQuotes.size());
    return finish(block_ == Block::kSystem ? Kind::kSystem : Kind::kMessage);
  }
  if (line.starts_with(kQuotes)) return begin_block(Block::kMessage, line.substr(kQuotes.size()));
  if (pasting) {
    text_ += line;
    text_ += '\n';
    return {Kind::kMore, {}};
  }
  if (text_.empty() && line.starts_with('/')) return {Kind::kCommand, std::string(line)};
  text_ += line;
  return finish(Kind::kMessage);
}

PromptInput::Event PromptInput::begin_system(std::string_view text) {
  if (text.starts_with(kQuotes)) return begin_block(Block::kSystem, text.substr(kQuotes.size()));
  text_ = text;
  return finish(Kind::kSystem);
}

PromptInput::Event PromptInput::begin_block(Block block, std::string_view line) {
  block_ = block;
  if (line.ends_with(kQuotes)) {
    text_ += line.substr(0, line.size() - kQuotes.size());
    return finish(block == Block::kSystem ? Kind::kSystem : Kind::kMessage);
  }
  text_ += line;
  text_ += '\n';
  return {Kind::kMore, {}};
}

PromptInput::Event PromptInput::finish(Kind kind) {
  std::string text = std::exchange(text_, {});
  block_ = Block::kNone;
  if (kind == Kind::kMessage && is_blank(text)) return {Kind::kNothing, {}};
  return {kind, std::move(text)};
}

void PromptInput::reset() {
  block_ = Block::kNone;
  text_.clear();
}

}  // namespace ollama::cmd
