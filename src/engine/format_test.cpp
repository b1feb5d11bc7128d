// Answers of the bundled model, a teller of stories that knows nothing of JSON, under grammars.
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>

#include "engine/engine.h"
#include "grammar/validator.h"

namespace ollama::engine {
namespace {

struct Said {
  std::string text;
  std::optional<DoneReason> reason;
  std::string error;
};

class Collector final : public Listener {
 public:
  struct Shared {
    std::mutex mutex;
    std::condition_variable ended;
    Said said;
    bool over = false;
  };
  explicit Collector(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}
  void text(std::string_view piece, std::span<const Token> /*tokens*/) override {
    const std::scoped_lock lock(shared_->mutex);
    shared_->said.text += piece;
  }
  void done(DoneReason reason, const Stats& /*stats*/) override {
    end([&](Said& said) { said.reason = reason; });
  }
  void failed(const Error& error) override {
    end([&](Said& said) { said.error = error.message(); });
  }

 private:
  template <typename Set>
  void end(Set set) {
    const std::scoped_lock lock(shared_->mutex);
    set(shared_->said);
    shared_->over = true;
    shared_->ended.notify_all();
  }
  std::shared_ptr<Shared> shared_;
};

class Format : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    const std::filesystem::path data = OLLAMA_TEST_DATA;
    auto loaded = Engine::load(data / "models/stories260K-f16.gguf", {.parallel = 4});
    ASSERT_TRUE(loaded) << loaded.error().message();
    engine = std::move(*loaded);
  }
  static void TearDownTestSuite() { engine.reset(); }

  static std::shared_ptr<Collector::Shared> start(
      grammar::GrammarPtr grammar, const sample::Options& sampling, std::int32_t num_predict = 300,
      std::optional<grammar::Preamble::Options> preamble = {}) {
    Request request;
    request.prompt = engine->tokenizer().encode("Once upon a time", {.add_special = true});
    request.sampling = sampling;
    request.num_predict = num_predict;
    request.grammar = std::move(grammar);
    request.preamble = std::move(preamble);
    auto shared = std::make_shared<Collector::Shared>();
    EXPECT_TRUE(engine->submit(std::move(request), std::make_unique<Collector>(shared)));
    return shared;
  }
  static Said wait(const std::shared_ptr<Collector::Shared>& shared) {
    std::unique_lock lock(shared->mutex);
    shared->ended.wait(lock, [&] { return shared->over; });
    return shared->said;
  }

  static inline std::unique_ptr<Engine> engine;
};

TEST_F(Format, AnswersThatEndValidate) {
  const std::string_view schemas[] = {
      R"({"type":"object","properties":{"name":{"type":"string","maxLength":20},
          "age":{"type":"integer","minimum":0,"maximum":150}},"required":["name","age"]})",
      R"({"type":"array","items":{"enum":["red","green","blue"]},"minItems":2,"maxItems":4})",
      R"({"anyOf":[{"type":"boolean"},{"type":"string","format":"date"}]})",
      R"({"$defs":{"n":{"type":"object","properties":{"v":{"type":"number","minimum":-1,"maximum":1},
          "next":{"anyOf":[{"$ref":"#/$defs/n"},{"type":"null"}]}},"required":["v","next"]}},"$ref":"#/$defs/n"})",
      R"({"type":"string","pattern":"^[A-Z][a-z]+ [A-Z][a-z]+$"})",
  };
  int ended = 0;
  for (const std::string_view text : schemas) {
    const api::Json schema = *api::parse_json(text);
    const auto grammar = grammar::compile_schema(schema);
    ASSERT_TRUE(grammar) << grammar.error().message();
    // Four at once, which share what is found out of the grammar.
    std::vector<std::shared_ptr<Collector::Shared>> answers;
    for (int i = 0; i < 4; ++i) {
      sample::Options sampling{.seed = i};
      if (i == 0) sampling.temperature = 0;
      if (i == 1) sampling = {.temperature = 3.0F, .top_k = 0, .top_p = 1.0F, .seed = 9};
      answers.push_back(start(*grammar, sampling));
    }
    for (const auto& answer : answers) {
      const Said said = wait(answer);
      EXPECT_EQ(said.error, "");
      if (said.reason != DoneReason::kStop) continue;
      ++ended;
      const auto value = api::parse_json(said.text);
      ASSERT_TRUE(value) << text << "\n" << said.text;
      EXPECT_TRUE(grammar::Validator(schema).valid(*value)) << text << "\n" << said.text;
    }
  }
  EXPECT_GE(ended, 10) << "of 20";
}

// The model seldom finds the end of an object of its own: what it says is the beginning of one.
TEST_F(Format, JsonIsAnObjectOrTheBeginningOfOne) {
  const auto grammar = grammar::compile_json();
  for (int i = 0; i < 6; ++i) {
    const Said said =
        wait(start(*grammar, {.temperature = 2.0F, .top_k = 0, .top_p = 1.0F, .seed = i}));
    EXPECT_EQ(said.error, "");
    EXPECT_TRUE(said.text.starts_with('{')) << said.text;
    if (said.reason != DoneReason::kStop) continue;
    const auto value = api::parse_json(said.text);
    EXPECT_TRUE(value && value->is_object()) << said.text;
  }
}

TEST_F(Format, AGrammarDecidesEveryWordAndTheEnd) {
  const auto grammar = grammar::compile_gbnf("root ::= \"The cat \" (\"sat\" | \"ran\") \".\"");
  const Said said = wait(start(*grammar, {.temperature = 0}));
  EXPECT_TRUE(said.text == "The cat sat." || said.text == "The cat ran.") << said.text;
  EXPECT_EQ(said.reason, DoneReason::kStop);
}

TEST_F(Format, AGrammarBindsBehindThePreamble) {
  const auto grammar = grammar::compile_gbnf("root ::= \"yes\" | \"no\"");
  for (const sample::Options& sampling :
       {sample::Options{.temperature = 0}, sample::Options{.seed = 3, .logprobs = 2}}) {
    const Said free = wait(start(nullptr, {.temperature = 0}));
    const Said said = wait(
        start(*grammar, sampling, 2000,
              grammar::Preamble::Options{
                  .open = "<think>", .close = {"Lily", "."}, .ending = " Lily.", .begun = true}));
    EXPECT_EQ(said.error, "");
    EXPECT_EQ(said.reason, DoneReason::kStop);
    const std::size_t end = said.text.find('.', said.text.find("Lily")) + 1;
    EXPECT_TRUE(said.text.substr(end) == "yes" || said.text.substr(end) == "no") << said.text;
    if (sampling.temperature == 0) {
      EXPECT_TRUE(free.text.starts_with(said.text.substr(0, end))) << said.text;
    }
  }
}

TEST_F(Format, AnAnswerWithoutThePreambleIsBoundFromTheBeginning) {
  const auto grammar = grammar::compile_gbnf("root ::= \"yes\" | \"no\"");
  const Said said = wait(
      start(*grammar, {.temperature = 0}, 300,
            grammar::Preamble::Options{
                .open = "<think>", .close = {"</think>"}, .ending = "</think>", .begun = false}));
  EXPECT_TRUE(said.text == "yes" || said.text == "no") << said.text;
}

// The model ends its story and knows of no mark.
TEST_F(Format, APreambleThatDoesNotEndIsEnded) {
  const auto grammar = grammar::compile_gbnf("root ::= \"yes\" | \"no\"");
  const Said said = wait(
      start(*grammar, {.temperature = 0}, 2000,
            grammar::Preamble::Options{
                .open = "<think>", .close = {"</think>"}, .ending = "\n</think>", .begun = true}));
  EXPECT_EQ(said.reason, DoneReason::kStop);
  EXPECT_TRUE(said.text.starts_with(", there was a little girl named Lily.")) << said.text;
  EXPECT_TRUE(said.text.ends_with("yes") || said.text.ends_with("no")) << said.text;
  EXPECT_TRUE(said.text.contains("\n</think>")) << said.text;
}

}  // namespace
}  // namespace ollama::engine
