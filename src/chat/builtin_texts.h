// Internal to chat: the files of builtin/, which CMake puts into a source.
#pragma once

#include <string_view>

namespace ollama::chat {

// Of builtin/NAME.jinja, which must be there.
std::string_view builtin_text(std::string_view name);

}  // namespace ollama::chat
