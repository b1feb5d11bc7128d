// Converting and quantising in a child process: a hostile file or an abort in GGML ends that
// process and not the server, and what it took of memory goes with it.
#pragma once

#include "base/error.h"
#include "runner/process.h"
#include "store/converter.h"

namespace ollama::runner {

// `ollama convert --fd 3`.
Command conversion_command();

// Starts a process for each conversion, and ends it when the conversion is cancelled. Thread-safe.
class ProcessConverter final : public store::Converter {
 public:
  explicit ProcessConverter(Command command = conversion_command());
  Result<> convert(const store::Conversion& conversion,
                   const store::ConversionProgress& progress) override;

 private:
  Command command_;
};

// ---- The process

// Does the one conversion that comes over the socket `fd`, says there how it goes, and returns the
// exit code.
int serve_conversion(int fd);

// What `ollama convert --fd N` does: serve_conversion in a process that ends with its parent.
int run_conversion(int fd);

}  // namespace ollama::runner
