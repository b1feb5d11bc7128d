// UTF-8 as the tokenizers need it: strict for what is shown to people, lenient in llama.cpp's way
// for what is tokenized.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace ollama::tokenizer::utf8 {

inline constexpr char32_t kReplacement = 0xFFFD;
inline constexpr std::string_view kReplacementText = "\xEF\xBF\xBD";
// U+2581, which SentencePiece vocabularies write for a blank.
inline constexpr std::string_view kBlankSymbol = "\xE2\x96\x81";
// Appends `text` with a blank for each of them.
void append_with_blanks(std::string_view text, std::string& out);

// The length that a lead byte announces; 1 for a stray continuation byte, 4 for 0xF8 and above.
inline std::size_t announced_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  if (byte < 0xC0) return 1;
  if (byte < 0xE0) return 2;
  return byte < 0xF0 ? 3 : 4;
}

inline bool is_continuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

// One step through `text`, which is not empty.
struct Character {
  char32_t code = kReplacement;
  std::uint32_t length = 1;  // bytes, at least 1
  bool valid = false;
};

// Lenient: overlong forms and surrogates are taken for what they spell; anything else that is wrong
// is one U+FFFD for one byte.
Character decode_lenient(std::string_view text);

enum class Status : std::uint8_t { kComplete, kInvalid, kUnfinished };
struct Step {
  Status status = Status::kInvalid;
  std::uint32_t length = 1;  // bytes of the character, or of its longest well-formed beginning
};
// Strict, by the Unicode standard: kUnfinished if more bytes could still complete the character.
Step scan_strict(std::string_view text);

void append(std::string& out, char32_t code);

// The length of the beginning of `text` that is plain ASCII.
std::size_t ascii_prefix(std::string_view text);

// `text` with every character well-formed, in the lenient reading. `subject` is the same for
// matching with PCRE2: equal in length, but what PCRE2 refuses (surrogates) or classes otherwise
// than llama.cpp (U+180E, no blank since Unicode 6.3) is a private character, which no pattern
// tells from them. Views into `text` where nothing had to change, else into the members.
class CleanText {
 public:
  explicit CleanText(std::string_view text);
  CleanText(const CleanText&) = delete;
  CleanText& operator=(const CleanText&) = delete;

  std::string_view bytes() const { return bytes_; }
  std::string_view subject() const { return subject_; }

 private:
  std::string clean_;
  std::string masked_;
  std::string_view bytes_;
  std::string_view subject_;
};

}  // namespace ollama::tokenizer::utf8
