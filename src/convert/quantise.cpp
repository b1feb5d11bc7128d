#include "convert/quantise.h"

#include <ggml.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <span>
#include <system_error>
#include <thread>
#include <vector>

#include "convert/blocks.h"
#include "gguf/dialect.h"
#include "gguf/parse.h"
#include "gguf/writer.h"

namespace ollama::convert {
namespace {

// Weights that a thread takes at once: a whole number of any type's blocks, and little enough that
// they stay in the second-level cache as f32.
constexpr std::uint64_t kPiece = 64 * 1024;
constexpr auto kReportEvery = std::chrono::milliseconds(100);

bool is_float(ggml_type type) {
  return type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16;
}

std::size_t bytes_of(ggml_type type, std::uint64_t weights) {
  return ggml_row_size(type, static_cast<std::int64_t>(weights));
}

std::span<const std::int64_t> shape_of(const gguf::TensorInfo& tensor) {
  return std::span(tensor.shape).first(static_cast<std::size_t>(tensor.n_dims));
}

// One tensor's way into the new file.
struct Task {
  const gguf::TensorInfo* from = nullptr;
  ggml_type to = GGML_TYPE_F32;
  std::size_t index = 0;          // in the writer
  std::uint64_t first_piece = 0;  // its pieces' numbers among all tensors' begin here
};

std::vector<float> decoded(const Task& task, std::span<const std::byte> bytes,
                           std::vector<float> into) {
  const std::size_t count = bytes.size() / ggml_type_size(task.from->type);
  into.resize(count);
  const auto n = static_cast<std::int64_t>(count);
  // Tensors begin at multiples of eight bytes, pieces at multiples of 256 weights.
  const void* data = bytes.data();
  if (task.from->type == GGML_TYPE_F16) {
    ggml_fp16_to_fp32_row(static_cast<const ggml_fp16_t*>(data), into.data(), n);
  } else if (task.from->type == GGML_TYPE_BF16) {
    ggml_bf16_to_fp32_row(static_cast<const ggml_bf16_t*>(data), into.data(), n);
  } else {
    std::copy_n(static_cast<const float*>(data), count, into.data());
  }
  return into;
}

// Whether all are numbers, and finite. Quantisation would make something of the others unseen.
bool all_finite(std::span<const float> values) {
  constexpr std::uint32_t kExponent = 0x7f800000;
  std::uint32_t bad = 0;
  for (const float value : values) {
    bad |=
        static_cast<std::uint32_t>((std::bit_cast<std::uint32_t>(value) & kExponent) == kExponent);
  }
  return bad == 0;
}

// Lets go of the mapped pages that lie before the end of what was read: they stay in the system's
// cache, but no longer count as this process's memory.
void release(std::span<const std::byte> bytes) {
  static const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<std::uintptr_t>(bytes.data()) / page * page;
  const auto end = reinterpret_cast<std::uintptr_t>(bytes.data() + bytes.size()) / page * page;
  if (end > begin) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

// The work that threads share: pieces of all tensors, in the order of the file.
class Pieces {
 public:
  Pieces(const gguf::File& source, gguf::Writer& writer, std::vector<Task> tasks)
      : source_(source), writer_(writer), tasks_(std::move(tasks)) {
    for (Task& task : tasks_) {
      task.first_piece = pieces_;
      pieces_ += (task.from->elements() + kPiece - 1) / kPiece;
      total_ += task.from->size;
    }
  }

  std::uint64_t count() const { return pieces_; }
  std::uint64_t total() const { return total_; }
  std::uint64_t done() const { return done_; }
  void stop() { stopped_ = true; }

  // What each thread does until nothing is left, something fails, or stop().
  void work() {
    std::vector<float> values;
    std::vector<std::byte> out;
    while (!stopped_) {
      const std::uint64_t piece = next_++;
      if (piece >= pieces_) return;
      if (auto result = do_piece(piece, values, out); !result) {
        const std::lock_guard lock(mutex_);
        if (result_) result_ = std::move(result);
        stopped_ = true;
      }
    }
  }

  // What went wrong first.
  Result<> result() {
    const std::lock_guard lock(mutex_);
    return result_;
  }

 private:
  Result<> do_piece(std::uint64_t piece, std::vector<float>& values, std::vector<std::byte>& out) {
    const Task& task = *std::prev(
        std::ranges::upper_bound(tasks_, piece, std::ranges::less{}, &Task::first_piece));
    const std::uint64_t begin = (piece - task.first_piece) * kPiece;
    const std::uint64_t weights = std::min(kPiece, task.from->elements() - begin);
    OLLAMA_ASSIGN(const auto tensor, source_.data(*task.from));
    const auto bytes =
        tensor.subspan(bytes_of(task.from->type, begin), bytes_of(task.from->type, weights));
    out.resize(bytes_of(task.to, weights));
    OLLAMA_TRY(convert(task, bytes, values, out));
    OLLAMA_TRY(writer_.write(task.index, bytes_of(task.to, begin), out));
    release(bytes);
    done_ += bytes.size();
    return {};
  }

  static Result<> convert(const Task& task, std::span<const std::byte> bytes,
                          std::vector<float>& values, std::vector<std::byte>& out) {
    if (task.from->ollama_mxfp4) {
      gguf::reorder_mxfp4(bytes, out);
      return {};
    }
    if (task.to == task.from->type) {
      std::ranges::copy(bytes, out.begin());
      return {};
    }
    values = decoded(task, bytes, std::move(values));
    const auto fails = [&task](std::string_view why) {
      return fail(ErrorCode::kCorrupt, "{}: {}", gguf::printable(task.from->name), why);
    };
    if (!all_finite(values)) return fails("a weight is not a finite number");
    // Blocks know nothing of rows without an importance matrix. The types of our mixes need no
    // tables of GGML's, whose making and freeing threads would have to share.
    quantise_blocks(task.to, values, out);
    if (!ggml_validate_row_data(task.to, out.data(), out.size())) {
      return fails(std::format("a weight is too large for {}", ggml_type_name(task.to)));
    }
    return {};
  }

  const gguf::File& source_;
  gguf::Writer& writer_;
  std::vector<Task> tasks_;
  std::uint64_t pieces_ = 0;
  std::uint64_t total_ = 0;
  std::atomic<std::uint64_t> next_ = 0;
  std::atomic<std::uint64_t> done_ = 0;
  std::atomic<bool> stopped_ = false;
  std::mutex mutex_;
  Result<> result_;
};

// Does all pieces on threads of their own, while this one reports.
class Crew {
 public:
  Crew(Pieces& pieces, std::uint32_t threads) : pieces_(pieces) {
    const auto wanted = std::min<std::uint64_t>(threads, pieces.count());
    try {
      while (threads_.size() < wanted) threads_.emplace_back([this] { run(); });
    } catch (const std::system_error&) {
      // Those that could be started do the work; without any, run() below reports it.
    }
  }
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;
  ~Crew() { pieces_.stop(); }  // the threads join

  Result<> wait(const Progress& progress) {
    if (threads_.empty() && pieces_.count() > 0)
      return fail(ErrorCode::kOutOfMemory, "no thread could be started");
    std::unique_lock lock(mutex_);
    while (!ended_.wait_for(lock, kReportEvery, [this] { return idle_ == threads_.size(); })) {
      if (progress && !progress(pieces_.done(), pieces_.total()))
        return fail(ErrorCode::kCancelled, "cancelled");
    }
    OLLAMA_TRY(pieces_.result());
    if (progress && !progress(pieces_.total(), pieces_.total()))
      return fail(ErrorCode::kCancelled, "cancelled");
    return {};
  }

 private:
  void run() {
    pieces_.work();
    const std::lock_guard lock(mutex_);
    ++idle_;
    ended_.notify_all();
  }

  Pieces& pieces_;
  std::mutex mutex_;
  std::condition_variable ended_;
  std::size_t idle_ = 0;
  std::vector<std::jthread> threads_;  // last: they use the rest
};

void copy_metadata(const gguf::File& source, const gguf::QuantMix& mix, gguf::Writer& writer) {
  for (const auto& [key, value] : source.metadata()) {
    if (key.starts_with("split.")) continue;
    if (const auto type = source.value_type(key)) writer.set(key, value, *type);
  }
  writer.set_u32("general.file_type", mix.file_type);
  writer.set_u32("general.quantization_version", GGML_QNT_VERSION);
}

Result<std::vector<Task>> add_tensors(const gguf::File& source, const gguf::QuantMix& mix,
                                      gguf::Writer& writer) {
  const gguf::MixModel model = gguf::mix_model_of(source);
  std::vector<Task> tasks;
  for (const gguf::TensorInfo& tensor : source.tensors()) {
    Task task{.from = &tensor, .to = tensor.type};
    const auto shape = shape_of(tensor);
    if (is_float(tensor.type) && gguf::is_quantisable(tensor.name, shape))
      task.to = gguf::choose_type(mix, model, tensor.name, shape);
    OLLAMA_ASSIGN(task.index, writer.add_tensor(tensor.name, task.to, shape));
    tasks.push_back(task);
  }
  return tasks;
}

}  // namespace

Result<> check_source(const gguf::File& source) {
  for (const gguf::TensorInfo& tensor : source.tensors()) {
    // Experts are published as MXFP4 by who trained them so: they stay as they are.
    const bool fits = is_float(tensor.type) || tensor.type == GGML_TYPE_MXFP4 ||
                      !gguf::is_quantisable(tensor.name, shape_of(tensor));
    if (!fits) {
      return fail(ErrorCode::kInvalidArgument,
                  "quantization is only supported for F16, BF16 and F32 models; {} is {}",
                  gguf::printable(tensor.name), ggml_type_name(tensor.type));
    }
  }
  if (source.u32("split.count").value_or(1) > 1) {
    return fail(ErrorCode::kUnsupported,
                "the file is one part of a split model: join the parts first, with "
                "llama-gguf-split --merge");
  }
  return {};
}

Result<> quantise(const gguf::File& source, const gguf::QuantMix& mix,
                  const std::filesystem::path& output, std::uint32_t threads,
                  const Progress& progress) {
  OLLAMA_TRY(check_source(source));
  // A written alignment was checked when the file was opened.
  gguf::Writer writer(source.u32(GGUF_KEY_GENERAL_ALIGNMENT).value_or(GGUF_DEFAULT_ALIGNMENT));
  copy_metadata(source, mix, writer);
  OLLAMA_ASSIGN(std::vector<Task> tasks, add_tensors(source, mix, writer));
  OLLAMA_TRY(writer.begin(output));
  Pieces pieces(source, writer, std::move(tasks));
  OLLAMA_TRY(Crew(pieces, std::max(threads, 1U)).wait(progress));
  return writer.finish();
}

}  // namespace ollama::convert
