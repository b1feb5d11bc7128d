// Rendering of a program, within limits.
#pragma once

#include <cstdint>
#include <string>

#include "base/error.h"
#include "chat/go/program.h"
#include "chat/go/value.h"
#include "chat/render_options.h"

namespace ollama::chat::go {

// How much of the main template is rendered.
enum class Extent : std::uint8_t {
  kAll,
  kUntilResponse,  // to the end of the first action that prints .Response: the answer begins there
};

// Errors: kInvalidArgument, "template:LINE:COLUMN: ..."; limits as well.
Result<std::string> evaluate(const Program& program, const Value& dot, const RenderOptions& options,
                             Extent extent = Extent::kAll);

}  // namespace ollama::chat::go
