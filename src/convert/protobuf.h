// Internal to convert: reads the wire format of protocol buffers, field by field, from bytes nobody
// vouches for. Nothing is allocated and every length is checked against what is left.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace ollama::convert {

class ProtobufReader {
 public:
  struct Field {
    std::uint32_t number = 0;
    std::uint64_t integer = 0;  // of varints and fixed ones
    std::string_view bytes;     // of strings and messages; of fixed ones theirs
    bool is_bytes = false;

    float as_float() const;  // of a fixed 32-bit one; 0 otherwise
  };

  explicit ProtobufReader(std::string_view data) : rest_(data) {}

  // The next field; nullopt at the end, or where the data is broken.
  std::optional<Field> next();
  // Whether a field was broken: cut off, overlong, or of a kind that is not used any more.
  bool failed() const { return failed_; }

 private:
  std::optional<std::uint64_t> varint();
  std::optional<std::string_view> take(std::uint64_t size);
  bool read_value(unsigned kind, Field& field);

  std::string_view rest_;
  bool failed_ = false;
};

}  // namespace ollama::convert
