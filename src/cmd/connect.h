// The client of a command that needs a server.
#pragma once

#include "api/client.h"
#include "base/error.h"
#include "envconfig/config.h"

namespace ollama::cmd {

// kUnavailable, with what to do, when no server answers.
Result<api::Client> connect(const envconfig::Config& config);

// Unloads the model. Errors: kNotFound, kUnavailable.
Result<> unload_model(api::Client& client, const std::string& model);

}  // namespace ollama::cmd
