#include "ml/ggml/ggml_backend.h"

#include <ggml-backend.h>
#include <ggml-cpp.h>

#include "ml/ggml/context.h"
#include "ml/ggml/library.h"
#include "ml/ggml/pages.h"
#include "ml/ggml/weights.h"
#include "ml/kernels/available.h"
#include "ml/thread_count.h"

namespace ollama::ml::ggml {
namespace {

class GgmlStorage final : public Storage {
 public:
  static Result<std::unique_ptr<Storage>> allocate(std::span<const Request> requests,
                                                   ggml_backend_dev_t cpu, BufferPool& pool) {
    auto storage = std::make_unique<GgmlStorage>();
    OLLAMA_ASSIGN(storage->arena_, Arena::create(pool, requests.size() + 1));
    const std::size_t alignment =
        ggml_backend_buft_get_alignment(ggml_backend_dev_buffer_type(cpu));
    std::vector<std::size_t> offsets;
    std::size_t size = 0;
    for (const Request& request : requests) {
      ggml_tensor* tensor =
          ggml_new_tensor(storage->arena_.get(), static_cast<ggml_type>(request.dtype),
                          GGML_MAX_DIMS, request.shape.data());
      ggml_set_name(tensor, request.name.c_str());
      storage->tensors_.push_back(wrap(tensor));
      offsets.push_back(size);
      size += (ggml_nbytes(tensor) + alignment - 1) / alignment * alignment;
    }
    if (size == 0) return storage;
    OLLAMA_ASSIGN(storage->pages_, LazyPages::reserve(size, "the cache: use a smaller num_ctx"));
    storage->bytes_ = size;
    std::byte* const base = storage->pages_.address();
    storage->buffer_.reset(ggml_backend_dev_buffer_from_host_ptr(cpu, base, size, size));
    if (!storage->buffer_) return fail(ErrorCode::kOutOfMemory, "no buffer for the cache");
    for (std::size_t i = 0; i < offsets.size(); ++i) {
      ggml_backend_tensor_alloc(storage->buffer_.get(), raw(storage->tensors_[i]),
                                base + offsets[i]);
    }
    return storage;
  }

  std::span<const Tensor> tensors() const override { return tensors_; }
  std::uint64_t bytes() const override { return bytes_; }

 private:
  LazyPages pages_;
  Arena arena_;
  ggml_backend_buffer_ptr buffer_;
  std::vector<Tensor> tensors_;
  std::uint64_t bytes_ = 0;
};

constexpr std::uint64_t kPrefillTokens = 512;  // a usual batch
// From this many tokens on a step may copy weights of the CPU to a GPU and compute there; fewer
// stay beside the weights.
constexpr std::uint32_t kWorthACopy = 32;

class GgmlBackend final : public Backend {
 public:
  GgmlBackend(ggml_backend_dev_t cpu, ggml_backend_ptr backend, const BackendOptions& options)
      : options_(options),
        topology_(CpuTopology::read()),
        cpu_(cpu),
        backend_(std::move(backend)),
        native_(options.kernels == CpuKernels::kNative && kernels::available()),
        attention_(cpu, pool_, native_) {
    shared_.cpu = cpu;
    shared_.pool = &pool_;
    shared_.native = native_;
    shared_.backends = {backend_.get()};
    shared_.set_threads =
        reinterpret_cast<ggml_backend_set_n_threads_t>(ggml_backend_reg_get_proc_address(
            ggml_backend_dev_backend_reg(cpu), "ggml_backend_set_n_threads"));
    if (options.flash_attention != FlashAttention::kOff) shared_.attention = &attention_;
    std::size_t free = 0;
    std::size_t total = 0;
    ggml_backend_dev_memory(cpu, &free, &total);
    devices_.push_back({.name = ggml_backend_dev_name(cpu),
                        .description = ggml_backend_dev_description(cpu),
                        .library = "cpu",
                        .id = "cpu",
                        .total_bytes = total,
                        .free_bytes = free,
                        .is_gpu = false});
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
      const gguf::File& file, const Placement& /*placement*/,
      const std::function<bool(float)>& progress) override {
    OLLAMA_ASSIGN(std::unique_ptr<Weights> weights,
                  GgmlWeights::load(file, cpu_, pool_,
                                    {topology_.usable(), options_.use_mmap, native_}, progress));
    weight_bytes_ = weights->bytes();
    weight_elements_ = file.parameter_count();
    weight_count_ = static_cast<std::uint32_t>(file.tensors().size());
    return weights;
  }

  Result<std::unique_ptr<Storage>> allocate(std::span<const Storage::Request> requests,
                                            const Placement& /*placement*/) override {
    return GgmlStorage::allocate(requests, cpu_, pool_);
  }

  Result<std::unique_ptr<Context>> new_context(Phase phase, std::size_t max_nodes,
                                               std::uint32_t batch) override {
    OLLAMA_ASSIGN(Arena arena,
                  Arena::create(pool_, max_nodes, ggml_graph_overhead_custom(max_nodes, false)));
    return std::make_unique<GgmlContext>(shared_, std::move(arena), max_nodes, threads(phase),
                                         batch >= kWorthACopy);
  }

  BackendCounters counters() const override { return shared_.counters; }
  PoolCounters pool_counters() const override { return pool_.counters(); }
  void trim() override { pool_.trim(); }

 private:
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
  ggml_backend_dev_t cpu_;  // GGML's own, for the life of the process
  BufferPool pool_;
  ggml_backend_ptr backend_;
  bool native_;  // our own kernels multiply and attend
  FusedAttention attention_;
  Shared shared_;
  std::vector<Device> devices_;
  std::uint64_t weight_bytes_ = 0;
  std::uint64_t weight_elements_ = 0;
  std::uint32_t weight_count_ = 0;
};

}  // namespace

Result<std::unique_ptr<Backend>> new_backend(const BackendOptions& options) {
  OLLAMA_ASSIGN(ggml_backend_dev_t cpu, cpu_device());
  ggml_backend_ptr backend(ggml_backend_dev_init(cpu, nullptr));
  if (!backend) return fail(ErrorCode::kUnsupported, "GGML's CPU backend does not start");
  return std::make_unique<GgmlBackend>(cpu, std::move(backend), options);
}

}  // namespace ollama::ml::ggml
