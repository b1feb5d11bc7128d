// Which device each layer of a model, its cache and the output go to. A pure function of what the
// model needs and what the devices have, so that a plan can be tested, printed and explained.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/units.h"
#include "gguf/file.h"
#include "kvcache/cache.h"
#include "ml/device.h"

namespace ollama::memory {

// Bytes that a model needs, layer by layer.
struct Demand {
  std::vector<std::uint64_t> weights;  // of each layer: its tensors "blk.LAYER.*"
  std::vector<std::uint64_t> cache;    // of each layer, for all cells that it keeps
  std::uint64_t output_weights = 0;    // what goes where the output goes: its matrix and norm
  std::uint64_t table_weights = 0;     // tables that rows are looked up in: the CPU's
  // Where the output's matrix is such a table, a GPU needs a copy of it, this large.
  std::uint64_t output_copy = 0;
  // What graphs take on a device, by its name, as far as it was measured.
  std::map<std::string, std::uint64_t, std::less<>> graph;

  std::uint64_t total_weights() const;
  std::uint64_t total_cache() const;
  // Parts that are placed one by one: the layers, and the output after the last of them.
  std::size_t units() const { return weights.size() + 1; }
};

// What the file's tensors take, and what a cache of these layers would. Nothing is known of graphs
// yet.
Demand demand(const gguf::File& file, std::span<const kvcache::LayerSpec> layers,
              const kvcache::CacheOptions& options);

struct Limits {
  // Units to place on GPUs: -1 as many as fit; else exactly so many, or all where that is more.
  std::int32_t gpu_layers = -1;
  std::int32_t main_gpu = -1;  // the one to use where one is enough, counted from 0; -1: the best
  bool spread = false;         // over all GPUs even where one is enough
  std::uint64_t min_free = 457 * kMiB;  // kept free on each GPU
  std::uint64_t overhead = 0;           // and this beside it
  // Other models are loaded that could go: then nothing less will do than everything on GPUs where
  // there are any, and in memory that is free now.
  bool whole = false;
  // What turned out to be missing on a device, by its name, in spite of an earlier plan.
  std::map<std::string, std::uint64_t, std::less<>> withheld;
  // GPUs that cannot serve this model whatever is free there, by name, and why.
  std::map<std::string, std::string, std::less<>> unfit;
};

// One device's part.
struct Share {
  ml::Device device;
  std::uint32_t layers = 0;
  bool output = false;
  std::uint64_t weights = 0;
  std::uint64_t cache = 0;
  std::uint64_t graph = 0;
  std::uint64_t kept_free = 0;  // of a GPU: what the limits withhold
  std::string reason;           // why it has no more than this

  std::uint64_t bytes() const { return weights + cache + graph; }
  // What may be used of a GPU, graphs included.
  std::uint64_t budget() const;
};

struct Plan {
  // Indices of `shares`: the GPUs that have a part, then the CPU.
  ml::Placement placement;
  std::vector<Share> shares;
  std::vector<Share> unused;  // GPUs that have none, and why
  std::uint32_t placed = 0;   // units on GPUs
  std::uint32_t units = 0;    // of them all

  std::vector<std::string> gpus() const;  // names, in the order of `shares`
  const Share& cpu() const { return shares.back(); }
};

// Places a model. Layers go to GPUs from the last one back, each GPU a run of them: as many as fit,
// on as few GPUs as they need. Errors: kOutOfMemory with what is missing (the layers that
// `gpu_layers` demands, or the weights alone in the machine's memory: a cache's pages are committed
// by use); kNoRoom where `whole` cannot be had now; kInvalidArgument (main_gpu, gpu_layers).
Result<Plan> plan(const Demand& demand, std::span<const ml::Device> devices, const Limits& limits);

// What another plan (of other settings) gains over this one: "would place 3 more layers (20 of
// 33)", "would take 480.0 MiB less for the cache"; nullopt where it gains nothing.
std::optional<std::string> gain(const Plan& plan, const Demand& demand, const Result<Plan>& other,
                                const Demand& other_demand);

}  // namespace ollama::memory
