// Several caches as one, for models whose layers differ in what they see: each layer belongs to the
// group with its window.
#pragma once

#include "kvcache/causal.h"

namespace ollama::kvcache {

class Wrapper final : public Cache {
 public:
  explicit Wrapper(std::vector<std::unique_ptr<Causal>> groups) : groups_(std::move(groups)) {}

  Result<> begin(const Batch& batch) override;
  void rollback() override;
  void begin_largest(std::size_t tokens) override;
  std::uint64_t shape_key() const override;
  void declare_inputs(ml::Context& context, std::vector<Inputs>& inputs) const override;
  KeysValues update(ml::Context& context, std::span<const Inputs> inputs, int layer, ml::Tensor k,
                    ml::Tensor v) const override;
  void collect_uploads(std::span<const Inputs> inputs, bool unchanged,
                       std::vector<ml::Upload>& uploads) override;

  void copy_prefix(Sequence source, Sequence destination, Position length) override;
  void remove(Sequence sequence, Position begin, Position end) override;
  Result<> move(Sequence sequence, Position begin, Position delta, const TurnKeys& turn,
                ml::Context& context) override;
  Position resume_point(Sequence sequence, Position position) const override;
  std::uint32_t free_cells() const override;
  std::uint64_t bytes() const override;
  std::vector<std::uint64_t> device_bytes() const override;

 private:
  std::vector<std::unique_ptr<Causal>> groups_;
};

}  // namespace ollama::kvcache
