#include "ml/ggml/ggml_backend.h"

#include <ggml-backend.h>
#include <ggml-cpp.h>

#include "ml/ggml/context.h"
#include "ml/ggml/devices.h"
#include "ml/ggml/endpoint.h"
#include "ml/ggml/library.h"
#include "ml/ggml/storage.h"
#include "ml/ggml/weights.h"
#include "ml/kernels/available.h"
#include "ml/thread_count.h"

namespace ollama::ml::ggml {
namespace {

constexpr std::uint64_t kPrefillTokens = 512;  // a usual batch
// From this many tokens on a step may copy weights of the CPU to a GPU and compute there; fewer
// stay beside the weights.
constexpr std::uint32_t kWorthACopy = 32;

class GgmlBackend final : public Backend {
 public:
  // `handles`: the GPUs, then the CPU; `backends` are theirs.
  GgmlBackend(std::vector<ggml_backend_dev_t> handles, std::vector<ggml_backend_ptr> backends,
              const BackendOptions& options)
      : options_(options),
        topology_(CpuTopology::read()),
        backends_(std::move(backends)),
        native_(is_native(options, handles.size() > 1)),
        attention_(handles, pool_, native_) {
    for (ggml_backend_dev_t handle : handles) devices_.push_back(describe(handle));
    shared_.pool = &pool_;
    shared_.native = native_;
    for (const ggml_backend_ptr& backend : backends_) shared_.backends.push_back(backend.get());
    shared_.set_threads =
        reinterpret_cast<ggml_backend_set_n_threads_t>(ggml_backend_reg_get_proc_address(
            ggml_backend_dev_backend_reg(handles.back()), "ggml_backend_set_n_threads"));
    if (options.flash_attention != FlashAttention::kOff) shared_.attention = &attention_;
    shared_.devices = std::move(handles);
  }

  BackendKind kind() const override { return BackendKind::kGgml; }
  std::span<const Device> devices() const override { return devices_; }
  CacheConfig cache_config() const override {
    // GGML's fused attention takes f16 masks only; its softmax works best with f32 ones.
    return {.cache_padding = 256,
            .mask_batch_padding = 1,
            .permuted_v = !flash_attention(),
            .mask_dtype = flash_attention() ? DType::kF16 : DType::kF32,
            .cell_positions = native_ && flash_attention()};
  }
  bool flash_attention() const override { return shared_.attention != nullptr; }

  Result<std::unique_ptr<Weights>> load_weights(
      const gguf::File& file, const Placement& placement, Purpose purpose,
      const std::function<bool(float)>& progress) override {
    shared_.layers = placement.layers;
    OLLAMA_ASSIGN(std::unique_ptr<Weights> weights,
                  GgmlWeights::load(file, shared_.devices, placement, pool_,
                                    {topology_.usable(), options_.use_mmap, native_, purpose},
                                    shortage_, progress));
    // The connections that weights hold stay.
    if (const auto remote = endpoints_of(shared_.devices); !remote.empty()) {
      keep_connections_alive(remote);
    }
    weight_bytes_ = weights->bytes();
    weight_elements_ = file.parameter_count();
    weight_count_ = static_cast<std::uint32_t>(file.tensors().size());
    return weights;
  }

  Result<std::unique_ptr<Storage>> allocate(std::span<const Storage::Request> requests,
                                            const Placement& placement, Purpose purpose) override {
    return GgmlStorage::allocate(requests, placement, purpose, shared_.devices, pool_, shortage_);
  }
  std::optional<Shortage> shortage() const override { return shortage_; }

  Result<std::unique_ptr<Context>> new_context(Phase phase, std::size_t max_nodes,
                                               std::uint32_t batch) override {
    OLLAMA_ASSIGN(Arena arena,
                  Arena::create(pool_, max_nodes, ggml_graph_overhead_custom(max_nodes, false)));
    return std::make_unique<GgmlContext>(shared_, std::move(arena), max_nodes, threads(phase),
                                         batch >= kWorthACopy && devices_.size() > 1);
  }

  BackendCounters counters() const override { return shared_.counters; }
  PoolCounters pool_counters() const override { return pool_.counters(); }
  void trim() override { pool_.trim(); }

 private:
  static bool is_native(const BackendOptions& options, bool has_gpu) {
    const bool wanted = options.kernels == CpuKernels::kNative ||
                        (options.kernels == CpuKernels::kAuto && !has_gpu);
    return wanted && kernels::available();
  }

  std::uint32_t threads(Phase phase) const {
    if (options_.threads != 0) return options_.threads;
    // A step reads every weight once and multiplies each with every token; about two operations
    // that all threads meet after belong to one weight tensor.
    const std::uint64_t tokens = phase == Phase::kPrefill ? kPrefillTokens : 1;
    return optimal_thread_count(phase == Phase::kPrefill ? OpKind::kPrefill : OpKind::kDecode,
                                weight_bytes_, 2 * weight_elements_ * tokens, topology_,
                                2 * weight_count_);
  }

  BackendOptions options_;
  CpuTopology topology_;
  BufferPool pool_;
  std::vector<ggml_backend_ptr> backends_;
  bool native_;  // our own kernels multiply and attend
  FusedAttention attention_;
  Shared shared_;
  std::vector<Device> devices_;
  std::optional<Shortage> shortage_;
  std::uint64_t weight_bytes_ = 0;
  std::uint64_t weight_elements_ = 0;
  std::uint32_t weight_count_ = 0;
};

}  // namespace

Result<std::unique_ptr<Backend>> new_backend(const BackendOptions& options) {
  std::vector<ggml_backend_dev_t> devices;
  for (const std::string& name : options.gpus) {
    OLLAMA_ASSIGN(ggml_backend_dev_t gpu, find_gpu(name));
    devices.push_back(gpu);
  }
  OLLAMA_ASSIGN(ggml_backend_dev_t cpu, cpu_device());
  devices.push_back(cpu);
  std::vector<ggml_backend_ptr> backends;
  for (ggml_backend_dev_t device : devices) {
    if (!backends.emplace_back(ggml_backend_dev_init(device, nullptr))) {
      return fail(ErrorCode::kUnsupported, "GGML's backend of {} does not start",
                  ggml_backend_dev_name(device));
    }
  }
  return std::make_unique<GgmlBackend>(std::move(devices), std::move(backends), options);
}

}  // namespace ollama::ml::ggml
