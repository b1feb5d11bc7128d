// Where `run` gets its answers from: a server, or a runner of our own for a model file.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include "api/types.h"
#include "base/error.h"
#include "envconfig/config.h"

namespace ollama::api {
class Client;
}

namespace ollama::cmd {

// Of a model that is being loaded, in bytes of its file.
using LoadProgress = std::function<void(std::uint64_t completed, std::uint64_t total)>;

class ModelHost {
 public:
  virtual ~ModelHost() = default;

  // The calls of api::Client, with its errors; each ends soon after its stop is requested.
  virtual Result<api::ShowResponse> show(const api::ShowRequest& request) = 0;
  // Loads the model of an empty prompt, or unloads it with a keep-alive of zero. `progress`, where
  // given, may be called by another thread while this lasts.
  virtual Result<> load(const api::GenerateRequest& request, const LoadProgress& progress) = 0;
  virtual Result<> generate(const api::GenerateRequest& request, std::stop_token stop,
                            const std::function<bool(const api::GenerateResponse&)>& callback) = 0;
  virtual Result<> chat(const api::ChatRequest& request, std::stop_token stop,
                        const std::function<bool(const api::ChatResponse&)>& callback) = 0;
  virtual Result<> create(const api::CreateRequest& request) = 0;
  virtual Result<api::EmbedResponse> embed(const api::EmbedRequest& request) = 0;
};

// Client and configuration must outlive the host.
std::unique_ptr<ModelHost> server_host(api::Client& client, const envconfig::Config& config);
// Starts no process before a model is loaded. Knows one model, by any name.
std::unique_ptr<ModelHost> file_host(std::filesystem::path path, const envconfig::Config& config);

}  // namespace ollama::cmd
