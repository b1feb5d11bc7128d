// The process that converts.
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <exception>

#include "base/log.h"
#include "base/unique_fd.h"
#include "convert/convert.h"
#include "convert/quantise.h"
#include "ml/thread_count.h"
#include "runner/conversion.h"
#include "runner/frame.h"
#include "runner/protocol.h"

namespace ollama::runner {
namespace {

// The one message that comes; nullopt when the server closes first.
Result<std::optional<Convert>> receive(int socket) {
  FrameReader reader;
  while (true) {
    OLLAMA_ASSIGN(const auto payload, reader.next());
    if (payload) {
      OLLAMA_ASSIGN(auto message, decode_to_converter(*payload));
      return std::get<Convert>(std::move(message));
    }
    const auto room = reader.prepare();
    const ssize_t received = ::recv(socket, room.data(), room.size(), 0);
    if (received < 0 && errno == EINTR) continue;
    if (received <= 0) return std::nullopt;
    reader.commit(static_cast<std::size_t>(received));
  }
}

bool send(int socket, const FromConverter& message) { return send_all(socket, encode(message)); }

// Not more often than people can read.
convert::Progress calmed(const convert::Progress& progress) {
  using Clock = std::chrono::steady_clock;
  return [&progress, next = Clock::time_point()](std::uint64_t done, std::uint64_t total) mutable {
    const auto now = Clock::now();
    if (now < next && done < total) return true;
    next = now + std::chrono::milliseconds(100);
    return progress(done, total);
  };
}

Result<> do_work(const Convert& work, const convert::Progress& progress) {
  if (!work.checkpoint.empty()) {
    std::vector<convert::NamedFile> files;
    for (const ConvertFile& file : work.checkpoint) files.emplace_back(file.name, file.path);
    return convert::to_gguf(files, work.output, calmed(progress));
  }
  const gguf::QuantMix* mix = gguf::find_quant_mix(work.mix);
  if (mix == nullptr) return fail(ErrorCode::kInternal, "there is no mix '{}'", work.mix);
  OLLAMA_ASSIGN(const gguf::File source, gguf::File::open(work.model));
  return convert::quantise(source, *mix, work.output, ml::CpuTopology::read().usable(), progress);
}

Result<> do_work_caught(const Convert& work, const convert::Progress& progress) {
  try {
    return do_work(work, progress);
  } catch (const std::exception& error) {  // memory has run out, most likely
    return fail(ErrorCode::kOutOfMemory, "converting the model: {}", error.what());
  }
}

}  // namespace

int serve_conversion(int fd) {
  const UniqueFd socket(fd);
  const auto work = receive(fd);
  if (!work) {
    log::error("{}", work.error().message());
    return 1;
  }
  if (!*work) return 0;
  const auto result = do_work_caught(**work, [fd](std::uint64_t done, std::uint64_t total) {
    return send(fd, Converting{.done = done, .total = total});
  });
  if (result) {
    send(fd, Converted{});
  } else {
    send(fd, ConvertFailed{.code = result.error().code(),
                           .message = std::string(result.error().message())});
  }
  return 0;
}

int run_conversion(int fd) {
  // The server starts this from a thread that lives as long as itself (see run_child).
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // a file that may not grow any more is an error like a full disk
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  return serve_conversion(fd);
}

}  // namespace ollama::runner
