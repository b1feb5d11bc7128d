// Sets of Unicode characters, and how they are spelled in UTF-8. Internal to grammar.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

namespace ollama::grammar {

struct CodeRange {
  char32_t first;
  char32_t last;  // inclusive

  bool operator==(const CodeRange&) const = default;
};

// Sorted ranges with gaps between them. Surrogates are no characters and never in a set.
class CodeSet {
 public:
  CodeSet() = default;
  CodeSet(std::initializer_list<CodeRange> ranges)
      : CodeSet(std::span(ranges.begin(), ranges.size())) {}
  explicit CodeSet(std::span<const CodeRange> ranges);  // in any order, overlapping or not

  CodeSet complement() const;
  CodeSet intersect(const CodeSet& other) const;
  CodeSet unite(const CodeSet& other) const;
  bool contains(const CodeSet& other) const { return other.intersect(*this) == other; }
  bool contains(char32_t code) const;
  bool empty() const { return ranges_.empty(); }
  std::span<const CodeRange> ranges() const { return ranges_; }

  bool operator==(const CodeSet&) const = default;

 private:
  std::vector<CodeRange> ranges_;
};

// Kinds of text that most of a vocabulary consists of, each within the next: [a-z], [A-Za-z0-9],
// [A-Za-z0-9_], and what stands unescaped in a JSON string (all but the quote, the backslash and
// control characters).
enum class Text : std::uint8_t { kLower, kAlphanumeric, kWord, kPlain };
inline constexpr std::array kTexts{Text::kLower, Text::kAlphanumeric, Text::kWord, Text::kPlain};
const CodeSet& characters_of(Text text);
inline const CodeSet& plain_characters() { return characters_of(Text::kPlain); }

struct ByteRange {
  std::uint8_t first;
  std::uint8_t last;
};
// Characters whose UTF-8 is any byte of the first range, then any of the second, ...
struct ByteSequence {
  std::array<ByteRange, 4> ranges;
  std::size_t size = 0;
};
// The UTF-8 of every character in `range`, and nothing else.
void append_utf8_sequences(CodeRange range, std::vector<ByteSequence>& out);

}  // namespace ollama::grammar
