#include "sample/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <random>

#include "grammar/constraint.h"
#include "sample/candidates.h"
#include "sample/dry.h"
#include "sample/logprobs.h"
#include "sample/mirostat.h"
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
  return !(options.temperature > 0.0F) || (options.top_k == 1 && options.mirostat == 0);
}

// What a bias adds: its ends are meant as never and always.
float effective(float bias) {
  constexpr float kForce = 1000.0F;
  if (bias <= -kMostBias) return -std::numeric_limits<float>::infinity();
  return bias >= kMostBias ? kForce : bias;
}

std::size_t effective_top_k(const Options& options, std::size_t vocab_size) {
  if (options.top_k <= 0 || options.mirostat != 0) return vocab_size;
  return std::min(vocab_size, static_cast<std::size_t>(options.top_k));
}

constexpr std::size_t kMostBreakers = 64;
constexpr std::size_t kLongestBreaker = 128;

template <typename... Args>
std::unexpected<Error> invalid(std::format_string<Args...> format, Args&&... args) {
  return fail(ErrorCode::kInvalidArgument, format, std::forward<Args>(args)...);
}

Result<> validate_finite(const Options& options) {
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
    if (!std::isfinite(value)) return invalid("option '{}' must be a finite number", name);
  }
  return {};
}

// What has bounds; a NaN is outside of them.
Result<> validate_ranges(const Options& options) {
  constexpr float kMost = std::numeric_limits<float>::max();
  const struct {
    const char* name;
    float value;
    float least;
    float most;
  } numbers[] = {{"dynatemp_range", options.dynatemp_range, 0, kMost},
                 {"dynatemp_exponent", options.dynatemp_exponent, 0, kMost},
                 {"xtc_probability", options.xtc_probability, 0, 1},
                 {"xtc_threshold", options.xtc_threshold, 0, 1},
                 {"dry_multiplier", options.dry_multiplier, 0, kMost},
                 {"dry_base", options.dry_base, 1, kMost},
                 {"mirostat_tau", options.mirostat_tau, 0, kMost},
                 {"mirostat_eta", options.mirostat_eta, 0, kMost}};
  for (const auto& [name, value, least, most] : numbers) {
    if (value >= least && value <= most) continue;
    if (most < kMost)
      return invalid("option '{}' must be {} to {}, not {}", name, least, most, value);
    return invalid("option '{}' must be a finite number of at least {}, not {}", name, least,
                   value);
  }
  if (options.mirostat < 0 || options.mirostat > 2) {
    return invalid("option 'mirostat' must be 0 (off), 1 or 2, not {}", options.mirostat);
  }
  if (options.logprobs < -1 || options.logprobs > kMostLogprobs) {
    return invalid("top_logprobs must be between 0 and {}", kMostLogprobs);
  }
  return {};
}

Result<> validate_windows(const Options& options) {
  const struct {
    const char* name;
    std::int32_t value;
  } windows[] = {{"repeat_last_n", options.repeat_last_n},
                 {"dry_penalty_last_n", options.dry_penalty_last_n}};
  for (const auto& [name, value] : windows) {
    if (value >= -1) continue;
    return invalid("option '{}' must be -1 (the whole text), 0 (off) or a number of tokens, not {}",
                   name, value);
  }
  if (options.dry_allowed_length < 0) {
    return invalid("option 'dry_allowed_length' must be a number of tokens, not {}",
                   options.dry_allowed_length);
  }
  if (options.dry_sequence_breakers.size() > kMostBreakers) {
    return invalid("option 'dry_sequence_breakers' has more than {} texts", kMostBreakers);
  }
  for (const std::string& breaker : options.dry_sequence_breakers) {
    if (breaker.empty() || breaker.size() > kLongestBreaker) {
      return invalid("option 'dry_sequence_breakers' must hold texts of 1 to {} bytes",
                     kLongestBreaker);
    }
  }
  return {};
}

Result<> validate_bias(const Options& options, std::size_t vocab_size) {
  for (const auto& [token, bias] : options.logit_bias) {
    if (token < 0 || static_cast<std::size_t>(token) >= vocab_size) {
      return invalid(
          "option 'logit_bias' names the token {}, which the model's vocabulary does "
          "not have",
          token);
    }
    if (!(std::fabs(bias) <= kMostBias)) {
      return invalid("option 'logit_bias' must hold numbers of -{0} to {0}, not {1}", kMostBias,
                     bias);
    }
  }
  return {};
}

}  // namespace

Result<> validate(const Options& options, std::size_t vocab_size) {
  OLLAMA_TRY(validate_finite(options));
  if (options.repeat_penalty <= 0.0F) {
    return invalid("option 'repeat_penalty' must be above 0 (1 turns it off), not {}",
                   options.repeat_penalty);
  }
  OLLAMA_TRY(validate_ranges(options));
  OLLAMA_TRY(validate_windows(options));
  return validate_bias(options, vocab_size);
}

Options within(Options options, std::size_t context) {
  for (std::int32_t* window : {&options.repeat_last_n, &options.dry_penalty_last_n}) {
    if (*window > 0 && static_cast<std::size_t>(*window) > context) *window = -1;
  }
  return options;
}

// The chain, in llama.cpp's order. What changes single logits comes before the choice of
// candidates, what drops candidates between it and the temperature. Mirostat takes the place of
// what drops candidates.
struct Sampler::State {
  State(const Options& chosen, std::size_t vocab_size, PieceOf piece)
      : options(chosen),
        vocab_size(vocab_size),
        penalties(options, vocab_size),
        random(options.seed) {
    if (!is_greedy(options) && vocab_size > 0) {
      candidates.emplace(vocab_size, effective_top_k(options, vocab_size));
      if (options.mirostat != 0) mirostat.emplace(options, vocab_size);
    }
    if (options.dry_multiplier > 0.0F) dry.emplace(options, vocab_size, std::move(piece));
    if (options.logprobs >= 0) {
      logprobs.emplace(static_cast<std::size_t>(options.logprobs), vocab_size);
    }
  }

  Token sample(std::span<float> logits) {
    logits = prepare(logits);
    return told(choose(logits, {}));
  }

  Token sample(std::span<float> logits, grammar::Constraint& constraint) {
    logits = prepare(logits);
    // Without a mask first, which most tokens need not wait for. Where a choice that is refused is
    // made again among what is allowed, token t of the allowed ones comes up with
    //   p(t) + (1 - p(allowed)) * p(t) / p(allowed) = p(t) / p(allowed),
    // as it would with the mask alone. That holds for the softmax and for the maximum, and no
    // longer where a filter cuts the candidates: of the 40 best of all tokens, few may be allowed,
    // but 40 are left of the allowed ones.
    if (!filters()) {
      const Token token = choose(logits, {});
      if (constraint.allows(token)) return told(token);
    }
    return choose_allowed(logits, constraint);
  }

  // From logits that are prepared.
  Token choose_allowed(std::span<float> logits, grammar::Constraint& constraint) {
    const Token first = constraint.first_allowed();
    if (first < 0 || static_cast<std::size_t>(first) >= logits.size()) return tokenizer::kNoToken;
    const Token token = choose(logits, constraint.mask());
    return told(constraint.allows(token) ? token : first);
  }

  void accept(Token token) {
    penalties.accept(token);
    if (dry) dry->accept(token);
  }

  void reset() {
    penalties.reset();
    if (dry) dry->reset();
    if (mirostat) mirostat->reset();
    random.restart();
  }

 private:
  // What changes single logits.
  std::span<float> prepare(std::span<float> logits) {
    logits = logits.first(std::min(logits.size(), vocab_size));
    if (logprobs) logprobs->take(logits);
    for (const auto& [token, bias] : options.logit_bias) {
      const auto index = static_cast<std::size_t>(token);
      if (index < logits.size()) logits[index] += effective(bias);
    }
    penalties.apply(logits);
    if (dry) dry->apply(logits);
    return logits;
  }

  Token told(Token token) {
    if (logprobs) logprobs->choose(token);
    return token;
  }

  // Whether the choice is by other than the softmax of the whole vocabulary.
  bool filters() const {
    return candidates &&
           (candidates->limited() || options.typical_p < 1.0F || options.top_p < 1.0F ||
            options.min_p > 0.0F || options.xtc_probability > 0.0F ||
            options.dynatemp_range > 0.0F || mirostat);
  }

  Token choose(std::span<float> logits, std::span<const std::uint64_t> allowed) {
    if (!candidates) return first_maximum(logits, allowed);
    candidates->collect(logits, allowed);
    if (mirostat) return mirostat->draw(*candidates, temperature(), random.uniform());
    candidates->keep_typical(options.typical_p);
    candidates->keep_top_p(options.top_p);
    candidates->keep_min_p(options.min_p);
    if (options.xtc_probability > 0.0F &&
        random.uniform() < static_cast<double>(options.xtc_probability)) {
      candidates->drop_top(options.xtc_threshold);
    }
    return candidates->draw(temperature(), random.uniform());
  }

  float temperature() const {
    const float range = options.dynatemp_range;
    if (!(range > 0.0F) || candidates->items().size() <= 1) return options.temperature;
    const float least = std::max(0.0F, options.temperature - range);
    const auto power = static_cast<float>(
        std::pow(candidates->entropy_share(), static_cast<double>(options.dynatemp_exponent)));
    return least + (options.temperature + range - least) * power;
  }

 public:
  Options options;
  std::size_t vocab_size;
  Penalties penalties;
  std::optional<Dry> dry;
  Random random;
  std::optional<Candidates> candidates;  // none where the choice is greedy
  std::optional<Mirostat> mirostat;
  std::optional<Logprobs> logprobs;
};

Sampler::Sampler(const Options& options, std::size_t vocab_size, PieceOf piece)
    : state_(std::make_unique<State>(options, vocab_size, std::move(piece))) {}
Sampler::Sampler(Sampler&&) noexcept = default;
Sampler& Sampler::operator=(Sampler&&) noexcept = default;
Sampler::~Sampler() = default;

Token Sampler::sample(std::span<float> logits) { return state_->sample(logits); }
Token Sampler::sample(std::span<float> logits, grammar::Constraint& constraint) {
  return state_->sample(logits, constraint);
}

Token Sampler::sample_again(std::span<float> logits, grammar::Constraint& constraint) {
  return state_->choose_allowed(logits.first(std::min(logits.size(), state_->vocab_size)),
                                constraint);
}

std::span<const TokenLogprob> Sampler::logprobs() const {
  return state_->logprobs ? state_->logprobs->entries() : std::span<const TokenLogprob>();
}

void Sampler::accept(Token token) { state_->accept(token); }

void Sampler::reset() { state_->reset(); }

}  // namespace ollama::sample
