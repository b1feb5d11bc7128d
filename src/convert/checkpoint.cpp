#include "convert/checkpoint.h"

#include <algorithm>
#include <array>
#include <boost/json/object.hpp>
#include <set>

#include "gguf/parse.h"

namespace ollama::convert {
namespace {

constexpr std::string_view kIndex = "model.safetensors.index.json";
constexpr std::string_view kSingle = "model.safetensors";
constexpr std::size_t kMaxShards = 4096;
constexpr std::size_t kMaxTensors = 1 << 20;

// The files that an index names, each once.
Result<std::set<std::string>> shards_of(const api::JsonObject& index) {
  const auto* map = object_member(index, "weight_map");
  if (map == nullptr) return fail(ErrorCode::kCorrupt, "{} has no weight_map", kIndex);
  std::set<std::string> names;
  for (const auto& [tensor, file] : *map) {
    const auto* name = file.if_string();
    if (name == nullptr || !is_plain_name(view_of(*name)) ||
        !view_of(*name).ends_with(".safetensors")) {
      return fail(ErrorCode::kCorrupt, "{}: tensor {} is not in a *.safetensors file beside it",
                  kIndex, gguf::printable(tensor));
    }
    names.emplace(view_of(*name));
    if (names.size() > kMaxShards) return fail(ErrorCode::kCorrupt, "{}: too many files", kIndex);
  }
  if (names.empty()) return fail(ErrorCode::kCorrupt, "{} lists no tensors", kIndex);
  return names;
}

Result<std::set<std::string>> weight_files(const Source& source) {
  if (source.has(kIndex)) {
    OLLAMA_ASSIGN(const api::JsonObject index, source.json(kIndex));
    return shards_of(index);
  }
  if (source.has(kSingle)) return std::set<std::string>{std::string(kSingle)};
  std::set<std::string> names;
  bool adapter = false;
  bool others = false;
  for (const std::string_view name : source.names()) {
    if (!name.ends_with(".safetensors")) continue;
    adapter |= name.starts_with("adapter");
    others = true;
    if (name.starts_with("model-")) names.emplace(name);
  }
  if (!names.empty()) return names;
  if (adapter) {
    return fail(ErrorCode::kUnsupported,
                "the weights are an adapter: merge it into its model first, and convert that");
  }
  if (others) {
    return fail(ErrorCode::kUnsupported,
                "no model.safetensors, nor shards of it: weights in other layouts (such as "
                "Mistral's consolidated.safetensors) cannot be converted");
  }
  return fail(ErrorCode::kNotFound, "{} is missing", kSingle);
}

}  // namespace

Result<Checkpoint> Checkpoint::open(const Source& source) {
  OLLAMA_ASSIGN(const auto names, weight_files(source));
  Checkpoint checkpoint;
  for (const std::string& name : names) {
    if (auto added = checkpoint.add(source, name); !added) {
      return std::unexpected(added.error().with_context(gguf::printable(name)));
    }
  }
  return checkpoint;
}

Result<> Checkpoint::add(const Source& source, std::string_view name) {
  OLLAMA_ASSIGN(InputFile file, source.open(name));
  std::array<char, kSafetensorsPrefix> prefix{};
  OLLAMA_TRY(file.read(0, std::as_writable_bytes(std::span(prefix))));
  OLLAMA_ASSIGN(const std::uint64_t size,
                safetensors_header_size({prefix.data(), prefix.size()}, file.size()));
  std::string header(size, '\0');
  OLLAMA_TRY(file.read(kSafetensorsPrefix, std::as_writable_bytes(std::span(header))));
  OLLAMA_ASSIGN(auto tensors, parse_safetensors(header, file.size()));
  for (StoredTensor& tensor : tensors) {
    tensor.file = files_.size();
    if (!names_.emplace(tensor.name, tensors_.size()).second) {
      return fail(ErrorCode::kCorrupt, "tensor {} is in two files", gguf::printable(tensor.name));
    }
    tensors_.push_back(std::move(tensor));
  }
  if (tensors_.size() > kMaxTensors) return fail(ErrorCode::kCorrupt, "too many tensors");
  files_.push_back(std::move(file));
  return {};
}

}  // namespace ollama::convert
