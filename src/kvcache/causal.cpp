#include "kvcache/causal.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace ollama::kvcache {
namespace {

constexpr ErrorConstant kBatchTooLarge{ErrorCode::kInvalidArgument,
                                       "a batch has more tokens than the cache was made for"};

template <typename T>
T round_up(T value, T multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Calls visit(sequence, index of its first token) once for each sequence of the batch.
template <typename Visitor>
void for_each_sequence(const Batch& batch, Visitor&& visit) {
  std::uint64_t seen = 0;
  for (std::size_t i = 0; i < batch.sequences.size(); ++i) {
    const std::uint64_t bit = std::uint64_t{1} << batch.sequences[i];
    if ((seen & bit) == 0) visit(batch.sequences[i], i);
    seen |= bit;
  }
}

// Elements of a token's values, where every layer of the group has as many and they can lie apart;
// else 0.
std::int64_t common_value_width(std::span<const LayerSpec> layers, std::int32_t window,
                                const CacheOptions& options) {
  if (ml::is_quantized(options.v_type)) return 0;
  std::int64_t width = 0;
  for (const LayerSpec& layer : layers) {
    if (layer.kv_heads == 0 || layer.window != window || layer.values_in_keys) continue;
    const std::int64_t own = std::int64_t{layer.head_dim_v} * layer.kv_heads;
    if (width != 0 && own != width) return 0;
    width = own;
  }
  // Elements are numbered by 32 bits where they are read.
  return width * options.cells <= INT32_MAX ? width : 0;
}

// A tensor's cells as rows, and one whose elements lie apart as single ones.
ml::Tensor as_rows(ml::Context& context, ml::Tensor storage) {
  return context.reshape(storage, {storage.dim(0) * storage.dim(1), storage.dim(2), 1, 1});
}
ml::Tensor as_elements(ml::Context& context, ml::Tensor storage) {
  return context.reshape(storage, {1, storage.elements(), 1, 1});
}

}  // namespace

Causal::Causal(Cells cells, FreeList free, const CacheOptions& options, std::int32_t window)
    : cells_(std::move(cells)), free_(std::move(free)), options_(options), window_(window) {
  const std::size_t batch = options.max_batch;
  runs_.reserve(batch);
  indices_.reserve(batch);
  owners_.reserve(batch);
  positions_.reserve(batch);
  hidden_.reserve(options.sequences);
  changes_.reserve(2 * std::size_t{options.sequences});
}

Result<std::unique_ptr<Causal>> Causal::create(ml::Backend& backend,
                                               std::span<const LayerSpec> layers,
                                               std::int32_t window, const CacheOptions& options,
                                               const ml::Placement& placement,
                                               ml::Purpose purpose) {
  CacheOptions o = options;
  o.config.cache_padding = std::max(1U, o.config.cache_padding);
  o.config.mask_batch_padding = std::max(1U, o.config.mask_batch_padding);
  // A whole number of paddings, so that what attention sees never ends outside.
  o.cells = round_up(o.cells, o.config.cache_padding);
  OLLAMA_ASSIGN(Cells cells, Cells::create(o.cells, o.sequences));
  std::unique_ptr<Causal> cache(new Causal(std::move(cells), FreeList(o.cells), o, window));

  cache->value_width_ = o.config.permuted_v ? common_value_width(layers, window, o) : 0;
  cache->value_indices_.reserve(o.max_batch * static_cast<std::size_t>(cache->value_width_));
  std::vector<ml::Storage::Request> requests;
  for (int i = 0; i < static_cast<int>(layers.size()); ++i) {
    const LayerSpec& spec = layers[static_cast<std::size_t>(i)];
    if (spec.kv_heads == 0 || spec.window != window) continue;
    for (const auto& [type, dim] :
         {std::pair(o.k_type, spec.head_dim_k), std::pair(o.v_type, spec.head_dim_v)}) {
      if (dim % ml::block_size(type) != 0) {
        return fail(ErrorCode::kUnsupported,
                    "the KV cache cannot be {}: the model's head size {} is no multiple of {}",
                    ml::dtype_name(type), dim, ml::block_size(type));
      }
    }
    cache->layers_.emplace(i, Layer{.spec = spec, .k = {}, .v = {}});
    requests.push_back({.dtype = o.k_type,
                        .shape = {spec.head_dim_k, spec.kv_heads, o.cells, 1},
                        .name = std::format("cache_k-{}", i),
                        .layer = i});
    if (spec.values_in_keys) continue;
    requests.push_back({.dtype = o.v_type,
                        .shape = cache->value_width_ > 0
                                     ? ml::Shape{o.cells, spec.head_dim_v, spec.kv_heads, 1}
                                     : ml::Shape{spec.head_dim_v, spec.kv_heads, o.cells, 1},
                        .name = std::format("cache_v-{}", i),
                        .layer = i});
  }
  OLLAMA_ASSIGN(cache->storage_, backend.allocate(requests, placement, purpose));
  std::size_t next = 0;
  for (auto& [index, layer] : cache->layers_) {
    layer.k = cache->storage_->tensors()[next++];
    if (!layer.spec.values_in_keys) layer.v = cache->storage_->tensors()[next++];
  }
  const std::size_t tokens = round_up(o.max_batch, o.config.mask_batch_padding);
  cache->mask_ =
      std::make_unique_for_overwrite<std::byte[]>(tokens * o.cells * cache->element_bytes());
  return cache;
}

bool Causal::continues(const Batch& batch) const {
  if (!mask_holds_ || batch.positions.size() != owners_.size()) return false;
  for (std::size_t i = 0; i < owners_.size(); ++i) {
    if (batch.sequences[i] != owners_[i] || batch.positions[i] != positions_[i] + 1) return false;
  }
  return true;
}

bool Causal::leave_window(const Batch& batch) {
  hidden_.clear();
  bool one_each = true;
  if (window_ == 0) return one_each;
  // A sequence's tokens come in order: its first one in the batch sees the farthest back.
  for_each_sequence(batch, [&](Sequence sequence, std::size_t first) {
    const Position end = batch.positions[first] - window_ + 1;
    const Position low = cells_.min_position(sequence);
    if (low < 0 || low >= end) return;
    if (low + 1 == end) {
      hidden_.push_back({first, cells_.cell_at(sequence, low)});
    } else {
      one_each = false;
    }
    cells_.remove(sequence, 0, end, free_);
  });
  return one_each;
}

Result<> Causal::begin(const Batch& batch) {
  const std::size_t count = batch.positions.size();
  if (count > options_.max_batch) return fail(kBatchTooLarge);
  bool continuing = continues(batch);
  mask_holds_ = false;
  continuing = leave_window(batch) && continuing;
  // A lone sequence grows behind its last cell where that is free.
  const std::uint32_t hint =
      owners_.empty() ? kNoCell : static_cast<std::uint32_t>(indices_.back());
  OLLAMA_TRY(free_.allocate(static_cast<std::uint32_t>(count), runs_, hint));
  indices_.clear();
  owners_.assign(batch.sequences.begin(), batch.sequences.end());
  positions_.assign(batch.positions.begin(), batch.positions.end());
  std::size_t token = 0;
  for (const Run& run : runs_) {
    for (std::uint32_t cell = run.start; cell < run.end(); ++cell, ++token) {
      cells_.occupy(cell, batch.sequences[token], batch.positions[token]);
      indices_.push_back(cell);
    }
  }
  const Run before = range_;
  // New cells inside the range of sequences that lost none leave it as it is.
  const bool inside = std::ranges::all_of(indices_, [&](std::int64_t cell) {
    return cell >= std::int64_t{before.start} && cell < std::int64_t{before.end()};
  });
  if (!continuing || window_ != 0 || !inside) find_range(batch);
  mask_grew_ = continuing && range_ == before;
  if (mask_grew_) {
    update_mask();
  } else {
    write_mask(batch);
  }
  // Of a sequence's two tokens the next step's first sees the other as well.
  std::size_t sequences = 0;
  for_each_sequence(batch, [&](Sequence, std::size_t) { ++sequences; });
  mask_holds_ = sequences == count;
  return {};
}

void Causal::rollback() {
  for (std::size_t i = 0; i < owners_.size(); ++i) {
    const auto cell = static_cast<std::uint32_t>(indices_[i]);
    if (cells_.clear(cell, owners_[i])) free_.release({cell, 1});
  }
  indices_.clear();
  owners_.clear();
  mask_holds_ = false;
}

void Causal::begin_largest(std::size_t tokens) {
  range_ = {0, cells_.size()};
  indices_.assign(tokens, 0);
  owners_.clear();
  mask_tokens_ = round_up<std::size_t>(tokens, options_.config.mask_batch_padding);
  mask_holds_ = false;
}

void Causal::find_range(const Batch& batch) {
  std::uint32_t first = cells_.size();
  std::uint32_t end = 0;
  for_each_sequence(batch, [&](Sequence sequence, std::size_t /*first_token*/) {
    const std::span<const std::uint64_t> row = cells_.row(sequence);
    const auto nonzero = [](std::uint64_t word) { return word != 0; };
    const auto low = std::ranges::find_if(row, nonzero);
    if (low == row.end()) return;
    const auto high = std::find_if(row.rbegin(), row.rend(), nonzero);
    const auto low_word = static_cast<std::uint32_t>(low - row.begin());
    const auto high_word = static_cast<std::uint32_t>(row.rend() - high - 1);
    first = std::min(first, low_word * 64 + static_cast<std::uint32_t>(std::countr_zero(*low)));
    end = std::max(end, high_word * 64 + 64 - static_cast<std::uint32_t>(std::countl_zero(*high)));
  });
  const std::uint32_t padding = options_.config.cache_padding;
  first = std::min(first, end) / padding * padding;
  range_ = {first, round_up(end, padding) - first};
}

void Causal::write_mask(const Batch& batch) {
  mask_tokens_ = round_up<std::size_t>(batch.positions.size(), options_.config.mask_batch_padding);
  const std::size_t elements = range_.length * mask_tokens_;
  mask_bytes_ = elements * element_bytes();
  ml::with_mask_values(options_.config.mask_dtype, [&]<typename T>(T visible, T hidden) {
    // The buffer comes from operator new[], which is aligned for every T here.
    T* const mask = reinterpret_cast<T*>(mask_.get());
    std::fill_n(mask, elements, hidden);
    for (std::size_t token = 0; token < batch.positions.size(); ++token) {
      T* const row = mask + token * range_.length;
      const Position position = batch.positions[token];
      const Position oldest = window_ > 0 ? position - window_ + 1 : 0;
      cells_.for_each_cell(batch.sequences[token], [&](std::uint32_t cell) {
        const Position held = cells_.position(cell);
        if (held <= position && held >= oldest) row[cell - range_.start] = visible;
      });
    }
  });
}

void Causal::update_mask() {
  changes_.clear();
  ml::with_mask_values(options_.config.mask_dtype, [&]<typename T>(T visible, T hidden) {
    const auto change = [&](std::size_t token, std::int64_t cell, T value) {
      const std::size_t index =
          token * range_.length + (static_cast<std::uint32_t>(cell) - range_.start);
      reinterpret_cast<T*>(mask_.get())[index] = value;
      changes_.push_back(index);
    };
    for (const auto& [token, cell] : hidden_) change(token, cell, hidden);
    for (std::size_t token = 0; token < indices_.size(); ++token) {
      change(token, indices_[token], visible);
    }
  });
}

void Causal::forget_mask(Sequence sequence) {
  if (std::ranges::contains(owners_, sequence)) mask_holds_ = false;
}

std::uint64_t Causal::shape_key() const {
  return std::uint64_t{range_.start} << 32U | range_.length;
}

void Causal::declare_inputs(ml::Context& context, std::vector<Inputs>& inputs) const {
  const auto tokens = static_cast<std::int64_t>(indices_.size());
  inputs.push_back({.mask = context.input(
                        options_.config.mask_dtype,
                        {range_.length, static_cast<std::int64_t>(mask_tokens_), 1, 1}, "mask"),
                    .indices = context.input(ml::DType::kI64, {tokens, 1, 1, 1}, "cells"),
                    .positions = {},
                    .value_indices = {}});
  if (options_.config.cell_positions) {
    inputs.back().positions =
        context.input(ml::DType::kI32, {range_.length, 1, 1, 1}, "cell_positions");
  }
  if (value_width_ > 0) {
    inputs.back().value_indices =
        context.input(ml::DType::kI64, {value_width_ * tokens, 1, 1, 1}, "value_elements");
  }
}

void Causal::elements_of(std::span<const std::int64_t> cells,
                         std::vector<std::int64_t>& elements) const {
  elements.clear();
  const std::int64_t stride = cells_.size();
  for (const std::int64_t cell : cells) {
    for (std::int64_t i = 0; i < value_width_; ++i) elements.push_back(i * stride + cell);
  }
}

KeysValues Causal::update(ml::Context& context, std::span<const Inputs> inputs, int layer,
                          ml::Tensor k, ml::Tensor v) const {
  const Layer& entry = layers_.at(layer);
  const Inputs& input = inputs.front();
  const auto write = [&](ml::Tensor storage, ml::Tensor values) {
    context.keep(
        context.set_rows(as_rows(context, storage), as_rows(context, values), input.indices));
  };
  const auto read = [&](ml::Tensor storage) {
    return context.slice(storage, 2, range_.start, range_.length);
  };
  write(entry.k, k);
  KeysValues result{.k = read(entry.k), .v = {}, .mask = input.mask, .positions = input.positions};
  if (entry.spec.values_in_keys) {
    result.v = context.slice(result.k, 0, 0, entry.spec.head_dim_v);
  } else if (value_width_ > 0) {
    context.keep(context.set_rows(as_elements(context, entry.v), as_elements(context, v),
                                  input.value_indices));
    result.v =
        context.permute(context.slice(entry.v, 0, range_.start, range_.length), {2, 0, 1, 3});
    result.permuted_v = true;
  } else {
    write(entry.v, v);
    result.v = read(entry.v);
  }
  return result;
}

void Causal::collect_uploads(std::span<const Inputs> inputs, bool unchanged,
                             std::vector<ml::Upload>& uploads) {
  const Inputs& input = inputs.front();
  if (unchanged && mask_grew_) {
    const std::size_t bytes = element_bytes();
    for (const std::size_t index : changes_) {
      uploads.push_back({input.mask, mask().subspan(index * bytes, bytes), index * bytes});
    }
  } else {
    uploads.push_back({input.mask, mask()});
  }
  if (input.positions) {
    const std::span<const std::int32_t> held = cells_.positions();
    if (unchanged && mask_grew_) {
      for (const std::int64_t index : indices_) {
        const auto cell = static_cast<std::size_t>(index);
        uploads.push_back({input.positions, std::as_bytes(held.subspan(cell, 1)),
                           (cell - range_.start) * sizeof(std::int32_t)});
      }
    } else {
      uploads.push_back(
          {input.positions, std::as_bytes(held.subspan(range_.start, range_.length))});
    }
  }
  uploads.push_back({input.indices, std::as_bytes(std::span(indices_))});
  if (input.value_indices) {
    elements_of(indices_, value_indices_);
    uploads.push_back({input.value_indices, std::as_bytes(std::span(value_indices_))});
  }
}

void Causal::copy_prefix(Sequence source, Sequence destination, Position length) {
  cells_.copy_prefix(source, destination, length);
}

void Causal::remove(Sequence sequence, Position begin, Position end) {
  forget_mask(sequence);
  cells_.remove(sequence, begin, end, free_);
}

Result<> Causal::move(Sequence sequence, Position begin, Position delta, const TurnKeys& turn,
                      ml::Context& context) {
  forget_mask(sequence);
  // Where each moved key and value is, and where it will be: the same cell unless that is shared.
  std::vector<std::int32_t> from;
  std::uint32_t shared = 0;
  cells_.for_each_cell(sequence, [&](std::uint32_t cell) {
    if (cells_.position(cell) < begin) return;
    from.push_back(static_cast<std::int32_t>(cell));
    shared += cells_.is_shared(cell) ? 1 : 0;
  });
  if (from.empty()) return {};
  std::vector<Run> runs;
  if (shared > 0) OLLAMA_TRY(free_.allocate(shared, runs));
  std::vector<std::int64_t> to(from.begin(), from.end());
  std::size_t next = 0;
  for (const Run& run : runs) {
    for (std::uint32_t copy = run.start; copy < run.end(); ++copy, ++next) {
      while (!cells_.is_shared(static_cast<std::uint32_t>(from[next]))) ++next;
      const auto cell = static_cast<std::uint32_t>(from[next]);
      const Position position = cells_.position(cell);
      cells_.clear(cell, sequence);  // another sequence holds it
      cells_.occupy(copy, sequence, position);
      to[next] = copy;
    }
  }
  OLLAMA_TRY(cells_.shift(sequence, begin, kNoEnd, delta));

  // Values move only where their cells were copied.
  const bool copies_values = shared > 0;
  std::vector<std::int64_t> to_elements;
  std::vector<std::int32_t> from_elements;
  if (copies_values && value_width_ > 0) {
    std::vector<std::int64_t> elements;
    elements_of(std::vector<std::int64_t>(from.begin(), from.end()), elements);
    from_elements.assign(elements.begin(), elements.end());
    elements_of(to, to_elements);
  }

  context.reset();
  const auto count_of = [](const auto& list) {
    return ml::Shape{std::max<std::int64_t>(static_cast<std::int64_t>(list.size()), 1), 1, 1, 1};
  };
  const ml::Shape count = count_of(from);
  const ml::Tensor read = context.input(ml::DType::kI32, count, "from");
  const ml::Tensor write = context.input(ml::DType::kI64, count, "to");
  const ml::Tensor by = context.input(ml::DType::kI32, count, "by");
  const std::vector<Position> turns(from.size(), delta);
  std::vector<ml::Upload> uploads{{read, std::as_bytes(std::span(from))},
                                  {write, std::as_bytes(std::span(to))},
                                  {by, std::as_bytes(std::span(turns))}};
  ml::Tensor read_values = read;
  ml::Tensor write_values = write;
  if (!from_elements.empty()) {
    read_values = context.input(ml::DType::kI32, count_of(from_elements), "from_elements");
    write_values = context.input(ml::DType::kI64, count_of(to_elements), "to_elements");
    uploads.push_back({read_values, std::as_bytes(std::span(from_elements))});
    uploads.push_back({write_values, std::as_bytes(std::span(to_elements))});
  }
  for (const auto& [layer, entry] : layers_) {
    const ml::Tensor rows = as_rows(context, entry.k);
    const ml::Tensor keys = context.reshape(context.get_rows(rows, read),
                                            {entry.k.dim(0), entry.k.dim(1), count[0], 1});
    const ml::Tensor turned = turn(context, layer, keys, by);
    context.keep(context.set_rows(rows, as_rows(context, turned), write));
    if (!copies_values || entry.spec.values_in_keys) continue;
    const ml::Tensor values =
        value_width_ > 0 ? as_elements(context, entry.v) : as_rows(context, entry.v);
    context.keep(context.set_rows(values, context.get_rows(values, read_values), write_values));
  }
  return ml::batch_tensor_op(context, uploads);
}

Position Causal::resume_point(Sequence sequence, Position position) const {
  if (cells_.count(sequence) == 0) return 0;
  const Position resumed = std::min(position, cells_.max_position(sequence) + 1);
  if (window_ == 0) return resumed;
  // Going on at p needs all that p sees; older cells than the oldest one kept are gone for good.
  return cells_.min_position(sequence) <= std::max(0, resumed - window_ + 1) ? resumed : 0;
}

}  // namespace ollama::kvcache
