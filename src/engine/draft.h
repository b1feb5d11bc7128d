// A model file in memory that tests change and write under another name.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <map>
#include <string>
#include <vector>

#include "gguf/file.h"
#include "gguf/writer.h"

namespace ollama::engine::fixture {

inline constexpr std::array<std::string_view, 3> kVocabulary{
    "tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type"};

inline std::string text(std::string_view value) { return std::string(value); }

// A model file in memory, to be changed and written under another name.
class Draft {
 public:
  struct Tensor {
    std::string name;
    ggml_type type = GGML_TYPE_F32;
    std::vector<std::int64_t> shape;
    std::vector<std::byte> bytes;
    bool ollama_mxfp4 = false;

    std::span<float> floats() {
      return {reinterpret_cast<float*>(bytes.data()), bytes.size() / sizeof(float)};
    }
  };

  explicit Draft(const std::filesystem::path& path) {
    const auto file = gguf::File::open(path);
    EXPECT_TRUE(file) << file.error().message();
    for (const auto& [key, value] : file->metadata()) {
      metadata_[key] = {value, *file->value_type(key)};
    }
    for (const gguf::TensorInfo& info : file->tensors()) {
      const auto bytes = *file->data(info);
      tensors_.push_back({.name = info.name,
                          .type = info.type,
                          .shape = {info.shape.begin(), info.shape.begin() + info.n_dims},
                          .bytes = {bytes.begin(), bytes.end()}});
    }
  }

  // Renames the architecture, in the metadata's keys too.
  void set_architecture(std::string_view name) {
    const std::string old = std::get<std::string>(metadata_.at("general.architecture").first) + ".";
    std::map<std::string, std::pair<gguf::Value, gguf::ValueType>, std::less<>> renamed;
    for (auto& [key, value] : metadata_) {
      renamed[key.starts_with(old) ? std::format("{}.{}", name, key.substr(old.size())) : key] =
          std::move(value);
    }
    metadata_ = std::move(renamed);
    set("general.architecture", text(name));
  }
  void rename_key(std::string_view from, std::string_view to) {
    auto entry = metadata_.extract(metadata_.find(from));
    entry.key() = to;
    metadata_.insert(std::move(entry));
  }
  void set(std::string_view key, std::string value) {
    metadata_.insert_or_assign(
        text(key), std::pair(gguf::Value(std::move(value)), gguf::ValueType{GGUF_TYPE_STRING, {}}));
  }
  void set(std::string_view key, double value) {
    metadata_.insert_or_assign(text(key),
                               std::pair(gguf::Value(double{static_cast<float>(value)}),
                                         gguf::ValueType{GGUF_TYPE_FLOAT32, GGUF_TYPE_COUNT}));
  }
  void set(std::string_view key, std::int64_t value) {
    metadata_.insert_or_assign(
        text(key),
        std::pair(gguf::Value(value), gguf::ValueType{GGUF_TYPE_UINT32, GGUF_TYPE_COUNT}));
  }
  void set(std::string_view key, bool value) {
    metadata_.insert_or_assign(
        text(key), std::pair(gguf::Value(value), gguf::ValueType{GGUF_TYPE_BOOL, GGUF_TYPE_COUNT}));
  }
  void remove(std::string_view key) { EXPECT_NE(metadata_.erase(text(key)), 0U) << key; }
  // Takes another file's tokenizer for its own.
  void take_tokenizer(const std::filesystem::path& path) {
    const auto file = gguf::File::open(path);
    ASSERT_TRUE(file) << file.error().message();
    const auto is_part = [](const auto& entry) { return entry.first.starts_with("tokenizer."); };
    std::erase_if(metadata_, is_part);
    for (const auto& entry : file->metadata()) {
      if (is_part(entry)) metadata_[entry.first] = {entry.second, *file->value_type(entry.first)};
    }
  }
  // Makes the vocabulary's lists this long.
  void resize_vocabulary(std::size_t size) {
    for (const std::string_view key : kVocabulary) {
      const auto found = metadata_.find(key);
      if (found == metadata_.end()) continue;
      std::visit([size](auto& elements) { elements.resize(size); },
                 std::get<gguf::Array>(found->second.first));
    }
  }

  std::vector<Tensor>& tensors() { return tensors_; }
  // Renames what follows a tensor's block: ("attn_output", "attn_out").
  void rename_tensors(std::string_view part, std::string_view to) {
    std::size_t count = 0;
    for (Tensor& tensor : tensors_) {
      const auto at = std::format(".{}.", tensor.name).find(std::format(".{}.", part));
      if (at == std::string::npos) continue;
      tensor.name.replace(at, part.size(), to);
      ++count;
    }
    EXPECT_NE(count, 0U) << part;
  }
  // Tensors of nonsense that a text model has to leave alone.
  void add_tensors(std::initializer_list<std::string_view> names) {
    for (const std::string_view name : names) {
      tensors_.push_back({.name = text(name), .shape = {32, 2}, .bytes = {}});
      tensors_.back().bytes.resize(32 * 2 * sizeof(float), std::byte{0x7F});
    }
  }

  void write(const std::filesystem::path& path) const {
    gguf::Writer writer;
    for (const auto& [key, entry] : metadata_) writer.set(key, entry.first, entry.second);
    for (const Tensor& tensor : tensors_) {
      ASSERT_TRUE(writer.add_tensor(tensor.name, tensor.type, tensor.shape)) << tensor.name;
    }
    ASSERT_TRUE(writer.begin(path));
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      ASSERT_TRUE(writer.write(i, 0, tensors_[i].bytes)) << tensors_[i].name;
    }
    ASSERT_TRUE(writer.finish());
    mark_mxfp4(path);
  }

 private:
  // Ollama's MXFP4 is a type number that GGML does not know, nor the writer.
  void mark_mxfp4(const std::filesystem::path& path) const {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    const std::string content(std::istreambuf_iterator<char>(file), {});
    for (const Tensor& tensor : tensors_) {
      if (!tensor.ollama_mxfp4) continue;
      const std::size_t at = content.find(tensor.name) + tensor.name.size() +
                             sizeof(std::uint32_t) + tensor.shape.size() * sizeof(std::uint64_t);
      ASSERT_EQ(content.at(at), GGML_TYPE_MXFP4);
      file.seekp(static_cast<std::streamoff>(at));
      file.put(4);
    }
  }

  std::map<std::string, std::pair<gguf::Value, gguf::ValueType>, std::less<>> metadata_;
  std::vector<Tensor> tensors_;
};

}  // namespace ollama::engine::fixture
