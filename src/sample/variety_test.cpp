// Biases, XTC, dynamic temperature, mirostat and DRY, each against figures worked out by hand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <map>
#include <numeric>
#include <random>

#include "grammar/constraint.h"
#include "sample/dry.h"
#include "sample/mirostat.h"
#include "sample/sampler.h"

namespace ollama::sample {
namespace {

using ::testing::ElementsAre;

// Without penalties and filters.
Options unfiltered() {
  Options options;
  options.temperature = 1.0F;
  options.top_k = 0;
  options.top_p = 1.0F;
  options.repeat_last_n = 0;
  options.seed = 11;
  return options;
}

std::vector<float> logits_of(std::initializer_list<double> probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

std::vector<double> shares(const Options& options, const std::vector<float>& logits) {
  Sampler sampler(options, logits.size());
  std::vector<double> count(logits.size());
  constexpr int kDraws = 40'000;
  std::vector<float> row;
  for (int i = 0; i < kDraws; ++i) {
    row = logits;
    count[static_cast<std::size_t>(sampler.sample(row))] += 1.0 / kDraws;
  }
  return count;
}

void expect_near(const std::vector<double>& got, const std::vector<double>& wanted) {
  ASSERT_EQ(got.size(), wanted.size());
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], wanted[i], 0.012) << i;
}

TEST(LogitBias, MultipliesTheOddsByItsExponential) {
  Options options = unfiltered();
  options.logit_bias = {{1, static_cast<float>(std::log(4.0))}, {7, 5.0F}};
  expect_near(shares(options, logits_of({0.5, 0.25, 0.25})), {0.5 / 1.75, 1 / 1.75, 0.25 / 1.75});
}

TEST(LogitBias, ItsEndsAreNeverAndAlways) {
  std::vector<float> row{1000.0F, 2.0F, -500.0F, 0.0F};
  Options options = unfiltered();
  options.logit_bias = {{0, -100.0F}, {2, 100.0F}};
  for (const float temperature : {0.0F, 1.0F}) {
    options.temperature = temperature;
    std::vector<float> copy = row;
    EXPECT_EQ(Sampler(options, row.size()).sample(copy), 2);
  }
  // Of several that are forced, the model chooses.
  options = unfiltered();
  options.logit_bias = {{1, 100.0F}, {3, 100.0F}};
  std::vector<float> even{9.0F, 1.0F, 9.0F, 1.0F};
  expect_near(shares(options, even), {0, 0.5, 0, 0.5});
}

TEST(LogitBias, DoesNotGoPastAGrammar) {
  const std::vector<std::string_view> pieces{"a", "b", "</s>"};
  const std::vector<Token> ends{2};
  grammar::Constraint constraint(std::make_shared<grammar::Automaton>(
      *grammar::compile_gbnf("root ::= [ab] \"a\""),
      std::make_shared<const grammar::Vocabulary>(pieces, ends)));
  Options options = unfiltered();
  options.logit_bias = {{2, 100.0F}, {0, -100.0F}};
  Sampler sampler(options, 3);
  std::vector<float> row{5.0F, 0.0F, 0.0F};
  EXPECT_EQ(sampler.sample(row, constraint), 1) << "the forced token is not allowed";
}

TEST(Xtc, KeepsTheLeastLikelyOfThoseAboveTheThreshold) {
  Options options = unfiltered();
  options.xtc_probability = 1.0F;
  options.xtc_threshold = 0.15F;
  const auto logits = logits_of({0.4, 0.1, 0.3, 0.2});
  expect_near(shares(options, logits), {0, 1.0 / 3, 0, 2.0 / 3});
  options.xtc_probability = 0.5F;
  expect_near(shares(options, logits), {0.2, 0.05 + 0.5 / 3, 0.15, 0.1 + 1.0 / 3});
  options.xtc_probability = 1.0F;
  options.xtc_threshold = 0.35F;
  expect_near(shares(options, logits), {0.4, 0.1, 0.3, 0.2});
  options.xtc_threshold = 0.51F;
  expect_near(shares(options, logits), {0.4, 0.1, 0.3, 0.2});
}

TEST(DynamicTemperature, FollowsTheEntropy) {
  Options options = unfiltered();
  options.temperature = 1.0F;
  options.dynatemp_range = 0.5F;
  const std::vector<double> p{0.7, 0.2, 0.1};
  double entropy = 0;
  for (const double share : p) entropy -= share * std::log(share);
  for (const float exponent : {1.0F, 2.0F}) {
    options.dynatemp_exponent = exponent;
    const double temperature =
        0.5 + std::pow(entropy / std::log(3.0), static_cast<double>(exponent));
    std::vector<double> wanted;
    for (const double share : p) wanted.push_back(std::pow(share, 1 / temperature));
    const double sum = std::accumulate(wanted.begin(), wanted.end(), 0.0);
    for (double& share : wanted) share /= sum;
    expect_near(shares(options, logits_of({0.7, 0.2, 0.1})), wanted);
  }
}

TEST(DynamicTemperature, OfZeroIsGreedy) {
  Options options = unfiltered();
  options.temperature = 0.5F;
  options.dynatemp_range = 0.5F;
  std::vector<float> row{0.0F, 500.0F, 0.0F};  // no entropy: a temperature of 0
  EXPECT_EQ(Sampler(options, row.size()).sample(row), 1);
}

TEST(Mirostat, TwoKeepsWhatIsLessSurprisingThanItsBound) {
  Options options = unfiltered();
  options.mirostat = 2;
  options.mirostat_tau = 1.0F;  // the bound is 2 bits: a probability of at least 1/4
  options.mirostat_eta = 0.0F;
  expect_near(shares(options, logits_of({0.1, 0.3, 0.5, 0.1})), {0, 0.375, 0.625, 0});
  options.mirostat_tau = 0.0F;  // nothing is so sure
  expect_near(shares(options, logits_of({0.1, 0.3, 0.5, 0.1})), {0, 0, 1, 0});
}

TEST(Mirostat, TwoMovesItsBoundByTheSurprise) {
  Options options = unfiltered();
  options.mirostat = 2;
  options.mirostat_tau = 1.0F;
  options.mirostat_eta = 0.5F;
  Candidates candidates(4, 4);
  Mirostat mirostat(options, 4);
  const auto logits = logits_of({0.12, 0.26, 0.5, 0.12});
  // At a bound of 2 bits 0.26 and 0.5 stay: the second, of 0.66, has a surprise of 0.6. The bound
  // becomes 2.2, 2.4, ... and 3.19 after six choices: then 0.12, of 3.06, stays as well.
  std::vector<std::size_t> left;
  for (int i = 0; i < 7; ++i) {
    candidates.collect(logits);
    EXPECT_EQ(mirostat.draw(candidates, 1.0F, 0.6), 2);
    left.push_back(candidates.items().size());
  }
  EXPECT_THAT(left, ElementsAre(2, 2, 2, 2, 2, 2, 4));
}

TEST(Mirostat, OneTakesAsManyAsTheSlopeSays) {
  // Zipf with exponent 2: epsilon 1, so k = (2^mu / (1 - 1/n))^(1/2).
  std::vector<float> logits;
  constexpr std::size_t kSize = 50;
  for (std::size_t i = 0; i < kSize; ++i) {
    logits.push_back(-2.0F * std::log(static_cast<float>(i + 1)));
  }
  Options options = unfiltered();
  options.mirostat = 1;
  options.mirostat_eta = 0.0F;
  options.mirostat_tau = 2.5F;  // (32 / 0.98)^(1/2) = 5.7
  Candidates candidates(kSize, kSize);
  candidates.collect(logits);
  Mirostat(options, kSize).draw(candidates, 1.0F, 0.5);
  EXPECT_EQ(candidates.items().size(), 5U);
}

TEST(Mirostat, HoldsTheSurpriseNearItsTarget) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0.0F, 2.0F);
  for (const int version : {1, 2}) {
    for (const float tau : {2.0F, 4.0F}) {
      Options options = unfiltered();
      options.mirostat = version;
      options.mirostat_tau = tau;
      constexpr std::size_t kSize = 2000;
      Candidates candidates(kSize, kSize);
      Mirostat mirostat(options, kSize);
      std::uniform_real_distribution<double> uniform(0, 1);
      double surprise = 0;
      constexpr int kTokens = 400;
      for (int i = 0; i < kTokens; ++i) {
        std::vector<float> logits(kSize);
        for (float& logit : logits) logit = normal(random);
        candidates.collect(logits);
        const Token token = mirostat.draw(candidates, 1.0F, uniform(random));
        const auto found = std::ranges::find(candidates.items(), token, &Candidate::id);
        ASSERT_NE(found, candidates.items().end());
        surprise -= candidates.logprob(found->logit) / std::log(2.0) / kTokens;
      }
      EXPECT_NEAR(surprise, static_cast<double>(tau), 0.4) << version;
    }
  }
}

// ---- DRY

constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyz:";
constexpr std::size_t kVocab = kLetters.size();

std::string_view letter(Token token) { return kLetters.substr(static_cast<std::size_t>(token), 1); }

// How much each letter loses after a text.
std::map<char, float> losses(const Options& options, std::string_view text) {
  Dry dry(options, kVocab, letter);
  for (const char c : text) dry.accept(static_cast<Token>(kLetters.find(c)));
  std::vector<float> row(kVocab, 0.0F);
  dry.apply(row);
  std::map<char, float> lost;
  for (std::size_t i = 0; i < kVocab; ++i) {
    if (row[i] != 0.0F) lost[kLetters[i]] = -row[i];
  }
  return lost;
}

Options dry() {
  Options options;
  options.dry_multiplier = 2.0F;
  options.dry_base = 3.0F;
  return options;
}

using Losses = std::map<char, float>;

TEST(Dry, PunishesWhatWouldLengthenARepetition) {
  EXPECT_EQ(losses(dry(), "abcxab"), (Losses{{'c', 2}}));
  EXPECT_EQ(losses(dry(), "abcdxabc"), (Losses{{'d', 6}}));
  EXPECT_EQ(losses(dry(), "abcxb"), Losses()) << "one token is too short";
  EXPECT_EQ(losses(dry(), "zabcyabdxab"), (Losses{{'c', 2}, {'d', 2}}));
  EXPECT_EQ(losses(dry(), "zabcyxzabcxzab"), (Losses{{'c', 18}})) << "the longest counts";
  EXPECT_EQ(losses(dry(), "aaaa"), (Losses{{'a', 6}})) << "repetitions may overlap";
  EXPECT_EQ(losses(dry(), ""), Losses());
  Options off = dry();
  off.dry_multiplier = 0;
  EXPECT_EQ(losses(off, "abcxab"), Losses());
  Options longer = dry();
  longer.dry_allowed_length = 3;
  EXPECT_EQ(losses(longer, "abcxab"), Losses());
  EXPECT_EQ(losses(longer, "abcdxabc"), (Losses{{'d', 2}}));
}

TEST(Dry, LooksBackNoFurtherThanItsWindow) {
  Options options = dry();
  options.dry_penalty_last_n = 6;
  EXPECT_EQ(losses(options, "abcxab"), (Losses{{'c', 2}}));
  EXPECT_EQ(losses(options, "abcxyab"), Losses());
  EXPECT_EQ(losses(options, "kkkkkkkkkkkkkabcxab"), (Losses{{'c', 2}}));
  options.dry_penalty_last_n = 0;
  EXPECT_EQ(losses(options, "abcxab"), Losses());
}

TEST(Dry, DoesNotReachOverBreakers) {
  EXPECT_EQ(losses(dry(), "abcdxabc"), (Losses{{'d', 6}}));
  EXPECT_EQ(losses(dry(), "abcd:abc"), (Losses{{'d', 6}})) << "before the repetition";
  EXPECT_EQ(losses(dry(), "a:bcdxa:bc"), (Losses{{'d', 2}})) << "two letters after it";
  EXPECT_EQ(losses(dry(), "ab:xab"), Losses()) << "a breaker itself is free";
  Options options = dry();
  options.dry_sequence_breakers = {"bc"};  // of two tokens
  EXPECT_EQ(losses(options, "abcdefxabcde"), (Losses{{'f', 2}}));
  options.dry_sequence_breakers = {};
  EXPECT_EQ(losses(options, "a:bcdxa:bc"), (Losses{{'d', 18}}));
}

TEST(Dry, LongRepetitionsAreNotInfinite) {
  Options options = dry();
  options.dry_sequence_breakers = {};
  const auto lost = losses(options, std::string(3000, 'a'));
  ASSERT_EQ(lost.size(), 1U);
  EXPECT_TRUE(std::isfinite(lost.at('a')));
}

// What the definition says, looked for the slow way.
std::map<char, float> slow_losses(const Options& options, std::string_view text) {
  const std::size_t last_break = text.rfind(':');
  const std::size_t limit =
      last_break == std::string_view::npos ? text.size() : text.size() - last_break - 1;
  const std::size_t window = static_cast<std::size_t>(options.dry_penalty_last_n);
  const std::string_view seen = text.substr(text.size() - std::min(text.size(), window));
  std::map<char, std::size_t> longest;
  for (std::size_t end = 1; end < seen.size(); ++end) {
    std::size_t length = 0;
    while (length < end && length < limit &&
           seen[end - 1 - length] == seen[seen.size() - 1 - length]) {
      ++length;
    }
    if (length >= 2) longest[seen[end]] = std::max(longest[seen[end]], length);
  }
  longest.erase(':');
  std::map<char, float> lost;
  for (const auto& [c, length] : longest) {
    lost[c] = 2.0F * static_cast<float>(std::pow(3.0, static_cast<double>(length) - 2.0));
  }
  return lost;
}

RC_GTEST_PROP(Dry, FindsWhatTheDefinitionSays, ()) {
  const auto codes = *rc::gen::container<std::vector<int>>(rc::gen::inRange(0, 4));
  std::string text;
  for (const int code : codes) text += "ab:c"[code];
  Options options = dry();
  options.dry_penalty_last_n = *rc::gen::inRange(1, 30);
  RC_ASSERT(losses(options, text) == slow_losses(options, text));
}

// ---- All together

Options everything(std::int64_t seed) {
  Options options;
  options.seed = seed;
  options.typical_p = 0.95F;
  options.min_p = 0.001F;
  options.repeat_penalty = 1.1F;
  options.dynatemp_range = 0.4F;
  options.xtc_probability = 0.5F;
  options.xtc_threshold = 0.05F;
  options.dry_multiplier = 0.8F;
  options.logit_bias = {{1, 2.0F}, {2, -100.0F}};
  options.logprobs = 3;
  return options;
}

RC_GTEST_PROP(Variety, ASeedReproducesWithEverythingOn, ()) {
  const int mirostat = *rc::gen::inRange(0, 3);
  Options options = everything(*rc::gen::inRange(0, 1000));
  options.mirostat = mirostat;
  std::mt19937 random(static_cast<std::uint32_t>(*rc::gen::inRange(0, 1000)));
  std::normal_distribution<float> normal(0.0F, 2.0F);
  Sampler first(options, kVocab, letter);
  Sampler second(options, kVocab, letter);
  const auto tell = [&](Sampler& sampler, std::vector<float> row) {
    const Token token = sampler.sample(row);
    sampler.accept(token);
    return token;
  };
  std::vector<std::vector<float>> rows(30, std::vector<float>(kVocab));
  std::vector<Token> tokens;
  for (auto& row : rows) {
    for (float& logit : row) logit = normal(random);
    tokens.push_back(tell(first, row));
    RC_ASSERT(tell(second, row) == tokens.back());
    RC_ASSERT(tokens.back() != 2);
  }
  first.reset();
  for (std::size_t i = 0; i < rows.size(); ++i) RC_ASSERT(tell(first, rows[i]) == tokens[i]);
}

// ---- Logprobs

TEST(Logprobs, AreOfTheModelsOwnDistribution) {
  Options options = everything(4);
  options.temperature = 0;
  options.logit_bias = {{0, -100.0F}};
  Sampler sampler(options, 4, letter);
  sampler.accept(2);
  std::vector<float> row = logits_of({0.5, 0.125, 0.25, 0.125});
  EXPECT_EQ(sampler.sample(row), 2);
  std::vector<Token> tokens;
  std::vector<double> logprobs;
  for (const auto& [token, logprob] : sampler.logprobs()) {
    tokens.push_back(token);
    logprobs.push_back(static_cast<double>(logprob));
  }
  EXPECT_THAT(tokens, ElementsAre(2, 0, 2, 1));
  const double tolerated = 1e-6;
  EXPECT_NEAR(logprobs[0], std::log(0.25), tolerated);
  EXPECT_NEAR(logprobs[1], std::log(0.5), tolerated);
  EXPECT_NEAR(logprobs[2], std::log(0.25), tolerated);
  EXPECT_NEAR(logprobs[3], std::log(0.125), tolerated);
}

TEST(Logprobs, WithoutAnInfinity) {
  Options options = unfiltered();
  options.logprobs = 2;
  Sampler sampler(options, 3);
  constexpr float kInf = std::numeric_limits<float>::infinity();
  std::vector<float> row{-kInf, std::nanf(""), -kInf};
  sampler.sample(row);
  ASSERT_EQ(sampler.logprobs().size(), 1U) << "nothing else is possible";
  EXPECT_EQ(sampler.logprobs().front().logprob, -9999.0F);
  row = {kInf, 0.0F, 1.0F};
  sampler.sample(row);
  EXPECT_EQ(sampler.logprobs().front().logprob, 0.0F);
}

RC_GTEST_PROP(Logprobs, SumToAtMostOne, ()) {
  const auto values =
      *rc::gen::nonEmpty(rc::gen::container<std::vector<int>>(rc::gen::inRange(-2000, 2000)));
  std::vector<float> row;
  for (const int value : values) row.push_back(static_cast<float>(value) / 100.0F);
  Options options = unfiltered();
  options.logprobs = *rc::gen::inRange(0, 21);
  Sampler sampler(options, row.size());
  std::vector<float> copy = row;
  const Token token = sampler.sample(copy);
  const auto told = sampler.logprobs();
  RC_ASSERT(told.size() ==
            1 + std::min<std::size_t>(row.size(), static_cast<std::size_t>(options.logprobs)));
  double mass = 0;
  for (const float logit : row) mass += std::exp(static_cast<double>(logit));
  RC_ASSERT(told.front().token == token);
  const double wanted = static_cast<double>(row[static_cast<std::size_t>(token)]) - std::log(mass);
  RC_ASSERT(std::abs(static_cast<double>(told.front().logprob) - wanted) < 1e-4);
  double sum = 0;
  for (std::size_t i = 1; i < told.size(); ++i) {
    RC_ASSERT(i == 1 || told[i].logprob <= told[i - 1].logprob);
    sum += std::exp(static_cast<double>(told[i].logprob));
  }
  RC_ASSERT(sum <= 1 + 1e-5);
}

}  // namespace
}  // namespace ollama::sample
