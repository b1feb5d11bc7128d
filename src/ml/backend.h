// What runs graphs: devices, the weights on them, memory for caches, and contexts to build graphs
// in. Two implementations: ml/ggml (the product) and ml/reference (slow, obvious, f32: the oracle
// in tests).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "gguf/file.h"
#include "ml/buffer_pool.h"
#include "ml/context.h"
#include "ml/device.h"
#include "ml/tensor.h"

namespace ollama::envconfig {
enum class CpuKernels : std::uint8_t;
}  // namespace ollama::envconfig

namespace ollama::ml {

enum class BackendKind : std::uint8_t { kGgml, kReference };
// Whose CPU kernels multiply and attend: our own (ml/kernels), or GGML's. kAuto: our own, except
// beside a GPU, which can take over long prompts of the CPU's layers only in GGML's layout.
enum class CpuKernels : std::uint8_t { kAuto, kNative, kGgml };
enum class FlashAttention : std::uint8_t { kAuto, kOn, kOff };

// What a backend wants of a cache.
struct CacheConfig {
  std::uint32_t cache_padding = 256;     // the length attention sees is a multiple of this
  std::uint32_t mask_batch_padding = 1;  // the mask's token dimension is a multiple of this
  // V is kept as [cells, head_dim, kv_heads], as attention without a fused form multiplies it;
  // quantised types are not.
  bool permuted_v = false;
  DType mask_dtype = DType::kF32;
  bool cell_positions = false;  // attention is told the cells' positions beside the mask
};

struct BackendOptions {
  std::uint32_t threads = 0;  // 0: optimal_thread_count decides for each kind of work
  FlashAttention flash_attention = FlashAttention::kAuto;
  // Native where this machine has instructions that the kernels are made for.
  CpuKernels kernels = CpuKernels::kAuto;
  bool use_mmap = true;
  // The GPUs to use, names of list_devices(); none: the CPU alone.
  std::vector<std::string> gpus;
};

// What placed tensors are for: to be computed with, or only to measure what a graph of them needs;
// then they take no memory.
enum class Purpose : std::uint8_t { kUse, kMeasure };

// The tensors of a model file on their devices. Lives as long as its Backend.
class Weights {
 public:
  virtual ~Weights() = default;
  // An empty Tensor when the file has no such tensor.
  virtual Tensor find(std::string_view name) const = 0;
  // On all devices together, and on each.
  virtual std::uint64_t bytes() const = 0;
  virtual std::vector<std::uint64_t> device_bytes() const { return {bytes()}; }
};

// Zeroed memory that outlives graphs: the tensors of a cache.
class Storage {
 public:
  struct Request {
    DType dtype;
    Shape shape;
    std::string name;
    int layer;
  };
  virtual ~Storage() = default;
  virtual std::span<const Tensor> tensors() const = 0;  // in the order of the requests
  // On all devices together, and on each.
  virtual std::uint64_t bytes() const = 0;
  virtual std::vector<std::uint64_t> device_bytes() const { return {bytes()}; }
};

// An allocation that a device refused.
struct Shortage {
  std::size_t device = 0;  // index into Backend::devices()
  std::uint64_t bytes = 0;
};

// What a step is, for the number of threads that it gets.
enum class Phase : std::uint8_t { kPrefill, kDecode };

struct BackendCounters {
  std::uint64_t uploads = 0;  // submissions of inputs
  std::uint64_t downloads = 0;
  std::uint64_t computes = 0;  // graphs submitted
  std::uint64_t prepares = 0;  // graphs allocated
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual BackendKind kind() const = 0;
  // The GPUs of BackendOptions::gpus in their order, then the CPU.
  virtual std::span<const Device> devices() const = 0;
  // What a cache should look like here; flash_attention as resolved for this backend.
  virtual CacheConfig cache_config() const = 0;
  virtual bool flash_attention() const = 0;

  // Places every tensor of `file` (which must outlive the result); progress 0 to 1, false cancels.
  // A tensor that its layer's device cannot compute with stays on the CPU. Errors: kOutOfMemory,
  // then shortage() says of which device.
  virtual Result<std::unique_ptr<Weights>> load_weights(
      const gguf::File& file, const Placement& placement, Purpose purpose,
      const std::function<bool(float)>& progress) = 0;
  // On a GPU all of it is committed at once, on the CPU by use. Errors: as load_weights;
  // kUnsupported for a type that a device cannot write rows of.
  virtual Result<std::unique_ptr<Storage>> allocate(std::span<const Storage::Request> requests,
                                                    const Placement& placement,
                                                    Purpose purpose) = 0;
  // The last allocation that failed for want of a GPU's memory, if any did.
  virtual std::optional<Shortage> shortage() const { return std::nullopt; }
  // A place to build graphs of one kind of work in: contexts do not disturb each other's graphs.
  // `max_nodes`: tensors that a graph may have. `batch`: a hint, the tokens that its steps have at
  // most; it decides whether products with weights on the CPU may move to a GPU.
  virtual Result<std::unique_ptr<Context>> new_context(Phase phase, std::size_t max_nodes,
                                                       std::uint32_t batch) = 0;
  virtual BackendCounters counters() const = 0;
  // Of the pool that arenas and staging buffers come from.
  virtual PoolCounters pool_counters() const { return {}; }
  // Gives memory that is cached for later back to the system; for idle times.
  virtual void trim() {}
};

// The environment's choice as an option.
CpuKernels cpu_kernels_of(std::optional<envconfig::CpuKernels> value);

// Errors: kUnsupported (the backend's library cannot be loaded).
Result<std::unique_ptr<Backend>> new_backend(BackendKind kind, const BackendOptions& options);

}  // namespace ollama::ml
