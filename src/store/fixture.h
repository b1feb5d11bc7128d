// What the store's tests share: small model files, and folders as Ollama leaves them.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <format>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/writer.h"
#include "store/store.h"

namespace ollama::store::fixture {

namespace fs = std::filesystem;

inline std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
inline void write(const fs::path& path, std::string_view text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}
inline std::string message_of(const auto& result) {
  return result ? "(no error)" : std::string(result.error().message());
}
inline ErrorCode code_of(const auto& result) {
  return result ? ErrorCode::kInternal : result.error().code();
}
// As if nobody had touched it for so long.
inline void age(const fs::path& path, std::chrono::hours by) {
  fs::last_write_time(path, fs::file_time_type::clock::now() - by);
}

// A small model file; `seed` makes its bytes, and so its digest, differ.
inline void make_gguf(const fs::path& path, std::uint32_t seed = 0,
                      std::string_view architecture = "llama", std::string_view type = "") {
  fs::create_directories(path.parent_path());
  gguf::Writer writer;
  writer.set_string("general.architecture", architecture);
  if (!type.empty()) writer.set_string("general.type", type);
  writer.set_u32("test.seed", seed);
  writer.set_u32("general.file_type", 1);
  writer.set_u32(std::string(architecture) + ".context_length", 64);
  writer.set_strings("tokenizer.ggml.tokens", {"a", "b", "c", "d", "e", "f"});
  const std::array<std::int64_t, 2> shape{32, 2};
  const auto index = writer.add_tensor("token_embd.weight", GGML_TYPE_F16, shape);
  EXPECT_TRUE(index);
  EXPECT_TRUE(writer.begin(path));
  const std::vector<std::byte> bytes(writer.tensor_size(*index));
  EXPECT_TRUE(writer.write(*index, 0, bytes));
  EXPECT_TRUE(writer.finish());
}

// A models folder, filled as Ollama fills it, without the store's help.
class OllamaFolder {
 public:
  explicit OllamaFolder(fs::path models) : models_(std::move(models)) {}

  fs::path blob(std::string_view bytes) const {
    const fs::path path = models_ / "blobs" / digest_of(bytes).file_name();
    write(path, bytes);
    return path;
  }
  std::string layer(std::string_view type, std::string_view bytes,
                    std::string_view more = "") const {
    blob(bytes);
    return std::format(R"({{"mediaType":"{}","digest":"{}","size":{}{}}})", type,
                       digest_of(bytes).text(), bytes.size(), more);
  }
  static std::string manifest(std::string_view config, const std::vector<std::string>& layers) {
    std::string text;
    for (const std::string& layer : layers) text += (text.empty() ? "" : ",") + layer;
    return std::format(R"({{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{}]}})",
                       kManifestType, config, text);
  }
  // `path` is HOST/NAMESPACE/MODEL/TAG.
  fs::path add(std::string_view path, std::string_view manifest) const {
    write(models_ / "manifests" / path, manifest);
    return models_ / "manifests" / path;
  }
  // As newer versions do: the manifest is a blob, and its name a link to it.
  fs::path add_linked(std::string_view path, std::string_view manifest) const {
    const fs::path link = models_ / "manifests-v2" / path;
    fs::create_directories(link.parent_path());
    fs::create_symlink(fs::relative(blob(manifest), link.parent_path()), link);
    return link;
  }

 private:
  fs::path models_;
};

}  // namespace ollama::store::fixture
