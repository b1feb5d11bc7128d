#include "ml/reference/reference_context.h"

#include <algorithm>
#include <format>
#include <type_traits>
#include <utility>

#include "ml/reference/operations.h"

namespace ollama::ml::reference {
namespace {

Node& node_of(Tensor tensor) { return *static_cast<Node*>(tensor.node()); }
Tensor handle(Node& node) { return {&node, node.dtype, node.shape}; }

bool divides(std::int64_t part, std::int64_t whole) {
  return part == 0 ? whole == 0 : whole % part == 0;
}
bool divides(const Shape& part, const Shape& whole) {
  for (std::size_t i = 0; i < 4; ++i)
    if (!divides(part[i], whole[i])) return false;
  return true;
}
bool is_float(Tensor tensor) {
  return tensor.dtype() != DType::kI32 && tensor.dtype() != DType::kI64;
}
bool is_matrix(Tensor tensor) { return tensor.dim(2) == 1 && tensor.dim(3) == 1; }
// Rows that lie in memory as such; products ask for it, as GGML's do.
bool has_plain_rows(Tensor tensor) {
  const Node& node = node_of(tensor);
  return node.shape[0] <= 1 || node.strides[0] == 1;
}

std::size_t bytes_of(Tensor tensor) {
  return row_size(tensor.dtype(), tensor.dim(0)) *
         static_cast<std::size_t>(tensor.dim(1) * tensor.dim(2) * tensor.dim(3));
}

}  // namespace

ReferenceContext::ReferenceContext(std::shared_ptr<Counters> counters, std::size_t max_nodes)
    : counters_(std::move(counters)), max_nodes_(max_nodes) {
  reset();
}

// --- life cycle ---

void ReferenceContext::reset() {
  steps_.clear();
  nodes_.clear();
  broken_ = std::make_unique<Node>();
  broken_->context = this;
  broken_->buffer = std::make_shared<Buffer>();
  recorded_ = {};
  prepared_ = false;
  op_.clear();
  operands_.clear();
  named_.clear();
}

Result<> ReferenceContext::prepare() {
  OLLAMA_TRY(recorded_);
  for (const Step& step : steps_) {
    if (step.writes && !step.out->used)
      return fail(ErrorCode::kInternal, "{}: what it writes to '{}' is neither read nor kept",
                  step.op, step.out->buffer->name);
  }
  for (const auto& node : nodes_) {
    Buffer& buffer = *node->buffer;
    const bool own = buffer.owner == Owner::kInput || buffer.owner == Owner::kResult;
    if (!own || node->is_view) continue;
    OLLAMA_TRY(allocate(buffer, node->dtype, node->elements()));
    buffer.written = false;
  }
  prepared_ = true;
  ++counters_->prepares;
  return {};
}

Result<> ReferenceContext::upload(std::span<const Upload> uploads) {
  if (!prepared_) return fail(ErrorCode::kInternal, "upload before prepare");
  for (const Upload& upload : uploads) {
    if (!upload.tensor) return fail(ErrorCode::kInternal, "upload: no tensor");
    Node& node = node_of(upload.tensor);
    Buffer& buffer = *node.buffer;
    if (!is_mine(node) || (buffer.owner != Owner::kInput && buffer.owner != Owner::kStorage))
      return fail(ErrorCode::kInternal, "upload: '{}' is no input", buffer.name);
    if (!node.is_contiguous())
      return fail(ErrorCode::kInternal, "upload: '{}' is not contiguous", buffer.name);
    const std::size_t size = bytes_of(upload.tensor);
    if (upload.offset > size || upload.bytes.size() > size - upload.offset ||
        (upload.bytes.size() != size && !buffer.written))
      return fail(ErrorCode::kInternal, "upload: {} bytes at {} for {} {} of '{}', which has {}",
                  upload.bytes.size(), upload.offset, dtype_name(node.dtype), describe(node.shape),
                  buffer.name, size);
    std::vector<std::byte> whole(size);
    if (upload.bytes.size() != size) write_bytes(node, whole);
    std::ranges::copy(upload.bytes, whole.begin() + static_cast<std::ptrdiff_t>(upload.offset));
    read_bytes(node, whole);
    buffer.written = true;
  }
  ++counters_->uploads;
  return {};
}

Result<> ReferenceContext::compute() {
  if (!prepared_) return fail(ErrorCode::kInternal, "compute before prepare");
  ++counters_->computes;
  for (const Step& step : steps_) {
    for (const Node* operand : step.operands) {
      if (!operand->buffer->written)
        return fail(ErrorCode::kInternal, "{}: '{}' was never uploaded", step.op,
                    operand->buffer->name);
    }
    if (Result<> result = step.evaluate(*step.out); !result)
      return std::unexpected(
          result.error().with_context(std::format("{} '{}'", step.op, step.out->buffer->name)));
    step.out->buffer->written = true;
  }
  for (const auto& [name, node] : named_) {
    std::vector<float> values;
    for_elements(node->shape, [&](auto i0, auto i1, auto i2, auto i3) {
      values.push_back(node->is_integer() ? static_cast<float>(node->integer_at(i0, i1, i2, i3))
                                          : node->at(i0, i1, i2, i3));
    });
    observer_({.name = name, .dtype = node->dtype, .shape = node->shape, .values = values});
  }
  return {};
}

Result<> ReferenceContext::download(Tensor tensor, std::span<std::byte> bytes) {
  if (!prepared_) return fail(ErrorCode::kInternal, "download before prepare");
  if (!tensor) return fail(ErrorCode::kInternal, "download: no tensor");
  const Node& node = node_of(tensor);
  const Buffer& buffer = *node.buffer;
  if (!is_mine(node) || (buffer.owner == Owner::kResult && !node.readable))
    return fail(ErrorCode::kInternal, "download: '{}' is no output", buffer.name);
  if (!buffer.written)
    return fail(ErrorCode::kInternal, "download: '{}' was not computed", buffer.name);
  if (!node.is_contiguous())
    return fail(ErrorCode::kInternal, "download: '{}' is not contiguous", buffer.name);
  if (bytes.size() != bytes_of(tensor))
    return fail(ErrorCode::kInternal, "download: {} bytes for {} {} of '{}', which has {}",
                bytes.size(), dtype_name(node.dtype), describe(node.shape), buffer.name,
                bytes_of(tensor));
  write_bytes(node, bytes);
  ++counters_->downloads;
  return {};
}

// --- recording ---

bool ReferenceContext::is_mine(const Node& node) const {
  return node.context == nullptr || node.context == this;
}

bool ReferenceContext::begin(std::string_view op, std::initializer_list<Tensor> operands,
                             std::initializer_list<Tensor> optional) {
  prepared_ = false;
  if (!recorded_) return false;
  op_ = op;
  operands_.clear();
  for (const Tensor& tensor : operands) {
    if (!check(static_cast<bool>(tensor), "an operand is missing")) return false;
    operands_.push_back(&node_of(tensor));
  }
  for (const Tensor& tensor : optional)
    if (tensor) operands_.push_back(&node_of(tensor));
  for (const Node* node : operands_)
    if (!check(is_mine(*node), "an operand belongs to another graph")) return false;
  // Weights and storage are shared with other contexts: their nodes are only read here.
  for (Node* node : operands_)
    if (node->context == this) node->used = true;
  return true;
}

bool ReferenceContext::check(bool ok, std::string_view what) {
  if (ok || !recorded_) return ok;
  std::string message = std::format("{}: {};", op_, what);
  for (const Node* node : operands_)
    message += std::format(" '{}' {} {}", node->buffer->name, dtype_name(node->dtype),
                           describe(node->shape));
  recorded_ = std::unexpected(Error(ErrorCode::kInternal, std::move(message)));
  return false;
}

Tensor ReferenceContext::broken() { return handle(*broken_); }

Node* ReferenceContext::add_node(Node node) {
  node.context = this;
  check(nodes_.size() < max_nodes_, "the graph has more nodes than its context allows");
  if (const Result<> shape = check_shape(node.dtype, node.shape); !shape)
    check(false, shape.error().message());
  if (!recorded_) return nullptr;
  if (!node.is_view) node.strides = contiguous_strides(node.shape);
  return nodes_.emplace_back(std::make_unique<Node>(std::move(node))).get();
}

template <typename F>
Tensor ReferenceContext::result(DType dtype, const Shape& shape, F evaluate, bool rounded) {
  Node node;
  node.buffer = std::make_shared<Buffer>();
  node.buffer->name = op_;
  node.dtype = dtype;
  node.shape = shape;
  if (!check(is_storable(dtype), "its type cannot be written")) return broken();
  Node* const out = add_node(std::move(node));
  if (out == nullptr) return broken();
  steps_.push_back({op_,
                    out,
                    {operands_.begin(), operands_.end()},
                    [evaluate, rounded](const Node& to) -> Result<> {
                      if constexpr (std::is_void_v<decltype(evaluate(to))>) {
                        evaluate(to);
                      } else {
                        OLLAMA_TRY(evaluate(to));
                      }
                      if (!rounded) round_values(to);
                      return {};
                    }});
  return handle(*out);
}

Tensor ReferenceContext::view(const Node& of, const Shape& shape, const Shape& strides,
                              std::int64_t offset) {
  Node node;
  node.buffer = of.buffer;
  node.dtype = of.dtype;
  node.shape = shape;
  node.strides = strides;
  node.offset = offset;
  node.is_view = true;
  Node* const out = add_node(std::move(node));
  return out == nullptr ? broken() : handle(*out);
}

Tensor ReferenceContext::write(const Node& dst, Evaluate evaluate) {
  if (!check(dst.buffer->owner != Owner::kWeights, "weights are not written")) return broken();
  const Tensor tensor = view(dst, dst.shape, dst.strides, dst.offset);
  if (recorded_) {
    steps_.push_back(
        {op_, &node_of(tensor), {operands_.begin(), operands_.end()}, std::move(evaluate), true});
  }
  return tensor;
}

Tensor ReferenceContext::input(DType dtype, const Shape& shape, std::string_view name) {
  if (!begin(std::format("input '{}'", name), {})) return broken();
  if (!check(is_storable(dtype), "its type cannot be written")) return broken();
  Node node;
  node.buffer = std::make_shared<Buffer>();
  node.buffer->owner = Owner::kInput;
  node.buffer->name = name;
  node.dtype = dtype;
  node.shape = shape;
  Node* const out = add_node(std::move(node));
  return out == nullptr ? broken() : handle(*out);
}

Tensor ReferenceContext::output(Tensor tensor, std::string_view name) {
  if (!begin("output", {tensor})) return broken();
  Node& node = node_of(tensor);
  if (node.context == this) node.readable = true;
  return named(tensor, name, -1);
}

void ReferenceContext::keep(Tensor tensor) { begin("keep", {tensor}); }

Tensor ReferenceContext::named(Tensor tensor, std::string_view name, int layer) {
  if (!tensor) return tensor;
  Node& node = node_of(tensor);
  if (observer_) {
    named_.emplace_back(layer < 0 ? std::string(name) : std::format("{}-{}", name, layer), &node);
  }
  // Not what belongs to somebody else, nor the tensor that a view is of.
  if (node.context == this && !node.is_view && node.buffer->owner == Owner::kResult)
    node.buffer->name = name;
  return tensor;
}

void ReferenceContext::set_layer(int) {}

// --- arithmetic ---

template <typename F>
Tensor ReferenceContext::elementwise(std::string_view op, Tensor a, F f) {
  if (!begin(op, {a}) || !check(is_float(a), "integers")) return broken();
  const Node& from = node_of(a);
  return result(a.dtype(), a.shape(), [&from, f](const Node& out) { map(out, from, f); });
}

template <typename F>
Tensor ReferenceContext::broadcast(std::string_view op, Tensor a, Tensor b, F f) {
  if (!begin(op, {a, b}) || !check(is_float(a) && is_float(b), "integers") ||
      !check(divides(b.shape(), a.shape()), "the second does not repeat to the first's shape"))
    return broken();
  const Node& x = node_of(a);
  const Node& y = node_of(b);
  return result(a.dtype(), a.shape(), [&x, &y, f](const Node& out) { map(out, x, y, f); });
}

template <typename F>
Tensor ReferenceContext::gate(std::string_view op, Tensor gate, Tensor up, F f) {
  if (!begin(op, {gate, up}) ||
      !check(gate.shape() == up.shape(), "gate and up are not of one shape"))
    return broken();
  return broadcast(op, gate, up, f);
}

Tensor ReferenceContext::add(Tensor a, Tensor b) {
  return broadcast("add", a, b, [](float x, float y) { return x + y; });
}
Tensor ReferenceContext::sub(Tensor a, Tensor b) {
  return broadcast("sub", a, b, [](float x, float y) { return x - y; });
}
Tensor ReferenceContext::mul(Tensor a, Tensor b) {
  return broadcast("mul", a, b, [](float x, float y) { return x * y; });
}
Tensor ReferenceContext::div(Tensor a, Tensor b) {
  return broadcast("div", a, b, [](float x, float y) { return x / y; });
}
Tensor ReferenceContext::scale(Tensor a, float factor) {
  return elementwise("scale", a, [factor](float x) { return x * factor; });
}
Tensor ReferenceContext::clamp(Tensor a, float low, float high) {
  return elementwise("clamp", a, [low, high](float x) { return std::max(low, std::min(x, high)); });
}

Tensor ReferenceContext::sum_rows(Tensor a) {
  if (!begin("sum_rows", {a}) || !check(is_float(a), "integers")) return broken();
  const Node& from = node_of(a);
  return result(DType::kF32, {1, a.dim(1), a.dim(2), a.dim(3)},
                [&from](const Node& out) { reference::sum_rows(out, from); });
}

Tensor ReferenceContext::activate(Tensor a, Activation activation) {
  return elementwise("activate", a, [activation](float x) { return activated(x, activation); });
}

Tensor ReferenceContext::gated(Tensor gate, Tensor up, Activation activation) {
  if (!begin("gated", {gate, up}) ||
      !check(activation == Activation::kSilu || activation == Activation::kGelu ||
                 activation == Activation::kRelu,
             "an activation other than silu, gelu and relu"))
    return broken();
  return this->gate("gated", gate, up,
                    [activation](float g, float u) { return activated(g, activation) * u; });
}

Tensor ReferenceContext::swiglu_oai(Tensor gate, Tensor up, float alpha, float limit) {
  return this->gate("swiglu_oai", gate, up, [alpha, limit](float g, float u) {
    g = std::min(g, limit);
    u = std::max(-limit, std::min(u, limit));
    return g * activated(alpha * g, Activation::kSigmoid) * (u + 1.0F);
  });
}

Tensor ReferenceContext::rms_norm(Tensor a, float epsilon) {
  if (!begin("rms_norm", {a}) || !check(is_float(a), "integers")) return broken();
  const Node& from = node_of(a);
  return result(DType::kF32, a.shape(),
                [&from, epsilon](const Node& out) { reference::rms_norm(out, from, epsilon); });
}

Tensor ReferenceContext::layer_norm(Tensor a, float epsilon) {
  if (!begin("layer_norm", {a}) || !check(is_float(a), "integers")) return broken();
  const Node& from = node_of(a);
  return result(DType::kF32, a.shape(),
                [&from, epsilon](const Node& out) { reference::layer_norm(out, from, epsilon); });
}

Tensor ReferenceContext::softmax(Tensor a, Tensor mask, Tensor sinks, float scale) {
  if (!begin("softmax", {a}, {mask, sinks}) || !check(is_float(a), "integers")) return broken();
  if (mask && (!check(is_float(mask), "an integer mask") ||
               !check(mask.dim(0) == a.dim(0) && mask.dim(1) >= a.dim(1),
                      "the mask is smaller than the scores") ||
               !check(divides(mask.dim(2), a.dim(2)) && divides(mask.dim(3), a.dim(3)),
                      "the mask does not repeat to the scores")))
    return broken();
  if (sinks &&
      (!check(is_float(sinks), "integer sinks") ||
       !check(sinks.dim(0) == a.dim(2) && sinks.elements() == a.dim(2), "not one sink a head")))
    return broken();
  const Node& from = node_of(a);
  const Node* const masked = mask ? &node_of(mask) : nullptr;
  const Node* const sunk = sinks ? &node_of(sinks) : nullptr;
  return result(DType::kF32, a.shape(), [&from, masked, sunk, scale](const Node& out) {
    reference::softmax(out, from, masked, sunk, scale);
  });
}

Tensor ReferenceContext::rope(Tensor x, Tensor positions, Tensor factors,
                              const RopeOptions& options) {
  if (!begin("rope", {x, positions}, {factors}) || !check(is_float(x), "integers") ||
      !check(positions.dtype() == DType::kI32, "positions are not i32") ||
      !check(positions.dim(0) == x.dim(2) && positions.elements() == x.dim(2),
             "not one position a token") ||
      !check(
          options.dimensions > 0 && options.dimensions % 2 == 0 && options.dimensions <= x.dim(0),
          "the dimensions to rotate are odd, none or more than the head has"))
    return broken();
  if (factors && (!check(is_float(factors), "integer factors") ||
                  !check(factors.dim(0) >= options.dimensions / 2, "fewer factors than pairs")))
    return broken();
  const Node& from = node_of(x);
  const Node& at = node_of(positions);
  const Node* const by = factors ? &node_of(factors) : nullptr;
  return result(x.dtype(), x.shape(), [&from, &at, by, options](const Node& out) {
    reference::rope(out, from, at, by, options);
  });
}

// --- products ---

Tensor ReferenceContext::mul_mat(Tensor w, Tensor x) {
  if (!begin("mul_mat", {w, x}) || !check(is_float(w) && is_float(x), "integers") ||
      !check(w.dim(0) == x.dim(0), "rows of different lengths") ||
      !check(divides(w.dim(2), x.dim(2)) && divides(w.dim(3), x.dim(3)),
             "the first does not repeat to the second's dimensions 2 and 3") ||
      !check(has_plain_rows(w) && has_plain_rows(x), "an operand is transposed: copy it first"))
    return broken();
  const Node& a = node_of(w);
  const Node& b = node_of(x);
  return result(DType::kF32, {w.dim(1), x.dim(1), x.dim(2), x.dim(3)},
                [&a, &b](const Node& out) { reference::mul_mat(out, a, b); });
}

Tensor ReferenceContext::mul_mat_id(Tensor w, Tensor x, Tensor ids) {
  if (!begin("mul_mat_id", {w, x, ids}) || !check(is_float(w) && is_float(x), "integers") ||
      !check(ids.dtype() == DType::kI32 && is_matrix(ids), "ids are not an i32 matrix") ||
      !check(w.dim(0) == x.dim(0), "rows of different lengths") ||
      !check(w.dim(3) == 1 && x.dim(3) == 1, "four dimensions") ||
      !check(x.dim(2) == ids.dim(1), "not as many columns of ids as tokens") ||
      !check(x.dim(1) == 1 || x.dim(1) == ids.dim(0), "neither one row a token nor one an id") ||
      !check(has_plain_rows(w) && has_plain_rows(x), "an operand is transposed: copy it first"))
    return broken();
  const Node& a = node_of(w);
  const Node& b = node_of(x);
  const Node& which = node_of(ids);
  return result(
      DType::kF32, {w.dim(1), ids.dim(0), x.dim(2), 1},
      [&a, &b, &which](const Node& out) { return reference::mul_mat_id(out, a, b, which); });
}

Tensor ReferenceContext::add_id(Tensor a, Tensor b, Tensor ids) {
  if (!begin("add_id", {a, b, ids}) || !check(is_float(a) && is_float(b), "integers") ||
      !check(ids.dtype() == DType::kI32 && is_matrix(ids), "ids are not an i32 matrix") ||
      !check(a.dim(0) == b.dim(0), "rows of different lengths") ||
      !check(is_matrix(b) && a.dim(3) == 1, "too many dimensions") ||
      !check(a.dim(1) == ids.dim(0) && a.dim(2) == ids.dim(1), "not one id a row"))
    return broken();
  const Node& x = node_of(a);
  const Node& y = node_of(b);
  const Node& which = node_of(ids);
  return result(a.dtype(), a.shape(),
                [&x, &y, &which](const Node& out) { return reference::add_id(out, x, y, which); });
}

Tensor ReferenceContext::top_k(Tensor a, std::int64_t k) {
  if (!begin("top_k", {a}) || !check(is_float(a), "integers") ||
      !check(k >= 0 && k <= a.dim(0), "more than there are"))
    return broken();
  const Node& from = node_of(a);
  return result(DType::kI32, {k, a.dim(1), a.dim(2), a.dim(3)},
                [&from](const Node& out) { reference::top_k(out, from); });
}

// --- rows ---

Tensor ReferenceContext::get_rows(Tensor a, Tensor ids) {
  if (!begin("get_rows", {a, ids}) || !check(ids.dtype() == DType::kI32, "ids are not i32") ||
      !check(ids.dim(3) == 1 && a.dim(2) == ids.dim(1) && a.dim(3) == ids.dim(2),
             "ids' dimensions 1 and 2 are not the rows' 2 and 3"))
    return broken();
  const Node& from = node_of(a);
  const Node& which = node_of(ids);
  return result(is_float(a) ? DType::kF32 : a.dtype(),
                {a.dim(0), ids.dim(0), ids.dim(1), ids.dim(2)},
                [&from, &which](const Node& out) { return reference::get_rows(out, from, which); });
}

Tensor ReferenceContext::set_rows(Tensor dst, Tensor src, Tensor ids) {
  if (!begin("set_rows", {dst, src, ids}) || !check(is_float(dst) && is_float(src), "integers") ||
      !check(ids.dtype() == DType::kI64, "ids are not i64") ||
      !check(src.dtype() == DType::kF32, "rows are not f32") ||
      !check(is_matrix(dst) && is_matrix(src), "more than two dimensions") ||
      !check(dst.dim(0) == src.dim(0), "rows of different lengths") ||
      !check(ids.dim(0) == src.dim(1) && ids.elements() == src.dim(1), "not one id a row") ||
      !check(has_plain_rows(dst) && has_plain_rows(src), "an operand is transposed: copy it first"))
    return broken();
  const Node& from = node_of(src);
  const Node& which = node_of(ids);
  return write(node_of(dst),
               [&from, &which](const Node& out) { return reference::set_rows(out, from, which); });
}

// --- shapes ---

Tensor ReferenceContext::reshape(Tensor a, const Shape& shape) {
  if (!begin("reshape", {a}) || !check(node_of(a).is_contiguous(), "not contiguous: copy it first"))
    return broken();
  if (const Result<> sane = check_shape(a.dtype(), shape);
      !check(sane.has_value(), "to a shape that cannot be") ||
      !check(Tensor(nullptr, a.dtype(), shape).elements() == a.elements(),
             std::format("to {}, which has another number of elements", describe(shape))))
    return broken();
  return view(node_of(a), shape, contiguous_strides(shape), node_of(a).offset);
}

Tensor ReferenceContext::permute(Tensor a, const std::array<int, 4>& order) {
  if (!begin("permute", {a}) ||
      !check(std::ranges::is_permutation(order, std::array{0, 1, 2, 3}), "not a permutation") ||
      !check(order[0] == 0 || !is_quantized(a.dtype()), "rows of blocks cannot be transposed"))
    return broken();
  const Node& of = node_of(a);
  Shape shape{};
  Shape strides{};
  for (std::size_t i = 0; i < 4; ++i) {
    shape[static_cast<std::size_t>(order[i])] = of.shape[i];
    strides[static_cast<std::size_t>(order[i])] = of.strides[i];
  }
  return view(of, shape, strides, of.offset);
}

Tensor ReferenceContext::contiguous(Tensor a) {
  if (!begin("contiguous", {a})) return broken();
  const Node& from = node_of(a);
  return result(a.dtype(), a.shape(), [&from](const Node& out) { copy_values(out, from); }, true);
}

Tensor ReferenceContext::slice(Tensor a, int dim, std::int64_t start, std::int64_t length) {
  if (!begin("slice", {a}) || !check(dim >= 0 && dim < 4, "no such dimension") ||
      !check(start >= 0 && length >= 0 && start <= a.dim(static_cast<std::size_t>(dim)) &&
                 length <= a.dim(static_cast<std::size_t>(dim)) - start,
             std::format("{} from {} of dimension {}", length, start, dim)) ||
      !check(dim != 0 || start % block_size(a.dtype()) == 0, "starts within a block"))
    return broken();
  const Node& of = node_of(a);
  const auto d = static_cast<std::size_t>(dim);
  Shape shape = of.shape;
  shape[d] = length;
  return view(of, shape, of.strides, of.offset + start * of.strides[d]);
}

Tensor ReferenceContext::concat(Tensor a, Tensor b, int dim) {
  if (!begin("concat", {a, b}) || !check(dim >= 0 && dim < 4, "no such dimension") ||
      !check(a.dtype() == b.dtype(), "different types"))
    return broken();
  const auto d = static_cast<std::size_t>(dim);
  Shape shape = a.shape();
  shape[d] = b.dim(d);
  if (!check(shape == b.shape(), "other dimensions differ")) return broken();
  shape[d] = a.dim(d) + b.dim(d);
  const Node& first = node_of(a);
  const Node& second = node_of(b);
  return result(
      a.dtype(), shape,
      [&first, &second, dim](const Node& out) { reference::concat(out, first, second, dim); },
      true);
}

Tensor ReferenceContext::repeat(Tensor a, const Shape& shape) {
  if (!begin("repeat", {a}) || !check(is_float(a), "integers") ||
      !check(divides(a.shape(), shape), std::format("does not repeat to {}", describe(shape))))
    return broken();
  const Node& from = node_of(a);
  return result(a.dtype(), shape, [&from](const Node& out) { reference::repeat(out, from); }, true);
}

Tensor ReferenceContext::cast(Tensor a, DType dtype) {
  if (!begin("cast", {a})) return broken();
  const Node& from = node_of(a);
  return result(dtype, a.shape(), [&from](const Node& out) { copy_values(out, from); });
}

Tensor ReferenceContext::copy(Tensor src, Tensor dst) {
  if (!begin("copy", {src, dst}) || !check(src.elements() == dst.elements(), "different sizes"))
    return broken();
  const Node& from = node_of(src);
  return write(node_of(dst), [&from](const Node& out) -> Result<> {
    copy_values(out, from);
    round_values(out);
    return {};
  });
}

}  // namespace ollama::ml::reference
