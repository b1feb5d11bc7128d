#include "memory/plan.h"

#include <algorithm>
#include <numeric>

#include "base/units.h"

namespace ollama::memory {
namespace {

// The layer of "blk.LAYER.NAME"; layers or more for every other tensor.
std::size_t layer_of(std::string_view name, std::size_t layers) {
  constexpr std::string_view kPrefix = "blk.";
  if (!name.starts_with(kPrefix)) return layers;
  name.remove_prefix(kPrefix.size());
  return parse_number<std::size_t>(name.substr(0, name.find('.'))).value_or(layers);
}

}  // namespace

std::uint64_t Demand::total_weights() const {
  return std::accumulate(weights.begin(), weights.end(), output_weights);
}
std::uint64_t Demand::total_cache() const {
  return std::accumulate(cache.begin(), cache.end(), std::uint64_t{0});
}

Demand demand(const gguf::File& file, std::span<const kvcache::LayerSpec> layers,
              const kvcache::CacheOptions& options) {
  Demand result;
  result.weights.resize(layers.size());
  for (const gguf::TensorInfo& tensor : file.tensors()) {
    const std::size_t layer = layer_of(tensor.name, layers.size());
    (layer < layers.size() ? result.weights[layer] : result.output_weights) += tensor.size;
  }
  for (const kvcache::LayerSpec& layer : layers) {
    const std::uint64_t cells = kvcache::cells_of_window(layer.window, options);
    const std::size_t keys = ml::row_size(options.k_type, layer.head_dim_k);
    const std::size_t values =
        layer.values_in_keys ? 0 : ml::row_size(options.v_type, layer.head_dim_v);
    result.cache.push_back(cells * static_cast<std::uint64_t>(layer.kv_heads) * (keys + values));
  }
  return result;
}

Result<Plan> fit(const Demand& demand, std::span<const ml::Device> devices) {
  const auto cpu = std::ranges::find(devices, false, &ml::Device::is_gpu);
  if (cpu == devices.end()) return fail(ErrorCode::kUnsupported, "there is no CPU device");
  const std::uint64_t weights = demand.total_weights();
  if (cpu->total_bytes > 0 && weights > cpu->total_bytes) {
    return fail(ErrorCode::kOutOfMemory,
                "model requires more system memory ({}) than is available ({})",
                human_bytes_binary(weights), human_bytes_binary(cpu->total_bytes));
  }
  const int index = static_cast<int>(cpu - devices.begin());
  return Plan{
      .placement = {.layers = std::vector<int>(demand.weights.size(), index), .output = index},
      .weight_bytes = weights,
      .cache_bytes = demand.total_cache()};
}

}  // namespace ollama::memory
