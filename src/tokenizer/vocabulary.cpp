#include "tokenizer/vocabulary.h"

#include <algorithm>
#include <array>
#include <optional>

#include "tokenizer/utf8.h"

namespace ollama::tokenizer {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

// The byte that a character of GPT-2's table stands for, or -1. Printable Latin-1 stands for
// itself; the 68 other bytes, in order, are U+0100 and on.
int byte_of_character(char32_t code) {
  const auto prints = [](char32_t c) {
    return (c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xFF && c != 0xAD);
  };
  static constexpr auto kOthers = [] {
    std::array<unsigned char, 68> others{};
    std::size_t count = 0;
    for (unsigned c = 0; c < 256; ++c) {
      const bool printable = (c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c != 0xAD);
      if (!printable) others[count++] = static_cast<unsigned char>(c);
    }
    return others;
  }();
  if (prints(code)) return static_cast<int>(code);
  if (code >= 0x100 && code < 0x100 + kOthers.size()) return kOthers[code - 0x100];
  return -1;
}

void append_decoded(std::string_view text, std::string& out) {
  for (std::size_t at = 0; at < text.size();) {
    const utf8::Character c = utf8::decode_lenient(text.substr(at));
    if (const int byte = byte_of_character(c.code); c.valid && byte >= 0) {
      out.push_back(static_cast<char>(byte));
    } else {
      out.append(text.substr(at, c.length));
    }
    at += c.length;
  }
}

}  // namespace

std::optional<std::string> decode_byte_characters(std::string_view text) {
  std::string bytes;
  for (std::size_t at = 0; at < text.size();) {
    const utf8::Character c = utf8::decode_lenient(text.substr(at));
    const int byte = c.valid ? byte_of_character(c.code) : -1;
    if (byte < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(byte));
    at += c.length;
  }
  return bytes;
}

Result<Vocabulary> read_vocabulary(const gguf::File& file, std::string_view pre,
                                   const VocabularyDefaults& defaults) {
  Vocabulary vocabulary;
  vocabulary.texts = file.strings("tokenizer.ggml.tokens");
  // Some files have more tokens than the model has embeddings.
  if (const gguf::TensorInfo* embeddings = file.find_tensor("token_embd.weight")) {
    const auto rows = static_cast<std::size_t>(std::max<std::int64_t>(embeddings->shape[1], 0));
    if (rows < vocabulary.size()) vocabulary.texts = vocabulary.texts.first(rows);
  }
  if (vocabulary.texts.empty()) {
    return fail(ErrorCode::kCorrupt, "the model file has no vocabulary (tokenizer.ggml.tokens)");
  }
  if (vocabulary.size() > std::numeric_limits<Token>::max()) {
    return fail(ErrorCode::kCorrupt, "a vocabulary of {} tokens is too large", vocabulary.size());
  }
  vocabulary.scores = file.f32s("tokenizer.ggml.scores");
  vocabulary.scores.resize(vocabulary.size());
  const std::vector<std::int32_t> types = file.i32s("tokenizer.ggml.token_type");
  vocabulary.attributes.assign(vocabulary.size(), kNormal);
  for (std::size_t id = 0; id < vocabulary.size(); ++id) {
    if (id < types.size()) {
      vocabulary.attributes[id] = attribute_of_type(types[id]);
    } else if (defaults.byte_tokens_by_name && vocabulary.texts[id].size() == 6 &&
               vocabulary.texts[id].starts_with("<0x") && vocabulary.texts[id].ends_with('>')) {
      vocabulary.attributes[id] = kByte;
    }
  }
  SpecialTokens& special = vocabulary.roles.tokens;
  special.bos = defaults.bos;
  special.eos = defaults.eos;
  special.unknown = defaults.unknown;
  special.separator = defaults.separator;
  special.padding = defaults.padding;
  special.mask = defaults.mask;
  special.add_bos = defaults.add_bos;
  special.add_eos = defaults.add_eos;
  special.add_separator = defaults.add_separator;
  vocabulary.roles.assign(file, pre, vocabulary.texts, vocabulary.attributes);
  return vocabulary;
}

VocabularyTokenizer::VocabularyTokenizer(const Vocabulary& vocabulary, PieceStyle style)
    : attributes_(vocabulary.attributes),
      special_(vocabulary.roles.tokens),
      matcher_(vocabulary.texts, vocabulary.attributes) {
  std::size_t bytes = 0;
  for (const std::string& text : vocabulary.texts) bytes += text.size();
  pieces_.reserve(bytes);
  piece_ends_.reserve(vocabulary.size());
  for (std::size_t id = 0; id < vocabulary.size(); ++id) {
    const std::string& text = vocabulary.texts[id];
    const std::uint16_t attribute = attributes_[id];
    if ((attribute & (kControl | kUnknown | kUserDefined)) != 0) {
      pieces_.append(text);
    } else if ((attribute & kByte) != 0) {
      if (const int byte = byte_of(text); byte >= 0) pieces_.push_back(static_cast<char>(byte));
    } else if ((attribute & kNormal) != 0) {
      switch (style) {
        case PieceStyle::kByteCharacters:
          append_decoded(text, pieces_);
          break;
        case PieceStyle::kBlankSymbol:
          utf8::append_with_blanks(text, pieces_);
          break;
        case PieceStyle::kText:
          pieces_.append(text);
          break;
      }
    }
    piece_ends_.push_back(pieces_.size());
  }
}

int VocabularyTokenizer::byte_of(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return -1;
  const int high = hex_digit(text[3]);
  const int low = hex_digit(text[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

std::string_view VocabularyTokenizer::piece(Token token, bool special) const {
  if (token < 0 || static_cast<std::size_t>(token) >= attributes_.size()) return {};
  if (!special && has(token, kControl | kUnknown)) return {};
  const auto id = static_cast<std::size_t>(token);
  const std::size_t begin = id == 0 ? 0 : piece_ends_[id - 1];
  return std::string_view(pieces_).substr(begin, piece_ends_[id] - begin);
}

std::vector<Token> VocabularyTokenizer::encode(std::string_view text, EncodeOptions options) const {
  const std::vector<Fragment> fragments = matcher_.split(text, options.parse_special);
  std::vector<Token> tokens;
  tokens.reserve(text.size() / 4 + 8);
  if (options.add_special && special_.add_bos &&
      (fragments.empty() || fragments.front().token != special_.bos)) {
    tokens.push_back(special_.bos);
  }
  bool at_start = true;
  for (const Fragment& fragment : fragments) {
    if (fragment.token != kNoToken) {
      tokens.push_back(fragment.token);
      at_start = true;
    } else {
      encode_text(text.substr(fragment.begin, fragment.end - fragment.begin), at_start, tokens);
      at_start = false;
    }
  }
  if (const Token last = closing(); options.add_special && last != kNoToken &&
                                    (fragments.empty() || fragments.back().token != last)) {
    tokens.push_back(last);
  }
  return tokens;
}

}  // namespace ollama::tokenizer
