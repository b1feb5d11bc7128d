// HTTP/1.1 on one socket: requests are read one after another, checked, routed and answered.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "server/access.h"
#include "server/router.h"

namespace ollama::server {

// Bounds that keep one client from using the server up.
struct Limits {
  std::uint64_t body = 100ULL << 20;  // of bodies that are read whole
  std::uint32_t header = 64U << 10;
  std::size_t connections = 4096;
  std::chrono::milliseconds idle = std::chrono::minutes(10);  // between requests
  std::chrono::milliseconds head = std::chrono::seconds(30);  // from first byte to end of header
  std::chrono::milliseconds body_time = std::chrono::minutes(5);  // of a body that is read whole
  std::chrono::milliseconds piece = std::chrono::minutes(1);      // without a byte of other bodies
  std::chrono::milliseconds write = std::chrono::minutes(2);      // until the client takes a piece
};

class Connection;

struct ConnectionContext {
  Router router;
  Access access;
  Limits limits;
  // Told of every request when it has been answered; `route` is the pattern that it matched.
  std::function<void(std::string_view route, int status, std::chrono::duration<double> took)>
      answered;
  std::vector<std::string> api_keys;  // when not empty, requests need one of them
  std::unordered_set<Connection*> open;
};

// Serves `socket` until it closes. `context` outlives all connections.
void serve_connection(boost::asio::ip::tcp::socket socket, ConnectionContext& context);
// Closes the connections that wait for a request, or all.
void close_connections(ConnectionContext& context, bool only_idle);

}  // namespace ollama::server
