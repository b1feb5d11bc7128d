#include "runner/local.h"

#include <poll.h>
#include <sys/socket.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "runner/frame.h"

namespace ollama::runner {
namespace {

constexpr int kPatienceMs = 60'000;  // drivers that compile their kernels first take their time

}  // namespace

struct LocalRunner::State {
  explicit State(Process started) : process(std::move(started)) {}
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    process = Process::none();
    if (error_thread.joinable()) error_thread.join();
  }

  Process process;
  UniqueFd errors;  // outlives the process: its thread reads it
  FrameReader reader;
  engine::ModelInfo info;
  Id last_id = 0;
  std::mutex mutex;
  std::string last_line;  // of standard error
  bool errors_ended = false;
  std::condition_variable errors_end;
  std::thread error_thread;

  // Standard error goes on to ours; the last line is kept.
  void forward_errors() {
    errors = std::move(process.errors());
    error_thread = std::thread([this] {
      std::string line;
      std::array<char, 4096> buffer;
      while (true) {
        const ssize_t bytes = ::read(errors.get(), buffer.data(), buffer.size());
        if (bytes < 0 && errno == EINTR) continue;
        if (bytes <= 0) break;
        [[maybe_unused]] const auto written =
            ::write(STDERR_FILENO, buffer.data(), static_cast<std::size_t>(bytes));
        for (const char c : std::string_view(buffer.data(), static_cast<std::size_t>(bytes))) {
          if (c != '\n') {
            if (line.size() < 4096) line.push_back(c);
            continue;
          }
          const std::lock_guard lock(mutex);
          if (!line.empty() && !line.starts_with("time=")) last_line = line;
          line.clear();
        }
      }
      const std::lock_guard lock(mutex);
      errors_ended = true;
      errors_end.notify_all();
    });
  }

  Error died() {
    std::string how = "it closed its socket";
    for (int i = 0; i < 100; ++i) {
      pollfd poll_exit{.fd = process.pidfd().get(), .events = POLLIN, .revents = 0};
      ::poll(&poll_exit, 1, 100);
      if (const auto status = process.try_wait()) {
        how = status->describe();
        break;
      }
      process.signal(9);
    }
    // What it said last may still be in the pipe; a child of its own could keep that open.
    std::unique_lock lock(mutex);
    errors_end.wait_for(lock, std::chrono::seconds(1), [this] { return errors_ended; });
    return {ErrorCode::kUnavailable,
            std::format("the model's runner process ended unexpectedly ({}){}{}", how,
                        last_line.empty() ? "" : "; it said last: ", last_line)};
  }

  Result<> send(const ToRunner& message) {
    if (!send_all(process.socket().get(), encode(message))) return std::unexpected(died());
    return {};
  }

  // The next message; nullopt when none came for `timeout_ms` (-1: waits).
  Result<std::optional<FromRunner>> receive(int timeout_ms) {
    while (true) {
      OLLAMA_ASSIGN(const auto payload, reader.next());
      if (payload) {
        OLLAMA_ASSIGN(FromRunner message, decode_from_runner(*payload));
        return message;
      }
      pollfd readable{.fd = process.socket().get(), .events = POLLIN, .revents = 0};
      const int ready = ::poll(&readable, 1, timeout_ms);
      if (ready == 0 || (ready < 0 && errno == EINTR)) return std::nullopt;
      const auto room = reader.prepare();
      const ssize_t received = ::recv(process.socket().get(), room.data(), room.size(), 0);
      if (received < 0 && errno == EINTR) continue;
      if (received <= 0) return std::unexpected(died());
      reader.commit(static_cast<std::size_t>(received));
    }
  }
};

Result<std::vector<ml::Device>> LocalRunner::list_devices(const ml::DeviceOptions& options,
                                                          const Command& command) {
  OLLAMA_ASSIGN(Process process, Process::start(command));
  State state(std::move(process));
  state.forward_errors();
  OLLAMA_TRY(state.send(ListDevices{.options = options}));
  OLLAMA_ASSIGN(auto message, state.receive(kPatienceMs));
  if (!message) {
    return fail(ErrorCode::kTimeout, "listing the devices took longer than {} s: a driver hangs",
                kPatienceMs / 1000);
  }
  if (auto* failed = std::get_if<LoadFailed>(&*message)) {
    return std::unexpected(Error(failed->code, std::move(failed->message)));
  }
  if (auto* listed = std::get_if<Devices>(&*message)) return std::move(listed->devices);
  return fail(ErrorCode::kInternal, "the runner gave another answer than devices");
}

LocalRunner::LocalRunner(std::unique_ptr<State> state) : state_(std::move(state)) {}
LocalRunner::LocalRunner(LocalRunner&&) noexcept = default;
LocalRunner& LocalRunner::operator=(LocalRunner&&) noexcept = default;
LocalRunner::~LocalRunner() = default;

const engine::ModelInfo& LocalRunner::info() const { return state_->info; }

Result<LocalRunner> LocalRunner::load(const Load& load, const std::function<void(float)>& progress,
                                      const Command& command) {
  OLLAMA_ASSIGN(Process process, Process::start(command));
  auto state = std::make_unique<State>(std::move(process));
  state->forward_errors();
  OLLAMA_TRY(state->send(load));
  while (true) {
    OLLAMA_ASSIGN(auto message, state->receive(-1));
    if (!message) continue;
    if (const auto* fraction = std::get_if<Progress>(&*message); fraction && progress) {
      progress(fraction->fraction);
    } else if (auto* failed = std::get_if<LoadFailed>(&*message)) {
      return std::unexpected(Error(failed->code, std::move(failed->message)));
    } else if (auto* ready = std::get_if<Ready>(&*message)) {
      state->info = std::move(ready->info);
      return LocalRunner(std::move(state));
    }
  }
}

Result<Done> LocalRunner::generate(Generate request, const std::function<bool(Piece&&)>& told,
                                   const std::function<bool()>& cancelled) {
  const Id id = ++state_->last_id;
  request.id = id;
  OLLAMA_TRY(state_->send(std::move(request)));
  bool cancelling = false;
  const auto cancel = [&]() -> Result<> {
    if (std::exchange(cancelling, true)) return {};
    return state_->send(Cancel{.id = id});
  };
  while (true) {
    OLLAMA_ASSIGN(auto message, state_->receive(cancelled ? 100 : -1));
    if (cancelled && cancelled()) OLLAMA_TRY(cancel());
    if (!message) continue;
    if (auto* piece = std::get_if<Piece>(&*message); piece && piece->id == id) {
      if (!cancelling && !told(std::move(*piece))) OLLAMA_TRY(cancel());
    } else if (auto* done = std::get_if<Done>(&*message); done && done->id == id) {
      return std::move(*done);
    } else if (auto* failed = std::get_if<Failed>(&*message); failed && failed->id == id) {
      return std::unexpected(Error(failed->code, std::move(failed->message)));
    }
  }
}

}  // namespace ollama::runner
