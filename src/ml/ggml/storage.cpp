#include "ml/ggml/storage.h"

#include <numeric>

#include "base/units.h"
#include "ml/ggml/context.h"

namespace ollama::ml::ggml {
namespace {

// Whether a device writes rows, given as f32, into a tensor of this type and size.
bool writes_rows(ggml_backend_dev_t device, DType dtype, std::int64_t width, std::int64_t count,
                 BufferPool& pool) {
  const auto scratch = Arena::create(pool, 8);
  if (!scratch) return false;
  ggml_context* context = scratch->get();
  ggml_tensor* to = ggml_new_tensor_2d(context, static_cast<ggml_type>(dtype), width, count);
  ggml_tensor* from = ggml_new_tensor_2d(context, GGML_TYPE_F32, width, 1);
  ggml_tensor* rows = ggml_new_tensor_1d(context, GGML_TYPE_I64, 1);
  return ggml_backend_dev_supports_op(device, ggml_set_rows(context, to, from, rows));
}

}  // namespace

Result<std::unique_ptr<Storage>> GgmlStorage::allocate(std::span<const Request> requests,
                                                       const Placement& placement, Purpose purpose,
                                                       std::span<const ggml_backend_dev_t> devices,
                                                       BufferPool& pool,
                                                       std::optional<Shortage>& shortage) {
  auto storage = std::make_unique<GgmlStorage>();
  OLLAMA_ASSIGN(storage->arena_, Arena::create(pool, requests.size() + 1));
  std::vector<std::vector<ggml_tensor*>> by_device(devices.size());
  const std::size_t cpu = devices.size() - 1;
  for (const Request& request : requests) {
    ggml_tensor* tensor =
        ggml_new_tensor(storage->arena_.get(), static_cast<ggml_type>(request.dtype), GGML_MAX_DIMS,
                        request.shape.data());
    ggml_set_name(tensor, request.name.c_str());
    storage->tensors_.push_back(wrap(tensor));
    const auto layer = static_cast<std::size_t>(request.layer);
    const std::size_t device = request.layer >= 0 && layer < placement.layers.size()
                                   ? static_cast<std::size_t>(placement.layers[layer])
                                   : cpu;
    if (device != cpu && by_device[device].empty() &&
        !writes_rows(devices[device], request.dtype, 32 * block_size(request.dtype), 256, pool)) {
      return fail(ErrorCode::kUnsupported,
                  "{} cannot keep a cache of {}: set OLLAMA_KV_CACHE_TYPE=f16, or num_gpu to 0",
                  ggml_backend_dev_name(devices[device]), dtype_name(request.dtype));
    }
    // A device bounds what it reads and writes as one: GGML ends the process beyond that.
    const std::int64_t rows = request.shape[2];
    if (device != cpu &&
        !writes_rows(devices[device], request.dtype, ggml_nelements(tensor) / rows, rows, pool)) {
      shortage = {.device = device, .bytes = ggml_nbytes(tensor)};
      return fail(ErrorCode::kOutOfMemory, "{} cannot hold {} of a layer's cache in one piece",
                  ggml_backend_dev_name(devices[device]), human_bytes_binary(ggml_nbytes(tensor)));
    }
    by_device[device].push_back(tensor);
  }
  for (std::size_t i = 0; i < devices.size(); ++i) {
    const ggml_backend_buffer_type_t type = ggml_backend_dev_buffer_type(devices[i]);
    storage->device_bytes_.push_back(placed_size(type, by_device[i]));
    if (by_device[i].empty()) continue;
    if (i == cpu) {
      OLLAMA_TRY(storage->place_on_cpu(devices[i], by_device[i], purpose));
      continue;
    }
    const std::uint64_t refused =
        storage->buffers_.place(type, by_device[i], GGML_BACKEND_BUFFER_USAGE_ANY, purpose);
    if (refused > 0) {
      shortage = {.device = i, .bytes = refused};
      return fail(ErrorCode::kOutOfMemory, "{} has no room for {} of cache",
                  ggml_backend_dev_name(devices[i]), human_bytes_binary(refused));
    }
  }
  if (purpose == Purpose::kUse) {
    // The CPU's pages are zero from the start.
    for (const ggml_backend_buffer_ptr& buffer : storage->buffers_.all()) {
      ggml_backend_buffer_clear(buffer.get(), 0);
    }
  }
  return storage;
}

Result<> GgmlStorage::place_on_cpu(ggml_backend_dev_t cpu, std::span<ggml_tensor* const> tensors,
                                   Purpose purpose) {
  const ggml_backend_buffer_type_t type = ggml_backend_dev_buffer_type(cpu);
  if (purpose == Purpose::kMeasure) {
    buffers_.place(type, tensors, GGML_BACKEND_BUFFER_USAGE_ANY, purpose);
    return {};
  }
  const std::size_t size = device_bytes_.back();
  OLLAMA_ASSIGN(pages_, LazyPages::reserve(size, "the cache: use a smaller num_ctx"));
  std::byte* address = pages_.address();
  cpu_buffer_.reset(ggml_backend_dev_buffer_from_host_ptr(cpu, address, size, size));
  if (!cpu_buffer_) return fail(ErrorCode::kOutOfMemory, "no buffer for the cache");
  for (ggml_tensor* tensor : tensors) {
    ggml_backend_tensor_alloc(cpu_buffer_.get(), tensor, address);
    address += placed_size(type, {&tensor, 1});
  }
  return {};
}

std::uint64_t GgmlStorage::bytes() const {
  return std::accumulate(device_bytes_.begin(), device_bytes_.end(), std::uint64_t{0});
}

}  // namespace ollama::ml::ggml
