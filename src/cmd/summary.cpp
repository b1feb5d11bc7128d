#include "cmd/summary.h"

#include <format>

#include "envconfig/duration.h"

namespace ollama::cmd {
namespace {

void line(std::string& out, std::string_view name, std::string_view value) {
  out += std::format("{:<21} {}\n", name, value);
}

void duration(std::string& out, std::string_view name, api::Duration value) {
  if (value.count() > 0) line(out, name, envconfig::format_duration(value));
}

void rate(std::string& out, std::string_view name, std::int64_t tokens, api::Duration value) {
  if (value.count() <= 0) return;
  const double seconds = std::chrono::duration<double>(value).count();
  line(out, name, std::format("{:.2f} tokens/s", static_cast<double>(tokens) / seconds));
}

void count(std::string& out, std::string_view name, std::int64_t tokens) {
  if (tokens > 0) line(out, name, std::format("{} token(s)", tokens));
}

}  // namespace

std::string format_summary(const api::Metrics& metrics) {
  std::string out;
  duration(out, "total duration:", metrics.total_duration);
  duration(out, "load duration:", metrics.load_duration);
  count(out, "prompt eval count:", metrics.prompt_eval_count);
  count(out, "prompt cached count:", metrics.prompt_eval_cached_count);
  duration(out, "prompt eval duration:", metrics.prompt_eval_duration);
  rate(out, "prompt eval rate:", metrics.prompt_eval_count - metrics.prompt_eval_cached_count,
       metrics.prompt_eval_duration);
  count(out, "eval count:", metrics.eval_count);
  duration(out, "eval duration:", metrics.eval_duration);
  rate(out, "eval rate:", metrics.eval_count, metrics.eval_duration);
  return out;
}

}  // namespace ollama::cmd
