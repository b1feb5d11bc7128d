// Messages on a byte stream: four bytes of length, least significant first, then that many bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"

namespace ollama::runner {

// The longest payload: a request body of the largest size the server takes, escaped and then some.
inline constexpr std::size_t kMaxFrame = 512ULL << 20;

// The payload with its length before it. Payloads longer than kMaxFrame are a bug of the caller.
std::string make_frame(std::string_view payload);

// Sends all of it, however long that takes. False: nobody is there to read it.
bool send_all(int socket, std::string_view bytes);

// Collects bytes as they come and gives out whole payloads. Memory grows with what has arrived, not
// with what a length claims.
class FrameReader {
 public:
  explicit FrameReader(std::size_t max_frame = kMaxFrame) : max_frame_(max_frame) {}

  // Room for the next read; commit(n) says how many bytes were read into it.
  std::span<char> prepare();
  void commit(std::size_t bytes);

  // The next whole payload, valid until the next call of any kind; nullopt when more bytes are
  // needed. kCorrupt when a length is beyond the limit: the stream cannot be followed any further.
  Result<std::optional<std::string_view>> next();

  // Whether the stream ended inside a frame.
  bool partial() const { return end_ != begin_; }

 private:
  std::size_t max_frame_;
  std::string buffer_;
  std::size_t begin_ = 0;  // of what was not given out yet
  std::size_t end_ = 0;    // of what has arrived
};

}  // namespace ollama::runner
