// Errors and results. Every call that can fail across a module boundary returns Result<T>;
// exceptions do not cross modules. Errors on hot paths are constants: returning one neither formats
// nor allocates.
#pragma once

#include <cstdint>
#include <expected>
#include <format>
#include <string>
#include <string_view>
#include <utility>

namespace ollama {

enum class ErrorCode : std::uint8_t {
  kInvalidArgument,  // the caller's input is wrong; the message says what to do
  kNotFound,         // a name, file, tensor or key does not exist
  kAlreadyExists,
  kCorrupt,      // a file or message breaks its format
  kUnsupported,  // understood, but this program or device cannot do it
  kOutOfMemory,  // host or device memory, or cells of a cache
  kNoRoom,       // not enough memory now, but others could give some back
  kUnavailable,  // busy, shutting down, or a peer that is gone
  kTimeout,
  kCancelled,
  kPermission,
  kIo,        // the system refused: errno's text is in the message
  kInternal,  // a bug of ours
};

std::string_view error_code_name(ErrorCode code);

// A predefined error: a code and a string literal. Declare as `inline constexpr`.
struct ErrorConstant {
  ErrorCode code;
  std::string_view message;
};

class [[nodiscard]] Error {
 public:
  // Not explicit: `return kCacheFull;` from a Result<T> function needs std::unexpected only.
  Error(const ErrorConstant& constant)  // NOLINT(google-explicit-constructor)
      : code_(constant.code), constant_(constant.message) {}
  Error(ErrorCode code, std::string message) : code_(code), owned_(std::move(message)) {}

  ErrorCode code() const { return code_; }
  std::string_view message() const { return owned_.empty() ? constant_ : std::string_view(owned_); }

  // The same error with "context: " before its message.
  Error with_context(std::string_view context) const {
    return {code_, std::format("{}: {}", context, message())};
  }

 private:
  ErrorCode code_;
  std::string_view constant_;
  std::string owned_;
};

template <typename T = void>
using Result = std::expected<T, Error>;

// fail(ErrorCode::kNotFound, "model '{}' not found", name)
template <typename... Args>
std::unexpected<Error> fail(ErrorCode code, std::format_string<Args...> format, Args&&... args) {
  return std::unexpected(Error(code, std::format(format, std::forward<Args>(args)...)));
}
inline std::unexpected<Error> fail(const ErrorConstant& constant) {
  return std::unexpected(Error(constant));
}
// The error of a failed Result of any type, for passing on.
template <typename T>
std::unexpected<Error> fail(Result<T>&& result) {
  return std::unexpected(std::move(result).error());
}
template <typename T>
std::unexpected<Error> fail(const Result<T>& result) {
  return std::unexpected(result.error());
}
// errno as an error: "what: No such file or directory", with the code that fits it.
std::unexpected<Error> fail_errno(std::string_view what, int error_number);

}  // namespace ollama

// Evaluates a Result<T> expression; returns its error from the enclosing function or goes on.
#define OLLAMA_TRY(expression)                                     \
  do {                                                             \
    if (auto ollama_try_result = (expression); !ollama_try_result) \
      return ::ollama::fail(std::move(ollama_try_result));         \
  } while (false)

#define OLLAMA_CONCAT_INNER(a, b) a##b
#define OLLAMA_CONCAT(a, b) OLLAMA_CONCAT_INNER(a, b)
// OLLAMA_ASSIGN(auto file, File::open(path)); declares or assigns the value, or returns the error.
#define OLLAMA_ASSIGN(target, ...)                                             \
  auto OLLAMA_CONCAT(ollama_result_, __LINE__) = (__VA_ARGS__);                \
  if (!OLLAMA_CONCAT(ollama_result_, __LINE__))                                \
    return ::ollama::fail(std::move(OLLAMA_CONCAT(ollama_result_, __LINE__))); \
  target = std::move(*OLLAMA_CONCAT(ollama_result_, __LINE__))
