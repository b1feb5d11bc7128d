// Making models: from files, from other models, by copying.
#include <algorithm>
#include <boost/json/array.hpp>
#include <format>
#include <map>

#include "base/log.h"
#include "base/units.h"
#include "chat/go_template.h"
#include "gguf/file.h"
#include "gguf/quant_mix.h"
#include "store/files.h"
#include "store/folder.h"
#include "store/modelfile.h"
#include "store/workshop.h"

namespace ollama::store {
namespace fs = std::filesystem;
namespace {

// JSON as Go's encoder writes it, so that equal contents have equal digests: keys sorted, the
// characters of HTML escaped, a line end at the end.
std::string go_json(const std::string& json) {
  std::string text;
  for (const char c : json) {
    switch (c) {
      case '<':
        text += "\\u003c";
        break;
      case '>':
        text += "\\u003e";
        break;
      case '&':
        text += "\\u0026";
        break;
      default:
        text += c;
    }
  }
  return text + "\n";
}

api::JsonObject sorted(const api::JsonObject& object) {
  std::map<std::string_view, const api::Json*> keys;
  for (const auto& [key, value] : object) keys.emplace(key, &value);
  api::JsonObject result;
  for (const auto& [key, value] : keys) result.emplace(key, *value);
  return result;
}

std::string_view layer_type_of(const gguf::File& file) {
  const auto type = file.string("general.type").value_or("");
  if (type == "adapter") return kAdapterLayer;
  if (type == "mmproj" || type == "projector" || file.architecture() == "clip") {
    return kProjectorLayer;
  }
  return kModelLayer;
}

void add_family(ModelConfig& config, std::string_view family) {
  if (!std::ranges::contains(config.model_families, family)) {
    config.model_families.emplace_back(family);
  }
}

// The mix that a request names; null where it names none.
Result<const gguf::QuantMix*> wanted_mix(const std::string& name) {
  if (name.empty()) return nullptr;
  if (const gguf::QuantMix* mix = gguf::find_quant_mix(name)) return mix;
  std::string known;
  for (const gguf::QuantMix& mix : gguf::quant_mixes()) {
    known += std::format("{}{}", known.empty() ? "" : ", ", mix.name);
  }
  return fail(ErrorCode::kInvalidArgument,
              "unsupported quantization type '{}': supported types are {}", name, known);
}

// Files that together are a checkpoint of Hugging Face's, not model files each.
bool is_checkpoint(const std::vector<api::File>& files) {
  return std::ranges::any_of(
      files, [](const api::File& file) { return file.name.ends_with(".safetensors"); });
}

void drop(std::vector<Layer>& layers, std::string_view media_type) {
  std::erase_if(layers, [&](const Layer& layer) { return layer.media_type == media_type; });
}

// The names are the client's, and only told: still, nobody should have to wonder what a path does.
Result<> check_files(const std::vector<api::File>& files) {
  constexpr std::size_t kMaxFiles = 1024;
  constexpr std::size_t kMaxName = 1024;
  if (files.size() > kMaxFiles) {
    return fail(ErrorCode::kInvalidArgument, "{} files are too many; {} are allowed", files.size(),
                kMaxFiles);
  }
  for (const api::File& file : files) {
    const fs::path path = file.name;
    const bool good = !file.name.empty() && file.name.size() <= kMaxName && path.is_relative() &&
                      file.name.find_first_of(std::string_view("\\:\0", 3)) == std::string::npos &&
                      path.lexically_normal().string() == file.name && *path.begin() != ".." &&
                      path != "." && path.has_filename();
    if (!good) {
      return fail(ErrorCode::kInvalidArgument, "file path must be relative: {}",
                  api::to_string(api::Json(file.name.substr(0, 200))));
    }
  }
  return {};
}

}  // namespace

// Collects a model's layers. Every blob it uses is pinned until the manifest is there.
class Creation {
 public:
  Creation(Folder& folder, Progress progress)
      : folder_(folder),
        progress_(std::move(progress)),
        pins_(folder),
        workshop_(folder, progress_) {}

  ModelConfig config;

  // All layers of another model.
  Result<> take_model(const std::string& from) {
    OLLAMA_ASSIGN(const Model model, folder_.resolve(from));
    if (model.bundled) return take_bundled(model);
    OLLAMA_ASSIGN(const std::string text, folder_.manifest_text(model.name));
    OLLAMA_ASSIGN(const Manifest manifest, parse_manifest(text));
    config = model.config;
    for (Layer layer : manifest.layers) {
      OLLAMA_TRY(pins_.add(layer.digest));
      layer.from = model.name.display();
      OLLAMA_TRY(say("using existing layer {}", layer.digest.text()));
      layers_.push_back(std::move(layer));
    }
    return {};
  }

  // A blob that is a GGUF file. `wanted` is its layer's type, where the caller knows.
  Result<> take_file(const api::File& entry, std::optional<std::string_view> wanted) {
    const auto named = [&](const Error& error) {
      return std::unexpected(error.with_context(entry.name));
    };
    const auto digest = Digest::parse(entry.digest);
    if (!digest) return named(digest.error());
    OLLAMA_TRY(pins_.add(*digest));
    const auto path = folder_.blob_path(*digest);
    if (!path) return named(path.error());
    OLLAMA_TRY(say("parsing GGUF"));
    const auto file = gguf::File::open(*path);
    if (!file) {
      return named(file.error().with_context("only GGUF files can be used"));
    }
    const std::string_view type = wanted.value_or(layer_type_of(*file));
    if (type == kModelLayer) {
      if (model_seen_) {
        return named(Error(ErrorCode::kUnsupported, "a model can have one file of weights only"));
      }
      model_seen_ = true;
      describe(*file);
    } else if (type == kProjectorLayer) {
      add_family(config, file->architecture());
    } else if (type == kDraftLayer) {
      config.others["draft"] = {{"model_format", "gguf"}, {"architecture", file->architecture()}};
    }
    OLLAMA_TRY(say("using existing layer {}", digest->text()));
    layers_.push_back({std::string(type), *digest, file->file_size(), {}});
    return {};
  }

  // The files of a checkpoint, of which a model file is made.
  Result<> take_checkpoint(const std::vector<api::File>& files) {
    std::vector<SourceFile> sources;
    for (const api::File& file : files) {
      const auto digest = Digest::parse(file.digest);
      if (!digest) return std::unexpected(digest.error().with_context(file.name));
      OLLAMA_TRY(pins_.add(*digest));
      auto path = folder_.blob_path(*digest);
      if (!path) return std::unexpected(path.error().with_context(file.name));
      sources.push_back({.name = file.name, .path = std::move(*path)});
    }
    return workshop_.convert(std::move(sources));
  }

  // Gives the weights other types. Weights that are of the wanted types already stay.
  Result<> quantise(const gguf::QuantMix& mix) {
    fs::path source = workshop_.made();
    if (source.empty()) {
      const auto weights = std::ranges::find(layers_, kModelLayer, &Layer::media_type);
      if (weights == layers_.end()) return {};  // reported by whoever asks has_model()
      OLLAMA_ASSIGN(source, folder_.blob_path(weights->digest));
    }
    OLLAMA_ASSIGN(const gguf::File file, gguf::File::open(source));
    if (gguf::file_type_name(file) == mix.name) return {};
    return workshop_.quantise(source, mix);
  }

  // What the workshop made becomes the model's weights.
  Result<> take_made() {
    if (workshop_.made().empty()) return {};
    OLLAMA_ASSIGN(Digest digest, workshop_.publish(pins_));
    OLLAMA_ASSIGN(const fs::path path, folder_.blob_path(digest));
    OLLAMA_ASSIGN(const gguf::File file, gguf::File::open(path));
    describe(file);
    drop(layers_, kModelLayer);
    layers_.insert(layers_.begin(),
                   {std::string(kModelLayer), std::move(digest), file.file_size(), {}});
    return {};
  }

  bool has_model() const {
    return std::ranges::any_of(layers_,
                               [](const Layer& layer) { return layer.media_type == kModelLayer; });
  }

  void drop_layers(std::string_view media_type) { drop(layers_, media_type); }

  // A small blob with this content.
  Result<> add_text(std::string_view media_type, std::string_view text) {
    OLLAMA_ASSIGN(Layer layer, write(media_type, text));
    layers_.push_back(std::move(layer));
    return {};
  }
  Result<> replace_text(std::string_view media_type, std::string_view text) {
    drop(layers_, media_type);
    return add_text(media_type, text);
  }

  // The parameters over those that the base model has.
  Result<> set_parameters(const api::JsonObject& parameters) {
    if (parameters.empty()) return {};
    OLLAMA_TRY(api::parse_options(parameters));
    api::JsonObject merged;
    for (const Layer& layer : layers_) {
      if (layer.media_type != kParamsLayer) continue;
      OLLAMA_ASSIGN(const std::string text, folder_.blob_text(layer.digest));
      const auto json = api::parse_json(text);
      if (!json || !json->is_object()) {
        return fail(ErrorCode::kCorrupt, "the base model's parameters are damaged");
      }
      merged = json->get_object();
    }
    for (const auto& [key, value] : parameters) merged.insert_or_assign(key, value);
    return replace_text(kParamsLayer, go_json(api::to_string(sorted(merged))));
  }

  Result<> set_messages(const std::vector<api::Message>& messages) {
    if (messages.empty()) return {};
    boost::json::array array;
    for (const api::Message& message : messages) array.emplace_back(api::to_json(message));
    return replace_text(kMessagesLayer, go_json(api::to_string(api::Json(std::move(array)))));
  }

  Result<> finish(const Name& name) {
    OLLAMA_ASSIGN(Layer layer, write(kConfigType, to_text(config, layers_)));
    OLLAMA_TRY(say("writing manifest"));
    OLLAMA_TRY(folder_.commit(name, Manifest{std::move(layer), layers_}, &pins_));
    return say("success");
  }

 private:
  template <typename... Args>
  Result<> say(std::format_string<Args...> format, Args&&... args) {
    api::ProgressResponse response;
    response.status = std::format(format, std::forward<Args>(args)...);
    return report(progress_, response);
  }

  // What the configuration says of the weights.
  void describe(const gguf::File& file) {
    config.model_format = "gguf";
    config.model_family = file.architecture();
    config.model_type = human_number(file.parameter_count());
    config.file_type = gguf::file_type_name(file);
    // The weights' family comes first.
    std::erase(config.model_families, config.model_family);
    config.model_families.insert(config.model_families.begin(), config.model_family);
  }

  Result<> take_bundled(const Model& model) {
    OLLAMA_ASSIGN(const Digest digest, folder_.import_file(model.weights, {}, &pins_));
    OLLAMA_TRY(take_file({std::string(kBundledFile), digest.text()}, kModelLayer));
    layers_.back().from = model.name.display();
    OLLAMA_TRY(add_text(kTemplateLayer, model.template_text));
    for (const std::string& text : model.license) OLLAMA_TRY(add_text(kLicenseLayer, text));
    return set_parameters(model.params);
  }

  Result<Layer> write(std::string_view media_type, std::string_view text) {
    if (text.size() > kMaxText) {
      return fail(ErrorCode::kInvalidArgument, "{} bytes of text are too many; {} are allowed",
                  text.size(), kMaxText);
    }
    Digest digest = digest_of(text);
    OLLAMA_TRY(pins_.add(digest));
    // One that a crash of another program left damaged is written again.
    if (const auto there = folder_.blob_text(digest); there && *there == text) {
      OLLAMA_TRY(say("using existing layer {}", digest.text()));
    } else {
      OLLAMA_TRY(say("creating new layer {}", digest.text()));
      OLLAMA_TRY(write_file(folder_.blobs() / digest.file_name(), text));
    }
    return Layer{std::string(media_type), std::move(digest), text.size(), {}};
  }

  Folder& folder_;
  Progress progress_;
  Pins pins_;
  Workshop workshop_;
  std::vector<Layer> layers_;
  bool model_seen_ = false;
};

Result<> Store::create(const api::CreateRequest& request, const Progress& progress) {
  OLLAMA_ASSIGN(const Name wanted, Name::parse(request.model));
  OLLAMA_ASSIGN(const gguf::QuantMix* const mix, wanted_mix(request.quantize));
  for (const auto* files : {&request.files, &request.adapters, &request.draft_files}) {
    OLLAMA_TRY(check_files(*files));
  }
  if (request.draft_files.size() > 1) {
    return fail(ErrorCode::kUnsupported, "a model can have one draft model only");
  }

  Creation creation(*folder_, progress);
  if (!request.from.empty()) {
    OLLAMA_TRY(creation.take_model(request.from));
  } else if (is_checkpoint(request.files)) {
    OLLAMA_TRY(creation.take_checkpoint(request.files));
  } else if (!request.files.empty()) {
    for (const api::File& file : request.files) OLLAMA_TRY(creation.take_file(file, std::nullopt));
  } else {
    return fail(ErrorCode::kInvalidArgument, "neither 'from' or 'files' was specified");
  }
  if (mix != nullptr) OLLAMA_TRY(creation.quantise(*mix));
  OLLAMA_TRY(creation.take_made());
  for (const api::File& file : request.adapters) {
    OLLAMA_TRY(creation.take_file(file, kAdapterLayer));
  }
  if (!request.draft_files.empty()) creation.drop_layers(kDraftLayer);
  for (const api::File& file : request.draft_files) {
    OLLAMA_TRY(creation.take_file(file, kDraftLayer));
  }
  if (!creation.has_model()) {
    return fail(ErrorCode::kInvalidArgument, "none of the files holds a model's weights");
  }

  if (!request.renderer.empty()) creation.config.renderer = request.renderer;
  if (!request.parser.empty()) creation.config.parser = request.parser;
  if (!request.requires_version.empty()) {
    OLLAMA_ASSIGN(creation.config.requires_version, parse_version(request.requires_version));
  }
  if (!request.template_text.empty()) {
    // Better now than with every request.
    if (auto parsed = chat::GoTemplate::parse(request.template_text); !parsed) {
      return fail(std::move(parsed));
    }
    creation.drop_layers(kPromptLayer);
    OLLAMA_TRY(creation.replace_text(kTemplateLayer, request.template_text));
  }
  if (!request.system.empty()) OLLAMA_TRY(creation.replace_text(kSystemLayer, request.system));
  for (const std::string& text : request.license) {
    OLLAMA_TRY(creation.add_text(kLicenseLayer, text));
  }
  OLLAMA_TRY(creation.set_parameters(request.parameters));
  OLLAMA_TRY(creation.set_messages(request.messages));
  return creation.finish(folder_->find(wanted).value_or(wanted));
}

Result<> Store::copy(std::string_view source, std::string_view destination) {
  OLLAMA_ASSIGN(const Name target, Name::parse(destination));
  OLLAMA_ASSIGN(const Name wanted, Name::parse(source));
  const Name name = folder_->find(target).value_or(target);
  // Also what cannot run here can be copied.
  if (const auto stored = folder_->find(wanted)) {
    if (*stored == name) return {};
    return folder_->copy_manifest(*stored, name).transform_error([&](const Error& error) {
      return of_model(*stored, error);
    });
  }
  OLLAMA_TRY(folder_->resolve(source));
  // The bundled model has no manifest to copy: it becomes one of the user's.
  Creation creation(*folder_, {});
  OLLAMA_TRY(creation.take_model(std::string(source)));
  return creation.finish(name);
}

}  // namespace ollama::store
