// Internal to convert: the header of a safetensors file. A u64 in little-endian order says how long
// the JSON is that follows: {"NAME": {"dtype", "shape", "data_offsets": [begin, end]}, ...,
// "__metadata__": {...}}; the rest of the file is the tensors' data, which the offsets count in.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace ollama::convert {

inline constexpr std::uint64_t kMaxSafetensorsHeader = 32ULL << 20;
inline constexpr std::size_t kSafetensorsPrefix = 8;

struct StoredTensor {
  std::string name;
  std::string dtype;                // as the file has it: "BF16"
  std::vector<std::int64_t> shape;  // slowest dimension first, as in the file
  std::uint64_t offset = 0;         // from the start of the file
  std::uint64_t size = 0;           // bytes
  std::size_t file = 0;             // which of the checkpoint's files
};

// The length of the header's JSON, from the file's first 8 bytes. Errors: kCorrupt.
Result<std::uint64_t> safetensors_header_size(std::string_view prefix, std::uint64_t file_size);

// Reads the JSON. Sizes follow from type and shape, lie within the file and do not overlap.
// Tensors of types that this program does not know are kept when their size is plausible, since
// they may be of a part of the model that is left out. Errors: kCorrupt, with the tensor's name.
Result<std::vector<StoredTensor>> parse_safetensors(std::string_view json, std::uint64_t file_size);

}  // namespace ollama::convert
