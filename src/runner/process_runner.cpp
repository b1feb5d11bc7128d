#include "runner/process_runner.h"

#include <fcntl.h>
#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>

#include <csignal>

#include "base/log.h"
#include "runner/error_log.h"
#include "runner/frame.h"

namespace ollama::runner {

namespace {

namespace asio = boost::asio;
using SystemError = boost::system::error_code;

class State : public std::enable_shared_from_this<State> {
 public:
  State(asio::io_context& loop, Process process, ProcessRunnerOptions options)
      : loop_(loop),
        process_(std::move(process)),
        options_(options),
        socket_(loop, asio::local::stream_protocol(), process_.socket().release()),
        errors_(loop, process_.errors().release()),
        exit_(loop, dup_cloexec(process_.pidfd().get())),
        timer_(loop),
        log_("runner", process_.pid()) {}

  void start() {
    read();
    read_errors();
    exit_.async_wait(asio::posix::descriptor_base::wait_read,
                     [self = shared_from_this()](SystemError error) {
                       if (!error) self->exited();
                     });
  }

  // The Runner is gone: no callback any more, and the process ends.
  void abandon() {
    abandoned_ = true;
    pending_.clear();
    load_ = {};
    explained_ = nullptr;
    listed_ = nullptr;
    on_exit_ = nullptr;
    process_.signal(SIGKILL);
    // exited() reaps it; should the loop not run any more, ~Process does.
  }

  using Reply =
      std::variant<std::shared_ptr<GenerateListener>, std::function<void(Result<Embedded>)>,
                   std::function<void(Result<std::vector<Token>>)>,
                   std::function<void(Result<Text>)>>;

  void load(const Load& message, LoadEvents events) {
    load_ = std::move(events);
    send_or_fail(message);
  }

  void explain(const Load& load, std::function<void(Result<api::MemoryPlan>)> done) {
    explained_ = std::move(done);
    send_or_fail(Explain{.load = load});
  }
  void list_devices(const ml::DeviceOptions& options,
                    std::function<void(Result<std::vector<ml::Device>>)> done) {
    listed_ = std::move(done);
    send_or_fail(ListDevices{.options = options});
  }

  template <typename Request>
  Id request(Request request, Reply reply) {
    request.id = ++last_id_;
    const Id id = request.id;
    pending_.emplace(id, std::move(reply));
    send_or_fail(std::move(request));
    return id;
  }

  void cancel(Id id) {
    if (!ended_ && pending_.contains(id)) send(Cancel{id});
  }
  void on_exit(std::function<void(const Error&)> callback) {
    on_exit_ = std::move(callback);
    if (ended_) fail_later();
  }

  void stop() {
    if (ended_ || stopping_ > 0) return;
    send(Shutdown{});
    escalate();
  }

  int pid() const { return process_.pid(); }

 private:
  static int dup_cloexec(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, 0); }

  void escalate() {
    ++stopping_;
    if (stopping_ == 2) process_.signal(SIGTERM);
    if (stopping_ >= 3) process_.signal(SIGKILL);
    timer_.expires_after(options_.patience);
    timer_.async_wait([self = shared_from_this()](SystemError error) {
      if (!error && !self->ended_) self->escalate();
    });
  }

  // ---- Writing: one write at a time, whatever waits goes out together

  // What expects an answer.
  void send_or_fail(const ToRunner& message) {
    if (ended_) {
      fail_later();
    } else {
      send(message);
    }
  }
  void send(const ToRunner& message) {
    outgoing_ += encode(message);
    if (writing_.empty()) write();
  }
  void write() {
    writing_ = std::exchange(outgoing_, {});
    asio::async_write(socket_, asio::buffer(writing_),
                      [self = shared_from_this()](SystemError error, std::size_t) {
                        self->writing_.clear();
                        // A broken pipe means that the process ends; exited() tells of it.
                        if (!error && !self->outgoing_.empty()) self->write();
                      });
  }

  // ---- Reading

  void read() {
    const auto room = reader_.prepare();
    socket_.async_read_some(asio::buffer(room.data(), room.size()),
                            [self = shared_from_this()](SystemError error, std::size_t bytes) {
                              self->received(error, bytes);
                            });
  }
  void received(SystemError error, std::size_t bytes) {
    if (error) {
      // It closed its socket: it is ending, or broken. Either way there is no use for it.
      socket_ended_ = true;
      if (!ended_ && stopping_ == 0) escalate();
      finish_if_all_ended();
      return;
    }
    reader_.commit(bytes);
    while (!abandoned_) {
      auto payload = reader_.next();
      if (payload && !*payload) break;
      auto message = payload ? decode_from_runner(**payload) : fail(std::move(payload));
      if (!message) {
        broken_ = message.error().message();
        process_.signal(SIGKILL);
        socket_ended_ = true;
        finish_if_all_ended();
        return;
      }
      std::visit([this](auto& value) { handle(value); }, *message);
    }
    if (abandoned_) {
      socket_ended_ = true;
      finish_if_all_ended();
      return;
    }
    read();
  }

  void handle(Progress& message) {
    if (load_.progress) load_.progress(message.fraction);
  }
  void handle(Ready& message) {
    if (auto done = std::exchange(load_, {}).done) done(std::move(message.info));
  }
  void handle(LoadFailed& message) { fail_first(Error(message.code, std::move(message.message))); }
  void handle(Explained& message) {
    if (auto done = std::exchange(explained_, nullptr)) done(std::move(message.plan));
  }
  void handle(Devices& message) {
    if (auto done = std::exchange(listed_, nullptr)) done(std::move(message.devices));
  }
  // The answer to what was asked first.
  void fail_first(const Error& error) {
    if (auto done = std::exchange(load_, {}).done) done(std::unexpected(error));
    if (auto done = std::exchange(explained_, nullptr)) done(std::unexpected(error));
    if (auto done = std::exchange(listed_, nullptr)) done(std::unexpected(error));
  }
  void handle(Begun& message) {
    if (const auto listener = listener_of(message.id)) listener->begun(message);
  }
  void handle(Piece& message) {
    if (const auto listener = listener_of(message.id)) listener->piece(std::move(message));
  }
  void handle(Done& message) {
    if (auto reply = take(message.id)) {
      if (const auto* listener = std::get_if<0>(&*reply)) (*listener)->done(std::move(message));
    }
  }
  void handle(Failed& message) {
    if (auto reply = take(message.id)) {
      reply_error(*reply, Error(message.code, std::move(message.message)));
    }
  }
  void handle(Embedded& message) {
    if (auto reply = take(message.id)) {
      if (const auto* done = std::get_if<1>(&*reply)) (*done)(std::move(message));
    }
  }
  void handle(Tokens& message) {
    if (auto reply = take(message.id)) {
      if (const auto* done = std::get_if<2>(&*reply)) (*done)(std::move(message.tokens));
    }
  }
  void handle(Text& message) {
    if (auto reply = take(message.id)) {
      if (const auto* done = std::get_if<3>(&*reply)) (*done)(std::move(message));
    }
  }

  // Kept while it is told something: it may end its request meanwhile.
  std::shared_ptr<GenerateListener> listener_of(Id id) const {
    const auto found = pending_.find(id);
    const auto* listener = found == pending_.end() ? nullptr : std::get_if<0>(&found->second);
    return listener == nullptr ? nullptr : *listener;
  }
  std::optional<Reply> take(Id id) {
    const auto found = pending_.find(id);
    if (found == pending_.end()) return std::nullopt;
    Reply reply = std::move(found->second);
    pending_.erase(found);
    return reply;
  }
  static void reply_error(const Reply& reply, const Error& error) {
    std::visit(
        [&](const auto& done) {
          if constexpr (requires { done->failed(error); }) {
            done->failed(error);
          } else {
            done(std::unexpected(error));
          }
        },
        reply);
  }

  // ---- Standard error

  void read_errors() {
    errors_.async_read_some(asio::buffer(error_buffer_),
                            [self = shared_from_this()](SystemError error, std::size_t bytes) {
                              if (bytes > 0) self->log_.add({self->error_buffer_.data(), bytes});
                              if (!error) {
                                self->read_errors();
                                return;
                              }
                              self->log_.flush();
                              self->errors_ended_ = true;
                              self->finish_if_all_ended();
                            });
  }

  // ---- The end

  void exited() {
    status_ = process_.try_wait();
    if (!status_) return;
    ended_ = true;
    timer_.cancel();
    // What it wrote last is still in the pipes; a grandchild could hold them open for ever, though.
    timer_.expires_after(std::chrono::milliseconds(200));
    timer_.async_wait([self = shared_from_this()](SystemError error) {
      if (error) return;
      self->socket_ended_ = self->errors_ended_ = true;
      self->finish_if_all_ended();
    });
    finish_if_all_ended();
  }
  void finish_if_all_ended() {
    if (!ended_ || !socket_ended_ || !errors_ended_ || finished_) return;
    finished_ = true;
    SystemError ignored;
    timer_.cancel();
    socket_.close(ignored);
    errors_.close(ignored);
    exit_.close(ignored);
    if (stopping_ == 0 && !abandoned_) log::error("runner {}: {}", process_.pid(), describe());
    report();
  }
  void fail_later() {
    asio::post(loop_, [self = shared_from_this()] {
      if (self->finished_) self->report();
    });
  }
  void report() {
    const Error error(ErrorCode::kUnavailable, describe());
    fail_first(error);
    auto pending = std::exchange(pending_, {});
    for (auto& [id, reply] : pending) {
      if (abandoned_) return;
      reply_error(reply, error);
    }
    if (auto callback = std::exchange(on_exit_, nullptr)) callback(error);
  }
  std::string describe() const {
    if (status_->signal != 0 && log_.last().contains(kRemoteLost)) {
      return "a server of OLLAMA_RPC_SERVERS that holds a part of the model was lost; the next "
             "request loads the model without it";
    }
    if (!broken_.empty()) {
      return std::format("the model's runner process was ended: what it sent is no message ({})",
                         broken_);
    }
    std::string text = stopping_ > 0 && status_->signal == 0
                           ? "the model was unloaded"
                           : std::format("the model's runner process ended unexpectedly ({})",
                                         status_->describe());
    if (status_->signal == SIGKILL && stopping_ == 0) {
      text += ", perhaps because the machine ran out of memory";
    }
    if (!log_.last().empty() && (stopping_ == 0 || status_->signal != 0)) {
      text += std::format("; it said last: {}", log_.last());
    }
    return text;
  }

  asio::io_context& loop_;
  Process process_;
  ProcessRunnerOptions options_;
  asio::local::stream_protocol::socket socket_;
  asio::posix::stream_descriptor errors_;
  asio::posix::stream_descriptor exit_;
  asio::steady_timer timer_;
  ErrorLog log_;
  std::array<char, 4096> error_buffer_{};
  FrameReader reader_;
  std::string outgoing_;
  std::string writing_;
  LoadEvents load_;
  std::function<void(Result<api::MemoryPlan>)> explained_;
  std::function<void(Result<std::vector<ml::Device>>)> listed_;
  std::unordered_map<Id, Reply> pending_;
  std::function<void(const Error&)> on_exit_;
  std::optional<ExitStatus> status_;
  std::string broken_;  // what is wrong with what it sent
  Id last_id_ = 0;
  int stopping_ = 0;  // how firm stop() has become
  bool abandoned_ = false;
  bool ended_ = false;         // the process
  bool socket_ended_ = false;  // everything it sent was handled
  bool errors_ended_ = false;
  bool finished_ = false;
};

class ProcessRunner final : public Runner {
 public:
  explicit ProcessRunner(std::shared_ptr<State> state) : state_(std::move(state)) {}
  ProcessRunner(const ProcessRunner&) = delete;
  ProcessRunner& operator=(const ProcessRunner&) = delete;
  ~ProcessRunner() override { state_->abandon(); }

  void load(const Load& load, LoadEvents events) override { state_->load(load, std::move(events)); }
  void explain(const Load& load, std::function<void(Result<api::MemoryPlan>)> done) override {
    state_->explain(load, std::move(done));
  }
  void list_devices(const ml::DeviceOptions& options,
                    std::function<void(Result<std::vector<ml::Device>>)> done) override {
    state_->list_devices(options, std::move(done));
  }
  Id generate(Generate request, std::shared_ptr<GenerateListener> listener) override {
    return state_->request(std::move(request), std::move(listener));
  }
  void cancel(Id id) override { state_->cancel(id); }
  void render(Generate request, std::function<void(Result<Text>)> done) override {
    request.render_only = true;
    state_->request(std::move(request), std::move(done));
  }
  Id embed(Embed request, std::function<void(Result<Embedded>)> done) override {
    return state_->request(std::move(request), std::move(done));
  }
  Id rank(Rank request, std::function<void(Result<Embedded>)> done) override {
    return state_->request(std::move(request), std::move(done));
  }
  void tokenize(Tokenize request, std::function<void(Result<std::vector<Token>>)> done) override {
    state_->request(std::move(request), std::move(done));
  }
  void detokenize(Detokenize request, std::function<void(Result<std::string>)> done) override {
    state_->request(std::move(request), [done = std::move(done)](Result<Text> answer) {
      done(std::move(answer).transform([](Text&& text) { return std::move(text.text); }));
    });
  }
  void on_exit(std::function<void(const Error&)> callback) override {
    state_->on_exit(std::move(callback));
  }
  void stop() override { state_->stop(); }
  int pid() const override { return state_->pid(); }

 private:
  std::shared_ptr<State> state_;
};

}  // namespace

ProcessRunnerFactory::ProcessRunnerFactory(asio::io_context& loop, Command command,
                                           ProcessRunnerOptions options)
    : loop_(loop), command_(std::move(command)), options_(options) {}

Result<std::unique_ptr<Runner>> ProcessRunnerFactory::start() {
  OLLAMA_ASSIGN(Process process, Process::start(command_));
  auto state = std::make_shared<State>(loop_, std::move(process), options_);
  state->start();
  return std::make_unique<ProcessRunner>(std::move(state));
}

}  // namespace ollama::runner
