// Splits a text into the pieces that byte-level BPE merges within. Every value of
// tokenizer.ggml.pre names a list of steps; each step splits the pieces that the one before it
// left.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace ollama::tokenizer {

struct SplitStep {
  enum class Kind : std::uint8_t {
    kPattern,          // every match of a PCRE2 pattern, and what lies between matches, is a piece
    kNumbersInThrees,  // cuts inside runs of \p{N}, counted from the right, and after each run
    kDigitsInThrees,   // cuts before each group of three ASCII digits, counted from the right
  };
  // The pattern, in parts that are joined.
  std::array<std::string_view, 3> parts{};
  Kind kind = Kind::kPattern;
};

// What a value of tokenizer.ggml.pre means.
struct PretokenizerSpec {
  std::span<const SplitStep> steps;
  bool whole_words = false;    // a piece that is a token is not merged (llama.cpp's ignore_merges)
  bool add_bos = false;        // where the file does not say
  bool raw = false;            // tokens are UTF-8 text, not bytes written as printable characters
  bool blank_symbol = false;   // blanks are written as U+2581
  bool newline_words = false;  // a piece of newlines that is a token is not merged
  bool merges_optional = false;
};

// nullptr for a name that is not known. "" and "default" are llama.cpp's default.
const PretokenizerSpec* find_pretokenizer(std::string_view name);
// All names, for tests and listings.
std::vector<std::string_view> pretokenizer_names();

// The compiled steps. Immutable; safe to use from several threads at once.
class Pretokenizer {
 public:
  // Errors: kInternal (a pattern does not compile).
  static Result<Pretokenizer> create(std::span<const SplitStep> steps);
  Pretokenizer(Pretokenizer&&) noexcept;
  Pretokenizer& operator=(Pretokenizer&&) noexcept;
  ~Pretokenizer();

  // Replaces `ends` by the end of every piece of `subject`, ascending, the last being its size.
  // `subject` is well-formed UTF-8 (utf8::CleanText).
  void split(std::string_view subject, std::vector<std::size_t>& ends) const;

 private:
  struct Compiled;
  explicit Pretokenizer(std::vector<Compiled> steps);
  std::vector<Compiled> steps_;
};

}  // namespace ollama::tokenizer
