#include "sample/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <deque>
#include <limits>
#include <map>
#include <new>
#include <numeric>
#include <random>

#include "sample/candidates.h"
#include "sample/penalties.h"

namespace {
std::atomic<std::size_t> allocations{0};

void* counted_allocation(std::size_t size) {
  ++allocations;
  void* memory = std::malloc(std::max<std::size_t>(size, 1));
  if (memory == nullptr) std::abort();
  return memory;
}
}  // namespace

// Every allocation of this program is counted. All forms but the aligned ones are here, since the
// address sanitizer's own do not call these.
void* operator new(std::size_t size) { return counted_allocation(size); }
void* operator new[](std::size_t size) { return counted_allocation(size); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return counted_allocation(size);
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
  return counted_allocation(size);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

namespace ollama::sample {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr double kRounding = 1e-5;  // sums of float exponentials against sums of doubles

// Without penalties and filters, so that a test turns on what it is about.
Options plain() {
  Options options;
  options.temperature = 1.0F;
  options.top_k = 0;
  options.top_p = 1.0F;
  options.repeat_penalty = 1.0F;
  options.seed = 42;
  return options;
}

// Normally distributed logits; on a grid where `steps` > 0, for many equal ones.
std::vector<float> random_logits(std::uint32_t seed, std::size_t size, int steps) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0.0F, 4.0F);
  std::vector<float> logits(size);
  for (float& logit : logits) {
    logit = normal(engine);
    if (steps > 0) {
      logit = std::round(logit * static_cast<float>(steps)) / static_cast<float>(steps);
    }
  }
  return logits;
}

std::vector<float> any_logits(std::size_t largest = 3000) {
  // Small rows for what happens at the edges of a filter, large ones for the selection.
  const auto size = *rc::gen::inRange<std::size_t>(1, *rc::gen::element<std::size_t>(20, largest));
  const auto steps = *rc::gen::element(0, 1, 8);
  return random_logits(*rc::gen::arbitrary<std::uint32_t>(), size, steps);
}

// All of a row by a full sort, the way that is slow and obviously right.
std::vector<Candidate> naive_order(const std::vector<float>& logits) {
  std::vector<Candidate> items;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    items.push_back({logits[i], static_cast<Token>(i)});
  }
  std::stable_sort(items.begin(), items.end(),
                   [](const Candidate& a, const Candidate& b) { return a.logit > b.logit; });
  return items;
}

std::vector<double> naive_softmax(std::span<const Candidate> items) {
  double best = -std::numeric_limits<double>::infinity();
  for (const Candidate& item : items) best = std::max(best, static_cast<double>(item.logit));
  std::vector<double> result;
  double sum = 0.0;
  for (const Candidate& item : items) {
    result.push_back(std::exp(static_cast<double>(item.logit) - best));
    sum += result.back();
  }
  for (double& probability : result) probability /= sum;
  return result;
}

std::vector<Token> ids(std::span<const Candidate> items) {
  std::vector<Token> result;
  for (const Candidate& item : items) result.push_back(item.id);
  return result;
}

std::vector<Token> sorted_ids(std::span<const Candidate> items) {
  std::vector<Token> result = ids(items);
  std::sort(result.begin(), result.end());
  return result;
}

std::vector<Token> sample_many(Sampler& sampler, const std::vector<float>& logits, int count) {
  std::vector<Token> tokens;
  std::vector<float> row(logits.size());
  for (int i = 0; i < count; ++i) {
    row = logits;
    tokens.push_back(sampler.sample(row));
    sampler.accept(tokens.back());
  }
  return tokens;
}

// --- greedy

TEST(Greedy, TakesTheFirstOfEqualMaxima) {
  EXPECT_EQ(first_maximum(std::vector<float>{1, 3, 2, 3}), 1);
  std::vector<float> row(1000, 0.5F);
  row[700] = row[300] = row[999] = 2.0F;
  Options options = plain();
  for (const float temperature : {0.0F, -1.0F}) {
    options.temperature = temperature;
    EXPECT_EQ(Sampler(options, row.size()).sample(row), 300);
  }
  options.temperature = 5.0F;
  options.top_k = 1;
  EXPECT_EQ(Sampler(options, row.size()).sample(row), 300) << "top_k 1 leaves no choice";
}

TEST(Greedy, AppliesPenalties) {
  Options options;
  options.temperature = 0.0F;
  options.repeat_penalty = 2.0F;
  Sampler sampler(options, 3);
  const std::vector<float> logits{4.0F, 3.0F, 1.0F};
  // 4 becomes 2 once it was taken, then 3 becomes 1.5, then 2 is the best again.
  EXPECT_THAT(sample_many(sampler, logits, 3), ElementsAre(0, 1, 0));
}

RC_GTEST_PROP(Greedy, FindsWhatAFullScanFinds, ()) {
  const std::vector<float> logits = any_logits();
  RC_ASSERT(first_maximum(logits) == naive_order(logits).front().id);
}

TEST(Greedy, SurvivesNanAndInfinity) {
  EXPECT_EQ(first_maximum(std::vector<float>{kNaN, -5, kNaN, -4}), 3);
  EXPECT_EQ(first_maximum(std::vector<float>{-5, kInf, kNaN, kInf}), 1);
  EXPECT_EQ(first_maximum(std::vector<float>(100, -kInf)), 0);
  EXPECT_EQ(first_maximum(std::vector<float>(100, kNaN)), 0);
  EXPECT_EQ(first_maximum({}), 0);
}

// --- filters, against their definitions

RC_GTEST_PROP(TopK, KeepsTheBestOfAFullSort, ()) {
  const std::vector<float> logits = any_logits();
  const auto k = *rc::gen::inRange<std::size_t>(
      1, std::min(logits.size(), *rc::gen::element<std::size_t>(60, 3000)) + 1);
  Candidates candidates(logits.size(), k);
  // Twice: what one row leaves behind must not show in the next.
  for (int round = 0; round < 2; ++round) {
    candidates.collect(logits);
    auto expected = naive_order(logits);
    expected.resize(k);
    RC_ASSERT(sorted_ids(candidates.items()) == sorted_ids(expected));
  }
}

// Orders that make the running threshold work hardest, or not at all.
TEST(TopK, KeepsTheBestOfAnyOrder) {
  constexpr std::size_t kSize = 5000;
  std::map<std::string, std::vector<float>> rows;
  for (std::size_t i = 0; i < kSize; ++i) {
    const auto step = static_cast<float>(i) * 0.001F;
    rows["ascending"].push_back(step);
    rows["descending"].push_back(-step);
    rows["equal"].push_back(1.0F);
    rows["two values"].push_back(i % 3 == 0 ? 1.0F : 0.0F);
    rows["sawtooth"].push_back(static_cast<float>(i * 769 % 1000) * 0.001F);
  }
  for (const auto& [name, row] : rows) {
    for (const std::size_t k : {1U, 2U, 40U, 333U, 2000U, 4999U, 5000U}) {
      Candidates candidates(kSize, k);
      candidates.collect(row);
      auto expected = naive_order(row);
      expected.resize(k);
      EXPECT_EQ(sorted_ids(candidates.items()), sorted_ids(expected)) << name << ", k " << k;
    }
  }
}

RC_GTEST_PROP(TopP, KeepsTheFewestBestThatReachP, ()) {
  const std::vector<float> logits = any_logits();
  const double p = *rc::gen::inRange(0, 1000) / 1000.0;
  Candidates candidates(logits.size(), logits.size());
  candidates.collect(logits);
  candidates.keep_top_p(static_cast<float>(p));

  const auto order = naive_order(logits);
  const auto probabilities = naive_softmax(order);
  const std::size_t count = candidates.items().size();
  RC_ASSERT(count >= 1U);
  // The best ones, in order.
  RC_ASSERT(ids(candidates.items()) == ids(std::span(order).first(count)));
  const double mass = std::accumulate(
      probabilities.begin(), probabilities.begin() + static_cast<std::ptrdiff_t>(count), 0.0);
  RC_ASSERT(mass >= p - kRounding);
  if (count > 1) RC_ASSERT(mass - probabilities[count - 1] < p + kRounding);
}

RC_GTEST_PROP(MinP, KeepsTokensThatAreLikelyEnough, ()) {
  const std::vector<float> logits = any_logits();
  const double p = *rc::gen::inRange(1, 1100) / 1000.0;
  Candidates candidates(logits.size(), logits.size());
  candidates.collect(logits);
  const bool sorted_before = *rc::gen::arbitrary<bool>();
  if (sorted_before) candidates.keep_top_p(0.999F);
  const std::vector<Candidate> before(candidates.items().begin(), candidates.items().end());
  candidates.keep_min_p(static_cast<float>(p));

  const auto kept = sorted_ids(candidates.items());
  const auto probabilities = naive_softmax(before);
  const double floor =
      std::min(p, 1.0) * *std::max_element(probabilities.begin(), probabilities.end());
  for (std::size_t i = 0; i < before.size(); ++i) {
    const bool is_kept = std::binary_search(kept.begin(), kept.end(), before[i].id);
    if (probabilities[i] > floor * (1.0 + kRounding)) RC_ASSERT(is_kept);
    if (probabilities[i] < floor * (1.0 - kRounding)) RC_ASSERT(!is_kept);
  }
  RC_ASSERT(!kept.empty());
}

RC_GTEST_PROP(Typical, KeepsTheInformationClosestToTheEntropy, ()) {
  const std::vector<float> logits = any_logits(1000);
  const double p = *rc::gen::inRange(0, 1000) / 1000.0;
  Candidates candidates(logits.size(), logits.size());
  candidates.collect(logits);
  candidates.keep_typical(static_cast<float>(p));

  const auto order = naive_order(logits);
  const auto probabilities = naive_softmax(order);
  double entropy = 0.0;
  for (const double q : probabilities) entropy -= q > 0.0 ? q * std::log(q) : 0.0;
  std::map<Token, double> probability;
  std::map<Token, double> distance;
  for (std::size_t i = 0; i < order.size(); ++i) {
    probability[order[i].id] = probabilities[i];
    distance[order[i].id] = std::fabs(-std::log(probabilities[i]) - entropy);
  }

  double mass = 0.0;
  double furthest_kept = 0.0;
  for (const Candidate& item : candidates.items()) {
    mass += probability[item.id];
    furthest_kept = std::max(furthest_kept, distance[item.id]);
    distance.erase(item.id);
  }
  RC_ASSERT(!candidates.items().empty());
  for (const auto& [token, dropped] : distance) RC_ASSERT(dropped >= furthest_kept - 1e-3);
  // More than p, but not without the last one that was taken.
  if (!distance.empty()) RC_ASSERT(mass > p - kRounding);
  RC_ASSERT(mass - probability[candidates.items().back().id] <= p + kRounding);
}

TEST(Filters, OffKeepEverything) {
  const std::vector<float> logits = random_logits(1, 500, 0);
  Candidates candidates(logits.size(), logits.size());
  candidates.collect(logits);
  candidates.keep_typical(1.0F);
  candidates.keep_top_p(1.0F);
  candidates.keep_min_p(0.0F);
  candidates.keep_top_p(kNaN);
  candidates.keep_min_p(kNaN);
  candidates.keep_typical(kNaN);
  EXPECT_EQ(candidates.items().size(), 500U);
}

TEST(Filters, TheStrictestStillKeepOne) {
  const std::vector<float> logits{1.0F, 5.0F, 2.0F};
  for (auto filter : {&Candidates::keep_top_p, &Candidates::keep_typical}) {
    Candidates candidates(3, 3);
    candidates.collect(logits);
    (candidates.*filter)(0.0F);
    EXPECT_EQ(candidates.items().size(), 1U);
  }
  Candidates candidates(3, 3);
  candidates.collect(logits);
  candidates.keep_min_p(2.0F);
  EXPECT_THAT(ids(candidates.items()), ElementsAre(1));
}

// The order of the chain shows where filters work on each other's results: top_p takes its share of
// what top_k left, and the temperature changes nothing of what was kept.
TEST(Chain, FiltersComeBeforeTheTemperature) {
  Options options = plain();
  options.temperature = 100.0F;  // flat: everything that is kept comes up
  options.top_p = 0.6F;
  // Probabilities .5, .3, .1, .1.
  const std::vector<float> logits{std::log(.5F), std::log(.3F), std::log(.1F), std::log(.1F)};
  Sampler sampler(options, logits.size());
  const auto tokens = sample_many(sampler, logits, 300);
  EXPECT_EQ(
      std::count(tokens.begin(), tokens.end(), 2) + std::count(tokens.begin(), tokens.end(), 3), 0);
  EXPECT_GT(std::count(tokens.begin(), tokens.end(), 1), 100);

  options.top_k = 2;  // .625 and .375: the first alone is enough for 0.6 now
  Sampler narrow(options, logits.size());
  for (const Token token : sample_many(narrow, logits, 100)) EXPECT_EQ(token, 0);
}

// --- drawing

TEST(Draw, FollowsTheSoftmax) {
  // Chi-squared over 20,000 draws; 5 degrees of freedom, so 20.5 is passed once in a thousand. The
  // seed is fixed, hence so is the outcome.
  const std::vector<float> logits{0.0F, 1.0F, -1.0F, 2.0F, 0.5F, -2.0F};
  for (const float temperature : {0.5F, 1.0F, 2.0F}) {
    Options options = plain();
    options.temperature = temperature;
    Sampler sampler(options, logits.size());
    constexpr int kDraws = 20'000;
    std::map<Token, int> counts;
    for (const Token token : sample_many(sampler, logits, kDraws)) ++counts[token];
    std::vector<Candidate> items;
    for (std::size_t i = 0; i < logits.size(); ++i) {
      items.push_back({logits[i] / temperature, static_cast<Token>(i)});
    }
    const auto probabilities = naive_softmax(items);
    double chi_squared = 0.0;
    for (std::size_t i = 0; i < logits.size(); ++i) {
      const double expected = probabilities[i] * kDraws;
      const double difference = counts[static_cast<Token>(i)] - expected;
      chi_squared += difference * difference / expected;
    }
    EXPECT_LT(chi_squared, 20.5) << "temperature " << temperature;
  }
}

// Eight equal tokens are chosen by the top three bits of the engine that the standard defines: a
// seed gives the same text on every machine and with every standard library.
TEST(Draw, IsTheSameForASeedEverywhere) {
  Options options = plain();
  options.seed = 1234;
  Sampler sampler(options, 8);
  const std::vector<float> logits(8, 1.5F);
  std::mt19937_64 engine(1234);
  for (const Token token : sample_many(sampler, logits, 200)) {
    ASSERT_EQ(token, static_cast<Token>(engine() >> 61));
  }
}

TEST(Draw, SameSeedSameTokens) {
  const std::vector<float> logits = random_logits(7, 5000, 0);
  Options options;
  options.seed = 99;
  Sampler first(options, logits.size());
  Sampler second(options, logits.size());
  const auto tokens = sample_many(first, logits, 200);
  EXPECT_EQ(tokens, sample_many(second, logits, 200));
  first.reset();
  EXPECT_EQ(tokens, sample_many(first, logits, 200)) << "reset() forgets text and random numbers";
  options.seed = 100;
  Sampler other(options, logits.size());
  EXPECT_NE(tokens, sample_many(other, logits, 200));
}

TEST(Draw, NegativeSeedIsARandomOne) {
  const std::vector<float> logits(1000, 0.0F);
  Options options = plain();
  options.seed = -1;
  Sampler first(options, logits.size());
  Sampler second(options, logits.size());
  // Equal by chance once in 1000^20.
  const auto tokens = sample_many(first, logits, 20);
  EXPECT_NE(tokens, sample_many(second, logits, 20));
  first.reset();
  EXPECT_NE(tokens, sample_many(first, logits, 20));
}

TEST(Draw, ExtremeTemperaturesAreHarmless) {
  std::vector<float> logits = random_logits(3, 300, 0);
  const Token best = naive_order(logits).front().id;
  Options options = plain();
  for (const float temperature : {1e-30F, std::numeric_limits<float>::denorm_min(), kNaN}) {
    options.temperature = temperature;
    Sampler sampler(options, logits.size());
    for (const Token token : sample_many(sampler, logits, 20)) EXPECT_EQ(token, best);
  }
  options.temperature = kInf;
  Sampler sampler(options, logits.size());
  for (const Token token : sample_many(sampler, logits, 20)) {
    EXPECT_TRUE(token >= 0 && token < 300);
  }
}

// --- hostile rows

RC_GTEST_PROP(Robustness, NeverChoosesNanOrMinusInfinity, ()) {
  std::vector<float> logits = any_logits(600);
  std::mt19937 engine(*rc::gen::arbitrary<std::uint32_t>());
  const auto holes = *rc::gen::inRange<std::uint32_t>(0, 101);
  constexpr std::array kBad{kNaN, -kInf, -kNaN};
  std::size_t good = 0;
  for (float& logit : logits) {
    if (engine() % 100 < holes) logit = kBad[engine() % kBad.size()];
    if (logit > -kInf) ++good;
  }
  if (*rc::gen::arbitrary<bool>()) {
    logits[engine() % logits.size()] = kInf;
    logits[engine() % logits.size()] = -1e38F;
    good = 0;
    for (const float logit : logits) good += logit > -kInf ? 1 : 0;
  }
  Options options;
  options.seed = 5;
  options.temperature = *rc::gen::element(0.0F, 0.8F, 2.0F);
  options.top_k = *rc::gen::element(0, 1, 5, 40, 1'000'000);
  options.top_p = *rc::gen::element(0.0F, 0.5F, 1.0F);
  options.min_p = *rc::gen::element(0.0F, 0.5F, 1.0F);
  options.typical_p = *rc::gen::element(0.0F, 0.5F, 1.0F);
  Sampler sampler(options, logits.size());
  for (int i = 0; i < 3; ++i) {
    std::vector<float> row = logits;
    const Token token = sampler.sample(row);
    sampler.accept(token);
    RC_ASSERT(token >= 0 && static_cast<std::size_t>(token) < logits.size());
    if (good == 0) {
      RC_ASSERT(token == 0);
    } else {
      RC_ASSERT(logits[static_cast<std::size_t>(token)] > -kInf);
    }
  }
}

TEST(Robustness, InfinityWinsAgainstEverything) {
  std::vector<float> logits = random_logits(11, 2000, 0);
  logits[1500] = kInf;
  Options options = plain();
  Sampler sampler(options, logits.size());
  for (const Token token : sample_many(sampler, logits, 50)) EXPECT_EQ(token, 1500);
}

TEST(Robustness, EmptyAndOddSizesAreHarmless) {
  std::vector<float> none;
  EXPECT_EQ(Sampler(plain(), 0).sample(none), 0);
  EXPECT_EQ(Sampler(plain(), 10).sample(none), 0);
  // A row longer than the vocabulary: what is beyond it is not chosen.
  std::vector<float> row{0.0F, 1.0F, 900.0F};
  Options options = plain();
  EXPECT_LT(Sampler(options, 2).sample(row), 2);
  options.temperature = 0.0F;
  EXPECT_EQ(Sampler(options, 2).sample(row), 1);
}

// --- penalties

// The window rescanned for every row, as the definition says.
std::vector<float> naive_penalties(const Options& options, const std::vector<Token>& text,
                                   std::vector<float> logits) {
  std::size_t last_n = static_cast<std::size_t>(options.repeat_last_n);
  if (options.repeat_last_n < 0) last_n = text.size();
  std::map<Token, int> counts;
  for (std::size_t i = text.size() - std::min(text.size(), last_n); i < text.size(); ++i) {
    ++counts[text[i]];
  }
  for (const auto& [token, count] : counts) {
    float& logit = logits[static_cast<std::size_t>(token)];
    logit = logit <= 0.0F ? logit * options.repeat_penalty : logit / options.repeat_penalty;
    logit -= static_cast<float>(count) * options.frequency_penalty + options.presence_penalty;
  }
  return logits;
}

RC_GTEST_PROP(Penalties, AreThoseOfTheLastTokens, ()) {
  const auto vocab_size = *rc::gen::inRange<std::size_t>(1, 40);
  const auto text = *rc::gen::container<std::vector<Token>>(
      rc::gen::inRange<Token>(0, static_cast<Token>(vocab_size)));
  Options options;
  options.repeat_last_n = *rc::gen::element(-1, 0, 1, 2, 7, 64, 2'000'000'000);
  options.repeat_penalty = *rc::gen::element(1.0F, 1.1F, 2.0F, 0.5F);
  options.frequency_penalty = *rc::gen::element(0.0F, 0.5F, -1.0F);
  options.presence_penalty = *rc::gen::element(0.0F, 1.5F, -0.25F);
  const std::vector<float> logits = random_logits(1, vocab_size, 0);

  Penalties penalties(options, vocab_size);
  for (int round = 0; round < 2; ++round) {  // the second after a reset
    std::vector<Token> accepted;
    for (const Token token : text) {
      penalties.accept(token);
      accepted.push_back(token);
      std::vector<float> row = logits;
      penalties.apply(row);
      RC_ASSERT(row == naive_penalties(options, accepted, logits));
    }
    penalties.reset();
    std::vector<float> row = logits;
    penalties.apply(row);
    RC_ASSERT(row == logits);
  }
}

TEST(Penalties, PassOverIdsOutsideTheVocabulary) {
  Sampler sampler(Options{}, 4);
  sampler.accept(-1);
  sampler.accept(4);
  sampler.accept(std::numeric_limits<Token>::max());
  std::vector<float> logits{1.0F, 1.0F, 1.0F, 1.0F};
  EXPECT_GE(sampler.sample(logits), 0);
  EXPECT_THAT(logits, ElementsAre(1.0F, 1.0F, 1.0F, 1.0F));
}

// --- the rest

TEST(Allocations, NoneAfterConstruction) {
  constexpr std::size_t kVocab = 32'000;
  const std::vector<float> logits = random_logits(21, kVocab, 0);
  std::vector<float> row(kVocab);
  std::vector<Options> variants(9);
  variants[0].temperature = 0.0F;
  variants[1].top_k = 0;
  variants[2].top_k = 0;
  variants[2].typical_p = 0.9F;
  variants[2].min_p = 0.05F;
  variants[3].repeat_last_n = -1;
  variants[4].top_k = 5000;
  variants[4].repeat_last_n = 4096;
  variants[6].dynatemp_range = 0.5F;
  variants[6].xtc_probability = 0.5F;
  variants[6].dry_multiplier = 0.8F;
  variants[6].dry_penalty_last_n = 32;
  variants[6].logit_bias = {{3, 1.0F}, {4, -100.0F}};
  variants[6].logprobs = 20;
  variants[7].mirostat = 1;
  variants[8].mirostat = 2;
  for (const Options& options : variants) {
    Sampler sampler(options, kVocab, [](Token) { return std::string_view("abc"); });
    const std::size_t before = allocations;
    for (int i = 0; i < 50; ++i) {
      std::copy(logits.begin(), logits.end(), row.begin());
      sampler.accept(sampler.sample(row));
      sampler.accept(i * 7 % static_cast<int>(kVocab));
    }
    EXPECT_EQ(allocations - before, 0U) << "top_k " << options.top_k;
  }
  const std::size_t before = allocations;
  const auto proof = std::make_unique<int>(1);
  EXPECT_EQ(allocations - before, 1U) << "the counter itself must work";
}

// A request chooses a window's size, and must not choose how much memory it takes.
TEST(Options, WindowsBeyondTheContextAreTheWholeText) {
  Options options;
  options.repeat_last_n = 1 << 20;
  options.dry_penalty_last_n = 4097;
  const Options bound = within(options, 4096);
  EXPECT_EQ(bound.repeat_last_n, -1);
  EXPECT_EQ(bound.dry_penalty_last_n, -1);
  for (const std::int32_t window : {-1, 0, 1, 4096}) {
    options.repeat_last_n = options.dry_penalty_last_n = window;
    EXPECT_EQ(within(options, 4096).repeat_last_n, window);
    EXPECT_EQ(within(options, 4096).dry_penalty_last_n, window);
  }
}

TEST(Sampler, MovesWithItsState) {
  const std::vector<float> logits = random_logits(2, 100, 0);
  Options options = plain();
  Sampler reference(options, logits.size());
  const auto expected = sample_many(reference, logits, 20);
  Sampler first(options, logits.size());
  auto tokens = sample_many(first, logits, 10);
  Sampler second(std::move(first));
  for (const Token token : sample_many(second, logits, 10)) tokens.push_back(token);
  EXPECT_EQ(tokens, expected);
}

TEST(Validate, NamesTheOption) {
  EXPECT_TRUE(validate(Options{}));
  Options options;
  options.temperature = -1.0F;
  options.top_k = -5;
  options.top_p = 1.5F;
  options.repeat_last_n = -1;
  EXPECT_TRUE(validate(options)) << "what merely turns something off is fine";

  const auto expect_error = [](auto member, auto value, std::string_view name) {
    Options bad;
    bad.*member = value;
    const auto result = validate(bad);
    ASSERT_FALSE(result) << name;
    EXPECT_EQ(result.error().code(), ErrorCode::kInvalidArgument);
    EXPECT_THAT(std::string(result.error().message()), HasSubstr(name));
  };
  expect_error(&Options::temperature, kNaN, "temperature");
  expect_error(&Options::top_p, kInf, "top_p");
  expect_error(&Options::min_p, kNaN, "min_p");
  expect_error(&Options::typical_p, kNaN, "typical_p");
  expect_error(&Options::presence_penalty, -kInf, "presence_penalty");
  expect_error(&Options::frequency_penalty, kNaN, "frequency_penalty");
  expect_error(&Options::repeat_penalty, 0.0F, "repeat_penalty");
  expect_error(&Options::repeat_penalty, -1.0F, "repeat_penalty");
  expect_error(&Options::repeat_last_n, -2, "repeat_last_n");
  expect_error(&Options::dynatemp_range, -0.1F, "dynatemp_range");
  expect_error(&Options::dynatemp_exponent, kNaN, "dynatemp_exponent");
  expect_error(&Options::xtc_probability, 1.1F, "xtc_probability");
  expect_error(&Options::xtc_threshold, -0.1F, "xtc_threshold");
  expect_error(&Options::dry_multiplier, kInf, "dry_multiplier");
  expect_error(&Options::dry_base, 0.9F, "dry_base");
  expect_error(&Options::dry_allowed_length, -1, "dry_allowed_length");
  expect_error(&Options::dry_penalty_last_n, -2, "dry_penalty_last_n");
  using Texts = std::vector<std::string>;
  expect_error(&Options::dry_sequence_breakers, Texts{""}, "dry_sequence_breakers");
  expect_error(&Options::dry_sequence_breakers, Texts{std::string(129, 'a')}, "1 to 128 bytes");
  expect_error(&Options::dry_sequence_breakers, Texts(65, "a"), "more than 64 texts");
  expect_error(&Options::mirostat, 3, "mirostat");
  expect_error(&Options::mirostat_tau, -1.0F, "mirostat_tau");
  expect_error(&Options::mirostat_eta, kNaN, "mirostat_eta");
  expect_error(&Options::logprobs, 21, "top_logprobs must be between 0 and 20");
  using Biases = std::vector<TokenBias>;
  expect_error(&Options::logit_bias, Biases{{-1, 0}}, "names the token -1");
  expect_error(&Options::logit_bias, Biases{{1, 100.5F}}, "-100 to 100");
  expect_error(&Options::logit_bias, Biases{{1, kNaN}}, "-100 to 100");
  options.logit_bias = {{7, 1.0F}};
  EXPECT_TRUE(validate(options, 8));
  EXPECT_FALSE(validate(options, 7)) << "a token that the vocabulary does not have";
}

}  // namespace
}  // namespace ollama::sample
