// Internal to convert: the weights of a checkpoint, whichever files they lie in.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "convert/safetensors.h"
#include "convert/source.h"

namespace ollama::convert {

class Checkpoint {
 public:
  // The files that model.safetensors.index.json lists; without it model.safetensors, or else all
  // that are named like shards. Errors: kCorrupt, kNotFound, kUnsupported (an adapter, or a file in
  // a layout of its own).
  static Result<Checkpoint> open(const Source& source);

  std::span<const StoredTensor> tensors() const { return tensors_; }
  // Part of a tensor's data.
  Result<> read(const StoredTensor& tensor, std::uint64_t offset, std::span<std::byte> out) const {
    return files_[tensor.file].read(tensor.offset + offset, out);
  }

 private:
  Result<> add(const Source& source, std::string_view name);

  std::vector<InputFile> files_;
  std::vector<StoredTensor> tensors_;
  std::map<std::string, std::size_t, std::less<>> names_;
};

}  // namespace ollama::convert
