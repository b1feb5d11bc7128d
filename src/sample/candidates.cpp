#include "sample/candidates.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace ollama::sample {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kGreatest = std::numeric_limits<float>::max();

// Wide enough for a few vector registers; small, since a hit means looking at each of them.
constexpr std::size_t kBlock = 32;

// One comparison mask without an early exit, so that the compiler vectorises it. NaNs compare
// false.
bool any_above(const float* logits, float threshold) {
  std::uint32_t any = 0;
  for (std::size_t i = 0; i < kBlock; ++i) any |= logits[i] > threshold ? 1U : 0U;
  return any != 0;
}

// The bits of the logits from `i` on, the first one lowest; all where there is no mask, none where
// it ends.
std::uint32_t bits_at(std::span<const std::uint64_t> allowed, std::size_t i) {
  if (allowed.empty()) return ~0U;
  return i / 64 < allowed.size() ? static_cast<std::uint32_t>(allowed[i / 64] >> (i % 64)) : 0;
}

// Calls visit(i) for each allowed logit above `threshold`, which visit may raise. Nearly all blocks
// of a real row are passed over whole.
template <typename Visit>
void for_each_above(std::span<const float> logits, std::span<const std::uint64_t> allowed,
                    const float& threshold, Visit visit) {
  static_assert(64 % kBlock == 0 && kBlock <= 32);
  std::size_t i = 0;
  for (; i + kBlock <= logits.size(); i += kBlock) {
    const std::uint32_t bits = bits_at(allowed, i);
    if (bits == 0 || !any_above(&logits[i], threshold)) continue;
    for (std::size_t j = i; j < i + kBlock; ++j) {
      if ((bits >> (j - i) & 1) != 0 && logits[j] > threshold) visit(j);
    }
  }
  for (; i < logits.size(); ++i) {
    if ((bits_at(allowed, i) & 1) != 0 && logits[i] > threshold) visit(i);
  }
}

auto iterator_at(std::vector<Candidate>& items, std::size_t index) {
  return items.begin() + static_cast<std::ptrdiff_t>(index);
}

// Puts items[from, to) in order where they are the next ones of the whole by `before`.
template <typename Before>
void sort_part(std::vector<Candidate>& items, std::size_t from, std::size_t to, Before before) {
  if (to < items.size()) {
    std::nth_element(iterator_at(items, from), iterator_at(items, to - 1), items.end(), before);
  }
  std::sort(iterator_at(items, from), iterator_at(items, to), before);
}

// How much of the set to sort next: most answers need a few dozen candidates of a vocabulary.
std::size_t next_part(std::size_t sorted, std::size_t size) {
  return std::min(size, std::max<std::size_t>(128, 2 * sorted));
}

}  // namespace

Token first_maximum(std::span<const float> logits, std::span<const std::uint64_t> allowed) {
  float best = -kInfinity;
  std::size_t token = 0;
  for_each_above(logits, allowed, best, [&](std::size_t i) {
    best = logits[i];
    token = i;
  });
  return static_cast<Token>(token);
}

Candidates::Candidates(std::size_t vocab_size, std::size_t top_k)
    : limited_(top_k < vocab_size),
      top_k_(top_k),
      limit_(std::min(vocab_size, top_k + std::max<std::size_t>(top_k, 256))) {
  items_.reserve(limit_);
  weights_.reserve(top_k_);
}

void Candidates::collect(std::span<const float> logits, std::span<const std::uint64_t> allowed) {
  items_.clear();
  sorted_ = 0;
  // A logit equal to the threshold comes after top_k_ better ones: ids ascend.
  float threshold = -kInfinity;
  for_each_above(logits, allowed, threshold, [&](std::size_t i) {
    items_.push_back({std::min(logits[i], kGreatest), static_cast<Token>(i)});
    if (items_.size() < limit_ || limit_ <= top_k_) return;
    std::nth_element(items_.begin(), iterator_at(items_, top_k_ - 1), items_.end(), better);
    keep_first(top_k_);
    threshold = items_.back().logit;
  });
  if (items_.size() > top_k_) {
    std::nth_element(items_.begin(), iterator_at(items_, top_k_ - 1), items_.end(), better);
    keep_first(top_k_);
  }
}

void Candidates::keep_typical(float p) {
  if (!(p < 1.0F) || items_.size() <= 1) return;
  // With x a candidate's logit less the best one's and S = sum(e^x), its information is log S - x
  // and the entropy log S - E[x]: their distance is |x - E[x]|.
  const float best = best_logit();
  double mass = 0.0;
  double mean = 0.0;
  for (const Candidate& item : items_) {
    const float x = item.logit - best;
    const double weight = std::exp(x);
    if (weight <= 0.0) continue;
    mass += weight;
    mean += weight * x;
  }
  const auto center = static_cast<float>(mean / mass);
  const auto nearer = [&](const Candidate& a, const Candidate& b) {
    const float to_a = std::fabs(a.logit - best - center);
    const float to_b = std::fabs(b.logit - best - center);
    return to_a != to_b ? to_a < to_b : better(a, b);
  };

  const double wanted = p * mass;
  double kept = 0.0;
  std::size_t count = 0;
  std::size_t in_order = 0;
  while (count < items_.size()) {
    if (count == in_order) {
      in_order = next_part(count, items_.size());
      sort_part(items_, count, in_order, nearer);
    }
    kept += std::exp(items_[count].logit - best);
    ++count;
    if (kept > wanted) break;
  }
  sorted_ = 0;
  keep_first(count);
}

void Candidates::keep_top_p(float p) {
  if (!(p < 1.0F) || items_.size() <= 1) return;
  const float best = best_logit();
  double mass = 0.0;
  for (const Candidate& item : items_) mass += std::exp(item.logit - best);

  const double wanted = p * mass;
  double kept = 0.0;
  std::size_t count = 0;
  while (count < items_.size()) {
    if (count == sorted_) sort_to(next_part(count, items_.size()));
    kept += std::exp(items_[count].logit - best);
    ++count;
    if (kept >= wanted) break;
  }
  keep_first(count);
}

void Candidates::keep_min_p(float p) {
  if (!(p > 0.0F) || items_.size() <= 1) return;
  const float floor = std::min(std::log(p), 0.0F);
  const float best = best_logit();
  std::erase_if(items_, [&](const Candidate& item) { return item.logit - best < floor; });
  // Those left out were the worst ones, so what is left of the front is still in order.
  sorted_ = std::min(sorted_, items_.size());
}

void Candidates::drop_top(float threshold) {
  if (threshold > 0.5F || items_.size() <= 1) return;
  const float best = best_logit();
  double mass = 0.0;
  for (const Candidate& item : items_) mass += std::exp(item.logit - best);
  const double least = threshold * mass;
  const auto count = static_cast<std::size_t>(std::ranges::count_if(
      items_, [&](const Candidate& item) { return std::exp(item.logit - best) >= least; }));
  if (count < 2) return;
  sort_to(count);
  items_.erase(items_.begin(), iterator_at(items_, count - 1));
  sorted_ -= count - 1;
}

void Candidates::keep_best(std::size_t count) {
  count = std::clamp<std::size_t>(count, 1, std::max<std::size_t>(items_.size(), 1));
  if (count >= items_.size()) return;
  sort_to(count);
  keep_first(count);
}

void Candidates::keep_likelier(double floor) {
  if (items_.size() <= 1) return;
  const float best = best_logit();
  const double log_mass = static_cast<double>(best) - logprob(best);
  if (!(static_cast<double>(best) - log_mass >= floor)) {
    keep_best(1);
    return;
  }
  std::erase_if(items_, [&](const Candidate& item) {
    return static_cast<double>(item.logit) - log_mass < floor;
  });
  sorted_ = std::min(sorted_, items_.size());
}

void Candidates::scale(float temperature) {
  if (items_.empty()) return;
  const float best = best_logit();
  for (Candidate& item : items_) {
    item.logit = std::max((item.logit - best) / temperature, -kGreatest);
  }
}

double Candidates::entropy_share() const {
  if (items_.size() <= 1) return 0.0;
  const float best = best_logit();
  double mass = 0.0;
  double sum = 0.0;
  for (const Candidate& item : items_) {
    const double x = item.logit - best;
    const double weight = std::exp(x);
    if (weight <= 0.0) continue;
    mass += weight;
    sum += weight * x;
  }
  const double entropy = std::log(mass) - sum / mass;
  return std::clamp(entropy / std::log(static_cast<double>(items_.size())), 0.0, 1.0);
}

double Candidates::logprob(float logit) const {
  const float best = best_logit();
  double mass = 0.0;
  for (const Candidate& item : items_) mass += std::exp(item.logit - best);
  return static_cast<double>(logit - best) - std::log(mass);
}

std::span<const Candidate> Candidates::best(std::size_t count) {
  count = std::min(count, items_.size());
  sort_to(count);
  return std::span(items_).first(count);
}

Token Candidates::draw(float temperature, double uniform) {
  if (items_.empty()) return 0;
  if (!(temperature > 0.0F)) return best(1).front().id;
  return items_[draw_index(temperature, uniform)].id;
}

Candidate Candidates::draw(double uniform) { return items_[draw_index(1.0F, uniform)]; }

std::size_t Candidates::draw_index(float temperature, double uniform) {
  const float best = best_logit();
  weights_.clear();
  double mass = 0.0;
  for (const Candidate& item : items_) {
    // Divided, since the inverse of a very small temperature is infinite.
    const float weight = std::exp((item.logit - best) / temperature);
    weights_.push_back(weight);
    mass += weight;
  }
  const double target = uniform * mass;
  double sum = 0.0;
  std::size_t chosen = 0;
  for (std::size_t i = 0; i < items_.size(); ++i) {
    if (!(weights_[i] > 0.0F)) continue;
    chosen = i;  // stays where rounding leaves the sum below the target at the end
    sum += weights_[i];
    if (sum > target) break;
  }
  return chosen;
}

float Candidates::best_logit() const {
  if (sorted_ > 0) return items_.front().logit;
  float best = -kInfinity;
  for (const Candidate& item : items_) best = std::max(best, item.logit);
  return best;
}

void Candidates::sort_to(std::size_t count) {
  if (count <= sorted_) return;
  sort_part(items_, sorted_, count, better);
  sorted_ = count;
}

void Candidates::keep_first(std::size_t count) {
  items_.erase(iterator_at(items_, count), items_.end());
  sorted_ = std::min(sorted_, count);
}

}  // namespace ollama::sample
