#include "server/access.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <unistd.h>

#include <climits>
#include <cstring>

namespace ollama::server {

namespace {

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return result;
}

// "host:1", "[::1]:1", "host" and "::1" without their ports.
std::string_view without_port(std::string_view host) {
  if (host.starts_with('[')) {
    const auto close = host.find(']');
    if (close != std::string_view::npos) return host.substr(1, close - 1);
  }
  const auto colon = host.rfind(':');
  if (colon == std::string_view::npos || host.find(':') != colon) return host;
  return host.substr(0, colon);
}

bool is_own_address(int family, const void* address) {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return false;
  bool found = false;
  for (const ifaddrs* each = list; each != nullptr && !found; each = each->ifa_next) {
    if (each->ifa_addr == nullptr || each->ifa_addr->sa_family != family) continue;
    if (family == AF_INET) {
      found = std::memcmp(&reinterpret_cast<const sockaddr_in*>(each->ifa_addr)->sin_addr, address,
                          sizeof(in_addr)) == 0;
    } else {
      found = std::memcmp(&reinterpret_cast<const sockaddr_in6*>(each->ifa_addr)->sin6_addr,
                          address, sizeof(in6_addr)) == 0;
    }
  }
  freeifaddrs(list);
  return found;
}

bool address_allowed(const std::string& host) {
  in_addr v4{};
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) {
    const std::uint32_t address = ntohl(v4.s_addr);
    const bool loopback = address >> 24 == 127;
    const bool is_private =
        address >> 24 == 10 || address >> 20 == 0xAC1 || address >> 16 == 0xC0A8;
    return loopback || is_private || address == 0 || is_own_address(AF_INET, &v4);
  }
  in6_addr v6{};
  if (inet_pton(AF_INET6, host.c_str(), &v6) == 1) {
    const bool is_private = (v6.s6_addr[0] & 0xFE) == 0xFC;
    return IN6_IS_ADDR_LOOPBACK(&v6) || IN6_IS_ADDR_UNSPECIFIED(&v6) || is_private ||
           is_own_address(AF_INET6, &v6);
  }
  return false;
}

bool name_allowed(std::string_view host) {
  if (host.empty() || host == "localhost") return true;
  std::array<char, HOST_NAME_MAX + 1> own{};
  if (gethostname(own.data(), own.size() - 1) == 0 && host == lower(own.data())) return true;
  return host.ends_with(".localhost") || host.ends_with(".local") || host.ends_with(".internal");
}

constexpr std::string_view kMethods = "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS";
constexpr std::string_view kHeaders =
    "Authorization,X-Api-Key,Content-Type,User-Agent,Accept,X-Requested-With,Openai-Beta,"
    "Openai-Organization,Openai-Project,Anthropic-Version,Anthropic-Beta,"
    "Anthropic-Dangerous-Direct-Browser-Access,X-Stainless-Helper,X-Stainless-Arch,"
    "X-Stainless-Async,X-Stainless-Custom-Poll-Interval,X-Stainless-Helper-Method,X-Stainless-Lang,"
    "X-Stainless-Os,X-Stainless-Package-Version,X-Stainless-Poll-Helper,X-Stainless-Retry-Count,"
    "X-Stainless-Runtime,X-Stainless-Runtime-Version,X-Stainless-Timeout";

}  // namespace

bool origin_matches(std::string_view pattern, std::string_view origin) {
  const auto star = pattern.find('*');
  if (star == std::string_view::npos) return pattern == origin;
  const std::string_view before = pattern.substr(0, star);
  const std::string_view after = pattern.substr(star + 1);
  return origin.size() >= before.size() + after.size() && origin.starts_with(before) &&
         origin.ends_with(after);
}

bool host_allowed(std::string_view host) {
  const std::string name = lower(without_port(host));
  return address_allowed(name) || name_allowed(name);
}

Access::Verdict Access::judge(std::string_view method, std::string_view host,
                              std::string_view origin) const {
  Verdict verdict;
  const bool preflight = method == "OPTIONS";
  const bool same_origin =
      origin == std::format("http://{}", host) || origin == std::format("https://{}", host);
  if (!origin.empty() && !same_origin) {
    const bool everyone = std::ranges::contains(origins, "*");
    const std::string small = lower(origin);
    if (!everyone && std::ranges::none_of(origins, [&](const std::string& pattern) {
          return origin_matches(lower(pattern), small);
        })) {
      verdict.status = 403;
      return verdict;
    }
    verdict.headers.emplace_back("Access-Control-Allow-Origin",
                                 everyone ? std::string("*") : std::string(origin));
    if (!everyone) verdict.headers.emplace_back("Vary", "Origin");
    verdict.headers.emplace_back("Access-Control-Expose-Headers", "Request-Id,X-Request-Id");
    if (preflight) {
      verdict.headers.emplace_back("Access-Control-Allow-Methods", kMethods);
      verdict.headers.emplace_back("Access-Control-Allow-Headers", kHeaders);
      verdict.headers.emplace_back("Access-Control-Max-Age", "43200");
      if (!everyone) {
        verdict.headers.emplace_back("Vary", "Access-Control-Request-Method");
        verdict.headers.emplace_back("Vary", "Access-Control-Request-Headers");
      }
      verdict.status = 204;
      return verdict;
    }
  }
  if (check_host && !host_allowed(host)) {
    verdict.headers.clear();
    verdict.status = 403;
  }
  return verdict;
}

}  // namespace ollama::server
