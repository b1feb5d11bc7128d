// From a template's text to a program.
#pragma once

#include <memory>
#include <string_view>

#include "chat/jinja/ast.h"

namespace ollama::chat::jinja {

// Fails with the position in the message; what it takes of memory and depth is bounded.
std::shared_ptr<const Program> parse_program(std::string_view text);

// Gives every variable its place. Called by parse_program.
void resolve(Program& program);

}  // namespace ollama::chat::jinja
