#include "grammar/constraint.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace ollama::grammar {
namespace {

constexpr float kForbidden = -std::numeric_limits<float>::infinity();

}  // namespace

Constraint::Constraint(std::shared_ptr<Automaton> automaton)
    : automaton_(std::move(automaton)), state_(automaton_->start()) {
  automaton_->hold(&state_);
}

Constraint::~Constraint() { automaton_->unhold(&state_); }

bool Constraint::allows(Token token) {
  const Vocabulary& vocabulary = automaton_->vocabulary();
  if (vocabulary.is_end(token)) return can_stop();
  const std::string_view piece = vocabulary.piece(token);
  if (piece.empty() || piece.size() > vocabulary.longest_piece()) return false;
  return automaton_->next(state_, piece) != kDead;
}

std::span<const std::uint64_t> Constraint::mask() { return automaton_->mask(state_); }

bool Constraint::apply(std::span<float> logits) {
  const std::span<const std::uint64_t> allowed = mask();
  bool any = false;
  for (std::size_t i = 0; i < logits.size(); i += 64) {
    const auto part = logits.subspan(i, std::min<std::size_t>(64, logits.size() - i));
    const std::uint64_t word = i / 64 < allowed.size() ? allowed[i / 64] : 0;
    any = any || word != 0;
    if (word == 0) {
      std::ranges::fill(part, kForbidden);
    } else {
      for (std::uint64_t rest = ~word; rest != 0; rest &= rest - 1) {
        const auto bit = static_cast<std::size_t>(std::countr_zero(rest));
        if (bit < part.size()) part[bit] = kForbidden;
      }
    }
  }
  return any;
}

Token Constraint::first_allowed() {
  const std::span<const std::uint64_t> allowed = mask();
  for (std::size_t i = 0; i < allowed.size(); ++i) {
    if (allowed[i] != 0) return static_cast<Token>(64 * i) + std::countr_zero(allowed[i]);
  }
  return tokenizer::kNoToken;
}

bool Constraint::accept(Token token) {
  if (!allows(token)) return false;
  const Vocabulary& vocabulary = automaton_->vocabulary();
  if (vocabulary.is_end(token)) return true;
  state_ = automaton_->next(state_, vocabulary.piece(token));
  automaton_->trim();
  return true;
}

}  // namespace ollama::grammar
