#include "ml/ggml/endpoint.h"

#include <netdb.h>

#include <memory>

#include "base/units.h"

namespace ollama::ml::ggml {

Result<sockaddr_in> resolve_endpoint(const std::string& endpoint) {
  const std::size_t colon = endpoint.rfind(':');
  const auto port = colon == std::string::npos
                        ? std::nullopt
                        : parse_number<std::uint16_t>(std::string_view(endpoint).substr(colon + 1));
  if (!port || *port == 0 || colon == 0) {
    return fail(ErrorCode::kInvalidArgument, "'{}' is no address: give HOST:PORT", endpoint);
  }
  addrinfo hints{};
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const std::string host = endpoint.substr(0, colon);
  if (const int error = getaddrinfo(host.c_str(), nullptr, &hints, &found); error != 0) {
    return fail(ErrorCode::kInvalidArgument, "{}: {}", host, gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> addresses(found, freeaddrinfo);
  sockaddr_in address = *reinterpret_cast<const sockaddr_in*>(found->ai_addr);
  address.sin_port = htons(*port);
  return address;
}

}  // namespace ollama::ml::ggml
