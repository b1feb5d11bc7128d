// Internal to store: a registry of models, spoken to by the protocol of container registries
// (/v2/NAMESPACE/MODEL/...), with the tokens and signatures that Ollama's asks for. What it answers
// is untrusted.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>

#include "store/http.h"
#include "store/key.h"
#include "store/name.h"

namespace ollama::store {

struct RegistryOptions {
  HttpOptions http;
  std::filesystem::path key_folder;  // of the key that requests for tokens are signed with
  // Where a name's registry is, as "http://host:port"; unset: at its host, by https. For tests.
  std::function<std::string(const Name&)> origin = {};
};

// Calls `work` until it succeeds, fails for good or has failed `attempts` times; between calls it
// waits, each time longer. kUnavailable and kTimeout are worth another attempt.
template <typename Work>
auto with_retries(const Patience& patience, int attempts, const std::stop_token& stop, Work&& work)
    -> decltype(work());
// False when a stop was requested meanwhile.
bool sleep_for(std::chrono::milliseconds time, const std::stop_token& stop);
bool is_transient(ErrorCode code);
// How long to wait after that many attempts that brought nothing.
std::chrono::milliseconds pause_after(const Patience& patience, int failures);

// Safe to use from several threads, each with an HttpClient of its own.
class Registry {
 public:
  // `insecure`: by http.
  Registry(RegistryOptions options, Name name, bool insecure);

  const Name& name() const { return name_; }
  const std::string& origin() const { return origin_; }
  const Patience& patience() const { return options_.http.patience; }
  Result<HttpClient> client() const { return HttpClient::create(options_.http); }

  // "ORIGIN/v2/NAMESPACE/MODEL/" and `path`.
  std::string url(std::string_view path) const;
  // Whether requests to `url` carry this registry's token.
  bool is_ours(std::string_view url) const;

  // One request, with a token where the registry wants one, following at most ten redirects of GET
  // and HEAD; `final_url` is told where they led. The token goes to the registry's host only. An
  // error status is an error: kNotFound "file does not exist", kPermission "unauthorized: access
  // denied", kUnavailable (5xx, 408, 429) and kInvalidArgument "STATUS: what it says".
  Result<HttpAnswer> send(HttpClient& client, HttpRequest request, const std::stop_token& stop,
                          std::string* final_url = nullptr);
  // The same for a short answer, with retries.
  Result<HttpAnswer> ask(HttpClient& client, const HttpRequest& request,
                         const std::stop_token& stop);

  // The text of the name's manifest.
  Result<std::string> manifest(HttpClient& client, const std::stop_token& stop);

 private:
  Result<HttpAnswer> follow(HttpClient& client, HttpRequest& request, const std::stop_token& stop,
                            const std::string& token);
  std::string current_token();
  // A new token, unless another thread has got one since `used` was.
  Result<std::string> renew_token(HttpClient& client, std::string_view challenge,
                                  const std::string& used, const std::stop_token& stop);
  Result<std::string> request_token(HttpClient& client, std::string_view challenge,
                                    const std::stop_token& stop);

  RegistryOptions options_;
  Name name_;
  std::string origin_;
  std::mutex mutex_;
  std::string token_;
};

// What a registry wants before it answers: 'Bearer realm="...",service="...",scope="..."'.
struct Challenge {
  std::string realm;
  std::string service;
  std::string scope;  // several, with blanks between
};
// kPermission for another way of signing in than by token.
Result<Challenge> parse_challenge(std::string_view header);

template <typename Work>
auto with_retries(const Patience& patience, int attempts, const std::stop_token& stop, Work&& work)
    -> decltype(work()) {
  for (int failures = 1;; ++failures) {
    auto result = work();
    if (result || !is_transient(result.error().code()) || failures >= attempts) return result;
    if (!sleep_for(pause_after(patience, failures), stop)) return result;
  }
}

}  // namespace ollama::store
