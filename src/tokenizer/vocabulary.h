// What the kinds of tokenizer share: the tokens with their types and texts, the tokens with a
// role, finding special tokens in a text, and the frame of encode().
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/special.h"
#include "tokenizer/tokenizer.h"

namespace ollama::tokenizer {

// How a normal token's text in the file becomes bytes.
enum class PieceStyle : std::uint8_t {
  kByteCharacters,  // one printable character for each byte, as GPT-2 has it
  kBlankSymbol,     // UTF-8 with U+2581 for a blank
  kText,            // as it stands
};

// A vocabulary as it comes out of a file, while a tokenizer is built from it. `texts` are the
// file's.
struct Vocabulary {
  std::span<const std::string> texts;
  std::vector<std::uint16_t> attributes;  // of every token, from Attribute
  std::vector<float> scores;              // of every token; 0 where the file has none
  Roles roles;

  std::size_t size() const { return texts.size(); }
  // Tokens without a text are in no table.
  bool matchable(std::size_t id) const { return !texts[id].empty(); }
};

// Defaults of a kind of vocabulary, for what the file leaves open.
struct VocabularyDefaults {
  Token bos = kNoToken;
  Token eos = kNoToken;
  Token unknown = kNoToken;
  Token separator = kNoToken;
  Token padding = kNoToken;
  Token mask = kNoToken;
  bool add_bos = false;
  bool add_eos = false;
  bool add_separator = false;
  bool byte_tokens_by_name = false;  // "<0x0A>" is a byte token where types are missing
};

// Errors: kCorrupt (no tokens).
Result<Vocabulary> read_vocabulary(const gguf::File& file, std::string_view pre,
                                   const VocabularyDefaults& defaults);

class VocabularyTokenizer : public Tokenizer {
 public:
  std::vector<Token> encode(std::string_view text, EncodeOptions options) const final;
  std::string_view piece(Token token, bool special) const final;
  std::size_t vocab_size() const final { return attributes_.size(); }
  const SpecialTokens& special() const final { return special_; }
  bool is_end(Token token) const final { return has(token, kEnd); }
  bool is_control(Token token) const final { return has(token, kControl); }

 protected:
  VocabularyTokenizer(const Vocabulary& vocabulary, PieceStyle style);

  // Appends the tokens of `text`, which is not empty and has no special tokens left in it.
  // `at_start`: nothing, or a special token, is before it.
  virtual void encode_text(std::string_view text, bool at_start, std::vector<Token>& out) const = 0;
  // The token that ends a sequence with special tokens; kNoToken for none.
  virtual Token closing() const { return special_.add_eos ? special_.eos : kNoToken; }

  // The byte that a token such as "<0x0A>" stands for, or -1.
  static int byte_of(std::string_view text);

 private:
  bool has(Token token, std::uint16_t attribute) const {
    return token >= 0 && static_cast<std::size_t>(token) < attributes_.size() &&
           (attributes_[static_cast<std::size_t>(token)] & attribute) != 0;
  }

  std::string pieces_;  // all of them in a row
  std::vector<std::size_t> piece_ends_;
  std::vector<std::uint16_t> attributes_;
  SpecialTokens special_;
  SpecialMatcher matcher_;
};

// GPT-2's table of printable characters for bytes. `decode_byte_characters` gives nullopt for a
// text with a character that is not in it.
std::optional<std::string> decode_byte_characters(std::string_view text);

Result<std::unique_ptr<Tokenizer>> make_sentencepiece(const gguf::File& file);
Result<std::unique_ptr<Tokenizer>> make_bpe(const gguf::File& file, std::string_view pre);
Result<std::unique_ptr<Tokenizer>> make_wordpiece(const gguf::File& file);
Result<std::unique_ptr<Tokenizer>> make_unigram(const gguf::File& file);

}  // namespace ollama::tokenizer
