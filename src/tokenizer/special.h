// Special tokens: their types, the tokens that have a role or end an answer, and finding them in a
// text.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/file.h"
#include "tokenizer/tokenizer.h"

namespace ollama::tokenizer {

// Properties of a token. More than one type can hold: a well-known end token that a file calls
// normal is a control token as well.
enum Attribute : std::uint16_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 4,
  kUserDefined = 8,
  kUnused = 16,
  kByte = 32,
  kUndefined = 64,
  kStripLeft = 128,   // blanks before it belong to it
  kStripRight = 256,  // blanks after it belong to it
  kEnd = 512,         // ends an answer
};

// The attribute of a value of tokenizer.ggml.token_type.
std::uint16_t attribute_of_type(std::int32_t type);

struct Roles {
  SpecialTokens tokens;
  // Reads the ids from the file over the defaults in `tokens`, finds well-known names where the
  // file does not say, and corrects `attributes` as llama.cpp does. Ids outside the vocabulary are
  // dropped.
  void assign(const gguf::File& file, std::string_view pre, std::span<const std::string> texts,
              std::span<std::uint16_t> attributes);
};

// A part of a text: a special token, or text[begin, end).
struct Fragment {
  Token token = kNoToken;
  std::size_t begin = 0;
  std::size_t end = 0;
};

// Finds special tokens in texts, the longest first and the leftmost of equals.
class SpecialMatcher {
 public:
  SpecialMatcher(std::span<const std::string> texts, std::span<const std::uint16_t> attributes);
  SpecialMatcher(const SpecialMatcher&) = delete;
  SpecialMatcher& operator=(const SpecialMatcher&) = delete;
  ~SpecialMatcher();

  // User-defined tokens are always found; control and unknown ones with `parse_special`. Empty
  // parts are left out.
  std::vector<Fragment> split(std::string_view text, bool parse_special) const;

 private:
  struct State;
  std::unique_ptr<const State> state_;
};

}  // namespace ollama::tokenizer
