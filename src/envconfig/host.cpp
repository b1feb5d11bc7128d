// OLLAMA_HOST.
#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <format>

#include "base/units.h"
#include "envconfig/config.h"

namespace ollama::envconfig {
namespace {

// The canonical text of an IP address; nullopt when it is none.
std::optional<std::string> canonical_ip(const std::string& text) {
  std::array<unsigned char, 16> address{};
  std::array<char, INET6_ADDRSTRLEN> buffer{};
  for (const int family : {AF_INET, AF_INET6}) {
    if (inet_pton(family, text.c_str(), address.data()) == 1 &&
        inet_ntop(family, address.data(), buffer.data(), buffer.size()) != nullptr) {
      return std::string(buffer.data());
    }
  }
  return std::nullopt;
}

struct HostPort {
  std::string host;
  std::string port;
};

// "host:port" or "[ipv6]:port"; nullopt when there is no port to split off.
std::optional<HostPort> split_host_port(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return std::nullopt;
  std::string_view host = text.substr(0, colon);
  if (host.starts_with('[')) {
    if (!host.ends_with(']')) return std::nullopt;
    host = host.substr(1, host.size() - 2);
  } else if (host.contains(':')) {
    return std::nullopt;  // a bare IPv6 address
  }
  return HostPort{std::string(host), std::string(text.substr(colon + 1))};
}

std::string_view trim_brackets(std::string_view text) {
  while (!text.empty() && (text.front() == '[' || text.front() == ']')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == '[' || text.back() == ']')) text.remove_suffix(1);
  return text;
}

}  // namespace

Host parse_host(std::string_view text, std::string* warning) {
  Host host;
  std::uint16_t default_port = 11434;
  if (const std::size_t separator = text.find("://"); separator != std::string_view::npos) {
    host.scheme = text.substr(0, separator);
    std::ranges::transform(host.scheme, host.scheme.begin(), [](char c) {
      return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    });
    text.remove_prefix(separator + 3);
    if (host.scheme == "http") default_port = 80;
    if (host.scheme == "https") default_port = 443;
  }
  if (const std::size_t slash = text.find('/'); slash != std::string_view::npos) {
    host.path = text.substr(slash + 1);
    while (host.path.ends_with('/')) host.path.pop_back();
    text = text.substr(0, slash);
  }

  host.port = default_port;
  if (auto split = split_host_port(text)) {
    // ":8080" listens on every address.
    host.name = split->host.empty() ? "0.0.0.0" : canonical_ip(split->host).value_or(split->host);
    if (const auto port = parse_number<std::uint16_t>(split->port)) {
      host.port = *port;
    } else if (warning != nullptr) {
      *warning =
          std::format("OLLAMA_HOST: \"{}\" is not a port; using {}", split->port, default_port);
    }
  } else if (!text.empty()) {
    host.name = canonical_ip(std::string(trim_brackets(text))).value_or(std::string(text));
  }
  return host;
}

std::string Host::address() const {
  return name.contains(':') ? std::format("[{}]:{}", name, port) : std::format("{}:{}", name, port);
}

std::string Host::url() const {
  std::string url = std::format("{}://{}", scheme, address());
  if (!path.empty()) url += "/" + path;
  return url;
}

Host Host::connectable() const {
  Host host = *this;
  if (name == "0.0.0.0") host.name = "127.0.0.1";
  if (name == "::") host.name = "::1";
  return host;
}

bool Host::is_loopback() const {
  in_addr address{};
  if (inet_pton(AF_INET, name.c_str(), &address) == 1) {
    return (ntohl(address.s_addr) >> 24) == 127;
  }
  return name == "::1" || name == "localhost";
}

}  // namespace ollama::envconfig
