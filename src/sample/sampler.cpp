#include "sample/sampler.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <random>

#include "grammar/constraint.h"
#include "sample/candidates.h"
#include "sample/penalties.h"

namespace ollama::sample {
namespace {

// Random numbers that are the same everywhere for a seed: the standard fixes the engine's output,
// and the conversion to [0, 1) is ours (std::uniform_real_distribution's is up to the library).
class Random {
 public:
  explicit Random(std::int64_t seed) : seed_(seed) { restart(); }

  void restart() {
    if (seed_ >= 0) {
      engine_.seed(static_cast<std::uint64_t>(seed_));
    } else {
      std::random_device device;
      engine_.seed((std::uint64_t{device()} << 32) | device());
    }
  }
  double uniform() { return static_cast<double>(engine_() >> 11) * 0x1p-53; }

 private:
  std::int64_t seed_;
  std::mt19937_64 engine_;
};

// Whether the best token is the only one that can be chosen. Written so that a NaN is greedy.
bool is_greedy(const Options& options) {
  return !(options.temperature > 0.0F) || options.top_k == 1;
}

std::size_t effective_top_k(const Options& options, std::size_t vocab_size) {
  if (options.top_k <= 0) return vocab_size;
  return std::min(vocab_size, static_cast<std::size_t>(options.top_k));
}

}  // namespace

Result<> validate(const Options& options) {
  const struct {
    const char* name;
    float value;
  } numbers[] = {{"temperature", options.temperature},
                 {"top_p", options.top_p},
                 {"min_p", options.min_p},
                 {"typical_p", options.typical_p},
                 {"repeat_penalty", options.repeat_penalty},
                 {"presence_penalty", options.presence_penalty},
                 {"frequency_penalty", options.frequency_penalty}};
  for (const auto& [name, value] : numbers) {
    if (!std::isfinite(value)) {
      return fail(ErrorCode::kInvalidArgument, "option '{}' must be a finite number", name);
    }
  }
  if (options.repeat_penalty <= 0.0F) {
    return fail(ErrorCode::kInvalidArgument,
                "option 'repeat_penalty' must be above 0 (1 turns it off), not {}",
                options.repeat_penalty);
  }
  if (options.repeat_last_n < -1) {
    return fail(ErrorCode::kInvalidArgument,
                "option 'repeat_last_n' must be -1 (the whole text), 0 (off) or a number of "
                "tokens, not {}",
                options.repeat_last_n);
  }
  return {};
}

// The chain, in llama.cpp's order. What changes single logits comes before the choice of
// candidates, what drops candidates between it and the temperature.
struct Sampler::State {
  State(const Options& chosen, std::size_t vocab_size)
      : options(chosen),
        vocab_size(vocab_size),
        penalties(options, vocab_size),
        random(options.seed) {
    if (!is_greedy(options) && vocab_size > 0) {
      candidates.emplace(vocab_size, effective_top_k(options, vocab_size));
    }
  }

  Token sample(std::span<float> logits) {
    logits = logits.first(std::min(logits.size(), vocab_size));
    penalties.apply(logits);
    return choose(logits, {});
  }

  Token sample(std::span<float> logits, grammar::Constraint& constraint) {
    logits = logits.first(std::min(logits.size(), vocab_size));
    penalties.apply(logits);
    // Without a mask first, which most tokens need not wait for. Where a choice that is refused is
    // made again among what is allowed, token t of the allowed ones comes up with
    //   p(t) + (1 - p(allowed)) * p(t) / p(allowed) = p(t) / p(allowed),
    // as it would with the mask alone. That holds for the softmax and for the maximum, and no
    // longer where a filter cuts the candidates: of the 40 best of all tokens, few may be allowed,
    // but 40 are left of the allowed ones.
    if (!filters()) {
      const Token token = choose(logits, {});
      if (constraint.allows(token)) return token;
    }
    const Token first = constraint.first_allowed();
    if (first < 0 || static_cast<std::size_t>(first) >= logits.size()) return tokenizer::kNoToken;
    const Token token = choose(logits, constraint.mask());
    return constraint.allows(token) ? token : first;
  }

 private:
  bool filters() const {
    return candidates && (candidates->limited() || options.typical_p < 1.0F ||
                          options.top_p < 1.0F || options.min_p > 0.0F);
  }

  Token choose(std::span<float> logits, std::span<const std::uint64_t> allowed) {
    if (!candidates) return first_maximum(logits, allowed);
    candidates->collect(logits, allowed);
    candidates->keep_typical(options.typical_p);
    candidates->keep_top_p(options.top_p);
    candidates->keep_min_p(options.min_p);
    return candidates->draw(options.temperature, random.uniform());
  }

 public:
  Options options;
  std::size_t vocab_size;
  Penalties penalties;
  Random random;
  std::optional<Candidates> candidates;  // none where the choice is greedy
};

Sampler::Sampler(const Options& options, std::size_t vocab_size)
    : state_(std::make_unique<State>(options, vocab_size)) {}
Sampler::Sampler(Sampler&&) noexcept = default;
Sampler& Sampler::operator=(Sampler&&) noexcept = default;
Sampler::~Sampler() = default;

Token Sampler::sample(std::span<float> logits) { return state_->sample(logits); }
Token Sampler::sample(std::span<float> logits, grammar::Constraint& constraint) {
  return state_->sample(logits, constraint);
}

void Sampler::accept(Token token) { state_->penalties.accept(token); }

void Sampler::reset() {
  state_->penalties.reset();
  state_->random.restart();
}

}  // namespace ollama::sample
