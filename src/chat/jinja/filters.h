// The filters, by what they work on; builtins.h finds them by name.
#pragma once

#include <span>
#include <string_view>

#include "chat/jinja/ast.h"

namespace ollama::chat::jinja {

struct FilterName {
  std::string_view name;
  FilterFunction function;
};

std::span<const FilterName> text_filters();
std::span<const FilterName> sequence_filters();
std::span<const FilterName> value_filters();

}  // namespace ollama::chat::jinja
