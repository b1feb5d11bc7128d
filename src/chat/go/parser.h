// From a Go template's text to its program.
#pragma once

#include <memory>
#include <string>

#include "base/error.h"
#include "chat/go/program.h"

namespace ollama::chat::go {

inline constexpr std::size_t kMaxSource = 1U << 20;  // bytes
inline constexpr int kMaxNesting = 200;              // of blocks and parentheses

// Errors: kInvalidArgument, "template:LINE:COLUMN: ..."; too long or too deeply nested as well.
Result<std::unique_ptr<const Program>> parse_program(std::string source);

}  // namespace ollama::chat::go
