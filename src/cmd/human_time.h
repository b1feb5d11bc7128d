// Times as people say them, in Ollama's words.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "api/types.h"

namespace ollama::cmd {

// "Less than a second", "4 minutes", "About an hour", "2 weeks".
std::string human_duration(api::Duration duration);

// "4 minutes from now", "2 weeks ago"; `never` for a time that is not set, "Forever" for one that
// is centuries away.
std::string human_time(api::Time time, api::Time now, std::string_view never);

}  // namespace ollama::cmd
