// The cache of layers that share one rule of sight: all positions up to a token's own, or the last
// `window` of them.
#pragma once

#include <map>

#include "kvcache/cache.h"

namespace ollama::kvcache {

class Causal final : public Cache {
 public:
  // The layers of `layers` whose window is `window`, by index. `options.cells` is as many as this
  // group keeps.
  static Result<std::unique_ptr<Causal>> create(ml::Backend& backend,
                                                std::span<const LayerSpec> layers,
                                                std::int32_t window, const CacheOptions& options,
                                                const ml::Placement& placement,
                                                ml::Purpose purpose = ml::Purpose::kUse);

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
  std::uint32_t free_cells() const override { return free_.free_cells(); }
  std::uint64_t bytes() const override { return storage_->bytes(); }
  std::vector<std::uint64_t> device_bytes() const override { return storage_->device_bytes(); }

  bool has_layer(int layer) const { return layers_.contains(layer); }
  const Cells& cells() const { return cells_; }
  const ml::Storage& storage() const { return *storage_; }  // keys, then values of each layer
  // The cells that this step's attention reads: [start, end), multiples of the padding.
  Run range() const { return range_; }
  // How many of its elements this step wrote.
  std::size_t mask_elements_written() const {
    return mask_grew_ ? changes_.size() : range_.length * mask_tokens_;
  }
  // This step's mask as it is uploaded, [range().length, padded tokens] of the configured type.
  std::span<const std::byte> mask() const { return {mask_.get(), mask_bytes_}; }

 private:
  struct Layer {
    LayerSpec spec;
    ml::Tensor k;  // [head_dim_k, kv_heads, cells]
    // [head_dim_v, kv_heads, cells], or permuted [cells, head_dim_v, kv_heads]; none with
    // values_in_keys
    ml::Tensor v;
  };

  Causal(Cells cells, FreeList free, const CacheOptions& options, std::int32_t window);
  void find_range(const Batch& batch);
  // The batch is the next token of each of the last step's sequences.
  bool continues(const Batch& batch) const;
  // Takes positions that no later token of the batch's sequences sees out of the cache.
  // False: more than one position of a sequence.
  bool leave_window(const Batch& batch);
  void write_mask(const Batch& batch);
  // Of a batch that continues: only the columns of cells that came or went.
  void update_mask();
  // Where the elements of these cells' permuted values lie, cell by cell.
  void elements_of(std::span<const std::int64_t> cells, std::vector<std::int64_t>& elements) const;
  std::size_t element_bytes() const { return ml::row_size(options_.config.mask_dtype, 1); }
  void forget_mask(Sequence sequence);

  Cells cells_;
  FreeList free_;
  CacheOptions options_;
  std::int32_t window_;
  std::map<int, Layer> layers_;
  std::unique_ptr<ml::Storage> storage_;
  std::int64_t value_width_ = 0;  // of every layer, with permuted values; else 0

  // A cell that the token of this row saw in the step before, and sees no more.
  struct Hidden {
    std::size_t token;
    std::uint32_t cell;
  };

  // This step's.
  Run range_;
  std::vector<Run> runs_;              // scratch of the allocation
  std::vector<std::int64_t> indices_;  // the cell of each token
  std::vector<std::int64_t> value_indices_;
  std::vector<Sequence> owners_;       // the sequence of each token
  std::vector<Position> positions_;    // and its position
  std::unique_ptr<std::byte[]> mask_;  // room for the largest; pages are committed by use
  std::size_t mask_bytes_ = 0;
  std::size_t mask_tokens_ = 0;  // padded
  bool mask_holds_ = false;      // the mask is the last step's, and its sequences are as they were
  bool mask_grew_ = false;       // this step changed the elements of changes_ only
  std::vector<Hidden> hidden_;
  std::vector<std::size_t> changes_;  // indices of mask elements
};

}  // namespace ollama::kvcache
