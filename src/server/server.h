// The control plane: HTTP, the store, the scheduler; it loads no model and no GGML backend itself.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/error.h"
#include "envconfig/config.h"
#include "runner/runner.h"
#include "server/connection.h"
#include "store/store.h"

namespace boost::asio {
class io_context;
}

namespace ollama::server {

// Runs `ollama serve` until SIGINT or SIGTERM. Errors: kUnavailable in Go's words when the address
// cannot be listened on ("listen tcp 127.0.0.1:11434: bind: address already in use").
Result<> serve(const envconfig::Config& config);

// The same in pieces, for tests and benchmarks.
class Server {
 public:
  using MakeFactory =
      std::function<std::unique_ptr<runner::RunnerFactory>(boost::asio::io_context& loop)>;
  struct Settings {
    envconfig::Config config;  // host.port 0: any free one
    store::Store::Options store;
    MakeFactory make_factory;  // unset: runners are child processes
    Limits limits = {};
    bool handle_signals = false;
  };

  // Listens; nothing is answered before run().
  static Result<Server> listen(Settings settings);
  Server(Server&&) noexcept;
  Server& operator=(Server&&) noexcept;
  ~Server();

  std::uint16_t port() const;
  // Serves on this thread until stop() or, with handle_signals, a signal.
  void run();
  // From any thread: ends runners and connections, then run() returns.
  void stop();

 private:
  struct State;
  explicit Server(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace ollama::server
