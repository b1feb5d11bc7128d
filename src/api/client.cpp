#include "api/client.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <format>
#include <optional>
#include <span>

#include "api/curl.h"
#include "base/unique_fd.h"

namespace ollama::api {
namespace {

constexpr std::size_t kMaxLine = std::size_t{64} << 20;  // one NDJSON line
constexpr std::size_t kMaxBody = std::size_t{1} << 30;
constexpr int kPollMilliseconds = 50;  // how soon a stop flag is seen

// Where an answer's bytes go; returns false to end the transfer.
using Sink = std::function<bool(std::string_view bytes)>;
// Where a body's bytes come from; 0 at its end.
using Source = std::function<std::size_t(std::span<char> buffer)>;

struct Transfer {
  CURL* easy = nullptr;
  Sink sink;
  Source source;
  std::string error_body;  // of an answer with an error status
};

std::size_t on_write(char* data, std::size_t size, std::size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  const std::string_view bytes(data, size * count);
  long status = 0;
  curl().easy_getinfo(transfer.easy, CURLINFO_RESPONSE_CODE, &status);
  if (status >= 400) {
    if (transfer.error_body.size() + bytes.size() > kMaxLine) return CURL_WRITEFUNC_ERROR;
    transfer.error_body += bytes;
    return bytes.size();
  }
  return transfer.sink(bytes) ? bytes.size() : CURL_WRITEFUNC_ERROR;
}

std::size_t on_read(char* buffer, std::size_t size, std::size_t count, void* user) {
  return static_cast<Transfer*>(user)->source({buffer, size * count});
}

ErrorCode code_of(int status) {
  switch (status) {
    case 400:
      return ErrorCode::kInvalidArgument;
    case 401:
    case 403:
      return ErrorCode::kPermission;
    case 404:
      return ErrorCode::kNotFound;
    case 409:
      return ErrorCode::kAlreadyExists;
    case 499:
      return ErrorCode::kCancelled;
    case 503:
      return ErrorCode::kUnavailable;
    default:
      return ErrorCode::kInternal;
  }
}

// The message of {"error": "..."} or {"error": {"message": "..."}}; nullopt when there is none.
std::optional<std::string> error_message(const Json& json) {
  const auto* object = json.if_object();
  if (object == nullptr) return std::nullopt;
  const Json* error = object->if_contains("error");
  if (error == nullptr) return std::nullopt;
  if (const auto* inner = error->if_object()) error = inner->if_contains("message");
  if (error == nullptr || !error->is_string()) return std::nullopt;
  return std::string(error->get_string());
}

Error status_to_error(int status, std::string_view body) {
  std::optional<std::string> message;
  if (const auto json = parse_json(body)) message = error_message(*json);
  if (!message) {
    message = body.empty() || body.size() > 400
                  ? std::format("the server answered with status {}", status)
                  : std::format("the server answered with status {}: {}", status, body);
  }
  if (status == 401 && *message == "unauthorized")
    *message += " (OLLAMA_API_KEYS must have one of the server's keys first)";
  return {code_of(status), std::move(*message)};
}

}  // namespace

struct Client::State {
  envconfig::Host host;
  std::string proxy;
  std::string no_proxy;
  std::string api_key;
  // The transfer must go before the multi handle that it was added to.
  CurlMulti multi;
  CurlEasy easy;
  std::stop_token stop;
  const std::atomic<bool>* stop_flag = nullptr;

  bool stopped() const {
    return stop.stop_requested() ||
           (stop_flag != nullptr && stop_flag->load(std::memory_order_relaxed));
  }

  // Runs one exchange; the answer's status, whatever it is. `error_body` gets the body of an error.
  struct Body {
    std::string_view text = {};
    Source source = {};  // instead of `text`
    std::uint64_t size = 0;
    std::string_view type = "application/json";
  };
  Result<int> perform(std::string_view method, std::string_view path, const Body& body,
                      const Sink& sink, std::string& error_body);
  Result<> run(CURLcode& outcome);
  Error describe(CURLcode outcome, const char* detail) const;
};

Error Client::State::describe(CURLcode outcome, const char* detail) const {
  const std::string reason = *detail != '\0' ? detail : curl().easy_strerror(outcome);
  switch (outcome) {
    case CURLE_COULDNT_CONNECT:
    case CURLE_COULDNT_RESOLVE_HOST:
      if (host.is_loopback()) {
        return {ErrorCode::kUnavailable,
                "could not connect to ollama server, run 'ollama serve' to start it"};
      }
      return {ErrorCode::kUnavailable,
              std::format("could not connect to the ollama server at {} (OLLAMA_HOST): {}",
                          host.url(), reason)};
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
      return {ErrorCode::kInvalidArgument,
              std::format("OLLAMA_HOST does not name a server: {}: {}", host.url(), reason)};
    case CURLE_OPERATION_TIMEDOUT:
      return {ErrorCode::kTimeout, std::format("{} did not answer: {}", host.url(), reason)};
    default:
      return {ErrorCode::kUnavailable,
              std::format("the connection to {} failed: {}", host.url(), reason)};
  }
}

// Drives the transfer to its end, waking up at once when a stop is requested.
Result<> Client::State::run(CURLcode& outcome) {
  struct Added {
    CURLM* multi;
    CURL* easy;
    ~Added() { curl().multi_remove_handle(multi, easy); }
  };
  if (curl().multi_add_handle(multi.get(), easy.get()) != CURLM_OK) {
    return fail(ErrorCode::kInternal, "the HTTP client could not start a transfer");
  }
  const Added added{multi.get(), easy.get()};
  const std::stop_callback wake(stop, [this] { curl().multi_wakeup(multi.get()); });
  int running = 1;
  while (true) {
    if (stopped()) return fail(ErrorCode::kCancelled, "the request was cancelled");
    const CURLMcode code = curl().multi_perform(multi.get(), &running);
    if (code != CURLM_OK) return fail(ErrorCode::kIo, "{}", curl().multi_strerror(code));
    if (running == 0) break;
    curl().multi_poll(multi.get(), nullptr, 0, kPollMilliseconds, nullptr);
  }
  int left = 0;
  while (const CURLMsg* message = curl().multi_info_read(multi.get(), &left)) {
    if (message->msg == CURLMSG_DONE) outcome = message->data.result;
  }
  return {};
}

Result<int> Client::State::perform(std::string_view method, std::string_view path, const Body& body,
                                   const Sink& sink, std::string& error_body) {
  CURL* handle = easy.get();
  curl().easy_reset(handle);  // the connections stay open

  Transfer transfer{handle, sink, body.source, {}};
  std::array<char, CURL_ERROR_SIZE> detail{};
  const std::string url = host.url() + std::string(path);
  const std::string verb(method);
  const bool has_body = body.source || !body.text.empty();

  CurlList headers;
  append(headers, "Expect:");
  append(headers, "Accept: application/x-ndjson, application/json");
  if (has_body) append(headers, std::format("Content-Type: {}", body.type));
  if (!api_key.empty()) append(headers, std::format("Authorization: Bearer {}", api_key));

  curl().easy_setopt(handle, CURLOPT_URL, url.c_str());
  curl().easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
  curl().easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
  curl().easy_setopt(handle, CURLOPT_CONNECTTIMEOUT, 30L);
  curl().easy_setopt(handle, CURLOPT_TCP_KEEPALIVE, 1L);
  curl().easy_setopt(handle, CURLOPT_USERAGENT, "ollama.cpp");
  curl().easy_setopt(handle, CURLOPT_ERRORBUFFER, detail.data());
  curl().easy_setopt(handle, CURLOPT_HTTPHEADER, headers.get());
  curl().easy_setopt(handle, CURLOPT_PROXY, proxy.c_str());
  curl().easy_setopt(handle, CURLOPT_NOPROXY, no_proxy.c_str());
  curl().easy_setopt(handle, CURLOPT_WRITEFUNCTION, &on_write);
  curl().easy_setopt(handle, CURLOPT_WRITEDATA, &transfer);
  if (method == "HEAD") {
    curl().easy_setopt(handle, CURLOPT_NOBODY, 1L);
  } else if (has_body || method == "POST") {
    curl().easy_setopt(handle, CURLOPT_POST, 1L);
    const auto size = body.source ? body.size : body.text.size();
    curl().easy_setopt(handle, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(size));
    if (body.source) {
      curl().easy_setopt(handle, CURLOPT_READFUNCTION, &on_read);
      curl().easy_setopt(handle, CURLOPT_READDATA, &transfer);
    } else {
      curl().easy_setopt(handle, CURLOPT_POSTFIELDS, body.text.data());
    }
    curl().easy_setopt(handle, CURLOPT_CUSTOMREQUEST, verb.c_str());
  } else {
    curl().easy_setopt(handle, CURLOPT_CUSTOMREQUEST, verb.c_str());
  }

  CURLcode outcome = CURLE_OK;
  OLLAMA_TRY(run(outcome));
  error_body = std::move(transfer.error_body);
  long status = 0;
  curl().easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &status);
  // The sink ended the transfer, or an early error answer to an upload did: both have their say in
  // the caller.
  const bool ended_by_us = outcome == CURLE_WRITE_ERROR;
  if (outcome != CURLE_OK && !ended_by_us && status < 400) {
    return std::unexpected(describe(outcome, detail.data()));
  }
  return static_cast<int>(status);
}

Client::Client(std::unique_ptr<State> state) : state_(std::move(state)) {}
Client::Client(Client&&) noexcept = default;
Client& Client::operator=(Client&&) noexcept = default;
Client::~Client() = default;

Result<Client> Client::create(const envconfig::Config& config) {
  OLLAMA_TRY(load_curl());
  auto state = std::make_unique<State>();
  state->host = config.host.connectable();
  if (state->host.is_loopback()) {
    state->no_proxy = "*";
  } else {
    state->proxy = state->host.scheme == "https" ? config.https_proxy : config.http_proxy;
    state->no_proxy = config.no_proxy;
  }
  if (!config.api_keys.empty()) {
    state->api_key = config.api_keys.front();
    const auto unprintable = [](char c) { return c < 0x21 || c > 0x7e; };
    if (std::ranges::any_of(state->api_key, unprintable)) {
      return fail(ErrorCode::kInvalidArgument,
                  "OLLAMA_API_KEYS holds a key with blanks or control characters");
    }
  }
  state->multi.reset(curl().multi_init());
  state->easy.reset(curl().easy_init());
  if (!state->easy || !state->multi) {
    return fail(ErrorCode::kInternal, "the HTTP client could not be started");
  }
  return Client(std::move(state));
}

void Client::set_stop_token(std::stop_token stop) { state_->stop = std::move(stop); }
void Client::set_stop_flag(const std::atomic<bool>* flag) { state_->stop_flag = flag; }

Result<HttpResponse> Client::request(std::string_view method, std::string_view path,
                                     std::string_view body) {
  HttpResponse response;
  bool too_long = false;
  const Sink sink = [&](std::string_view bytes) {
    too_long = response.body.size() + bytes.size() > kMaxBody;
    if (!too_long) response.body += bytes;
    return !too_long;
  };
  std::string error_body;
  OLLAMA_ASSIGN(response.status,
                state_->perform(method, path, State::Body{.text = body}, sink, error_body));
  if (too_long) return fail(ErrorCode::kCorrupt, "the server's answer is too long");
  if (response.status >= 400) response.body = std::move(error_body);
  return response;
}

namespace {

// The body of a good answer, or the error that a bad one tells of.
Result<std::string> body_of(Result<HttpResponse> response) {
  if (!response) return fail(std::move(response));
  if (response->status >= 400) {
    return std::unexpected(status_to_error(response->status, response->body));
  }
  return std::move(response->body);
}

template <typename F>
auto parsed(Result<HttpResponse> response, F&& parse)
    -> decltype(parse(std::declval<const Json&>())) {
  OLLAMA_ASSIGN(const std::string body, body_of(std::move(response)));
  auto json = parse_json(body);
  if (!json) {
    return fail(ErrorCode::kCorrupt, "the server's answer is not understood: {}",
                json.error().message());
  }
  return parse(*json);
}

}  // namespace

Result<> Client::stream(std::string_view path, const JsonObject& body,
                        const std::function<Result<bool>(const Json&)>& line) {
  std::string pending;
  std::optional<Error> error;
  bool ended = false;
  // One line of the answer; false ends the transfer.
  const auto take = [&](std::string_view text) {
    if (text.find_first_not_of(" \t\r") == std::string_view::npos) return true;
    auto json = parse_json(text);
    if (!json) {
      error = Error(ErrorCode::kCorrupt, std::format("the server's answer is not understood: {}",
                                                     json.error().message()));
      return false;
    }
    if (auto message = error_message(*json)) {
      error = Error(ErrorCode::kInternal, std::move(*message));
      return false;
    }
    auto more = line(*json);
    if (!more) {
      error = std::move(more).error();
    } else {
      ended = !*more;
    }
    return !error && !ended;
  };
  const Sink sink = [&](std::string_view bytes) {
    while (!bytes.empty()) {
      const std::size_t newline = bytes.find('\n');
      if (newline == std::string_view::npos) {
        pending += bytes;
        break;
      }
      pending += bytes.substr(0, newline);
      bytes.remove_prefix(newline + 1);
      const std::string text = std::exchange(pending, {});
      if (!take(text)) return false;
    }
    if (pending.size() > kMaxLine) {
      error = Error(ErrorCode::kCorrupt, "a line of the server's answer is too long");
      return false;
    }
    return true;
  };

  const std::string text = to_string(body);
  std::string error_body;
  auto status = state_->perform("POST", path, State::Body{.text = text}, sink, error_body);
  if (error) return std::unexpected(std::move(*error));
  if (ended) return {};
  if (!status) return fail(std::move(status));
  if (*status >= 400) return std::unexpected(status_to_error(*status, error_body));
  // An answer that is not streamed has no newline at its end.
  if (!pending.empty()) take(pending);
  if (error) return std::unexpected(std::move(*error));
  return {};
}

namespace {

// A line callback that parses with `parse` and hands on to the user's.
template <typename T>
std::function<Result<bool>(const Json&)> lines_of(Result<T> (*parse)(const Json&),
                                                  const Client::Callback<T>& callback) {
  return [parse, &callback](const Json& json) -> Result<bool> {
    OLLAMA_ASSIGN(const T value, parse(json));
    return callback ? callback(value) : true;
  };
}

}  // namespace

Result<> Client::generate(const GenerateRequest& request,
                          const Callback<GenerateResponse>& callback) {
  return stream("/api/generate", to_json(request),
                lines_of<GenerateResponse>(&parse_generate_response, callback));
}

Result<> Client::chat(const ChatRequest& request, const Callback<ChatResponse>& callback) {
  return stream("/api/chat", to_json(request),
                lines_of<ChatResponse>(&parse_chat_response, callback));
}

Result<EmbedResponse> Client::embed(const EmbedRequest& request) {
  return parsed(this->request("POST", "/api/embed", to_string(to_json(request))),
                parse_embed_response);
}

Result<ListResponse> Client::list() {
  return parsed(request("GET", "/api/tags"), parse_list_response);
}

Result<ProcessResponse> Client::running() {
  return parsed(request("GET", "/api/ps"), parse_process_response);
}

Result<ShowResponse> Client::show(const ShowRequest& request) {
  return parsed(this->request("POST", "/api/show", to_string(to_json(request))),
                parse_show_response);
}

Result<> Client::create_model(const CreateRequest& request,
                              const Callback<ProgressResponse>& callback) {
  return stream("/api/create", to_json(request),
                lines_of<ProgressResponse>(&parse_progress_response, callback));
}

Result<> Client::copy(const CopyRequest& request) {
  OLLAMA_TRY(body_of(this->request("POST", "/api/copy", to_string(to_json(request)))));
  return {};
}

Result<> Client::remove(const DeleteRequest& request) {
  OLLAMA_TRY(body_of(this->request("DELETE", "/api/delete", to_string(to_json(request)))));
  return {};
}

Result<> Client::pull(const PullRequest& request, const Callback<ProgressResponse>& callback) {
  return stream("/api/pull", to_json(request),
                lines_of<ProgressResponse>(&parse_progress_response, callback));
}

Result<> Client::push(const PushRequest& request, const Callback<ProgressResponse>& callback) {
  return stream("/api/push", to_json(request),
                lines_of<ProgressResponse>(&parse_progress_response, callback));
}

Result<std::string> Client::version() {
  OLLAMA_ASSIGN(VersionResponse response,
                parsed(request("GET", "/api/version"), parse_version_response));
  return std::move(response.version);
}

Result<> Client::heartbeat() {
  OLLAMA_TRY(body_of(request("HEAD", "/")));
  return {};
}

Result<bool> Client::has_blob(std::string_view digest) {
  OLLAMA_ASSIGN(const HttpResponse response, request("HEAD", std::format("/api/blobs/{}", digest)));
  if (response.status == 404) return false;
  if (response.status >= 400) {
    return std::unexpected(status_to_error(response.status, response.body));
  }
  return true;
}

Result<> Client::upload_blob(std::string_view digest, const std::string& path,
                             const Callback<ProgressResponse>& progress) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return fail_errno(path, errno);
  struct stat info{};
  if (::fstat(file.get(), &info) != 0) return fail_errno(path, errno);
  if (!S_ISREG(info.st_mode)) {
    return fail(ErrorCode::kInvalidArgument, "{}: not a regular file", path);
  }

  ProgressResponse report;
  report.status = std::format("copying file {}", digest);
  report.digest = digest;
  report.total = static_cast<std::uint64_t>(info.st_size);
  std::optional<Error> error;
  bool ended = false;
  const Source source = [&](std::span<char> buffer) -> std::size_t {
    const ssize_t count = ::read(file.get(), buffer.data(), buffer.size());
    if (count < 0) {
      error = fail_errno(path, errno).error();
      return CURL_READFUNC_ABORT;
    }
    report.completed += static_cast<std::uint64_t>(count);
    if (progress && !progress(report)) {
      ended = true;
      return CURL_READFUNC_ABORT;
    }
    return static_cast<std::size_t>(count);
  };
  std::string ignored;
  const Sink sink = [&](std::string_view) { return true; };
  auto status = state_->perform(
      "POST", std::format("/api/blobs/{}", digest),
      State::Body{.source = source, .size = report.total, .type = "application/octet-stream"}, sink,
      ignored);
  if (error) return std::unexpected(std::move(*error));
  if (ended) return fail(ErrorCode::kCancelled, "the upload was cancelled");
  if (!status) return fail(std::move(status));
  if (*status >= 400) return std::unexpected(status_to_error(*status, ignored));
  return {};
}

}  // namespace ollama::api
