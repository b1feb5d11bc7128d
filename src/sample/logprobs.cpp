#include "sample/logprobs.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace ollama::sample {
namespace {

constexpr float kGreatest = std::numeric_limits<float>::max();
// What stands for a probability of nothing, as in OpenAI's API: JSON has no infinity.
constexpr double kLowest = -9999.0;

float clean(float logit) {
  return logit == logit ? std::min(logit, kGreatest) : -std::numeric_limits<float>::infinity();
}

}  // namespace

Logprobs::Logprobs(std::size_t alternatives, std::size_t vocab_size) {
  row_.reserve(vocab_size);
  alternatives = std::min(alternatives, vocab_size);
  if (alternatives > 0) best_.emplace(vocab_size, alternatives);
  entries_.reserve(alternatives + 1);
}

void Logprobs::take(std::span<const float> logits) { row_.assign(logits.begin(), logits.end()); }

void Logprobs::choose(Token token) {
  entries_.clear();
  float best = -kGreatest;
  for (const float logit : row_) best = std::max(best, clean(logit));
  double mass = 0.0;
  for (const float logit : row_) mass += static_cast<double>(std::exp(clean(logit) - best));
  const double log_mass = std::log(mass);
  const auto add = [&](Token id, float logit) {
    const double logprob = static_cast<double>(clean(logit) - best) - log_mass;
    entries_.push_back({id, static_cast<float>(logprob > kLowest ? logprob : kLowest)});
  };
  const auto index = static_cast<std::size_t>(token);
  add(token, index < row_.size() ? row_[index] : -kGreatest);
  if (!best_) return;
  best_->collect(row_);
  for (const Candidate& item : best_->best(best_->items().size())) add(item.id, item.logit);
}

}  // namespace ollama::sample
