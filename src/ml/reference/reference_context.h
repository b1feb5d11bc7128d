// The reference backend's graphs: a list of nodes, evaluated in the order in which they were
// recorded. Views share their tensor's values. Misuse is found as early as it can be: the first
// wrong operand or shape while recording fails prepare(), and what GGML would leave undefined
// (reading an input that was never uploaded, downloading what is no output, a write that is neither
// read nor kept) is kInternal.
#pragma once

#include <atomic>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ml/context.h"
#include "ml/reference/node.h"

namespace ollama::ml::reference {

// BackendCounters of all contexts of a backend.
struct Counters {
  std::atomic<std::uint64_t> uploads = 0;
  std::atomic<std::uint64_t> downloads = 0;
  std::atomic<std::uint64_t> computes = 0;
  std::atomic<std::uint64_t> prepares = 0;
};

class ReferenceContext final : public Context {
 public:
  ReferenceContext(std::shared_ptr<Counters> counters, std::size_t max_nodes);

  void reset() override;
  Result<> prepare() override;
  // Nothing is known before it is computed: 0.
  Result<std::vector<std::uint64_t>> measure() override { return std::vector<std::uint64_t>{0}; }
  std::vector<std::uint64_t> allocated() const override { return {0}; }
  Result<> upload(std::span<const Upload> uploads) override;
  Result<> compute() override;
  Result<> download(Tensor tensor, std::span<std::byte> bytes) override;
  void observe(Observer observer) override { observer_ = std::move(observer); }

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

 private:
  using Evaluate = std::function<Result<>(const Node& out)>;
  struct Step {
    std::string op;
    Node* out = nullptr;
    std::vector<const Node*> operands;
    Evaluate evaluate;
    bool writes = false;  // into a tensor that was there before
  };

  // Begins the checks of an operation: false, as once anything was wrong, when an operand is
  // missing or of another graph. Missing tensors of `optional` are left out.
  bool begin(std::string_view op, std::initializer_list<Tensor> operands,
             std::initializer_list<Tensor> optional = {});
  // Notes what is wrong with the operation begun, unless `ok`.
  bool check(bool ok, std::string_view what);
  // What a wrong operation gives: a tensor that later ones pass on.
  Tensor broken();
  Node* add_node(Node node);
  // A result of the operation begun, with values of its own. `evaluate` may return void. `rounded`:
  // it only moves values that are of the type already.
  template <typename F>
  Tensor result(DType dtype, const Shape& shape, F evaluate, bool rounded = false);
  // An operation that writes into dst, and gives it.
  Tensor write(const Node& dst, Evaluate evaluate);
  Tensor view(const Node& of, const Shape& shape, const Shape& strides, std::int64_t offset);
  template <typename F>
  Tensor elementwise(std::string_view op, Tensor a, F f);
  template <typename F>
  Tensor broadcast(std::string_view op, Tensor a, Tensor b, F f);
  template <typename F>
  Tensor gate(std::string_view op, Tensor gate, Tensor up, F f);
  bool is_mine(const Node& node) const;

  std::shared_ptr<Counters> counters_;
  std::size_t max_nodes_;
  std::vector<std::unique_ptr<Node>> nodes_;
  std::vector<Step> steps_;
  std::unique_ptr<Node> broken_;
  Result<> recorded_;  // the first thing that was wrong
  bool prepared_ = false;
  Observer observer_;
  std::vector<std::pair<std::string, const Node*>> named_;
  // The operation begun.
  std::string op_;
  std::vector<Node*> operands_;
};

}  // namespace ollama::ml::reference
