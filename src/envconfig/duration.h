// Durations as Go writes them ("1h30m", "5m0s"), which Ollama's variables, requests and tables use.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "base/error.h"

namespace ollama::envconfig {

using Duration = std::chrono::nanoseconds;

// "Until asked otherwise": what a negative keep-alive means.
inline constexpr Duration kForever = Duration::max();

// A sign, then numbers with units (ns, us, ms, s, m, h): "1h30m", "-1.5s", "0". kInvalidArgument
// otherwise, or beyond 292 years.
Result<Duration> parse_duration(std::string_view text);
// As Go prints it: "1h30m0s", "1.5s", "250ms", "0s".
std::string format_duration(Duration duration);

// How long a model stays loaded: a duration or bare seconds ("300"); negative is kForever, 0
// unloads at once.
Result<Duration> parse_keep_alive(std::string_view text);

}  // namespace ollama::envconfig
