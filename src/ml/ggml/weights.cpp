#include "ml/ggml/weights.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <semaphore>
#include <thread>

#include "base/log.h"
#include "gguf/dialect.h"
#include "ml/buffer_pool.h"
#include "ml/ggml/context.h"
#include "ml/kernels/available.h"

namespace ollama::ml::ggml {
namespace {

// GGML's CPU kernels expect tensors at this alignment.
constexpr std::uintptr_t kTensorAlignment = 32;

bool is_expert(const gguf::TensorInfo& info) { return info.name.contains("_exps.weight"); }

// Whether the tensor is only ever the left side of a product, so that its layout may be GGML's own.
bool is_product_weight(const gguf::TensorInfo& info) {
  if (info.n_dims < 2 || !info.name.ends_with(".weight")) return false;
  for (const std::string_view lookup : {"token_embd", "position_embd", "token_types", "norm"}) {
    if (info.name.contains(lookup)) return false;
  }
  return true;
}

// Whether the device multiplies a weight of this type and shape from a buffer of type `type`.
bool serves_product(ggml_backend_dev_t device, ggml_backend_buffer_type_t type, BufferPool& pool,
                    const gguf::TensorInfo& info) {
  const auto scratch = Arena::create(pool, 8);
  if (!scratch) return false;
  ggml_tensor* weight = ggml_new_tensor(scratch->get(), info.type, info.n_dims, info.shape.data());
  ggml_tensor* product = nullptr;
  if (is_expert(info)) {
    ggml_tensor* x = ggml_new_tensor_3d(scratch->get(), GGML_TYPE_F32, info.shape[0], 1, 512);
    ggml_tensor* ids = ggml_new_tensor_2d(scratch->get(), GGML_TYPE_I32, 1, 512);
    product = ggml_mul_mat_id(scratch->get(), weight, x, ids);
  } else {
    ggml_tensor* x = ggml_new_tensor_4d(scratch->get(), GGML_TYPE_F32, info.shape[0], 512,
                                        info.shape[2], info.shape[3]);
    product = ggml_mul_mat(scratch->get(), weight, x);
  }
  const ggml_backend_buffer_ptr buffer(ggml_backend_buft_alloc_buffer(type, 0));
  weight->buffer = buffer.get();
  const bool served = ggml_backend_dev_supports_op(device, product);
  weight->buffer = nullptr;
  return served;
}

std::vector<ggml_backend_buffer_type_t> own_layouts(ggml_backend_dev_t device) {
  std::vector<ggml_backend_buffer_type_t> types;
  auto* get =
      reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(ggml_backend_reg_get_proc_address(
          ggml_backend_dev_backend_reg(device), "ggml_backend_dev_get_extra_bufts"));
  if (get == nullptr) return types;
  for (ggml_backend_buffer_type_t* type = get(device); type != nullptr && *type != nullptr;
       ++type) {
    types.push_back(*type);
  }
  return types;
}

// What a tensor's bytes need besides being copied.
enum class Conversion { kNone, kReorderMxfp4, kToFloat };

// Whether our kernels multiply this tensor, in a layout of their own.
bool is_packed(const gguf::TensorInfo& info) {
  return is_product_weight(info) && (info.n_dims == 2 || (info.n_dims == 3 && is_expert(info))) &&
         kernels::can_pack(static_cast<DType>(info.type), info.shape[0]);
}

// A table of embeddings that the model multiplies by, too, because it has no matrix for its
// outputs.
bool is_output_table(const gguf::File& file, const gguf::TensorInfo& info) {
  return info.name == "token_embd.weight" && info.n_dims == 2 &&
         file.find_tensor("output.weight") == nullptr && !file.architecture().contains("bert") &&
         kernels::can_pack(static_cast<DType>(info.type), info.shape[0]);
}

// Products aside, GGML's kernels add and multiply by f32 alone; some files have biases in 16 bits.
bool is_vector(const gguf::TensorInfo& info) {
  return info.elements() == static_cast<std::uint64_t>(info.shape[0]) ||
         info.name.ends_with(".bias");
}

Conversion conversion_of(const gguf::TensorInfo& info) {
  if (info.ollama_mxfp4) return Conversion::kReorderMxfp4;
  if (info.type != GGML_TYPE_F32 && is_vector(info) &&
      ggml_get_type_traits(info.type)->to_float != nullptr) {
    return Conversion::kToFloat;
  }
  return Conversion::kNone;
}

struct Copy {
  ggml_tensor* tensor = nullptr;
  std::span<const std::byte> bytes;
  ggml_type type = GGML_TYPE_F32;  // of the bytes
  Conversion conversion = Conversion::kNone;
  PackedTensor* packed = nullptr;  // goes to our kernels' layout
  std::byte* packed_to = nullptr;
  bool placed_elsewhere = false;  // the tensor itself, whose rows are looked up as well
};

void convert(const Copy& copy, std::span<std::byte> to) {
  if (copy.conversion == Conversion::kReorderMxfp4) {
    gguf::reorder_mxfp4(copy.bytes, to);
  } else {
    ggml_get_type_traits(copy.type)->to_float(
        copy.bytes.data(), reinterpret_cast<float*>(to.data()), ggml_nelements(copy.tensor));
  }
}

PackedTensor packed_tensor(const gguf::TensorInfo& info) {
  const auto type = static_cast<DType>(info.type);
  return {.weights = {.type = type, .k = info.shape[0], .m = info.shape[1]},
          .experts = info.shape[2],
          .expert_bytes = kernels::packed_size(type, info.shape[0], info.shape[1])};
}

// Finds room for what our kernels multiply.
Result<LazyPages> place_packed(ggml_backend_dev_t cpu, std::span<Copy> copies,
                               std::vector<ggml_backend_buffer_ptr>& buffers) {
  constexpr std::size_t kAlignment = 64;
  const auto bytes_of = [](const Copy& copy) {
    const std::size_t size =
        static_cast<std::size_t>(copy.packed->experts) * copy.packed->expert_bytes;
    return (size + kAlignment - 1) / kAlignment * kAlignment;
  };
  std::size_t size = 0;
  for (const Copy& copy : copies) size += bytes_of(copy);
  OLLAMA_ASSIGN(LazyPages pages, LazyPages::reserve(size, "weights"));
  std::byte* address = pages.address();
  ggml_backend_buffer_ptr buffer(ggml_backend_dev_buffer_from_host_ptr(cpu, address, size, size));
  if (!buffer) return fail(ErrorCode::kOutOfMemory, "no buffer for {} MiB of weights", size >> 20U);
  ggml_backend_buffer_set_usage(buffer.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
  for (Copy& copy : copies) {
    copy.packed->weights.data = address;
    copy.packed_to = address;
    if (!copy.placed_elsewhere &&
        ggml_backend_tensor_alloc(buffer.get(), copy.tensor, address) != GGML_STATUS_SUCCESS) {
      return fail(ErrorCode::kInternal, "{}: cannot be placed", copy.tensor->name);
    }
    address += bytes_of(copy);
  }
  buffers.push_back(std::move(buffer));
  log::debug("native kernels ({}): {} tensors, {} MiB", kernels::instruction_set(), copies.size(),
             size >> 20U);
  return pages;
}

// Fills tensors; several threads may.
class Filler {
 public:
  explicit Filler(BufferPool& pool) : pool_(pool) {}

  Result<> fill(const Copy& copy) {
    if (copy.packed != nullptr) return pack(copy);
    if (copy.conversion == Conversion::kNone) {
      ggml_backend_tensor_set(copy.tensor, copy.bytes.data(), 0, copy.bytes.size());
      return {};
    }
    const std::size_t size = ggml_nbytes(copy.tensor);
    if (ggml_backend_buffer_is_host(copy.tensor->buffer)) {
      convert(copy, {static_cast<std::byte*>(copy.tensor->data), size});
      return {};
    }
    // GGML's own layouts take a tensor as a whole, and a tensor of experts may have half a GiB.
    const Turn turn(turns_);
    OLLAMA_ASSIGN(const PooledBuffer staged, pool_.allocate(size));
    convert(copy, staged.bytes());
    ggml_backend_tensor_set(copy.tensor, staged.data(), 0, size);
    return {};
  }

 private:
  Result<> pack(const Copy& copy) {
    std::span<const std::byte> rows = copy.bytes;
    PooledBuffer staged;
    std::optional<Turn> turn;
    if (copy.conversion == Conversion::kReorderMxfp4) {
      turn.emplace(turns_);
      OLLAMA_ASSIGN(staged, pool_.allocate(rows.size()));
      convert(copy, staged.bytes());
      rows = staged.bytes().first(rows.size());
    }
    const PackedTensor& to = *copy.packed;
    const std::size_t expert = rows.size() / static_cast<std::size_t>(to.experts);
    for (std::int64_t i = 0; i < to.experts; ++i) {
      const auto at = static_cast<std::size_t>(i);
      kernels::pack_weights(to.weights.type, to.weights.k, to.weights.m,
                            rows.subspan(at * expert, expert),
                            copy.packed_to + at * to.expert_bytes, 0, to.weights.groups());
    }
    return {};
  }

  static constexpr std::ptrdiff_t kStagedAtOnce = 2;
  using Turns = std::counting_semaphore<kStagedAtOnce>;
  class Turn {
   public:
    explicit Turn(Turns& turns) : turns_(turns) { turns_.acquire(); }
    ~Turn() { turns_.release(); }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    Turns& turns_;
  };

  BufferPool& pool_;
  Turns turns_{kStagedAtOnce};
};

// Copies (and converts) in parallel: a tensor each time, the largest first.
Result<> copy_all(std::vector<Copy> copies, BufferPool& pool, std::uint32_t threads,
                  const std::function<bool(float)>& progress) {
  std::ranges::sort(copies, std::greater<>(), [](const Copy& copy) { return copy.bytes.size(); });
  std::size_t total = 0;
  for (const Copy& copy : copies) total += copy.bytes.size();
  std::atomic<std::size_t> next = 0;
  std::atomic<std::size_t> done = 0;
  Filler filler(pool);
  std::atomic<bool> stopped = false;
  std::mutex mutex;
  Result<> result;
  const auto stop = [&](Result<> why) {
    const std::scoped_lock lock(mutex);
    if (result) result = std::move(why);
    stopped = true;
  };
  const auto work = [&](bool reports) {
    while (!stopped) {
      const std::size_t i = next++;
      if (i >= copies.size()) return;
      if (Result<> filled = filler.fill(copies[i]); !filled) {
        return stop(std::unexpected(filled.error().with_context(copies[i].tensor->name)));
      }
      done += copies[i].bytes.size();
      if (reports && progress && !progress(static_cast<float>(done) / static_cast<float>(total))) {
        stop(fail(ErrorCode::kCancelled, "loading was cancelled"));
      }
    }
  };
  {
    std::vector<std::jthread> helpers;
    for (std::uint32_t i = 1; i < threads; ++i) helpers.emplace_back(work, false);
    work(true);
  }
  return result;
}

}  // namespace

Result<std::unique_ptr<GgmlWeights>> GgmlWeights::load(const gguf::File& file,
                                                       ggml_backend_dev_t cpu, BufferPool& pool,
                                                       const Options& options,
                                                       const std::function<bool(float)>& progress) {
  const std::span<const gguf::TensorInfo> infos = file.tensors();
  std::unique_ptr<GgmlWeights> weights(new GgmlWeights());
  OLLAMA_ASSIGN(weights->arena_, Arena::create(pool, infos.size() + 1));
  ggml_context* context = weights->arena_.get();

  const std::vector<ggml_backend_buffer_type_t> layouts =
      options.native ? std::vector<ggml_backend_buffer_type_t>() : own_layouts(cpu);
  const ggml_backend_buffer_type_t plain = ggml_backend_dev_buffer_type(cpu);
  // Tensors to be copied, by the buffer type they go to.
  std::map<ggml_backend_buffer_type_t, std::vector<Copy>> copies;
  std::vector<Copy> mapped;
  std::vector<Copy> packed;
  std::map<std::pair<ggml_type, std::array<std::int64_t, 4>>, ggml_backend_buffer_type_t> decided;

  for (const gguf::TensorInfo& info : infos) {
    if (info.ollama_mxfp4 && is_vector(info)) {
      return fail(ErrorCode::kUnsupported, "{}: vectors are not read from MXFP4", info.name);
    }
    Copy copy{.type = info.type, .conversion = conversion_of(info)};
    OLLAMA_ASSIGN(copy.bytes, file.data(info));
    const ggml_type held = copy.conversion == Conversion::kToFloat ? GGML_TYPE_F32 : info.type;
    copy.tensor = ggml_new_tensor(context, held, info.n_dims, info.shape.data());
    ggml_set_name(copy.tensor, info.name.c_str());
    weights->bytes_ += ggml_nbytes(copy.tensor);
    weights->tensors_.emplace(info.name, Tensor(copy.tensor, static_cast<DType>(held), info.shape));

    if (options.native && held == info.type && (is_packed(info) || is_output_table(file, info))) {
      Copy& to = packed.emplace_back(copy);
      to.packed = &weights->packed_.emplace_back(packed_tensor(info));
      to.placed_elsewhere = !is_packed(info);
      copy.tensor->extra = to.packed;
      if (!to.placed_elsewhere) continue;
    }
    ggml_backend_buffer_type_t type = nullptr;
    if (is_product_weight(info) && held == info.type) {
      auto [entry, fresh] = decided.try_emplace({info.type, info.shape}, nullptr);
      if (fresh) {
        for (ggml_backend_buffer_type_t layout : layouts) {
          if (serves_product(cpu, layout, pool, info)) {
            entry->second = layout;
            break;
          }
        }
      }
      type = entry->second;
    }
    const bool as_is = copy.conversion == Conversion::kNone &&
                       reinterpret_cast<std::uintptr_t>(copy.bytes.data()) % kTensorAlignment == 0;
    if (type == nullptr && options.use_mmap && as_is) {
      mapped.push_back(copy);
    } else {
      copies[type == nullptr ? plain : type].push_back(copy);
    }
  }

  if (!mapped.empty()) {
    // One buffer over all the mapped tensors; GGML only reads through it.
    const auto [first, last] =
        std::ranges::minmax_element(mapped, {}, [](const Copy& copy) { return copy.bytes.data(); });
    std::size_t largest = 0;
    for (const Copy& copy : mapped) largest = std::max(largest, copy.bytes.size());
    auto* base = const_cast<std::byte*>(first->bytes.data());
    const auto size = static_cast<std::size_t>(last->bytes.data() + last->bytes.size() - base);
    ggml_backend_buffer_ptr buffer(ggml_backend_dev_buffer_from_host_ptr(cpu, base, size, largest));
    if (!buffer)
      return fail(ErrorCode::kOutOfMemory, "the mapped model cannot be used as a buffer");
    ggml_backend_buffer_set_usage(buffer.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    for (const Copy& copy : mapped) {
      if (ggml_backend_tensor_alloc(buffer.get(), copy.tensor,
                                    const_cast<std::byte*>(copy.bytes.data())) !=
          GGML_STATUS_SUCCESS) {
        return fail(ErrorCode::kInternal, "{}: cannot be placed", copy.tensor->name);
      }
    }
    weights->buffers_.push_back(std::move(buffer));
  }

  std::vector<Copy> work;
  if (!packed.empty()) {
    OLLAMA_ASSIGN(weights->packed_pages_, place_packed(cpu, packed, weights->buffers_));
    work.insert(work.end(), packed.begin(), packed.end());
  }
  for (auto& [type, list] : copies) {
    const std::size_t alignment = ggml_backend_buft_get_alignment(type);
    const auto padded = [&](const Copy& copy) {
      const std::size_t size = ggml_backend_buft_get_alloc_size(type, copy.tensor);
      return (size + alignment - 1) / alignment * alignment;
    };
    std::size_t size = 0;
    for (const Copy& copy : list) size += padded(copy);
    ggml_backend_buffer_ptr buffer(ggml_backend_buft_alloc_buffer(type, size));
    if (!buffer) {
      return fail(ErrorCode::kOutOfMemory, "no memory for {} MiB of weights", size >> 20U);
    }
    ggml_backend_buffer_set_usage(buffer.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    auto* address = static_cast<std::byte*>(ggml_backend_buffer_get_base(buffer.get()));
    for (const Copy& copy : list) {
      if (ggml_backend_tensor_alloc(buffer.get(), copy.tensor, address) != GGML_STATUS_SUCCESS) {
        return fail(ErrorCode::kInternal, "{}: cannot be placed", copy.tensor->name);
      }
      address += padded(copy);
      work.push_back(copy);
    }
    log::debug("{}: {} tensors, {} MiB", ggml_backend_buft_name(type), list.size(), size >> 20U);
    weights->buffers_.push_back(std::move(buffer));
  }
  OLLAMA_TRY(copy_all(std::move(work), pool, options.threads, progress));
  if (progress && !progress(1.0F)) return fail(ErrorCode::kCancelled, "loading was cancelled");
  return weights;
}

Tensor GgmlWeights::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? Tensor() : found->second;
}

}  // namespace ollama::ml::ggml
