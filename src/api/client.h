// A client of Ollama's HTTP API, over libcurl. Used by the command line.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>

#include "api/types.h"
#include "base/error.h"
#include "envconfig/config.h"

namespace ollama::api {

// An answer as it came: any status.
struct HttpResponse {
  int status = 0;
  std::string body;
};

// One client serves one thread; it keeps its connection open between calls.
//
// Errors of every call: kUnavailable when no server answers (the message says how to start it);
// kCancelled when a stop was requested; an error status as its code (404 is kNotFound, 400
// kInvalidArgument, 503 kUnavailable, 401 and 403 kPermission, others kInternal) with the message
// of the server's {"error": ...}.
class Client {
 public:
  // Connects to `config.host`, 0.0.0.0 meaning the loopback address. Proxies are not used for the
  // loopback address. The first of config.api_keys, where there is one, is sent with every request.
  static Result<Client> create(const envconfig::Config& config);

  Client(Client&&) noexcept;
  Client& operator=(Client&&) noexcept;
  ~Client();

  // Every call that follows ends soon after a stop is requested.
  void set_stop_token(std::stop_token stop);
  // The same for a flag that a signal handler can set. Not owned; null for none.
  void set_stop_flag(const std::atomic<bool>* flag);

  // Returns false to end the stream early, which is not an error.
  template <typename T>
  using Callback = std::function<bool(const T&)>;

  Result<> generate(const GenerateRequest& request, const Callback<GenerateResponse>& callback);
  Result<> chat(const ChatRequest& request, const Callback<ChatResponse>& callback);
  Result<EmbedResponse> embed(const EmbedRequest& request);
  Result<ListResponse> list();
  Result<ProcessResponse> running();
  Result<ShowResponse> show(const ShowRequest& request);
  Result<> create_model(const CreateRequest& request, const Callback<ProgressResponse>& callback);
  Result<> copy(const CopyRequest& request);
  Result<> remove(const DeleteRequest& request);
  Result<> pull(const PullRequest& request, const Callback<ProgressResponse>& callback);
  Result<> push(const PushRequest& request, const Callback<ProgressResponse>& callback);
  Result<std::string> version();
  // kUnavailable when no server answers.
  Result<> heartbeat();

  Result<bool> has_blob(std::string_view digest);
  // Sends the file's bytes as the blob `digest`; progress in bytes.
  Result<> upload_blob(std::string_view digest, const std::string& path,
                       const Callback<ProgressResponse>& progress = {});

  // For everything else. `path` begins with a slash; an empty body is not sent.
  Result<HttpResponse> request(std::string_view method, std::string_view path,
                               std::string_view body = {});

 private:
  struct State;
  explicit Client(std::unique_ptr<State> state);
  // POSTs and hands every line of the answer to `line`.
  Result<> stream(std::string_view path, const JsonObject& body,
                  const std::function<Result<bool>(const Json&)>& line);
  std::unique_ptr<State> state_;
};

}  // namespace ollama::api
