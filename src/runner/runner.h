// The server's handle on one loaded model. Everything happens on the server's one loop: calls are
// made there and callbacks come from there, never from within a call, and never after the Runner is
// gone (destroying it inside one of its own callbacks is fine).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "runner/protocol.h"

namespace ollama::runner {

// What becomes of one Generate. Exactly one of done and failed is called, last.
class GenerateListener {
 public:
  virtual ~GenerateListener() = default;
  virtual void begun(const Begun& /*begun*/) {}
  virtual void piece(Piece piece) = 0;
  virtual void done(Done done) = 0;
  virtual void failed(const Error& error) = 0;
};

struct LoadEvents {
  std::function<void(float fraction)> progress;
  // Once. After an error the runner is of no use any more.
  std::function<void(Result<engine::ModelInfo>)> done;
};

class Runner {
 public:
  virtual ~Runner() = default;  // ends the process at once

  // First and once, or one of the two after it instead, which leave a runner that has no other use.
  virtual void load(const Load& load, LoadEvents events) = 0;
  // Where the model would go.
  virtual void explain(const Load& load, std::function<void(Result<api::MemoryPlan>)> done) = 0;
  virtual void list_devices(const ml::DeviceOptions& options,
                            std::function<void(Result<std::vector<ml::Device>>)> done) = 0;

  // The id in each request is ignored: the runner numbers them. When the process ends, everything
  // in flight fails with kUnavailable and what the process said last.
  virtual Id generate(Generate request, std::shared_ptr<GenerateListener> listener) = 0;
  // Its listener hears done(kCancelled) within a step; unknown ids are ignored.
  virtual void cancel(Id id) = 0;
  // A request that is answered by text: render_only, or Detokenize.
  virtual void render(Generate request, std::function<void(Result<Text>)> done) = 0;
  // A cancelled one hears kCancelled, unless it is being evaluated.
  virtual Id embed(Embed request, std::function<void(Result<Embedded>)> done) = 0;
  virtual Id rank(Rank request, std::function<void(Result<Embedded>)> done) = 0;
  virtual void tokenize(Tokenize request, std::function<void(Result<std::vector<Token>>)> done) = 0;
  virtual void detokenize(Detokenize request, std::function<void(Result<std::string>)> done) = 0;

  // Called once, when the process has ended, asked or not, and its memory is free again. The error
  // says how.
  virtual void on_exit(std::function<void(const Error&)> callback) = 0;
  // Asks the process to end, then tells it (SIGTERM), then makes it (SIGKILL).
  virtual void stop() = 0;
  virtual int pid() const = 0;
};

class RunnerFactory {
 public:
  virtual ~RunnerFactory() = default;
  // Starts a process; it has no model yet. Errors: kIo.
  virtual Result<std::unique_ptr<Runner>> start() = 0;
};

}  // namespace ollama::runner
