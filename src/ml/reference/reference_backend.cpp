#include "ml/reference/reference_backend.h"

#include <ggml.h>

#include <array>
#include <cstring>
#include <map>

#include "gguf/dialect.h"
#include "ml/reference/node.h"
#include "ml/reference/reference_context.h"

namespace ollama::ml::reference {
namespace {

std::uint64_t bytes_held(const Buffer& buffer) {
  return buffer.floats.size() * sizeof(float) + buffer.integers.size() * sizeof(std::int64_t);
}

Result<Node> new_node(Owner owner, DType dtype, const Shape& shape, const std::string& name) {
  OLLAMA_TRY(check_shape(dtype, shape));
  Node node;
  node.buffer = std::make_shared<Buffer>();
  node.buffer->owner = owner;
  node.buffer->name = name;
  node.buffer->written = true;
  node.dtype = dtype;
  node.shape = shape;
  node.strides = contiguous_strides(shape);
  OLLAMA_TRY(allocate(*node.buffer, dtype, node.elements()));
  return node;
}

// Any type that GGML can read becomes f32; integers stay what they are.
Result<Node> load(const gguf::File& file, const gguf::TensorInfo& info) {
  OLLAMA_ASSIGN(const auto bytes, file.data(info));
  if (info.type == GGML_TYPE_I32 || info.type == GGML_TYPE_I64 || info.type == GGML_TYPE_F32) {
    OLLAMA_ASSIGN(auto node,
                  new_node(Owner::kWeights, static_cast<DType>(info.type), info.shape, info.name));
    read_bytes(node, bytes);
    return node;
  }
  const ggml_to_float_t to_float = ggml_get_type_traits(info.type)->to_float;
  if (to_float == nullptr)
    return fail(ErrorCode::kUnsupported, "tensors of type {} cannot be read as numbers",
                ggml_type_name(info.type));
  OLLAMA_ASSIGN(auto node, new_node(Owner::kWeights, DType::kF32, info.shape, info.name));
  if (node.elements() == 0) return node;
  // A copy of each row, because a file may lay its data anywhere.
  std::vector<std::byte> row(ggml_row_size(info.type, info.shape[0]));
  const auto rows = static_cast<std::size_t>(node.elements() / info.shape[0]);
  for (std::size_t i = 0; i < rows; ++i) {
    std::memcpy(row.data(), &bytes[i * row.size()], row.size());
    if (info.ollama_mxfp4) gguf::reorder_mxfp4(row, row);
    to_float(row.data(), &node.buffer->floats[i * static_cast<std::size_t>(info.shape[0])],
             info.shape[0]);
  }
  return node;
}

class ReferenceWeights final : public Weights {
 public:
  Result<> load(const gguf::File& file, const std::function<bool(float)>& progress) {
    const auto tensors = file.tensors();
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      if (progress && !progress(static_cast<float>(i) / static_cast<float>(tensors.size())))
        return fail(ErrorCode::kCancelled, "loading was cancelled");
      Result<Node> node = reference::load(file, tensors[i]);
      if (!node) return std::unexpected(node.error().with_context(tensors[i].name));
      bytes_ += bytes_held(*node->buffer);
      nodes_.emplace(tensors[i].name, std::make_unique<Node>(std::move(*node)));
    }
    if (progress && !progress(1.0F)) return fail(ErrorCode::kCancelled, "loading was cancelled");
    return {};
  }
  Tensor find(std::string_view name) const override {
    const auto found = nodes_.find(name);
    if (found == nodes_.end()) return {};
    return {found->second.get(), found->second->dtype, found->second->shape};
  }
  std::uint64_t bytes() const override { return bytes_; }

 private:
  std::map<std::string, std::unique_ptr<Node>, std::less<>> nodes_;
  std::uint64_t bytes_ = 0;
};

class ReferenceStorage final : public Storage {
 public:
  Result<> allocate(std::span<const Request> requests) {
    for (const Request& request : requests) {
      if (!is_storable(request.dtype))
        return fail(ErrorCode::kUnsupported, "'{}' cannot be stored as {}", request.name,
                    dtype_name(request.dtype));
      OLLAMA_ASSIGN(auto node,
                    new_node(Owner::kStorage, request.dtype, request.shape, request.name));
      bytes_ += bytes_held(*node.buffer);
      Node& kept = *nodes_.emplace_back(std::make_unique<Node>(std::move(node)));
      tensors_.emplace_back(&kept, kept.dtype, kept.shape);
    }
    return {};
  }
  std::span<const Tensor> tensors() const override { return tensors_; }
  std::uint64_t bytes() const override { return bytes_; }

 private:
  std::vector<std::unique_ptr<Node>> nodes_;
  std::vector<Tensor> tensors_;
  std::uint64_t bytes_ = 0;
};

class ReferenceBackend final : public Backend {
 public:
  ReferenceBackend()
      : devices_{Device{.name = "Reference",
                        .description = "f32 reference implementation",
                        .library = "reference",
                        .id = "0",
                        .kind = DeviceKind::kCpu,
                        .total_bytes = system_memory().total,
                        .free_bytes = system_memory().available}} {}

  BackendKind kind() const override { return BackendKind::kReference; }
  std::span<const Device> devices() const override { return devices_; }
  CacheConfig cache_config() const override {
    return {.cache_padding = 32,
            .mask_batch_padding = 1,
            .permuted_v = false,
            .mask_dtype = DType::kF32};
  }
  bool flash_attention() const override { return false; }

  Result<std::unique_ptr<Weights>> load_weights(
      const gguf::File& file, const Placement&, Purpose,
      const std::function<bool(float)>& progress) override {
    auto weights = std::make_unique<ReferenceWeights>();
    OLLAMA_TRY(weights->load(file, progress));
    return weights;
  }
  Result<std::unique_ptr<Storage>> allocate(std::span<const Storage::Request> requests,
                                            const Placement&, Purpose) override {
    auto storage = std::make_unique<ReferenceStorage>();
    OLLAMA_TRY(storage->allocate(requests));
    return storage;
  }
  Result<std::unique_ptr<Context>> new_context(Phase, std::size_t max_nodes,
                                               std::uint32_t) override {
    return std::make_unique<ReferenceContext>(counters_, max_nodes);
  }
  BackendCounters counters() const override {
    return {.uploads = counters_->uploads,
            .downloads = counters_->downloads,
            .computes = counters_->computes,
            .prepares = counters_->prepares};
  }

 private:
  std::vector<Device> devices_;
  std::shared_ptr<Counters> counters_ = std::make_shared<Counters>();
};

}  // namespace

Result<std::unique_ptr<Backend>> new_backend(const BackendOptions& options) {
  if (options.flash_attention == FlashAttention::kOn)
    return fail(ErrorCode::kUnsupported, "the reference backend has no flash attention");
  return std::make_unique<ReferenceBackend>();
}

}  // namespace ollama::ml::reference
