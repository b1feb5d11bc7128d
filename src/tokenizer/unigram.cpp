// Unigram, the tokenizer of T5 and XLM-RoBERTa: of all ways to cut a text into tokens the one with
// the best sum of scores (T. Kudo, "Subword Regularization", 2018), found by Viterbi's algorithm.
//
// A vocabulary where U+2581 only begins tokens, as nearly all are, lets a text be cut before every
// word: no token reaches across.
#include <algorithm>
#include <cmath>
#include <limits>

#include "tokenizer/charsmap.h"
#include "tokenizer/tables.h"
#include "tokenizer/utf8.h"
#include "tokenizer/vocabulary.h"
#include "tokenizer/word_memory.h"

namespace ollama::tokenizer {
namespace {

// Longer tokens are never found, so that a hostile vocabulary cannot make each position expensive.
constexpr std::size_t kLongestPiece = 256;
// Longer words are cut, so that what they take in memory has a limit.
constexpr std::size_t kLongestStretch = std::size_t{1} << 22;
// Normalised text is cut into words when so much of it has come together.
constexpr std::size_t kStretch = std::size_t{1} << 14;
// How much worse an unknown character is than the worst token.
constexpr float kUnknownPenalty = 10.0F;

class UnigramTokenizer final : public VocabularyTokenizer {
 public:
  UnigramTokenizer(const gguf::File& file, const Vocabulary& vocabulary, Charsmap rules)
      : VocabularyTokenizer(vocabulary, PieceStyle::kBlankSymbol),
        rules_(std::move(rules)),
        prefixes_text_(file.boolean("tokenizer.ggml.add_space_prefix").value_or(false)),
        merges_blanks_(file.boolean("tokenizer.ggml.remove_extra_whitespaces").value_or(false)),
        scores_(vocabulary.scores),
        memory_(vocabulary.size()) {
    std::size_t bytes = 0;
    for (const std::string& text : vocabulary.texts) bytes += text.size();
    words_.reserve(vocabulary.size(), bytes);
    float worst = std::numeric_limits<float>::max();
    for (std::size_t id = 0; id < vocabulary.size(); ++id) {
      const std::uint16_t attributes = vocabulary.attributes[id];
      const std::string& text = vocabulary.texts[id];
      float& score = scores_[id];
      if ((attributes & (kNormal | kUserDefined | kUnused)) == 0) continue;
      if (!vocabulary.matchable(id) || text.size() > kLongestPiece || !std::isfinite(score)) {
        continue;
      }
      if ((attributes & kNormal) != 0) worst = std::min(worst, score);
      // Scores are logarithms of probabilities: such a token is preferred to any other.
      if ((attributes & kUserDefined) != 0) score = 0;
      pieces_.set(text, static_cast<std::uint32_t>(id));
      words_.set(text, static_cast<std::uint32_t>(id));
      if (word_end(text, 0) < text.size()) cut_words_ = false;
    }
    if (worst < std::numeric_limits<float>::max()) unknown_score_ = worst - kUnknownPenalty;
  }

  bool adds_leading_blank() const override { return prefixes_text_ || merges_blanks_; }

 protected:
  // Every part between special tokens is normalised as a text of its own. (llama.cpp exempts more
  // than that: what begins as a user-defined token does, even if it goes on otherwise. A token that
  // begins with a byte of a longer character's would break that character.)
  void encode_text(std::string_view text, bool /*at_start*/,
                   std::vector<Token>& out) const override {
    Run run{.out = out};
    std::string& normal = run.normal;
    bool in_word = false;
    bool prefixed = false;
    const auto put = [&](char c) {
      if (c == ' ') {
        in_word = false;
        if (!merges_blanks_) normal += utf8::kBlankSymbol;
        return;
      }
      if (!in_word) {
        in_word = true;
        if (merges_blanks_ || (prefixes_text_ && !prefixed)) {
          normal += utf8::kBlankSymbol;
          prefixed = true;
        }
      }
      normal.push_back(c);
    };
    std::size_t enough = kStretch;
    for (std::size_t at = 0; at < text.size();) {
      if (const Charsmap::Rule rule = rules_.find(text.substr(at)); rule.length > 0) {
        for (const char c : rule.replacement) put(c);
        at += rule.length;
      } else {
        const utf8::Character c = utf8::decode_lenient(text.substr(at));
        for (const char byte : c.valid ? text.substr(at, c.length) : utf8::kReplacementText) {
          put(byte);
        }
        at += c.length;
      }
      if (normal.size() >= enough) {
        encode_words(run, false);
        // What is left is read again: a word that is long is not looked at too often.
        enough = 2 * normal.size() + kStretch;
      }
    }
    encode_words(run, true);
  }

 private:
  struct Best {
    double score;
    std::uint32_t begin;  // of the token that ends here
    Token token;
  };
  // The state of encoding a text.
  struct Run {
    std::vector<Token>& out;
    std::string normal = {};         // what is not cut into tokens yet
    std::vector<Best> best = {};     // how to reach each position of a word
    std::vector<Token> tokens = {};  // of a word, from its end
    bool after_unknown = false;      // unknown tokens in a row are one
  };

  // Where the word that begins at `begin` ends: U+2581, any number of them, and what follows.
  static std::size_t word_end(std::string_view text, std::size_t begin) {
    while (text.substr(begin).starts_with(utf8::kBlankSymbol)) begin += utf8::kBlankSymbol.size();
    return std::min(text.find(utf8::kBlankSymbol, begin), text.size());
  }

  // Takes words off the front of the text; the last one only if `all`, it may go on.
  void encode_words(Run& run, bool all) const {
    const std::string_view text = run.normal;
    std::size_t begin = 0;
    while (begin < text.size()) {
      std::size_t end = cut_words_ ? word_end(text, begin) : text.size();
      if (end - begin > kLongestStretch) {
        end = begin + kLongestStretch;
        while (utf8::is_continuation(text[end]) && end > begin + kLongestStretch - 4) --end;
      } else if (end == text.size() && !all) {
        break;
      }
      encode_word(text.substr(begin, end - begin), run);
      begin = end;
    }
    run.normal.erase(0, begin);
  }

  void encode_word(std::string_view word, Run& run) const {
    const std::uint32_t whole = words_.find(word);
    const WordMemory::State state = whole == kNone ? WordMemory::State::kParts : memory_.get(whole);
    if (state == WordMemory::State::kWhole) {
      emit(static_cast<Token>(whole), run);
      return;
    }
    find_best(word, run);
    if (state == WordMemory::State::kUnknown) {
      const bool alone = run.tokens.size() == 1 && run.tokens[0] == static_cast<Token>(whole);
      memory_.set(whole, alone ? WordMemory::State::kWhole : WordMemory::State::kParts);
    }
    for (std::size_t i = run.tokens.size(); i-- > 0;) emit(run.tokens[i], run);
  }

  void emit(Token token, Run& run) const {
    const bool unknown = token == special().unknown;
    if (token != kNoToken && !(unknown && run.after_unknown)) run.out.push_back(token);
    run.after_unknown = unknown;
  }

  void find_best(std::string_view word, Run& run) const {
    std::vector<Best>& best = run.best;
    best.assign(word.size() + 1, {-std::numeric_limits<double>::max(), 0, special().unknown});
    best[0].score = 0;
    for (std::size_t begin = 0; begin < word.size();) {
      const double so_far = best[begin].score;
      const auto reach = [&](std::size_t end, Token token, float score) {
        // Of equal ones the first stays: the one with the longest last token.
        if (const double sum = so_far + double{score}; sum > best[end].score) {
          best[end] = {sum, static_cast<std::uint32_t>(begin), token};
        }
      };
      const std::size_t next =
          begin + std::min(utf8::announced_length(word[begin]), word.size() - begin);
      bool known = false;
      std::uint32_t node = Trie::kRoot;
      for (std::size_t end = begin; end < word.size();) {
        node = pieces_.step(node, word[end++]);
        if (node == kNone) break;
        const std::uint32_t token = pieces_.value(node);
        if (token == kNone) continue;
        known |= end == next;
        reach(end, static_cast<Token>(token), scores_[token]);
      }
      if (!known) reach(next, special().unknown, unknown_score_);
      begin = next;
    }
    run.tokens.clear();
    for (std::size_t end = word.size(); end > 0; end = best[end].begin) {
      run.tokens.push_back(best[end].token);
    }
  }

  Charsmap rules_;
  bool prefixes_text_;
  bool merges_blanks_;
  bool cut_words_ = true;
  Trie pieces_;
  StringTable words_;  // the same tokens
  std::vector<float> scores_;
  float unknown_score_ = -kUnknownPenalty;
  WordMemory memory_;
};

Result<Charsmap> read_charsmap(const gguf::File& file) {
  constexpr const char* kKey = "tokenizer.ggml.precompiled_charsmap";
  const auto type = file.value_type(kKey);
  if (!type) return Charsmap();
  if (type->type != GGUF_TYPE_ARRAY ||
      (type->element != GGUF_TYPE_UINT8 && type->element != GGUF_TYPE_INT8)) {
    return fail(ErrorCode::kCorrupt, "{}: expected an array of bytes", kKey);
  }
  std::string bytes;
  for (const std::int32_t byte : file.i32s(kKey)) bytes.push_back(static_cast<char>(byte));
  return Charsmap::parse(bytes);
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> make_unigram(const gguf::File& file) {
  OLLAMA_ASSIGN(
      const Vocabulary vocabulary,
      read_vocabulary(
          file, "",
          {.eos = 1, .unknown = 2, .padding = 0, .add_eos = true, .add_separator = true}));
  OLLAMA_ASSIGN(Charsmap rules, read_charsmap(file));
  return std::make_unique<UnigramTokenizer>(file, vocabulary, std::move(rules));
}

}  // namespace ollama::tokenizer
