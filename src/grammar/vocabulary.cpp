#include "grammar/vocabulary.h"

#include <algorithm>
#include <optional>
#include <ranges>

#include "tokenizer/utf8.h"

namespace ollama::grammar {
namespace {

// The fewest characters of each group's tokens. Most tokens are short; the long ones are told apart
// so that a limit of a hundred characters does not leave all of them open.
constexpr std::array<std::uint32_t, 25> kShortest{
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 19, 21, 25, 33, 49, 65, 97, 129};
// The same of each tree.
constexpr std::array<std::uint32_t, 4> kShortestOfTree{1, 6, 12, 25};

constexpr std::size_t place_of(std::uint32_t characters, std::span<const std::uint32_t> shortest) {
  return static_cast<std::size_t>(std::ranges::upper_bound(shortest, characters) -
                                  shortest.begin()) -
         1;
}
// A piece that is longer is never allowed: depths fit 16 bits.
constexpr std::size_t kLongestPiece = 4096;

// What a piece consists of, and how many characters. nullopt: of no kind of text. The beginning of
// a character at the end counts as one of the largest kind, which has all that it can become.
std::optional<std::pair<Text, std::uint32_t>> text_of(std::string_view piece) {
  Text text = Text::kLower;
  std::uint32_t count = 0;
  for (; !piece.empty(); ++count) {
    const auto step = tokenizer::utf8::scan_strict(piece);
    if (step.status == tokenizer::utf8::Status::kUnfinished) return {{Text::kPlain, count + 1}};
    if (step.status == tokenizer::utf8::Status::kInvalid) return std::nullopt;
    const char32_t code = tokenizer::utf8::decode_lenient(piece).code;
    while (!characters_of(text).contains(code)) {
      if (text == Text::kPlain) return std::nullopt;
      text = static_cast<Text>(static_cast<int>(text) + 1);
    }
    piece.remove_prefix(step.length);
  }
  return std::pair(text, count);
}

// The smallest kind that has this byte for a character.
std::uint16_t kind_of(std::uint8_t byte) {
  for (const Text text : kTexts) {
    if (byte < 0x80 && characters_of(text).contains(byte)) return static_cast<std::uint16_t>(text);
  }
  return kTexts.size();
}

// What is known of a node from its children, which come after it.
void sum_up(TokenTree& tree) {
  for (TokenTree::Node& node : tree.nodes | std::views::reverse) {
    for (std::uint32_t i = 0; i < node.children; ++i) {
      const TokenTree::Node& child = tree.nodes[node.first_child + i];
      node.last_token = child.last_token;
      node.kind =
          std::max({std::uint16_t{node.kind}, std::uint16_t{child.kind}, kind_of(child.byte)}) & 7U;
      node.below = std::max(node.below, static_cast<std::uint8_t>(std::min<unsigned>(
                                            child.below + 1U, TokenTree::kDeep)));
    }
  }
}

// `order` has the tokens in the order of their bytes, none of which is empty.
template <typename PieceOf>
TokenTree make_tree(std::span<const Token> order, PieceOf piece_of) {
  TokenTree tree;
  tree.nodes.emplace_back();
  // Nodes without their tokens and children yet: of a range of the order, which has the first
  // `depth` bytes in common.
  struct Range {
    std::uint32_t node;
    std::size_t first;
    std::size_t last;
    std::size_t depth;
  };
  std::vector<Range> todo{{0, 0, order.size(), 0}};
  while (!todo.empty()) {
    auto [node, first, last, depth] = todo.back();
    todo.pop_back();
    const auto byte_of = [&](std::size_t i) {
      return static_cast<std::uint8_t>(piece_of(order[i])[depth]);
    };
    tree.nodes[node].first_token = static_cast<std::uint32_t>(tree.tokens.size());
    for (; first < last && piece_of(order[first]).size() == depth; ++first) {
      tree.tokens.push_back(order[first]);
    }
    tree.nodes[node].last_token = static_cast<std::uint32_t>(tree.tokens.size());
    tree.nodes[node].first_child = static_cast<std::uint32_t>(tree.nodes.size());
    const std::size_t others = todo.size();
    for (std::size_t next = first; first < last; first = next) {
      while (next < last && byte_of(next) == byte_of(first)) ++next;
      todo.push_back({static_cast<std::uint32_t>(tree.nodes.size()), first, next, depth + 1});
      tree.nodes.push_back({.byte = byte_of(first)});
      ++tree.nodes[node].children;
    }
    // The first child's own children come next.
    std::ranges::reverse(std::span(todo).subspan(others));
  }
  sum_up(tree);
  return tree;
}

}  // namespace

std::shared_ptr<const Vocabulary> Vocabulary::make(const tokenizer::Tokenizer& tokenizer) {
  std::vector<std::string_view> pieces(tokenizer.vocab_size());
  std::vector<Token> ends;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const auto token = static_cast<Token>(i);
    pieces[i] = tokenizer.piece(token);
    // As in the engine: a model that begins a new text has ended this one.
    if (tokenizer.is_end(token) || token == tokenizer.special().bos) ends.push_back(token);
  }
  return std::make_shared<const Vocabulary>(pieces, std::move(ends));
}

Vocabulary::Vocabulary(std::span<const std::string_view> pieces, std::vector<Token> ends)
    : ends_(std::move(ends)) {
  std::ranges::sort(ends_);
  std::vector<Token> order;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    bytes_ += pieces[i];
    piece_ends_.push_back(bytes_.size());
    const auto token = static_cast<Token>(i);
    if (pieces[i].empty() || pieces[i].size() > kLongestPiece || is_end(token)) continue;
    longest_piece_ = std::max(longest_piece_, pieces[i].size());
    order.push_back(token);
  }
  std::ranges::sort(order, {},
                    [&](Token token) { return pieces[static_cast<std::size_t>(token)]; });
  fill(order);
}

// Puts the tokens, in the order of their bytes, where they belong.
void Vocabulary::fill(std::span<const Token> order) {
  std::array<std::array<std::vector<Token>, kShortestOfTree.size()>, kTexts.size()> of_tree;
  std::array<std::array<std::vector<Token>, kShortest.size()>, kTexts.size()> of_group;
  std::vector<Token> others;
  for (std::vector<Group>& groups : groups_) {
    groups.resize(kShortest.size());
    for (std::size_t i = 0; i < groups.size(); ++i) {
      groups[i].shortest = groups[i].longest = kShortest[i];
      groups[i].up_to.assign(words(), 0);
    }
  }
  for (const Token token : order) {
    const auto text = text_of(piece(token));
    if (!text) {
      others.push_back(token);
      continue;
    }
    const auto kind = static_cast<std::size_t>(text->first);
    const std::size_t at = place_of(text->second, kShortest);
    of_tree[kind][place_of(text->second, kShortestOfTree)].push_back(token);
    of_group[kind][at].push_back(token);
    Group& group = groups_[kind][at];
    set_bit(group.up_to, token);
    group.longest = std::max(group.longest, text->second);
  }
  const auto tree_of = [this](std::span<const Token> tokens) {
    return make_tree(tokens, [this](Token token) { return piece(token); });
  };
  others_ = tree_of(others);
  for (std::size_t kind = 0; kind < kTexts.size(); ++kind) {
    for (const auto& tokens : of_tree[kind]) trees_[kind].push_back(tree_of(tokens));
    std::vector<Group>& groups = groups_[kind];
    for (std::size_t i = 0; i < groups.size(); ++i) {
      groups[i].tree = tree_of(of_group[kind][i]);
      if (i > 0) unite(groups[i].up_to, groups[i - 1].up_to);
    }
  }
}

std::string_view Vocabulary::piece(Token token) const {
  const auto i = static_cast<std::size_t>(token);
  if (token < 0 || i >= size()) return {};
  const std::size_t begin = i == 0 ? 0 : piece_ends_[i - 1];
  return std::string_view(bytes_).substr(begin, piece_ends_[i] - begin);
}

bool Vocabulary::is_end(Token token) const { return std::ranges::binary_search(ends_, token); }

}  // namespace ollama::grammar
