// For tests: a socket that listens on a free loopback port.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>

#include "base/unique_fd.h"

namespace ollama {

struct Loopback {
  UniqueFd socket;
  std::uint16_t port = 0;
};

inline Loopback listen_on_loopback() {
  constexpr int kBacklog = 64;
  Loopback result;
  result.socket.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (::bind(result.socket.get(), generic, size) != 0 ||
      ::listen(result.socket.get(), kBacklog) != 0 ||
      ::getsockname(result.socket.get(), generic, &size) != 0) {
    ADD_FAILURE() << "no loopback socket";
  }
  result.port = ntohs(address.sin_port);
  return result;
}

}  // namespace ollama
