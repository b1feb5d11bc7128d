#include "store/transfer.h"

#include <algorithm>
#include <format>
#include <set>
#include <vector>

#include "base/log.h"
#include "base/units.h"
#include "store/folder.h"

namespace ollama::store {
namespace fs = std::filesystem;
namespace {

constexpr auto kQuiet = std::chrono::milliseconds(100);  // between two reports of a layer

// The configuration too, each digest once.
std::vector<Layer> blobs_of(const Manifest& manifest) {
  std::vector<Layer> blobs;
  std::set<Digest> seen;
  for (const Layer& layer : manifest.layers) {
    if (seen.insert(layer.digest).second) blobs.push_back(layer);
  }
  if (seen.insert(manifest.config.digest).second) blobs.push_back(manifest.config);
  return blobs;
}

std::string short_hex(const Digest& digest) { return digest.hex().substr(0, 12); }

Result<> check_name(const api::TransferRequest& request) {
  if (!Name::parse(request.model)) return fail(ErrorCode::kInvalidArgument, "invalid model name");
  if (request.model.starts_with("http://") && !request.insecure) {
    return fail(ErrorCode::kInvalidArgument, "insecure protocol http");
  }
  return {};
}

// What the rest of the store could not read later is refused before anything is downloaded.
Result<> check_manifest(const Manifest& manifest) {
  if (manifest.config.size > kMaxText) {
    return fail(ErrorCode::kCorrupt, "the manifest's config has no valid size");
  }
  return {};
}

}  // namespace

// One pull or push.
struct Transfers::Job {
  std::shared_ptr<Registry> registry;
  HttpClient client;
  const Progress& progress;
  const std::stop_token& stop;

  Result<> say(std::string_view status) const {
    api::ProgressResponse response;
    response.status = status;
    return report(response);
  }
  Result<> say(std::string_view verb, const Layer& layer, std::uint64_t completed) const {
    api::ProgressResponse response;
    response.status = std::format("{} {}", verb, short_hex(layer.digest));
    response.digest = layer.digest.text();
    response.total = layer.size;
    response.completed = std::min(completed, layer.size);
    return report(response);
  }
  Result<> report(const api::ProgressResponse& response) const {
    if (stop.stop_requested()) return fail(ErrorCode::kCancelled, "context canceled");
    return store::report(progress, response);
  }
};

Transfers::Options Transfers::options_of(const envconfig::Config& config) {
  Options options;
  options.registry.http.http_proxy = config.http_proxy;
  options.registry.http.https_proxy = config.https_proxy;
  options.registry.http.no_proxy = config.no_proxy;
  options.registry.http.certificates_file = config.ssl_cert_file;
  options.registry.http.certificates_folder = config.ssl_cert_dir;
  options.registry.key_folder = config.folder;
  options.download.streams = config.max_transfer_streams;
  options.prune = !config.no_prune;
  return options;
}

Transfers::Transfers(Store& store, Options options)
    : store_(store),
      options_(std::move(options)),
      downloads_(store.directory() / "blobs", options_.download) {}
Transfers::~Transfers() = default;

// A blob of another size is damaged here, or the manifest lies: its digest will tell.
bool Transfers::has(const Layer& layer) const {
  const auto path = store_.blob_path(layer.digest);
  std::error_code error;
  return path && fs::file_size(*path, error) == layer.size && !error;
}

Result<> Transfers::check_space(const Manifest& manifest) const {
  const fs::path blobs = store_.directory() / "blobs";
  std::uint64_t needed = 0;
  for (const Layer& layer : blobs_of(manifest)) {
    if (!has(layer)) needed += missing_bytes(blobs, layer.digest, layer.size);
  }
  if (needed == 0) return {};
  OLLAMA_ASSIGN(const std::uint64_t free,
                options_.free_space ? options_.free_space(blobs) : free_space_of(blobs));
  if (needed <= free) return {};
  return fail(ErrorCode::kIo, "no space left on device: {} more are needed in {}, and {} are free",
              human_bytes(needed), store_.directory().string(), human_bytes(free));
}

Result<> Transfers::fetch(Job& job, const Layer& layer) {
  constexpr std::string_view kVerb = "pulling";
  if (!has(layer)) {
    OLLAMA_TRY(job.say(kVerb, layer, 0));
    OLLAMA_TRY(downloads_.fetch(
        job.registry, layer.digest, layer.size,
        [&](std::uint64_t completed) { return job.say(kVerb, layer, completed); }, job.stop));
  }
  return job.say(kVerb, layer, layer.size);
}

Result<> Transfers::pull(const api::PullRequest& request, const Progress& progress,
                         const std::stop_token& stop) {
  OLLAMA_TRY(check_name(request));
  OLLAMA_ASSIGN(const Name name, Name::parse(request.model));
  const auto registry = std::make_shared<Registry>(options_.registry, name, request.insecure);
  OLLAMA_ASSIGN(HttpClient client, registry->client());
  Job job{registry, std::move(client), progress, stop};

  OLLAMA_TRY(job.say("pulling manifest"));
  const auto in_manifest = [](const Error& error) {
    return std::unexpected(
        error.code() == ErrorCode::kCancelled ? error : error.with_context("pull model manifest"));
  };
  const auto text = registry->manifest(job.client, stop);
  if (!text) return in_manifest(text.error());
  const auto manifest = parse_manifest(*text);
  if (!manifest) return in_manifest(manifest.error());
  if (const auto good = check_manifest(*manifest); !good) return in_manifest(good.error());

  const std::vector<Layer> blobs = blobs_of(*manifest);
  const auto pins = store_.pin(blobs);  // another model's removal does not take them
  const auto before = store_.read_manifest(name);
  OLLAMA_TRY(check_space(*manifest));
  for (const Layer& layer : blobs) OLLAMA_TRY(fetch(job, layer));
  OLLAMA_TRY(job.say("verifying sha256 digest"));  // each was, before it appeared
  OLLAMA_TRY(job.say("writing manifest"));
  OLLAMA_TRY(store_.write_manifest(name, *manifest, *text));

  const auto unused = [&](const Layer& layer) {
    return std::ranges::none_of(blobs,
                                [&](const Layer& now) { return now.digest == layer.digest; });
  };
  if (options_.prune && before && std::ranges::any_of(blobs_of(*before), unused)) {
    OLLAMA_TRY(job.say("removing unused layers"));
  }
  return job.say("success");
}

Result<> Transfers::push(const api::PushRequest& request, const Progress& progress,
                         const std::stop_token& stop) {
  OLLAMA_TRY(check_name(request));
  OLLAMA_ASSIGN(const Name name, Name::parse(request.model));
  const auto registry = std::make_shared<Registry>(options_.registry, name, request.insecure);
  OLLAMA_ASSIGN(HttpClient client, registry->client());
  Job job{registry, std::move(client), progress, stop};

  OLLAMA_TRY(job.say("retrieving manifest"));
  OLLAMA_ASSIGN(const std::string text, store_.manifest_text(name));
  OLLAMA_ASSIGN(const Manifest manifest, parse_manifest(text));
  const std::vector<Layer> blobs = blobs_of(manifest);
  const auto pins = store_.pin(blobs);
  for (const Layer& layer : blobs) {
    const auto path = store_.blob_path(layer.digest);
    if (!path) return std::unexpected(of_model(name, path.error()));
    auto last = std::chrono::steady_clock::time_point::min();
    const auto tick = [&](std::uint64_t completed) -> Result<> {
      const auto now = std::chrono::steady_clock::now();
      if (completed < layer.size && now - kQuiet < last) return {};
      last = now;
      return job.say("pushing", layer, completed);
    };
    OLLAMA_TRY(upload_blob(*registry, job.client, layer, *path, options_.upload, tick, stop));
  }
  OLLAMA_TRY(job.say("pushing manifest"));
  OLLAMA_TRY(upload_manifest(*registry, job.client, text, stop));
  return job.say("success");
}

}  // namespace ollama::store
