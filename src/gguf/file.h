// Model files in GGUF, read safely: everything a file says is untrusted. The header is parsed here
// (parse.h), every count, length and offset bounded by the file's size before anything is
// allocated, because GGML's own reader logs its errors and its typed accessors abort on a wrong
// type. Files that name things as Ollama did are translated to llama.cpp's names (dialect.h).
#pragma once

#include <ggml.h>
#include <gguf.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/error.h"

namespace ollama::gguf {

// A metadata array of any element type the format has. Integers are widened, floats are f64.
using Array = std::variant<std::vector<std::int64_t>, std::vector<double>, std::vector<bool>,
                           std::vector<std::string>>;
// A metadata value. u64 values above 2^63 - 1 are kept as std::uint64_t.
using Value = std::variant<std::int64_t, std::uint64_t, double, bool, std::string, Array>;

struct TensorInfo {
  std::string name;
  ggml_type type = GGML_TYPE_F32;
  std::array<std::int64_t, 4> shape{1, 1, 1, 1};  // fastest dimension first
  int n_dims = 0;                                 // as the file says, 1 to 4
  std::uint64_t offset = 0;                       // bytes from the start of the file
  std::uint64_t size = 0;                         // bytes
  // MXFP4 blocks with Ollama's nibble order (byte i holds elements 2i and 2i+1, not i and i+16): to
  // be reordered when loaded. The type is GGML_TYPE_MXFP4, the size the same.
  bool ollama_mxfp4 = false;

  std::uint64_t elements() const {
    return static_cast<std::uint64_t>(shape[0]) * static_cast<std::uint64_t>(shape[1]) *
           static_cast<std::uint64_t>(shape[2]) * static_cast<std::uint64_t>(shape[3]);
  }
};

using Metadata = std::map<std::string, Value, std::less<>>;

// How a file stored a metadata value, for writing it again as it was.
struct ValueType {
  gguf_type type = GGUF_TYPE_COUNT;
  gguf_type element = GGUF_TYPE_COUNT;  // of arrays

  friend bool operator==(const ValueType&, const ValueType&) = default;
};

// A model file opened for reading: metadata and tensor table in memory, data mapped on demand.
// Immutable once open; safe to share between threads.
class File {
 public:
  // Reads header, metadata and tensor table. Errors: kNotFound, kIo; kCorrupt with what is wrong
  // and where ("blk.0.attn_q.weight: data ends at 512 beyond the file's 256 bytes"); kUnsupported
  // for a GGUF version or tensor type that GGML does not know.
  static Result<File> open(const std::filesystem::path& path);

  File(File&&) noexcept;
  File& operator=(File&&) noexcept;
  ~File();

  const std::filesystem::path& path() const;
  std::uint64_t file_size() const;
  std::uint32_t version() const;
  // general.architecture; empty if missing.
  std::string_view architecture() const;

  // Metadata by full key. A leading '.' stands for the architecture: ".block_count" is
  // "llama.block_count". Keys that start with "general." or "tokenizer." are never prefixed.
  const Value* find(std::string_view key) const;
  const Metadata& metadata() const;
  // The type a value was stored with; nullopt when the key is missing.
  std::optional<ValueType> value_type(std::string_view key) const;

  // Typed reads. nullopt when the key is missing; a value of another type or out of T's range is
  // treated as kCorrupt by `require`, and as missing (with a warning in the log) by these.
  std::optional<std::uint32_t> u32(std::string_view key) const;
  std::optional<std::int64_t> i64(std::string_view key) const;
  std::optional<float> f32(std::string_view key) const;  // finite; integers are accepted
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::string_view> string(std::string_view key) const;
  std::span<const std::string> strings(std::string_view key) const;  // empty when missing
  // Also from a scalar: one element.
  std::vector<std::int32_t> i32s(std::string_view key) const;
  std::vector<float> f32s(std::string_view key) const;
  std::vector<bool> bools(std::string_view key) const;

  // The value, or kCorrupt "missing key llama.block_count" / "llama.block_count: expected ...".
  Result<std::uint32_t> require_u32(std::string_view key) const;
  Result<float> require_f32(std::string_view key) const;
  Result<std::string_view> require_string(std::string_view key) const;

  std::span<const TensorInfo> tensors() const;  // in file order
  const TensorInfo* find_tensor(std::string_view name) const;
  std::uint64_t parameter_count() const;  // elements over all tensors

  // Maps the file (once; shared by later calls) and returns the tensor's bytes, valid for the life
  // of this File. Errors: kIo. Bounds were checked by open().
  Result<std::span<const std::byte>> data(const TensorInfo& tensor) const;
  // The whole file, mapped read-only and shared with other processes; thread-safe like data().
  Result<std::span<const std::byte>> mapping() const;

 private:
  struct State;
  explicit File(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// The layer that a tensor belongs to: LAYER of "blk.LAYER.NAME"; nullopt for the others.
std::optional<std::uint32_t> layer_of(std::string_view tensor_name);

// Whether a tensor goes where the output goes: its matrix and its norm, or a classifier.
bool belongs_to_output(std::string_view tensor_name);

// Whether the model scores pairs of texts (a cross-encoder) instead of giving embeddings or text.
// Many converted ones have a classifier and do not say what it is for.
bool ranks_texts(const File& file);

// The table of embeddings that the model multiplies by, too, because it has no matrix for its
// outputs; null where it has one, or no outputs.
const TensorInfo* output_table(const File& file);

// The name of a file's quantisation as Ollama shows it ("F16", "Q4_K_M"), from general.file_type,
// or from the commonest tensor type where that is missing.
std::string file_type_name(const File& file);

}  // namespace ollama::gguf
