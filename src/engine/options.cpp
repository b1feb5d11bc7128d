#include "engine/engine.h"
#include "envconfig/config.h"

namespace ollama::engine {

LoadOptions load_options_of(const envconfig::Config& config) {
  LoadOptions load;
  load.parallel = config.num_parallel;
  load.spread = config.sched_spread;
  load.vram_min_free = config.vram_min_free;
  load.gpu_overhead = config.gpu_overhead;
  load.devices = ml::device_options_of(config);
  load.kv_type = ml::parse_dtype(config.kv_cache_type).value_or(load.kv_type);
  if (config.flash_attention) {
    load.flash_attention =
        *config.flash_attention ? ml::FlashAttention::kOn : ml::FlashAttention::kOff;
  }
  load.kernels = ml::cpu_kernels_of(config.cpu_kernels);
  load.validation = nn::validation_of(config.validation);
  return load;
}

}  // namespace ollama::engine
