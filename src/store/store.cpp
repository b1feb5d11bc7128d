#include "store/store.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <format>
#include <ranges>
#include <variant>

#include "base/log.h"
#include "base/units.h"
#include "gguf/file.h"
#include "store/files.h"
#include "store/folder.h"
#include "store/modelfile.h"

namespace ollama::store {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kChunk = std::size_t{1} << 20;
constexpr std::size_t kMostResolved = 256;              // models that are remembered
constexpr std::string_view kLinkedHost = "ollama.com";  // kDefaultHost among linked manifests

api::Time modified_at(const fs::path& path) {
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0) return {};
  return api::Time(std::chrono::seconds(info.st_mtim.tv_sec) +
                   std::chrono::nanoseconds(info.st_mtim.tv_nsec));
}

// The entries of a folder that are not hidden; none when it cannot be read.
std::vector<fs::path> entries(const fs::path& folder) {
  std::vector<fs::path> result;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (!it->path().filename().string().starts_with('.')) result.push_back(it->path());
  }
  return result;
}

// Is `path` below `folder`, both without links?
bool is_inside(const fs::path& path, const fs::path& folder) {
  const auto relative = path.lexically_relative(folder);
  return !relative.empty() && *relative.begin() != "..";
}

std::unexpected<Error> not_found(std::string_view text) {
  return fail(ErrorCode::kNotFound, "model '{}' not found", text);
}

// A parameter that this program cannot read must not keep the model from loading.
api::Options readable_options(const api::JsonObject& params, const std::string& model) {
  api::Options options;
  for (const auto& [key, value] : params) {
    std::vector<std::string> unknown;
    const auto one = api::parse_options(api::JsonObject({{key, value}}), &unknown);
    if (!one) {
      log::warn("model {}: {}; ignored", model, one.error().message());
    } else if (!unknown.empty()) {
      log::debug("model {}: unknown parameter {} ignored", model, unknown.front());
    } else {
      options = api::merge(options, *one);
    }
  }
  return options;
}

}  // namespace

// ---- the folder
// ----------------------------------------------------------------------------------

Result<> Folder::check_inside(const fs::path& path) const {
  std::error_code error;
  const fs::path real = fs::weakly_canonical(path, error);
  if (error) return fail_errno(path.string(), error.value());
  // The parts of the folder may themselves be links: their owner put them elsewhere.
  for (const fs::path& root : {options.models, manifests(), linked_manifests(), blobs()}) {
    const fs::path folder = fs::weakly_canonical(root, error);
    if (!error && (real == folder || is_inside(real, folder))) return {};
  }
  return fail(ErrorCode::kPermission, "{} is a link that leads out of {}", path.string(),
              options.models.string());
}

fs::path Folder::linked_manifest_path(const Name& name) const {
  const std::string host(name.host() == kDefaultHost ? kLinkedHost : name.host());
  return linked_manifests() / host / name.name_space() / name.model() / name.tag();
}

fs::path Folder::existing_manifest_path(const Name& name) const {
  std::error_code error;
  if (fs::is_regular_file(manifest_path(name), error)) return manifest_path(name);
  if (fs::is_regular_file(linked_manifest_path(name), error)) return linked_manifest_path(name);
  return manifest_path(name);
}

Error of_model(const Name& name, const Error& error) {
  Error told = error.with_context(std::format("model '{}'", name.display()));
  if (told.code() != ErrorCode::kNotFound) return told;
  return {told.code(), std::format("{}; pull or create the model again", told.message())};
}

std::vector<Name> Folder::names() const {
  std::set<Name> result;
  const auto inside = [&](const fs::path& path) {
    std::error_code error;
    return !fs::is_symlink(path, error) || check_inside(path);
  };
  for (const fs::path& root : {manifests(), linked_manifests()}) {
    for (const fs::path& host : entries(root) | std::views::filter(inside)) {
      for (const fs::path& name_space : entries(host) | std::views::filter(inside)) {
        for (const fs::path& model : entries(name_space) | std::views::filter(inside)) {
          for (const fs::path& tag : entries(model)) {
            fs::path path = tag.lexically_relative(root);
            if (root != manifests() && host.filename() == kLinkedHost) {
              path = kDefaultHost / path.lexically_relative(kLinkedHost);
            }
            if (auto name = Name::parse_path(path)) result.insert(std::move(*name));
          }
        }
      }
    }
  }
  return {result.begin(), result.end()};
}

std::optional<Name> Folder::find(const Name& name) const {
  std::error_code error;
  if (fs::is_regular_file(existing_manifest_path(name), error)) return name;
  for (Name& candidate : names()) {
    if (candidate.same_as(name)) return std::move(candidate);
  }
  return std::nullopt;
}

Result<std::string> Folder::manifest_text(const Name& name) const {
  const fs::path path = existing_manifest_path(name);
  OLLAMA_TRY(check_inside(path));
  OLLAMA_ASSIGN(std::string text, read_file(path, kMaxManifestSize));
  OLLAMA_ASSIGN(auto chosen, choose_manifest(text));
  if (auto* inner = std::get_if<std::string>(&chosen)) return std::move(*inner);
  if (const auto* digest = std::get_if<Digest>(&chosen)) return blob_text(*digest);
  return text;
}

Result<fs::path> Folder::blob_path(const Digest& digest) const {
  fs::path path = blobs() / digest.file_name();
  std::error_code error;
  const auto status = fs::symlink_status(path, error);
  if (status.type() == fs::file_type::not_found) {
    return fail(ErrorCode::kNotFound, "blob {} not found", digest.text());
  }
  if (error) return fail_errno(path.string(), error.value());
  if (status.type() == fs::file_type::symlink) {
    // A link may lead to another blob, not to the rest of the machine.
    const fs::path target = fs::canonical(path, error);
    if (error) return fail_errno(path.string(), error.value());
    if (!is_inside(target, fs::canonical(blobs(), error)) &&
        !is_inside(target, fs::canonical(options.models, error))) {
      return fail(ErrorCode::kPermission, "blob {} is a link that leads out of {}", digest.text(),
                  options.models.string());
    }
    if (fs::is_regular_file(target, error)) return path;
  } else if (status.type() == fs::file_type::regular) {
    return path;
  }
  return fail(ErrorCode::kCorrupt, "blob {} is not a file", digest.text());
}

Result<std::string> Folder::blob_text(const Digest& digest) const {
  OLLAMA_ASSIGN(const fs::path path, blob_path(digest));
  return read_file(path, kMaxText);
}

// ---- models
// --------------------------------------------------------------------------------------

Result<Model> Folder::load(const Name& name) const {
  const auto with_name = [&](const Error& error) { return std::unexpected(of_model(name, error)); };
  const auto text = manifest_text(name);
  if (!text) return with_name(text.error());
  const auto manifest = parse_manifest(*text);
  if (!manifest) return with_name(manifest.error());

  Model model(name);
  model.digest = digest_of(*text).hex();
  model.size = manifest->total_size();
  model.modified_at = modified_at(existing_manifest_path(name));
  const auto config_text = blob_text(manifest->config.digest);
  if (!config_text) return with_name(config_text.error());
  auto config = parse_config(*config_text);
  if (!config) return with_name(config.error());
  model.config = std::move(*config);
  if (is_newer(model.config.requires_version, api::kApiLevel)) {
    log::warn("model {} asks for Ollama {}; this program follows {} and may lack what it needs",
              name.display(), model.config.requires_version, api::kApiLevel);
  }
  if (!model.config.remote_model.empty()) {
    return with_name(Error(ErrorCode::kUnsupported,
                           "it runs in Ollama's cloud, which is not "
                           "supported"));
  }

  for (const Layer& layer : manifest->layers) {
    const std::string& type = layer.media_type;
    if (type == kModelLayer || type == kProjectorLayer || type == kAdapterLayer ||
        type == kDraftLayer) {
      auto path = blob_path(layer.digest);
      if (!path) return with_name(path.error());
      if (type == kProjectorLayer) {
        model.projectors.push_back(std::move(*path));
      } else if (type == kAdapterLayer) {
        model.adapters.push_back(std::move(*path));
      } else if (type == kDraftLayer) {
        model.draft = std::move(*path);
      } else if (model.weights.empty()) {
        model.weights = std::move(*path);
        model.parent_model = layer.from;
      }
      continue;
    }
    const bool known = type == kTemplateLayer || type == kPromptLayer || type == kSystemLayer ||
                       type == kParamsLayer || type == kMessagesLayer || type == kLicenseLayer;
    if (!known) {
      log::debug("model {}: layers of type {} are ignored", name.display(), type);
      continue;
    }
    auto content = blob_text(layer.digest);
    if (!content) return with_name(content.error());
    if (type == kTemplateLayer || type == kPromptLayer) {
      model.template_text = std::move(*content);
    } else if (type == kSystemLayer) {
      model.system = std::move(*content);
    } else if (type == kLicenseLayer) {
      model.license.push_back(std::move(*content));
    } else {
      auto json = api::parse_json(*content);
      const bool params = type == kParamsLayer;
      if (!json || (params ? !json->is_object() : !json->is_array())) {
        return with_name(
            Error(ErrorCode::kCorrupt,
                  std::format("its {} are damaged", params ? "parameters" : "messages")));
      }
      if (params) {
        model.params = std::move(json->as_object());
      } else {
        for (const auto& item : json->as_array()) {
          auto message = api::parse_message(item);
          if (!message) return with_name(message.error());
          model.messages.push_back(std::move(*message));
        }
      }
    }
  }
  if (model.weights.empty()) {
    return with_name(
        Error(ErrorCode::kUnsupported, "it has no GGUF weights; other formats are not supported"));
  }
  model.options = readable_options(model.params, name.display());
  return model;
}

bool Folder::is_bundled(const Name& name) const {
  return !options.bundled.empty() && name.same_as(Name::parse(kBundledName).value());
}

Result<Model> Folder::bundled() const {
  const std::lock_guard lock(bundled_mutex);
  if (bundled_model) return *bundled_model;
  Model model(Name::parse(kBundledName).value());
  model.weights = options.bundled / kBundledFile;
  OLLAMA_ASSIGN(const gguf::File file, gguf::File::open(model.weights));
  OLLAMA_ASSIGN(const Digest digest, digest_of_file(model.weights));
  model.digest = digest.hex();
  model.template_text = "{{ .Prompt }}";
  model.params = {{"num_predict", 256}, {"temperature", 0}};
  model.options = readable_options(model.params, std::string(kBundledName));
  model.license.emplace_back("MIT");
  model.config.model_format = "gguf";
  model.config.model_family = file.architecture();
  model.config.model_families = {model.config.model_family};
  model.config.model_type = human_number(file.parameter_count());
  model.config.file_type = gguf::file_type_name(file);
  model.size = file.file_size();
  model.modified_at = modified_at(model.weights);
  model.bundled = true;
  bundled_model = model;
  return model;
}

Result<Model> Folder::resolve(std::string_view text) const {
  OLLAMA_ASSIGN(const Name name, Name::parse(text));
  if (const auto stored = find(name)) {
    const auto manifest = identity_of(manifest_path(*stored));  // before it is read
    auto model = load(*stored);
    const std::lock_guard lock(resolved_mutex);
    resolved.erase(*stored);
    if (model && manifest) {
      if (resolved.size() >= kMostResolved) resolved.clear();
      resolved.emplace(*stored, Resolved{*manifest, *model});
    }
    return model;
  }
  if (is_bundled(name)) {
    auto model = bundled();
    if (model || model.error().code() != ErrorCode::kNotFound) return model;
  }
  return not_found(text);
}

std::optional<Model> Folder::recall(std::string_view text) const {
  const auto name = Name::parse(text);
  if (!name) return std::nullopt;
  const auto manifest = identity_of(manifest_path(*name));
  const std::lock_guard lock(resolved_mutex);
  const auto found = resolved.find(*name);
  std::error_code error;
  if (found == resolved.end() || found->second.manifest != manifest ||
      !fs::exists(found->second.model.weights, error)) {
    return std::nullopt;
  }
  return found->second.model;
}

Store::Store(Options options) : folder_(std::make_unique<Folder>(std::move(options))) {}
Store::~Store() = default;

const fs::path& Store::directory() const { return folder_->options.models; }
Result<std::uint64_t> Store::free_space() const { return free_space_of(directory()); }

fs::path Store::default_bundled_directory() {
  std::error_code error;
  const fs::path executable = fs::read_symlink("/proc/self/exe", error);
  if (error) return {};
  return (executable.parent_path() / ".." / "share" / "ollama.cpp" / "models").lexically_normal();
}

Result<Model> Store::resolve(std::string_view name) const { return folder_->resolve(name); }
std::optional<Model> Store::recall(std::string_view name) const { return folder_->recall(name); }

Result<api::ListResponse> Store::list() const {
  api::ListResponse response;
  const auto add = [&](const Name& name, const ModelConfig& config, std::uint64_t size,
                       std::string digest, api::Time modified) {
    api::ListModel model;
    model.name = name.display();
    model.model = model.name;
    model.modified_at = modified;
    model.size = size;
    model.digest = std::move(digest);
    model.details.format = config.model_format;
    model.details.family = config.model_family;
    model.details.families = config.model_families;
    model.details.parameter_size = config.model_type;
    model.details.quantization_level = config.file_type;
    response.models.push_back(std::move(model));
  };
  // One damaged model must not hide the others.
  bool shadowed = false;
  for (const Name& name : folder_->names()) {
    shadowed = shadowed || folder_->is_bundled(name);
    const auto read = [&]() -> Result<> {
      OLLAMA_ASSIGN(const std::string text, folder_->manifest_text(name));
      OLLAMA_ASSIGN(const Manifest manifest, parse_manifest(text));
      OLLAMA_ASSIGN(const std::string config_text, folder_->blob_text(manifest.config.digest));
      OLLAMA_ASSIGN(const ModelConfig config, parse_config(config_text));
      add(name, config, manifest.total_size(), digest_of(text).hex(),
          modified_at(folder_->existing_manifest_path(name)));
      return {};
    };
    if (const auto result = read(); !result) {
      log::warn("model {} is left out of the list: {}", name.display(), result.error().message());
    }
  }
  if (!shadowed && !folder_->options.bundled.empty()) {
    if (const auto model = folder_->bundled()) {
      add(model->name, model->config, model->size, model->digest, model->modified_at);
    }
  }
  std::ranges::sort(response.models, [](const api::ListModel& a, const api::ListModel& b) {
    return a.modified_at != b.modified_at ? a.modified_at > b.modified_at : a.name < b.name;
  });
  return response;
}

Result<> Store::remove(std::string_view text) {
  OLLAMA_ASSIGN(const Name wanted, Name::parse(text));
  const auto name = folder_->find(wanted);
  if (name) return folder_->remove(*name);
  if (folder_->is_bundled(wanted)) {
    return fail(ErrorCode::kInvalidArgument,
                "model '{}' comes with the program and cannot be removed", text);
  }
  return not_found(text);
}

Result<Manifest> Store::read_manifest(const Name& name) const {
  const auto stored = folder_->find(name);
  if (!stored) return not_found(name.display());
  OLLAMA_ASSIGN(const std::string text, folder_->manifest_text(*stored));
  return parse_manifest(text);
}

Result<std::string> Store::manifest_text(const Name& name) const {
  const auto stored = folder_->find(name);
  if (!stored && folder_->is_bundled(name)) {
    return fail(
        ErrorCode::kInvalidArgument,
        "model '{}' comes with the program and has no manifest to push: copy it to a name of your "
        "own first",
        name.display());
  }
  if (!stored) return not_found(name.display());
  return folder_->manifest_text(*stored);
}

Result<> Store::write_manifest(const Name& name, const Manifest& manifest, std::string_view text) {
  return folder_->commit(folder_->find(name).value_or(name), manifest, nullptr, text);
}

std::shared_ptr<const Pins> Store::pin(const std::vector<Layer>& layers) {
  auto pins = std::make_shared<Pins>(*folder_);
  for (const Layer& layer : layers) {
    // Where a list of a few lines cannot be written, blobs cannot either: their error will be told.
    if (const auto added = pins->add(layer.digest); !added) {
      log::warn("blobs are not kept from being removed: {}", added.error().message());
      break;
    }
  }
  return pins;
}

// ---- blobs
// ---------------------------------------------------------------------------------------

struct BlobWriter::State {
  fs::path folder;
  std::optional<Digest> expected;
  TemporaryFile file;
  Sha256 hash;
  std::uint64_t size = 0;
};

BlobWriter::BlobWriter(std::unique_ptr<State> state) : state_(std::move(state)) {}
BlobWriter::BlobWriter(BlobWriter&&) noexcept = default;
BlobWriter& BlobWriter::operator=(BlobWriter&&) noexcept = default;
BlobWriter::~BlobWriter() = default;

std::uint64_t BlobWriter::size() const { return state_->size; }

Result<> BlobWriter::append(std::span<const std::byte> bytes) {
  OLLAMA_TRY(state_->file.write(bytes));
  state_->hash.update(bytes);
  state_->size += bytes.size();
  return {};
}

Result<> BlobWriter::append(std::string_view bytes) {
  return append(std::as_bytes(std::span(bytes)));
}

Result<Digest> BlobWriter::commit() {
  Digest digest = state_->hash.finish();
  if (state_->expected && *state_->expected != digest) {
    return fail(ErrorCode::kInvalidArgument,
                "digest mismatch, file must be downloaded again: want {}, got {}",
                state_->expected->text(), digest.text());
  }
  OLLAMA_TRY(state_->file.publish(state_->folder / digest.file_name()));
  return digest;
}

Result<bool> Store::has_blob(std::string_view digest) const {
  OLLAMA_ASSIGN(const Digest parsed, Digest::parse(digest));
  return folder_->has_blob(parsed);
}

Result<fs::path> Store::blob_path(const Digest& digest) const { return folder_->blob_path(digest); }

Result<BlobWriter> Store::begin_blob(const std::optional<Digest>& expected) {
  OLLAMA_ASSIGN(TemporaryFile file, TemporaryFile::create(folder_->blobs()));
  return BlobWriter(std::make_unique<BlobWriter::State>(
      BlobWriter::State{folder_->blobs(), expected, std::move(file), {}, 0}));
}

Result<bool> Store::write_blob(std::string_view digest, std::istream& stream) {
  OLLAMA_ASSIGN(const Digest parsed, Digest::parse(digest));
  if (folder_->has_blob(parsed)) return false;
  OLLAMA_ASSIGN(BlobWriter writer, begin_blob(parsed));
  std::vector<char> buffer(kChunk);
  while (stream) {
    stream.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
    const auto count = static_cast<std::size_t>(stream.gcount());
    if (count > 0) OLLAMA_TRY(writer.append(std::string_view(buffer.data(), count)));
  }
  if (stream.bad()) return fail(ErrorCode::kIo, "blob {}: reading failed", parsed.text());
  OLLAMA_TRY(writer.commit());
  return true;
}

Result<Digest> Store::import_file(const fs::path& path, const Progress& progress) {
  return folder_->import_file(path, progress);
}

Result<Digest> Folder::import_file(const fs::path& path, const Progress& progress, Pins* pins) {
  const UniqueFd source(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!source) return fail_errno(path.string(), errno);
  struct stat info{};
  if (::fstat(source.get(), &info) != 0) return fail_errno(path.string(), errno);
  if (!S_ISREG(info.st_mode)) {
    return fail(ErrorCode::kInvalidArgument, "{}: not a file", path.string());
  }
  OLLAMA_ASSIGN(TemporaryFile file, TemporaryFile::create(blobs()));
  // Shared extents where the file system has them (btrfs, XFS). Not a hard link: a file that is
  // written to later would change the blob. The copy is what is hashed, for the same reason.
  const bool shared = ::ioctl(file.fd(), FICLONE, source.get()) == 0;
  const int input = shared ? file.fd() : source.get();

  Sha256 hash;
  std::vector<std::byte> buffer(kChunk);
  api::ProgressResponse progress_response;
  progress_response.status = std::format("copying {}", path.filename().string());
  progress_response.total = static_cast<std::uint64_t>(info.st_size);
  while (true) {
    const ssize_t count = ::read(input, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(path.string(), errno);
    if (count == 0) break;
    const auto bytes = std::span(buffer).first(static_cast<std::size_t>(count));
    hash.update(bytes);
    if (!shared) OLLAMA_TRY(file.write(bytes));
    progress_response.completed += bytes.size();
    OLLAMA_TRY(report(progress, progress_response));
  }
  Digest digest = hash.finish();
  if (pins != nullptr) OLLAMA_TRY(pins->add(digest));
  if (!has_blob(digest)) OLLAMA_TRY(file.publish(blobs() / digest.file_name()));
  return digest;
}

Result<std::uint64_t> Store::prune() { return folder_->prune(); }

}  // namespace ollama::store
