// The KV cache as the engine and the models see it: cells that hold keys and values of one
// position, shared by all sequences. The engine moves sequences about; a model stores a layer's new
// keys and values and gets back what its attention reads, with the mask that says which cell each
// token may see.
//
// A step goes: begin(batch) finds cells; where the shape key differs from the graph's, the graph is
// built anew (declare_inputs, then update per layer); collect_uploads gives the step's mask and
// indices.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/error.h"
#include "kvcache/cells.h"
#include "kvcache/free_list.h"
#include "ml/backend.h"

namespace ollama::kvcache {

using Sequence = std::uint32_t;  // 0 to kMaxSequences - 1
using Position = std::int32_t;

// As the end of a range of positions: all that follow.
inline constexpr Position kNoEnd = INT32_MAX;

// The tokens of one step: token i of sequence sequences[i] at positions[i].
struct Batch {
  std::span<const Position> positions;
  std::span<const Sequence> sequences;
};

// What one layer keeps in a cell.
struct LayerSpec {
  std::int32_t head_dim_k = 0;
  std::int32_t head_dim_v = 0;
  std::int32_t kv_heads = 0;    // 0: the layer keeps nothing here
  std::int32_t window = 0;      // sees this many positions, its own included; 0: all
  bool values_in_keys = false;  // values are the first head_dim_v of the keys (latent attention)
  // Numbers in f32 that are kept for each sequence that is evaluated at once, however long it gets
  // (recurrent layers). They count in plans; no cache here keeps them yet.
  std::int64_t state = 0;
};

struct CacheOptions {
  std::uint32_t cells = 0;      // positions that fit, over all sequences
  std::uint32_t sequences = 1;  // that are told apart, 1 to kMaxSequences
  std::uint32_t parallel = 1;   // of these, evaluated at once: a window is kept for each
  std::uint32_t max_batch = 512;
  ml::DType k_type = ml::DType::kF16;
  ml::DType v_type = ml::DType::kF16;
  ml::CacheConfig config;
};

// Cells that layers with this window keep: all of options.cells without one, else at most a window
// and a batch in flight for every sequence that is evaluated.
std::uint32_t cells_of_window(std::int32_t window, const CacheOptions& options);

// A graph's inputs of one group of layers (those with the same window).
struct Inputs {
  ml::Tensor mask;       // [padded length, padded tokens], 0 where visible, -inf elsewhere
  ml::Tensor indices;    // i64 [tokens]: the cell each token is written to
  ml::Tensor positions;  // with cell_positions, i32 [padded length]: the position in each cell
  // With permuted values, i64 [width * tokens]: the element each of their elements is written to.
  ml::Tensor value_indices;
};

// What a layer's attention reads.
struct KeysValues {
  ml::Tensor k;               // [head_dim_k, kv_heads, length]
  ml::Tensor v;               // [head_dim_v, kv_heads, length]
  ml::Tensor mask;            // of the layer's group
  ml::Tensor positions = {};  // the cells', or none
  bool permuted_v =
      false;  // v is a view of [length, head_dim_v, kv_heads], whose rows are contiguous
};

// Adds the turning of a layer's keys f32 [head_dim_k, kv_heads, cells], each by its own number of
// positions (i32 [cells]).
using TurnKeys =
    std::function<ml::Tensor(ml::Context& context, int layer, ml::Tensor keys, ml::Tensor by)>;

class Cache {
 public:
  virtual ~Cache() = default;

  // --- a step ---
  // Finds a cell for every token of the batch. Errors: kCacheFull, and nothing has changed.
  virtual Result<> begin(const Batch& batch) = 0;
  // Undoes the last begin(): its tokens' cells are free again (the step failed).
  virtual void rollback() = 0;
  // Instead of begin(): shapes as of a step of `tokens` tokens that reads every cell, the largest
  // there can be, for a graph that is not computed. Holds until the next begin().
  virtual void begin_largest(std::size_t tokens) = 0;
  // Identifies the graph that serves this step's shapes: equal keys, equal graphs.
  virtual std::uint64_t shape_key() const = 0;
  // Appends the inputs of the graph that is being built, one a group.
  virtual void declare_inputs(ml::Context& context, std::vector<Inputs>& inputs) const = 0;
  // Adds to the graph: writes k [head_dim_k, kv_heads, tokens] and v [head_dim_v, kv_heads, tokens]
  // (none with values_in_keys), both contiguous, into the step's cells, then reads.
  virtual KeysValues update(ml::Context& context, std::span<const Inputs> inputs, int layer,
                            ml::Tensor k, ml::Tensor v) const = 0;
  // Appends this step's values for those inputs; they stay valid until the next begin().
  // `unchanged`: the inputs hold what was collected for the step before; then a mask that only
  // grew by the new tokens' columns goes up as these.
  virtual void collect_uploads(std::span<const Inputs> inputs, bool unchanged,
                               std::vector<ml::Upload>& uploads) = 0;

  // --- sequences ---
  // Makes positions [0, length) of `source` part of `destination` too, sharing cells. `destination`
  // must be empty.
  virtual void copy_prefix(Sequence source, Sequence destination, Position length) = 0;
  // Takes positions [begin, end) from a sequence; cells that nobody uses any more are free.
  virtual void remove(Sequence sequence, Position begin, Position end) = 0;
  // Moves what a sequence holds from position `begin` on by `delta`, turning its keys in a graph
  // of `context`; cells that it shares are copied first. On an error the sequence may be left in
  // parts: remove it. Errors: kCacheFull (no cells for copies), those of ml::Context.
  virtual Result<> move(Sequence sequence, Position begin, Position delta, const TurnKeys& turn,
                        ml::Context& context) = 0;
  // The largest p <= position from which evaluation can go on with [0, p) as it is cached: with
  // sliding windows every windowed layer must still hold [p - window, p).
  virtual Position resume_point(Sequence sequence, Position position) const = 0;
  virtual std::uint32_t free_cells() const = 0;
  // On all devices together, and on each.
  virtual std::uint64_t bytes() const = 0;
  virtual std::vector<std::uint64_t> device_bytes() const = 0;
};

// Makes the cache for a model's layers (index = layer). Errors: kInvalidArgument (more than 64
// sequences, no cells), those of Backend::allocate.
Result<std::unique_ptr<Cache>> new_cache(ml::Backend& backend, std::span<const LayerSpec> layers,
                                         const CacheOptions& options,
                                         const ml::Placement& placement,
                                         ml::Purpose purpose = ml::Purpose::kUse);

}  // namespace ollama::kvcache
