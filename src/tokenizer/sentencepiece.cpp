// SentencePiece-style tokens with scores: of all neighbours that are a token together, the pair
// with the best score is merged; characters that are no token become bytes.
//
// Inside, U+2581 is a plain blank. A vocabulary where it only begins tokens, as nearly all are,
// lets a text be cut before every word: nothing merges across.
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "tokenizer/merge.h"
#include "tokenizer/tables.h"
#include "tokenizer/utf8.h"
#include "tokenizer/vocabulary.h"
#include "tokenizer/word_memory.h"

namespace ollama::tokenizer {
namespace {

// The higher the score, the lower the number.
std::uint32_t priority_of(float score) {
  if (std::isnan(score)) return kNone - 1;
  const auto bits = std::bit_cast<std::uint32_t>(score + 0.0F);  // -0 becomes 0
  const std::uint32_t ascending = (bits >> 31) != 0 ? ~bits : bits | 0x80000000U;
  return std::min(~ascending, kNone - 1);
}

class SentencePieceTokenizer final : public VocabularyTokenizer {
 public:
  SentencePieceTokenizer(const gguf::File& file, const Vocabulary& vocabulary)
      : VocabularyTokenizer(vocabulary, PieceStyle::kBlankSymbol),
        add_blank_(file.boolean("tokenizer.ggml.add_space_prefix").value_or(true)),
        memory_(vocabulary.size()) {
    std::size_t bytes = 0;
    for (const std::string& text : vocabulary.texts) bytes += text.size();
    tokens_.reserve(vocabulary.size(), bytes);
    byte_tokens_.fill(kNoToken);
    std::string text;
    for (std::size_t id = 0; id < vocabulary.size(); ++id) {
      priorities_.push_back(priority_of(vocabulary.scores[id]));
      // Texts have no blanks once they are U+2581, so no token with one is ever found.
      if (!vocabulary.matchable(id) || vocabulary.texts[id].contains(' ')) continue;
      text.clear();
      utf8::append_with_blanks(vocabulary.texts[id], text);
      tokens_.set(text, static_cast<std::uint32_t>(id));
      if (const int byte = byte_of(text); byte >= 0) {
        byte_tokens_[static_cast<std::size_t>(byte)] = static_cast<Token>(id);
      }
      for (std::size_t i = 1; i < text.size(); ++i) {
        if (text[i] == ' ' && text[i - 1] != ' ') cut_words_ = false;
      }
    }
    for (std::size_t byte = 0; byte < byte_tokens_.size(); ++byte) {
      if (byte_tokens_[byte] != kNoToken) continue;
      const char c = static_cast<char>(byte);
      const std::uint32_t token = tokens_.find(std::string_view(&c, 1));
      byte_tokens_[byte] = token == kNone ? special().unknown : static_cast<Token>(token);
    }
  }

  bool adds_leading_blank() const override { return add_blank_; }

 protected:
  void encode_text(std::string_view text, bool at_start, std::vector<Token>& out) const override {
    std::string blanked;
    if (at_start && add_blank_) {
      blanked.reserve(text.size() + 1);
      blanked.push_back(' ');
    }
    if (!blanked.empty() || text.contains(utf8::kBlankSymbol)) {
      utf8::append_with_blanks(text, blanked);
      text = blanked;
    }
    Scratch scratch;
    while (!text.empty()) {
      std::size_t end = std::min<std::size_t>(text.size(), kLongestWord);
      if (cut_words_) {
        // A word is blanks and what follows them up to the next.
        end = std::min(text.find_first_not_of(' '), end);
        end = std::min(text.find(' ', end), std::min<std::size_t>(text.size(), kLongestWord));
      }
      encode_word(text.substr(0, end), scratch, out);
      text.remove_prefix(end);
    }
  }

 private:
  // Positions in a word are 32 bits wide.
  static constexpr std::size_t kLongestWord = std::numeric_limits<std::int32_t>::max();

  struct Scratch {
    std::vector<Symbol> symbols;
    Merger merger;
  };

  void encode_word(std::string_view word, Scratch& scratch, std::vector<Token>& out) const {
    const std::uint32_t token = tokens_.find(word);
    const WordMemory::State state = token == kNone ? WordMemory::State::kParts : memory_.get(token);
    if (state == WordMemory::State::kWhole) {
      out.push_back(static_cast<Token>(token));
      return;
    }
    const std::size_t before = out.size();
    merge_word(word, scratch, out);
    if (state == WordMemory::State::kUnknown) {
      const bool whole = out.size() == before + 1 && out.back() == static_cast<Token>(token);
      memory_.set(token, whole ? WordMemory::State::kWhole : WordMemory::State::kParts);
    }
  }

  void merge_word(std::string_view word, Scratch& scratch, std::vector<Token>& out) const {
    std::vector<Symbol>& symbols = scratch.symbols;
    symbols.clear();
    const auto end = static_cast<std::uint32_t>(word.size());
    for (std::uint32_t at = 0; at < end;) {
      symbols.push_back({kNone, at});
      at += static_cast<std::uint32_t>(
          std::min<std::size_t>(utf8::announced_length(word[at]), end - at));
    }
    scratch.merger.run(
        symbols, end, [&](const Symbol& left, const Symbol&, std::uint32_t right_end) {
          const std::uint32_t token = tokens_.find(word.substr(left.begin, right_end - left.begin));
          return token == kNone ? Merge{} : Merge{priorities_[token], token};
        });
    for (std::size_t i = 0; i < symbols.size(); ++i) {
      const std::uint32_t stop = i + 1 < symbols.size() ? symbols[i + 1].begin : end;
      const std::string_view text = word.substr(symbols[i].begin, stop - symbols[i].begin);
      const std::uint32_t token = symbols[i].id == kNone ? tokens_.find(text) : symbols[i].id;
      if (token != kNone) {
        out.push_back(static_cast<Token>(token));
        continue;
      }
      for (const char c : text == " " ? utf8::kBlankSymbol : text) {
        const Token byte = byte_tokens_[static_cast<unsigned char>(c)];
        if (byte != kNoToken) out.push_back(byte);
      }
    }
  }

  StringTable tokens_;
  std::vector<std::uint32_t> priorities_;
  std::array<Token, 256> byte_tokens_{};
  bool add_blank_ = true;
  bool cut_words_ = true;
  WordMemory memory_;
};

}  // namespace

Result<std::unique_ptr<Tokenizer>> make_sentencepiece(const gguf::File& file) {
  OLLAMA_ASSIGN(
      const Vocabulary vocabulary,
      read_vocabulary(
          file, "",
          {.bos = 1, .eos = 2, .unknown = 0, .add_bos = true, .byte_tokens_by_name = true}));
  return std::make_unique<SentencePieceTokenizer>(file, vocabulary);
}

}  // namespace ollama::tokenizer
