// GGML's own RPC server, for `ollama rpc`.
#pragma once

#include <string>

#include "base/error.h"
#include "ml/device.h"

namespace ollama::ml {

// Lends the GPUs there are, or the CPU where there is none, to whoever connects to "host:port".
// Returns when the server ends, which by itself it does not. Errors: kInvalidArgument (the
// address), kUnsupported (GGML's RPC backend is not installed), kIo (the address is taken).
Result<> serve_rpc(const std::string& address, const DeviceOptions& options);

}  // namespace ollama::ml
