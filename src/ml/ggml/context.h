// ml::Context on GGML: the graph's tensors lie in an arena from the buffer pool, a scheduler of its
// own keeps the graph's allocation while its shapes serve.
#pragma once

#include <ggml-backend.h>
#include <ggml-cpp.h>

#include <vector>

#include "ml/backend.h"
#include "ml/buffer_pool.h"
#include "ml/ggml/arena.h"
#include "ml/ggml/native.h"

namespace ollama::ml::ggml {

inline ggml_tensor* raw(Tensor tensor) { return static_cast<ggml_tensor*>(tensor.node()); }
Tensor wrap(ggml_tensor* tensor);

class FusedAttention final : public ScaledDotProductAttention {
 public:
  // `devices`: those that a model is spread over, the CPU last. `native`: on the CPU by our own
  // kernels where they serve, else by GGML's.
  FusedAttention(std::vector<ggml_backend_dev_t> devices, BufferPool& pool, bool native)
      : devices_(std::move(devices)), pool_(pool), native_(native) {}
  bool supports(const AttentionConfig& config) const override;
  Tensor scaled_dot_product_attention(Context& context, Tensor q, Tensor k, Tensor v,
                                      const AttentionMask& mask, Tensor sinks, float scale,
                                      float soft_cap) const override;

 private:
  bool serves_natively(const AttentionConfig& config) const;

  std::vector<ggml_backend_dev_t> devices_;
  BufferPool& pool_;
  bool native_;
};

// What the contexts of one backend share; owned by the backend.
struct Shared {
  std::vector<ggml_backend_dev_t> devices;  // the CPU last, as GGML's scheduler wants it
  std::vector<ggml_backend_t> backends;     // of each
  std::vector<int> layers;                  // the device of each layer; empty: all on the CPU
  BufferPool* pool = nullptr;
  ggml_backend_set_n_threads_t set_threads = nullptr;
  const FusedAttention* attention = nullptr;  // null when flash attention is off
  bool native = false;                        // weights may be packed for our kernels
  BackendCounters counters;                   // of the engine's thread

  ggml_backend_dev_t cpu() const { return devices.back(); }
};

class GgmlContext final : public Context {
 public:
  GgmlContext(Shared& shared, Arena arena, std::size_t max_nodes, std::uint32_t threads,
              bool offload);

  void reset() override;
  Result<> prepare() override;
  Result<std::vector<std::uint64_t>> measure() override;
  std::vector<std::uint64_t> allocated() const override;
  Result<> upload(std::span<const Upload> uploads) override;
  Result<> compute() override;
  Result<> download(Tensor tensor, std::span<std::byte> bytes) override;
  void observe(Observer observer) override;

  Tensor input(DType dtype, const Shape& shape, std::string_view name) override;
  Tensor output(Tensor tensor, std::string_view name) override;
  void keep(Tensor tensor) override;
  Tensor named(Tensor tensor, std::string_view name, int layer) override;
  void set_layer(int layer) override;

  Tensor add(Tensor a, Tensor b) override;
  Tensor sub(Tensor a, Tensor b) override;
  Tensor mul(Tensor a, Tensor b) override;
  Tensor div(Tensor a, Tensor b) override;
  Tensor scale(Tensor a, float factor) override;
  Tensor clamp(Tensor a, float low, float high) override;
  Tensor sum_rows(Tensor a) override;
  Tensor activate(Tensor a, Activation activation) override;
  Tensor gated(Tensor gate, Tensor up, Activation activation) override;
  Tensor swiglu_oai(Tensor gate, Tensor up, float alpha, float limit) override;
  Tensor rms_norm(Tensor a, float epsilon) override;
  Tensor layer_norm(Tensor a, float epsilon) override;
  Tensor softmax(Tensor a, Tensor mask, Tensor sinks, float scale) override;
  Tensor rope(Tensor x, Tensor positions, Tensor factors, const RopeOptions& options) override;

  Tensor mul_mat(Tensor w, Tensor x) override;
  Tensor mul_mat_id(Tensor w, Tensor x, Tensor ids) override;
  Tensor add_id(Tensor a, Tensor b, Tensor ids) override;
  Tensor top_k(Tensor a, std::int64_t k) override;

  Tensor get_rows(Tensor a, Tensor ids) override;
  Tensor set_rows(Tensor dst, Tensor src, Tensor ids) override;

  Tensor reshape(Tensor a, const Shape& shape) override;
  Tensor permute(Tensor a, const std::array<int, 4>& order) override;
  Tensor contiguous(Tensor a) override;
  Tensor slice(Tensor a, int dim, std::int64_t start, std::int64_t length) override;
  Tensor concat(Tensor a, Tensor b, int dim) override;
  Tensor repeat(Tensor a, const Shape& shape) override;
  Tensor cast(Tensor a, DType dtype) override;
  Tensor copy(Tensor src, Tensor dst) override;

  const ScaledDotProductAttention* fused_attention() const override { return shared_.attention; }
  ggml_context* raw_context() const { return context_; }
  // Whether the layer that is being built is the CPU's.
  bool on_cpu() const { return on_cpu_; }
  NativeNodes& native() { return native_; }

 private:
  // One block of memory for all inputs, so that they go up together.
  Result<> place_inputs();
  // A weight in our kernels' layout, or null.
  const PackedTensor* packed(Tensor w) const;
  static bool on_node(ggml_tensor* tensor, bool ask, void* context);

  Shared& shared_;
  Arena arena_;
  std::size_t max_nodes_;
  std::uint32_t threads_;
  ggml_context* context_;  // the arena's
  ggml_backend_sched_ptr scheduler_;
  ggml_cgraph* graph_ = nullptr;  // in the arena
  NativeNodes native_;            // of the graph
  std::vector<ggml_tensor*> inputs_;
  PooledBuffer input_block_;
  ggml_backend_buffer_ptr input_buffer_;  // of the block
  bool on_cpu_ = true;
  Observer observer_;
  std::vector<const ggml_tensor*> named_;  // while somebody observes
};

}  // namespace ollama::ml::ggml
