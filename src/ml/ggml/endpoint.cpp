#include "ml/ggml/endpoint.h"

#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <vector>

#include "base/units.h"

namespace ollama::ml::ggml {

namespace {

constexpr std::chrono::seconds kFirstQuestion{10};  // after nothing was heard for so long
constexpr std::chrono::seconds kNextQuestion{5};
constexpr int kQuestions = 4;
constexpr std::chrono::milliseconds kUnacknowledged{30'000};

void set_option(int socket, int level, int name, std::int64_t value) {
  const int number = static_cast<int>(value);
  ::setsockopt(socket, level, name, &number, sizeof(number));
}

}  // namespace

void keep_connections_alive(std::span<const std::string> endpoints) {
  std::vector<sockaddr_in> peers;
  for (const std::string& endpoint : endpoints) {
    if (const auto address = resolve_endpoint(endpoint)) peers.push_back(*address);
  }
  // They are GGML's own, which tells nobody of them.
  std::error_code error;
  for (std::filesystem::directory_iterator it("/proc/self/fd", error), end; !error && it != end;
       it.increment(error)) {
    const auto fd = parse_number<int>(it->path().filename().string());
    sockaddr_in peer{};
    socklen_t length = sizeof(peer);
    if (!fd || ::getpeername(*fd, reinterpret_cast<sockaddr*>(&peer), &length) != 0 ||
        peer.sin_family != AF_INET || std::ranges::none_of(peers, [&](const sockaddr_in& one) {
          return one.sin_port == peer.sin_port && one.sin_addr.s_addr == peer.sin_addr.s_addr;
        })) {
      continue;
    }
    set_option(*fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(*fd, IPPROTO_TCP, TCP_KEEPIDLE, kFirstQuestion.count());
    set_option(*fd, IPPROTO_TCP, TCP_KEEPINTVL, kNextQuestion.count());
    set_option(*fd, IPPROTO_TCP, TCP_KEEPCNT, kQuestions);
    set_option(*fd, IPPROTO_TCP, TCP_USER_TIMEOUT, kUnacknowledged.count());
  }
}

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
