// The header of a GGUF file: counts, metadata and tensor table, from bytes nobody vouches for.
// A header that passes here is consistent: names are unique, sizes do not overflow, and every
// tensor lies inside the file, aligned, and apart from the others.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "gguf/file.h"

namespace ollama::gguf {

// Beyond these a header is refused however large the file is, so that a sparse file cannot make a
// reader allocate without end. The largest published models stay far below.
inline constexpr std::uint64_t kMaxHeaderBytes = 256ULL << 20;
inline constexpr std::uint64_t kMaxStringBytes = 64ULL << 20;
inline constexpr std::uint64_t kMaxArrayElements = 16ULL << 20;  // over all arrays of a file
inline constexpr std::uint64_t kMaxTensors = 1ULL << 20;
inline constexpr std::uint64_t kMaxKeys = 1ULL << 16;
inline constexpr std::uint64_t kMaxKeyBytes = 65535;  // as the format says
inline constexpr std::uint64_t kMaxNameBytes = GGML_MAX_NAME - 1;
inline constexpr std::uint64_t kMaxAlignment = 1ULL << 20;

struct Header {
  std::uint32_t version = 0;
  std::uint64_t alignment = GGUF_DEFAULT_ALIGNMENT;
  Metadata metadata;
  std::map<std::string, ValueType, std::less<>> types;  // the same keys as metadata
  std::vector<TensorInfo> tensors;                      // in file order
};

// Reads the header of the file behind `fd`, which has `file_size` bytes. The file position is
// neither used nor changed. Errors: kCorrupt, kUnsupported, kIo.
Result<Header> parse_header(int fd, std::uint64_t file_size);

// The bytes that a tensor of a type (a ggml_type as a file has it) and of 1 to 4 dimensions,
// fastest first, takes. Errors: kUnsupported for a type without a size, kCorrupt for a shape it
// cannot have.
Result<std::uint64_t> tensor_size(std::uint32_t type, std::span<const std::int64_t> shape);

// Text from a file made safe to show: control characters and bytes beyond ASCII escaped, long text
// cut.
std::string printable(std::string_view text);

}  // namespace ollama::gguf
