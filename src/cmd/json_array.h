// Numbers as a JSON array, for the commands that print --json.
#pragma once

#include "api/types.h"

namespace ollama::cmd {

template <typename Range>
boost::json::array array_of(const Range& values) {
  return boost::json::array(values.begin(), values.end());
}

}  // namespace ollama::cmd
