// WordPiece, BERT's tokenizer: words are normalised, then cut into the longest tokens from the
// left.
#include <utf8proc.h>

#include <array>
#include <string>

#include "tokenizer/tables.h"
#include "tokenizer/utf8.h"
#include "tokenizer/vocabulary.h"

namespace ollama::tokenizer {
namespace {

struct Range {
  char32_t first;
  char32_t last;
};
// The last but two begins 0x100 late, as in the tokenizer that models were trained with.
constexpr Range kHan[] = {{0x4E00, 0x9FFF},   {0x3400, 0x4DBF},   {0x20000, 0x2A6DF},
                          {0x2A700, 0x2B73F}, {0x2B740, 0x2B81F}, {0x2B920, 0x2CEAF},
                          {0xF900, 0xFAFF},   {0x2F800, 0x2FA1F}};

bool is_han(char32_t code) {
  return code >= 0x3400 && std::ranges::any_of(kHan, [&](const Range& range) {
           return code >= range.first && code <= range.last;
         });
}

bool is_blank(char32_t code) {
  return (code >= 9 && code <= 13) || code == ' ' || code == 0x85 || code == 0xA0 ||
         code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 ||
         code == 0x202F || code == 0x205F || code == 0x3000;
}

enum class Kind : std::uint8_t { kBlank, kDropped, kAlone, kInWord };

// The first character of the canonical decomposition: é gives e. (Of a Hangul syllable it is the
// first letter only; llama.cpp has it so.)
char32_t without_accent(char32_t code) {
  if (code < 0xC0) return code;
  std::array<utf8proc_int32_t, 8> parts{};
  int boundary = 0;
  const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code), parts.data(),
                                             parts.size(), UTF8PROC_DECOMPOSE, &boundary);
  return count > 0 && count <= static_cast<utf8proc_ssize_t>(parts.size())
             ? static_cast<char32_t>(parts[0])
             : code;
}

Kind kind_of(char32_t code, bool strip_accents) {
  if (is_blank(code)) return Kind::kBlank;
  if (code == 0 || code == utf8::kReplacement) return Kind::kDropped;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CS:
      return Kind::kDropped;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
      return strip_accents ? Kind::kDropped : Kind::kInWord;
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
      return Kind::kAlone;
    case UTF8PROC_CATEGORY_SM:
    case UTF8PROC_CATEGORY_SC:
    case UTF8PROC_CATEGORY_SK:
    case UTF8PROC_CATEGORY_SO:
      return code < 0x7F ? Kind::kAlone : Kind::kInWord;
    default:
      return is_han(code) ? Kind::kAlone : Kind::kInWord;
  }
}

class WordPieceTokenizer final : public VocabularyTokenizer {
 public:
  WordPieceTokenizer(const gguf::File& file, const Vocabulary& vocabulary)
      : VocabularyTokenizer(vocabulary, PieceStyle::kBlankSymbol) {
    lowercase_ = file.boolean("tokenizer.ggml.normalizer.lowercase").value_or(true);
    strip_accents_ = file.boolean("tokenizer.ggml.normalizer.strip_accents").value_or(lowercase_);
    for (std::size_t id = 0; id < vocabulary.size(); ++id) {
      if (vocabulary.matchable(id)) {
        words_.set(vocabulary.texts[id], static_cast<std::uint32_t>(id));
      }
    }
    word_start_ = Trie::kRoot;
    for (const char c : utf8::kBlankSymbol) {
      if (word_start_ != kNone) word_start_ = words_.step(word_start_, c);
    }
    for (char32_t code = 0; code < ascii_.size(); ++code) {
      ascii_[code] = {kind_of(code, strip_accents_), static_cast<char>(lower(code))};
    }
  }

  bool adds_leading_blank() const override { return true; }

 protected:
  Token closing() const override { return special().separator; }

  void encode_text(std::string_view text, bool /*at_start*/,
                   std::vector<Token>& out) const override {
    std::string word;
    const auto finish = [&] {
      if (!word.empty()) encode_word(word, out);
      word.clear();
    };
    for (std::size_t at = 0; at < text.size();) {
      Kind kind = Kind::kInWord;
      char32_t code = 0;
      if (const auto byte = static_cast<unsigned char>(text[at]); byte < ascii_.size()) {
        kind = ascii_[byte].kind;
        code = static_cast<unsigned char>(ascii_[byte].lower);
        ++at;
      } else {
        const utf8::Character c = utf8::decode_lenient(text.substr(at));
        at += c.length;
        code = strip_accents_ ? without_accent(c.code) : c.code;
        kind = kind_of(code, strip_accents_);
        code = lower(code);
      }
      if (kind == Kind::kDropped) continue;
      if (kind != Kind::kInWord) finish();
      if (kind != Kind::kBlank) utf8::append(word, code);
      if (kind == Kind::kAlone) finish();
    }
    finish();
  }

 private:
  struct AsciiEntry {
    Kind kind = Kind::kInWord;
    char lower = 0;
  };

  char32_t lower(char32_t code) const {
    if (!lowercase_) return code;
    return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code)));
  }

  // A word that is not tokens to its end is one unknown token.
  void encode_word(std::string_view word, std::vector<Token>& out) const {
    const std::size_t before = out.size();
    std::uint32_t start = word_start_;
    std::size_t at = 0;
    // The vocabulary may lack words that begin like this one, but have U+2581 alone.
    bool found = true;
    for (bool first = true; first || at < word.size(); first = false) {
      std::uint32_t node = first ? start : Trie::kRoot;
      std::uint32_t best = node == kNone || !first ? kNone : words_.value(node);
      std::size_t end = at;
      for (std::size_t i = at; node != kNone && i < word.size(); ++i) {
        node = words_.step(node, word[i]);
        if (node != kNone && words_.value(node) != kNone) {
          best = words_.value(node);
          end = i + 1;
        }
      }
      if (best == kNone) {
        found = false;
        break;
      }
      out.push_back(static_cast<Token>(best));
      at = end;
    }
    if (found) return;
    out.resize(before);
    if (special().unknown != kNoToken) out.push_back(special().unknown);
  }

  Trie words_;
  std::uint32_t word_start_ = kNone;  // the node behind U+2581
  bool lowercase_ = true;
  bool strip_accents_ = true;
  std::array<AsciiEntry, 128> ascii_{};
};

}  // namespace

Result<std::unique_ptr<Tokenizer>> make_wordpiece(const gguf::File& file) {
  OLLAMA_ASSIGN(const Vocabulary vocabulary, read_vocabulary(file, "",
                                                             {.bos = 101,
                                                              .unknown = 100,
                                                              .separator = 102,
                                                              .padding = 0,
                                                              .mask = 103,
                                                              .add_bos = true}));
  return std::make_unique<WordPieceTokenizer>(file, vocabulary);
}

}  // namespace ollama::tokenizer
