#include "engine/pooling.h"

#include <algorithm>
#include <cmath>

namespace ollama::engine {

bool Pooler::wants(std::size_t token, std::size_t count) const {
  switch (pooling_) {
    case model::Pooling::kMean:
      return true;
    case model::Pooling::kFirst:
    case model::Pooling::kRank:
      return token == 0;
    case model::Pooling::kLast:
      return token + 1 == count;
  }
  return false;
}

void Pooler::add(std::span<const float> state) {
  for (std::size_t i = 0; i < sum_.size(); ++i) sum_[i] += static_cast<double>(state[i]);
  ++added_;
}

std::vector<float> Pooler::result() const {
  std::vector<float> mean(sum_.size());
  const double count = static_cast<double>(std::max<std::size_t>(added_, 1));
  std::ranges::transform(sum_, mean.begin(),
                         [count](double sum) { return static_cast<float>(sum / count); });
  return mean;
}

void normalize(std::span<float> values) {
  double squares = 0;
  for (const float value : values) squares += static_cast<double>(value) * value;
  const double scale = 1 / std::max(std::sqrt(squares), 1e-12);
  for (float& value : values) value = static_cast<float>(value * scale);
}

}  // namespace ollama::engine
