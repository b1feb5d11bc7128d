// Sampling under a grammar: always an allowed token, and with the probabilities that it has where
// all others are forbidden.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <random>

#include "grammar/constraint.h"
#include "sample/sampler.h"

namespace ollama::sample {
namespace {

// Tokens 'a' to 'z', then the end.
constexpr std::size_t kSize = 27;
constexpr Token kEnd = 26;

std::shared_ptr<grammar::Automaton> automaton(std::string_view gbnf, bool with_end = true) {
  static const std::string letters = "abcdefghijklmnopqrstuvwxyz";
  std::vector<std::string_view> pieces;
  for (std::size_t i = 0; i < 26; ++i) pieces.push_back(std::string_view(letters).substr(i, 1));
  pieces.emplace_back("</s>");
  std::vector<Token> ends;
  if (with_end) ends.push_back(kEnd);
  return std::make_shared<grammar::Automaton>(
      *grammar::compile_gbnf(gbnf), std::make_shared<const grammar::Vocabulary>(pieces, ends));
}

std::vector<float> some_logits(std::uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0F, 2.0F);
  std::vector<float> logits(kSize);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

// What the sampler has without a grammar where the others' logits are minus infinity.
std::vector<double> frequencies(const Options& options, std::vector<float> logits,
                                grammar::Constraint* constraint) {
  Sampler sampler(options, kSize);
  std::vector<double> count(kSize);
  constexpr int kDraws = 40'000;
  std::vector<float> row;
  for (int i = 0; i < kDraws; ++i) {
    row = logits;
    const Token token =
        constraint != nullptr ? sampler.sample(row, *constraint) : sampler.sample(row);
    count[static_cast<std::size_t>(token)] += 1.0 / kDraws;
  }
  return count;
}

TEST(Constrained, ProbabilitiesAreThoseOfTheMaskedRow) {
  const auto shared = automaton("root ::= [aceg]? \"z\"*");
  for (int filter = 0; filter < 5; ++filter) {
    SCOPED_TRACE(filter);
    Options options{.temperature = 1.5F, .top_k = 0, .top_p = 1.0F, .repeat_last_n = 0, .seed = 5};
    if (filter == 1) options.top_k = 3;
    if (filter == 2) options.top_p = 0.7F;
    if (filter == 3) options.min_p = 0.3F;
    if (filter == 4) options.temperature = 0;
    const std::vector<float> logits = some_logits(static_cast<std::uint32_t>(filter));
    grammar::Constraint constraint(shared);
    std::vector<float> masked = logits;
    for (std::size_t i = 0; i < kSize; ++i) {
      if (!constraint.allows(static_cast<Token>(i))) masked[i] = -INFINITY;
    }
    const auto found = frequencies(options, logits, &constraint);
    options.seed = 6;
    const auto wanted = frequencies(options, masked, nullptr);
    for (std::size_t i = 0; i < kSize; ++i) EXPECT_NEAR(found[i], wanted[i], 0.015) << i;
  }
}

RC_GTEST_PROP(Constrained, NothingElseIsEverChosen, (std::uint32_t seed)) {
  Options options{.temperature = seed % 3 == 0 ? 0.0F : 1.0F,
                  .top_k = seed % 2 == 0 ? 0 : 40,
                  .top_p = seed % 5 == 0 ? 1.0F : 0.9F,
                  .repeat_penalty = 1.3F,
                  .seed = seed};
  Sampler sampler(options, kSize);
  grammar::Constraint constraint(automaton("root ::= (\"ab\" | \"cd\" [x-z]){1,3}"));
  for (std::uint32_t step = 0; step < 20; ++step) {
    std::vector<float> logits = some_logits(seed + step);
    // Logits that a broken model gives.
    if (seed % 7 == 0) std::ranges::fill(logits, -INFINITY);
    if (seed % 11 == 0) logits[seed % kSize] = NAN;
    const Token token = sampler.sample(logits, constraint);
    RC_ASSERT(constraint.accept(token));
    if (token == kEnd) break;
    sampler.accept(token);
  }
  RC_ASSERT(constraint.can_stop());
}

TEST(Constrained, SaysWhenNothingIsAllowed) {
  grammar::Constraint ended(automaton("root ::= \"a\"", /*with_end=*/false));
  Sampler sampler({.temperature = 0}, kSize);
  std::vector<float> logits = some_logits(1);
  ASSERT_EQ(sampler.sample(logits, ended), 0);
  ASSERT_TRUE(ended.accept(0));
  logits = some_logits(2);
  EXPECT_EQ(sampler.sample(logits, ended), tokenizer::kNoToken);
  EXPECT_TRUE(ended.can_stop());
  grammar::Constraint unspeakable(automaton("root ::= \"!\""));
  EXPECT_EQ(sampler.sample(logits, unspeakable), tokenizer::kNoToken);
  EXPECT_FALSE(unspeakable.can_stop());
}

}  // namespace
}  // namespace ollama::sample
