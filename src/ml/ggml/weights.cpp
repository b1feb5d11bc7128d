#include "ml/ggml/weights.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <semaphore>
#include <thread>

#include "base/log.h"
#include "base/units.h"
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

// Whether our kernels, if they can pack it, multiply this tensor in a layout of their own only.
bool is_packed(const gguf::TensorInfo& info) {
  return is_product_weight(info) && (info.n_dims == 2 || (info.n_dims == 3 && is_expert(info)));
}

bool can_pack(const gguf::TensorInfo& info) {
  return kernels::can_pack(static_cast<DType>(info.type), info.shape[0]);
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
Result<LazyPages> place_packed(ggml_backend_dev_t cpu, std::span<Copy> copies, Buffers& buffers) {
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
  buffers.keep(std::move(buffer));
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
    const bool on_host = ggml_backend_buffer_is_host(copy.tensor->buffer);
    if (copy.conversion == Conversion::kNone) {
      // A device's memory is written by one thread at a time.
      std::unique_lock lock(devices_, std::defer_lock);
      if (!on_host) lock.lock();
      ggml_backend_tensor_set(copy.tensor, copy.bytes.data(), 0, copy.bytes.size());
      return {};
    }
    const std::size_t size = ggml_nbytes(copy.tensor);
    if (on_host) {
      convert(copy, {static_cast<std::byte*>(copy.tensor->data), size});
      return {};
    }
    // GGML's own layouts take a tensor as a whole, and a tensor of experts may have half a GiB.
    const Turn turn(turns_);
    OLLAMA_ASSIGN(const PooledBuffer staged, pool_.allocate(size));
    convert(copy, staged.bytes());
    const std::scoped_lock lock(devices_);
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
  std::mutex devices_;
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

// One model being loaded: where each tensor goes, room for it, and its bytes there.
class GgmlWeights::Loader {
 public:
  Loader(const gguf::File& file, std::span<const ggml_backend_dev_t> devices,
         const Placement& placement, BufferPool& pool, const Options& options,
         std::optional<Shortage>& shortage)
      : file_(file),
        devices_(devices),
        placement_(placement),
        pool_(pool),
        options_(options),
        shortage_(shortage) {
    for (ggml_backend_dev_t device : devices)
      types_.push_back(ggml_backend_dev_buffer_type(device));
    // Beside a GPU the CPU's layers stay as they are: then it can take over their products for long
    // prompts.
    if (!options.native && devices.size() == 1) layouts_ = own_layouts(cpu());
  }

  Result<std::unique_ptr<GgmlWeights>> load(const std::function<bool(float)>& progress) {
    const std::span<const gguf::TensorInfo> infos = file_.tensors();
    OLLAMA_ASSIGN(weights_->arena_, Arena::create(pool_, infos.size() + 2));
    weights_->device_bytes_.resize(devices_.size());
    for (const gguf::TensorInfo& info : infos) OLLAMA_TRY(sort(info, info.name));
    if (output_table_ != nullptr && output_device() != cpu_index()) {
      // Rows are looked up on the CPU; the GPU multiplies a copy.
      OLLAMA_TRY(sort(*output_table_, "output.weight"));
    }
    OLLAMA_TRY(place_mapped());
    OLLAMA_TRY(place_copied());
    if (options_.purpose == Purpose::kMeasure) {
      place_packed_for_measuring();
      return std::move(weights_);
    }
    std::vector<Copy> work;
    if (!packed_.empty()) {
      OLLAMA_ASSIGN(weights_->packed_pages_, place_packed(cpu(), packed_, weights_->buffers_));
      work.insert(work.end(), packed_.begin(), packed_.end());
    }
    for (const auto& [type, list] : copies_) work.insert(work.end(), list.begin(), list.end());
    OLLAMA_TRY(copy_all(std::move(work), pool_, options_.threads, progress));
    if (progress && !progress(1.0F)) return fail(ErrorCode::kCancelled, "loading was cancelled");
    return std::move(weights_);
  }

 private:
  ggml_backend_dev_t cpu() const { return devices_.back(); }
  std::size_t cpu_index() const { return devices_.size() - 1; }
  std::size_t output_device() const {
    return placement_.layers.empty() ? cpu_index() : static_cast<std::size_t>(placement_.output);
  }

  // The device that the tensor's layer is placed on, or the CPU where that cannot compute with it.
  std::size_t device_of(const gguf::TensorInfo& info, std::string_view name) {
    std::size_t device = cpu_index();
    if (const auto layer = gguf::layer_of(name); layer && *layer < placement_.layers.size()) {
      device = static_cast<std::size_t>(placement_.layers[*layer]);
    } else if (gguf::belongs_to_output(name)) {
      device = output_device();
    }
    if (device == cpu_index() || is_vector(info)) return device;
    return serves(device, types_[device], info) ? device : cpu_index();
  }

  // Whether a device multiplies by such a tensor in a buffer of this type; asked once.
  bool serves(std::size_t device, ggml_backend_buffer_type_t type, const gguf::TensorInfo& info) {
    auto [entry, fresh] = served_.try_emplace({type, info.type, info.shape}, false);
    if (fresh) entry->second = serves_product(devices_[device], type, pool_, info);
    return entry->second;
  }

  // Makes the tensor and notes where it goes.
  Result<> sort(const gguf::TensorInfo& info, const std::string& name) {
    if (info.ollama_mxfp4 && is_vector(info)) {
      return fail(ErrorCode::kUnsupported, "{}: vectors are not read from MXFP4", info.name);
    }
    Copy copy{.type = info.type, .conversion = conversion_of(info)};
    OLLAMA_ASSIGN(copy.bytes, file_.data(info));
    const ggml_type held = copy.conversion == Conversion::kToFloat ? GGML_TYPE_F32 : info.type;
    copy.tensor = ggml_new_tensor(weights_->arena_.get(), held, info.n_dims, info.shape.data());
    ggml_set_name(copy.tensor, name.c_str());
    const std::size_t device = device_of(info, name);
    weights_->bytes_ += ggml_nbytes(copy.tensor);
    weights_->device_bytes_[device] += ggml_nbytes(copy.tensor);
    weights_->tensors_.emplace(name, Tensor(copy.tensor, static_cast<DType>(held), info.shape));
    if (device != cpu_index()) {
      copies_[types_[device]].push_back(copy);
      return {};
    }

    const bool twin = &info == output_table_ && output_device() == cpu_index();
    if (options_.native && held == info.type && can_pack(info) && (is_packed(info) || twin)) {
      Copy& to = packed_.emplace_back(copy);
      to.packed = &weights_->packed_.emplace_back(packed_tensor(info));
      to.placed_elsewhere = !is_packed(info);
      copy.tensor->extra = to.packed;
      if (!to.placed_elsewhere) return {};
    }
    ggml_backend_buffer_type_t type = nullptr;
    if (is_product_weight(info) && held == info.type) {
      const auto found = std::ranges::find_if(layouts_, [&](ggml_backend_buffer_type_t layout) {
        return serves(cpu_index(), layout, info);
      });
      if (found != layouts_.end()) type = *found;
    }
    const bool as_is = copy.conversion == Conversion::kNone &&
                       reinterpret_cast<std::uintptr_t>(copy.bytes.data()) % kTensorAlignment == 0;
    if (type == nullptr && options_.use_mmap && as_is) {
      mapped_.push_back(copy);
    } else {
      copies_[type == nullptr ? types_.back() : type].push_back(copy);
    }
    return {};
  }

  static std::vector<ggml_tensor*> tensors_of(std::span<const Copy> copies) {
    std::vector<ggml_tensor*> tensors;
    for (const Copy& copy : copies) tensors.push_back(copy.tensor);
    return tensors;
  }

  // One buffer over all the mapped tensors; GGML only reads through it.
  Result<> place_mapped() {
    if (mapped_.empty()) return {};
    if (options_.purpose == Purpose::kMeasure) {
      weights_->buffers_.place(types_.back(), tensors_of(mapped_),
                               GGML_BACKEND_BUFFER_USAGE_WEIGHTS, options_.purpose);
      return {};
    }
    const auto [first, last] = std::ranges::minmax_element(
        mapped_, {}, [](const Copy& copy) { return copy.bytes.data(); });
    std::size_t largest = 0;
    for (const Copy& copy : mapped_) largest = std::max(largest, copy.bytes.size());
    auto* base = const_cast<std::byte*>(first->bytes.data());
    const auto size = static_cast<std::size_t>(last->bytes.data() + last->bytes.size() - base);
    ggml_backend_buffer_ptr buffer(
        ggml_backend_dev_buffer_from_host_ptr(cpu(), base, size, largest));
    if (!buffer)
      return fail(ErrorCode::kOutOfMemory, "the mapped model cannot be used as a buffer");
    ggml_backend_buffer_set_usage(buffer.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    for (const Copy& copy : mapped_) {
      if (ggml_backend_tensor_alloc(buffer.get(), copy.tensor,
                                    const_cast<std::byte*>(copy.bytes.data())) !=
          GGML_STATUS_SUCCESS) {
        return fail(ErrorCode::kInternal, "{}: cannot be placed", copy.tensor->name);
      }
    }
    weights_->buffers_.keep(std::move(buffer));
    return {};
  }

  Result<> place_copied() {
    for (const auto& [type, list] : copies_) {
      const std::uint64_t refused = weights_->buffers_.place(
          type, tensors_of(list), GGML_BACKEND_BUFFER_USAGE_WEIGHTS, options_.purpose);
      if (refused > 0) {
        const auto device = std::ranges::find(types_, type) - types_.begin();
        if (device < static_cast<std::ptrdiff_t>(cpu_index())) {
          shortage_ = {.device = static_cast<std::size_t>(device), .bytes = refused};
        }
        return fail(ErrorCode::kOutOfMemory, "{} has no room for {} of weights",
                    ggml_backend_buft_name(type), human_bytes_binary(refused));
      }
      log::debug("{}: {} tensors", ggml_backend_buft_name(type), list.size());
    }
    return {};
  }

  void place_packed_for_measuring() {
    std::vector<ggml_tensor*> tensors;
    for (const Copy& copy : packed_) {
      if (!copy.placed_elsewhere) tensors.push_back(copy.tensor);
    }
    weights_->buffers_.place(types_.back(), tensors, GGML_BACKEND_BUFFER_USAGE_WEIGHTS,
                             options_.purpose);
  }

  const gguf::File& file_;
  const gguf::TensorInfo* output_table_ = gguf::output_table(file_);
  std::span<const ggml_backend_dev_t> devices_;
  const Placement& placement_;
  BufferPool& pool_;
  const Options& options_;
  std::optional<Shortage>& shortage_;
  std::vector<ggml_backend_buffer_type_t> types_;    // of each device
  std::vector<ggml_backend_buffer_type_t> layouts_;  // GGML's own for products on the CPU
  std::map<std::tuple<ggml_backend_buffer_type_t, ggml_type, std::array<std::int64_t, 4>>, bool>
      served_;
  std::unique_ptr<GgmlWeights> weights_{new GgmlWeights()};
  std::vector<Copy> mapped_;
  std::vector<Copy> packed_;
  std::map<ggml_backend_buffer_type_t, std::vector<Copy>> copies_;  // by where they go
};

Result<std::unique_ptr<GgmlWeights>> GgmlWeights::load(const gguf::File& file,
                                                       std::span<const ggml_backend_dev_t> devices,
                                                       const Placement& placement, BufferPool& pool,
                                                       const Options& options,
                                                       std::optional<Shortage>& shortage,
                                                       const std::function<bool(float)>& progress) {
  return Loader(file, devices, placement, pool, options, shortage).load(progress);
}

Tensor GgmlWeights::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? Tensor() : found->second;
}

}  // namespace ollama::ml::ggml
