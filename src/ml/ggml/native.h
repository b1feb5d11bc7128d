// Nodes of GGML's graphs that our own kernels compute, on GGML's threads: custom CPU operations.
// Activations are packed by one node and multiplied by others, so that products with the same
// activations share the packing.
#pragma once

#include <ggml.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <vector>

#include "ml/kernels/packed.h"

namespace ollama::ml::ggml {

// A weight in the kernels' layout. The `extra` of its ggml_tensor points here. GGML uses that field
// for layouts of its own: only where it was told of none (GgmlWeights with `native`) is it ours.
struct PackedTensor {
  kernels::PackedWeights weights;  // of the first expert
  std::int64_t experts = 1;
  std::size_t expert_bytes = 0;  // from one expert to the next

  static const PackedTensor* of(const ggml_tensor* tensor) {
    return static_cast<const PackedTensor*>(tensor->extra);
  }
  kernels::PackedWeights expert(std::int64_t i) const {
    kernels::PackedWeights result = weights;
    result.data += static_cast<std::size_t>(i) * expert_bytes;
    return result;
  }
};

// Deals numbered tasks out to all threads that compute a node. GGML lets no thread go on to the
// next node before all have left this one.
class Tasks {
 public:
  // Calls work(task) for tasks of [0, count). Every thread of the node calls it once.
  template <typename Work>
  void share(std::int64_t count, int threads, const Work& work) {
    for (;;) {
      const std::int64_t task = next_.fetch_add(1, std::memory_order_relaxed);
      if (task >= count) break;
      work(task);
    }
    leave(threads);
  }
  // The same by hand: the number of the next task, and the end of a thread's part.
  std::atomic<std::int64_t>& next() { return next_; }
  void leave(int threads) {
    if (left_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads) {
      left_.store(0, std::memory_order_relaxed);
      next_.store(0, std::memory_order_relaxed);
    }
  }

 private:
  std::atomic<std::int64_t> next_ = 0;
  std::atomic<int> left_ = 0;
};

// GGML's threads meet after every node, at barriers that neither C++ nor the thread sanitizer knows
// of: what one thread wrote before, another sees afterwards by this.
class Meeting {
 public:
  void leave() { count_.fetch_add(1, std::memory_order_acq_rel); }
  void enter() const { static_cast<void>(count_.load(std::memory_order_acquire)); }

 private:
  std::atomic<std::uint32_t> count_ = 0;
};

// Adds nodes to a graph and keeps what they need while it is used.
class NativeNodes {
 public:
  explicit NativeNodes(std::uint32_t threads) : threads_(threads) {}

  // Forgets the graph's nodes.
  void reset();
  // Between the thread that computes graphs and those that compute nodes: before, and after.
  Meeting& meeting() { return meeting_; }

  // x f32 [k, n, ...] to f32 [m, n, ...].
  ggml_tensor* mul_mat(ggml_context* context, const PackedTensor& w, ggml_tensor* x);
  // x f32 [k, used or 1, tokens], ids i32 [used, tokens] to f32 [m, used, tokens].
  ggml_tensor* mul_mat_id(ggml_context* context, const PackedTensor& w, ggml_tensor* x,
                          ggml_tensor* ids);

  struct Attention {
    ggml_tensor* q;          // f32 [head_dim_k, tokens, heads]
    ggml_tensor* k;          // [head_dim_k, cells, kv_heads]
    ggml_tensor* v;          // [head_dim_v, cells, kv_heads]
    ggml_tensor* mask;       // f16 or f32 [cells, tokens or more]
    ggml_tensor* positions;  // i32 [cells] or null
    ggml_tensor* sinks;      // f32 [heads] or null
    float scale;
    float soft_cap;
  };
  // Gives [head_dim_v, heads, tokens].
  ggml_tensor* attention(ggml_context* context, const Attention& attention);

  // What a node is given as its user data.
  struct Node {
    Meeting* meeting;
    Tasks tasks = {};
    const PackedTensor* w = nullptr;
    kernels::ActivationKind kind = kernels::ActivationKind::kInt8;
    std::int64_t tokens = 0;    // of a plan
    std::int64_t partials = 0;  // and how many partial results there is room for
    float scale = 0.0F;
    float soft_cap = 0.0F;
    bool has_positions = false;
    bool has_sinks = false;
    std::int64_t threads = 1;  // that attention has scratch memory for
  };

 private:
  // A node that others can share: what was made of these tensors.
  struct Shared {
    const ggml_tensor* of;
    const ggml_tensor* by;
    std::int64_t variant;
    ggml_tensor* node;
  };

  template <typename Make>
  ggml_tensor* shared(const ggml_tensor* of, const ggml_tensor* by, std::int64_t variant,
                      const Make& make);
  ggml_tensor* packed_activations(ggml_context* context, kernels::ActivationKind kind,
                                  ggml_tensor* x);

  std::uint32_t threads_;
  Node& add_node() { return nodes_.emplace_back(&meeting_); }

  Meeting meeting_;
  std::deque<Node> nodes_;  // at addresses that stay
  std::vector<Shared> shared_;
};

}  // namespace ollama::ml::ggml
