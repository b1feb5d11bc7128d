// For tests of plans: what real models take, from their published sizes, without their files;
// machines to place them on; and what must hold of every plan.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <filesystem>
#include <format>
#include <initializer_list>
#include <ostream>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "base/units.h"
#include "gguf/file.h"
#include "kvcache/cache.h"
#include "memory/plan.h"
#include "ml/device.h"
#include "ml/dtype.h"

namespace ollama::memory {

// ---- Models

// What graphs of 512 tokens take in MiB, and how that grows with the cache's cells.
struct GraphSize {
  std::uint64_t short_cache = 0;  // of 16384 cells, rounded up
  std::uint64_t long_cache = 0;   // of 131072, or of fewer where those need more

  // Between and beyond the two by a straight line; never less than the first.
  std::uint64_t bytes(std::uint64_t cells) const {
    const std::uint64_t more = std::max(cells, kShort) - kShort;
    return short_cache * kMiB + (long_cache - short_cache) * kMiB * more / (kLong - kShort);
  }
  static constexpr std::uint64_t kShort = 16384;
  static constexpr std::uint64_t kLong = 131072;
};

// Measured by the program (engine::Executor::measure) on 2026-11-26, with GGML 0.27.0, its Vulkan
// backend on Mesa's software driver (llvmpipe, told to bind buffers of any size, as real ones do),
// our kernels on the CPU; files of these shapes as Q4_K_M (gpt-oss: MXFP4), batches of 512 tokens,
// one sequence, an f16 cache, fused attention. engine/shapes_test.cpp measures them again.
//  - Where a GPU has everything, its graphs grow by their mask alone: 1 MiB for 1024 cells. Two
//    GPUs take as much each; four or eight sequences in as many cells up to a tenth more.
//  - Where the CPU has layers, prompts are multiplied on the GPU all the same: graphs hold a
//  layer's
//    weights, experts above all, and its keys and values, whatever the number of such layers.
struct GraphSizes {
  GraphSize whole;  // on a GPU, with everything placed there
  GraphSize part;   // on a GPU, with layers on the CPU
  GraphSize cpu;    // on the CPU, with everything there; beside a GPU it has 4 to 16 MiB
};

struct Shape {
  std::string_view name;
  std::string_view architecture;
  std::uint64_t layers = 0;
  std::uint64_t hidden = 0;
  std::uint64_t heads = 0;
  std::uint64_t kv_heads = 0;
  std::uint64_t head_dim = 0;
  std::uint64_t ffn = 0;           // of each expert
  std::uint64_t experts = 1;       // to choose from
  std::uint64_t chosen = 0;        // of these, by every token
  std::uint64_t more_experts = 0;  // that every token has beside them
  std::uint64_t first_ffn = 0;     // of layer 0 where that has no experts
  std::uint64_t vocabulary = 0;
  bool tied = false;  // the output's matrix is the input's table
  ml::DType table_type = ml::DType::kQ4_K;
  ml::DType output_type = ml::DType::kQ6_K;
  std::int32_t window = 0;
  std::uint64_t full_every = 1;  // with a window: every so manyth layer sees all positions
  // Latent attention: the rank of keys and values, and the elements of a key with a position.
  std::uint64_t latent = 0;
  std::uint64_t rope = 0;
  GraphSizes graphs;

  // Elements of one layer's matrices.
  std::uint64_t elements(std::uint64_t layer) const {
    const std::uint64_t plain = hidden * (2 * heads + 2 * kv_heads) * head_dim;  // Q, O, K, V
    const std::uint64_t low_rank = hidden * heads * (head_dim + rope)            // Q
                                   + hidden * (latent + rope)                    // K and V, down
                                   + latent * heads * 2 * head_dim               // and up
                                   + heads * head_dim * hidden;                  // O
    const std::uint64_t attention = latent == 0 ? plain : low_rank;
    if (layer == 0 && first_ffn != 0) return attention + 3 * hidden * first_ffn;
    return attention + 3 * hidden * ffn * (experts + more_experts);
  }
  // A Q4_K_M file has some 4.85 bits per weight: 485 / 800 bytes.
  std::vector<std::uint64_t> layer_weights() const {
    std::vector<std::uint64_t> bytes;
    for (std::uint64_t i = 0; i < layers; ++i) bytes.push_back(elements(i) * 485 / 800);
    return bytes;
  }
  std::uint64_t matrix_bytes(ml::DType type) const {  // of the table, or the output's matrix
    return vocabulary * ml::row_size(type, static_cast<std::int64_t>(hidden));
  }

  std::vector<kvcache::LayerSpec> cache_layers() const {
    std::vector<kvcache::LayerSpec> result;
    for (std::uint64_t i = 0; i < layers; ++i) {
      const bool windowed = window != 0 && (i + 1) % full_every != 0;
      result.push_back(
          {.head_dim_k = static_cast<std::int32_t>(latent == 0 ? head_dim : latent + rope),
           .head_dim_v = static_cast<std::int32_t>(latent == 0 ? head_dim : latent),
           .kv_heads = static_cast<std::int32_t>(latent == 0 ? kv_heads : 1),
           .window = windowed ? window : 0,
           .values_in_keys = latent != 0});
    }
    return result;
  }
};

// In the names of tests.
// NOLINTNEXTLINE(readability-identifier-naming): gtest's name
inline void PrintTo(const Shape& shape, std::ostream* out) { *out << shape.name; }

inline const std::vector<Shape>& real_shapes() {
  using enum ml::DType;
  static const std::vector<Shape> shapes{
      {.name = "llama-1b",
       .architecture = "llama",
       .layers = 16,
       .hidden = 2048,
       .heads = 32,
       .kv_heads = 8,
       .head_dim = 64,
       .ffn = 8192,
       .vocabulary = 128256,
       .tied = true,
       .table_type = kQ6_K,
       .graphs = {.whole = {79, 191}, .part = {95, 399}, .cpu = {66, 101}}},
      {.name = "llama-8b",
       .architecture = "llama",
       .layers = 32,
       .hidden = 4096,
       .heads = 32,
       .kv_heads = 8,
       .head_dim = 128,
       .ffn = 14336,
       .vocabulary = 128256,
       .graphs = {.whole = {129, 241}, .part = {142, 674}, .cpu = {110, 153}}},
      {.name = "llama-70b",
       .architecture = "llama",
       .layers = 80,
       .hidden = 8192,
       .heads = 64,
       .kv_heads = 8,
       .head_dim = 128,
       .ffn = 28672,
       .vocabulary = 128256,
       .graphs = {.whole = {219, 349}, .part = {289, 725}, .cpu = {214, 270}}},
      {.name = "qwen3-30b-a3b",
       .architecture = "qwen3moe",
       .layers = 48,
       .hidden = 2048,
       .heads = 32,
       .kv_heads = 4,
       .head_dim = 128,
       .ffn = 768,
       .experts = 128,
       .chosen = 8,
       .vocabulary = 151936,
       .graphs = {.whole = {94, 206}, .part = {267, 475}, .cpu = {68, 107}}},
      {.name = "gemma3-27b",
       .architecture = "gemma3",
       .layers = 62,
       .hidden = 5376,
       .heads = 32,
       .kv_heads = 16,
       .head_dim = 128,
       .ffn = 21504,
       .vocabulary = 262144,
       .tied = true,
       .table_type = kQ6_K,
       .window = 1024,
       .full_every = 6,
       .graphs = {.whole = {166, 278}, .part = {221, 1187}, .cpu = {158, 198}}},
      {.name = "gpt-oss-20b",
       .architecture = "gpt-oss",
       .layers = 24,
       .hidden = 2880,
       .heads = 64,
       .kv_heads = 8,
       .head_dim = 64,
       .ffn = 2880,
       .experts = 32,
       .chosen = 4,
       .vocabulary = 201088,
       .table_type = kQ8_0,
       .output_type = kQ8_0,
       .window = 128,
       .full_every = 2,
       .graphs = {.whole = {97, 209}, .part = {226, 413}, .cpu = {100, 143}}},
      {.name = "deepseek2-lite",
       .architecture = "deepseek2",
       .layers = 27,
       .hidden = 2048,
       .heads = 16,
       .head_dim = 128,
       .ffn = 1408,
       .experts = 64,
       .chosen = 6,
       .more_experts = 2,
       .first_ffn = 10944,
       .vocabulary = 102400,
       .latent = 512,
       .rope = 64,
       .graphs = {.whole = {89, 201}, .part = {274, 517}, .cpu = {97, 142}}}};
  return shapes;
}

inline const Shape& shape_named(std::string_view name) {
  for (const Shape& shape : real_shapes()) {
    if (shape.name == name) return shape;
  }
  throw std::invalid_argument("no such shape: " + std::string(name));
}

// ---- What they need

inline const gguf::File& stories() {
  static const gguf::File file =
      *gguf::File::open(std::filesystem::path(OLLAMA_TEST_DATA) / "models/stories260K-f16.gguf");
  return file;
}

struct Setting {
  std::uint32_t context = 16384;
  std::uint32_t parallel = 1;
  ml::DType kv_type = ml::DType::kF16;
  Limits limits = {};
};

inline void set_gpu_graphs(Demand& need, std::uint64_t bytes) {
  for (const char* gpu : {"GPU0", "GPU1", "GPU2"}) need.graph[gpu] = bytes;
}

// As of a file of that shape: the cache is computed for its layers, the weights are its own.
inline Demand demand_of(const Shape& shape, const Setting& setting) {
  Demand need = demand(stories(), shape.cache_layers(),
                       {.cells = setting.context * setting.parallel,
                        .sequences = kvcache::kMaxSequences,
                        .parallel = setting.parallel,
                        .max_batch = 512,
                        .k_type = setting.kv_type,
                        .v_type = setting.kv_type,
                        .config = {}});
  const std::uint64_t norm = shape.hidden * sizeof(float);
  need.weights = shape.layer_weights();
  need.output_weights = norm + (shape.tied ? 0 : shape.matrix_bytes(shape.output_type));
  need.table_weights = shape.matrix_bytes(shape.table_type);
  need.output_copy = shape.tied ? need.table_weights : 0;
  // As of a model that is not wholly on GPUs.
  const std::uint64_t cells = std::uint64_t{setting.context} * setting.parallel;
  set_gpu_graphs(need, shape.graphs.part.bytes(cells));
  need.graph["CPU"] = shape.graphs.cpu.bytes(cells);
  return need;
}

// ---- Machines

using ml::Device;
using Devices = std::vector<Device>;

inline Device gpu(std::size_t index, std::uint64_t free_bytes) {
  return {.name = std::format("GPU{}", index),
          .library = "vulkan",
          .kind = ml::DeviceKind::kGpu,
          .total_bytes = free_bytes,
          .free_bytes = free_bytes};
}
inline Device cpu(std::uint64_t total_bytes) {
  return {.name = "CPU",
          .library = "cpu",
          .total_bytes = total_bytes,
          .free_bytes = total_bytes / 8 * 7};
}
// GPUs with so many GiB, and a CPU with 256.
inline Devices machine(std::initializer_list<std::uint64_t> gibs) {
  Devices devices;
  for (const std::uint64_t gib : gibs) devices.push_back(gpu(devices.size(), gib * kGiB));
  devices.push_back(cpu(256 * kGiB));
  return devices;
}

struct Machine {
  std::string_view name;
  Devices devices;
};

inline const std::vector<Machine>& machines() {
  static const std::vector<Machine> all = [] {
    Devices mixed = machine({8, 24, 12});
    mixed[2].library = "rpc";
    return std::vector<Machine>{
        {"no GPU", machine({})},   {"8 GiB", machine({8})},     {"12 GiB", machine({12})},
        {"24 GiB", machine({24})}, {"2x24", machine({24, 24})}, {"80 GiB", machine({80})},
        {"mixed", mixed}};
  }();
  return all;
}

inline const Devices& machine_named(std::string_view name) {
  const auto found = std::ranges::find(machines(), name, &Machine::name);
  if (found == machines().end()) throw std::invalid_argument("no such machine");
  return found->devices;
}

// As engine/placing.h does: with the graphs of a part where not everything fits beside those of a
// whole.
inline Result<Plan> settle(const Shape& shape, const Setting& setting,
                           std::span<const Device> devices) {
  const Demand in_part = demand_of(shape, setting);
  Demand whole = in_part;
  set_gpu_graphs(whole,
                 shape.graphs.whole.bytes(std::uint64_t{setting.context} * setting.parallel));
  Result<Plan> result = plan(whole, devices, setting.limits);
  if (result && result->placed == result->units) return result;
  return plan(in_part, devices, setting.limits);
}

// "GPU0 27+output, CPU 5", or the error.
inline std::string describe(const Result<Plan>& result) {
  if (!result) return std::string(result.error().message());
  std::string text;
  for (const Share& share : result->shares) {
    text += std::format("{}{} {}{}", text.empty() ? "" : ", ", share.device.name, share.layers,
                        share.output ? "+output" : "");
  }
  return text;
}

// ---- What holds of every plan

inline std::uint64_t less_or_0(std::uint64_t a, std::uint64_t b) { return a > b ? a - b : 0; }

inline std::uint64_t unit_bytes(const Demand& need, std::size_t unit) {
  if (unit == need.weights.size()) return need.output_weights + need.output_copy;
  return need.weights[unit] + need.cache[unit];
}

inline std::uint64_t value_or_0(const auto& map, const std::string& key) {
  return map.contains(key) ? map.at(key) : 0;
}

inline std::uint64_t budget_of(const Device& device, const Limits& limits) {
  return less_or_0(device.free_bytes,
                   limits.min_free + limits.overhead + value_or_0(limits.withheld, device.name));
}

inline std::size_t wanted_units(const Demand& need, const Limits& limits) {
  if (limits.gpu_layers < 0) return need.units();
  return std::min(static_cast<std::size_t>(limits.gpu_layers), need.units());
}

inline std::vector<std::uint64_t> rooms_of(const Demand& need, std::span<const Device> devices,
                                           const Limits& limits) {
  std::vector<std::uint64_t> rooms;
  for (const Device& device : devices) {
    if (!device.is_gpu()) continue;
    rooms.push_back(less_or_0(budget_of(device, limits), value_or_0(need.graph, device.name)));
  }
  return rooms;
}

// Units that are placed when a GPU with this room follows GPUs that hold `placed` of them.
inline std::size_t with_one_more(const Demand& need, std::size_t placed, std::size_t wanted,
                                 std::uint64_t room) {
  while (placed < wanted && unit_bytes(need, need.units() - placed - 1) <= room) {
    room -= unit_bytes(need, need.units() - ++placed);
  }
  return placed;
}

// What can be done at all, by another way: for every set of GPUs the most units that runs on them
// hold, from what the set without its last GPU holds.
struct Best {
  std::size_t units = 0;
  std::size_t gpus = 0;      // the fewest that hold so many
  std::size_t in_order = 0;  // units, filling GPUs in the order of `devices`
};
inline Best best_of(const Demand& need, std::span<const Device> devices, const Limits& limits) {
  const std::vector<std::uint64_t> rooms = rooms_of(need, devices, limits);
  const std::size_t wanted = wanted_units(need, limits);
  Best best;
  std::vector<std::size_t> held(std::size_t{1} << rooms.size(), 0);
  for (std::size_t set = 1; set < held.size(); ++set) {
    for (std::size_t i = 0; i < rooms.size(); ++i) {
      const std::size_t others = set & ~(std::size_t{1} << i);
      if (others == set) continue;
      held[set] = std::max(held[set], with_one_more(need, held[others], wanted, rooms[i]));
    }
    const auto gpus = static_cast<std::size_t>(std::popcount(set));
    if (held[set] > best.units || (held[set] == best.units && gpus < best.gpus)) {
      best = {.units = held[set], .gpus = gpus};
    }
  }
  for (const std::uint64_t room : rooms) {
    best.in_order = with_one_more(need, best.in_order, wanted, room);
  }
  return best;
}

// The first thing that is wrong with a plan that was made; "" where nothing is.
inline std::string flaw(const Plan& made, const Demand& need, std::span<const Device> devices,
                        const Limits& limits) {
  const std::size_t units = need.units();
  if (made.units != units || made.placement.layers.size() + 1 != units) return "units are missing";
  if (made.placed > units || made.shares.empty()) return "more is placed than there is";

  // Every GPU is listed once; the CPU is the last of those with a part.
  std::vector<std::string> listed = made.gpus();
  if (listed.size() + 1 != made.shares.size() || made.cpu().device.is_gpu()) return "CPU not last";
  for (const Share& share : made.unused) listed.push_back(share.device.name);
  std::ranges::sort(listed);
  std::vector<std::string> present;
  for (const Device& device : devices) {
    if (device.is_gpu()) present.push_back(device.name);
  }
  std::ranges::sort(present);
  if (listed != present) return "a GPU is listed twice or not at all";

  // The first units are the CPU's, and each GPU has a run.
  const int last = static_cast<int>(made.shares.size()) - 1;
  std::vector<int> owners = made.placement.layers;
  owners.push_back(made.placement.output);
  std::vector<Share> sums(made.shares.size());
  for (std::size_t i = 0; i < units; ++i) {
    const int owner = owners[i];
    if (owner < 0 || owner > last) return std::format("unit {} is on no device", i);
    if ((owner == last) != (i < units - made.placed)) return std::format("unit {} is misplaced", i);
    const auto share = static_cast<std::size_t>(owner);
    Share& sum = sums[share];
    if (owner != last && sum.layers > 0 && owners[i - 1] != owner) {
      return std::format("{} has no run of layers", made.shares[share].device.name);
    }
    const bool output = i + 1 == units;
    sum.layers += output ? 0 : 1;
    sum.output = output;
    sum.weights +=
        output ? need.output_weights + (owner == last ? 0 : need.output_copy) : need.weights[i];
    sum.cache += output ? 0 : need.cache[i];
  }
  sums.back().weights += need.table_weights;

  // Shares say what is placed there, within what may be used.
  std::uint64_t weights = 0;
  std::uint64_t cache = 0;
  for (std::size_t i = 0; i < sums.size(); ++i) {
    const Share& share = made.shares[i];
    const std::string& name = share.device.name;
    if (share.layers != sums[i].layers || share.output != sums[i].output ||
        share.weights != sums[i].weights || share.cache != sums[i].cache ||
        share.graph != value_or_0(need.graph, name)) {
      return name + "'s share is not what is placed there";
    }
    if (share.reason.empty()) return name + " gives no reason";
    weights += share.weights;
    cache += share.cache;
    if (!share.device.is_gpu()) continue;
    if (share.layers == 0 && !share.output) return name + " has no part";
    if (share.budget() != budget_of(share.device, limits)) return name + "'s budget is wrong";
    if (share.bytes() > share.budget()) return name + " is over its budget";
  }
  const bool copied = made.placement.output != last;
  if (weights != need.total_weights() + (copied ? need.output_copy : 0)) return "weights are lost";
  if (cache != need.total_cache()) return "cache is lost";
  return "";
}

// That, for what plan() returns, with the count of units, or the error.
inline std::string flaw(const Result<Plan>& result, const Demand& need,
                        std::span<const Device> devices, const Limits& limits) {
  const Best best = best_of(need, devices, limits);
  const std::size_t wanted = wanted_units(need, limits);
  const bool demanded = limits.gpu_layers > 0;
  // All orders of few GPUs are tried, the given one of many or where all are to be used.
  const bool exact = !limits.spread && devices.size() <= 6;
  if (!result) {
    const bool out = result.error().code() == ErrorCode::kOutOfMemory;
    const bool fits = (exact ? best.units : best.in_order) == wanted;
    return out && demanded && !fits ? "" : std::string(result.error().message());
  }
  if (demanded && result->placed != wanted) return "not as many units as demanded";
  if (result->placed > best.units) return "more units than fit";
  if (result->placed < (exact ? best.units : best.in_order)) return "fewer units than fit";
  if (exact && result->gpus().size() != best.gpus) return "more GPUs than needed";
  return flaw(*result, need, devices, limits);
}

}  // namespace ollama::memory
