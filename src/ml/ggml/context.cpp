#include "ml/ggml/context.h"

#include <algorithm>
#include <cstring>

#include "ml/ggml/buffers.h"
#include "ml/kernels/attention.h"

namespace ollama::ml::ggml {
namespace {

constexpr ErrorConstant kNoGraphMemory{
    ErrorCode::kOutOfMemory, "no memory for the graph: use a smaller num_batch or num_ctx"};
constexpr ErrorConstant kComputeFailed{ErrorCode::kInternal, "the graph could not be computed"};
constexpr ErrorConstant kComputeNoMemory{ErrorCode::kOutOfMemory,
                                         "no device memory while computing the graph"};
constexpr ErrorConstant kComputeAborted{ErrorCode::kCancelled, "computing was cancelled"};
constexpr ErrorConstant kUploadSize{ErrorCode::kInternal,
                                    "an input's size does not fit its tensor"};

// Whatever the type and the strides.
std::vector<float> values_of(const ggml_tensor& tensor) {
  std::vector<std::byte> bytes(ggml_nbytes(&tensor));
  ggml_backend_tensor_get(&tensor, bytes.data(), 0, bytes.size());
  const ggml_type_traits* traits = ggml_get_type_traits(tensor.type);
  std::vector<float> values(static_cast<std::size_t>(ggml_nelements(&tensor)));
  const auto read = [&](const std::byte* from, float* to, std::int64_t count) {
    if (tensor.type == GGML_TYPE_F32) {
      std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(float));
    } else if (tensor.type == GGML_TYPE_I32) {
      std::vector<std::int32_t> integers(static_cast<std::size_t>(count));
      std::memcpy(integers.data(), from, integers.size() * sizeof(std::int32_t));
      std::ranges::transform(integers, to, [](std::int32_t i) { return static_cast<float>(i); });
    } else if (traits->to_float != nullptr) {
      traits->to_float(from, to, count);
    }
  };
  // Whole rows where they are contiguous.
  const bool rows = tensor.nb[0] == traits->type_size;
  const std::int64_t step = rows ? tensor.ne[0] : 1;
  float* to = values.data();
  for (std::int64_t i3 = 0; i3 < tensor.ne[3]; ++i3) {
    for (std::int64_t i2 = 0; i2 < tensor.ne[2]; ++i2) {
      for (std::int64_t i1 = 0; i1 < tensor.ne[1]; ++i1) {
        for (std::int64_t i0 = 0; i0 < tensor.ne[0]; i0 += step, to += step) {
          const std::size_t at = (rows ? 0 : static_cast<std::size_t>(i0) * tensor.nb[0]) +
                                 static_cast<std::size_t>(i1) * tensor.nb[1] +
                                 static_cast<std::size_t>(i2) * tensor.nb[2] +
                                 static_cast<std::size_t>(i3) * tensor.nb[3];
          read(bytes.data() + at, to, step);
        }
      }
    }
  }
  return values;
}

}  // namespace

bool FusedAttention::serves_natively(const AttentionConfig& config) const {
  return native_ && kernels::attention_supports(config.k_type) &&
         kernels::attention_supports(config.v_type) &&
         config.head_dim_k % block_size(config.k_type) == 0 &&
         config.head_dim_v % block_size(config.v_type) == 0;
}

Tensor wrap(ggml_tensor* tensor) {
  return {tensor,
          static_cast<DType>(tensor->type),
          {tensor->ne[0], tensor->ne[1], tensor->ne[2], tensor->ne[3]}};
}

bool FusedAttention::supports(const AttentionConfig& config) const {
  // A yes of the device is not proof for every combination: the product's tests try each that is
  // used.
  const auto scratch = Arena::create(pool_, 8);
  if (!scratch) return false;
  ggml_context* context = scratch->get();
  const auto type = [](DType dtype) { return static_cast<ggml_type>(dtype); };
  if (config.head_dim_k % block_size(config.k_type) != 0 ||
      config.head_dim_v % block_size(config.v_type) != 0) {
    return false;
  }
  ggml_tensor* q = ggml_new_tensor_3d(context, GGML_TYPE_F32, config.head_dim_k, 1, 1);
  ggml_tensor* k = ggml_new_tensor_3d(context, type(config.k_type), config.head_dim_k, 256, 1);
  ggml_tensor* v = ggml_new_tensor_3d(context, type(config.v_type), config.head_dim_v, 256, 1);
  ggml_tensor* mask = ggml_new_tensor_2d(context, GGML_TYPE_F16, 256, 1);
  ggml_tensor* result =
      ggml_flash_attn_ext(context, q, k, v, mask, 1.0F, 0.0F, config.soft_cap ? 1.0F : 0.0F);
  if (config.sinks) {
    ggml_flash_attn_ext_add_sinks(result, ggml_new_tensor_1d(context, GGML_TYPE_F32, 1));
  }
  return std::ranges::all_of(devices_, [&](ggml_backend_dev_t device) {
    return (device == devices_.back() && serves_natively(config)) ||
           ggml_backend_dev_supports_op(device, result);
  });
}

Tensor FusedAttention::scaled_dot_product_attention(Context& context, Tensor q, Tensor k, Tensor v,
                                                    const AttentionMask& mask, Tensor sinks,
                                                    float scale, float soft_cap) const {
  auto& own = static_cast<GgmlContext&>(context);
  ggml_context* ctx = own.raw_context();
  // Without a mask everything is visible, which no model here wants: left to GGML.
  if (mask.visible && own.on_cpu() &&
      serves_natively({.head_dim_k = static_cast<std::int32_t>(k.dim(0)),
                       .head_dim_v = static_cast<std::int32_t>(v.dim(0)),
                       .k_type = k.dtype(),
                       .v_type = v.dtype()})) {
    return wrap(own.native().attention(ctx, {.q = raw(q),
                                             .k = raw(k),
                                             .v = raw(v),
                                             .mask = raw(mask.visible),
                                             .positions = raw(mask.positions),
                                             .sinks = raw(sinks),
                                             .scale = scale,
                                             .soft_cap = soft_cap}));
  }
  ggml_tensor* result = ggml_flash_attn_ext(ctx, raw(q), raw(k), raw(v), raw(mask.visible), scale,
                                            /*max_bias=*/0.0F, soft_cap);
  if (sinks) ggml_flash_attn_ext_add_sinks(result, raw(sinks));
  ggml_prec_set_acc(result, GGML_PREC_F32);
  return wrap(result);
}

GgmlContext::GgmlContext(Shared& shared, Arena arena, std::size_t max_nodes, std::uint32_t threads,
                         bool offload)
    : shared_(shared),
      arena_(std::move(arena)),
      max_nodes_(max_nodes),
      threads_(threads),
      context_(arena_.get()),
      native_(threads) {
  scheduler_.reset(ggml_backend_sched_new(shared_.backends.data(), nullptr,
                                          static_cast<int>(shared_.backends.size()), max_nodes,
                                          /*parallel=*/false, offload));
  reset();
}

void GgmlContext::reset() {
  ggml_backend_sched_reset(scheduler_.get());
  ggml_reset(context_);
  graph_ = ggml_new_graph_custom(context_, max_nodes_, /*grads=*/false);
  native_.reset();
  inputs_.clear();
  named_.clear();
}

Result<> GgmlContext::place_inputs() {
  const auto padded = [](const ggml_tensor* tensor) {
    constexpr std::size_t kAlignment = 64;
    return (ggml_nbytes(tensor) + kAlignment - 1) / kAlignment * kAlignment;
  };
  std::size_t size = 0;
  for (const ggml_tensor* input : inputs_) size += padded(input);
  if (size > input_block_.size()) {
    input_buffer_.reset();
    input_block_.reset();
    OLLAMA_ASSIGN(input_block_, shared_.pool->allocate(size));
    input_buffer_.reset(
        ggml_backend_dev_buffer_from_host_ptr(shared_.cpu(), input_block_.data(), size, size));
    if (!input_buffer_) return fail(kNoGraphMemory);
  }
  std::byte* address = input_block_.data();
  for (ggml_tensor* input : inputs_) {
    if (ggml_backend_tensor_alloc(input_buffer_.get(), input, address) != GGML_STATUS_SUCCESS) {
      return fail(kNoGraphMemory);
    }
    address += padded(input);
  }
  return {};
}

Result<> GgmlContext::prepare() {
  ++shared_.counters.prepares;
  if (!inputs_.empty()) OLLAMA_TRY(place_inputs());
  if (!ggml_backend_sched_alloc_graph(scheduler_.get(), graph_)) return fail(kNoGraphMemory);
  return {};
}

Result<std::vector<std::uint64_t>> GgmlContext::measure() {
  const ggml_backend_buffer_ptr nothing(
      ggml_backend_buft_alloc_buffer(ggml_backend_dev_buffer_type(shared_.cpu()), 0));
  for (ggml_tensor* input : inputs_) input->buffer = nothing.get();
  std::vector<std::size_t> sizes(shared_.backends.size());
  ggml_backend_sched_reserve_size(scheduler_.get(), graph_, sizes.data());
  reset();
  return std::vector<std::uint64_t>(sizes.begin(), sizes.end());
}

std::vector<std::uint64_t> GgmlContext::allocated() const {
  std::vector<std::uint64_t> sizes;
  for (ggml_backend_t backend : shared_.backends) {
    sizes.push_back(ggml_backend_sched_get_buffer_size(scheduler_.get(), backend));
  }
  return sizes;
}

Result<> GgmlContext::upload(std::span<const Upload> uploads) {
  ++shared_.counters.uploads;
  for (const Upload& upload : uploads) {
    ggml_tensor* tensor = raw(upload.tensor);
    const std::size_t size = ggml_nbytes(tensor);
    if (upload.offset > size || upload.bytes.size() > size - upload.offset) {
      return fail(kUploadSize);
    }
    // The block of inputs is host memory.
    std::memcpy(static_cast<std::byte*>(tensor->data) + upload.offset, upload.bytes.data(),
                upload.bytes.size());
  }
  return {};
}

Result<> GgmlContext::compute() {
  ++shared_.counters.computes;
  if (shared_.set_threads != nullptr) {
    shared_.set_threads(shared_.backends.back(), static_cast<int>(threads_));
  }
  native_.meeting().leave();
  const ggml_status status = ggml_backend_sched_graph_compute(scheduler_.get(), graph_);
  native_.meeting().enter();
  switch (status) {
    case GGML_STATUS_SUCCESS:
      return {};
    case GGML_STATUS_ABORTED:
      return fail(kComputeAborted);
    case GGML_STATUS_ALLOC_FAILED:
      return fail(kComputeNoMemory);
    default:
      return fail(kComputeFailed);
  }
}

Result<> GgmlContext::download(Tensor tensor, std::span<std::byte> bytes) {
  if (bytes.size() != ggml_nbytes(raw(tensor))) return fail(kUploadSize);
  ++shared_.counters.downloads;
  ggml_backend_tensor_get(raw(tensor), bytes.data(), 0, bytes.size());
  return {};
}

void GgmlContext::observe(Observer observer) {
  observer_ = std::move(observer);
  ggml_backend_sched_set_eval_callback(scheduler_.get(), observer_ ? on_node : nullptr, this);
}

bool GgmlContext::on_node(ggml_tensor* tensor, bool ask, void* context) {
  const auto* self = static_cast<const GgmlContext*>(context);
  if (ask) return std::ranges::contains(self->named_, tensor);
  const std::vector<float> values = values_of(*tensor);
  self->observer_({.name = tensor->name,
                   .dtype = static_cast<DType>(tensor->type),
                   .shape = wrap(tensor).shape(),
                   .values = values});
  return true;
}

Tensor GgmlContext::input(DType dtype, const Shape& shape, std::string_view name) {
  ggml_tensor* tensor = ggml_new_tensor_4d(context_, static_cast<ggml_type>(dtype), shape[0],
                                           shape[1], shape[2], shape[3]);
  ggml_set_input(tensor);
  inputs_.push_back(tensor);
  return named(wrap(tensor), name, -1);
}

Tensor GgmlContext::output(Tensor tensor, std::string_view name) {
  ggml_set_output(raw(tensor));
  keep(tensor);
  return named(tensor, name, -1);
}

void GgmlContext::keep(Tensor tensor) { ggml_build_forward_expand(graph_, raw(tensor)); }

Tensor GgmlContext::named(Tensor tensor, std::string_view name, int layer) {
  if (observer_) named_.push_back(raw(tensor));
  if (layer >= 0) {
    ggml_format_name(raw(tensor), "%.*s-%d", static_cast<int>(name.size()), name.data(), layer);
  } else {
    ggml_format_name(raw(tensor), "%.*s", static_cast<int>(name.size()), name.data());
  }
  return tensor;
}

void GgmlContext::set_layer(int layer) {
  const auto index = static_cast<std::size_t>(layer);
  const int cpu = static_cast<int>(shared_.devices.size()) - 1;
  on_cpu_ = layer < 0 || index >= shared_.layers.size() || shared_.layers[index] == cpu;
}

Tensor GgmlContext::add(Tensor a, Tensor b) { return wrap(ggml_add(context_, raw(a), raw(b))); }
Tensor GgmlContext::sub(Tensor a, Tensor b) { return wrap(ggml_sub(context_, raw(a), raw(b))); }
Tensor GgmlContext::mul(Tensor a, Tensor b) { return wrap(ggml_mul(context_, raw(a), raw(b))); }
Tensor GgmlContext::div(Tensor a, Tensor b) { return wrap(ggml_div(context_, raw(a), raw(b))); }
Tensor GgmlContext::scale(Tensor a, float factor) {
  return wrap(ggml_scale(context_, raw(a), factor));
}
Tensor GgmlContext::clamp(Tensor a, float low, float high) {
  // GGML clamps in place: a copy keeps the operand as it was.
  return wrap(ggml_clamp(context_, ggml_cont(context_, raw(a)), low, high));
}
Tensor GgmlContext::sum_rows(Tensor a) { return wrap(ggml_sum_rows(context_, raw(a))); }

Tensor GgmlContext::activate(Tensor a, Activation activation) {
  ggml_context* ctx = context_;
  switch (activation) {
    case Activation::kSilu:
      return wrap(ggml_silu(ctx, raw(a)));
    case Activation::kGelu:
      return wrap(ggml_gelu(ctx, raw(a)));
    case Activation::kGeluQuick:
      return wrap(ggml_gelu_quick(ctx, raw(a)));
    case Activation::kGeluErf:
      return wrap(ggml_gelu_erf(ctx, raw(a)));
    case Activation::kRelu:
      return wrap(ggml_relu(ctx, raw(a)));
    case Activation::kTanh:
      return wrap(ggml_tanh(ctx, raw(a)));
    case Activation::kSigmoid:
      return wrap(ggml_sigmoid(ctx, raw(a)));
    case Activation::kSoftplus:
      return wrap(ggml_softplus(ctx, raw(a)));
  }
  return a;
}

Tensor GgmlContext::gated(Tensor gate, Tensor up, Activation activation) {
  ggml_context* ctx = context_;
  switch (activation) {
    case Activation::kSilu:
      return wrap(ggml_swiglu_split(ctx, raw(gate), raw(up)));
    case Activation::kGelu:
      return wrap(ggml_geglu_split(ctx, raw(gate), raw(up)));
    case Activation::kRelu:
      return wrap(ggml_reglu_split(ctx, raw(gate), raw(up)));
    default:
      return mul(activate(gate, activation), up);
  }
}

Tensor GgmlContext::swiglu_oai(Tensor gate, Tensor up, float alpha, float limit) {
  return wrap(ggml_swiglu_oai(context_, raw(gate), raw(up), alpha, limit));
}
Tensor GgmlContext::rms_norm(Tensor a, float epsilon) {
  return wrap(ggml_rms_norm(context_, raw(a), epsilon));
}
Tensor GgmlContext::layer_norm(Tensor a, float epsilon) {
  return wrap(ggml_norm(context_, raw(a), epsilon));
}

Tensor GgmlContext::softmax(Tensor a, Tensor mask, Tensor sinks, float scale) {
  ggml_tensor* result = ggml_soft_max_ext(context_, raw(a), raw(mask), scale, 0.0F);
  if (sinks) ggml_soft_max_add_sinks(result, raw(sinks));
  return wrap(result);
}

Tensor GgmlContext::rope(Tensor x, Tensor positions, Tensor factors, const RopeOptions& o) {
  return wrap(ggml_rope_ext(context_, raw(x), raw(positions), raw(factors), o.dimensions,
                            o.neox ? GGML_ROPE_TYPE_NEOX : GGML_ROPE_TYPE_NORMAL,
                            o.original_context, o.base, o.scale, o.extrapolation,
                            o.attention_factor, o.beta_fast, o.beta_slow));
}

// Backends of GPUs use a tensor's `extra`, too.
const PackedTensor* GgmlContext::packed(Tensor w) const {
  return shared_.native && is_on_host(raw(w)) ? PackedTensor::of(raw(w)) : nullptr;
}

Tensor GgmlContext::mul_mat(Tensor w, Tensor x) {
  if (const PackedTensor* packed = this->packed(w)) {
    return wrap(native_.mul_mat(context_, *packed, raw(x)));
  }
  return wrap(ggml_mul_mat(context_, raw(w), raw(x)));
}
Tensor GgmlContext::mul_mat_id(Tensor w, Tensor x, Tensor ids) {
  if (const PackedTensor* packed = this->packed(w)) {
    return wrap(native_.mul_mat_id(context_, *packed, raw(x), raw(ids)));
  }
  return wrap(ggml_mul_mat_id(context_, raw(w), raw(x), raw(ids)));
}
Tensor GgmlContext::add_id(Tensor a, Tensor b, Tensor ids) {
  return wrap(ggml_add_id(context_, raw(a), raw(b), raw(ids)));
}
Tensor GgmlContext::top_k(Tensor a, std::int64_t k) {
  return wrap(ggml_argsort_top_k(context_, raw(a), static_cast<int>(k)));
}
Tensor GgmlContext::get_rows(Tensor a, Tensor ids) {
  return wrap(ggml_get_rows(context_, raw(a), raw(ids)));
}
Tensor GgmlContext::set_rows(Tensor dst, Tensor src, Tensor ids) {
  return wrap(ggml_set_rows(context_, raw(dst), raw(src), raw(ids)));
}

Tensor GgmlContext::reshape(Tensor a, const Shape& s) {
  return wrap(ggml_reshape_4d(context_, raw(a), s[0], s[1], s[2], s[3]));
}
Tensor GgmlContext::permute(Tensor a, const std::array<int, 4>& order) {
  return wrap(ggml_permute(context_, raw(a), order[0], order[1], order[2], order[3]));
}
Tensor GgmlContext::contiguous(Tensor a) { return wrap(ggml_cont(context_, raw(a))); }

Tensor GgmlContext::slice(Tensor a, int dim, std::int64_t start, std::int64_t length) {
  ggml_tensor* tensor = raw(a);
  Shape shape = a.shape();
  const auto d = static_cast<std::size_t>(dim);
  shape[d] = length;
  // Along the fastest dimension a step is a block of a quantised type, elsewhere a stride.
  const std::size_t offset =
      dim == 0 ? row_size(a.dtype(), start) : static_cast<std::size_t>(start) * tensor->nb[d];
  return wrap(ggml_view_4d(context_, tensor, shape[0], shape[1], shape[2], shape[3], tensor->nb[1],
                           tensor->nb[2], tensor->nb[3], offset));
}

Tensor GgmlContext::concat(Tensor a, Tensor b, int dim) {
  return wrap(ggml_concat(context_, raw(a), raw(b), dim));
}
Tensor GgmlContext::repeat(Tensor a, const Shape& s) {
  return wrap(ggml_repeat_4d(context_, raw(a), s[0], s[1], s[2], s[3]));
}
Tensor GgmlContext::cast(Tensor a, DType dtype) {
  return wrap(ggml_cast(context_, raw(a), static_cast<ggml_type>(dtype)));
}
Tensor GgmlContext::copy(Tensor src, Tensor dst) {
  return wrap(ggml_cpy(context_, raw(src), raw(dst)));
}

}  // namespace ollama::ml::ggml
