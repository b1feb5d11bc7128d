#include "kvcache/wrapper.h"

#include <algorithm>
#include <set>

namespace ollama::kvcache {

Result<> Wrapper::begin(const Batch& batch) {
  for (std::size_t i = 0; i < groups_.size(); ++i) {
    if (Result<> result = groups_[i]->begin(batch); !result) {
      while (i > 0) groups_[--i]->rollback();
      return result;
    }
  }
  return {};
}

void Wrapper::rollback() {
  for (const auto& group : groups_) group->rollback();
}

void Wrapper::begin_largest(std::size_t tokens) {
  for (const auto& group : groups_) group->begin_largest(tokens);
}

std::uint64_t Wrapper::shape_key() const {
  std::uint64_t key = 0;
  for (const auto& group : groups_) key = key * 0x9E3779B97F4A7C15U + group->shape_key();
  return key;
}

void Wrapper::declare_inputs(ml::Context& context, std::vector<Inputs>& inputs) const {
  for (const auto& group : groups_) group->declare_inputs(context, inputs);
}

KeysValues Wrapper::update(ml::Context& context, std::span<const Inputs> inputs, int layer,
                           ml::Tensor k, ml::Tensor v) const {
  std::size_t index = 0;
  while (!groups_[index]->has_layer(layer)) ++index;
  return groups_[index]->update(context, inputs.subspan(index, 1), layer, k, v);
}

void Wrapper::collect_uploads(std::span<const Inputs> inputs, bool unchanged,
                              std::vector<ml::Upload>& uploads) {
  for (std::size_t i = 0; i < groups_.size(); ++i) {
    groups_[i]->collect_uploads(inputs.subspan(i, 1), unchanged, uploads);
  }
}

void Wrapper::copy_prefix(Sequence source, Sequence destination, Position length) {
  for (const auto& group : groups_) group->copy_prefix(source, destination, length);
}

void Wrapper::remove(Sequence sequence, Position begin, Position end) {
  for (const auto& group : groups_) group->remove(sequence, begin, end);
}

Result<> Wrapper::move(Sequence sequence, Position begin, Position delta, const TurnKeys& turn,
                       ml::Context& context) {
  for (const auto& group : groups_) OLLAMA_TRY(group->move(sequence, begin, delta, turn, context));
  return {};
}

Position Wrapper::resume_point(Sequence sequence, Position position) const {
  // A group may send the start back; the others must agree with the earlier one.
  for (Position last = -1; last != position;) {
    last = position;
    for (const auto& group : groups_) position = group->resume_point(sequence, position);
  }
  return position;
}

std::uint32_t Wrapper::free_cells() const {
  std::uint32_t least = UINT32_MAX;
  for (const auto& group : groups_) least = std::min(least, group->free_cells());
  return least;
}

std::uint64_t Wrapper::bytes() const {
  std::uint64_t total = 0;
  for (const auto& group : groups_) total += group->bytes();
  return total;
}

std::vector<std::uint64_t> Wrapper::device_bytes() const {
  std::vector<std::uint64_t> total = groups_.front()->device_bytes();
  for (const auto& group : std::span(groups_).subspan(1)) {
    std::ranges::transform(total, group->device_bytes(), total.begin(), std::plus<>());
  }
  return total;
}

std::uint32_t cells_of_window(std::int32_t window, const CacheOptions& options) {
  if (window <= 0) return options.cells;
  const std::uint64_t kept =
      (static_cast<std::uint64_t>(window) + options.max_batch) * options.parallel;
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(options.cells, kept));
}

Result<std::unique_ptr<Cache>> new_cache(ml::Backend& backend, std::span<const LayerSpec> layers,
                                         const CacheOptions& options,
                                         const ml::Placement& placement, ml::Purpose purpose) {
  std::set<std::int32_t> windows;
  for (const LayerSpec& layer : layers) {
    if (layer.state != 0) {
      return fail(ErrorCode::kUnsupported, "recurrent layers are not supported");
    }
    if (layer.kv_heads != 0) windows.insert(layer.window);
  }
  std::vector<std::unique_ptr<Causal>> groups;
  for (const std::int32_t window : windows) {
    CacheOptions group = options;
    group.cells = cells_of_window(window, options);
    OLLAMA_ASSIGN(auto cache, Causal::create(backend, layers, window, group, placement, purpose));
    groups.push_back(std::move(cache));
  }
  if (groups.empty()) return fail(kNoCells);
  if (groups.size() == 1) return std::move(groups.front());
  return std::make_unique<Wrapper>(std::move(groups));
}

}  // namespace ollama::kvcache
