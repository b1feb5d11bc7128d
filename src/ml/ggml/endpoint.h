// Addresses of RPC servers.
#pragma once

#include <netinet/in.h>

#include <span>
#include <string>

#include "base/error.h"

namespace ollama::ml::ggml {

// "host:port" as GGML's RPC takes it: IPv4. Errors: kInvalidArgument, with what is wrong.
Result<sockaddr_in> resolve_endpoint(const std::string& endpoint);

// Lets the system ask after these servers on the connections that this process has to them: one
// whose machine is gone, or no longer reached, then counts as lost within half a minute, where GGML
// would wait for ever.
void keep_connections_alive(std::span<const std::string> endpoints);

}  // namespace ollama::ml::ggml
