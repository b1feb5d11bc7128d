#include "gguf/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <limits>
#include <mutex>
#include <new>
#include <unordered_map>

#include "base/log.h"
#include "base/unique_fd.h"
#include "base/units.h"
#include "gguf/dialect.h"
#include "gguf/parse.h"

namespace ollama::gguf {

struct File::State {
  std::filesystem::path path;
  std::uint64_t file_size = 0;
  Header header;
  std::string architecture;
  std::unordered_map<std::string_view, std::size_t>
      tensor_index;  // into header.tensors, by its names

  // Guarded by map_once: the file stays open until it is mapped, so that a file replaced on disk
  // meanwhile does not matter.
  mutable std::once_flag map_once;
  mutable UniqueFd fd;
  mutable Result<std::span<const std::byte>> mapped;

  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    if (mapped && !mapped->empty())
      ::munmap(const_cast<std::byte*>(mapped->data()), mapped->size());
  }

  Result<std::span<const std::byte>> map() const;
};

Result<std::span<const std::byte>> File::State::map() const {
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) return fail_errno(path.string(), errno);
  if (static_cast<std::uint64_t>(status.st_size) < file_size)
    return fail(ErrorCode::kCorrupt, "{}: the file became shorter since it was opened",
                path.string());
  // Shared, so that several runners of one model have its pages in memory once.
  void* address = ::mmap(nullptr, file_size, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (address == MAP_FAILED) return fail_errno(path.string(), errno);
  fd.reset();
  return std::span(static_cast<const std::byte*>(address), file_size);
}

namespace {

// nullopt: another type, or out of T's range.
template <typename T>
std::optional<T> to_integer(const Value& value) {
  if (const auto* i = std::get_if<std::int64_t>(&value); i && std::in_range<T>(*i))
    return static_cast<T>(*i);
  return std::nullopt;
}

std::optional<float> to_float(double value) {
  const auto narrow = static_cast<float>(value);
  return std::isfinite(narrow) ? std::optional(narrow) : std::nullopt;
}

std::optional<float> to_float(const Value& value) {
  if (const auto* f = std::get_if<double>(&value)) return to_float(*f);
  if (const auto* i = std::get_if<std::int64_t>(&value)) return static_cast<float>(*i);
  if (const auto* u = std::get_if<std::uint64_t>(&value)) return static_cast<float>(*u);
  return std::nullopt;
}

std::optional<std::string_view> to_string(const Value& value) {
  const auto* text = std::get_if<std::string>(&value);
  return text ? std::optional<std::string_view>(*text) : std::nullopt;
}

std::optional<bool> to_bool(const Value& value) {
  const auto* flag = std::get_if<bool>(&value);
  return flag ? std::optional(*flag) : std::nullopt;
}

template <typename T>
const std::vector<T>* array_of(const Value& value) {
  const auto* array = std::get_if<Array>(&value);
  return array ? std::get_if<std::vector<T>>(array) : nullptr;
}

void warn_type(std::string_view key, std::string_view expected) {
  log::warn("ignoring metadata key {}: expected {}", printable(key), expected);
}

// A typed read that treats a wrong type as missing.
template <typename Convert>
auto read(const File& file, std::string_view key, std::string_view expected, Convert convert)
    -> decltype(convert(std::declval<const Value&>())) {
  const Value* value = file.find(key);
  if (!value) return std::nullopt;
  auto converted = convert(*value);
  if (!converted) warn_type(key, expected);
  return converted;
}

std::string full_key(const File& file, std::string_view key) {
  if (!key.starts_with('.')) return std::string(key);
  return std::string(file.architecture()).append(key);
}

template <typename Convert>
auto require(const File& file, std::string_view key, std::string_view expected, Convert convert)
    -> Result<typename decltype(convert(std::declval<const Value&>()))::value_type> {
  const Value* value = file.find(key);
  if (!value) return fail(ErrorCode::kCorrupt, "missing key {}", printable(full_key(file, key)));
  auto converted = convert(*value);
  if (!converted)
    return fail(ErrorCode::kCorrupt, "{}: expected {}", printable(full_key(file, key)), expected);
  return *converted;
}

constexpr std::string_view kU32 = "a whole number from 0 to 4294967295";
constexpr std::string_view kF32 = "a finite number";

Result<UniqueFd> open_regular(const std::filesystem::path& path, std::uint64_t& size) {
  // Non-blocking: a FIFO under the name of a model must not hang us.
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return fail_errno(path.string(), errno);
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) return fail_errno(path.string(), errno);
  if (!S_ISREG(status.st_mode))
    return fail(ErrorCode::kInvalidArgument, "{}: not a regular file", path.string());
  size = static_cast<std::uint64_t>(status.st_size);
  return fd;
}

Result<Header> read_header(int fd, std::uint64_t size) {
  try {
    OLLAMA_ASSIGN(Header header, parse_header(fd, size));
    OLLAMA_TRY(translate_dialect(header));
    return header;
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kOutOfMemory, "no memory for the metadata");
  }
}

}  // namespace

File::File(std::unique_ptr<State> state) : state_(std::move(state)) {}
File::File(File&&) noexcept = default;
File& File::operator=(File&&) noexcept = default;
File::~File() = default;

Result<File> File::open(const std::filesystem::path& path) {
  auto state = std::make_unique<State>();
  state->path = path;
  OLLAMA_ASSIGN(state->fd, open_regular(path, state->file_size));
  auto header = read_header(state->fd.get(), state->file_size);
  if (!header) return std::unexpected(header.error().with_context(path.string()));
  state->header = std::move(*header);

  const auto architecture = state->header.metadata.find("general.architecture");
  if (architecture != state->header.metadata.end()) {
    const auto name = to_string(architecture->second);
    if (!name)
      return fail(ErrorCode::kCorrupt, "{}: general.architecture: expected a string",
                  path.string());
    state->architecture = *name;
  }
  for (std::size_t i = 0; i < state->header.tensors.size(); ++i)
    state->tensor_index.emplace(state->header.tensors[i].name, i);
  return File(std::move(state));
}

const std::filesystem::path& File::path() const { return state_->path; }
std::uint64_t File::file_size() const { return state_->file_size; }
std::uint32_t File::version() const { return state_->header.version; }
std::string_view File::architecture() const { return state_->architecture; }
const Metadata& File::metadata() const { return state_->header.metadata; }

const Value* File::find(std::string_view key) const {
  const Metadata& metadata = state_->header.metadata;
  const auto found =
      key.starts_with('.') ? metadata.find(full_key(*this, key)) : metadata.find(key);
  return found == metadata.end() ? nullptr : &found->second;
}

std::optional<ValueType> File::value_type(std::string_view key) const {
  const auto found = state_->header.types.find(full_key(*this, key));
  return found == state_->header.types.end() ? std::nullopt : std::optional(found->second);
}

std::optional<std::uint32_t> File::u32(std::string_view key) const {
  return read(*this, key, kU32, to_integer<std::uint32_t>);
}

std::optional<std::int64_t> File::i64(std::string_view key) const {
  return read(*this, key, "a whole number", to_integer<std::int64_t>);
}

std::optional<float> File::f32(std::string_view key) const {
  return read(*this, key, kF32, [](const Value& value) { return to_float(value); });
}

std::optional<bool> File::boolean(std::string_view key) const {
  return read(*this, key, "true or false", to_bool);
}

std::optional<std::string_view> File::string(std::string_view key) const {
  return read(*this, key, "a string", to_string);
}

std::span<const std::string> File::strings(std::string_view key) const {
  const Value* value = find(key);
  if (!value) return {};
  if (const auto* array = array_of<std::string>(*value)) return *array;
  warn_type(key, "an array of strings");
  return {};
}

std::vector<std::int32_t> File::i32s(std::string_view key) const {
  const Value* value = find(key);
  if (!value) return {};
  if (const auto scalar = to_integer<std::int32_t>(*value)) return {*scalar};
  std::vector<std::int32_t> out;
  if (const auto* array = array_of<std::int64_t>(*value)) {
    if (std::ranges::all_of(*array, [](auto i) { return std::in_range<std::int32_t>(i); })) {
      out.reserve(array->size());
      for (const std::int64_t i : *array) out.push_back(static_cast<std::int32_t>(i));
      return out;
    }
  }
  warn_type(key, "an array of whole numbers within 32 bits");
  return {};
}

std::vector<float> File::f32s(std::string_view key) const {
  const Value* value = find(key);
  if (!value) return {};
  if (const auto scalar = to_float(*value)) return {*scalar};
  std::vector<float> out;
  const auto copy = [&out](const auto& array) {
    out.reserve(array.size());
    for (const auto element : array) out.push_back(static_cast<float>(element));
  };
  if (const auto* array = array_of<double>(*value)) {
    copy(*array);
  } else if (const auto* integers = array_of<std::int64_t>(*value)) {
    copy(*integers);
  } else {
    warn_type(key, "an array of numbers");
  }
  return out;
}

std::vector<bool> File::bools(std::string_view key) const {
  const Value* value = find(key);
  if (!value) return {};
  if (const auto scalar = to_bool(*value)) return {*scalar};
  if (const auto* array = array_of<bool>(*value)) return *array;
  warn_type(key, "an array of true or false");
  return {};
}

Result<std::uint32_t> File::require_u32(std::string_view key) const {
  return require(*this, key, kU32, to_integer<std::uint32_t>);
}

Result<float> File::require_f32(std::string_view key) const {
  return require(*this, key, kF32, [](const Value& value) { return to_float(value); });
}

Result<std::string_view> File::require_string(std::string_view key) const {
  return require(*this, key, "a string", to_string);
}

std::span<const TensorInfo> File::tensors() const { return state_->header.tensors; }

const TensorInfo* File::find_tensor(std::string_view name) const {
  const auto found = state_->tensor_index.find(name);
  return found == state_->tensor_index.end() ? nullptr : &state_->header.tensors[found->second];
}

std::uint64_t File::parameter_count() const {
  std::uint64_t count = 0;
  for (const TensorInfo& tensor : tensors()) count += tensor.elements();
  return count;
}

Result<std::span<const std::byte>> File::mapping() const {
  const State& state = *state_;
  std::call_once(state.map_once, [&state] { state.mapped = state.map(); });
  return state.mapped;
}

Result<std::span<const std::byte>> File::data(const TensorInfo& tensor) const {
  OLLAMA_ASSIGN(const auto bytes, mapping());
  return bytes.subspan(tensor.offset, tensor.size);
}

std::optional<std::uint32_t> layer_of(std::string_view tensor_name) {
  constexpr std::string_view kPrefix = "blk.";
  if (!tensor_name.starts_with(kPrefix)) return std::nullopt;
  tensor_name.remove_prefix(kPrefix.size());
  return parse_number<std::uint32_t>(tensor_name.substr(0, tensor_name.find('.')));
}

bool belongs_to_output(std::string_view tensor_name) {
  return tensor_name.starts_with("output.") || tensor_name.starts_with("output_norm.") ||
         tensor_name.starts_with("cls.");
}

bool ranks_texts(const File& file) {
  constexpr std::int64_t kRank = 4;  // llama.cpp's number
  if (file.find(".pooling_type") != nullptr) return file.i64(".pooling_type") == kRank;
  return file.architecture() == "bert" && (file.find_tensor("cls.weight") != nullptr ||
                                           file.find_tensor("cls.output.weight") != nullptr);
}

const TensorInfo* output_table(const File& file) {
  const TensorInfo* table = file.find_tensor("token_embd.weight");
  const bool serves = table != nullptr && table->n_dims == 2 &&
                      file.find_tensor("output.weight") == nullptr &&
                      !file.architecture().contains("bert");
  return serves ? table : nullptr;
}

std::string file_type_name(const File& file) {
  // Indexed by general.file_type, llama.cpp's numbering; 4 is Ollama's own.
  static constexpr std::array<std::string_view, 39> kNames = {
      "F32",    "F16",    "Q4_0",  "Q4_1",    "MXFP4",  "",       "",       "Q8_0",
      "Q5_0",   "Q5_1",   "Q2_K",  "Q3_K_S",  "Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M",
      "Q5_K_S", "Q5_K_M", "Q6_K",  "IQ2_XXS", "IQ2_XS", "Q2_K_S", "IQ3_XS", "IQ3_XXS",
      "IQ1_S",  "IQ4_NL", "IQ3_S", "IQ3_M",   "IQ2_S",  "IQ2_M",  "IQ4_XS", "IQ1_M",
      "BF16",   "",       "",      "",        "TQ1_0",  "TQ2_0",  "MXFP4"};
  constexpr std::uint32_t kGuessed = 1024;  // set by llama.cpp where it inferred the type
  if (const auto type = file.u32("general.file_type")) {
    const std::uint32_t index = *type & ~kGuessed;
    if (index < kNames.size() && !kNames[index].empty()) return std::string(kNames[index]);
  }
  std::map<ggml_type, std::uint64_t> elements;
  for (const TensorInfo& tensor : file.tensors()) elements[tensor.type] += tensor.elements();
  const auto most = std::ranges::max_element(elements, {}, [](const auto& e) { return e.second; });
  if (most == elements.end()) return "unknown";
  std::string name = ggml_type_name(most->first);
  std::ranges::transform(name, name.begin(), [](char c) {
    return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  });
  return name;
}

}  // namespace ollama::gguf
