// Floating-point numbers as Go writes them.
#pragma once

#include <optional>
#include <string>

#include "chat/go/literal.h"

namespace ollama::chat::go {

// strconv.FormatFloat with 'e', 'f', 'g' or 'x'; without a precision the shortest text that is read
// back as the same number. Precisions are up to 1,000.
std::string float_text(double value, char verb, std::optional<int> precision);
// encoding/json's form.
std::string json_number(double value);

}  // namespace ollama::chat::go
