#include "store/http.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <format>
#include <optional>

#include "api/curl.h"
#include "api/types.h"

namespace ollama::store {
namespace {

using api::curl;
using Clock = std::chrono::steady_clock;

constexpr int kPollMilliseconds = 100;  // how often time limits are looked at
constexpr long kReadBuffer = 256L << 10;
constexpr std::size_t kMaxHeaders = 64 << 10;  // bytes

std::string_view without_blanks(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n";
  const auto first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

#if defined(__x86_64__)
constexpr std::string_view kMachine = "amd64";
#elif defined(__aarch64__)
constexpr std::string_view kMachine = "arm64";
#else
constexpr std::string_view kMachine = "unknown";
#endif

// Registries compare the version with what a model needs.
std::string user_agent() {
  return std::format("ollama/{} ({} linux) ollama.cpp", api::kApiLevel, kMachine);
}

bool is_loopback(std::string_view host) {
  return host == "localhost" || host.starts_with("127.") || host == "[::1]" ||
         host.ends_with(".localhost");
}

// One exchange while it runs; what curl's callbacks see.
struct Exchange {
  const HttpRequest& request;
  const Patience& patience;
  CURL* easy;
  HttpAnswer answer;
  std::optional<Error> error;
  bool header_done = false;
  std::size_t header_bytes = 0;
  std::uint64_t sent = 0;

  Clock::time_point start = Clock::now();
  Clock::time_point last_sent = start;
  Clock::time_point stretch = start;  // since then `moved` bytes of a body have moved
  std::uint64_t moved = 0;

  std::uint64_t upload_size() const {
    return request.file >= 0 ? request.length : request.body.size();
  }
  std::size_t stop_with(Error why) {
    error = std::move(why);
    return CURL_WRITEFUNC_ERROR;
  }

  std::size_t take_header(std::string_view line);
  std::size_t take_body(std::string_view bytes);
  std::size_t give_body(std::span<char> buffer);
  // The limit that has been broken.
  std::optional<Error> overdue(Clock::time_point now);
};

std::size_t Exchange::take_header(std::string_view line) {
  header_bytes += line.size();
  if (header_bytes > kMaxHeaders) {
    return stop_with(Error(ErrorCode::kCorrupt, "the answer's header is too long"));
  }
  const std::string_view text = without_blanks(line);
  if (line.starts_with("HTTP/")) {
    answer.headers.clear();  // an interim answer came before
  } else if (text.empty()) {
    long status = 0;
    curl().easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    answer.status = static_cast<int>(status);
    header_done = status >= 200;
    stretch = Clock::now();
    moved = 0;
    if (header_done && request.sink && status < 300) {
      if (auto taken = request.sink(answer, {}); !taken) return stop_with(std::move(taken).error());
    }
  } else if (const auto colon = text.find(':'); colon != std::string_view::npos) {
    answer.headers[small_letters(text.substr(0, colon))] = without_blanks(text.substr(colon + 1));
  }
  return line.size();
}

std::size_t Exchange::take_body(std::string_view bytes) {
  moved += bytes.size();
  if (request.sink && answer.status < 300) {
    if (auto taken = request.sink(answer, std::as_bytes(std::span(bytes))); !taken) {
      return stop_with(std::move(taken).error());
    }
    return bytes.size();
  }
  const bool fits = answer.body.size() + bytes.size() <= request.body_limit;
  if (fits) {
    answer.body += bytes;
  } else if (answer.status < 300) {
    return stop_with(Error(ErrorCode::kCorrupt,
                           std::format("the answer is longer than {} bytes", request.body_limit)));
  } else {
    // The beginning of an error's text is enough.
    return CURL_WRITEFUNC_ERROR;
  }
  return bytes.size();
}

std::size_t Exchange::give_body(std::span<char> buffer) {
  const std::uint64_t wanted = std::min<std::uint64_t>(buffer.size(), upload_size() - sent);
  auto count = static_cast<std::size_t>(wanted);
  if (request.file >= 0) {
    const ssize_t got =
        ::pread(request.file, buffer.data(), count, static_cast<off_t>(request.offset + sent));
    if (got < 0 || (got == 0 && count > 0)) {
      error = got < 0 ? fail_errno("reading the blob", errno).error()
                      : Error(ErrorCode::kCorrupt, "the blob is shorter than it was");
      return CURL_READFUNC_ABORT;
    }
    count = static_cast<std::size_t>(got);
  } else {
    std::ranges::copy(request.body.substr(static_cast<std::size_t>(sent), count), buffer.begin());
  }
  if (request.sent && count > 0) request.sent(sent, {buffer.data(), count});
  sent += count;
  moved += count;
  last_sent = Clock::now();
  return count;
}

std::optional<Error> Exchange::overdue(Clock::time_point now) {
  const auto timeout = [](std::string text) { return Error(ErrorCode::kTimeout, std::move(text)); };
  const auto seconds = [](auto duration) {
    return std::chrono::duration<double>(duration).count();
  };
  if (request.total.count() > 0 && now - start > request.total) {
    return timeout(std::format("the answer was not complete after {:g} s", seconds(request.total)));
  }
  if (!header_done && sent == upload_size()) {
    const auto limit = request.answer.count() > 0 ? request.answer : patience.answer;
    if (now - last_sent <= patience.connect + limit) return std::nullopt;
    return timeout(std::format("no answer for {:g} s", seconds(limit)));
  }
  if (now - stretch <= patience.stall) return std::nullopt;
  if (moved < patience.slowest) {
    return timeout(std::format("stalled: {} bytes in {:g} s", moved, seconds(patience.stall)));
  }
  stretch = now;
  moved = 0;
  return std::nullopt;
}

std::size_t on_header(char* data, std::size_t size, std::size_t count, void* user) {
  return static_cast<Exchange*>(user)->take_header({data, size * count});
}
std::size_t on_write(char* data, std::size_t size, std::size_t count, void* user) {
  return static_cast<Exchange*>(user)->take_body({data, size * count});
}
std::size_t on_read(char* data, std::size_t size, std::size_t count, void* user) {
  return static_cast<Exchange*>(user)->give_body({data, size * count});
}

}  // namespace

std::string_view HttpAnswer::header(std::string_view name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? std::string_view() : std::string_view(found->second);
}

struct HttpClient::State {
  HttpOptions options;
  std::string agent = user_agent();
  // The transfer goes before the multi handle that it was added to.
  api::CurlMulti multi;
  api::CurlEasy easy;

  void set_up(const HttpRequest& request, const std::string& origin, Exchange& exchange,
              char* detail) const;
  Result<CURLcode> run(Exchange& exchange, const std::stop_token& stop) const;
};

HttpClient::HttpClient(std::unique_ptr<State> state) : state_(std::move(state)) {}
HttpClient::HttpClient(HttpClient&&) noexcept = default;
HttpClient& HttpClient::operator=(HttpClient&&) noexcept = default;
HttpClient::~HttpClient() = default;

Result<HttpClient> HttpClient::create(const HttpOptions& options) {
  OLLAMA_TRY(api::load_curl());
  auto state = std::make_unique<State>();
  state->options = options;
  state->multi.reset(curl().multi_init());
  state->easy.reset(curl().easy_init());
  if (!state->easy || !state->multi) {
    return fail(ErrorCode::kInternal, "the HTTP client could not be started");
  }
  return HttpClient(std::move(state));
}

void HttpClient::State::set_up(const HttpRequest& request, const std::string& origin,
                               Exchange& exchange, char* detail) const {
  CURL* handle = easy.get();
  const auto set = [handle](CURLoption option, auto value) {
    curl().easy_setopt(handle, option, value);
  };
  curl().easy_reset(handle);  // the connections stay open
  set(CURLOPT_URL, request.url.c_str());
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(options.patience.connect.count()));
  set(CURLOPT_TCP_KEEPALIVE, 1L);
  set(CURLOPT_USERAGENT, agent.c_str());
  set(CURLOPT_ERRORBUFFER, detail);
  set(CURLOPT_BUFFERSIZE, kReadBuffer);
  set(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
  const bool secure = origin.starts_with("https:");
  const std::string& proxy = secure ? options.https_proxy : options.http_proxy;
  set(CURLOPT_PROXY, is_loopback(host_of(origin)) ? "" : proxy.c_str());
  set(CURLOPT_NOPROXY, options.no_proxy.c_str());
  if (!options.certificates_file.empty()) set(CURLOPT_CAINFO, options.certificates_file.c_str());
  if (!options.certificates_folder.empty()) {
    set(CURLOPT_CAPATH, options.certificates_folder.c_str());
  }
  set(CURLOPT_HEADERFUNCTION, &on_header);
  set(CURLOPT_HEADERDATA, &exchange);
  set(CURLOPT_WRITEFUNCTION, &on_write);
  set(CURLOPT_WRITEDATA, &exchange);
  if (request.method == "HEAD") {
    set(CURLOPT_NOBODY, 1L);
  } else if (request.method != "GET") {
    set(CURLOPT_POST, 1L);
    set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(exchange.upload_size()));
    set(CURLOPT_READFUNCTION, &on_read);
    set(CURLOPT_READDATA, &exchange);
    set(CURLOPT_CUSTOMREQUEST, request.method.c_str());
  }
}

// Drives the exchange to its end.
Result<CURLcode> HttpClient::State::run(Exchange& exchange, const std::stop_token& stop) const {
  struct Added {
    CURLM* multi;
    CURL* easy;
    ~Added() { curl().multi_remove_handle(multi, easy); }
  };
  if (curl().multi_add_handle(multi.get(), easy.get()) != CURLM_OK) {
    return fail(ErrorCode::kInternal, "the HTTP client could not start an exchange");
  }
  const Added added{multi.get(), easy.get()};
  const std::stop_callback wake(stop, [this] { curl().multi_wakeup(multi.get()); });
  int running = 1;
  while (true) {
    if (stop.stop_requested()) return fail(ErrorCode::kCancelled, "context canceled");
    const CURLMcode code = curl().multi_perform(multi.get(), &running);
    if (code != CURLM_OK) return fail(ErrorCode::kIo, "{}", curl().multi_strerror(code));
    if (running == 0) break;
    if (auto late = exchange.overdue(Clock::now())) return std::unexpected(std::move(*late));
    curl().multi_poll(multi.get(), nullptr, 0, kPollMilliseconds, nullptr);
  }
  CURLcode outcome = CURLE_OK;
  int left = 0;
  while (const CURLMsg* message = curl().multi_info_read(multi.get(), &left)) {
    if (message->msg == CURLMSG_DONE) outcome = message->data.result;
  }
  return outcome;
}

Result<HttpAnswer> HttpClient::perform(const HttpRequest& request, const std::stop_token& stop) {
  OLLAMA_ASSIGN(const std::string origin, origin_of(request.url));
  CURL* handle = state_->easy.get();
  Exchange exchange{.request = request, .patience = state_->options.patience, .easy = handle};
  std::array<char, CURL_ERROR_SIZE> detail{};
  state_->set_up(request, origin, exchange, detail.data());
  api::CurlList headers;
  api::append(headers, "Expect:");
  api::append(headers, "Content-Type:");  // curl's own guess
  for (const std::string& line : request.headers) api::append(headers, line);
  curl().easy_setopt(handle, CURLOPT_HTTPHEADER, headers.get());

  auto outcome = state_->run(exchange, stop);
  if (exchange.error) return std::unexpected(std::move(*exchange.error));
  if (!outcome) return fail(std::move(outcome));
  // An error answer whose text is cut short, or that came before the upload was over, has its say.
  const bool refused = exchange.header_done && exchange.answer.status >= 300;
  if (*outcome != CURLE_OK && !refused) {
    std::string reason = detail[0] != '\0' ? detail.data() : curl().easy_strerror(*outcome);
    if (reason.contains("wrong version number")) {
      reason = "the server answers in plain http, not https: try --insecure";
    }
    const bool timeout = *outcome == CURLE_OPERATION_TIMEDOUT;
    return fail(timeout ? ErrorCode::kTimeout : ErrorCode::kUnavailable, "{}", reason);
  }
  const char* redirect = nullptr;
  curl().easy_getinfo(handle, CURLINFO_REDIRECT_URL, &redirect);
  if (redirect != nullptr) exchange.answer.redirect = redirect;
  return std::move(exchange.answer);
}

std::string small_letters(std::string_view text) {
  std::string result(text);
  std::ranges::transform(result, result.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return result;
}

Result<std::string> origin_of(std::string_view url) {
  const auto broken = [] { return fail(ErrorCode::kCorrupt, "an address that is not understood"); };
  const auto after_scheme = url.find("://");
  if (after_scheme == std::string_view::npos) return broken();
  const std::string scheme = small_letters(url.substr(0, after_scheme));
  if (scheme != "http" && scheme != "https") return broken();
  std::string_view rest = url.substr(after_scheme + 3);
  std::string authority = small_letters(rest.substr(0, rest.find_first_of("/?#")));
  const auto plain = [](unsigned char c) {
    return std::isalnum(c) != 0 || std::string_view(".-_:[]").contains(static_cast<char>(c));
  };
  if (authority.empty() || !std::ranges::all_of(authority, plain)) return broken();
  for (const char c : url) {
    if (static_cast<unsigned char>(c) <= 0x20 || c == 0x7f) return broken();
  }
  const std::string_view usual = scheme == "http" ? ":80" : ":443";
  if (authority.ends_with(usual)) authority.resize(authority.size() - usual.size());
  return std::format("{}://{}", scheme, authority);
}

std::string_view host_of(std::string_view origin) {
  const auto after_scheme = origin.find("://");
  if (after_scheme != std::string_view::npos) origin.remove_prefix(after_scheme + 3);
  const auto colon = origin.rfind(':');
  const auto bracket = origin.rfind(']');  // of an IPv6 address, which has colons inside
  if (colon != std::string_view::npos && (bracket == std::string_view::npos || colon > bracket)) {
    origin = origin.substr(0, colon);
  }
  return origin;
}

Result<std::string> resolve_location(std::string_view base, std::string_view location) {
  OLLAMA_ASSIGN(const std::string origin, origin_of(base));
  std::string url;
  if (location.starts_with("//")) {
    url = std::format("{}:{}", origin.substr(0, origin.find(':')), location);
  } else if (location.starts_with("/")) {
    url = origin + std::string(location);
  } else {
    url = location;
  }
  OLLAMA_TRY(origin_of(url));
  return url;
}

std::string query_escape(std::string_view text) {
  std::string result;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0 || std::string_view("-_.~").contains(c)) {
      result += c;
    } else if (c == ' ') {
      result += '+';
    } else {
      result += std::format("%{:02X}", byte);
    }
  }
  return result;
}

}  // namespace ollama::store
