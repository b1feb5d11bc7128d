#include "convert/vocabulary.h"

#include <boost/json/object.hpp>
#include <format>

#include "convert/sentencepiece.h"

namespace ollama::convert {
namespace {

constexpr std::string_view kSentencePiece = "tokenizer.model";
constexpr std::string_view kWordList = "vocab.txt";
// Of Unigram tokens that nothing is to become.
constexpr float kUnusedScore = -10000;

// tokenizer.json is the truth about byte-level vocabularies; SentencePiece's own file has the
// scores that were only ranks in it.
Result<Vocabulary> read_any(const Source& source, const TokenizerFiles& files, std::size_t rows) {
  const TokenizerKind kind = kind_of(files.tokenizer);
  if (kind == TokenizerKind::kByteLevel || kind == TokenizerKind::kWordPiece ||
      kind == TokenizerKind::kUnigram) {
    return parse_tokenizer_json(files.tokenizer, kind, rows);
  }
  if (source.has(kSentencePiece)) {
    OLLAMA_ASSIGN(const std::string data, source.text(kSentencePiece));
    return parse_sentencepiece(data, rows);
  }
  if (kind == TokenizerKind::kByteFallback) {
    return parse_tokenizer_json(files.tokenizer, kind, rows);
  }
  if (kind == TokenizerKind::kOther) {
    return fail(ErrorCode::kUnsupported,
                "tokenizer.json has a kind of vocabulary that cannot be converted: only byte-level "
                "BPE, BPE with byte fallback, WordPiece and Unigram can");
  }
  if (source.has(kWordList)) {
    OLLAMA_ASSIGN(const std::string text, source.text(kWordList));
    return parse_word_list(text, rows);
  }
  return fail(ErrorCode::kNotFound,
              "there is no tokenizer: tokenizer.json, tokenizer.model or vocab.txt is needed");
}

}  // namespace

void Vocabulary::set(std::size_t id, std::string text, TokenType type, float score) {
  while (tokens.size() <= id) {
    tokens.push_back(std::format("[PAD{}]", tokens.size()));
    types.push_back(TokenType::kUnused);
    scores.push_back(0);
  }
  tokens[id] = std::move(text);
  types[id] = type;
  scores[id] = score;
}

Result<TokenizerFiles> TokenizerFiles::read(const Source& source) {
  TokenizerFiles files;
  OLLAMA_ASSIGN(files.tokenizer, source.json("tokenizer.json"));
  OLLAMA_ASSIGN(files.config, source.json("tokenizer_config.json"));
  OLLAMA_ASSIGN(files.special_tokens, source.json("special_tokens_map.json"));
  OLLAMA_ASSIGN(files.added_tokens, source.json("added_tokens.json"));
  OLLAMA_ASSIGN(files.generation, source.json("generation_config.json"));
  return files;
}

Result<Vocabulary> read_vocabulary(const Source& source, const TokenizerFiles& files,
                                   std::size_t rows) {
  OLLAMA_ASSIGN(Vocabulary vocabulary, read_any(source, files, rows));
  add_added_tokens(files, rows, vocabulary);
  if (const auto prefix = bool_member(files.config, "add_prefix_space");
      prefix && vocabulary.add_space_prefix) {
    vocabulary.add_space_prefix = prefix;
  }
  // Embeddings are padded to a round number of rows.
  if (vocabulary.size() < rows) {
    vocabulary.set(rows - 1, std::format("[PAD{}]", rows - 1), TokenType::kUnused);
  }
  for (std::size_t id = 0; vocabulary.model == "t5" && id < vocabulary.size(); ++id) {
    if (vocabulary.types[id] == TokenType::kUnused) vocabulary.scores[id] = kUnusedScore;
  }
  return vocabulary;
}

Result<> write_vocabulary(gguf::Writer& writer, const Vocabulary& vocabulary, const Source& source,
                          const TokenizerFiles& files, const Config& config) {
  writer.set_string("tokenizer.ggml.model", vocabulary.model);
  writer.set_string("tokenizer.ggml.pre", vocabulary.pre);
  writer.set_strings("tokenizer.ggml.tokens", vocabulary.tokens);
  if (vocabulary.model == "llama" || vocabulary.model == "t5") {
    writer.set_f32s("tokenizer.ggml.scores", vocabulary.scores);
  }
  std::vector<std::int32_t> types;
  for (const TokenType type : vocabulary.types) types.push_back(static_cast<std::int32_t>(type));
  writer.set_i32s("tokenizer.ggml.token_type", types);
  if (vocabulary.model == "gpt2") writer.set_strings("tokenizer.ggml.merges", vocabulary.merges);
  const auto flag = [&](std::string_view key, std::optional<bool> value) {
    if (value) writer.set_bool(std::format("tokenizer.ggml.{}", key), *value);
  };
  flag("add_space_prefix", vocabulary.add_space_prefix);
  flag("remove_extra_whitespaces", vocabulary.merges_blanks);
  if (!vocabulary.charsmap.empty()) {
    std::vector<std::int64_t> bytes;
    for (const char c : vocabulary.charsmap) bytes.push_back(static_cast<unsigned char>(c));
    writer.set("tokenizer.ggml.precompiled_charsmap", gguf::Array(std::move(bytes)),
               {.type = GGUF_TYPE_ARRAY, .element = GGUF_TYPE_UINT8});
  }
  flag("normalizer.lowercase", vocabulary.lowercase);
  flag("normalizer.strip_accents", vocabulary.strip_accents);
  write_special_tokens(writer, vocabulary, files, config);
  return write_chat_template(writer, source, files);
}

}  // namespace ollama::convert
