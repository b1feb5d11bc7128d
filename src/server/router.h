// The table of routes: method and path to handler, with gin's answers where there is none.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "server/http.h"

namespace ollama::server {

enum class Body : std::uint8_t {
  kWhole,   // read before the handler runs, up to the limit
  kPieces,  // read by the handler, of any length
};

struct Route {
  std::string method;
  std::string pattern;  // "/api/blobs/:digest": a part after ':' matches one path segment
  Handler handler;
  Body body = Body::kWhole;
};

struct Match {
  const Route* route = nullptr;
  std::map<std::string, std::string, std::less<>> parameters;
  // Without a route: what to answer.
  int status = 404;
  std::string location;  // of a redirection
  std::string allow;     // of 405
};

class Router {
 public:
  void add(std::vector<Route> routes);
  // `path` is percent-decoded. Without a route: 405 with the methods there are, 301 or 307 to the
  // path with or without a slash at its end where that one exists, else 404.
  Match match(std::string_view method, std::string_view path) const;

 private:
  std::vector<Route> routes_;
};

// Percent escapes decoded; kInvalidArgument when one is broken.
Result<std::string> decode_path(std::string_view path);

}  // namespace ollama::server
