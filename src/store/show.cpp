// What a model is: the answer to /api/show.
#include <algorithm>
#include <boost/json/array.hpp>
#include <cctype>
#include <format>

#include "base/units.h"
#include "chat/builtin.h"
#include "chat/go_template.h"
#include "gguf/file.h"
#include "store/folder.h"
#include "store/modelfile.h"

namespace ollama::store {
namespace {

using api::Json;
using api::JsonObject;

// Longer arrays (vocabularies) are shown on demand only.
constexpr std::size_t kMaxShown = 5;

template <typename... F>
struct Overloaded : F... {
  using F::operator()...;
};

Json json_of(const gguf::Array& array, bool verbose) {
  return std::visit(
      [&](const auto& values) -> Json {
        boost::json::array result;
        if (!verbose && values.size() > kMaxShown) return result;
        result.reserve(values.size());
        for (const auto& value : values) {
          if constexpr (std::same_as<std::remove_cvref_t<decltype(values)>, std::vector<bool>>) {
            result.emplace_back(static_cast<bool>(value));
          } else {
            result.emplace_back(value);
          }
        }
        return result;
      },
      array);
}

JsonObject info_of(const gguf::File& file, bool verbose) {
  JsonObject info;
  for (const auto& [key, value] : file.metadata()) {
    // Shown elsewhere, or long.
    if (key == "general.name" || key == "tokenizer.chat_template") continue;
    info.emplace(
        key,
        std::visit(Overloaded{[&](const gguf::Array& array) { return json_of(array, verbose); },
                              [](const auto& plain) { return Json(plain); }},
                   value));
  }
  info.insert_or_assign("general.parameter_count", file.parameter_count());
  return info;
}

// "temperature                    0.7", one line a value.
std::string parameters_text(const JsonObject& params) {
  std::string text;
  const auto add = [&](std::string_view key, const Json& value) {
    if (!text.empty()) text += '\n';
    text += std::format("{:<30} {}", key, api::to_string(value));
  };
  for (const auto& [key, value] : params) {
    if (const auto* items = value.if_array()) {
      for (const Json& item : *items) add(key, item);
    } else {
      add(key, value);
    }
  }
  return text;
}

std::string value_text(const Json& value) {
  return value.is_string() ? std::string(value.get_string()) : api::to_string(value);
}

std::string modelfile_text(const Model& model) {
  Modelfile modelfile;
  const auto add = [&](std::string name, std::string key, std::string value) {
    modelfile.commands.push_back({std::move(name), std::move(key), std::move(value)});
  };
  add("from", "", model.weights.string());
  for (const auto& path : model.projectors) add("from", "", path.string());
  for (const auto& path : model.adapters) add("adapter", "", path.string());
  if (!model.draft.empty()) add("draft", "", model.draft.string());
  if (!model.template_text.empty()) add("template", "", model.template_text);
  if (!model.system.empty()) add("system", "", model.system);
  for (const auto& [key, value] : model.params) {
    if (const auto* items = value.if_array()) {
      for (const Json& item : *items) add("parameter", key, value_text(item));
    } else {
      add("parameter", key, value_text(value));
    }
  }
  if (!model.config.renderer.empty()) add("renderer", "", model.config.renderer);
  if (!model.config.parser.empty()) add("parser", "", model.config.parser);
  if (!model.config.requires_version.empty()) {
    add("requires", "", model.config.requires_version);
  }
  for (const std::string& text : model.license) add("license", "", text);
  for (const api::Message& message : model.messages) add("message", message.role, message.content);
  return std::format(
      "# Written by \"ollama show\". For a Modelfile that builds on this model, put this in place "
      "of\n"
      "# the FROM line below:\n# FROM {}\n\n{}",
      model.name.display(), to_text(modelfile));
}

bool any_in(std::string_view text, std::initializer_list<std::string_view> parts) {
  return std::ranges::any_of(parts, [&](std::string_view part) { return text.contains(part); });
}

}  // namespace

std::vector<std::string> capabilities_of(const gguf::File& file, const ModelConfig& config,
                                         std::string_view template_text, bool has_projector) {
  std::vector<std::string> result;
  if (gguf::ranks_texts(file)) return {"rerank"};
  const bool embedding = file.find(".pooling_type") != nullptr;
  result.emplace_back(embedding ? "embedding" : "completion");
  if (file.find(".vision.block_count") != nullptr || has_projector) {
    result.emplace_back("vision");
  }
  if (embedding) return result;
  // What a Go template uses; where there is none, the names that Jinja templates use, a renderer's
  // among them. A parser that is named says of itself what it reads.
  const auto builtin = chat::builtin_template(config.renderer);
  const auto parser = chat::builtin_parser(config.parser);
  const auto go = chat::GoTemplate::parse(std::string(template_text));
  const auto uses = [&](std::string_view name) { return go && go->uses(name); };
  const std::string_view chat_template = file.string("tokenizer.chat_template").value_or("");
  const std::string_view jinja = parser                  ? std::string_view()
                                 : builtin               ? std::string_view(*builtin)
                                 : template_text.empty() ? chat_template
                                                         : std::string_view();
  if (uses("tools") || jinja.contains("tools") || (parser && parser->tools)) {
    result.emplace_back("tools");
  }
  if (uses("suffix")) result.emplace_back("insert");
  if (uses("think") || uses("isthinkset") || (go && go->thinking_tags()) ||
      any_in(jinja, {"enable_thinking", "<think>", "reasoning_content"}) ||
      (parser && parser->thinking)) {
    result.emplace_back("thinking");
  }
  return result;
}

Result<Facts> Store::facts(const Model& model) const {
  OLLAMA_ASSIGN(const gguf::File file, gguf::File::open(model.weights));
  return Facts{.capabilities = capabilities_of(file, model.config, model.template_text,
                                               !model.projectors.empty()),
               .context_length = file.u32(".context_length").value_or(0),
               .embedding_length = file.u32(".embedding_length").value_or(0)};
}

Result<api::ShowResponse> Store::show(const api::ShowRequest& request) const {
  OLLAMA_ASSIGN(Model model, folder_->resolve(request.model));
  if (!request.system.empty()) model.system = request.system;
  if (!request.template_text.empty()) model.template_text = request.template_text;
  for (const auto& [key, value] : request.options) model.params.insert_or_assign(key, value);
  OLLAMA_ASSIGN(const gguf::File file, gguf::File::open(model.weights));

  api::ShowResponse response;
  for (const std::string& text : model.license) {
    if (!response.license.empty()) response.license += '\n';
    response.license += text;
  }
  response.modelfile = modelfile_text(model);
  response.parameters = parameters_text(model.params);
  response.template_text = model.template_text;
  response.system = model.system;
  response.renderer = model.config.renderer;
  response.parser = model.config.parser;
  response.requires_version = model.config.requires_version;
  response.details.parent_model = model.parent_model;
  response.details.format = model.config.model_format;
  response.details.family = model.config.model_family;
  response.details.families = model.config.model_families;
  response.details.parameter_size = model.config.model_type;
  response.details.quantization_level = model.config.file_type;
  response.messages = model.messages;
  response.model_info = info_of(file, request.verbose);
  if (!model.projectors.empty()) {
    OLLAMA_ASSIGN(const gguf::File projector, gguf::File::open(model.projectors.front()));
    response.projector_info = info_of(projector, request.verbose);
  }
  for (const gguf::TensorInfo& tensor : file.tensors()) {
    api::Tensor entry;
    entry.name = tensor.name;
    entry.type = ggml_type_name(tensor.type);
    std::ranges::transform(entry.type, entry.type.begin(),
                           [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    for (int i = 0; i < tensor.n_dims; ++i) {
      entry.shape.push_back(static_cast<std::uint64_t>(tensor.shape[static_cast<std::size_t>(i)]));
    }
    response.tensors.push_back(std::move(entry));
  }
  response.capabilities =
      capabilities_of(file, model.config, model.template_text, !model.projectors.empty());
  response.modified_at = model.modified_at;
  return response;
}

}  // namespace ollama::store
