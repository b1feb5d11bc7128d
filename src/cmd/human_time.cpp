#include "cmd/human_time.h"

#include <cmath>
#include <format>

namespace ollama::cmd {

std::string human_duration(api::Duration duration) {
  using std::chrono::duration_cast;
  const auto seconds = duration_cast<std::chrono::seconds>(duration).count();
  if (seconds < 1) return "Less than a second";
  if (seconds == 1) return "1 second";
  if (seconds < 60) return std::format("{} seconds", seconds);
  const auto minutes = seconds / 60;
  if (minutes == 1) return "About a minute";
  if (minutes < 60) return std::format("{} minutes", minutes);
  const auto hours = static_cast<std::int64_t>(std::lround(static_cast<double>(seconds) / 3600));
  if (hours == 1) return "About an hour";
  if (hours < 48) return std::format("{} hours", hours);
  if (hours < 24 * 7 * 2) return std::format("{} days", hours / 24);
  if (hours < 24 * 30 * 2) return std::format("{} weeks", hours / 24 / 7);
  if (hours < 24 * 365 * 2) return std::format("{} months", hours / 24 / 30);
  return std::format("{} years", hours / 24 / 365);
}

std::string human_time(api::Time time, api::Time now, std::string_view never) {
  if (time == api::Time{}) return std::string(never);
  if (time > now) {
    const auto ahead = time - now;
    if (ahead > std::chrono::hours(24 * 365 * 21)) return "Forever";
    return human_duration(ahead) + " from now";
  }
  return human_duration(now - time) + " ago";
}

}  // namespace ollama::cmd
