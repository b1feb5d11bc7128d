// The models on this machine: names, manifests and blobs in Ollama's directory layout, so that an
// existing ~/.ollama/models works as it is.
//
//   manifests/HOST/NAMESPACE/MODEL/TAG   JSON: the configuration's and layers' digests
//   blobs/sha256-HEX                     weights, templates, parameters, ...
//
// A file appears under its name complete and synced, or not at all. What the files say is
// untrusted. Where no model of that name exists, "stories260k" is the model that comes with the
// program.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <istream>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/types.h"
#include "base/error.h"
#include "gguf/file.h"
#include "store/converter.h"
#include "store/digest.h"
#include "store/manifest.h"
#include "store/name.h"

namespace ollama::store {

inline constexpr std::string_view kBundledName = "stories260k";
inline constexpr std::string_view kBundledFile = "stories260K-f16.gguf";

// A model, ready to be loaded: where its weights are, and how it wants to be used.
struct Model {
  explicit Model(Name name_in) : name(std::move(name_in)) {}

  Name name;
  std::filesystem::path weights;
  std::vector<std::filesystem::path> projectors;
  std::vector<std::filesystem::path> adapters;
  std::filesystem::path draft;  // a smaller model that guesses ahead; empty when it has none
  std::string template_text;    // empty when the model has none
  std::string system;
  api::JsonObject params;  // as stored
  api::Options options;    // the same, checked; unreadable ones are left out with a warning
  std::vector<api::Message> messages;
  std::vector<std::string> license;
  ModelConfig config;
  std::string digest;        // of the manifest, hex; of the weights' file for the bundled model
  std::string parent_model;  // what it was made from, where that is known
  std::uint64_t size = 0;    // bytes on disk
  api::Time modified_at{};
  bool bundled = false;
};

// What a model of these weights can do: "completion", "embedding" or "rerank"; "vision", "tools",
// "insert", "thinking".
std::vector<std::string> capabilities_of(const gguf::File& weights, const ModelConfig& config = {},
                                         std::string_view template_text = {},
                                         bool has_projector = false);

// What weights tell of a model, beside its configuration.
struct Facts {
  std::vector<std::string> capabilities;  // see capabilities_of
  std::uint32_t context_length = 0;       // tokens it was trained with; 0: not told
  std::uint32_t embedding_length = 0;     // numbers a token has inside; 0: not told
};

// Progress of long calls; returning false cancels them (kCancelled).
using Progress = std::function<bool(const api::ProgressResponse&)>;

// Bytes on their way to become a blob: hidden until commit() has seen that they are the right ones.
class BlobWriter {
 public:
  BlobWriter(BlobWriter&&) noexcept;
  BlobWriter& operator=(BlobWriter&&) noexcept;
  ~BlobWriter();  // without commit() nothing is left behind

  Result<> append(std::span<const std::byte> bytes);
  Result<> append(std::string_view bytes);
  // Makes the blob visible. kInvalidArgument when the bytes have another digest than expected.
  Result<Digest> commit();
  std::uint64_t size() const;

 private:
  friend class Store;
  struct State;
  explicit BlobWriter(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

struct Folder;  // internal
class Pins;     // internal

// Safe to use from several threads. Another process may use the same folder.
class Store {
 public:
  struct Options {
    std::filesystem::path models;               // OLLAMA_MODELS; made when it is first written to
    std::filesystem::path bundled;              // folder of the bundled model; empty: there is none
    bool prune = true;                          // remove blobs that creating a model leaves unused
    std::shared_ptr<Converter> converter = {};  // unset: nothing is converted nor quantised
  };
  explicit Store(Options options);
  ~Store();

  // <folder of the executable>/../share/ollama.cpp/models.
  static std::filesystem::path default_bundled_directory();

  // ---- models ----
  // The model of a name as a user writes it. A name that differs in the case of letters is found.
  // Errors: kInvalidArgument "invalid model name", kNotFound "model 'x' not found", kCorrupt,
  // kUnsupported (no GGUF weights).
  Result<Model> resolve(std::string_view name) const;
  // What resolve() found for this name, where the model is still the same: two files are looked at,
  // and none is read. nullopt: resolve() has to be asked.
  std::optional<Model> recall(std::string_view name) const;
  // All models, the latest first; unreadable manifests are left out with a warning.
  Result<api::ListResponse> list() const;
  Result<api::ShowResponse> show(const api::ShowRequest& request) const;
  // Reads the weights' metadata. Errors: those of gguf::File::open.
  Result<Facts> facts(const Model& model) const;
  // Makes a model from `request.files` (blobs: model files, or those of a checkpoint) or
  // `request.from` (a model), with the parameters and texts of the request, and quantised where it
  // says so. Replaces a model of that name. Errors: those of resolve and of Converter;
  // kInvalidArgument and kUnsupported say what the request asks wrongly; kNotFound for blobs that
  // are missing.
  Result<> create(const api::CreateRequest& request, const Progress& progress = {});
  Result<> copy(std::string_view source, std::string_view destination);
  // Removes the manifest and the blobs that no other model uses. kInvalidArgument for the bundled
  // one.
  Result<> remove(std::string_view name);

  // ---- blobs ----
  Result<bool> has_blob(std::string_view digest) const;
  // kNotFound when it does not exist; kPermission for a link that leads out of the models' folder.
  Result<std::filesystem::path> blob_path(const Digest& digest) const;
  // A blob to be written; without `expected`, whatever digest comes out.
  Result<BlobWriter> begin_blob(const std::optional<Digest>& expected = std::nullopt);
  // The whole stream as the blob `digest`. False when it existed already (the stream is not read).
  Result<bool> write_blob(std::string_view digest, std::istream& stream);
  // A local file as a blob, without copying its bytes where the file system can share them.
  Result<Digest> import_file(const std::filesystem::path& path, const Progress& progress = {});

  // Removes blobs that nothing has used for an hour, downloads that nobody has gone on with for a
  // week, and what dead processes left; for the server's start. Removes nothing when a manifest
  // cannot be read, and no blobs while another process downloads some. Returns the bytes freed.
  Result<std::uint64_t> prune();

  // ---- manifests, for pulling and pushing ----
  Result<Manifest> read_manifest(const Name& name) const;
  // As it is stored.
  Result<std::string> manifest_text(const Name& name) const;
  // `text` is what is written; empty: the manifest as this program writes it.
  Result<> write_manifest(const Name& name, const Manifest& manifest, std::string_view text = {});
  // Keeps the layers' blobs from being removed as long as the value lives. They need not exist yet.
  std::shared_ptr<const Pins> pin(const std::vector<Layer>& layers);
  const std::filesystem::path& directory() const;
  // Bytes that may be written there.
  Result<std::uint64_t> free_space() const;

 private:
  std::unique_ptr<Folder> folder_;
};

}  // namespace ollama::store
