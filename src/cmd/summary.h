// The timings of an answer, as `--verbose` prints them.
#pragma once

#include <string>

#include "api/types.h"

namespace ollama::cmd {

// Lines like "eval rate:            57.01 tokens/s"; what is zero is left out.
std::string format_summary(const api::Metrics& metrics);

}  // namespace ollama::cmd
