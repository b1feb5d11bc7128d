#include "engine/placing.h"

#include <algorithm>

#include "base/log.h"
#include "engine/executor.h"

namespace ollama::engine {
namespace {

constexpr std::uint32_t kDefaultContext = 16384;
constexpr std::uint32_t kModest = 4096;  // a context that costs little
// Plans whose graphs turn out larger are made again; each such round adds what was measured.
constexpr int kMostRounds = 6;

memory::Limits limits_of(const LoadOptions& options) {
  return {.gpu_layers = options.gpu_layers,
          .main_gpu = options.main_gpu,
          .spread = options.spread,
          .min_free = options.vram_min_free,
          .overhead = options.gpu_overhead,
          .whole = options.whole,
          .withheld = {},
          .unfit = {}};
}

}  // namespace

Sizes sizes_of(const model::Config& config, const LoadOptions& options) {
  const auto train_context = static_cast<std::uint32_t>(config.context_length);
  const std::uint32_t wanted = options.context != 0 ? options.context : kDefaultContext;
  const std::uint32_t context = std::min(wanted, train_context);
  // No more than a context holds, no less than a token of every sequence.
  return {
      .context = context,
      .batch = std::max(std::clamp(options.batch, 1U, std::max(context, 1U)), options.parallel)};
}

kvcache::CacheOptions cache_options(const Sizes& sizes, const LoadOptions& options) {
  return {.cells = sizes.context * options.parallel,
          .sequences = kvcache::kMaxSequences,
          .parallel = options.parallel,
          .max_batch = sizes.batch,
          .k_type = options.kv_type,
          .v_type = options.kv_type,
          .config = {}};
}

Placing::Placing(std::shared_ptr<const gguf::File> file, const LoadOptions& options)
    : file_(std::move(file)), options_(options), limits_(limits_of(options)) {}

Result<Placing> Placing::begin(std::shared_ptr<const gguf::File> file, const LoadOptions& options) {
  if (options.parallel < 1 || options.parallel > kvcache::kMaxSequences) {
    return fail(ErrorCode::kInvalidArgument, "{} parallel sequences: 1 to {} are possible",
                options.parallel, kvcache::kMaxSequences);
  }
  Placing placing(std::move(file), options);
  // What the layers cache is known once the model is bound to its tensors, wherever these are.
  OLLAMA_ASSIGN(
      const auto backend,
      ml::new_backend(options.backend, {.threads = 1, .flash_attention = options.flash_attention}));
  OLLAMA_ASSIGN(const auto weights,
                backend->load_weights(*placing.file_, {}, ml::Purpose::kMeasure, {}));
  OLLAMA_ASSIGN(const auto model, model::new_model(*placing.file_, *weights));
  placing.config_ = model->config();
  placing.layers_ = model->cache_layers();
  placing.layers_.resize(static_cast<std::size_t>(placing.config_.layers));
  placing.cache_padding_ = backend->cache_config().cache_padding;
  placing.devices_.assign(backend->devices().begin(), backend->devices().end());
  placing.demand_ = placing.demand_with(options);

  const std::uint32_t context = sizes_of(placing.config_, options).context;
  if (options.context > context && options.context != kDefaultContext) {
    // The default asks for as much as there is.
    log::warn("num_ctx {} is more than the model's own limit: using {}", options.context, context);
  }
  return placing;
}

memory::Demand Placing::demand_with(const LoadOptions& options) const {
  kvcache::CacheOptions cache = cache_options(sizes_of(config_, options), options);
  cache.config.cache_padding = cache_padding_;
  memory::Demand demand = memory::demand(*file_, layers_, cache);
  demand.graph = demand_.graph;
  return demand;
}

Result<Placing::Known> Placing::measure_graphs(const memory::Plan& plan) {
  std::optional<std::size_t> unfit;
  const auto sizes = Executor::measure(file_, options_, plan, unfit);
  if (!sizes) {
    if (!unfit || !plan.shares[*unfit].device.is_gpu()) return fail(sizes);
    const std::string reason(sizes.error().message());
    log::warn("{}: it is left out; a smaller num_ctx or OLLAMA_NUM_PARALLEL would bring it back",
              reason);
    limits_.unfit[plan.shares[*unfit].device.name] = reason;
    return Known::kUnfit;
  }
  Known result = Known::kAll;
  for (std::size_t i = 0; i < plan.shares.size(); ++i) {
    std::uint64_t& known = demand_.graph[plan.shares[i].device.name];
    if ((*sizes)[i] > known) result = Known::kMore;
    known = std::max(known, (*sizes)[i]);
  }
  return result;
}

Result<memory::Plan> Placing::plan() {
  if (options_.backend == ml::BackendKind::kGgml) {
    ml::DeviceOptions allowed = options_.devices;
    if (limits_.gpu_layers == 0) {
      // Nothing of theirs is loaded.
      allowed.library = "cpu";
      allowed.rpc_servers.clear();
    }
    OLLAMA_ASSIGN(devices_, ml::list_devices(allowed));
  }
  auto plan = settle(limits_.gpu_layers);
  if (!plan && plan.error().code() == ErrorCode::kOutOfMemory && limits_.gpu_layers > 0) {
    // So many do not fit. How many do depends on the graphs of that many.
    if (settle(-1)) plan = memory::plan(demand_, devices_, limits_);
  }
  return plan;
}

Result<memory::Plan> Placing::settle(std::int32_t gpu_layers) {
  const auto make = [&] {
    memory::Limits limits = limits_;
    limits.gpu_layers = gpu_layers;
    return memory::plan(demand_, devices_, limits);
  };
  OLLAMA_ASSIGN(memory::Plan plan, make());
  for (int round = 0; round < kMostRounds;) {
    OLLAMA_ASSIGN(const Known known, measure_graphs(plan));
    if (known == Known::kAll) break;
    const ml::Placement before = plan.placement;
    const std::vector<std::string> gpus = plan.gpus();
    OLLAMA_ASSIGN(plan, make());
    if (known == Known::kUnfit) continue;  // no more often than there are GPUs
    ++round;
    if (plan.placement.layers == before.layers && plan.placement.output == before.output &&
        plan.gpus() == gpus) {
      break;
    }
  }
  return plan;
}

void Placing::refused(const memory::Plan& plan, const std::optional<ml::Shortage>& shortage) {
  for (std::size_t i = 0; i < plan.shares.size(); ++i) {
    const memory::Share& share = plan.shares[i];
    if (!share.device.is_gpu() || (shortage && shortage->device != i)) continue;
    // An eighth less than was planned at first, twice as much less each time.
    const std::uint64_t less = std::max(64 * kKiB, share.bytes() / 8) << std::min(refusals_, 16U);
    limits_.withheld[share.device.name] +=
        share.budget() - std::min(share.budget(), share.bytes()) + less;
  }
  ++refusals_;
}

void Placing::warn_if_crowded(const memory::Plan& plan) const {
  const std::uint32_t context = sizes_of(config_, options_).context;
  const bool has_gpus = plan.shares.size() + plan.unused.size() > 1;
  if (!has_gpus || plan.placed == plan.units || limits_.gpu_layers >= 0 || context <= kModest) {
    return;
  }
  LoadOptions other = options_;
  other.context = kModest;
  const auto smaller = memory::plan(demand_with(other), devices_, limits_);
  if (!smaller || smaller->placed <= plan.placed) return;
  log::warn(
      "a context of {} leaves room for {} of {} layers on GPUs; with {} it would be {} (see "
      "OLLAMA_CONTEXT_LENGTH and num_ctx)",
      context, plan.placed, plan.units, kModest, smaller->placed);
}

api::MemoryPlan Placing::explain(const memory::Plan& plan) const {
  api::MemoryPlan result{.context_length = sizes_of(config_, options_).context,
                         .num_parallel = options_.parallel,
                         .kv_cache_type = std::string(ml::dtype_name(options_.kv_type)),
                         .layers_on_gpu = plan.placed,
                         .layers = plan.units,
                         .devices = {},
                         .gains = {}};
  const auto add = [&](const memory::Share& share) {
    result.devices.push_back({.name = share.device.name,
                              .description = share.device.description,
                              .library = share.device.library,
                              .layers = share.layers,
                              .output = share.output,
                              .weights = share.weights,
                              .cache = share.cache,
                              .graph = share.graph,
                              .free = share.device.free_bytes,
                              .kept_free = share.kept_free,
                              .reason = share.reason});
  };
  std::ranges::for_each(plan.shares, add);
  std::ranges::for_each(plan.unused, add);

  const auto try_other = [&](const std::string& setting, const LoadOptions& other) {
    memory::Limits limits = limits_of(other);
    limits.withheld = limits_.withheld;
    limits.unfit = limits_.unfit;
    const memory::Demand demand = demand_with(other);
    if (auto gain = memory::gain(plan, demand_, memory::plan(demand, devices_, limits), demand)) {
      result.gains.push_back(setting + " " + *gain);
    }
  };
  if (plan.shares.size() + plan.unused.size() > 1 && options_.vram_min_free > kMiB) {
    LoadOptions other = options_;
    other.vram_min_free = kMiB;
    try_other(std::format("OLLAMA_VRAM_MIN_FREE={}", kMiB), other);
  }
  for (const ml::DType type : {ml::DType::kQ8_0, ml::DType::kQ4_0}) {
    const bool possible = std::ranges::all_of(layers_, [&](const kvcache::LayerSpec& layer) {
      return layer.head_dim_k % ml::block_size(type) == 0 &&
             layer.head_dim_v % ml::block_size(type) == 0;
    });
    if (!possible || ml::row_size(type, 32) >= ml::row_size(options_.kv_type, 32)) continue;
    LoadOptions other = options_;
    other.kv_type = type;
    try_other(std::format("OLLAMA_KV_CACHE_TYPE={}", ml::dtype_name(type)), other);
  }
  if (options_.parallel > 1) {
    LoadOptions other = options_;
    other.parallel = 1;
    try_other("OLLAMA_NUM_PARALLEL=1", other);
  }
  return result;
}

Result<api::MemoryPlan> explain_plan(const std::filesystem::path& path,
                                     const LoadOptions& options) {
  OLLAMA_ASSIGN(gguf::File file, gguf::File::open(path));
  OLLAMA_ASSIGN(Placing placing,
                Placing::begin(std::make_shared<const gguf::File>(std::move(file)), options));
  OLLAMA_ASSIGN(const memory::Plan plan, placing.plan());
  return placing.explain(plan);
}

}  // namespace ollama::engine
