#include "sample/mirostat.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace ollama::sample {
namespace {

// Candidates that version 1 estimates the slope from.
constexpr std::size_t kEstimated = 100;

}  // namespace

Mirostat::Mirostat(const Options& options, std::size_t vocab_size)
    : version_(options.mirostat),
      tau_(options.mirostat_tau),
      eta_(options.mirostat_eta),
      vocab_size_(vocab_size) {
  reset();
}

void Mirostat::reset() { bound_ = 2.0 * static_cast<double>(tau_); }

Token Mirostat::draw(Candidates& candidates, float temperature, double uniform) {
  if (candidates.items().empty()) return 0;
  if (!(temperature > 0.0F)) return candidates.best(1).front().id;
  candidates.scale(temperature);
  if (version_ == 1) {
    candidates.keep_best(count_by_slope(candidates));
  } else {
    candidates.keep_likelier(-bound_ * std::numbers::ln2);
  }
  const Candidate chosen = candidates.draw(uniform);
  const double surprise = -candidates.logprob(chosen.logit) / std::numbers::ln2;
  bound_ -= static_cast<double>(eta_) * (surprise - static_cast<double>(tau_));
  return chosen.id;
}

// The paper's algorithm 1: Zipf's exponent by least squares from the ratios of neighbours, and the
// number of candidates whose expected surprise is the bound.
std::size_t Mirostat::count_by_slope(Candidates& candidates) const {
  const std::span<const Candidate> best = candidates.best(kEstimated);
  if (best.size() < 2) return 1;
  double products = 0;
  double squares = 0;
  for (std::size_t i = 0; i + 1 < best.size(); ++i) {
    const double t = std::log(static_cast<double>(i + 2) / static_cast<double>(i + 1));
    products += t * static_cast<double>(best[i].logit - best[i + 1].logit);
    squares += t * t;
  }
  const double slope = products / squares;
  const double epsilon = slope - 1.0;
  const double vocabulary = static_cast<double>(vocab_size_);
  // epsilon / (1 - vocabulary^-epsilon), whose limit at 0 is 1 / log(vocabulary).
  const double factor = std::fabs(epsilon) < 1e-9
                            ? 1.0 / std::log(vocabulary)
                            : epsilon / (1.0 - std::pow(vocabulary, -epsilon));
  const double count = std::pow(factor * std::exp2(bound_), 1.0 / slope);
  const double all = static_cast<double>(candidates.items().size());
  return count >= 1.0 ? static_cast<std::size_t>(std::min(count, all)) : 1;  // 1 for a NaN
}

}  // namespace ollama::sample
