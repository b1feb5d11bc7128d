#include "grammar/constraint.h"

#include <bit>

namespace ollama::grammar {
Constraint::Constraint(std::shared_ptr<Automaton> automaton)
    : automaton_(std::move(automaton)), state_(kDead) {
  automaton_->trim();  // what an answer that could not go on has left
  reset();
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

Token Constraint::first_allowed() {
  constexpr int kMostTries = 64;
  const std::span<const std::uint64_t> allowed = mask();
  int tries = 0;
  for (std::size_t i = 0; i < allowed.size(); ++i) {
    for (std::uint64_t word = allowed[i]; word != 0 && tries < kMostTries; word &= word - 1) {
      const Token token = static_cast<Token>(64 * i) + std::countr_zero(word);
      if (allows(token)) return token;
      ++tries;
    }
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
