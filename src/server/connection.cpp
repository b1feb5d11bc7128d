#include "server/connection.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <ctime>

#include "api/chat_format.h"
#include "base/log.h"

namespace ollama::server {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using SystemError = boost::system::error_code;

namespace {

constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);
// What a client may send ahead while its request is being answered.
constexpr std::size_t kReadAhead = 64UL << 10;
// What is read and thrown away of a request that was refused, so that the answer arrives.
constexpr std::size_t kMaxDrain = 4UL << 20;

std::string http_date() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  std::array<char, 64> text{};
  const auto size = std::strftime(text.data(), text.size(), "%a, %d %b %Y %H:%M:%S GMT", &parts);
  return {text.data(), size};
}

std::string_view as_view(beast::string_view text) { return {text.data(), text.size()}; }

// Compares in a time that does not tell how much of a guess was right.
bool equal_keys(std::string_view a, std::string_view b) {
  unsigned difference = a.size() == b.size() ? 0 : 1;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference |= static_cast<unsigned char>(a[i]) ^
                  static_cast<unsigned char>(b.empty() ? 0 : b[i % b.size()]);
  }
  return difference == 0;
}

struct HttpRequest final : Request {
  http::fields fields;
  std::string_view header(std::string_view name) const override { return as_view(fields[name]); }
};

}  // namespace

class Connection final : public Exchange, public std::enable_shared_from_this<Connection> {
 public:
  Connection(asio::ip::tcp::socket socket, ConnectionContext& context)
      : context_(context), stream_(std::move(socket)), buffer_(kReadAhead + context.limits.header) {
    context_.open.insert(this);
    SystemError ignored;
    stream_.socket().set_option(asio::ip::tcp::no_delay(true), ignored);
    stream_.socket().non_blocking(true, ignored);
    const auto endpoint = stream_.socket().remote_endpoint(ignored);
    remote_ = endpoint.address().to_string();
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() override { context_.open.erase(this); }

  Task<> run() {
    while (!closed_ && co_await one_request()) {
    }
    close();
  }

  bool idle() const { return idle_; }
  void close() {
    if (closed_) return;
    closed_ = true;
    SystemError ignored;
    stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_both, ignored);
    stream_.close();
    disconnected();
  }

  // ---- Exchange

  const Request& request() const override { return request_; }
  bool started() const override { return started_; }

  void set_header(std::string_view name, std::string_view value) override {
    response_headers_.emplace_back(name, value);
  }

  Task<> respond(int status, std::string_view content_type, std::string_view body) override {
    if (std::exchange(started_, true)) co_return;
    stop_watching();
    status_ = status;
    std::string head = response_head(status, content_type);
    const bool no_body = status == 204 || status == 304;
    if (!no_body) head += std::format("Content-Length: {}\r\n", body.size());
    head += "\r\n";
    if (request_.method != "HEAD" && !no_body) head += body;
    co_await send(head);
  }

  Task<> begin_stream(std::string_view content_type) override {
    if (std::exchange(started_, true)) co_return;
    status_ = 200;
    if (version_ < 11) keep_alive_ = false;   // the end of the connection ends the body
    if (content_type == api::kEventStream) {  // proxies would keep them together, or for later
      set_header("Cache-Control", "no-cache");
      set_header("X-Accel-Buffering", "no");
    }
    pending_head_ = response_head(200, content_type);
    if (version_ >= 11) pending_head_ += "Transfer-Encoding: chunked\r\n";
    pending_head_ += "\r\n";
  }
  Task<bool> write(std::string_view bytes) override {
    std::string data = std::exchange(pending_head_, {});
    if (request_.method != "HEAD" && !bytes.empty()) {
      if (version_ >= 11) {
        data += std::format("{:x}\r\n{}\r\n", bytes.size(), bytes);
      } else {
        data += bytes;
      }
    }
    co_return co_await send(data);
  }
  Task<> end_stream() override {
    stop_watching();
    std::string data = std::exchange(pending_head_, {});
    if (version_ >= 11 && request_.method != "HEAD") data += "0\r\n\r\n";
    if (!data.empty()) co_await send(data);
  }

  void on_disconnect(std::function<void()> callback) override {
    on_disconnect_ = std::move(callback);
    if (gone_) {
      asio::post(stream_.get_executor(), [self = shared_from_this()] { self->disconnected(); });
    } else if (!watching_) {
      watch();
    }
  }

  Task<Result<std::size_t>> read_body(std::span<char> into) override {
    if (!pieces_) co_return std::size_t{0};
    if (expects_continue_ && !co_await send_continue()) {
      co_return fail(ErrorCode::kIo, "the client closed the connection");
    }
    std::size_t got = 0;
    while (got == 0 && !pieces_->is_done()) {
      auto& body = pieces_->get().body();
      body.data = into.data();
      body.size = into.size();
      stream_.expires_after(context_.limits.piece);
      auto [error, bytes] = co_await http::async_read_some(stream_, buffer_, *pieces_, kAwait);
      got = into.size() - body.size;
      if (error && error != http::error::need_buffer) {
        keep_alive_ = false;
        if (error == http::error::partial_message || error == http::error::end_of_stream) {
          co_return fail(ErrorCode::kIo, "unexpected EOF");
        }
        const bool broken =
            error.category() == http::make_error_code(http::error::bad_chunk).category();
        co_return fail(broken ? ErrorCode::kInvalidArgument : ErrorCode::kIo,
                       "reading the body: {}", error.message());
      }
    }
    co_return got;
  }
  std::optional<std::uint64_t> content_length() const override { return content_length_; }

 private:
  // Reads, checks and answers one request; false when the connection is to be closed.
  Task<bool> one_request() {
    reset();
    if (buffer_.size() == 0) {
      // Most of a connection's life is spent here: with nothing but a small buffer.
      idle_ = true;
      buffer_.clear();
      if (buffer_.capacity() > 4096) buffer_.shrink_to_fit();
      stream_.expires_after(context_.limits.idle);
      auto [error, bytes] = co_await stream_.async_read_some(buffer_.prepare(1024), kAwait);
      idle_ = false;
      if (error) co_return false;
      buffer_.commit(bytes);
    }
    http::request_parser<http::empty_body> head;
    head.header_limit(context_.limits.header);
    head.body_limit(boost::none);
    stream_.expires_after(context_.limits.head);
    if (auto [error, bytes] = co_await http::async_read_header(stream_, buffer_, head, kAwait);
        error) {
      co_return co_await refuse_head(error);
    }
    started_at_ = std::chrono::steady_clock::now();
    route_ = "other";
    keep_alive_ = head.keep_alive();
    version_ = static_cast<int>(head.get().version());
    const auto length = head.content_length();
    content_length_ = length ? std::optional<std::uint64_t>(*length) : std::nullopt;
    has_body_ = head.chunked() || content_length_.value_or(0) > 0;
    expects_continue_ = has_body_ && version_ >= 11 &&
                        beast::iequals(head.get()[http::field::expect], "100-continue");
    co_await handle(head);
    if (status_ == 0) status_ = 499;  // nobody was there to answer
    if (log::level() <= log::Level::kInfo) log_request();
    if (context_.answered) {
      context_.answered(route_, status_, std::chrono::steady_clock::now() - started_at_);
    }
    if (closed_ || !keep_alive_ || (pieces_ && !pieces_->is_done())) {
      co_await linger();
      co_return false;
    }
    co_return true;
  }

  Task<> handle(http::request_parser<http::empty_body>& head) {
    request_.method = as_view(head.get().method_string());
    request_.fields = head.get().base();
    request_.remote = remote_;
    std::string_view target = as_view(head.get().target());
    if (target.starts_with("http://")) {  // as sent to a proxy
      const auto slash = target.find('/', 7);
      target = slash == std::string_view::npos ? "/" : target.substr(slash);
    }
    target = target.substr(0, target.find('#'));
    const auto question = target.find('?');
    if (question != std::string_view::npos) request_.query = target.substr(question + 1);
    auto path = decode_path(target.substr(0, question));
    const auto hosts = head.get().count(http::field::host);
    if (!path || hosts > 1 || (hosts == 0 && version_ >= 11)) {
      co_await refuse(400,
                      !path ? "400 Bad Request" : "400 Bad Request: missing required Host header");
      co_return;
    }
    request_.path = std::move(*path);

    auto verdict =
        context_.access.judge(request_.method, request_.header("Host"), request_.header("Origin"));
    response_headers_ = std::move(verdict.headers);
    if (request_.path.starts_with("/v1/")) {
      request_.id = api::new_request_id();
      set_header(is_anthropic(request_) ? "Request-Id" : "X-Request-Id", request_.id);
    }
    if (verdict.status) {
      if (has_body_) keep_alive_ = false;
      co_await respond(*verdict.status, {}, {});
      co_return;
    }
    Match match = context_.router.match(request_.method, request_.path);
    route_ = match.route == nullptr ? "other" : std::string_view(match.route->pattern);
    if (match.route == nullptr) {
      if (!match.location.empty()) {
        set_header("Location", request_.query.empty()
                                   ? match.location
                                   : std::format("{}?{}", match.location, request_.query));
      }
      if (!match.allow.empty()) set_header("Allow", match.allow);
      co_await refuse(match.status, match.status == 404   ? "404 page not found"
                                    : match.status == 405 ? "405 method not allowed"
                                                          : "");
      co_return;
    }
    if (!authorized()) {
      if (has_body_) keep_alive_ = false;
      co_await respond_error(401, "unauthorized");
      co_return;
    }
    request_.parameters = std::move(match.parameters);
    if (match.route->body == Body::kPieces) {
      pieces_.emplace(std::move(head));
    } else if (!co_await read_whole_body(head)) {
      co_return;
    }
    // co_await is not allowed in a handler of exceptions.
    std::string problem;
    try {
      co_await match.route->handler(*this);
    } catch (const std::exception& exception) {
      problem = exception.what();
    }
    if (!problem.empty()) {
      log::error("{} {}: {}", request_.method, request_.path, problem);
      keep_alive_ = false;
    }
    // A handler that nobody waits for any more answers nothing.
    const bool left = gone_ && problem.empty();
    if (!started_ && !left) co_await respond_error(500, problem.empty() ? "no answer" : problem);
    if (!started_ && left) keep_alive_ = false;
    stop_watching();
  }

  Task<bool> read_whole_body(http::request_parser<http::empty_body>& head) {
    if (!has_body_) co_return true;
    if (content_length_.value_or(0) > context_.limits.body) {
      co_await refuse_body();
      co_return false;
    }
    if (expects_continue_ && !co_await send_continue()) co_return false;
    http::request_parser<http::string_body> parser(std::move(head));
    parser.body_limit(context_.limits.body);
    stream_.expires_after(context_.limits.body_time);
    auto [error, bytes] = co_await http::async_read(stream_, buffer_, parser, kAwait);
    if (error) {
      keep_alive_ = false;
      if (error == http::error::body_limit) {
        co_await refuse_body();
      } else {
        co_await respond_error(400, "the request body ends early or is malformed");
      }
      co_return false;
    }
    request_.body = std::move(parser.get().body());
    co_return true;
  }
  Task<> refuse_body() {
    keep_alive_ = false;
    co_await respond_error(
        413, std::format("the request body is larger than {} bytes", context_.limits.body));
  }

  Task<bool> refuse_head(SystemError error) {
    const bool malformed =
        error.category() == http::make_error_code(http::error::bad_method).category();
    if (malformed && error != http::error::end_of_stream && error != http::error::partial_message) {
      keep_alive_ = false;
      const bool too_long =
          error == http::error::header_limit || error == http::error::buffer_overflow;
      co_await respond(too_long ? 431 : 400, kText,
                       too_long ? "431 Request Header Fields Too Large" : "400 Bad Request");
      co_await linger();
    }
    co_return false;
  }
  // Without reading the body: the connection cannot go on after one.
  Task<> refuse(int status, std::string_view text) {
    if (has_body_ || status == 400) keep_alive_ = false;
    co_await respond(status, text.empty() ? std::string_view{} : kText, text);
  }

  bool authorized() const {
    if (context_.api_keys.empty() || request_.path == "/") return true;
    static constexpr std::string_view kBlanks = " \t";
    std::string_view given = request_.header("Authorization");
    const std::size_t scheme = std::min(given.find_first_of(kBlanks), given.size());
    if (beast::iequals(given.substr(0, scheme), "bearer")) {
      given.remove_prefix(std::min(given.find_first_not_of(kBlanks, scheme), given.size()));
    } else {
      given = request_.header("x-api-key");
    }
    return std::ranges::any_of(context_.api_keys,
                               [&](const std::string& key) { return equal_keys(given, key); });
  }

  std::string response_head(int status, std::string_view content_type) const {
    std::string head =
        std::format("HTTP/1.{} {} {}\r\n", version_ >= 11 ? 1 : 0, status,
                    as_view(http::obsolete_reason(static_cast<http::status>(status))));
    if (!content_type.empty()) head += std::format("Content-Type: {}\r\n", content_type);
    head += std::format("Date: {}\r\n", http_date());
    for (const auto& [name, value] : response_headers_) {
      // Values may come from the request: a line break in one would start another header.
      if (value.find_first_of("\r\n") == std::string::npos) {
        head += std::format("{}: {}\r\n", name, value);
      }
    }
    if (!keep_alive_) {
      head += "Connection: close\r\n";
    } else if (version_ < 11) {
      head += "Connection: keep-alive\r\n";
    }
    return head;
  }

  Task<bool> send_continue() {
    expects_continue_ = false;
    co_return co_await send("HTTP/1.1 100 Continue\r\n\r\n");
  }
  Task<bool> send(std::string_view bytes) {
    if (closed_) co_return false;
    stream_.expires_after(context_.limits.write);
    auto [error, written] =
        co_await asio::async_write(stream_, asio::buffer(bytes.data(), bytes.size()), kAwait);
    if (error) {
      close();
      co_return false;
    }
    stream_.expires_never();
    co_return true;
  }

  // Lets the client read the answer before the connection goes: closing with unread data resets it.
  Task<> linger() {
    if (closed_) co_return;
    SystemError ignored;
    stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
    stream_.expires_after(std::chrono::seconds(2));
    buffer_.clear();
    std::size_t drained = 0;
    while (drained < kMaxDrain && !closed_) {
      auto [error, bytes] = co_await stream_.async_read_some(buffer_.prepare(kReadAhead), kAwait);
      if (error) break;
      drained += bytes;
    }
  }

  // ---- Noticing that the client goes away while its request is being answered

  void watch() {
    watching_ = true;
    stream_.socket().async_wait(
        asio::ip::tcp::socket::wait_read,
        asio::bind_cancellation_slot(watch_cancel_.slot(),
                                     [self = shared_from_this()](SystemError error) {
                                       self->watching_ = false;
                                       if (!error) self->readable();
                                     }));
  }
  void readable() {
    if (!on_disconnect_ || closed_) return;
    while (buffer_.size() < kReadAhead) {
      SystemError error;
      const std::size_t bytes = stream_.socket().read_some(buffer_.prepare(4096), error);
      if (error == asio::error::would_block) {
        watch();
        return;
      }
      if (error) {
        gone_ = true;
        disconnected();
        return;
      }
      buffer_.commit(bytes);  // the next request, sent ahead
    }
    // Enough was sent ahead; should the client go now, writing to it will tell.
  }
  void stop_watching() {
    on_disconnect_ = nullptr;
    if (watching_) watch_cancel_.emit(asio::cancellation_type::terminal);
  }
  void disconnected() {
    gone_ = true;
    if (const auto callback = std::exchange(on_disconnect_, nullptr)) callback();
  }

  void reset() {
    request_ = {};
    response_headers_.clear();
    pending_head_.clear();
    pieces_.reset();
    content_length_.reset();
    has_body_ = expects_continue_ = started_ = false;
    keep_alive_ = true;
    version_ = 11;
    status_ = 0;
  }
  void log_request() const {
    const auto took = std::chrono::duration_cast<std::chrono::microseconds>(
        std::chrono::steady_clock::now() - started_at_);
    log::info("{} {} {} {} {:.3f} ms", status_, remote_, request_.method, request_.path,
              static_cast<double>(took.count()) / 1000);
  }

  ConnectionContext& context_;
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
  std::string remote_;
  HttpRequest request_;
  std::optional<http::request_parser<http::buffer_body>> pieces_;
  std::optional<std::uint64_t> content_length_;
  Headers response_headers_;
  std::string pending_head_;
  std::function<void()> on_disconnect_;
  asio::cancellation_signal watch_cancel_;
  std::chrono::steady_clock::time_point started_at_;
  std::string_view route_;  // the pattern that the request matched
  int version_ = 11;
  int status_ = 0;
  bool has_body_ = false;
  bool expects_continue_ = false;
  bool started_ = false;
  bool keep_alive_ = true;
  bool watching_ = false;
  bool idle_ = false;
  bool gone_ = false;    // the client closed its side
  bool closed_ = false;  // this side did
};

void serve_connection(asio::ip::tcp::socket socket, ConnectionContext& context) {
  auto executor = socket.get_executor();
  auto connection = std::make_shared<Connection>(std::move(socket), context);
  asio::co_spawn(
      executor, [connection]() -> Task<> { co_await connection->run(); },
      [](const std::exception_ptr& problem) {
        if (!problem) return;
        try {
          std::rethrow_exception(problem);
        } catch (const std::exception& exception) {
          log::error("connection: {}", exception.what());
        }
      });
}

void close_connections(ConnectionContext& context, bool only_idle) {
  const std::vector<Connection*> open(context.open.begin(), context.open.end());
  for (Connection* connection : open) {
    if (!context.open.contains(connection) || (only_idle && !connection->idle())) continue;
    connection->shared_from_this()->close();
  }
}

}  // namespace ollama::server
