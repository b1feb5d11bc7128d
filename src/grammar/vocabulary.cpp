#include "grammar/vocabulary.h"

#include <algorithm>
#include <functional>
#include <optional>

#include "tokenizer/utf8.h"

namespace ollama::grammar {
namespace {

// Groups of 1, 2, ... characters; the last one has all that are longer.
constexpr std::uint32_t kGroups = 17;
// A piece that is longer is never allowed: depths fit 16 bits.
constexpr std::size_t kLongestPiece = 4096;

// What a piece consists of, and how many characters. nullopt: of no kind of text.
std::optional<std::pair<Text, std::uint32_t>> text_of(std::string_view piece) {
  Text text = Text::kLower;
  std::uint32_t count = 0;
  for (; !piece.empty(); ++count) {
    const auto step = tokenizer::utf8::scan_strict(piece);
    if (step.status != tokenizer::utf8::Status::kComplete) return std::nullopt;
    const char32_t code = tokenizer::utf8::decode_lenient(piece).code;
    while (!characters_of(text).contains(code)) {
      if (text == Text::kPlain) return std::nullopt;
      text = static_cast<Text>(static_cast<int>(text) + 1);
    }
    piece.remove_prefix(step.length);
  }
  return std::pair(text, count);
}

class TreeWriter {
 public:
  explicit TreeWriter(TokenTree& tree) : tree_(tree) {}

  // Pieces come in order.
  void add(Token token, std::string_view piece) {
    std::size_t common = 0;
    while (common < path_.size() && common < piece.size() &&
           tree_.nodes[path_[common]].byte == static_cast<std::uint8_t>(piece[common])) {
      ++common;
    }
    close(common);
    for (std::size_t i = common; i < piece.size(); ++i) {
      path_.push_back(static_cast<std::uint32_t>(tree_.nodes.size()));
      const auto here = static_cast<std::uint32_t>(tree_.tokens.size());
      tree_.nodes.push_back({.end = 0,
                             .first_token = here,
                             .last_token = here,
                             .depth = static_cast<std::uint16_t>(i + 1),
                             .byte = static_cast<std::uint8_t>(piece[i])});
    }
    tree_.tokens.push_back(token);
    tree_.nodes[path_.back()].last_token = static_cast<std::uint32_t>(tree_.tokens.size());
  }
  // The path's nodes below the first `depth` get no more children.
  void close(std::size_t depth) {
    while (path_.size() > depth) {
      tree_.nodes[path_.back()].end = static_cast<std::uint32_t>(tree_.nodes.size());
      path_.pop_back();
    }
  }

 private:
  TokenTree& tree_;
  std::vector<std::uint32_t> path_;
};

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
  std::array<std::vector<TreeWriter>, kTexts.size()> writers;
  TreeWriter others(others_);
  for (std::size_t text = 0; text < kTexts.size(); ++text) {
    groups_[text].resize(kGroups);
    for (std::uint32_t i = 0; i < kGroups; ++i) {
      Group& group = groups_[text][i];
      group.shortest = group.longest = i + 1;
      group.up_to.assign(words(), 0);
      writers[text].emplace_back(group.tree);
    }
  }
  for (const Token token : order) {
    const auto text = text_of(piece(token));
    if (!text) {
      others.add(token, piece(token));
      continue;
    }
    const auto [kind, length] = *text;
    const std::size_t at = std::min(length, kGroups) - 1;
    writers[static_cast<std::size_t>(kind)][at].add(token, piece(token));
    Group& group = groups_[static_cast<std::size_t>(kind)][at];
    set_bit(group.up_to, token);
    group.longest = std::max(group.longest, length);
  }
  others.close(0);
  for (std::size_t text = 0; text < kTexts.size(); ++text) {
    for (TreeWriter& writer : writers[text]) writer.close(0);
    for (std::size_t i = 1; i < kGroups; ++i) {
      std::ranges::transform(groups_[text][i].up_to, groups_[text][i - 1].up_to,
                             groups_[text][i].up_to.begin(), std::bit_or<>());
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
