#include "runner/options.h"

#include <algorithm>

#include "ml/thread_count.h"

namespace ollama::runner {

void apply_options(const api::Options& options, Generate& generate) {
  sample::Options& sampling = generate.sampling;
  const auto set = [](auto& to, const auto& from) {
    if (from) to = *from;
  };
  set(sampling.temperature, options.temperature);
  set(sampling.top_k, options.top_k);
  set(sampling.top_p, options.top_p);
  set(sampling.min_p, options.min_p);
  set(sampling.typical_p, options.typical_p);
  set(sampling.repeat_last_n, options.repeat_last_n);
  set(sampling.repeat_penalty, options.repeat_penalty);
  set(sampling.presence_penalty, options.presence_penalty);
  set(sampling.frequency_penalty, options.frequency_penalty);
  set(sampling.seed, options.seed);
  set(sampling.dynatemp_range, options.dynatemp_range);
  set(sampling.dynatemp_exponent, options.dynatemp_exponent);
  set(sampling.xtc_probability, options.xtc_probability);
  set(sampling.xtc_threshold, options.xtc_threshold);
  set(sampling.dry_multiplier, options.dry_multiplier);
  set(sampling.dry_base, options.dry_base);
  set(sampling.dry_allowed_length, options.dry_allowed_length);
  set(sampling.dry_penalty_last_n, options.dry_penalty_last_n);
  set(sampling.dry_sequence_breakers, options.dry_sequence_breakers);
  set(sampling.mirostat, options.mirostat);
  set(sampling.mirostat_tau, options.mirostat_tau);
  set(sampling.mirostat_eta, options.mirostat_eta);
  if (options.logit_bias) {
    if (const auto biases = api::parse_logit_bias(*options.logit_bias)) {
      sampling.logit_bias.clear();
      for (const auto& [token, bias] : *biases) sampling.logit_bias.push_back({token, bias});
    }
  }
  set(generate.num_predict, options.num_predict);
  set(generate.num_keep, options.num_keep);
  set(generate.stop, options.stop);
}

void apply_options(const api::Options& options, engine::LoadOptions& load) {
  load.gpu_layers = options.num_gpu.value_or(load.gpu_layers);
  load.main_gpu = options.main_gpu.value_or(load.main_gpu);
  load.use_mmap = options.use_mmap.value_or(load.use_mmap);
  if (options.num_thread.value_or(0) > 0) {
    load.threads = std::min(static_cast<std::uint32_t>(*options.num_thread),
                            static_cast<std::uint32_t>(ml::CpuTopology::read().usable()));
  }
}

}  // namespace ollama::runner
