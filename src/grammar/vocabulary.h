// A vocabulary arranged for asking which tokens a grammar allows: trees of the tokens' bytes, and
// masks of the tokens that are ordinary text. Made once for a model.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
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

// Tokens as a tree. A node's children lie side by side, so that those a grammar does not allow are
// passed over in one sweep; its tokens come before those of its children, so that a whole branch
// is a range of tokens.
struct TokenTree {
  struct Node {
    std::uint32_t first_child = 0;  // into `nodes`
    std::uint32_t first_token = 0;  // into `tokens`: of the branch
    std::uint32_t last_token = 0;
    std::uint16_t children : 9 = 0;
    // What all bytes below are characters of, a number of Text; kTexts.size() where there is more.
    std::uint16_t kind : 3 = 0;
    std::uint8_t below = 0;  // bytes of the longest text below; kDeep: so many or more
    std::uint8_t byte = 0;
  };
  static constexpr std::uint8_t kDeep = 255;

  // Past the tokens that end at a node itself.
  std::uint32_t own_end(const Node& node) const {
    return node.children > 0 ? nodes[node.first_child].first_token : node.last_token;
  }

  std::vector<Node> nodes;  // the first is the root, which stands for no byte
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

  // From the shortest to the longest.
  std::span<const Group> groups(Text text) const { return groups_[static_cast<std::size_t>(text)]; }
  // The tokens of all groups of a kind, in a few trees: the longer, the fewer.
  std::span<const TokenTree> trees(Text text) const {
    return trees_[static_cast<std::size_t>(text)];
  }
  const TokenTree& others() const { return others_; }  // all that are in no group
  std::size_t longest_piece() const { return longest_piece_; }

 private:
  void fill(std::span<const Token> order);

  std::string bytes_;
  std::vector<std::size_t> piece_ends_;
  std::vector<Token> ends_;  // sorted
  std::array<std::vector<Group>, kTexts.size()> groups_;
  std::array<std::vector<TokenTree>, kTexts.size()> trees_;
  TokenTree others_;
  std::size_t longest_piece_ = 0;
};

inline void set_bit(std::span<std::uint64_t> mask, Token token) {
  mask[static_cast<std::size_t>(token) / 64] |= std::uint64_t{1}
                                                << (static_cast<std::size_t>(token) % 64);
}
inline void unite(std::span<std::uint64_t> mask, std::span<const std::uint64_t> more) {
  std::ranges::transform(mask, more, mask.begin(), std::bit_or<>());
}
inline bool has_bit(std::span<const std::uint64_t> mask, Token token) {
  return (mask[static_cast<std::size_t>(token) / 64] >> (static_cast<std::size_t>(token) % 64) &
          1) != 0;
}

}  // namespace ollama::grammar
