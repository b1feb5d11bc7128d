#include "gguf/writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <random>
#include <type_traits>

#include "gguf/parse.h"

namespace ollama::gguf {
namespace {

template <typename T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void put_string(std::string& out, std::string_view text) {
  put<std::uint64_t>(out, text.size());
  out += text;
}

void put_type(std::string& out, gguf_type type) { put(out, static_cast<std::uint32_t>(type)); }

// Appends one scalar as `type`; false when it cannot hold the value.
template <typename T>
bool put_as(std::string& out, gguf_type type, const T& value) {
  const auto integer = [&]<typename To>(To) {
    if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
      if (!std::in_range<To>(value)) return false;
      put(out, static_cast<To>(value));
      return true;
    }
    return false;
  };
  switch (type) {
    case GGUF_TYPE_UINT8:
      return integer(std::uint8_t{});
    case GGUF_TYPE_INT8:
      return integer(std::int8_t{});
    case GGUF_TYPE_UINT16:
      return integer(std::uint16_t{});
    case GGUF_TYPE_INT16:
      return integer(std::int16_t{});
    case GGUF_TYPE_UINT32:
      return integer(std::uint32_t{});
    case GGUF_TYPE_INT32:
      return integer(std::int32_t{});
    case GGUF_TYPE_UINT64:
      return integer(std::uint64_t{});
    case GGUF_TYPE_INT64:
      return integer(std::int64_t{});
    case GGUF_TYPE_FLOAT32:
      if constexpr (std::is_same_v<T, double>) return put(out, static_cast<float>(value)), true;
      return false;
    case GGUF_TYPE_FLOAT64:
      if constexpr (std::is_same_v<T, double>) return put(out, value), true;
      return false;
    case GGUF_TYPE_BOOL:
      if constexpr (std::is_same_v<T, bool>)
        return put(out, static_cast<std::uint8_t>(value ? 1 : 0)), true;
      return false;
    case GGUF_TYPE_STRING:
      if constexpr (std::is_same_v<T, std::string>) return put_string(out, value), true;
      return false;
    default:
      return false;
  }
}

template <typename T>
bool put_array(std::string& out, gguf_type element, const std::vector<T>& values) {
  put_type(out, element);
  put<std::uint64_t>(out, values.size());
  return std::ranges::all_of(values, [&](const T& value) { return put_as(out, element, value); });
}

bool put_value(std::string& out, const Value& value, ValueType type) {
  put_type(out, type.type);
  return std::visit(
      [&]<typename T>(const T& held) {
        if constexpr (std::is_same_v<T, Array>) {
          return type.type == GGUF_TYPE_ARRAY &&
                 std::visit([&](const auto& array) { return put_array(out, type.element, array); },
                            held);
        } else {
          return put_as(out, type.type, held);
        }
      },
      value);
}

Result<> write_all(int fd, std::uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t done = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return fail_errno("cannot write the model file", errno);
    bytes = bytes.subspan(static_cast<std::size_t>(done));
    offset += static_cast<std::uint64_t>(done);
  }
  return {};
}

Result<> sync_folder(const std::filesystem::path& file) {
  const auto folder = file.has_parent_path() ? file.parent_path() : std::filesystem::path(".");
  const UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || ::fsync(fd.get()) != 0) return fail_errno(folder.string(), errno);
  return {};
}

}  // namespace

Writer::Writer(std::uint64_t alignment) : alignment_(alignment) {
  if (alignment != GGUF_DEFAULT_ALIGNMENT)
    set_u32(GGUF_KEY_GENERAL_ALIGNMENT, static_cast<std::uint32_t>(alignment));
}

Writer::~Writer() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void Writer::set(std::string_view key, Value value, ValueType type) {
  const auto found = std::ranges::find(entries_, key, &Entry::key);
  if (found == entries_.end()) {
    entries_.push_back({std::string(key), std::move(value), type});
  } else {
    found->value = std::move(value);
    found->type = type;
  }
}

void Writer::set_u32(std::string_view key, std::uint32_t value) {
  set(key, std::int64_t{value}, {.type = GGUF_TYPE_UINT32});
}

void Writer::set_f32(std::string_view key, float value) {
  set(key, double{value}, {.type = GGUF_TYPE_FLOAT32});
}

void Writer::set_bool(std::string_view key, bool value) {
  set(key, value, {.type = GGUF_TYPE_BOOL});
}

void Writer::set_string(std::string_view key, std::string_view value) {
  set(key, std::string(value), {.type = GGUF_TYPE_STRING});
}

void Writer::set_strings(std::string_view key, std::vector<std::string> values) {
  set(key, Array(std::move(values)), {.type = GGUF_TYPE_ARRAY, .element = GGUF_TYPE_STRING});
}

void Writer::set_i32s(std::string_view key, std::span<const std::int32_t> values) {
  set(key, Array(std::vector<std::int64_t>(values.begin(), values.end())),
      {.type = GGUF_TYPE_ARRAY, .element = GGUF_TYPE_INT32});
}

void Writer::set_f32s(std::string_view key, std::span<const float> values) {
  set(key, Array(std::vector<double>(values.begin(), values.end())),
      {.type = GGUF_TYPE_ARRAY, .element = GGUF_TYPE_FLOAT32});
}

void Writer::remove(std::string_view key) {
  std::erase_if(entries_, [key](const Entry& entry) { return entry.key == key; });
}

Result<std::size_t> Writer::add_tensor(std::string_view name, ggml_type type,
                                       std::span<const std::int64_t> shape) {
  const auto refuse = [name](std::string_view why) {
    return fail(ErrorCode::kInvalidArgument, "tensor '{}': {}", printable(name), why);
  };
  if (name.empty() || name.size() > kMaxNameBytes)
    return refuse("its name must have 1 to 63 bytes");
  if (shape.empty() || shape.size() > GGML_MAX_DIMS)
    return refuse("it must have 1 to 4 dimensions");
  if (fd_) return refuse("the header is already written");
  const auto size = gguf::tensor_size(static_cast<std::uint32_t>(type), shape);
  if (!size) return refuse(size.error().message());
  if (!names_.emplace(name).second) return refuse("there is one of that name already");
  TensorInfo tensor;
  tensor.name = name;
  tensor.type = type;
  tensor.n_dims = static_cast<int>(shape.size());
  std::ranges::copy(shape, tensor.shape.begin());
  tensor.size = *size;
  if (!tensors_.empty()) {
    const std::uint64_t end = tensors_.back().offset + tensors_.back().size;
    tensor.offset = (end + alignment_ - 1) / alignment_ * alignment_;
  }
  tensors_.push_back(std::move(tensor));
  return tensors_.size() - 1;
}

std::uint64_t Writer::data_size() const {
  std::uint64_t size = 0;
  for (const TensorInfo& tensor : tensors_) size += tensor.size;
  return size;
}

Result<std::string> Writer::header() const {
  std::string out(GGUF_MAGIC);
  put<std::uint32_t>(out, GGUF_VERSION);
  put<std::uint64_t>(out, tensors_.size());
  put<std::uint64_t>(out, entries_.size());
  for (const Entry& entry : entries_) {
    put_string(out, entry.key);
    if (!put_value(out, entry.value, entry.type))
      return fail(ErrorCode::kInvalidArgument, "{}: the value does not fit its type {}",
                  printable(entry.key), static_cast<int>(entry.type.type));
  }
  for (const TensorInfo& tensor : tensors_) {
    put_string(out, tensor.name);
    put(out, static_cast<std::uint32_t>(tensor.n_dims));
    for (const std::int64_t length : std::span(tensor.shape).first(std::size_t(tensor.n_dims)))
      put(out, length);
    put(out, static_cast<std::uint32_t>(tensor.type));
    put(out, tensor.offset);
  }
  out.resize((out.size() + alignment_ - 1) / alignment_ * alignment_);
  return out;
}

Result<> Writer::begin(const std::filesystem::path& path) {
  OLLAMA_ASSIGN(const std::string bytes, header());
  std::random_device random;
  do {
    temporary_ = path;
    temporary_ += std::format(".{:08x}.partial", random());
    fd_.reset(::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
  } while (!fd_ && errno == EEXIST);
  if (!fd_) {
    const int error = errno;
    temporary_.clear();
    return fail_errno(path.string(), error);
  }
  path_ = path;
  std::uint64_t end = bytes.size();
  for (TensorInfo& tensor : tensors_) {
    tensor.offset += bytes.size();
    end = tensor.offset + tensor.size;
  }
  end = (end + alignment_ - 1) / alignment_ * alignment_;
  // A full disk is better found now than after minutes of work.
  if (::fallocate(fd_.get(), 0, 0, static_cast<off_t>(end)) != 0 &&
      (errno != EOPNOTSUPP || ::ftruncate(fd_.get(), static_cast<off_t>(end)) != 0))
    return fail_errno(path.string(), errno);
  return write_all(fd_.get(), 0, std::as_bytes(std::span(bytes)));
}

Result<> Writer::write(std::size_t index, std::uint64_t offset, std::span<const std::byte> bytes) {
  if (!fd_ || index >= tensors_.size() || offset > tensors_[index].size ||
      bytes.size() > tensors_[index].size - offset)
    return fail(ErrorCode::kInvalidArgument, "{} bytes at {} do not belong to tensor {}",
                bytes.size(), offset, index);
  OLLAMA_TRY(write_all(fd_.get(), tensors_[index].offset + offset, bytes));
  written_ += bytes.size();
  return {};
}

Result<> Writer::finish() {
  if (!fd_ || written_ != data_size())
    return fail(ErrorCode::kInvalidArgument, "{} of {} bytes of tensor data were written",
                written_.load(), data_size());
  if (::fsync(fd_.get()) != 0) return fail_errno(path_.string(), errno);
  fd_.reset();
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) return fail_errno(path_.string(), errno);
  temporary_.clear();
  return sync_folder(path_);
}

}  // namespace ollama::gguf
