// The runner process: one loaded model that serves the requests that come over a socket.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>

#include "base/error.h"
#include "engine/engine.h"

namespace ollama::runner {

using EngineLoader = std::function<Result<std::unique_ptr<engine::Engine>>(
    const std::filesystem::path&, const engine::LoadOptions&, const engine::Progress&)>;

// Serves the socket `fd` until it closes or a Shutdown comes; returns the exit code. Takes `fd`
// over. The caller's thread reads; loading has a thread, and so has writing, so that the engine
// never waits for the server.
int serve_requests(int fd, const EngineLoader& loader);

// What `ollama runner --fd N` does: serve_requests with the real engine, in a process that ends
// with its parent.
int run_child(int fd);

}  // namespace ollama::runner
