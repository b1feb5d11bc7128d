#include "server/router.h"

#include <charconv>
#include <ranges>

namespace ollama::server {

namespace {

bool matches(std::string_view pattern, std::string_view path,
             std::map<std::string, std::string, std::less<>>& parameters) {
  while (true) {
    const auto colon = pattern.find(':');
    if (colon == std::string_view::npos) return pattern == path;
    if (path.substr(0, colon) != pattern.substr(0, colon)) return false;
    pattern.remove_prefix(colon + 1);
    path.remove_prefix(colon);
    const std::string_view value = path.substr(0, path.find('/'));
    const std::string_view name = pattern.substr(0, pattern.find('/'));
    if (value.empty()) return false;
    parameters[std::string(name)] = value;
    pattern.remove_prefix(name.size());
    path.remove_prefix(value.size());
  }
}

}  // namespace

void Router::add(std::vector<Route> routes) {
  std::ranges::move(routes, std::back_inserter(routes_));
}

Match Router::match(std::string_view method, std::string_view path) const {
  Match match;
  for (const Route& route : routes_) {
    std::map<std::string, std::string, std::less<>> parameters;
    if (!matches(route.pattern, path, parameters)) continue;
    if (route.method == method) {
      return {.route = &route,
              .parameters = std::move(parameters),
              .status = 200,
              .location = {},
              .allow = {}};
    }
    match.status = 405;
    if (!match.allow.empty()) match.allow += ", ";
    match.allow += route.method;
  }
  if (match.status == 405 || path.size() <= 1) return match;
  const std::string other =
      path.ends_with('/') ? std::string(path.substr(0, path.size() - 1)) : std::string(path) + '/';
  for (const Route& route : routes_) {
    if (route.method == method && matches(route.pattern, other, match.parameters)) {
      match.status = method == "GET" ? 301 : 307;
      match.location = other;
      return match;
    }
  }
  return match;
}

Result<std::string> decode_path(std::string_view path) {
  std::string result;
  result.reserve(path.size());
  for (std::size_t i = 0; i < path.size(); ++i) {
    if (path[i] != '%') {
      result.push_back(path[i]);
      continue;
    }
    unsigned value = 0;
    const char* digits = path.data() + i + 1;
    if (i + 2 >= path.size() || std::from_chars(digits, digits + 2, value, 16).ptr != digits + 2) {
      return fail(ErrorCode::kInvalidArgument, "invalid URL escape in the path");
    }
    result.push_back(static_cast<char>(value));
    i += 2;
  }
  return result;
}

}  // namespace ollama::server
