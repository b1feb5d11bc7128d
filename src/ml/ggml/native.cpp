#include "ml/ggml/native.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "ml/kernels/attention.h"
#include "ml/kernels/gemm.h"

namespace ollama::ml::ggml {
namespace {

using Node = NativeNodes::Node;

constexpr std::int64_t kMostGroups = 8;      // of a task
constexpr std::int64_t kTasksOfThread = 16;  // at least, so that no thread waits long for another

float* floats(const ggml_tensor* tensor) { return static_cast<float*>(tensor->data); }
std::byte* bytes(const ggml_tensor* tensor) { return static_cast<std::byte*>(tensor->data); }

// What a node's function works with, on one thread.
class Visit {
 public:
  explicit Visit(void* user_data) : node_(*static_cast<Node*>(user_data)) {
    node_.meeting->enter();
  }
  ~Visit() { node_.meeting->leave(); }
  Visit(const Visit&) = delete;
  Visit& operator=(const Visit&) = delete;
  Node* operator->() const { return &node_; }
  Node& operator*() const { return node_; }

 private:
  Node& node_;
};

std::int64_t tiles(std::int64_t columns) {
  return (columns + kernels::kTileColumns - 1) / kernels::kTileColumns;
}

// How a matrix's groups of rows become tasks.
struct GroupTasks {
  std::int64_t groups;
  std::int64_t each;
  std::int64_t count;

  GroupTasks(std::int64_t all, std::int64_t threads)
      : groups(all),
        each(std::clamp<std::int64_t>(all / (threads * kTasksOfThread), 1, kMostGroups)),
        count((all + each - 1) / each) {}
  void multiply(const kernels::GemmArguments& arguments, std::int64_t task) const {
    kernels::gemm(arguments, task * each, std::min((task + 1) * each, groups));
  }
};

std::int64_t rows(const ggml_tensor* tensor) {
  return tensor->ne[1] * tensor->ne[2] * tensor->ne[3];
}

// dst: bytes of packed columns; src 0: x, whose rows have one stride.
void pack_columns(ggml_tensor* dst, int /*thread*/, int threads, void* user_data) {
  const Visit node(user_data);
  const ggml_tensor* x = dst->src[0];
  const std::int64_t n = rows(x);
  const kernels::Columns columns{.data = floats(x),
                                 .stride = static_cast<std::int64_t>(x->nb[1] / sizeof(float))};
  node->tasks.share(tiles(n), threads, [&](std::int64_t tile) {
    kernels::pack_activations(node->kind, x->ne[0], n, columns, bytes(dst), tile, tile + 1);
  });
}

// dst: [m, n, ...]; src 0: packed columns.
void multiply(ggml_tensor* dst, int /*thread*/, int threads, void* user_data) {
  const Visit node(user_data);
  const kernels::GemmArguments arguments{.weights = node->w->weights,
                                         .activations = bytes(dst->src[0]),
                                         .n = rows(dst),
                                         .c = floats(dst),
                                         .c_stride = dst->ne[0]};
  const GroupTasks tasks(arguments.weights.groups(), threads);
  node->tasks.share(tasks.count, threads,
                    [&](std::int64_t task) { tasks.multiply(arguments, task); });
}

// Which slots (an expert that a token uses) belong to each expert. Integers: where each expert's
// slots begin in `order`, and their end; how many experts have any; these experts; the slots by
// expert.
class Route {
 public:
  Route(const ggml_tensor* tensor, std::int64_t experts)
      : data_(static_cast<std::int32_t*>(tensor->data)), experts_(experts) {}
  static std::int64_t size(std::int64_t experts, std::int64_t slots) {
    return 2 * experts + 2 + slots;
  }
  std::int32_t* starts() const { return data_; }
  std::int32_t& active_count() const { return data_[experts_ + 1]; }
  std::int32_t* active() const { return data_ + experts_ + 2; }
  std::int32_t* order() const { return data_ + 2 * experts_ + 2; }

 private:
  std::int32_t* data_;
  std::int64_t experts_;
};

// dst: a route; src 0: ids [used, tokens].
void route(ggml_tensor* dst, int thread, int /*threads*/, void* user_data) {
  const Visit node(user_data);
  if (thread != 0) return;
  const std::int64_t experts = node->w->experts;
  const Route route(dst, experts);
  const ggml_tensor* ids = dst->src[0];
  const auto for_each_slot = [&](auto&& visit) {
    std::int32_t slot = 0;
    for (std::int64_t token = 0; token < ids->ne[1]; ++token) {
      const std::byte* row = bytes(ids) + static_cast<std::size_t>(token) * ids->nb[1];
      for (std::int64_t i = 0; i < ids->ne[0]; ++i, ++slot) {
        std::int32_t expert = 0;
        std::memcpy(&expert, row + static_cast<std::size_t>(i) * ids->nb[0], sizeof expert);
        visit(std::clamp<std::int64_t>(expert, 0, experts - 1), slot);
      }
    }
  };
  std::int32_t* starts = route.starts();
  std::fill_n(starts, experts + 1, 0);
  for_each_slot([&](std::int64_t expert, std::int32_t) { ++starts[expert + 1]; });
  route.active_count() = 0;
  for (std::int64_t expert = 0; expert < experts; ++expert) {
    if (starts[expert + 1] > 0) {
      route.active()[route.active_count()++] = static_cast<std::int32_t>(expert);
    }
    starts[expert + 1] += starts[expert];
  }
  // Each start moves to its end, which is the next one's start.
  for_each_slot(
      [&](std::int64_t expert, std::int32_t slot) { route.order()[starts[expert]++] = slot; });
  std::copy_backward(starts, starts + experts, starts + experts + 1);
  starts[0] = 0;
}

// The slots of one active expert.
struct ExpertSlots {
  std::int64_t expert;
  std::int64_t start;
  std::int64_t count;
  const std::int32_t* order;

  ExpertSlots(const Route& route, std::int64_t i)
      : expert(route.active()[i]),
        start(route.starts()[expert]),
        count(route.starts()[expert + 1] - start),
        order(route.order() + start) {}
};

// dst: bytes of packed columns, expert by expert; src 0: x [k, used or 1, tokens], 1: the route.
void pack_slots(ggml_tensor* dst, int /*thread*/, int threads, void* user_data) {
  const Visit node(user_data);
  const ggml_tensor* x = dst->src[0];
  const Route route(dst->src[1], node->w->experts);
  const std::int64_t k = x->ne[0];
  const std::int64_t slots = route.starts()[node->w->experts];
  node->tasks.share(route.active_count(), threads, [&](std::int64_t i) {
    const ExpertSlots of(route, i);
    const kernels::Columns columns{.data = floats(x),
                                   .stride = k,
                                   .order = of.order,
                                   .divisor = static_cast<std::int32_t>(slots / rows(x))};
    kernels::pack_activations(node->kind, k, of.count, columns,
                              bytes(dst) + kernels::activation_size(node->kind, k, of.start), 0,
                              tiles(of.count));
  });
}

// dst: [m, used, tokens]; src 0: packed columns, 1: the route.
void multiply_slots(ggml_tensor* dst, int /*thread*/, int threads, void* user_data) {
  const Visit node(user_data);
  const Route route(dst->src[1], node->w->experts);
  const kernels::PackedWeights& first = node->w->weights;
  const GroupTasks tasks(first.groups(), threads);
  node->tasks.share(tasks.count * route.active_count(), threads, [&](std::int64_t task) {
    const ExpertSlots of(route, task / tasks.count);
    const std::size_t at = kernels::activation_size(node->kind, first.k, of.start);
    tasks.multiply({.weights = node->w->expert(of.expert),
                    .activations = bytes(dst->src[0]) + at,
                    .n = of.count,
                    .c = floats(dst),
                    .c_stride = dst->ne[0],
                    .order = of.order},
                   task % tasks.count);
  });
}

// --- attention ---

std::size_t aligned(std::size_t size) {
  return (size + kernels::kAttentionAlignment - 1) / kernels::kAttentionAlignment *
         kernels::kAttentionAlignment;
}
// GGML aligns tensors to less than the kernels ask for: memory has as much more.
std::byte* aligned(std::byte* address) {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  return address + (aligned(at) - at);
}

kernels::AttentionMask mask_of(const ggml_tensor* mask, const ggml_tensor* positions) {
  return {.type = static_cast<DType>(mask->type),
          .data = bytes(mask),
          .token_stride = mask->nb[1],
          .positions =
              positions == nullptr ? nullptr : static_cast<const std::int32_t*>(positions->data)};
}

// Sources of attention's node, in this order; then positions and sinks where there are any.
enum AttentionSource { kQ, kK, kV, kMask, kPlan, kMore };

kernels::AttentionShape shape_of(const ggml_tensor* q, const ggml_tensor* k, const ggml_tensor* v) {
  return {.head_dim_k = q->ne[0],
          .head_dim_v = v->ne[0],
          .heads = q->ne[2],
          .kv_heads = k->ne[2],
          .tokens = q->ne[1],
          .cells = k->ne[1]};
}

// One tensor has the output, partial results and every thread's scratch memory, one after the
// other.
struct AttentionMemory {
  std::size_t partials;
  std::size_t scratch;
  std::size_t scratch_each;
  std::size_t all;

  AttentionMemory(const kernels::AttentionShape& shape, std::int64_t threads) {
    const auto outputs = static_cast<std::size_t>(shape.head_dim_v * shape.heads * shape.tokens);
    partials = outputs * sizeof(float) + kernels::kAttentionAlignment;
    scratch = partials + aligned(kernels::attention_partials_bytes(shape));
    scratch_each = aligned(kernels::attention_scratch_bytes(shape));
    all = scratch + static_cast<std::size_t>(threads) * scratch_each;
  }
};

// dst: a plan; src 0: the mask, 1: positions where there are any.
void plan(ggml_tensor* dst, int thread, int /*threads*/, void* user_data) {
  const Visit node(user_data);
  if (thread != 0) return;
  const ggml_tensor* mask = dst->src[0];
  std::byte* memory = aligned(bytes(dst));
  kernels::plan_attention(mask_of(mask, node->has_positions ? dst->src[1] : nullptr), node->tokens,
                          mask->ne[0], node->partials,
                          {memory, static_cast<std::size_t>(bytes(dst) + dst->ne[0] - memory)});
}

kernels::AttentionArgs attention_args(const ggml_tensor* node, const Node& data) {
  const ggml_tensor* const* src = node->src;
  const auto view = [](const ggml_tensor* cache) {
    return kernels::CacheView{.type = static_cast<DType>(cache->type),
                              .data = bytes(cache),
                              .head_stride = cache->nb[2],
                              .cell_stride = cache->nb[1]};
  };
  const ggml_tensor* positions = data.has_positions ? src[kMore] : nullptr;
  const ggml_tensor* sinks = data.has_sinks ? src[kMore + (data.has_positions ? 1 : 0)] : nullptr;
  const kernels::AttentionShape shape = shape_of(src[kQ], src[kK], src[kV]);
  const AttentionMemory memory(shape, data.threads);
  return {.shape = shape,
          .q = floats(src[kQ]),
          .q_head_stride = src[kQ]->nb[2],
          .q_token_stride = src[kQ]->nb[1],
          .k = view(src[kK]),
          .v = view(src[kV]),
          .mask = mask_of(src[kMask], positions),
          .sinks = sinks == nullptr ? nullptr : floats(sinks),
          .scale = data.scale,
          .soft_cap = data.soft_cap,
          .bf16_products = kernels::attention_multiplies_bf16_fast(),
          .output = floats(node),
          .plan = aligned(bytes(src[kPlan])),
          .partials = aligned(bytes(node) + memory.partials - kernels::kAttentionAlignment)};
}

void attend(ggml_tensor* dst, int thread, int threads, void* user_data) {
  const Visit node(user_data);
  const kernels::AttentionArgs args = attention_args(dst, *node);
  const AttentionMemory memory(args.shape, node->threads);
  // Scratch memory is there for as many threads as were asked for.
  const std::int64_t used = std::min<std::int64_t>(threads, node->threads);
  if (thread < used) {
    std::byte* scratch = args.partials + (memory.scratch - memory.partials) +
                         static_cast<std::size_t>(thread) * memory.scratch_each;
    kernels::attend(args, thread, used, {scratch, memory.scratch_each}, &node->tasks.next());
  }
  node->tasks.leave(threads);
}

// dst: a view of attend's node, which is src 0.
void merge(ggml_tensor* dst, int thread, int threads, void* user_data) {
  const Visit node(user_data);
  kernels::merge_attention(attention_args(dst->src[0], *node), thread, threads);
}

}  // namespace

void NativeNodes::reset() {
  nodes_.clear();
  shared_.clear();
}

template <typename Make>
ggml_tensor* NativeNodes::shared(const ggml_tensor* of, const ggml_tensor* by, std::int64_t variant,
                                 const Make& make) {
  for (const Shared& entry : shared_) {
    if (entry.of == of && entry.by == by && entry.variant == variant) return entry.node;
  }
  shared_.push_back({of, by, variant, make()});
  return shared_.back().node;
}

ggml_tensor* NativeNodes::packed_activations(ggml_context* context, kernels::ActivationKind kind,
                                             ggml_tensor* x) {
  return shared(x, nullptr, static_cast<std::int64_t>(kind), [&] {
    // Rows that follow one another at one stride.
    const bool regular = x->type == GGML_TYPE_F32 && x->nb[0] == sizeof(float) &&
                         (ggml_is_contiguous(x) || (x->ne[2] == 1 && x->ne[3] == 1));
    ggml_tensor* columns = regular ? x : ggml_cont(context, x);
    Node& node = add_node();
    node.kind = kind;
    const auto size = static_cast<std::int64_t>(kernels::activation_size(kind, x->ne[0], rows(x)));
    return ggml_custom_4d(context, GGML_TYPE_I8, size, 1, 1, 1, &columns, 1, pack_columns,
                          GGML_N_TASKS_MAX, &node);
  });
}

ggml_tensor* NativeNodes::mul_mat(ggml_context* context, const PackedTensor& w, ggml_tensor* x) {
  ggml_tensor* activations =
      packed_activations(context, kernels::activation_kind(w.weights.type), x);
  Node& node = add_node();
  node.w = &w;
  return ggml_custom_4d(context, GGML_TYPE_F32, w.weights.m, x->ne[1], x->ne[2], x->ne[3],
                        &activations, 1, multiply, GGML_N_TASKS_MAX, &node);
}

ggml_tensor* NativeNodes::mul_mat_id(ggml_context* context, const PackedTensor& w, ggml_tensor* x,
                                     ggml_tensor* ids) {
  const std::int64_t slots = ids->ne[0] * ids->ne[1];
  const kernels::ActivationKind kind = kernels::activation_kind(w.weights.type);
  ggml_tensor* routed = shared(ids, nullptr, w.experts, [&] {
    Node& node = add_node();
    node.w = &w;
    return ggml_custom_4d(context, GGML_TYPE_I32, Route::size(w.experts, slots), 1, 1, 1, &ids, 1,
                          route, GGML_N_TASKS_MAX, &node);
  });
  ggml_tensor* activations = shared(x, routed, static_cast<std::int64_t>(kind), [&] {
    Node& node = add_node();
    node.w = &w;
    node.kind = kind;
    std::array<ggml_tensor*, 2> sources{ggml_is_contiguous(x) ? x : ggml_cont(context, x), routed};
    const auto size = static_cast<std::int64_t>(kernels::activation_size(kind, x->ne[0], slots));
    return ggml_custom_4d(context, GGML_TYPE_I8, size, 1, 1, 1, sources.data(), 2, pack_slots,
                          GGML_N_TASKS_MAX, &node);
  });
  Node& node = add_node();
  node.w = &w;
  node.kind = kind;
  std::array<ggml_tensor*, 2> sources{activations, routed};
  return ggml_custom_4d(context, GGML_TYPE_F32, w.weights.m, ids->ne[0], ids->ne[1], 1,
                        sources.data(), 2, multiply_slots, GGML_N_TASKS_MAX, &node);
}

ggml_tensor* NativeNodes::attention(ggml_context* context, const Attention& a) {
  const kernels::AttentionShape shape = shape_of(a.q, a.k, a.v);
  const std::int64_t partials = kernels::attention_partials(shape);
  ggml_tensor* planned = shared(a.mask, a.positions, partials, [&] {
    Node& node = add_node();
    node.tokens = shape.tokens;
    node.partials = partials;
    node.has_positions = a.positions != nullptr;
    std::array<ggml_tensor*, 2> sources{a.mask, a.positions};
    const auto size = static_cast<std::int64_t>(
        kernels::attention_plan_bytes(shape.tokens, shape.cells) + kernels::kAttentionAlignment);
    return ggml_custom_4d(context, GGML_TYPE_I8, size, 1, 1, 1, sources.data(),
                          node.has_positions ? 2 : 1, plan, GGML_N_TASKS_MAX, &node);
  });
  Node& node = add_node();
  node.scale = a.scale;
  node.soft_cap = a.soft_cap;
  node.has_positions = a.positions != nullptr;
  node.has_sinks = a.sinks != nullptr;
  node.threads = threads_;
  std::array<ggml_tensor*, kMore + 2> sources{a.q, a.k, a.v, a.mask, planned};
  int count = kMore;
  if (node.has_positions) sources[static_cast<std::size_t>(count++)] = a.positions;
  if (node.has_sinks) sources[static_cast<std::size_t>(count++)] = a.sinks;
  const AttentionMemory memory(shape, threads_);
  ggml_tensor* attended =
      ggml_custom_4d(context, GGML_TYPE_F32, static_cast<std::int64_t>(memory.all / sizeof(float)),
                     1, 1, 1, sources.data(), count, attend, GGML_N_TASKS_MAX, &node);
  ggml_tensor* merged =
      ggml_custom_inplace(context, attended, nullptr, 0, merge, GGML_N_TASKS_MAX, &node);
  const auto row = static_cast<std::size_t>(shape.head_dim_v) * sizeof(float);
  return ggml_view_3d(context, merged, shape.head_dim_v, shape.heads, shape.tokens, row,
                      row * static_cast<std::size_t>(shape.heads), 0);
}

}  // namespace ollama::ml::ggml
