// A runner of one's own: a model file served to one caller without a server, which is how the
// command line runs `./x.gguf`. Calls wait.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string_view>

#include "base/error.h"
#include "runner/process.h"
#include "runner/protocol.h"

namespace ollama::runner {

class LocalRunner {
 public:
  // Starts a process and loads the file; `progress` hears 0 to 1. Errors: those of loading; kIo;
  // kUnavailable, with what the process said last, when it dies. To be called on a thread that
  // lives as long as the runner is needed (see Process).
  static Result<LocalRunner> load(const Load& load, const std::function<void(float)>& progress = {},
                                  const Command& command = runner_command());

  // The devices there are, listed by a process of its own, which a broken driver may end. Errors:
  // kUnavailable then, with what it said last; kTimeout; those of ml::list_devices.
  static Result<std::vector<ml::Device>> list_devices(const ml::DeviceOptions& options,
                                                      const Command& command = runner_command());

  LocalRunner(LocalRunner&&) noexcept;
  LocalRunner& operator=(LocalRunner&&) noexcept;
  ~LocalRunner();  // ends the process

  const engine::ModelInfo& info() const;

  // Calls `told` for each piece until the answer ends; false cancels it (Done then says
  // kCancelled). `cancelled`, where given, is asked every tenth of a second while nothing comes.
  // One call at a time.
  Result<Done> generate(Generate request, const std::function<bool(Piece&&)>& told,
                        const std::function<bool()>& cancelled = {});

 private:
  struct State;
  explicit LocalRunner(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace ollama::runner
