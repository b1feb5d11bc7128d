// Text written in the user's editor.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"

namespace ollama::cmd {

// Opens `editor` (a command; if empty $VISUAL, $EDITOR, vi) on a temporary file that holds `text`,
// and returns what was saved, without line breaks at its end. Errors: kNotFound (no such editor),
// kIo, kInternal (it failed).
Result<std::string> edit_text(std::string_view text, std::string_view editor);

}  // namespace ollama::cmd
