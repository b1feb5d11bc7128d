// Cross-encoders: pairs of texts and their scores.
#include <gmock/gmock.h>
#include <stdlib.h>

#include <condition_variable>
#include <mutex>

#include "engine/cross_encoder.h"

namespace ollama::engine {
namespace {

using fixture::CrossEncoder;
using fixture::Draft;
using ::testing::HasSubstr;
using tokenizer::Pair;

// Queues everything at once and waits for all answers.
template <typename T, typename Ask>
std::vector<Result<T>> ask_all(std::size_t count, const Ask& ask) {
  std::mutex mutex;
  std::condition_variable changed;
  std::size_t left = count;
  std::vector<Result<T>> results(count);
  for (std::size_t i = 0; i < count; ++i) {
    const auto take = [&, i](Result<T> result) {
      const std::scoped_lock lock(mutex);
      results[i] = std::move(result);
      --left;
      changed.notify_all();
    };
    if (const Result<> queued = ask(i, take); !queued) take(std::unexpected(queued.error()));
  }
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return left == 0; });
  return results;
}

std::vector<Result<float>> rank_all(Engine& engine, const std::vector<Pair>& pairs) {
  return ask_all<float>(pairs.size(),
                        [&](std::size_t i, auto done) { return engine.rank(pairs[i], done, {}); });
}
Result<std::vector<float>> embed(Engine& engine, const std::vector<Token>& tokens) {
  return ask_all<std::vector<float>>(
      1, [&](std::size_t, auto done) { return engine.embed(tokens, done, {}); })[0];
}

// "[CLS] ... [SEP] ... [SEP]" of these lengths.
Pair pair_of(std::size_t first, std::size_t second, std::size_t seed = 0) {
  Pair pair{.tokens = {101}, .second = first + 2};
  const auto add = [&](std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      pair.tokens.push_back(static_cast<Token>(1000 + (seed * 977 + i * 131) % 4000));
    }
    pair.tokens.push_back(102);
  };
  add(first);
  ++seed;
  add(second);
  return pair;
}

class RankTest : public testing::Test {
 protected:
  RankTest() {
    std::string name = (std::filesystem::temp_directory_path() / "rank-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
  }
  ~RankTest() override { std::filesystem::remove_all(folder_); }

  Result<std::unique_ptr<Engine>> try_load(const Draft& draft, const LoadOptions& options = {}) {
    const auto path = folder_ / std::format("{}.gguf", count_++);
    draft.write(path);
    return Engine::load(path, options);
  }
  std::unique_ptr<Engine> load(const Draft& draft, const LoadOptions& options = {}) {
    auto engine = try_load(draft, options);
    EXPECT_TRUE(engine) << engine.error().message();
    return engine ? std::move(*engine) : nullptr;
  }
  std::string error_of(const Draft& draft) {
    const auto engine = try_load(draft);
    return engine ? "(no error)" : std::string(engine.error().message());
  }

  // The engine's scores are what the classifier makes, in double precision, of the first token's
  // state that the same weights give as an embedding.
  void expect_scores(CrossEncoder& model, const LoadOptions& options = {}) {
    const auto engine = load(model.draft(), options);
    ASSERT_TRUE(engine);
    EXPECT_TRUE(engine->info().ranks);
    for (const auto& [first, second] : {std::pair{1U, 1U}, {3U, 0U}, {5U, 40U}, {9U, 100U}}) {
      const Pair pair = pair_of(first, second, first);
      const auto encoder = load(model.encoder(pair.second), options);
      const auto state = embed(*encoder, pair.tokens);
      ASSERT_TRUE(state) << state.error().message();
      const auto score = rank_all(*engine, {pair})[0];
      ASSERT_TRUE(score) << score.error().message();
      EXPECT_NEAR(double{*score}, model.score(*state), 1e-4) << pair.tokens.size() << " tokens";
    }
  }

  std::filesystem::path folder_;
  int count_ = 0;
};

TEST_F(RankTest, ScoresAreTheClassifiersOfTheFirstTokensState) {
  for (const CrossEncoder::Parts& parts :
       std::vector<CrossEncoder::Parts>{{},
                                        {.dense = false},
                                        {.output = false},
                                        {.biases = false},
                                        {.output = false, .labels = CrossEncoder::kWidth},
                                        {.labels = 3},
                                        {.flat = true}}) {
    SCOPED_TRACE(std::format("dense {} output {} biases {} labels {} flat {}", parts.dense,
                             parts.output, parts.biases, parts.labels, parts.flat));
    CrossEncoder model(parts);
    expect_scores(model);
  }
}

TEST_F(RankTest, EveryBackendGivesTheScores) {
  CrossEncoder model;
  expect_scores(model, {.backend = ml::BackendKind::kReference});
  expect_scores(model, {.kernels = ml::CpuKernels::kGgml});
  expect_scores(model, {.flash_attention = ml::FlashAttention::kOff});
}

// Fails when the two texts of a pair are taken for one, which makes trained models rank the answer
// last.
TEST_F(RankTest, SegmentsCountWhereTheModelHasThem) {
  CrossEncoder model;
  const auto two = load(model.draft());
  CrossEncoder one({.segments = 1});
  one.tensor("token_types.weight").shape = {CrossEncoder::kWidth};  // as some files have it
  const Pair pair = pair_of(4, 9);
  Pair single = pair;
  single.second = pair.tokens.size();
  const auto scores = rank_all(*two, {pair, single});
  EXPECT_GT(std::abs(*scores[0] - *scores[1]), 1e-3F);
  EXPECT_NEAR(*rank_all(*load(one.draft()), {pair})[0], *scores[1], 1e-5F);
  expect_scores(one);
}

// Fails when models such as bge-reranker-v2-m3 read other pairs than they were trained on, or get
// scores that their classifier does not give.
TEST_F(RankTest, XlmRobertaRanks) {
  const std::string query = "What is the capital of France?";
  const std::vector<std::string> documents{
      "Paris is the capital and the largest city of the country.",
      "熊猫是生活在中国中部山区的一种熊，吃竹子。", "</s> <s>", ""};
  for (const std::int64_t segments : {0, 1}) {
    CrossEncoder model({.segments = segments, .unigram = true});
    const auto engine = load(model.draft());
    const auto encoder = load(model.encoder(0));
    ASSERT_TRUE(engine && encoder);
    const tokenizer::Tokenizer& tokenizer = engine->tokenizer();
    const auto pairs = tokenizer::encode_pairs(tokenizer, query, documents, 512);
    ASSERT_TRUE(pairs) << pairs.error().message();
    const auto scores = rank_all(*engine, *pairs);
    for (std::size_t i = 0; i < documents.size(); ++i) {
      // <s> query </s></s> document </s>
      std::vector<Token> expected{0};
      for (const Token token : tokenizer.encode(query)) expected.push_back(token);
      expected.insert(expected.end(), {2, 2});
      for (const Token token : tokenizer.encode(documents[i])) expected.push_back(token);
      expected.push_back(2);
      EXPECT_EQ((*pairs)[i].tokens, expected);
      const auto state = embed(*encoder, expected);
      ASSERT_TRUE(scores[i] && state);
      EXPECT_NEAR(double{*scores[i]}, model.score(*state), 1e-4) << documents[i];
    }
    EXPECT_GT(std::abs(*scores[0] - *scores[1]), 1e-3F);

    // A document that is too long ends as one that is not.
    std::vector<std::string> endless{std::string(10'000, '7')};
    const auto cut = tokenizer::encode_pairs(tokenizer, query, endless, engine->info().context);
    ASSERT_TRUE(cut) << cut.error().message();
    EXPECT_EQ((*cut)[0].tokens.size(), engine->info().context);
    EXPECT_EQ((*cut)[0].tokens.back(), 2);
    EXPECT_TRUE(rank_all(*engine, *cut)[0]);
  }
}

// bge-m3 gives the first token's state, multilingual-e5 the mean. The row of the only segment might
// as well be a part of every position.
TEST_F(RankTest, XlmRobertaEmbeds) {
  CrossEncoder one({.segments = 1, .unigram = true});
  CrossEncoder none({.segments = 0, .unigram = true});
  Draft with = one.encoder(0);
  Draft without = none.encoder(0);
  const auto row = one.tensor("token_types.weight").floats();
  const auto positions =
      std::ranges::find(without.tensors(), "position_embd.weight", &Draft::Tensor::name)->floats();
  for (std::size_t i = 0; i < positions.size(); ++i) positions[i] += row[i % row.size()];
  std::vector<std::vector<float>> embeddings;
  for (const std::int64_t pooling : {2, 1}) {
    with.set("bert.pooling_type", pooling);
    without.set("bert.pooling_type", pooling);
    const auto engine = load(with);
    const auto same = load(without);
    ASSERT_TRUE(engine && same);
    EXPECT_TRUE(engine->info().is_embedding);
    const auto tokens =
        engine->tokenizer().encode("Où se trouve la bibliothèque ?", {.add_special = true});
    EXPECT_EQ(tokens.front(), 0);
    EXPECT_EQ(tokens.back(), 2);
    const auto embedding = embed(*engine, tokens);
    const auto other = embed(*same, tokens);
    ASSERT_TRUE(embedding && other);
    for (std::size_t i = 0; i < embedding->size(); ++i) {
      EXPECT_NEAR((*embedding)[i], (*other)[i], 1e-4F);
    }
    embeddings.push_back(*embedding);
  }
  EXPECT_NE(embeddings[0], embeddings[1]);
}

TEST_F(RankTest, APairScoresAloneAsAmongOthers) {
  CrossEncoder model;
  const auto engine = load(model.draft(), {.batch = 64, .parallel = 4});
  std::vector<Pair> pairs;
  for (std::size_t i = 0; i < 100; ++i) pairs.push_back(pair_of(i % 7, i * 13 % 90, i));
  const auto together = rank_all(*engine, pairs);
  for (std::size_t i = 0; i < pairs.size(); i += 9) {
    const auto alone = rank_all(*engine, {pairs[i]});
    ASSERT_TRUE(together[i] && alone[0]);
    EXPECT_NEAR(*together[i], *alone[0], 1e-5F) << "pair " << i;
  }
  EXPECT_GT(std::abs(*together[1] - *together[2]), 1e-3F) << "all pairs give the same";
}

// Most converted cross-encoders have a classifier and do not say what it is for.
TEST_F(RankTest, AClassifierAloneMakesACrossEncoder) {
  CrossEncoder model;
  const Pair pair = pair_of(3, 5);
  const auto score = rank_all(*load(model.draft()), {pair})[0];
  model.draft().remove("bert.pooling_type");
  const auto silent = load(model.draft());
  EXPECT_TRUE(silent->info().ranks);
  EXPECT_EQ(*rank_all(*silent, {pair})[0], *score);
  model.draft().set("bert.pooling_type", std::int64_t{1});
  const auto embeds = load(model.draft());
  EXPECT_FALSE(embeds->info().ranks);
  EXPECT_EQ(embed(*embeds, pair.tokens)->size(), 64U);
}

TEST_F(RankTest, RefusesWhatAModelCannotDo) {
  CrossEncoder model;
  const auto engine = load(model.draft());
  EXPECT_THAT(std::string(embed(*engine, {101, 102}).error().message()), HasSubstr("ranks texts"));
  Request request;
  request.prompt = {101, 102};
  EXPECT_EQ(engine->submit(request, nullptr).error().code(), ErrorCode::kUnsupported);
  const Pair too_long = pair_of(2, engine->info().context);
  const auto results =
      rank_all(*engine, {too_long, {}, {.tokens = {101, 9999}, .second = 1}, pair_of(1, 1)});
  EXPECT_EQ(results[0].error().message(), "the input length exceeds the context length");
  EXPECT_EQ(results[1].error().message(), "the text has no tokens");
  EXPECT_EQ(results[2].error().code(), ErrorCode::kInvalidArgument);
  EXPECT_TRUE(results[3]);

  const auto bert = load(model.encoder(0));
  EXPECT_THAT(std::string(rank_all(*bert, {pair_of(1, 1)})[0].error().message()),
              HasSubstr("no classifier"));
}

TEST_F(RankTest, ABrokenClassifierIsNamed) {
  CrossEncoder none({.dense = false, .output = false});
  EXPECT_THAT(error_of(none.draft()), HasSubstr("tensor cls.output.weight is missing"));
  CrossEncoder wide;
  wide.tensor("cls.weight").shape = {32, 128};
  EXPECT_THAT(error_of(wide.draft()), HasSubstr("tensor cls.weight has shape ["));
  CrossEncoder narrow;
  narrow.tensor("cls.output.weight").shape = {32, 2};
  EXPECT_THAT(error_of(narrow.draft()), HasSubstr("tensor cls.output.weight has shape ["));
  CrossEncoder bias({.labels = 2});
  bias.tensor("cls.output.bias").shape = {1, 2};
  EXPECT_THAT(error_of(bias.draft()), HasSubstr("tensor cls.output.bias has shape ["));
  CrossEncoder causal;
  causal.draft().set("bert.attention.causal", true);
  EXPECT_THAT(error_of(causal.draft()), HasSubstr("ranks texts is not supported"));
  Draft llama(fixture::model("llama"));
  llama.set("llama.pooling_type", std::int64_t{4});
  EXPECT_THAT(error_of(llama), HasSubstr("'llama' that ranks texts is not supported"));
}

}  // namespace
}  // namespace ollama::engine
