#include "runner/conversion.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <csignal>

#include "runner/error_log.h"
#include "runner/frame.h"
#include "runner/protocol.h"

namespace ollama::runner {
namespace {

constexpr int kAskEveryMs = 100;              // whether it is cancelled
constexpr std::size_t kMaxReply = 64 * 1024;  // progress, or an error's text
constexpr int kPatience = 50;                 // for its end, in tenths of a second

Convert message_of(const store::Conversion& conversion) {
  Convert message;
  for (const store::SourceFile& file : conversion.checkpoint) {
    message.checkpoint.push_back({.name = file.name, .path = file.path.string()});
  }
  message.model = conversion.model.string();
  message.mix = conversion.mix;
  message.output = conversion.output.string();
  return message;
}

// One conversion and the process that does it.
class Session {
 public:
  explicit Session(Process process)
      : process_(std::move(process)), log_("converter", process_.pid()) {}

  Result<> run(const store::Conversion& conversion, const store::ConversionProgress& progress) {
    OLLAMA_TRY(send(encode(ToConverter(message_of(conversion)))));
    Converting last;
    while (true) {
      OLLAMA_TRY(wait());
      while (true) {
        OLLAMA_ASSIGN(const auto payload, reader_.next());
        if (!payload) break;
        OLLAMA_ASSIGN(auto message, decode_from_converter(*payload));
        if (std::holds_alternative<Converted>(message)) return {};
        if (auto* failed = std::get_if<ConvertFailed>(&message)) {
          return std::unexpected(Error(failed->code, std::move(failed->message)));
        }
        last = std::get<Converting>(message);
      }
      if (progress && !progress(last.done, last.total)) {
        return fail(ErrorCode::kCancelled, "cancelled");
      }
    }
  }

 private:
  Result<> send(std::string_view bytes) {
    if (!send_all(process_.socket().get(), bytes)) return std::unexpected(died());
    return {};
  }

  // Until the process says something, or a tenth of a second.
  Result<> wait() {
    std::array<pollfd, 2> waiting{
        {{.fd = process_.socket().get(), .events = POLLIN, .revents = 0},
         {.fd = process_.errors().get(), .events = POLLIN, .revents = 0}}};
    if (::poll(waiting.data(), waiting.size(), kAskEveryMs) <= 0) return {};
    if (waiting[1].revents != 0 && !read_errors()) process_.errors().reset();
    if (waiting[0].revents == 0) return {};
    const auto room = reader_.prepare();
    const ssize_t received = ::recv(process_.socket().get(), room.data(), room.size(), 0);
    if (received < 0 && errno == EINTR) return {};
    if (received <= 0) return std::unexpected(died());
    reader_.commit(static_cast<std::size_t>(received));
    return {};
  }

  // False at the end of what it writes to standard error.
  bool read_errors() {
    std::array<char, 4096> buffer;
    const ssize_t bytes = ::read(process_.errors().get(), buffer.data(), buffer.size());
    if (bytes > 0) log_.add({buffer.data(), static_cast<std::size_t>(bytes)});
    return bytes > 0 || (bytes < 0 && errno == EINTR);
  }

  // It closed its socket: how it ended, and what it said last.
  Error died() {
    std::string how = "it closed its socket";
    for (int i = 0; i < kPatience; ++i) {
      std::array<pollfd, 2> waiting{
          {{.fd = process_.pidfd().get(), .events = POLLIN, .revents = 0},
           {.fd = process_.errors().get(), .events = POLLIN, .revents = 0}}};
      ::poll(waiting.data(), waiting.size(), kAskEveryMs);
      if (waiting[1].revents != 0 && !read_errors()) process_.errors().reset();
      if (waiting[0].revents == 0) continue;
      if (const auto status = process_.try_wait()) how = status->describe();
      if (waiting[1].revents == 0) break;
    }
    log_.flush();
    return {ErrorCode::kUnavailable,
            std::format("the process that converts the model ended unexpectedly ({}){}{}", how,
                        log_.last().empty() ? "" : "; it said last: ", log_.last())};
  }

  Process process_;
  ErrorLog log_;
  FrameReader reader_{kMaxReply};
};

}  // namespace

Command conversion_command() {
  Command command = runner_command();
  command.arguments = {"ollama", "convert", "--fd", std::to_string(kChildSocket)};
  return command;
}

ProcessConverter::ProcessConverter(Command command) : command_(std::move(command)) {}

Result<> ProcessConverter::convert(const store::Conversion& conversion,
                                   const store::ConversionProgress& progress) {
  OLLAMA_ASSIGN(Process process, Process::start(command_));
  return Session(std::move(process)).run(conversion, progress);
}

}  // namespace ollama::runner
