// Python's two ways of formatting: 'text %s' % values, and 'text {}'.format(values).
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "chat/jinja/value.h"

namespace ollama::chat::jinja {

struct Argument {
  std::string_view name;
  Value value;
};

// `values` is a tuple of several, a dict for %(name)s, or one value.
std::string percent_format(Runtime& run, std::string_view format, const Value& values);
std::string brace_format(Runtime& run, std::string_view format, std::span<const Value> positional,
                         std::span<const Argument> named);

}  // namespace ollama::chat::jinja
