// Byte-pair encoding: the text is cut into pieces by the pre-tokenizer, each piece is merged by
// rank. Works on bytes: the printable characters that the file writes for them are decoded once, on
// load.
#include <array>
#include <limits>

#include "tokenizer/merge.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer/tables.h"
#include "tokenizer/utf8.h"
#include "tokenizer/vocabulary.h"
#include "tokenizer/word_memory.h"

namespace ollama::tokenizer {
namespace {

class BpeTokenizer final : public VocabularyTokenizer {
 public:
  BpeTokenizer(const Vocabulary& vocabulary, std::span<const std::string> merges,
               const PretokenizerSpec& spec, Pretokenizer pretokenizer)
      : VocabularyTokenizer(vocabulary, spec.blank_symbol ? PieceStyle::kBlankSymbol
                                        : spec.raw        ? PieceStyle::kText
                                                          : PieceStyle::kByteCharacters),
        spec_(spec),
        pretokenizer_(std::move(pretokenizer)),
        memory_(vocabulary.size()) {
    fill_symbols(vocabulary, merges);
    fill_merges(merges);
    for (std::size_t byte = 0; byte < byte_tokens_.size(); ++byte) {
      static constexpr std::string_view kHex = "0123456789ABCDEF";
      const char text = static_cast<char>(byte);
      const char name[] = {'<', '0', 'x', kHex[byte >> 4], kHex[byte & 15], '>'};
      byte_symbols_[byte] = symbols_.find(std::string_view(&text, 1));
      if (spec_.raw) {
        byte_tokens_[byte] = token_of(symbols_.find(std::string_view(name, sizeof(name))));
      } else if (text > 0x20 && text < 0x7F) {
        // Of what is no token, llama.cpp keeps the bytes that stand for themselves.
        byte_tokens_[byte] = token_of(byte_symbols_[byte]);
      }
    }
  }

  bool adds_leading_blank() const override { return false; }

 protected:
  void encode_text(std::string_view text, bool /*at_start*/,
                   std::vector<Token>& out) const override {
    std::string escaped;
    if (spec_.blank_symbol && text.contains(' ')) {
      for (const char c : text) {
        if (c == ' ') {
          escaped.append(utf8::kBlankSymbol);
        } else {
          escaped.push_back(c);
        }
      }
      text = escaped;
    }
    const utf8::CleanText clean(text);
    std::vector<std::size_t> ends;
    pretokenizer_.split(clean.subject(), ends);
    Scratch scratch;
    std::size_t begin = 0;
    for (const std::size_t end : ends) {
      encode_word(clean.bytes().substr(begin, end - begin), scratch, out);
      begin = end;
    }
  }

 private:
  struct Scratch {
    std::vector<Symbol> symbols;
    Merger merger;
  };

  // Symbols are numbered: tokens by their id, then other texts that merges name.
  void fill_symbols(const Vocabulary& vocabulary, std::span<const std::string> merges) {
    std::size_t bytes = 0;
    for (const std::string& text : vocabulary.texts) bytes += text.size();
    for (const std::string& text : merges) bytes += 2 * text.size();
    symbols_.reserve(vocabulary.size() + 256, bytes);
    for (std::size_t id = 0; id < vocabulary.size(); ++id) {
      if (!vocabulary.matchable(id)) continue;
      if (const auto text = symbol_text(vocabulary.texts[id])) {
        symbols_.set(*text, static_cast<std::uint32_t>(id));
      }
    }
  }

  void fill_merges(std::span<const std::string> merges) {
    merges_.reserve(merges.size());
    auto next = static_cast<std::uint32_t>(vocab_size());
    const auto intern = [&](const std::string& text) {
      const std::uint32_t known = symbols_.find(text);
      if (known != kNone) return known;
      symbols_.set(text, next);
      return next++;
    };
    for (std::size_t rank = 0; rank < merges.size(); ++rank) {
      const std::string_view line = merges[rank];
      // The blank between the two; a blank in first place belongs to the left one.
      const std::size_t blank = line.find(' ', 1);
      if (blank == std::string_view::npos) continue;
      const auto left = symbol_text(line.substr(0, blank));
      const auto right = symbol_text(line.substr(blank + 1));
      if (!left || !right || left->empty() || right->empty()) continue;
      const std::uint32_t left_id = intern(*left);
      const std::uint32_t right_id = intern(*right);
      merges_.add(left_id, right_id, {static_cast<std::uint32_t>(rank), intern(*left + *right)});
    }
  }

  // nullopt for a text that no piece of a text can be.
  std::optional<std::string> symbol_text(std::string_view text) const {
    if (spec_.raw) return std::string(text);
    return decode_byte_characters(text);
  }

  Token token_of(std::uint32_t symbol) const {
    return symbol < vocab_size() ? static_cast<Token>(symbol) : kNoToken;
  }

  bool taken_whole(std::string_view word) const {
    return spec_.whole_words ||
           (spec_.newline_words && word.find_first_not_of('\n') == std::string_view::npos);
  }

  void encode_word(std::string_view word, Scratch& scratch, std::vector<Token>& out) const {
    const Token token = token_of(symbols_.find(word));
    if (token != kNoToken) {
      const WordMemory::State state = taken_whole(word)
                                          ? WordMemory::State::kWhole
                                          : memory_.get(static_cast<std::size_t>(token));
      if (state == WordMemory::State::kWhole) {
        out.push_back(token);
        return;
      }
      const std::size_t before = out.size();
      merge_word(word, scratch, out);
      if (state == WordMemory::State::kUnknown) {
        const bool whole = out.size() == before + 1 && out.back() == token;
        memory_.set(static_cast<std::size_t>(token),
                    whole ? WordMemory::State::kWhole : WordMemory::State::kParts);
      }
      return;
    }
    merge_word(word, scratch, out);
  }

  void merge_word(std::string_view word, Scratch& scratch, std::vector<Token>& out) const {
    // Positions in a word are 32 bits wide; beyond that it is cut.
    constexpr std::size_t kLongest = std::numeric_limits<std::int32_t>::max();
    while (word.size() > kLongest) {
      merge_word(word.substr(0, kLongest), scratch, out);
      word.remove_prefix(kLongest);
    }
    std::vector<Symbol>& symbols = scratch.symbols;
    symbols.clear();
    const auto end = static_cast<std::uint32_t>(word.size());
    for (std::uint32_t at = 0; at < end;) {
      if (spec_.raw) {
        const auto length = static_cast<std::uint32_t>(
            std::min<std::size_t>(utf8::announced_length(word[at]), end - at));
        symbols.push_back({symbols_.find(word.substr(at, length)), at});
        at += length;
      } else {
        symbols.push_back({byte_symbols_[static_cast<unsigned char>(word[at])], at});
        ++at;
      }
    }
    scratch.merger.run(symbols, end,
                       [this](const Symbol& left, const Symbol& right, std::uint32_t) {
                         const PairTable::Value value = merges_.find(left.id, right.id);
                         return Merge{value.first, value.second};
                       });
    for (std::size_t i = 0; i < symbols.size(); ++i) {
      if (const Token token = token_of(symbols[i].id); token != kNoToken) {
        out.push_back(token);
        continue;
      }
      const std::uint32_t stop = i + 1 < symbols.size() ? symbols[i + 1].begin : end;
      for (std::uint32_t at = symbols[i].begin; at < stop; ++at) {
        const Token token = byte_tokens_[static_cast<unsigned char>(word[at])];
        if (token != kNoToken) out.push_back(token);
      }
    }
  }

  PretokenizerSpec spec_;
  Pretokenizer pretokenizer_;
  StringTable symbols_;
  PairTable merges_;  // symbols to rank and symbol
  std::array<std::uint32_t, 256> byte_symbols_{};
  std::array<Token, 256> byte_tokens_ = [] {
    std::array<Token, 256> none{};
    none.fill(kNoToken);
    return none;
  }();
  WordMemory memory_;
};

}  // namespace

Result<std::unique_ptr<Tokenizer>> make_bpe(const gguf::File& file, std::string_view pre) {
  const PretokenizerSpec* spec = find_pretokenizer(pre);
  if (spec == nullptr) {
    return fail(ErrorCode::kUnsupported,
                "pre-tokenizer '{}' (tokenizer.ggml.pre) is not known; update ollama.cpp, or name "
                "one that is known",
                pre);
  }
  const std::span<const std::string> merges = file.strings("tokenizer.ggml.merges");
  if (merges.empty() && !spec->merges_optional && file.find("tokenizer.ggml.merges") == nullptr) {
    return fail(ErrorCode::kCorrupt, "the vocabulary has no merges (tokenizer.ggml.merges)");
  }
  OLLAMA_ASSIGN(const Vocabulary vocabulary,
                read_vocabulary(file, pre, {.add_bos = spec->add_bos}));
  if (merges.size() >= kNone - vocabulary.size()) {
    return fail(ErrorCode::kCorrupt, "{} merges are too many", merges.size());
  }
  OLLAMA_ASSIGN(Pretokenizer pretokenizer, Pretokenizer::create(spec->steps));
  return std::make_unique<BpeTokenizer>(vocabulary, merges, *spec, std::move(pretokenizer));
}

}  // namespace ollama::tokenizer
