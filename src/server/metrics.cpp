#include "server/metrics.h"

#include <format>

namespace ollama::server {
namespace {

// A label's value: backslash, quote and line break are escaped.
std::string label_text(std::string_view value) {
  std::string text = "\"";
  for (const char c : value) {
    if (c == '\\' || c == '"') text += '\\';
    if (c == '\n') {
      text += "\\n";
    } else {
      text += c;
    }
  }
  return text + '"';
}

void describe(std::string& out, std::string_view name, std::string_view type,
              std::string_view help) {
  out += std::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
}

constexpr double kNanosecond = 1e-9;

}  // namespace

void Metrics::Histogram::add(Seconds value) {
  for (std::size_t i = 0; i < kBounds.size(); ++i) {
    if (value.count() <= kBounds[i]) ++counts_[i];
  }
  ++count_;
  sum_ += value.count();
}

void Metrics::Histogram::write(std::string& out, std::string_view name,
                               std::string_view labels) const {
  for (std::size_t i = 0; i < kBounds.size(); ++i) {
    out += std::format("{}_bucket{{{},le=\"{}\"}} {}\n", name, labels, kBounds[i], counts_[i]);
  }
  out += std::format("{}_bucket{{{},le=\"+Inf\"}} {}\n", name, labels, count_);
  out +=
      std::format("{}_sum{{{}}} {}\n{}_count{{{}}} {}\n", name, labels, sum_, name, labels, count_);
}

void Metrics::answered(std::string_view route, int status, Seconds took) {
  ++requests_[{std::string(route), status}];
  durations_[std::string(route)].add(took);
}

void Metrics::generated(const std::string& model, const engine::Stats& stats, Seconds first) {
  Tokens& tokens = models_[model];
  tokens.prompt += stats.prompt_tokens;
  tokens.cached += stats.cached_tokens;
  tokens.generated += stats.generated_tokens;
  tokens.prompt_seconds += static_cast<double>(stats.prompt_ns) * kNanosecond;
  tokens.generate_seconds += static_cast<double>(stats.generate_ns) * kNanosecond;
  tokens.first.add(first);
}

std::string Metrics::text(const sched::Scheduler& scheduler) const {
  std::string out;
  describe(out, "ollama_http_requests_total", "counter", "Requests answered.");
  for (const auto& [key, count] : requests_) {
    out += std::format("ollama_http_requests_total{{route={},status=\"{}\"}} {}\n",
                       label_text(key.first), key.second, count);
  }
  describe(out, "ollama_http_request_duration_seconds", "histogram",
           "From a request's head to the end of its answer.");
  for (const auto& [route, histogram] : durations_) {
    histogram.write(out, "ollama_http_request_duration_seconds", "route=" + label_text(route));
  }
  describe(out, "ollama_queue_requests", "gauge", "Requests that wait for a model.");
  out += std::format("ollama_queue_requests {}\n", scheduler.waiting());

  const auto each_model = [&](std::string_view name, std::string_view help, auto value) {
    describe(out, name, "counter", help);
    for (const auto& [model, tokens] : models_) {
      out += std::format("{}{{model={}}} {}\n", name, label_text(model), value(tokens));
    }
  };
  each_model("ollama_prompt_tokens_total", "Tokens of prompts.",
             [](const Tokens& t) { return t.prompt; });
  each_model("ollama_prompt_cached_tokens_total", "Of these, found in the cache.",
             [](const Tokens& t) { return t.cached; });
  each_model("ollama_generated_tokens_total", "Tokens of answers.",
             [](const Tokens& t) { return t.generated; });
  each_model("ollama_prompt_seconds_total", "Time for evaluating prompts.",
             [](const Tokens& t) { return t.prompt_seconds; });
  each_model("ollama_generate_seconds_total", "Time for generating answers.",
             [](const Tokens& t) { return t.generate_seconds; });
  describe(out, "ollama_time_to_first_token_seconds", "histogram",
           "From a request to the first piece of its answer.");
  for (const auto& [model, tokens] : models_) {
    tokens.first.write(out, "ollama_time_to_first_token_seconds", "model=" + label_text(model));
  }

  describe(out, "ollama_model_memory_bytes", "gauge", "Memory of loaded models, on each device.");
  const auto loaded = scheduler.loaded();
  for (const sched::Loaded& one : loaded) {
    for (const auto& part : one.info.devices) {
      out += std::format("ollama_model_memory_bytes{{model={},device={}}} {}\n",
                         label_text(one.model.name), label_text(part.name), part.bytes);
    }
  }
  describe(out, "ollama_model_users", "gauge", "Requests that a loaded model works on.");
  for (const sched::Loaded& one : loaded) {
    out +=
        std::format("ollama_model_users{{model={}}} {}\n", label_text(one.model.name), one.users);
  }
  return out;
}

}  // namespace ollama::server
