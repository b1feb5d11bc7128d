// Internal to store: one HTTP exchange at a time over libcurl, bounded in time and size, ended at
// once when a stop is requested. Redirects are the caller's to follow.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace ollama::store {

// How long a peer is waited for, and how often it is asked again.
struct Patience {
  std::chrono::milliseconds connect = std::chrono::seconds(30);
  std::chrono::milliseconds answer = std::chrono::seconds(60);  // until the header has come
  // In every such stretch of a body `slowest` bytes must move.
  std::chrono::milliseconds stall = std::chrono::seconds(30);
  std::uint64_t slowest = 16 << 10;
  std::chrono::milliseconds small = std::chrono::minutes(2);    // of answers that are no blobs
  std::chrono::milliseconds commit = std::chrono::minutes(15);  // until a pushed blob is checked
  int attempts = 6;  // that bring nothing, one after another, before it is given up
  std::chrono::milliseconds pause = std::chrono::seconds(1);  // before the second; then doubled
  std::chrono::milliseconds longest_pause = std::chrono::seconds(30);
};

struct HttpOptions {
  std::string http_proxy;  // never used for the loopback addresses
  std::string https_proxy;
  std::string no_proxy;
  std::string certificates_file;  // instead of the system's
  std::string certificates_folder;
  Patience patience;
};

struct HttpAnswer {
  int status = 0;
  std::map<std::string, std::string, std::less<>> headers;  // names in small letters
  std::string body;                                         // what the sink did not get
  std::string redirect;  // where a 3xx leads, absolute; empty when there is none

  std::string_view header(std::string_view name) const;
};

struct HttpRequest {
  std::string method = "GET";
  std::string url;
  std::vector<std::string> headers;  // "Name: value"

  std::string_view body;
  int file = -1;  // instead of `body`: `length` bytes of this file from `offset` on
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  // Told what leaves of the file, and how much of it left before.
  std::function<void(std::uint64_t before, std::string_view bytes)> sent;

  // Where the body of an answer with a status below 300 goes, nothing at first, when the header is
  // in; an error ends the exchange and is its result. Without a sink the body is kept.
  std::function<Result<>(const HttpAnswer& header, std::span<const std::byte> bytes)> sink;
  std::size_t body_limit = 64 << 10;    // of a body that is kept; longer ones are kCorrupt
  std::chrono::milliseconds answer{0};  // instead of Patience::answer
  std::chrono::milliseconds total{0};   // 0: as long as bytes move
};

// For one thread; keeps its connection open between exchanges.
class HttpClient {
 public:
  // kUnsupported without libcurl.
  static Result<HttpClient> create(const HttpOptions& options);
  HttpClient(HttpClient&&) noexcept;
  HttpClient& operator=(HttpClient&&) noexcept;
  ~HttpClient();

  // An answer of any status. Errors: kUnavailable (no connection, or it broke), kTimeout, kCorrupt
  // (no HTTP, or too long), kCancelled, the sink's.
  Result<HttpAnswer> perform(const HttpRequest& request, const std::stop_token& stop);

 private:
  struct State;
  explicit HttpClient(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// "https://host:port" of a URL in small letters, the scheme's own port left out. kCorrupt for
// anything but http and https, and for what different readers might understand differently (a user
// name, strange characters).
Result<std::string> origin_of(std::string_view url);
// The host alone, without the port.
std::string_view host_of(std::string_view origin);
// What a Location header means where the URL `base` was asked.
Result<std::string> resolve_location(std::string_view base, std::string_view location);
std::string small_letters(std::string_view text);
// As Go's url.QueryEscape does it.
std::string query_escape(std::string_view text);

}  // namespace ollama::store
