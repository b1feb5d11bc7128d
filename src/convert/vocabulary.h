// Internal to convert: a checkpoint's tokenizer, from any of the forms it is published in to the
// keys of a model file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/types.h"
#include "base/error.h"
#include "convert/config.h"
#include "convert/source.h"
#include "gguf/writer.h"

namespace ollama::convert {

// As tokenizer.ggml.token_type numbers them.
enum class TokenType : std::int32_t {
  kNormal = 1,
  kUnknown,
  kControl,
  kUserDefined,
  kUnused,
  kByte,
};

struct Vocabulary {
  std::string model;  // tokenizer.ggml.model: "llama", "gpt2", "bert" or "t5"
  std::string pre;    // tokenizer.ggml.pre
  std::vector<std::string> tokens;
  std::vector<TokenType> types;
  std::vector<float> scores;        // of "llama" and "t5"
  std::vector<std::string> merges;  // of "gpt2"
  std::optional<bool> add_space_prefix;
  std::string charsmap;  // of "t5": rules of normalisation, as SentencePiece has them
  std::optional<bool> merges_blanks;
  std::optional<bool> add_bos, add_eos;  // what the tokenizer's own file says
  std::optional<bool> add_separator;     // besides EOS between two texts
  std::optional<bool> lowercase, strip_accents;
  bool strips_right = false;  // blanks behind some special tokens belong to them

  std::size_t size() const { return tokens.size(); }
  // Sets a token; ids between, which have no text of their own, are unused.
  void set(std::size_t id, std::string text, TokenType type, float score = 0);
};

// The JSON files around a tokenizer, each read once; empty where there is none.
struct TokenizerFiles {
  api::JsonObject tokenizer;       // tokenizer.json
  api::JsonObject config;          // tokenizer_config.json
  api::JsonObject special_tokens;  // special_tokens_map.json
  api::JsonObject added_tokens;    // added_tokens.json
  api::JsonObject generation;      // generation_config.json

  static Result<TokenizerFiles> read(const Source& source);
};

// The vocabulary of a model whose embedding has so many rows; exactly as many tokens. Errors:
// kUnsupported (a kind of tokenizer, or a pre-tokenizer, that this program does not know),
// kCorrupt, kNotFound.
Result<Vocabulary> read_vocabulary(const Source& source, const TokenizerFiles& files,
                                   std::size_t rows);

// Writes the vocabulary, the tokens with a role and the chat template.
Result<> write_vocabulary(gguf::Writer& writer, const Vocabulary& vocabulary, const Source& source,
                          const TokenizerFiles& files, const Config& config);

// ---- parts of the above ----

inline constexpr std::string_view kBlankSymbol = "\u2581";

// What kind of vocabulary tokenizer.json has.
enum class TokenizerKind : std::uint8_t {
  kNone,
  kByteLevel,
  kByteFallback,
  kWordPiece,
  kUnigram,
  kOther
};
TokenizerKind kind_of(const api::JsonObject& tokenizer);
// From tokenizer.json, of any kind but the first and the last.
Result<Vocabulary> parse_tokenizer_json(const api::JsonObject& tokenizer, TokenizerKind kind,
                                        std::size_t rows);
// From vocab.txt: a token a line.
Result<Vocabulary> parse_word_list(std::string_view text, std::size_t rows);

// Tokens that were added to the vocabulary, from wherever they are listed.
void add_added_tokens(const TokenizerFiles& files, std::size_t rows, Vocabulary& vocabulary);
// Ids of tokens with a role, and whether the first of them begins a text.
void write_special_tokens(gguf::Writer& writer, const Vocabulary& vocabulary,
                          const TokenizerFiles& files, const Config& config);
Result<> write_chat_template(gguf::Writer& writer, const Source& source,
                             const TokenizerFiles& files);

}  // namespace ollama::convert
