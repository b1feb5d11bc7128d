// Which device each layer of a model, its cache and the output go to. A pure function of what the
// model needs and what the devices have, so that a plan can be tested, printed and explained.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "gguf/file.h"
#include "kvcache/cache.h"
#include "ml/backend.h"

namespace ollama::memory {

// Bytes that a model needs, layer by layer.
struct Demand {
  std::vector<std::uint64_t> weights;  // of each layer: its tensors "blk.LAYER.*"
  std::vector<std::uint64_t> cache;    // of each layer, for all cells that it keeps
  std::uint64_t output_weights = 0;    // every tensor of no layer
  std::uint64_t total_weights() const;
  std::uint64_t total_cache() const;
};

// What the file's tensors take, and what a cache of these layers would.
Demand demand(const gguf::File& file, std::span<const kvcache::LayerSpec> layers,
              const kvcache::CacheOptions& options);

struct Plan {
  ml::Placement placement;
  std::uint64_t weight_bytes = 0;
  std::uint64_t cache_bytes = 0;
};

// Places everything on the CPU, the only kind of device in use today. Errors: kOutOfMemory with
// what is needed and what there is, when the weights alone are more than the machine's memory: a
// cache's pages are committed by use, weights are all read for every token.
Result<Plan> fit(const Demand& demand, std::span<const ml::Device> devices);

}  // namespace ollama::memory
