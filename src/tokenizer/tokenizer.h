// Text to tokens and back. Four kinds of vocabulary: SentencePiece-style with scores and byte
// fallback (`tokenizer.ggml.model` = llama), byte-level BPE with a pre-tokenizer (gpt2; gemma4 is
// the same with characters for bytes), WordPiece (bert), Unigram (t5). Results are llama.cpp's,
// token for token.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "gguf/file.h"

namespace ollama::tokenizer {

using Token = std::int32_t;
inline constexpr Token kNoToken = -1;

struct EncodeOptions {
  // BOS/EOS (CLS/SEP) where the model says so. One that is there already (parse_special) stays
  // alone.
  bool add_special = false;
  // Control tokens' texts in the input become those tokens. User-defined tokens' always do.
  bool parse_special = false;
};

// Tokens with a role; kNoToken where the model has none.
struct SpecialTokens {
  Token bos = kNoToken;
  Token eos = kNoToken;
  Token eot = kNoToken;
  Token unknown = kNoToken;
  Token separator = kNoToken;
  Token padding = kNoToken;
  Token mask = kNoToken;
  Token fim_prefix = kNoToken;
  Token fim_suffix = kNoToken;
  Token fim_middle = kNoToken;
  bool add_bos = false;
  bool add_eos = false;
  bool add_separator = false;  // between two texts that are read together
};

// Immutable; safe to use from several threads at once.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Any bytes are accepted. Invalid UTF-8 is treated as llama.cpp treats it: byte tokens where the
  // vocabulary falls back to bytes, U+FFFD for each bad byte elsewhere. Time grows no faster than
  // n log n with the text, whatever it is.
  virtual std::vector<Token> encode(std::string_view text, EncodeOptions options = {}) const = 0;

  // The bytes that `token` stands for in a text: " Once" for "▁Once", one byte for a byte token.
  // Control tokens give nothing unless `special`. Empty for ids outside the vocabulary.
  virtual std::string_view piece(Token token, bool special = false) const = 0;

  virtual std::size_t vocab_size() const = 0;
  virtual const SpecialTokens& special() const = 0;
  // Whether `token` ends an answer: EOS, EOT, the file's eos_token_ids, and the well-known names of
  // end-of-turn tokens.
  virtual bool is_end(Token token) const = 0;
  virtual bool is_control(Token token) const = 0;
  // Whether encode() puts a blank before a text, so that the first piece of it begins with one.
  virtual bool adds_leading_blank() const = 0;

  // The bytes of a whole sequence (StreamDecoder makes valid UTF-8 of them). A leading blank that
  // the vocabulary adds to every text is removed.
  std::string decode(std::span<const Token> tokens, bool special = false) const;
};

// Two texts that a model reads together.
struct Pair {
  std::vector<Token> tokens;
  std::size_t second = 0;  // where the second text begins
};

// [BOS] first [EOS] [separator] second [EOS], of these what the model has: "[CLS] a [SEP] b [SEP]",
// "<s> a </s></s> b </s>". Their texts stay texts. Where the pair has more than `most` tokens the
// second text is cut at its end. One pair for each of `seconds`. Errors: kInvalidArgument where
// `first` leaves no room for them.
Result<std::vector<Pair>> encode_pairs(const Tokenizer& tokenizer, std::string_view first,
                                       std::span<const std::string> seconds, std::size_t most);

struct LoadOptions {
  std::string pre;  // overrides tokenizer.ggml.pre
};

// Builds the tokenizer that a model file describes. Errors: kCorrupt (missing or inconsistent
// vocabulary), kUnsupported (a tokenizer.ggml.model or .pre that is not known; the message names
// it).
Result<std::unique_ptr<Tokenizer>> load(const gguf::File& file, const LoadOptions& options = {});

// Joins pieces into text while they are generated, never giving out half a UTF-8 character: bytes
// of an unfinished one are held back until it is complete or proves invalid (then U+FFFD).
class StreamDecoder {
 public:
  // Appends to `out` what can be shown now.
  void push(std::string_view piece, std::string& out);
  // What is left at the end of an answer.
  void flush(std::string& out);

 private:
  std::string held_;  // at most 3 bytes
};

}  // namespace ollama::tokenizer
