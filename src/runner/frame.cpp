#include "runner/frame.h"

#include <sys/socket.h>

#include <cerrno>

namespace ollama::runner {

namespace {
constexpr std::size_t kHeader = 4;
constexpr std::size_t kRead = 64 * 1024;
}  // namespace

std::string make_frame(std::string_view payload) {
  const auto size = static_cast<std::uint32_t>(payload.size());
  std::string frame;
  frame.reserve(kHeader + payload.size());
  for (std::size_t i = 0; i < kHeader; ++i) {
    frame.push_back(static_cast<char>(static_cast<unsigned char>(size >> (8 * i))));
  }
  frame += payload;
  return frame;
}

bool send_all(int socket, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
  return true;
}

std::span<char> FrameReader::prepare() {
  if (begin_ == end_) {
    begin_ = end_ = 0;
    // A very long message should not keep its memory for ever.
    if (buffer_.size() > 16 * kRead) {
      buffer_.clear();
      buffer_.shrink_to_fit();
    }
  } else if (begin_ > 0 && buffer_.size() - end_ < kRead) {
    buffer_.erase(0, begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  if (buffer_.size() - end_ < kRead) buffer_.resize(std::max(end_ + kRead, buffer_.size()));
  return {buffer_.data() + end_, buffer_.size() - end_};
}

void FrameReader::commit(std::size_t bytes) { end_ += bytes; }

Result<std::optional<std::string_view>> FrameReader::next() {
  if (end_ - begin_ < kHeader) return std::nullopt;
  std::uint32_t size = 0;
  for (std::size_t i = 0; i < kHeader; ++i) {
    size |= static_cast<std::uint32_t>(static_cast<unsigned char>(buffer_[begin_ + i])) << (8 * i);
  }
  if (size > max_frame_) {
    return fail(ErrorCode::kCorrupt, "a message of {} bytes is beyond the limit of {}", size,
                max_frame_);
  }
  if (end_ - begin_ - kHeader < size) return std::nullopt;
  const std::string_view payload(buffer_.data() + begin_ + kHeader, size);
  begin_ += kHeader + size;
  return payload;
}

}  // namespace ollama::runner
