// What the server counts, in Prometheus' text format. Everything happens on the server's one loop.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "engine/engine.h"
#include "sched/scheduler.h"

namespace ollama::server {

class Metrics {
 public:
  using Seconds = std::chrono::duration<double>;

  // A request that has been answered; `route` is its pattern, "other" where there is none.
  void answered(std::string_view route, int status, Seconds took);
  // An answer of a model; `first` is the time to its first piece.
  void generated(const std::string& model, const engine::Stats& stats, Seconds first);

  // Texts that a model has read and not answered.
  void evaluated(const std::string& model, std::uint64_t tokens) {
    models_[model].prompt += tokens;
  }

  // All of it, with what the scheduler says of its queue and of what is loaded.
  std::string text(const sched::Scheduler& scheduler) const;

 private:
  class Histogram {
   public:
    void add(Seconds value);
    void write(std::string& out, std::string_view name, std::string_view labels) const;

   private:
    // Upper bounds in seconds; what is beyond counts in "+Inf" alone.
    static constexpr std::array<double, 14> kBounds{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                                                    0.25,  0.5,    1,     2.5,  5,     10,   60};
    std::array<std::uint64_t, kBounds.size()> counts_{};
    std::uint64_t count_ = 0;
    double sum_ = 0;
  };
  struct Tokens {
    std::uint64_t prompt = 0;
    std::uint64_t cached = 0;
    std::uint64_t generated = 0;
    double prompt_seconds = 0;
    double generate_seconds = 0;
    Histogram first;
  };

  std::map<std::pair<std::string, int>, std::uint64_t> requests_;  // by route and status
  std::map<std::string, Histogram, std::less<>> durations_;        // by route
  std::map<std::string, Tokens, std::less<>> models_;
};

}  // namespace ollama::server
