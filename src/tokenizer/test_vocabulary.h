// Small vocabularies for tests and fuzzers, written to a model file and loaded from it.
#pragma once

#include <stdlib.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gguf/file.h"
#include "gguf/writer.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"

namespace ollama::tokenizer::test {

// Rules of normalisation as a file has them, each state in a block of 256 units of its own.
inline std::string charsmap(const std::map<std::string, std::string>& rules) {
  std::vector<std::map<unsigned char, std::uint32_t>> states(1);
  std::map<std::uint32_t, std::uint32_t> values;  // of states
  std::string texts;
  for (const auto& [from, to] : rules) {
    std::uint32_t state = 0;
    for (const char c : from) {
      const auto next = static_cast<std::uint32_t>(states.size());
      const auto [edge, added] = states[state].emplace(static_cast<unsigned char>(c), next);
      state = edge->second;
      if (added) states.emplace_back();
    }
    values[state] = static_cast<std::uint32_t>(texts.size());
    texts += to + '\0';
  }
  const auto base = [](std::uint32_t state) { return 256 * (state + 1); };
  std::vector<std::uint32_t> units(256 * (states.size() + 1));
  units[0] = base(0) << 10;
  for (std::uint32_t state = 0; state < states.size(); ++state) {
    for (const auto& [byte, next] : states[state]) {
      const std::uint32_t unit = base(state) ^ byte;
      units[unit] = ((unit ^ base(next)) << 10) | (values.contains(next) ? 256U : 0U) | byte;
    }
    if (values.contains(state)) units[base(state)] = (1U << 31) | values[state];
  }
  std::string bytes;
  const auto put = [&](std::size_t number) {
    for (int i = 0; i < 4; ++i) bytes.push_back(static_cast<char>(number >> (8 * i)));
  };
  put(4 * units.size());
  for (const std::uint32_t unit : units) put(unit);
  return bytes + texts;
}

class Builder {
 public:
  // A gpt2 vocabulary of the 256 bytes, byte b being token b, with one merge of no use.
  static Builder bpe() {
    Builder builder;
    builder.text("tokenizer.ggml.model", "gpt2").merge("Ā Ā");
    char32_t other = 0x100;
    for (char32_t byte = 0; byte < 256; ++byte) {
      const bool prints = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
      std::string character;
      utf8::append(character, prints ? byte : other++);
      builder.token(character, 1);
    }
    return builder;
  }

  // A Unigram vocabulary of "<s>", "<pad>", "</s>" and "<unk>", in XLM-RoBERTa's order.
  static Builder unigram() {
    Builder builder;
    builder.text("tokenizer.ggml.model", "t5");
    builder.token("<s>", 3).token("<pad>", 3).token("</s>", 3).token("<unk>", 2);
    return builder.number("tokenizer.ggml.bos_token_id", 0)
        .number("tokenizer.ggml.eos_token_id", 2)
        .number("tokenizer.ggml.unknown_token_id", 3)
        .number("tokenizer.ggml.seperator_token_id", 2)
        .flag("tokenizer.ggml.add_bos_token", true);
  }

  // `type` as in tokenizer.ggml.token_type.
  Builder& token(std::string_view text, std::int32_t type, float score = 0) {
    tokens_.emplace_back(text);
    types_.push_back(type);
    scores_.push_back(score);
    return *this;
  }
  // A vocabulary with such tokens has neither types nor scores.
  Builder& plain_token(std::string_view text) {
    tokens_.emplace_back(text);
    return *this;
  }
  Builder& merge(std::string_view line) {
    merges_.emplace_back(line);
    return *this;
  }
  Builder& text(std::string key, std::string value) {
    return set(std::move(key), std::move(value), {.type = GGUF_TYPE_STRING});
  }
  Builder& flag(std::string key, bool value) {
    return set(std::move(key), value, {.type = GGUF_TYPE_BOOL});
  }
  Builder& number(std::string key, std::int64_t value) {
    return set(std::move(key), value, {.type = GGUF_TYPE_INT64});
  }
  Builder& numbers(std::string key, std::vector<std::int32_t> values) {
    arrays_.emplace_back(std::move(key), std::move(values));
    return *this;
  }
  Builder& bytes(std::string key, std::string_view value) {
    std::vector<std::int64_t> numbers;
    for (const char c : value) numbers.push_back(static_cast<unsigned char>(c));
    return set(std::move(key), gguf::Array(std::move(numbers)),
               {.type = GGUF_TYPE_ARRAY, .element = GGUF_TYPE_UINT8});
  }
  Builder& rules(std::string_view charsmap) {
    return bytes("tokenizer.ggml.precompiled_charsmap", charsmap);
  }

  Result<std::unique_ptr<Tokenizer>> load(std::string_view pre) const {
    gguf::Writer writer;
    writer.set_string("general.architecture", "llama");
    for (const auto& [key, value, type] : values_) writer.set(key, value, type);
    for (const auto& [key, values] : arrays_) writer.set_i32s(key, values);
    if (!tokens_.empty()) writer.set_strings("tokenizer.ggml.tokens", tokens_);
    if (!types_.empty()) {
      writer.set_i32s("tokenizer.ggml.token_type", types_);
      writer.set_f32s("tokenizer.ggml.scores", scores_);
    }
    if (!merges_.empty()) writer.set_strings("tokenizer.ggml.merges", merges_);
    std::string folder =
        (std::filesystem::temp_directory_path() / "ollama-vocabulary-XXXXXX").string();
    if (::mkdtemp(folder.data()) == nullptr) return fail(ErrorCode::kIo, "mkdtemp failed");
    auto tokenizer = write_and_load(writer, std::filesystem::path(folder) / "v.gguf", pre);
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
    return tokenizer;
  }

 private:
  struct Entry {
    std::string key;
    gguf::Value value;
    gguf::ValueType type;
  };

  Builder& set(std::string key, gguf::Value value, gguf::ValueType type) {
    values_.push_back({std::move(key), std::move(value), type});
    return *this;
  }

  static Result<std::unique_ptr<Tokenizer>> write_and_load(gguf::Writer& writer,
                                                           const std::filesystem::path& path,
                                                           std::string_view pre) {
    OLLAMA_TRY(writer.begin(path));
    OLLAMA_TRY(writer.finish());
    OLLAMA_ASSIGN(const gguf::File file, gguf::File::open(path));
    return tokenizer::load(file, {.pre = std::string(pre)});
  }

  std::vector<std::string> tokens_;
  std::vector<std::int32_t> types_;
  std::vector<float> scores_;
  std::vector<std::string> merges_;
  std::vector<Entry> values_;
  std::vector<std::pair<std::string, std::vector<std::int32_t>>> arrays_;
};

}  // namespace ollama::tokenizer::test
