// Who may use the server from a browser: cross-origin rules (CORS) as gin-contrib/cors applies them
// for Ollama, and the check of the Host header that keeps foreign names from being pointed at a
// server on the loopback address (DNS rebinding).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/http.h"

namespace ollama::server {

struct Access {
  std::vector<std::string>
      origins;             // patterns; one '*' in each is a wildcard; "*" allows every one
  bool check_host = true;  // the server listens on a loopback address

  struct Verdict {
    std::optional<int> status;  // answer with this and no body; nullopt: go on
    Headers headers;            // of the response, whatever it is
  };
  Verdict judge(std::string_view method, std::string_view host, std::string_view origin) const;
};

// Whether `origin` fits `pattern`, letter by letter but for one '*'.
bool origin_matches(std::string_view pattern, std::string_view origin);
// Whether a Host header (with or without a port) names this machine: a loopback, private or
// unspecified address or one of its own, localhost, its host name, *.localhost, *.local,
// *.internal.
bool host_allowed(std::string_view host);

}  // namespace ollama::server
