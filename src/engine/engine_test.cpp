#include "engine/engine.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <unistd.h>

#include <cmath>
#include <condition_variable>
#include <fstream>
#include <future>
#include <mutex>

#include "engine/evaluate.h"
#include "engine/stop_matcher.h"
#include "gguf/synthetic.h"

namespace ollama::engine {
namespace {

const std::filesystem::path kData = OLLAMA_TEST_DATA;
const std::filesystem::path kStories = kData / "models/stories260K-f16.gguf";
// With f32 weights and cache, other orders of summation change the logits too little to change a
// token.
const std::filesystem::path kExactStories = kData / "models/stories260K-f32.gguf";
constexpr std::string_view kStory =
    ", there was a little girl named Lily. She loved to play outside in the park. One day, she saw "
    "a "
    "big, red ball. She wanted to play with it, but it was too high.\nLily's mom said, \"Lily, "
    "let's "
    "go to the park.\"";

// What became of a request, for waiting on.
struct Outcome {
  std::mutex mutex;
  std::condition_variable changed;
  std::string text;
  std::vector<Token> tokens;
  std::vector<TokenLogprobs> logprobs;
  std::optional<Stats> begun;  // told before any piece
  std::vector<Token> prompt;   // with it
  std::optional<DoneReason> reason;
  std::optional<std::string> error;
  Stats stats;
  std::size_t pieces = 0;

  void wait() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [this] { return reason || error; });
  }
  void wait_for_pieces(std::size_t count) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return pieces >= count || reason || error; });
  }
};

class Recorder final : public Listener {
 public:
  explicit Recorder(std::shared_ptr<Outcome> outcome) : outcome_(std::move(outcome)) {}
  void begun(const Stats& stats, std::span<const Token> prompt) override {
    const std::scoped_lock lock(outcome_->mutex);
    if (outcome_->pieces == 0) outcome_->begun = stats;
    outcome_->prompt.assign(prompt.begin(), prompt.end());
  }
  void text(std::string_view piece, std::span<const Token> tokens) override {
    const std::scoped_lock lock(outcome_->mutex);
    outcome_->text += piece;
    outcome_->tokens.insert(outcome_->tokens.end(), tokens.begin(), tokens.end());
    ++outcome_->pieces;
    outcome_->changed.notify_all();
  }
  void logprobs(std::span<const TokenLogprobs> tokens) override {
    const std::scoped_lock lock(outcome_->mutex);
    outcome_->logprobs.insert(outcome_->logprobs.end(), tokens.begin(), tokens.end());
  }
  void done(DoneReason reason, const Stats& stats) override {
    const std::scoped_lock lock(outcome_->mutex);
    outcome_->reason = reason;
    outcome_->stats = stats;
    outcome_->changed.notify_all();
  }
  void failed(const Error& error) override {
    const std::scoped_lock lock(outcome_->mutex);
    outcome_->error = std::string(error.message());
    outcome_->changed.notify_all();
  }

 private:
  std::shared_ptr<Outcome> outcome_;
};

std::unique_ptr<Engine> load(LoadOptions options = {},
                             const std::filesystem::path& path = kStories) {
  auto engine = Engine::load(path, options);
  if (!engine) throw std::runtime_error(std::string(engine.error().message()));
  return std::move(*engine);
}

Request greedy(const Engine& engine, std::string_view prompt, std::int32_t num_predict = 256) {
  Request request;
  request.prompt = engine.tokenizer().encode(prompt, {.add_special = true});
  request.sampling.temperature = 0;
  request.sampling.repeat_penalty = 1.0F;
  request.num_predict = num_predict;
  return request;
}

std::shared_ptr<Outcome> start(Engine& engine, Request request, RequestId* id = nullptr) {
  auto outcome = std::make_shared<Outcome>();
  const auto submitted = engine.submit(std::move(request), std::make_unique<Recorder>(outcome));
  if (!submitted) {
    outcome->error = std::string(submitted.error().message());
  } else if (id != nullptr) {
    *id = *submitted;
  }
  return outcome;
}

std::shared_ptr<Outcome> run(Engine& engine, Request request) {
  auto outcome = start(engine, std::move(request));
  outcome->wait();
  return outcome;
}

TEST(Engine, TellsTheStoryThatLlamaCppTells) {
  const auto engine = load();
  const auto outcome = run(*engine, greedy(*engine, "Once upon a time"));
  EXPECT_EQ(outcome->error, std::nullopt);
  EXPECT_TRUE(outcome->text.starts_with(kStory)) << outcome->text;
  EXPECT_EQ(outcome->stats.prompt_tokens, 5U);
}

TEST(Engine, TellsLogprobsOfWhatItShows) {
  const auto engine = load();
  Request request = greedy(*engine, "Once upon a time", 12);
  request.sampling.logprobs = 4;
  const auto outcome = run(*engine, request);
  ASSERT_EQ(outcome->logprobs.size(), 12U);
  for (std::size_t i = 0; i < 12; ++i) {
    const auto& [chosen, best, begin] = outcome->logprobs[i];
    EXPECT_EQ(chosen.token, outcome->tokens[i]);
    EXPECT_TRUE(outcome->text.substr(begin).starts_with(engine->tokenizer().piece(chosen.token)));
    ASSERT_EQ(best.size(), 4U);
    EXPECT_EQ(best[0].token, chosen.token) << "greedy";
    double sum = 0;
    for (const auto& [token, logprob] : best) sum += std::exp(static_cast<double>(logprob));
    EXPECT_LE(sum, 1 + 1e-5);
    EXPECT_GT(sum, 0.1);
  }
  EXPECT_EQ(run(*engine, greedy(*engine, "Once upon a time", 12))->logprobs.size(), 0U);

  // A stop string's tokens are not told, of those before it none is missing.
  request = greedy(*engine, "Once upon a time", 40);
  request.sampling.logprobs = 0;
  request.stop = {"named Lily"};
  const auto stopped = run(*engine, request);
  EXPECT_EQ(stopped->text, ", there was a little girl ");
  std::string said;
  for (const TokenLogprobs& told : stopped->logprobs) {
    said += engine->tokenizer().piece(told.chosen.token);
  }
  EXPECT_TRUE(said.starts_with(", there was a little girl")) << said;
  EXPECT_FALSE(said.contains("Lily")) << said;
}

TEST(Engine, SamplingOptionsWork) {
  const auto engine = load();
  const Token comma = run(*engine, greedy(*engine, "Once upon a time", 1))->tokens.at(0);
  Request request = greedy(*engine, "Once upon a time", 30);
  request.sampling.logit_bias = {{comma, -100.0F}};
  EXPECT_FALSE(std::ranges::contains(run(*engine, request)->tokens, comma));
  request.sampling.logit_bias = {{comma, 100.0F}};
  EXPECT_EQ(run(*engine, request)->text, std::string(30, ','));
  request.sampling.logit_bias = {{100'000, 1.0F}};
  EXPECT_TRUE(run(*engine, request)->error->contains("logit_bias")) << "not in the vocabulary";

  // Each option changes what is said, and what is said is the seed's.
  std::vector<std::string> texts;
  for (int option = 0; option < 6; ++option) {
    Request sampled = greedy(*engine, "Once upon a time", 60);
    sample::Options& sampling = sampled.sampling;
    sampling.temperature = 1.0F;
    sampling.top_k = 0;
    sampling.seed = 7;
    sampling.mirostat_tau = 1.0F;
    if (option == 1) sampling.mirostat = 1;
    if (option == 2) sampling.mirostat = 2;
    if (option == 3) sampling.dynatemp_range = 0.8F;
    if (option == 4) sampling.xtc_probability = 0.5F;
    if (option == 5) {
      sampling.dry_multiplier = 5.0F;
      sampling.dry_allowed_length = 1;
    }
    const std::string text = run(*engine, sampled)->text;
    EXPECT_EQ(run(*engine, sampled)->text, text) << option;
    EXPECT_FALSE(std::ranges::contains(texts, text)) << option;
    texts.push_back(text);
  }
}

TEST(Engine, ChunksAndBatchSizesDoNotChangeTheText) {
  const std::size_t half = kStory.find("She wanted");
  const std::string prompt = "Once upon a time" + std::string(kStory.substr(0, half - 1));
  for (const std::uint32_t batch : {1U, 7U, 64U, 512U}) {
    const auto engine = load({.batch = batch});
    const auto outcome = run(*engine, greedy(*engine, prompt, 24));
    EXPECT_TRUE(kStory.substr(half - 1).starts_with(outcome->text)) << batch << outcome->text;
  }
}

TEST(Engine, ContinuesFromACachedPrefix) {
  const auto engine = load({.kv_type = ml::DType::kF32}, kExactStories);
  const auto first = run(*engine, greedy(*engine, "Once upon a time", 40));
  EXPECT_EQ(first->stats.cached_tokens, 0U);
  const std::string longer = "Once upon a time" + first->text;
  const auto second = run(*engine, greedy(*engine, longer, 40));
  EXPECT_GT(second->stats.cached_tokens, 30U);
  ASSERT_TRUE(second->begun);
  EXPECT_EQ(second->begun->prompt_tokens, second->stats.prompt_tokens);
  EXPECT_EQ(second->begun->cached_tokens, second->stats.cached_tokens);
  // The same without a cache.
  Request fresh = greedy(*engine, longer, 40);
  fresh.reuse_prefix = false;
  const auto third = run(*engine, std::move(fresh));
  EXPECT_EQ(third->stats.cached_tokens, 0U);
  EXPECT_EQ(second->text, third->text);
  // A prompt that is cached to its last token still evaluates one.
  const auto again = run(*engine, greedy(*engine, longer, 40));
  EXPECT_EQ(again->text, third->text);
  EXPECT_LT(again->stats.cached_tokens, again->stats.prompt_tokens);
}

TEST(Engine, SequencesSideBySideGiveWhatTheyGiveAlone) {
  const std::vector<std::string> prompts{
      "Once upon a time", "Lily and Tom",     "One day a dog",          "Once upon a time there",
      "The sun was",      "Once upon a time", "Tim had a red ball and", "Mom said"};
  std::vector<std::string> alone;
  {
    const auto engine = load({.kv_type = ml::DType::kF32}, kExactStories);
    for (const std::string& prompt : prompts) {
      alone.push_back(run(*engine, greedy(*engine, prompt, 60))->text);
    }
  }
  const auto engine = load({.parallel = 4, .kv_type = ml::DType::kF32}, kExactStories);
  std::vector<std::shared_ptr<Outcome>> outcomes;
  for (const std::string& prompt : prompts) {
    outcomes.push_back(start(*engine, greedy(*engine, prompt, 60)));
  }
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    outcomes[i]->wait();
    EXPECT_EQ(outcomes[i]->error, std::nullopt);
    EXPECT_EQ(outcomes[i]->text, alone[i]) << prompts[i];
  }
}

// Eight at once, some with a common beginning, some that go past the context, some that are given
// up half-way: each that ends has the text that it has alone.
TEST(Engine, EightAtOnceShareShiftAndAreCancelledWithoutOneAnother) {
  const std::string common = "Once upon a time, there was a little girl named Lily. She";
  struct Case {
    std::string prompt;
    std::int32_t num_predict;
    bool cancel = false;
  };
  std::vector<Case> cases;
  for (const std::string_view end : {" had", " was", " saw a", " and her mom", " liked", " went"}) {
    cases.push_back({common + std::string(end), 40});
  }
  cases[1].num_predict = 150;  // past the context of 96, more than once
  cases[4].num_predict = 120;
  cases[2].cancel = true;
  cases.push_back({"One day a dog", 150});
  cases.push_back({common, 60, true});
  const auto request_of = [](const Engine& engine, const Case& c) {
    Request request = greedy(engine, c.prompt, c.cancel ? 10'000 : c.num_predict);
    request.ignore_end = true;
    return request;
  };
  const LoadOptions options{.context = 96, .kv_type = ml::DType::kF32};
  std::vector<std::string> alone;
  for (const Case& c : cases) {
    if (c.cancel) {
      alone.emplace_back();
      continue;
    }
    const auto engine = load(options, kExactStories);  // nothing cached
    alone.push_back(run(*engine, request_of(*engine, c))->text);
  }
  LoadOptions together = options;
  together.parallel = 8;
  const auto engine = load(together, kExactStories);
  for (int round = 0; round < 2; ++round) {  // the second finds the first's prefixes
    std::vector<std::shared_ptr<Outcome>> outcomes;
    std::vector<RequestId> ids(cases.size());
    for (std::size_t i = 0; i < cases.size(); ++i) {
      outcomes.push_back(start(*engine, request_of(*engine, cases[i]), &ids[i]));
    }
    for (std::size_t i = 0; i < cases.size(); ++i) {
      if (!cases[i].cancel) continue;
      outcomes[i]->wait_for_pieces(10 + 40 * i % 70);
      engine->cancel(ids[i]);
    }
    for (std::size_t i = 0; i < cases.size(); ++i) {
      outcomes[i]->wait();
      EXPECT_EQ(outcomes[i]->error, std::nullopt);
      EXPECT_EQ(outcomes[i]->reason,
                cases[i].cancel ? DoneReason::kCancelled : DoneReason::kLength);
      if (!cases[i].cancel) {
        EXPECT_EQ(outcomes[i]->text, alone[i]) << cases[i].prompt;
      }
      if (round > 0) {
        EXPECT_GT(outcomes[i]->stats.cached_tokens, 0U) << cases[i].prompt;
      }
    }
  }
}

// A short prompt does not wait until a long one is read, nor does an answer that has begun.
TEST(Engine, PromptsTakeTurns) {
  const auto engine = load({.context = 512, .batch = 8, .parallel = 3});
  Request long_prompt = greedy(*engine, "x", 1);
  long_prompt.prompt.assign(480, 100);
  Request answer = greedy(*engine, "Once upon a time", 20);
  answer.ignore_end = true;
  const auto order = std::make_shared<std::vector<std::string>>();
  class Finish final : public Listener {
   public:
    Finish(std::string name, std::shared_ptr<std::vector<std::string>> to,
           std::shared_ptr<Outcome> outcome)
        : name_(std::move(name)), to_(std::move(to)), outcome_(std::move(outcome)) {}
    void text(std::string_view, std::span<const Token>) override {}
    void done(DoneReason reason, const Stats&) override {
      const std::scoped_lock lock(outcome_->mutex);
      to_->push_back(name_);
      outcome_->reason = reason;
      outcome_->changed.notify_all();
    }
    void failed(const Error&) override { done(DoneReason::kCancelled, {}); }

   private:
    std::string name_;
    std::shared_ptr<std::vector<std::string>> to_;
    std::shared_ptr<Outcome> outcome_;
  };
  std::vector<std::shared_ptr<Outcome>> outcomes;
  const auto begin = [&](std::string name, Request request) {
    outcomes.push_back(std::make_shared<Outcome>());
    ASSERT_TRUE(engine->submit(std::move(request),
                               std::make_unique<Finish>(std::move(name), order, outcomes.back())));
  };
  begin("long", std::move(long_prompt));
  begin("answer", std::move(answer));
  begin("short", greedy(*engine, "Lily and Tom", 1));
  for (const auto& outcome : outcomes) outcome->wait();
  ASSERT_EQ(order->size(), 3U);
  EXPECT_EQ(order->front(), "short");
  EXPECT_EQ(order->back(), "long");
}

TEST(Engine, StopStringsEndTheAnswerBeforeThem) {
  const auto engine = load();
  Request request = greedy(*engine, "Once upon a time");
  request.stop = {"zebra", " in the park"};
  const auto outcome = run(*engine, std::move(request));
  EXPECT_EQ(outcome->text, ", there was a little girl named Lily. She loved to play outside");
  EXPECT_EQ(outcome->reason, DoneReason::kStop);
}

TEST(Engine, NumPredictEndsWithLength) {
  const auto engine = load();
  const auto outcome = run(*engine, greedy(*engine, "Once upon a time", 3));
  EXPECT_EQ(outcome->reason, DoneReason::kLength);
  EXPECT_EQ(outcome->stats.generated_tokens, 3U);
  EXPECT_EQ(outcome->tokens.size(), 3U);
}

TEST(Engine, ContextShiftGoesOnAndNoShiftEnds) {
  const auto engine = load({.context = 64});
  Request request = greedy(*engine, "Once upon a time", 200);
  request.ignore_end = true;
  const auto shifted = run(*engine, request);
  EXPECT_EQ(shifted->stats.generated_tokens, 200U);
  EXPECT_EQ(shifted->reason, DoneReason::kLength);
  request.shift = false;
  const auto ended = run(*engine, request);
  EXPECT_EQ(ended->reason, DoneReason::kLength);
  EXPECT_EQ(ended->stats.generated_tokens + ended->stats.prompt_tokens, 65U);
  EXPECT_TRUE(shifted->text.starts_with(ended->text));
}

TEST(Engine, LongPromptsAreCutOrRefused) {
  const auto engine = load({.context = 32});
  Request request = greedy(*engine, kStory, 4);
  ASSERT_GT(request.prompt.size(), 32U);
  const auto cut = run(*engine, request);
  EXPECT_EQ(cut->stats.prompt_tokens, 32U);
  std::vector<Token> kept(request.prompt.end() - 28, request.prompt.end());
  kept.insert(kept.begin(), request.prompt.begin(), request.prompt.begin() + 4);
  EXPECT_EQ(cut->prompt, kept) << "what is told is what is evaluated";
  request.num_predict = 0;
  EXPECT_EQ(run(*engine, request)->prompt, kept) << "also where nothing is said";
  request.truncate = false;
  const auto refused = run(*engine, request);
  EXPECT_EQ(refused->error, "the input length exceeds the context length");
}

TEST(Engine, CancellingEndsARequestAndNoOther) {
  const auto engine = load({.parallel = 2});
  Request endless = greedy(*engine, "Once upon a time", 5000);
  endless.ignore_end = true;
  RequestId id = 0;
  const auto cancelled = start(*engine, std::move(endless), &id);
  cancelled->wait_for_pieces(3);
  const auto other = start(*engine, greedy(*engine, "Lily and Tom", 60));
  engine->cancel(id);
  cancelled->wait();
  EXPECT_EQ(cancelled->reason, DoneReason::kCancelled);
  other->wait();
  EXPECT_EQ(other->error, std::nullopt);
  EXPECT_FALSE(other->text.empty());
}

TEST(Engine, EndsWithRequestsInFlight) {
  std::shared_ptr<Outcome> outcome;
  {
    const auto engine = load();
    Request endless = greedy(*engine, "Once upon a time", 5000);
    endless.ignore_end = true;
    outcome = start(*engine, std::move(endless));
    outcome->wait_for_pieces(1);
  }
  EXPECT_TRUE(outcome->error.has_value());
}

TEST(Engine, BadRequestsAreRefused) {
  const auto engine = load();
  EXPECT_FALSE(engine->submit({}, nullptr));
  Request outside;
  outside.prompt = {1, 999999};
  const auto result = engine->submit(std::move(outside), nullptr);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().message(), "token 999999 is outside the vocabulary of 512");
}

TEST(Engine, QuantisedCachesNeedWholeBlocks) {
  // The head size of stories260K, 8, is below the block size: a clear error and no crash.
  const auto engine = Engine::load(kStories, {.kv_type = ml::DType::kQ8_0});
  ASSERT_FALSE(engine);
  EXPECT_TRUE(engine.error().message().contains("head size 8")) << engine.error().message();
}

// The largest difference, relative to the largest value.
double difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = 0;
  double worst = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(b[i])));
    worst = std::max(worst, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  }
  return worst / largest;
}

// Every type, by fused attention and by plain operations, on layers of every kind: all positions,
// windows, sinks.
TEST(Engine, CacheTypesGiveNearlyTheSameLogits) {
  struct Type {
    ml::DType type;
    double tolerance;  // of the largest logit
  };
  for (const std::string_view model : {"llama", "gemma3", "gpt-oss"}) {
    EvaluateOptions options;
    for (Token i = 1; i <= 40; ++i) options.tokens.push_back(i * 11 % 500);
    options.n_greedy = 1;
    options.chunk = 7;
    const auto path = kData / "arch" / std::format("{}.gguf", model);
    const auto expected = evaluate(path, options).value().last_logits;
    for (const auto& [type, tolerance] :
         {Type{ml::DType::kF16, 5e-3}, Type{ml::DType::kBF16, 5e-2}, Type{ml::DType::kQ8_0, 5e-2},
          Type{ml::DType::kQ4_0, 0.6}}) {
      for (const auto flash : {ml::FlashAttention::kOn, ml::FlashAttention::kOff}) {
        options.kv_type = type;
        options.flash_attention = flash;
        const auto logits = evaluate(path, options);
        ASSERT_TRUE(logits) << logits.error().message();
        const double off = difference(logits->last_logits, expected);
        EXPECT_LE(off, tolerance) << model << " with " << ml::dtype_name(type);
        EXPECT_GT(off, 0) << model << ": the type of the cache made no difference";
      }
    }
  }
}

// Queues the texts at once and waits for all of their embeddings.
std::vector<Result<std::vector<float>>> embed_all(Engine& engine,
                                                  const std::vector<std::vector<Token>>& texts) {
  std::mutex mutex;
  std::condition_variable changed;
  std::size_t left = texts.size();
  std::vector<Result<std::vector<float>>> results(texts.size());
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const auto take = [&, i](Result<std::vector<float>> result) {
      const std::scoped_lock lock(mutex);
      results[i] = std::move(result);
      --left;
      changed.notify_all();
    };
    if (const auto queued = engine.embed(texts[i], take, {}); !queued) {
      take(std::unexpected(queued.error()));
    }
  }
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return left == 0; });
  return results;
}

std::vector<std::vector<Token>> texts_of(std::size_t count, Token vocab) {
  std::vector<std::vector<Token>> texts;
  for (std::size_t i = 0; i < count; ++i) {
    auto& text = texts.emplace_back();
    for (std::size_t j = 0; j < 1 + i * 7 % 40; ++j) {
      text.push_back(static_cast<Token>((i * 131 + j * 17) % static_cast<std::size_t>(vocab)));
    }
  }
  return texts;
}

// With and without a cache; more texts than one step takes, and than there are sequence names.
TEST(Engine, TextsEmbeddedTogetherGiveWhatTheyGiveAlone) {
  for (const auto& path : {kData / "arch/bert.gguf", kExactStories}) {
    const auto engine = load({.context = 128, .batch = 64, .kv_type = ml::DType::kF32}, path);
    const auto texts = texts_of(100, 500);
    const auto together = embed_all(*engine, texts);
    for (std::size_t i = 0; i < texts.size(); i += 9) {
      const auto alone = embed_all(*engine, {texts[i]});
      ASSERT_TRUE(together[i] && alone[0]);
      EXPECT_LE(difference(*together[i], *alone[0]), 1e-4) << path << " text " << i;
    }
    EXPECT_GT(difference(*together[1], *together[2]), 0.1) << "all texts give the same";
  }
}

TEST(Engine, EmbedsATextLongerThanAStepBesideAnswers) {
  const auto whole =
      load({.context = 128, .batch = 128, .kv_type = ml::DType::kF32}, kExactStories);
  const auto parts =
      load({.context = 128, .batch = 16, .parallel = 2, .kv_type = ml::DType::kF32}, kExactStories);
  std::vector<Token> text;
  for (Token i = 0; i < 120; ++i) text.push_back(1 + i * 13 % 500);
  const auto expected = embed_all(*whole, {text});
  const auto alone = run(*whole, greedy(*whole, "Once upon a time", 100));

  const auto first = start(*parts, greedy(*parts, "Once upon a time", 100));
  const auto second = start(*parts, greedy(*parts, "Once upon a time", 100));
  const auto embeddings = embed_all(*parts, {text, text});
  first->wait();
  second->wait();
  ASSERT_TRUE(expected[0]);
  for (const auto& embedding : embeddings) {
    ASSERT_TRUE(embedding) << embedding.error().message();
    EXPECT_LE(difference(*embedding, *expected[0]), 1e-4);
  }
  EXPECT_EQ(first->text, alone->text);
  EXPECT_EQ(second->text, alone->text);
}

TEST(Engine, RefusesTextsAndPromptsThatDoNotFitTheModel) {
  const auto bert = load({}, kData / "arch/bert.gguf");
  EXPECT_TRUE(bert->info().is_embedding);
  EXPECT_EQ(run(*bert, greedy(*bert, "hello"))->error, "the model gives embeddings, no text");
  const std::vector<Token> too_long(bert->info().context + 1, 5);
  const auto results = embed_all(*bert, {{}, too_long, {-1}, {5}});
  EXPECT_EQ(results[0].error().message(), "the text has no tokens");
  EXPECT_EQ(results[1].error().message(), "the input length exceeds the context length");
  EXPECT_EQ(results[2].error().code(), ErrorCode::kInvalidArgument);
  EXPECT_TRUE(results[3].has_value());
}

// Of a text that nobody waits for, only its turn is left; those behind it have theirs.
TEST(Engine, CancelledTextsAreNotEvaluated) {
  const auto engine = load({.context = 128, .batch = 64}, kData / "arch/bert.gguf");
  const auto cancelled = std::make_shared<const std::atomic<bool>>(true);
  std::promise<Result<std::vector<float>>> unwanted;
  std::promise<Result<std::vector<float>>> wanted;
  ASSERT_TRUE(engine->embed(
      {1, 2, 3}, [&](auto result) { unwanted.set_value(std::move(result)); }, cancelled));
  ASSERT_TRUE(engine->embed(
      {1, 2, 3}, [&](auto result) { wanted.set_value(std::move(result)); },
      std::make_shared<const std::atomic<bool>>(false)));
  EXPECT_EQ(unwanted.get_future().get().error().code(), ErrorCode::kCancelled);
  EXPECT_TRUE(wanted.get_future().get().has_value());
}

TEST(StopMatcher, HoldsBackWhatMayBecomeAStop) {
  StopMatcher matcher({"###", "END"});
  bool stopped = false;
  EXPECT_EQ(matcher.push("a#", stopped), "a");
  EXPECT_EQ(matcher.push("b##", stopped), "#b");
  EXPECT_EQ(matcher.push("x E", stopped), "##x ");
  EXPECT_EQ(matcher.push("N", stopped), "");
  EXPECT_FALSE(stopped);
  EXPECT_EQ(matcher.push("D tail", stopped), "");
  EXPECT_TRUE(stopped);
  EXPECT_EQ(matcher.found(), "END");
  EXPECT_EQ(matcher.flush(), "");
}

TEST(StopMatcher, GivesBackWhatWasHeldAtTheEnd) {
  StopMatcher matcher({"STOP"});
  bool stopped = false;
  EXPECT_EQ(matcher.push("so ST", stopped), "so ");
  EXPECT_EQ(matcher.flush(), "ST");
}

// However the text is cut: the stop string that begins first, the first of those in the list, and
// nothing held back that cannot become one.
TEST(StopMatcher, FindsWhatALookAtTheWholeTextFinds) {
  EXPECT_TRUE(rc::check([] {
    const auto word = rc::gen::container<std::string>(rc::gen::element('a', 'b'));
    const auto stops = *rc::gen::container<std::vector<std::string>>(word);
    const auto pieces = *rc::gen::container<std::vector<std::string>>(word);
    StopMatcher matcher(stops);
    std::string text;
    std::string shown;
    for (const std::string& piece : pieces) {
      text += piece;
      std::size_t cut = std::string::npos;
      std::size_t held = 0;
      std::string first;
      for (const std::string& stop : stops) {
        if (stop.empty()) continue;
        if (const std::size_t at = text.find(stop); at < cut) {
          cut = at;
          first = stop;
        }
        for (std::size_t n = held + 1; n < stop.size(); ++n) {
          if (text.ends_with(stop.substr(0, n))) held = n;
        }
      }
      bool stopped = false;
      shown += matcher.push(piece, stopped);
      RC_ASSERT(stopped == (cut != std::string::npos));
      RC_ASSERT(shown == text.substr(0, stopped ? cut : text.size() - held));
      if (!stopped) continue;
      RC_ASSERT(matcher.found() == first);
      return;
    }
    shown += matcher.flush();
    RC_ASSERT(shown == text);
  }));
}

// Each of them costs everybody in a batch something with every token.
TEST(Engine, StopStringsAreLimited) {
  const auto engine = load();
  Request request = greedy(*engine, "Once upon a time", 2);
  request.stop.assign(257, "#");
  EXPECT_EQ(run(*engine, request)->error, "option 'stop' has 257 texts: 256 are the most");
  request.stop = {"#", std::string(4097, '#')};
  EXPECT_EQ(run(*engine, request)->error,
            "option 'stop' has a text of 4097 bytes: 4096 are the most");
  request.stop.assign(256, std::string(4096, '#'));
  EXPECT_EQ(run(*engine, request)->error, std::nullopt);
}

// Bytes of this process that are in memory.
std::uint64_t resident() {
  std::ifstream statm("/proc/self/statm");
  std::uint64_t size = 0;
  std::uint64_t pages = 0;
  statm >> size >> pages;
  return pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

// A long context for many costs on the CPU what is used of it.
TEST(Engine, ACacheIsCommittedByUse) {
  const auto path =
      std::filesystem::path(testing::TempDir()) / std::format("lazy-{}.gguf", ::getpid());
  ASSERT_TRUE(gguf::make_model({.shape = "tiny", .type = "f16", .out = path}));
  const std::uint64_t before = resident();
  const auto engine = load({.context = 2048, .parallel = 64, .gpu_layers = 0}, path);
  EXPECT_GE(engine->info().cache_bytes, 128 * kMiB);
  const std::uint64_t loaded = resident();
  EXPECT_LT(loaded - before, 48 * kMiB) << "loading commits the cache";
  Request request;
  request.prompt = {5, 6, 7, 8};
  request.num_predict = 64;
  request.ignore_end = true;
  const auto outcome = run(*engine, request);
  EXPECT_EQ(outcome->error, std::nullopt);
  EXPECT_LT(resident() - before, 64 * kMiB) << "a short chat commits all of the cache";
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace ollama::engine
