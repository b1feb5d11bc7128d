#include "convert/safetensors.h"

#include <algorithm>
#include <array>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <optional>

#include "api/types.h"
#include "convert/source.h"
#include "gguf/parse.h"

namespace ollama::convert {
namespace {

constexpr std::size_t kMaxRank = 8;

struct DtypeSize {
  std::string_view name;
  std::uint64_t bytes;
};
constexpr std::array<DtypeSize, 15> kDtypes{{{"BOOL", 1},
                                             {"U8", 1},
                                             {"I8", 1},
                                             {"F8_E4M3", 1},
                                             {"F8_E5M2", 1},
                                             {"F8_E8M0", 1},
                                             {"U16", 2},
                                             {"I16", 2},
                                             {"F16", 2},
                                             {"BF16", 2},
                                             {"U32", 4},
                                             {"I32", 4},
                                             {"F32", 4},
                                             {"I64", 8},
                                             {"F64", 8}}};

std::unexpected<Error> bad_tensor(std::string_view tensor, std::string_view why) {
  return fail(ErrorCode::kCorrupt, "tensor {}: {}", gguf::printable(tensor), why);
}

Result<std::vector<std::int64_t>> read_integers(const api::JsonObject& entry, std::string_view key,
                                                std::string_view tensor) {
  const auto* array = array_member(entry, key);
  if (array == nullptr || array->size() > kMaxRank) {
    return bad_tensor(tensor, std::format("{} must be a short list", key));
  }
  std::vector<std::int64_t> values;
  for (const api::Json& value : *array) {
    const auto* number = value.if_int64();
    if (number == nullptr || *number < 0) {
      return bad_tensor(tensor, std::format("{} must hold integers from 0", key));
    }
    values.push_back(*number);
  }
  return values;
}

// Bytes by type and shape; nullopt for a type without a known size.
Result<std::optional<std::uint64_t>> size_of(const StoredTensor& tensor) {
  const auto* const known = std::ranges::find(kDtypes, tensor.dtype, &DtypeSize::name);
  if (known == kDtypes.end()) return std::nullopt;
  std::uint64_t size = known->bytes;
  for (const std::int64_t length : tensor.shape) {
    if (__builtin_mul_overflow(size, static_cast<std::uint64_t>(length), &size)) {
      return bad_tensor(tensor.name, "its shape is too large");
    }
  }
  return size;
}

Result<StoredTensor> read_tensor(std::string_view name, const api::JsonObject& entry,
                                 std::uint64_t data_start, std::uint64_t data_size) {
  StoredTensor tensor;
  tensor.name = name;
  const auto dtype = string_member(entry, "dtype");
  if (!dtype) return bad_tensor(name, "it has no dtype");
  tensor.dtype = *dtype;
  OLLAMA_ASSIGN(tensor.shape, read_integers(entry, "shape", name));
  OLLAMA_ASSIGN(const auto offsets, read_integers(entry, "data_offsets", name));
  if (offsets.size() != 2 || offsets[0] > offsets[1]) {
    return bad_tensor(name, "data_offsets must be its begin and end");
  }
  const auto begin = static_cast<std::uint64_t>(offsets[0]);
  const auto end = static_cast<std::uint64_t>(offsets[1]);
  if (end > data_size) {
    return bad_tensor(
        name, std::format("its data ends at {}, beyond the {} bytes of the file", end, data_size));
  }
  tensor.offset = data_start + begin;
  tensor.size = end - begin;
  OLLAMA_ASSIGN(const auto size, size_of(tensor));
  if (size && *size != tensor.size) {
    return bad_tensor(
        name, std::format("it has {} bytes, its type and shape need {}", tensor.size, *size));
  }
  return tensor;
}

Result<> check_overlaps(const std::vector<StoredTensor>& tensors) {
  std::vector<const StoredTensor*> sorted;
  for (const StoredTensor& tensor : tensors) {
    if (tensor.size > 0) sorted.push_back(&tensor);
  }
  std::ranges::sort(sorted, {}, &StoredTensor::offset);
  for (std::size_t i = 1; i < sorted.size(); ++i) {
    if (sorted[i - 1]->offset + sorted[i - 1]->size > sorted[i]->offset) {
      return bad_tensor(sorted[i]->name, std::format("its data overlaps that of {}",
                                                     gguf::printable(sorted[i - 1]->name)));
    }
  }
  return {};
}

}  // namespace

Result<std::uint64_t> safetensors_header_size(std::string_view prefix, std::uint64_t file_size) {
  if (prefix.size() < kSafetensorsPrefix || file_size < kSafetensorsPrefix) {
    return fail(ErrorCode::kCorrupt, "too short for a safetensors file");
  }
  std::uint64_t size = 0;
  for (std::size_t i = kSafetensorsPrefix; i-- > 0;) {
    size = size << 8 | static_cast<unsigned char>(prefix[i]);
  }
  if (size > kMaxSafetensorsHeader || size > file_size - kSafetensorsPrefix) {
    return fail(ErrorCode::kCorrupt,
                "its header claims to have {} bytes: no safetensors file, or "
                "one that is cut off",
                size);
  }
  return size;
}

Result<std::vector<StoredTensor>> parse_safetensors(std::string_view json,
                                                    std::uint64_t file_size) {
  const std::uint64_t data_start = kSafetensorsPrefix + json.size();
  if (data_start > file_size) return fail(ErrorCode::kCorrupt, "the header is cut off");
  const auto parsed = api::parse_json(json);
  if (!parsed) return fail(ErrorCode::kCorrupt, "the header is {}", parsed.error().message());
  const auto* entries = parsed->if_object();
  if (entries == nullptr) return fail(ErrorCode::kCorrupt, "the header is no JSON object");
  std::vector<StoredTensor> tensors;
  for (const auto& [key, value] : *entries) {
    if (key == "__metadata__") continue;
    const auto* entry = value.if_object();
    if (entry == nullptr) return bad_tensor(key, "expected an object");
    OLLAMA_ASSIGN(auto tensor, read_tensor(key, *entry, data_start, file_size - data_start));
    tensors.push_back(std::move(tensor));
  }
  OLLAMA_TRY(check_overlaps(tensors));
  return tensors;
}

}  // namespace ollama::convert
