// The rules by which Unigram vocabularies normalise texts, in the form that SentencePiece writes
// them ("precompiled charsmap"). Private to this module.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace ollama::tokenizer {

// A trie of texts, each with what is written in its place. The trie is a double array of 32-bit
// units (S. Yata, Darts-clone): children of a state lie at its base XOR their byte. Files compress
// it by sharing states, so that it is no tree.
class Charsmap {
 public:
  // Limits that keep a hostile file from taking long: bytes of a text that a rule is for, of one
  // that is written, and of the whole. SentencePiece's own rules write 33 and take 240,000.
  static constexpr std::size_t kLongest = 256;
  static constexpr std::size_t kLongestReplacement = 128;
  static constexpr std::size_t kLargest = std::size_t{4} << 20;

  struct Rule {
    std::size_t length = 0;  // bytes of the text that it is for; 0: there is none
    std::string_view replacement;
  };

  Charsmap() = default;
  // `bytes`: the array's size in bytes, 32 bits little-endian; the array; replacements, each ended
  // by a zero. Errors: kCorrupt, for anything that find() could stumble over, and beyond the
  // limits.
  static Result<Charsmap> parse(std::string_view bytes);

  // The longest rule for what `text` begins with. The view is valid as long as this object.
  Rule find(std::string_view text) const;

 private:
  Result<> check() const;

  std::vector<std::uint32_t> units_;
  std::string replacements_;
};

}  // namespace ollama::tokenizer
