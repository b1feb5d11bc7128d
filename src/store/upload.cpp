#include "store/upload.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <format>
#include <memory>
#include <optional>

#include "base/log.h"
#include "base/unique_fd.h"
#include "base/units.h"

namespace ollama::store {
namespace {

// The sums that Ollama's registry hands on to its storage: of each part, then of those together.
class Md5 {
 public:
  Md5() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) { begin(); }
  void begin() { EVP_DigestInit_ex(context_.get(), EVP_md5(), nullptr); }
  void update(std::string_view bytes) {
    EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size());
  }
  std::string finish() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> bytes{};
    unsigned int size = 0;
    EVP_DigestFinal_ex(context_.get(), bytes.data(), &size);
    return {reinterpret_cast<const char*>(bytes.data()), size};
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

std::string hex_of(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) text += std::format("{:02x}", static_cast<unsigned char>(c));
  return text;
}

std::string with_query(std::string url, std::string_view name, std::string_view value) {
  url += url.contains('?') ? '&' : '?';
  url += std::format("{}={}", name, query_escape(value));
  return url;
}

class Upload {
 public:
  Upload(Registry& registry, HttpClient& client, const Layer& layer, const UploadOptions& options,
         const UploadTick& tick, const std::stop_token& stop)
      : registry_(registry),
        client_(client),
        layer_(layer),
        options_(options),
        tick_(tick),
        stop_(stop) {}

  Result<> run(const std::filesystem::path& path);

 private:
  Result<bool> is_there();
  Result<bool> begin();  // true: mounted
  Result<> send_rest();
  Result<> send_chunk(std::uint64_t size);
  Result<> send_to_storage(const std::string& url, std::uint64_t size);
  Result<> ask_for_offset();
  Result<> commit();
  Result<> take_location(const HttpAnswer& answer);
  HttpRequest chunk_request(std::string method, std::string url, std::uint64_t size);

  Registry& registry_;
  HttpClient& client_;
  const Layer& layer_;
  const UploadOptions& options_;
  const UploadTick& tick_;
  const std::stop_token& stop_;

  UniqueFd file_;
  std::string location_;      // where the next chunk goes
  std::uint64_t offset_ = 0;  // bytes that the registry has
  std::string part_sums_;     // MD5 of each chunk, one after another
  int parts_ = 0;
  bool sums_known_ = true;  // not after a chunk was resumed
  Md5 md5_;
};

Result<bool> Upload::is_there() {
  HttpRequest request;
  request.method = "HEAD";
  request.url = registry_.url(std::format("blobs/{}", layer_.digest.text()));
  const auto answer = registry_.ask(client_, request, stop_);
  if (!answer && answer.error().code() == ErrorCode::kNotFound) return false;
  if (!answer) return fail(answer);
  return true;
}

Result<> Upload::take_location(const HttpAnswer& answer) {
  std::string_view location = answer.header("docker-upload-location");
  if (location.empty()) location = answer.header("location");
  if (location.empty()) {
    return fail(ErrorCode::kCorrupt, "the registry does not say where the blob goes");
  }
  auto url = resolve_location(registry_.origin(), location);
  if (!url) return fail(std::move(url));
  location_ = std::move(*url);
  return {};
}

Result<bool> Upload::begin() {
  HttpRequest request;
  request.method = "POST";
  request.url = registry_.url("blobs/uploads/");
  if (const auto from = Name::parse(layer_.from);
      !layer_.from.empty() && from && from->host() == registry_.name().host()) {
    request.url = with_query(request.url, "mount", layer_.digest.text());
    request.url =
        with_query(request.url, "from", std::format("{}/{}", from->name_space(), from->model()));
  }
  OLLAMA_ASSIGN(const HttpAnswer answer, registry_.ask(client_, request, stop_));
  if (answer.status == 201) return true;
  OLLAMA_TRY(take_location(answer));
  return false;
}

HttpRequest Upload::chunk_request(std::string method, std::string url, std::uint64_t size) {
  HttpRequest request;
  request.method = std::move(method);
  request.url = std::move(url);
  request.headers = {"Content-Type: application/octet-stream"};
  request.file = file_.get();
  request.offset = offset_;
  request.length = size;
  request.answer = registry_.patience().commit;
  request.sent = [this, begin = offset_](std::uint64_t before, std::string_view bytes) {
    if (before == 0) md5_.begin();  // a request may be sent twice, for a new token
    md5_.update(bytes);
    (void)tick_(begin + before + bytes.size());  // whoever cancels also requests a stop
  };
  return request;
}

// A chunk that the registry wants at its storage. Nothing of the registry's goes there with it.
Result<> Upload::send_to_storage(const std::string& url, std::uint64_t size) {
  return with_retries(registry_.patience(), registry_.patience().attempts, stop_,
                      [&]() -> Result<> {
                        OLLAMA_ASSIGN(const HttpAnswer answer,
                                      client_.perform(chunk_request("PUT", url, size), stop_));
                        if (answer.status < 300) return {};
                        const bool again = answer.status >= 500;
                        return fail(again ? ErrorCode::kUnavailable : ErrorCode::kInvalidArgument,
                                    "the registry's storage answers with status {}", answer.status);
                      });
}

Result<> Upload::send_chunk(std::uint64_t size) {
  HttpRequest request = chunk_request("PATCH", location_, size);
  request.headers.push_back(std::format("Content-Range: {}-{}", offset_, offset_ + size - 1));
  request.headers.emplace_back("X-Redirect-Uploads: 1");
  OLLAMA_ASSIGN(const HttpAnswer answer, registry_.send(client_, std::move(request), stop_));
  OLLAMA_TRY(take_location(answer));
  if (answer.status == 307) {
    OLLAMA_ASSIGN(const std::string storage,
                  resolve_location(registry_.origin(), answer.header("location")));
    OLLAMA_TRY(send_to_storage(storage, size));
  }
  offset_ += size;
  part_sums_ += md5_.finish();
  ++parts_;
  return {};
}

// After a break: how far the registry got.
Result<> Upload::ask_for_offset() {
  HttpRequest request;
  request.url = location_;
  OLLAMA_ASSIGN(const HttpAnswer answer, registry_.ask(client_, request, stop_));
  // "0-99", inclusive; "0-0" stands for nothing too.
  const std::string_view range = answer.header("range");
  const auto last =
      parse_number<std::uint64_t>(range.substr(std::min(range.find('-') + 1, range.size())));
  const std::uint64_t there = last && *last > 0 ? *last + 1 : 0;
  if (there > layer_.size) {
    return fail(ErrorCode::kCorrupt, "the registry has more of the blob than there is");
  }
  if (there != offset_) sums_known_ = false;
  offset_ = there;
  if (!answer.header("location").empty()) OLLAMA_TRY(take_location(answer));
  return {};
}

Result<> Upload::send_rest() {
  const Patience& patience = registry_.patience();
  int failures = 0;
  while (offset_ < layer_.size) {
    const std::uint64_t before = offset_;
    auto sent = send_chunk(std::min(options_.chunk, layer_.size - offset_));
    if (sent) {
      failures = 0;
      continue;
    }
    if (!is_transient(sent.error().code())) return sent;
    if (++failures >= patience.attempts) {
      return fail(sent.error().code(), "max retries exceeded: {}", sent.error().message());
    }
    log::info("{} upload attempt {} failed: {}", layer_.digest.hex().substr(0, 12), failures,
              sent.error().message());
    if (!sleep_for(pause_after(patience, failures), stop_)) return sent;
    OLLAMA_TRY(ask_for_offset());
    if (offset_ > before) failures = 0;
  }
  return {};
}

Result<> Upload::commit() {
  HttpRequest request;
  request.method = "PUT";
  request.url = with_query(location_, "digest", layer_.digest.text());
  if (sums_known_) {
    Md5 sum;
    sum.update(part_sums_);
    request.url =
        with_query(request.url, "etag", std::format("{}-{}", hex_of(sum.finish()), parts_));
  }
  request.headers = {"Content-Type: application/octet-stream"};
  request.answer = registry_.patience().commit;
  request.total = registry_.patience().commit;
  auto committed = registry_.ask(client_, request, stop_);
  if (committed) return {};
  // Its answer to an earlier attempt may have been lost.
  const auto there = is_there();
  return there && *there ? Result<>() : fail(committed);
}

Result<> Upload::run(const std::filesystem::path& path) {
  OLLAMA_ASSIGN(const bool there, is_there());
  if (there) return tick_(layer_.size);
  file_.reset(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file_) return fail_errno(path.string(), errno);
  struct stat info{};
  if (::fstat(file_.get(), &info) != 0) return fail_errno(path.string(), errno);
  if (static_cast<std::uint64_t>(info.st_size) != layer_.size) {
    return fail(ErrorCode::kCorrupt, "the blob {} has {} bytes, and the manifest says {}",
                layer_.digest.text(), info.st_size, layer_.size);
  }
  OLLAMA_ASSIGN(const bool mounted, begin());
  if (!mounted) {
    OLLAMA_TRY(send_rest());
    OLLAMA_TRY(commit());
  }
  return tick_(layer_.size);
}

}  // namespace

Result<> upload_blob(Registry& registry, HttpClient& client, const Layer& layer,
                     const std::filesystem::path& path, const UploadOptions& options,
                     const UploadTick& tick, const std::stop_token& stop) {
  return Upload(registry, client, layer, options, tick, stop).run(path);
}

Result<> upload_manifest(Registry& registry, HttpClient& client, std::string_view text,
                         const std::stop_token& stop) {
  HttpRequest request;
  request.method = "PUT";
  request.url = registry.url(std::format("manifests/{}", registry.name().tag()));
  request.headers = {std::format("Content-Type: {}", kManifestType)};
  request.body = text;
  OLLAMA_TRY(registry.ask(client, request, stop));
  return {};
}

}  // namespace ollama::store
