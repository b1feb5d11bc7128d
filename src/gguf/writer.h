// Writes model files. The file appears under its name only when it is complete and on the disk;
// until then the data is in a temporary file beside it, which goes away if anything fails.
//
//   Writer writer;
//   writer.set_string("general.architecture", "llama");
//   OLLAMA_ASSIGN(const auto index, writer.add_tensor("token_embd.weight", GGML_TYPE_F32, shape));
//   OLLAMA_TRY(writer.begin("model.gguf"));
//   OLLAMA_TRY(writer.write(index, 0, bytes));
//   OLLAMA_TRY(writer.finish());
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/unique_fd.h"
#include "gguf/file.h"

namespace ollama::gguf {

class Writer {
 public:
  // Tensor data is aligned to this many bytes; other values than the default are written as
  // general.alignment. A power of two from 8.
  explicit Writer(std::uint64_t alignment = GGUF_DEFAULT_ALIGNMENT);
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;
  // Removes the temporary file if finish() did not succeed.
  ~Writer();

  // Metadata, written in the order of first setting; setting a key again replaces its value. A
  // value that its type cannot hold is reported by begin().
  void set(std::string_view key, Value value, ValueType type);
  void set_u32(std::string_view key, std::uint32_t value);
  void set_f32(std::string_view key, float value);
  void set_bool(std::string_view key, bool value);
  void set_string(std::string_view key, std::string_view value);
  void set_strings(std::string_view key, std::vector<std::string> values);
  void set_i32s(std::string_view key, std::span<const std::int32_t> values);
  void set_f32s(std::string_view key, std::span<const float> values);
  void remove(std::string_view key);

  // Adds a tensor of 1 to 4 dimensions, fastest first, and returns its index. Before begin() only.
  // Errors: kInvalidArgument.
  Result<std::size_t> add_tensor(std::string_view name, ggml_type type,
                                 std::span<const std::int64_t> shape);
  std::uint64_t tensor_size(std::size_t index) const { return tensors_[index].size; }
  // Bytes of all tensors together.
  std::uint64_t data_size() const;

  // Creates the temporary file beside `path`, reserves its space and writes the header.
  // Errors: kInvalidArgument, kPermission, kIo ("no space left on device").
  Result<> begin(const std::filesystem::path& path);
  // Writes part of a tensor's data, in any order, each byte once; from several threads if need be.
  Result<> write(std::size_t index, std::uint64_t offset, std::span<const std::byte> bytes);
  // Flushes to the disk and moves the file to its name, replacing what is there. Errors:
  // kInvalidArgument when data is missing, kIo.
  Result<> finish();

 private:
  struct Entry {
    std::string key;
    Value value;
    ValueType type;
  };

  Result<std::string> header() const;

  std::uint64_t alignment_;
  std::vector<Entry> entries_;
  std::vector<TensorInfo> tensors_;  // offsets from the data's start until begin()
  std::unordered_set<std::string> names_;
  std::filesystem::path path_, temporary_;
  UniqueFd fd_;
  std::atomic<std::uint64_t> written_ = 0;
};

}  // namespace ollama::gguf
