// One HTTP request and its response, as handlers see them: no sockets, no Beast. Everything of one
// connection happens on the server's one loop; handlers are coroutines on it.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/types.h"
#include "base/error.h"

namespace ollama::server {

template <typename T = void>
using Task = boost::asio::awaitable<T>;

using Headers = std::vector<std::pair<std::string, std::string>>;

inline constexpr std::string_view kJson = "application/json; charset=utf-8";
inline constexpr std::string_view kNdjson = "application/x-ndjson";
inline constexpr std::string_view kText = "text/plain; charset=utf-8";

struct Request {
  std::string method;  // "GET"
  std::string path;    // without the query, percent escapes decoded
  std::string query;   // without '?'
  std::map<std::string, std::string, std::less<>> parameters;  // of the route's pattern
  std::string body;    // whole, unless the route reads it piece by piece
  std::string remote;  // "127.0.0.1"
  std::string id;      // "req_...", of paths under /v1/: clients show it with errors

  virtual ~Request() = default;
  // The value of a header, any case; empty when missing.
  virtual std::string_view header(std::string_view name) const = 0;
};

// Whether a client of Anthropic's API asks.
bool is_anthropic(const Request& request);

// Errors of writing are not told: the connection is closed, and on_disconnect has been called.
class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual const Request& request() const = 0;

  // The whole response. Once, and instead of a stream.
  virtual Task<> respond(int status, std::string_view content_type, std::string_view body) = 0;
  Task<> respond_json(int status, const api::JsonObject& json);
  // In the shape of the API that the path belongs to: {"error": message}, or as OpenAI or Anthropic
  // have it.
  Task<> respond_error(int status, std::string_view message);
  Task<> respond_error(const Error& error);

  // A response in pieces, each on its way at once. begin_stream sends the header with the first
  // piece.
  virtual Task<> begin_stream(std::string_view content_type) = 0;
  // False when the client is gone.
  virtual Task<bool> write(std::string_view bytes) = 0;
  virtual Task<> end_stream() = 0;
  virtual bool started() const = 0;  // whether anything has been sent

  // Adds a header to the response, before it starts.
  virtual void set_header(std::string_view name, std::string_view value) = 0;

  // Calls `callback` once if the client closes the connection before the response has ended, or the
  // server shuts down.
  virtual void on_disconnect(std::function<void()> callback) = 0;

  // The next bytes of a body that is read piece by piece; 0 at its end. Errors: kInvalidArgument
  // (broken framing), kIo (the client is gone or sends nothing any more).
  virtual Task<Result<std::size_t>> read_body(std::span<char> into) = 0;
  // As the request says; nullopt with chunks.
  virtual std::optional<std::uint64_t> content_length() const = 0;
};

using Handler = std::function<Task<>(Exchange&)>;

}  // namespace ollama::server
