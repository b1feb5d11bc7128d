#include "runner/outbox.h"

#include <utility>

#include "runner/frame.h"

namespace ollama::runner {
namespace {

// Of encoded messages that are written at once.
constexpr std::size_t kWrite = 256ULL << 10;

std::size_t bytes_of(const Piece& piece) {
  std::size_t bytes = piece.text.size() + piece.thinking.size();
  for (const api::ToolCall& call : piece.calls) {
    bytes += call.name.size() + api::to_string(call.arguments).size();
  }
  for (const api::Logprob& logprob : piece.logprobs) {
    bytes += (logprob.top.size() + 1) * sizeof(api::Logprob);
  }
  return bytes;
}
std::size_t bytes_of(const Done& done) { return done.context.size() * sizeof(Token); }
std::size_t bytes_of(const Embedded& embedded) { return embedded.values.size() * sizeof(float); }
std::size_t bytes_of(const Tokens& tokens) { return tokens.tokens.size() * sizeof(Token); }
std::size_t bytes_of(const Text& text) { return text.text.size(); }
template <typename Message>
std::size_t bytes_of(const Message& /*message*/) {
  return 0;
}

// About what a message takes while it waits.
std::size_t size_of(const FromRunner& message) {
  return sizeof(FromRunner) +
         std::visit([](const auto& value) { return bytes_of(value); }, message);
}

}  // namespace

Outbox::Outbox(int fd, std::size_t max_unsent)
    : fd_(fd), max_unsent_(max_unsent), thread_([this] { run(); }) {}

Outbox::~Outbox() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

bool Outbox::send(FromRunner message, bool must) {
  const std::size_t bytes = size_of(message);
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    if (broken_) return false;
    if (!must && waiting_bytes_ > max_unsent_) return false;
    first = waiting_.empty();
    waiting_.push_back(std::move(message));
    waiting_bytes_ += bytes;
  }
  // Others find the thread awake, or about to be.
  if (first) wake_.notify_one();
  return true;
}

void Outbox::run() {
  std::vector<FromRunner> writing;
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return closing_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    writing.swap(waiting_);
    waiting_bytes_ = 0;
    lock.unlock();
    const bool good = write(writing);
    writing.clear();
    lock.lock();
    if (!good) {
      broken_ = true;
      waiting_.clear();
    }
  }
}

bool Outbox::write(std::span<const FromRunner> messages) {
  bytes_.clear();
  for (const FromRunner& message : messages) {
    bytes_ += encode(message);
    if (bytes_.size() < kWrite) continue;
    if (!send_all(fd_, bytes_)) return false;
    bytes_.clear();
  }
  return send_all(fd_, bytes_);
}

}  // namespace ollama::runner
