#include "convert/protobuf.h"

#include <bit>

namespace ollama::convert {
namespace {

constexpr unsigned kWireVarint = 0, kWire64 = 1, kWireBytes = 2, kWire32 = 5;
constexpr std::uint64_t kMaxNumber = (1U << 29) - 1;

std::uint64_t little_endian(std::string_view bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = bytes.size(); i-- > 0;) {
    value = value << 8 | static_cast<unsigned char>(bytes[i]);
  }
  return value;
}

}  // namespace

float ProtobufReader::Field::as_float() const {
  return !is_bytes && bytes.size() == sizeof(float)
             ? std::bit_cast<float>(static_cast<std::uint32_t>(integer))
             : 0.0F;
}

std::optional<std::uint64_t> ProtobufReader::varint() {
  std::uint64_t value = 0;
  for (unsigned shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(rest_.front());
    rest_.remove_prefix(1);
    value |= static_cast<std::uint64_t>(byte & 0x7FU) << shift;
    if (byte < 0x80) return value;
  }
  return std::nullopt;
}

std::optional<std::string_view> ProtobufReader::take(std::uint64_t size) {
  if (size > rest_.size()) return std::nullopt;
  const std::string_view taken = rest_.substr(0, size);
  rest_.remove_prefix(size);
  return taken;
}

bool ProtobufReader::read_value(unsigned kind, Field& field) {
  if (kind == kWireVarint) {
    const auto value = varint();
    field.integer = value.value_or(0);
    return value.has_value();
  }
  std::optional<std::uint64_t> size;
  if (kind == kWire64) size = 8;
  if (kind == kWire32) size = 4;
  if (kind == kWireBytes) size = varint();
  const auto bytes = size ? take(*size) : std::nullopt;
  if (!bytes) return false;
  field.bytes = *bytes;
  field.is_bytes = kind == kWireBytes;
  if (!field.is_bytes) field.integer = little_endian(*bytes);
  return true;
}

std::optional<ProtobufReader::Field> ProtobufReader::next() {
  if (failed_ || rest_.empty()) return std::nullopt;
  const auto key = varint();
  Field field;
  if (!key || *key >> 3 == 0 || *key >> 3 > kMaxNumber ||
      !read_value(static_cast<unsigned>(*key & 7), field)) {
    failed_ = true;
    return std::nullopt;
  }
  field.number = static_cast<std::uint32_t>(*key >> 3);
  return field;
}

}  // namespace ollama::convert
