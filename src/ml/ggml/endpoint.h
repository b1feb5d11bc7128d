// Addresses of RPC servers.
#pragma once

#include <netinet/in.h>

#include <string>

#include "base/error.h"

namespace ollama::ml::ggml {

// "host:port" as GGML's RPC takes it: IPv4. Errors: kInvalidArgument, with what is wrong.
Result<sockaddr_in> resolve_endpoint(const std::string& endpoint);

}  // namespace ollama::ml::ggml
