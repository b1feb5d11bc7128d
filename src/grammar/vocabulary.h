// A vocabulary arranged for asking which tokens a grammar allows: trees of the tokens' bytes, and
// masks of the tokens that are ordinary text. Made once for a model.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/code_set.h"
#include "tokenizer/tokenizer.h"

namespace ollama::grammar {

using tokenizer::Token;
using Mask = std::vector<std::uint64_t>;  // a bit for each token

// Tokens as a tree in the order of a walk: a node's children follow it, and `end` is what follows
// the last of them, so that a branch is left by one jump.
struct TokenTree {
  struct Node {
    std::uint32_t end;
    std::uint32_t first_token;  // into `tokens`: those that end here
    std::uint32_t last_token;
    std::uint16_t depth;  // 1 for a first byte
    std::uint8_t byte;
  };
  std::vector<Node> nodes;
  std::vector<Token> tokens;
};

class Vocabulary {
 public:
  // Tokens that consist of so many characters of one kind of text, and not of a smaller kind alone.
  // Inside a JSON string or a word, whether they may come is the same for all of them.
  struct Group {
    std::uint32_t shortest = 0;  // characters
    std::uint32_t longest = 0;
    TokenTree tree;
    Mask up_to;  // this group's tokens and those of the kind's shorter ones
  };

  static std::shared_ptr<const Vocabulary> make(const tokenizer::Tokenizer& tokenizer);
  // `pieces[i]` are token i's bytes; `ends` the tokens that end an answer. Tokens without bytes are
  // never allowed otherwise.
  Vocabulary(std::span<const std::string_view> pieces, std::vector<Token> ends);

  std::size_t size() const { return piece_ends_.size(); }
  std::size_t words() const { return (size() + 63) / 64; }
  std::string_view piece(Token token) const;
  std::span<const Token> ends() const { return ends_; }
  bool is_end(Token token) const;

  std::span<const Group> groups(Text text) const { return groups_[static_cast<std::size_t>(text)]; }
  const TokenTree& others() const { return others_; }  // all that are in no group
  std::size_t longest_piece() const { return longest_piece_; }

 private:
  void fill(std::span<const Token> order);

  std::string bytes_;
  std::vector<std::size_t> piece_ends_;
  std::vector<Token> ends_;  // sorted
  std::array<std::vector<Group>, kTexts.size()> groups_;
  TokenTree others_;
  std::size_t longest_piece_ = 0;
};

inline void set_bit(std::span<std::uint64_t> mask, Token token) {
  mask[static_cast<std::size_t>(token) / 64] |= std::uint64_t{1}
                                                << (static_cast<std::size_t>(token) % 64);
}
inline bool has_bit(std::span<const std::uint64_t> mask, Token token) {
  return (mask[static_cast<std::size_t>(token) / 64] >> (static_cast<std::size_t>(token) % 64) &
          1) != 0;
}

}  // namespace ollama::grammar
