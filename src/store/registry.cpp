#include "store/registry.h"

#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <condition_variable>
#include <ctime>
#include <format>
#include <random>

#include "api/types.h"
#include "store/digest.h"
#include "store/manifest.h"

namespace ollama::store {
namespace {

constexpr int kMaxRedirects = 10;
constexpr int kQuestionAttempts = 3;  // of short questions: a user waits for them
constexpr std::size_t kMaxToken = 64 << 10;
constexpr std::size_t kShownBody = 400;  // of an error's text

// Hosts that are the same registry: each may send to the other and get what is meant for it.
constexpr std::array<std::string_view, 3> kOllama{"registry.ollama.ai", "ollama.com", "ollama.ai"};
constexpr std::array<std::string_view, 2> kHuggingFace{"hf.co", "huggingface.co"};

bool same_registry(std::string_view a, std::string_view b) {
  if (a == b) return true;
  if (!a.starts_with("https://") || !b.starts_with("https://")) return false;
  a.remove_prefix(8);
  b.remove_prefix(8);
  const auto both_in = [&](const auto& family) {
    return std::ranges::contains(family, a) && std::ranges::contains(family, b);
  };
  return both_in(kOllama) || both_in(kHuggingFace);
}

// It may go to a terminal or a log.
std::string printable(std::string_view text) {
  std::string shown(text.substr(0, kShownBody));
  std::ranges::replace_if(shown, [](unsigned char c) { return c < 0x20 || c > 0x7e; }, ' ');
  while (shown.ends_with(' ')) shown.pop_back();
  return shown;
}

// The message of a registry's {"errors": [{"code": ..., "message": ...}]}, else the whole text.
std::string error_text(std::string_view body) {
  if (const auto json = api::parse_json(body); json && json->is_object()) {
    const auto& object = json->get_object();
    if (const auto* error = object.if_contains("error"); error != nullptr && error->is_string()) {
      return printable(error->get_string());
    }
  }
  return printable(body);
}

Error status_error(const HttpAnswer& answer) {
  const std::string text = error_text(answer.body);
  std::string message =
      text.empty() ? std::format("{}", answer.status) : std::format("{}: {}", answer.status, text);
  switch (answer.status) {
    case 401:
    case 403:
      return {ErrorCode::kPermission,
              text.empty() ? "unauthorized: access denied"
                           : std::format("unauthorized: access denied ({})", message)};
    case 404:
      return {ErrorCode::kNotFound, "file does not exist"};
    case 408:
    case 429:
      return {ErrorCode::kUnavailable, std::move(message)};
    default:
      return {answer.status >= 500 ? ErrorCode::kUnavailable : ErrorCode::kInvalidArgument,
              std::move(message)};
  }
}

std::string nonce() {
  std::array<unsigned char, 16> bytes{};
  RAND_bytes(bytes.data(), static_cast<int>(bytes.size()));
  std::string text =
      api::encode_base64({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  // The URL-safe alphabet, without padding.
  std::ranges::replace(text, '+', '-');
  std::ranges::replace(text, '/', '_');
  while (text.ends_with('=')) text.pop_back();
  return text;
}

// The realm with the question in its query, sorted by name, as Go writes it.
std::string token_url(const Challenge& challenge) {
  std::string_view realm = challenge.realm;
  std::string_view before;
  if (const auto mark = realm.find('?'); mark != std::string_view::npos) {
    before = realm.substr(mark + 1);
    realm = realm.substr(0, mark);
  }
  std::string query = std::format("nonce={}", nonce());
  std::string_view scopes = challenge.scope;
  while (!scopes.empty()) {
    const auto blank = std::min(scopes.find(' '), scopes.size());
    if (blank > 0) query += std::format("&scope={}", query_escape(scopes.substr(0, blank)));
    scopes.remove_prefix(std::min(blank + 1, scopes.size()));
  }
  query += std::format("&service={}&ts={}", query_escape(challenge.service), std::time(nullptr));
  if (!before.empty()) query += std::format("&{}", before);
  return std::format("{}?{}", realm, query);
}

// What Ollama signs: method, address and the digest of the empty body.
std::string text_to_sign(const std::string& url) {
  return std::format("GET,{},{}", url, api::encode_base64(digest_of("").hex()));
}

Result<std::string> parse_token(std::string_view body) {
  const auto json = api::parse_json(body);
  if (json && json->is_object()) {
    for (const std::string_view key : {"token", "access_token"}) {
      const auto* value = json->get_object().if_contains(key);
      if (value == nullptr || !value->is_string() || value->get_string().empty()) continue;
      std::string token(value->get_string());
      const auto graphic = [](unsigned char c) { return c > 0x20 && c < 0x7f; };
      if (std::ranges::all_of(token, graphic)) return token;
    }
  }
  return fail(ErrorCode::kCorrupt, "the registry's token is not understood");
}

bool is_redirect(const HttpAnswer& answer) {
  return answer.status >= 300 && answer.status < 400 && answer.status != 304;
}

}  // namespace

bool is_transient(ErrorCode code) {
  return code == ErrorCode::kUnavailable || code == ErrorCode::kTimeout;
}

bool sleep_for(std::chrono::milliseconds time, const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any never;
  std::unique_lock lock(mutex);
  never.wait_for(lock, stop, time, [] { return false; });
  return !stop.stop_requested();
}

std::chrono::milliseconds pause_after(const Patience& patience, int failures) {
  auto pause = patience.pause;
  for (int i = 1; i < failures && pause < patience.longest_pause; ++i) pause *= 2;
  pause = std::min(pause, patience.longest_pause);
  // Clients that were broken off together shall not come back together.
  thread_local std::minstd_rand random(std::random_device{}());
  std::uniform_real_distribution<double> factor(0.5, 1.0);
  return std::chrono::duration_cast<std::chrono::milliseconds>(pause * factor(random));
}

Result<Challenge> parse_challenge(std::string_view header) {
  const std::string_view scheme = header.substr(0, header.find(' '));
  if (small_letters(scheme) != "bearer") {
    return fail(ErrorCode::kPermission,
                "unauthorized: access denied (the registry asks for {}, and only tokens are "
                "supported)",
                scheme.empty() ? "nothing that is known" : printable(scheme));
  }
  header.remove_prefix(std::min(scheme.size() + 1, header.size()));
  Challenge challenge;
  while (true) {
    const auto begin = header.find_first_not_of(" ,");
    if (begin == std::string_view::npos) break;
    header.remove_prefix(begin);
    const auto equals = header.find('=');
    if (equals == std::string_view::npos) break;
    const std::string key = small_letters(header.substr(0, equals));
    header.remove_prefix(equals + 1);
    const bool quoted = header.starts_with('"');
    if (quoted) header.remove_prefix(1);
    const auto end = std::min(header.find(quoted ? '"' : ','), header.size());
    const std::string value(header.substr(0, end));
    header.remove_prefix(std::min(end + 1, header.size()));
    if (key == "realm") challenge.realm = value;
    if (key == "service") challenge.service = value;
    if (key == "scope") challenge.scope = value;
  }
  if (challenge.realm.empty()) {
    return fail(ErrorCode::kCorrupt, "the registry does not say where its tokens come from");
  }
  return challenge;
}

Registry::Registry(RegistryOptions options, Name name, bool insecure)
    : options_(std::move(options)), name_(std::move(name)) {
  const std::string plain = std::format("{}://{}", insecure ? "http" : "https", name_.host());
  const std::string wanted = options_.origin ? options_.origin(name_) : plain;
  // A host's name has no characters that could be misunderstood, so that this works.
  origin_ = origin_of(wanted).value_or(wanted);
}

std::string Registry::url(std::string_view path) const {
  return std::format("{}/v2/{}/{}/{}", origin_, name_.name_space(), name_.model(), path);
}

bool Registry::is_ours(std::string_view url) const {
  const auto origin = origin_of(url);
  return origin && same_registry(*origin, origin_);
}

std::string Registry::current_token() {
  const std::lock_guard lock(mutex_);
  return token_;
}

Result<HttpAnswer> Registry::follow(HttpClient& client, HttpRequest& request,
                                    const std::stop_token& stop, const std::string& token) {
  const bool may_move = request.method == "GET" || request.method == "HEAD";
  const std::size_t plain_headers = request.headers.size();
  for (int hops = 0;; ++hops) {
    if (!token.empty() && is_ours(request.url)) {
      request.headers.push_back(std::format("Authorization: Bearer {}", token));
    }
    auto answer = client.perform(request, stop);
    request.headers.resize(plain_headers);
    if (!answer || !may_move || !is_redirect(*answer)) return answer;
    if (answer->redirect.empty()) {
      return fail(ErrorCode::kCorrupt, "{}: the registry redirects to nowhere", answer->status);
    }
    if (hops == kMaxRedirects) {
      return fail(ErrorCode::kCorrupt, "maximum redirects exceeded ({})", kMaxRedirects);
    }
    OLLAMA_ASSIGN(const std::string to, origin_of(answer->redirect));
    if (to.starts_with("http:") && origin_.starts_with("https:")) {
      return fail(ErrorCode::kPermission, "the registry redirects to {}, which is not secure", to);
    }
    request.url = answer->redirect;
  }
}

Result<HttpAnswer> Registry::send(HttpClient& client, HttpRequest request,
                                  const std::stop_token& stop, std::string* final_url) {
  const std::string url = request.url;
  std::string token = current_token();
  for (bool renewed = false;; renewed = true) {
    request.url = url;
    auto answer = follow(client, request, stop, token);
    if (!answer) return answer;
    if (final_url != nullptr) *final_url = request.url;
    if (answer->status < 400) return answer;
    if (answer->status != 401 || renewed || !is_ours(request.url)) {
      return std::unexpected(status_error(*answer));
    }
    OLLAMA_ASSIGN(token, renew_token(client, answer->header("www-authenticate"), token, stop));
  }
}

Result<HttpAnswer> Registry::ask(HttpClient& client, const HttpRequest& request,
                                 const std::stop_token& stop) {
  HttpRequest bounded = request;
  if (bounded.total.count() == 0) bounded.total = patience().small;
  auto answer = with_retries(patience(), std::min(kQuestionAttempts, patience().attempts), stop,
                             [&] { return send(client, bounded, stop); });
  // What never came to an answer: say which request it was, as Go does.
  if (!answer && is_transient(answer.error().code()) && !answer.error().message().empty() &&
      std::isdigit(static_cast<unsigned char>(answer.error().message().front())) == 0) {
    return std::unexpected(
        answer.error().with_context(std::format("{} \"{}\"", request.method, request.url)));
  }
  return answer;
}

Result<std::string> Registry::manifest(HttpClient& client, const std::stop_token& stop) {
  HttpRequest request;
  request.url = url(std::format("manifests/{}", name_.tag()));
  request.headers = {std::format("Accept: {}", kManifestType)};
  request.body_limit = kMaxManifestSize;
  OLLAMA_ASSIGN(HttpAnswer answer, ask(client, request, stop));
  return std::move(answer.body);
}

Result<std::string> Registry::renew_token(HttpClient& client, std::string_view challenge,
                                          const std::string& used, const std::stop_token& stop) {
  const std::lock_guard lock(mutex_);
  if (token_ == used) {
    OLLAMA_ASSIGN(token_, request_token(client, challenge, stop));
  }
  return token_;
}

Result<std::string> Registry::request_token(HttpClient& client, std::string_view challenge_header,
                                            const std::stop_token& stop) {
  OLLAMA_ASSIGN(const Challenge challenge, parse_challenge(challenge_header));
  // A token from elsewhere would end up with whoever runs this registry.
  const auto realm = origin_of(challenge.realm);
  if (!realm || !same_registry(*realm, origin_)) {
    return fail(ErrorCode::kPermission, "realm host \"{}\" does not match original host \"{}\"",
                realm ? host_of(*realm) : printable(challenge.realm), host_of(origin_));
  }
  HttpRequest request;
  request.url = token_url(challenge);
  request.body_limit = kMaxToken;
  request.total = patience().small;
  OLLAMA_ASSIGN(const Key key, Key::load_or_create(options_.key_folder));
  OLLAMA_ASSIGN(const std::string authorization, key.authorization(text_to_sign(request.url)));
  request.headers = {std::format("Authorization: {}", authorization)};
  OLLAMA_ASSIGN(const HttpAnswer answer, client.perform(request, stop));
  if (answer.status >= 400) return std::unexpected(status_error(answer));
  if (answer.status >= 300) {
    return fail(ErrorCode::kCorrupt, "{}: the registry's tokens are not where it says",
                answer.status);
  }
  return parse_token(answer.body);
}

}  // namespace ollama::store
