// Runners as child processes, over Asio.
#pragma once

#include <chrono>
#include <memory>

#include "runner/process.h"
#include "runner/runner.h"

namespace boost::asio {
class io_context;  // NOLINT(readability-identifier-naming): Asio's
}

namespace ollama::runner {

struct ProcessRunnerOptions {
  // How long stop() waits before it becomes firmer, each time.
  std::chrono::milliseconds patience{5000};
};

class ProcessRunnerFactory final : public RunnerFactory {
 public:
  // `loop` is run by one thread and outlives the runners. What the children write to standard error
  // goes to the log.
  ProcessRunnerFactory(boost::asio::io_context& loop, Command command,
                       ProcessRunnerOptions options = {});
  Result<std::unique_ptr<Runner>> start() override;

 private:
  boost::asio::io_context& loop_;
  Command command_;
  ProcessRunnerOptions options_;
};

}  // namespace ollama::runner
