#include "gguf/parse.h"

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <type_traits>
#include <unordered_set>

static_assert(std::endian::native == std::endian::little, "GGUF files are little-endian");

namespace ollama::gguf {
namespace {

// The least a metadata entry (key length, one byte of key, type, one byte of value) and a tensor
// entry (name length, one byte of name, dimension count, one dimension, type, offset) take in a
// file.
constexpr std::uint64_t kMinEntryBytes = 8 + 1 + 4 + 1;
constexpr std::uint64_t kMinTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;
// The type number under which Ollama's own converter stored MXFP4; GGML has no such type.
constexpr std::uint32_t kOllamaMxfp4 = 4;

std::size_t scalar_size(gguf_type type) {
  switch (type) {
    case GGUF_TYPE_UINT8:
    case GGUF_TYPE_INT8:
    case GGUF_TYPE_BOOL:
      return 1;
    case GGUF_TYPE_UINT16:
    case GGUF_TYPE_INT16:
      return 2;
    case GGUF_TYPE_UINT32:
    case GGUF_TYPE_INT32:
    case GGUF_TYPE_FLOAT32:
      return 4;
    case GGUF_TYPE_UINT64:
    case GGUF_TYPE_INT64:
    case GGUF_TYPE_FLOAT64:
      return 8;
    default:
      return 0;
  }
}

template <typename T>
T load(const std::byte* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

// Reads a file forwards through a buffer. Nothing beyond the header's limits is ever asked of it.
class Reader {
 public:
  Reader(int fd, std::uint64_t file_size) : fd_(fd), file_size_(file_size) {}

  std::uint64_t position() const { return offset_ + begin_; }
  // Bytes from here to the end of the file, or to the end of what a header may take.
  std::uint64_t remaining() const {
    const std::uint64_t end = std::min(file_size_, kMaxHeaderBytes);
    return end > position() ? end - position() : 0;
  }

  // The next `count` bytes, valid until the next call.
  Result<const std::byte*> take(std::uint64_t count) {
    if (count > end_ - begin_) OLLAMA_TRY(fill(count));
    const std::byte* bytes = buffer_.data() + begin_;
    begin_ += static_cast<std::size_t>(count);
    return bytes;
  }

  template <typename T>
  Result<T> number() {
    OLLAMA_ASSIGN(const std::byte* bytes, take(sizeof(T)));
    return load<T>(bytes);
  }

  // A string: its length, then its bytes.
  Result<std::string_view> string(std::uint64_t limit) {
    OLLAMA_ASSIGN(const auto length, number<std::uint64_t>());
    if (length > remaining())
      return fail(ErrorCode::kCorrupt, "a string of {} bytes, with {} left in the file{}", length,
                  remaining(), limit_note());
    if (length > limit)
      return fail(ErrorCode::kCorrupt, "a string of {} bytes, where at most {} are allowed", length,
                  limit);
    OLLAMA_ASSIGN(const std::byte* bytes, take(length));
    return std::string_view(reinterpret_cast<const char*>(bytes), length);
  }

  std::string_view limit_note() const {
    return file_size_ > kMaxHeaderBytes ? " (headers are read up to 256 MiB)" : "";
  }

 private:
  Result<> fill(std::uint64_t count) {
    if (count > remaining())
      return fail(ErrorCode::kCorrupt,
                  "the file ends inside its header: {} bytes wanted at {}, {} left{}", count,
                  position(), remaining(), limit_note());
    const std::size_t kept = end_ - begin_;
    if (kept > 0) std::memmove(buffer_.data(), buffer_.data() + begin_, kept);
    offset_ += begin_;
    begin_ = 0;
    end_ = kept;
    buffer_.resize(std::max({buffer_.size(), static_cast<std::size_t>(count), kBufferBytes}));
    while (end_ < count) {
      const ssize_t got = ::pread(fd_, buffer_.data() + end_, buffer_.size() - end_,
                                  static_cast<off_t>(offset_ + end_));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return fail_errno("cannot read", errno);
      if (got == 0) return fail(ErrorCode::kCorrupt, "the file became shorter while it was read");
      end_ += static_cast<std::size_t>(got);
    }
    return {};
  }

  static constexpr std::size_t kBufferBytes = 256 << 10;

  int fd_;
  std::uint64_t file_size_;
  std::uint64_t offset_ = 0;  // in the file, of the buffer's first byte
  std::size_t begin_ = 0, end_ = 0;
  std::vector<std::byte> buffer_;
};

// Calls `use` with a value of the C++ type that a scalar type is stored as.
template <typename Use>
auto with_scalar_type(gguf_type type, Use use) {
  switch (type) {
    case GGUF_TYPE_UINT8:
      return use(std::uint8_t{});
    case GGUF_TYPE_INT8:
      return use(std::int8_t{});
    case GGUF_TYPE_UINT16:
      return use(std::uint16_t{});
    case GGUF_TYPE_INT16:
      return use(std::int16_t{});
    case GGUF_TYPE_UINT32:
      return use(std::uint32_t{});
    case GGUF_TYPE_INT32:
      return use(std::int32_t{});
    case GGUF_TYPE_UINT64:
      return use(std::uint64_t{});
    case GGUF_TYPE_INT64:
      return use(std::int64_t{});
    case GGUF_TYPE_FLOAT32:
      return use(float{});
    case GGUF_TYPE_FLOAT64:
      return use(double{});
    default:
      return use(false);
  }
}

Result<Value> read_scalar(Reader& reader, gguf_type type) {
  OLLAMA_ASSIGN(const std::byte* bytes, reader.take(scalar_size(type)));
  return with_scalar_type(type, [&](auto sample) -> Value {
    using T = decltype(sample);
    if constexpr (std::is_same_v<T, bool>) {
      return load<std::uint8_t>(bytes) != 0;
    } else if constexpr (std::is_floating_point_v<T>) {
      return static_cast<double>(load<T>(bytes));
    } else {
      const T value = load<T>(bytes);
      if (std::in_range<std::int64_t>(value)) return static_cast<std::int64_t>(value);
      return static_cast<std::uint64_t>(value);
    }
  });
}

template <typename T, typename Out>
Result<> read_elements(Reader& reader, std::uint64_t count, std::vector<Out>& out) {
  constexpr std::uint64_t kChunk = 16384;
  out.reserve(static_cast<std::size_t>(count));
  while (count > 0) {
    const std::uint64_t now = std::min(count, kChunk);
    OLLAMA_ASSIGN(const std::byte* bytes, reader.take(now * sizeof(T)));
    for (std::uint64_t i = 0; i < now; ++i) {
      const T value = load<T>(bytes + i * sizeof(T));
      if constexpr (std::is_integral_v<T> && std::is_integral_v<Out> &&
                    !std::is_same_v<Out, bool>) {
        if (!std::in_range<Out>(value))
          return fail(ErrorCode::kUnsupported, "array element {} is above 2^63 - 1", value);
      }
      if constexpr (std::is_same_v<Out, bool>) {
        out.push_back(value != 0);
      } else {
        out.push_back(static_cast<Out>(value));
      }
    }
    count -= now;
  }
  return {};
}

Result<Array> read_array(Reader& reader, gguf_type element, std::uint64_t count) {
  if (element == GGUF_TYPE_STRING) {
    std::vector<std::string> strings;
    strings.reserve(static_cast<std::size_t>(count));
    for (std::uint64_t i = 0; i < count; ++i) {
      auto text = reader.string(kMaxStringBytes);
      if (!text) return std::unexpected(text.error().with_context(std::format("element {}", i)));
      strings.emplace_back(*text);
    }
    return strings;
  }
  return with_scalar_type(element, [&](auto sample) -> Result<Array> {
    using T = decltype(sample);
    if constexpr (std::is_same_v<T, bool>) {
      std::vector<bool> out;
      OLLAMA_TRY(read_elements<std::uint8_t>(reader, count, out));
      return out;
    } else if constexpr (std::is_floating_point_v<T>) {
      std::vector<double> out;
      OLLAMA_TRY(read_elements<T>(reader, count, out));
      return out;
    } else {
      std::vector<std::int64_t> out;
      OLLAMA_TRY(read_elements<T>(reader, count, out));
      return out;
    }
  });
}

Result<gguf_type> read_type(Reader& reader) {
  OLLAMA_ASSIGN(const auto number, reader.number<std::uint32_t>());
  if (number >= GGUF_TYPE_COUNT)
    return fail(ErrorCode::kCorrupt, "value type {} does not exist", number);
  return static_cast<gguf_type>(number);
}

// `elements` counts the array elements of the whole file.
Result<Value> read_value(Reader& reader, ValueType& type, std::uint64_t& elements) {
  OLLAMA_ASSIGN(type.type, read_type(reader));
  if (type.type == GGUF_TYPE_STRING) {
    OLLAMA_ASSIGN(const std::string_view text, reader.string(kMaxStringBytes));
    return std::string(text);
  }
  if (type.type != GGUF_TYPE_ARRAY) return read_scalar(reader, type.type);

  OLLAMA_ASSIGN(type.element, read_type(reader));
  if (type.element == GGUF_TYPE_ARRAY)
    return fail(ErrorCode::kUnsupported, "arrays of arrays are not supported");
  OLLAMA_ASSIGN(const auto count, reader.number<std::uint64_t>());
  const std::uint64_t element_bytes =
      type.element == GGUF_TYPE_STRING ? sizeof(std::uint64_t) : scalar_size(type.element);
  if (count > reader.remaining() / element_bytes)
    return fail(ErrorCode::kCorrupt, "an array of {} elements, with {} bytes left in the file{}",
                count, reader.remaining(), reader.limit_note());
  elements += count;
  if (elements > kMaxArrayElements)
    return fail(ErrorCode::kUnsupported, "more than {} array elements in one file",
                kMaxArrayElements);
  OLLAMA_ASSIGN(Array array, read_array(reader, type.element, count));
  return array;
}

bool valid_name(std::string_view name) {
  return !name.empty() && name.find('\0') == std::string_view::npos;
}

Result<> read_metadata(Reader& reader, std::uint64_t count, Header& header) {
  std::uint64_t elements = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    auto name = reader.string(kMaxKeyBytes);
    if (!name) return std::unexpected(name.error().with_context(std::format("metadata key {}", i)));
    if (!valid_name(*name))
      return fail(ErrorCode::kCorrupt, "metadata key {}: '{}' is not a key", i, printable(*name));
    std::string key(*name);
    ValueType type;
    auto value = read_value(reader, type, elements);
    if (!value) return std::unexpected(value.error().with_context(printable(key)));
    header.types.emplace(key, type);
    if (!header.metadata.emplace(key, std::move(*value)).second)
      return fail(ErrorCode::kCorrupt, "{}: this metadata key is there twice", printable(key));
  }
  return {};
}

Result<> read_alignment(Header& header) {
  const auto found = header.metadata.find(GGUF_KEY_GENERAL_ALIGNMENT);
  if (found == header.metadata.end()) return {};
  const auto* value = std::get_if<std::int64_t>(&found->second);
  if (!value) return fail(ErrorCode::kCorrupt, "general.alignment: expected a number");
  const auto alignment = static_cast<std::uint64_t>(*value);
  if (!std::has_single_bit(alignment) || alignment < 8 || alignment > kMaxAlignment)
    return fail(ErrorCode::kCorrupt, "general.alignment: {} is not a power of two from 8 to {}",
                *value, kMaxAlignment);
  header.alignment = alignment;
  return {};
}

bool is_gpt_oss(const Header& header) {
  const auto found = header.metadata.find("general.architecture");
  if (found == header.metadata.end()) return false;
  const auto* name = std::get_if<std::string>(&found->second);
  return name && (*name == "gptoss" || *name == "gpt-oss");
}

// Everything after the name; the offset stays relative to the data's start.
Result<> read_tensor(Reader& reader, const Header& header, TensorInfo& tensor) {
  OLLAMA_ASSIGN(const auto n_dims, reader.number<std::uint32_t>());
  if (n_dims < 1 || n_dims > GGML_MAX_DIMS)
    return fail(ErrorCode::kCorrupt, "{} dimensions, where 1 to {} are allowed", n_dims,
                GGML_MAX_DIMS);
  tensor.n_dims = static_cast<int>(n_dims);
  for (std::uint32_t i = 0; i < n_dims; ++i) {
    OLLAMA_ASSIGN(tensor.shape[i], reader.number<std::int64_t>());
  }
  OLLAMA_ASSIGN(auto type, reader.number<std::uint32_t>());
  if (type == kOllamaMxfp4 && is_gpt_oss(header)) {
    type = GGML_TYPE_MXFP4;
    tensor.ollama_mxfp4 = true;
  }
  OLLAMA_ASSIGN(tensor.size, tensor_size(type, std::span(tensor.shape).first(n_dims)));
  tensor.type = static_cast<ggml_type>(type);
  OLLAMA_ASSIGN(tensor.offset, reader.number<std::uint64_t>());
  if (tensor.offset % header.alignment != 0)
    return fail(ErrorCode::kCorrupt, "its offset {} is not a multiple of the file's alignment {}",
                tensor.offset, header.alignment);
  return {};
}

Result<> read_tensors(Reader& reader, std::uint64_t count, Header& header) {
  std::unordered_set<std::string> names;
  header.tensors.reserve(static_cast<std::size_t>(count));
  for (std::uint64_t i = 0; i < count; ++i) {
    auto name = reader.string(kMaxNameBytes);
    if (!name)
      return std::unexpected(name.error().with_context(std::format("name of tensor {}", i)));
    if (!valid_name(*name))
      return fail(ErrorCode::kCorrupt, "name of tensor {}: '{}' is not a name", i,
                  printable(*name));
    TensorInfo tensor;
    tensor.name = *name;
    if (auto read = read_tensor(reader, header, tensor); !read)
      return std::unexpected(read.error().with_context(printable(tensor.name)));
    if (!names.insert(tensor.name).second)
      return fail(ErrorCode::kCorrupt, "{}: this tensor is there twice", printable(tensor.name));
    header.tensors.push_back(std::move(tensor));
  }
  return {};
}

// Makes the offsets absolute; checks that the data is in the file and that no two tensors share
// any.
Result<> place_tensors(Header& header, std::uint64_t header_end, std::uint64_t file_size) {
  if (header.tensors.empty()) return {};
  const std::uint64_t mask = header.alignment - 1;
  const std::uint64_t data_start = (header_end + mask) & ~mask;
  for (TensorInfo& tensor : header.tensors) {
    std::uint64_t end = 0;
    if (__builtin_add_overflow(data_start, tensor.offset, &tensor.offset) ||
        __builtin_add_overflow(tensor.offset, tensor.size, &end))
      return fail(ErrorCode::kCorrupt, "{}: its offset overflows", printable(tensor.name));
    if (end > file_size)
      return fail(ErrorCode::kCorrupt, "{}: data ends at {}, beyond the file's {} bytes",
                  printable(tensor.name), end, file_size);
  }
  std::vector<const TensorInfo*> order;
  order.reserve(header.tensors.size());
  for (const TensorInfo& tensor : header.tensors) order.push_back(&tensor);
  std::ranges::sort(order, {}, &TensorInfo::offset);
  for (std::size_t i = 1; i < order.size(); ++i) {
    if (order[i - 1]->offset + order[i - 1]->size > order[i]->offset)
      return fail(ErrorCode::kCorrupt, "{}: its data overlaps that of {}",
                  printable(order[i]->name), printable(order[i - 1]->name));
  }
  return {};
}

Result<> read_magic(Reader& reader) {
  if (reader.remaining() < 4)
    return fail(ErrorCode::kCorrupt, "not a GGUF file: it has only {} bytes", reader.remaining());
  OLLAMA_ASSIGN(const std::byte* bytes, reader.take(4));
  const std::string magic(reinterpret_cast<const char*>(bytes), 4);
  if (magic == GGUF_MAGIC) return {};
  for (const std::string_view old : {"lmgg", "fmgg", "tjgg", "algg"}) {
    if (magic == old)
      return fail(ErrorCode::kUnsupported,
                  "a GGML file from before GGUF; convert the original model again");
  }
  return fail(ErrorCode::kCorrupt, "not a GGUF file: it begins with '{}'", printable(magic));
}

Result<std::uint32_t> read_version(Reader& reader) {
  OLLAMA_ASSIGN(const auto version, reader.number<std::uint32_t>());
  if (version == 2 || version == 3) return version;
  if (version != 0 && (version & 0xffff) == 0)
    return fail(ErrorCode::kUnsupported,
                "a big-endian GGUF file; convert the original model for little-endian machines");
  if (version == 1)
    return fail(ErrorCode::kUnsupported,
                "GGUF version 1 is not supported; convert the original model again");
  return fail(ErrorCode::kUnsupported, "GGUF version {} is not supported, only 2 and 3", version);
}

}  // namespace

Result<std::uint64_t> tensor_size(std::uint32_t type, std::span<const std::int64_t> shape) {
  std::int64_t elements = 1;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] < 1) return fail(ErrorCode::kCorrupt, "dimension {} is {}", i, shape[i]);
    if (__builtin_mul_overflow(elements, shape[i], &elements))
      return fail(ErrorCode::kCorrupt, "the product of its dimensions overflows");
  }
  // Types that GGML removed keep their number and have no size.
  const auto known = static_cast<ggml_type>(std::min<std::uint32_t>(type, GGML_TYPE_COUNT));
  if (known == GGML_TYPE_COUNT || ggml_type_size(known) == 0 || ggml_blck_size(known) < 1)
    return fail(ErrorCode::kUnsupported, "tensor type {} is not one that GGML {} knows", type,
                ggml_version());
  const std::int64_t block = ggml_blck_size(known);
  if (shape[0] % block != 0)
    return fail(ErrorCode::kCorrupt,
                "a row of {} elements is not a whole number of {}'s blocks of {}", shape[0],
                ggml_type_name(known), block);
  std::uint64_t size = 0;
  if (__builtin_mul_overflow(static_cast<std::uint64_t>(elements / block),
                             std::uint64_t{ggml_type_size(known)}, &size))
    return fail(ErrorCode::kCorrupt, "its size in bytes overflows");
  return size;
}

std::string printable(std::string_view text) {
  constexpr std::size_t kLimit = 96;
  std::string out;
  for (const char c : text.substr(0, kLimit)) {
    if (c >= 0x20 && c < 0x7f) {
      out += c;
    } else {
      out += std::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
  }
  if (text.size() > kLimit) out += "...";
  return out;
}

Result<Header> parse_header(int fd, std::uint64_t file_size) {
  Reader reader(fd, file_size);
  Header header;
  OLLAMA_TRY(read_magic(reader));
  OLLAMA_ASSIGN(header.version, read_version(reader));
  OLLAMA_ASSIGN(const auto n_tensors, reader.number<std::uint64_t>());
  OLLAMA_ASSIGN(const auto n_entries, reader.number<std::uint64_t>());
  if (n_tensors > std::min(reader.remaining() / kMinTensorBytes, kMaxTensors))
    return fail(ErrorCode::kCorrupt, "{} tensors cannot be in {} bytes", n_tensors, file_size);
  if (n_entries > std::min(reader.remaining() / kMinEntryBytes, kMaxKeys))
    return fail(ErrorCode::kCorrupt, "{} metadata keys cannot be in {} bytes", n_entries,
                file_size);
  OLLAMA_TRY(read_metadata(reader, n_entries, header));
  OLLAMA_TRY(read_alignment(header));
  OLLAMA_TRY(read_tensors(reader, n_tensors, header));
  OLLAMA_TRY(place_tensors(header, reader.position(), file_size));
  return header;
}

}  // namespace ollama::gguf
