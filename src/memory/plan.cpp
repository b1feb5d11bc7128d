#include "memory/plan.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <ranges>

namespace ollama::memory {
namespace {

std::uint64_t sum(std::span<const std::uint64_t> values) {
  return std::accumulate(values.begin(), values.end(), std::uint64_t{0});
}

// Within what 64 bits hold: limits may be anything.
std::uint64_t less(std::uint64_t a, std::uint64_t b) { return a - std::min(a, b); }
std::uint64_t plus(std::uint64_t a, std::uint64_t b) {
  return a + std::min(b, std::numeric_limits<std::uint64_t>::max() - a);
}

template <typename Map>
std::uint64_t value_of(const Map& map, std::string_view name) {
  const auto found = map.find(name);
  return found == map.end() ? 0 : found->second;
}

// A GPU during planning.
struct Gpu {
  const ml::Device* device = nullptr;
  std::uint64_t kept_free = 0;
  std::uint64_t graph = 0;
  bool usable = false;     // there is room for graphs
  std::uint64_t room = 0;  // for weights and cache
  // Units [begin, end) are its own.
  std::size_t begin = 0;
  std::size_t end = 0;

  bool used() const { return begin < end; }
};

class Planner {
 public:
  Planner(const Demand& demand, std::span<const ml::Device> devices, const Limits& limits)
      : demand_(demand), limits_(limits), units_(demand.units()) {
    for (std::size_t i = 0; i < units_; ++i) bytes_.push_back(weights_of(i) + cache_of(i));
    for (const ml::Device& device : devices) {
      if (!device.is_gpu()) {
        cpu_ = &device;
        continue;
      }
      Gpu& gpu = gpus_.emplace_back(Gpu{.device = &device});
      gpu.kept_free =
          plus(plus(limits.min_free, limits.overhead), value_of(limits.withheld, device.name));
      gpu.graph = value_of(demand.graph, device.name);
      gpu.usable = device.free_bytes >= plus(gpu.kept_free, gpu.graph) &&
                   !limits.unfit.contains(device.name);
      if (gpu.usable) gpu.room = device.free_bytes - plus(gpu.kept_free, gpu.graph);
    }
  }

  Result<Plan> run() {
    if (cpu_ == nullptr) return fail(ErrorCode::kUnsupported, "there is no CPU device");
    if (limits_.gpu_layers < -1) {
      return fail(ErrorCode::kInvalidArgument,
                  "num_gpu {} is no number of layers: use -1 for as many as fit",
                  limits_.gpu_layers);
    }
    const auto count = static_cast<std::int32_t>(gpus_.size());
    if (limits_.gpu_layers != 0 && count > 0 && limits_.main_gpu >= count) {
      return fail(ErrorCode::kInvalidArgument,
                  "main_gpu {} is not there: this machine has {} GPU{}", limits_.main_gpu, count,
                  count == 1 ? "" : "s");
    }
    const std::size_t wanted =
        limits_.gpu_layers < 0
            ? units_
            : std::min<std::size_t>(static_cast<std::size_t>(limits_.gpu_layers), units_);
    place(wanted);
    if (limits_.whole && !gpus_.empty() && placed() < wanted) {
      return fail(ErrorCode::kNoRoom, "{} of {} layers fit beside the models that are loaded",
                  placed(), wanted);
    }
    if (limits_.gpu_layers > 0 && placed() < wanted) return too_many(wanted);
    Plan result = assemble();
    // An integrated GPU's memory is the system's.
    std::uint64_t weights = 0;
    std::uint64_t all = 0;
    for (const Share& share : result.shares) {
      if (share.device.kind == ml::DeviceKind::kGpu) continue;
      weights += share.weights;
      all += share.bytes();
    }
    if (cpu_->total_bytes > 0 && weights > cpu_->total_bytes) {
      return fail(ErrorCode::kOutOfMemory,
                  "model requires more system memory ({}) than is available ({})",
                  human_bytes_binary(weights), human_bytes_binary(cpu_->total_bytes));
    }
    if (limits_.whole && all > cpu_->free_bytes) {
      return fail(
          ErrorCode::kNoRoom,
          "the model needs {} of system memory beside those that are loaded, and {} is free",
          human_bytes_binary(all), human_bytes_binary(cpu_->free_bytes));
    }
    return result;
  }

 private:
  std::uint64_t weights_of(std::size_t unit) const {
    return unit < demand_.weights.size() ? demand_.weights[unit]
                                         : demand_.output_weights + demand_.output_copy;
  }
  std::uint64_t cache_of(std::size_t unit) const {
    return unit < demand_.cache.size() ? demand_.cache[unit] : 0;
  }
  static std::uint64_t part_of(std::uint64_t room, std::uint64_t share) {
    constexpr double kAll = kShares;
    return static_cast<std::uint64_t>(static_cast<double>(room) *
                                      (static_cast<double>(share) / kAll));
  }
  std::size_t placed() const {
    std::size_t count = 0;
    for (const Gpu& gpu : gpus_) count += gpu.end - gpu.begin;
    return count;
  }

  // ---- Which units go to GPUs

  // Gives GPUs, in this order, the last units; each as many as fit into its room, or into
  // `share` / kShares of it, but for one that it leaves for every GPU after it where `leave` says
  // so. The number of units placed.
  std::size_t fill(std::span<const std::size_t> order, std::size_t wanted,
                   std::uint64_t share = kShares, bool leave = false) {
    for (Gpu& gpu : gpus_) gpu.begin = gpu.end = 0;
    std::size_t next = units_;  // units from here on are placed
    std::size_t others = order.size();
    for (const std::size_t index : order) {
      --others;
      Gpu& gpu = gpus_[index];
      std::uint64_t room = share == kShares ? gpu.room : part_of(gpu.room, share);
      const std::size_t last = units_ - wanted + (leave ? others : 0);
      gpu.end = next;
      while (gpu.usable && next > last && bytes_[next - 1] <= room) room -= bytes_[--next];
      gpu.begin = next;
    }
    return units_ - next;
  }
  // How good a filling is: units placed, then, spread, GPUs used.
  std::pair<std::size_t, std::size_t> rank_of(std::span<const std::size_t> order,
                                              std::size_t wanted, std::uint64_t share, bool leave) {
    const std::size_t count = fill(order, wanted, share, leave);
    const auto used = limits_.spread ? std::ranges::count_if(gpus_, &Gpu::used) : 0;
    return {count, static_cast<std::size_t>(used)};
  }

  void place(std::size_t wanted) {
    if (wanted == 0 || gpus_.empty()) return;
    std::vector<std::size_t> all(gpus_.size());
    std::iota(all.begin(), all.end(), std::size_t{0});
    if (!limits_.spread && place_on_one(all, wanted)) return;
    // The orders that are tried do not depend on what is free: more memory never places less.
    std::vector<std::size_t> best;
    std::pair<std::size_t, std::size_t> most{0, 0};
    bool best_leaves = false;
    for_each_order(all, [&](std::span<const std::size_t> order) {
      for (const bool leave : {false, true}) {
        if (leave && !limits_.spread) continue;
        const auto rank = rank_of(order, wanted, kShares, leave);
        if (rank.first > 0 && (rank > most || (rank == most && order.size() < best.size()))) {
          best.assign(order.begin(), order.end());
          most = rank;
          best_leaves = leave;
        }
      }
    });
    std::uint64_t share = kShares;
    if (most.first == wanted && best.size() > 1) {
      // Filled evenly, each keeps some room: the smallest share of every GPU's that is enough.
      // Found by halving, since more room never holds less.
      std::uint64_t low = 0;
      while (low + 1 < share) {
        const std::uint64_t middle = (low + share) / 2;
        (rank_of(best, wanted, middle, best_leaves) == most ? share : low) = middle;
      }
    }
    fill(best, wanted, share, best_leaves);
  }

  // On the GPU that was asked for, or the first of those of the best kind with the most room.
  bool place_on_one(std::vector<std::size_t> candidates, std::size_t wanted) {
    std::ranges::stable_sort(candidates, std::ranges::greater{}, [&](std::size_t i) {
      const ml::Device& device = *gpus_[i].device;
      return std::tuple(std::cmp_equal(i, limits_.main_gpu), !device.is_remote(),
                        device.kind == ml::DeviceKind::kGpu, gpus_[i].room);
    });
    return std::ranges::any_of(candidates,
                               [&](std::size_t i) { return fill({&i, 1}, wanted) == wanted; });
  }

  // All orders of all non-empty subsets for few GPUs, else the runs of the given order; spread,
  // those of all of them.
  template <typename Visit>
  void for_each_order(std::vector<std::size_t> all, const Visit& visit) const {
    do {
      for (std::size_t count = limits_.spread ? all.size() : 1; count <= all.size(); ++count) {
        visit(std::span(all).first(count));
      }
    } while (all.size() <= kMostPermuted && std::ranges::next_permutation(all).found);
  }

  // ---- What comes of it

  std::unexpected<Error> too_many(std::size_t wanted) const {
    std::uint64_t needed = 0;
    for (std::size_t i = units_ - wanted; i < units_; ++i) needed += bytes_[i];
    std::uint64_t room = 0;
    std::uint64_t graphs = 0;
    for (const Gpu& gpu : gpus_) {
      room += gpu.room;
      graphs += gpu.graph;
    }
    if (gpus_.empty()) {
      return fail(ErrorCode::kOutOfMemory,
                  "num_gpu {} asks for layers on a GPU, and there is none: use num_gpu 0 or -1",
                  limits_.gpu_layers);
    }
    // Whole layers go to a GPU: all of the room together may hold them while none holds the next.
    std::uint64_t short_of_next = std::numeric_limits<std::uint64_t>::max();
    for (const Gpu& gpu : gpus_) {
      short_of_next = std::min(short_of_next, less(bytes_[units_ - placed() - 1], rest_of(gpu)));
    }
    const std::uint64_t missing = std::max(less(needed, room), short_of_next);
    return fail(ErrorCode::kOutOfMemory,
                "num_gpu {}: {} of GPU memory are needed for these layers and {} for graphs; at "
                "least {} more than is free. {} layers fit: use num_gpu {}, or -1",
                limits_.gpu_layers, human_bytes_binary(needed), human_bytes_binary(graphs),
                human_bytes_binary(missing), placed(), placed());
  }

  // Room that is left on a GPU.
  std::uint64_t rest_of(const Gpu& gpu) const {
    std::uint64_t rest = gpu.room;
    for (std::size_t i = gpu.begin; i < gpu.end; ++i) rest = less(rest, bytes_[i]);
    return rest;
  }

  Share share_of(const Gpu& gpu) const {
    Share share{.device = *gpu.device,
                .layers = 0,
                .output = gpu.end == units_ && gpu.used(),
                .graph = gpu.used() ? gpu.graph : 0,
                .kept_free = gpu.kept_free,
                .reason = {}};
    for (std::size_t i = gpu.begin; i < gpu.end; ++i) {
      share.weights += weights_of(i);
      share.cache += cache_of(i);
    }
    share.layers =
        static_cast<std::uint32_t>(gpu.end - gpu.begin) - static_cast<std::uint32_t>(share.output);
    share.reason = reason_of(gpu);
    return share;
  }

  // Why a GPU has no more than it has.
  std::string reason_of(const Gpu& gpu) const {
    const std::size_t left = units_ - placed();  // units of the CPU
    if (limits_.gpu_layers == 0) return "num_gpu is 0";
    const auto unfit = limits_.unfit.find(gpu.device->name);
    if (unfit != limits_.unfit.end()) return unfit->second;
    if (left == 0) return gpu.used() ? "everything is placed" : "not needed";
    if (limits_.gpu_layers > 0) return std::format("num_gpu is {}", limits_.gpu_layers);
    if (!gpu.usable) {
      return std::format("{} are kept free or needed for graphs",
                         human_bytes_binary(plus(gpu.kept_free, gpu.graph)));
    }
    // What it stopped at, which another GPU may have taken.
    const std::size_t next = gpu.begin > 0 ? gpu.begin : left;
    return std::format("the next layer needs {}, and {} is left",
                       human_bytes_binary(bytes_[next - 1]), human_bytes_binary(rest_of(gpu)));
  }

  Plan assemble() const {
    Plan plan;
    plan.units = static_cast<std::uint32_t>(units_);
    plan.placed = static_cast<std::uint32_t>(placed());
    plan.placement.layers.resize(units_ - 1);
    const auto own = [&](std::size_t unit, int share) {
      (unit + 1 == units_ ? plan.placement.output : plan.placement.layers[unit]) = share;
    };
    for (const Gpu& gpu : gpus_) {
      if (!gpu.used()) {
        plan.unused.push_back(share_of(gpu));
        continue;
      }
      for (std::size_t i = gpu.begin; i < gpu.end; ++i) {
        own(i, static_cast<int>(plan.shares.size()));
      }
      plan.shares.push_back(share_of(gpu));
    }
    Share cpu{.device = *cpu_, .graph = value_of(demand_.graph, cpu_->name), .reason = {}};
    cpu.weights = demand_.table_weights;
    for (std::size_t i = 0; i < units_ - placed(); ++i) {
      own(i, static_cast<int>(plan.shares.size()));
      const bool output = i + 1 == units_;
      cpu.output = cpu.output || output;
      cpu.layers += output ? 0 : 1;
      cpu.weights += output ? demand_.output_weights : demand_.weights[i];
      cpu.cache += cache_of(i);
    }
    cpu.reason = gpus_.empty()        ? "there is no GPU"
                 : placed() == units_ ? "input tables alone"
                                      : "what is on no GPU";
    plan.shares.push_back(std::move(cpu));
    return plan;
  }

  static constexpr std::uint64_t kShares = std::uint64_t{1} << 40;  // steps of an even filling
  static constexpr std::size_t kMostPermuted = 5;

  const Demand& demand_;
  const Limits& limits_;
  std::size_t units_;
  std::vector<std::uint64_t> bytes_;  // of each unit
  std::vector<Gpu> gpus_;
  const ml::Device* cpu_ = nullptr;
};

}  // namespace

std::uint64_t Demand::total_weights() const {
  return sum(weights) + output_weights + table_weights;
}
std::uint64_t Demand::total_cache() const { return sum(cache); }

std::uint64_t Share::budget() const { return less(device.free_bytes, kept_free); }

std::vector<std::string> Plan::gpus() const {
  std::vector<std::string> names;
  for (const Share& share : shares) {
    if (share.device.is_gpu()) names.push_back(share.device.name);
  }
  return names;
}

Demand demand(const gguf::File& file, std::span<const kvcache::LayerSpec> layers,
              const kvcache::CacheOptions& options) {
  Demand result;
  result.weights.resize(layers.size());
  for (const gguf::TensorInfo& tensor : file.tensors()) {
    const auto layer = gguf::layer_of(tensor.name);
    if (layer && *layer < layers.size()) {
      result.weights[*layer] += tensor.size;
    } else if (gguf::belongs_to_output(tensor.name)) {
      result.output_weights += tensor.size;
    } else {
      result.table_weights += tensor.size;
    }
  }
  if (const auto* table = gguf::output_table(file)) result.output_copy = table->size;
  const std::uint64_t padding = std::max(1U, options.config.cache_padding);
  for (const kvcache::LayerSpec& layer : layers) {
    const std::uint64_t kept = kvcache::cells_of_window(layer.window, options);
    const std::uint64_t cells = (kept + padding - 1) / padding * padding;
    const std::size_t keys = ml::row_size(options.k_type, layer.head_dim_k);
    const std::size_t values =
        layer.values_in_keys ? 0 : ml::row_size(options.v_type, layer.head_dim_v);
    const std::uint64_t state =
        static_cast<std::uint64_t>(layer.state) * sizeof(float) * options.parallel;
    result.cache.push_back(cells * static_cast<std::uint64_t>(layer.kv_heads) * (keys + values) +
                           state);
  }
  return result;
}

Result<Plan> plan(const Demand& demand, std::span<const ml::Device> devices, const Limits& limits) {
  return Planner(demand, devices, limits).run();
}

std::optional<std::string> gain(const Plan& plan, const Demand& demand, const Result<Plan>& other,
                                const Demand& other_demand) {
  if (!other) return std::nullopt;
  if (other->placed > plan.placed) {
    const std::uint32_t more = other->placed - plan.placed;
    return std::format("would place {} more layer{} on GPUs ({} of {})", more, more == 1 ? "" : "s",
                       other->placed, other->units);
  }
  const std::uint64_t less_cache = less(demand.total_cache(), other_demand.total_cache());
  if (less_cache == 0) return std::nullopt;
  return std::format("would take {} less for the cache", human_bytes_binary(less_cache));
}

}  // namespace ollama::memory
