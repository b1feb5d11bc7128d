// What keeping a model to a grammar costs for each token, with 128,000 tokens: those of four real
// vocabularies. An answer is a walk along random allowed tokens. `cold`: every answer is the first
// with its grammar; `warm`: all but the first find what was found out before. Beside them the old
// way, which asks the grammar for every token of the vocabulary.
#include <benchmark/benchmark.h>

#include <time.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <unordered_set>

#include "grammar/constraint.h"

namespace ollama::grammar {
namespace {

constexpr std::size_t kVocabulary = 128'000;
constexpr int kTokensOfAnAnswer = 200;

std::shared_ptr<const Vocabulary> real_vocabulary() {
  static const auto made = [] {
    std::vector<std::unique_ptr<tokenizer::Tokenizer>> tokenizers;
    std::unordered_set<std::string_view> seen;
    std::vector<std::string_view> pieces{"</s>"};
    for (const char* name : {"deepseek-llm", "falcon", "gpt-2", "starcoder"}) {
      const auto file =
          gguf::File::open(std::format("{}/tokenizers/{}.gguf", OLLAMA_TEST_DATA, name));
      if (!file) std::abort();
      auto loaded = tokenizer::load(*file);
      if (!loaded) std::abort();
      tokenizers.push_back(std::move(*loaded));
      for (std::size_t i = 0; i < tokenizers.back()->vocab_size(); ++i) {
        const std::string_view piece = tokenizers.back()->piece(static_cast<Token>(i));
        if (pieces.size() < kVocabulary && seen.insert(piece).second) pieces.push_back(piece);
      }
    }
    if (pieces.size() != kVocabulary) std::abort();
    return std::make_shared<const Vocabulary>(pieces, std::vector<Token>{0});
  }();
  return made;
}

std::string long_enum() {
  std::mt19937 random(1);
  std::string schema = R"({"type":"array","items":{"enum":[)";
  for (int i = 0; i < 2000; ++i) {
    std::string value;
    for (int c = 0; c < 40; ++c) value += static_cast<char>('a' + random() % 26);
    schema += std::format("{}\"{}\"", i == 0 ? "" : ",", value);
  }
  return schema + "]}}";
}

std::string many_properties() {
  std::string schema = R"({"type":"object","properties":{)";
  for (int i = 0; i < 500; ++i) {
    schema += std::format(R"({}"property_{}":{{"type":"string","maxLength":200}})",
                          i == 0 ? "" : ",", i * 7919 % 1000);
  }
  return schema + "}}";
}

constexpr std::string_view kMedium = R"({
  "type": "object",
  "properties": {
    "name": {"type": "string", "maxLength": 80},
    "age": {"type": "integer", "minimum": 0, "maximum": 150},
    "email": {"type": "string", "format": "email"},
    "born": {"type": "string", "format": "date"},
    "score": {"type": "number", "minimum": 0, "maximum": 1},
    "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 10},
    "role": {"enum": ["admin", "editor", "author", "reader"]},
    "address": {"type": "object", "properties": {"street": {"type": "string"},
      "city": {"type": "string"}, "zip": {"type": "string", "pattern": "^[0-9]{5}$"}},
      "required": ["street", "city"]},
    "friends": {"type": "array", "items": {"$ref": "#"}}
  },
  "required": ["name", "age", "tags", "role", "address"]
})";

enum Kind : int { kJson, kMediumSchema, kStrings, kEnum, kProperties, kPattern, kKinds };

Result<GrammarPtr> compile(int kind) {
  switch (kind) {
    case kJson:
      return compile_json();
    case kMediumSchema:
      return compile_schema(*api::parse_json(kMedium));
    case kStrings:
      return compile_schema(*api::parse_json(
          R"({"type":"array","items":{"type":"string","minLength":20,"maxLength":400}})"));
    case kEnum:
      return compile_schema(*api::parse_json(long_enum()));
    case kProperties:
      return compile_schema(*api::parse_json(many_properties()));
    default:
      return compile_gbnf(R"(root ::= ([a-z]{1,30} [ ,])+)");
  }
}
constexpr const char* kNames[kKinds] = {"json",      "schema",         "bounded strings",
                                        "long enum", "500 properties", "gbnf words"};

// Durations of one thing, for median and tail.
class Times {
 public:
  template <typename Work>
  auto measure(Work work) {
    const double begin = now();
    auto result = work();
    times_.push_back(now() - begin);
    return result;
  }
  void report(benchmark::State& state, const std::string& name) {
    if (times_.empty()) return;
    std::ranges::sort(times_);
    const double sum = std::accumulate(times_.begin(), times_.end(), 0.0);
    state.counters[name + "_mean_us"] = sum / static_cast<double>(times_.size());
    state.counters[name + "_median_us"] = times_[times_.size() / 2];
    state.counters[name + "_p99_us"] = times_[times_.size() * 99 / 100];
    state.counters[name + "_max_us"] = times_.back();
  }

 private:
  // This thread's own time, in microseconds: others may share its core.
  static double now() {
    timespec time{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_nsec) * 1e-3;
  }

  std::vector<double> times_;
};

// A random allowed token; the end only where there is nothing else, so that answers are long.
Token choose(std::span<const std::uint64_t> mask, std::mt19937& random) {
  for (int tries = 0; tries < 100'000; ++tries) {
    const auto token = static_cast<Token>(1 + random() % (kVocabulary - 1));
    if (has_bit(mask, token)) return token;
  }
  for (Token token = 1; token < static_cast<Token>(kVocabulary); ++token) {
    if (has_bit(mask, token)) return token;
  }
  return 0;
}

void answers(benchmark::State& state, bool warm) {
  const auto vocabulary = real_vocabulary();
  const auto grammar = *compile(static_cast<int>(state.range(0)));
  state.SetLabel(kNames[state.range(0)]);
  auto automaton = std::make_shared<Automaton>(grammar, vocabulary);
  Times mask_times;
  Times accept_times;
  std::uint32_t seed = 0;
  for (int round = 0; round < (warm ? 20 : 0); ++round) {
    std::mt19937 random(static_cast<std::uint32_t>(round));
    Constraint constraint(automaton);
    for (int i = 0; i < kTokensOfAnAnswer; ++i) {
      const Token token = choose(constraint.mask(), random);
      if (token == 0 || !constraint.accept(token)) break;
    }
  }
  for (auto _ : state) {
    if (!warm) automaton = std::make_shared<Automaton>(grammar, vocabulary);
    // The same answers again where they are to be warm.
    std::mt19937 random(seed++ % 20);
    Constraint constraint(automaton);
    for (int i = 0; i < kTokensOfAnAnswer; ++i) {
      const auto mask = mask_times.measure([&] { return constraint.mask(); });
      const Token token = choose(mask, random);
      if (token == 0 || !accept_times.measure([&] { return constraint.accept(token); })) break;
    }
  }
  mask_times.report(state, "mask");
  accept_times.report(state, "accept");
}
void cold(benchmark::State& state) { answers(state, false); }
void warm(benchmark::State& state) { answers(state, true); }

void every_token_asked(benchmark::State& state) {
  const auto vocabulary = real_vocabulary();
  auto automaton = std::make_shared<Automaton>(*compile(kMediumSchema), vocabulary);
  Constraint constraint(automaton);
  for (const char c : std::string_view("{\"name\":\"")) {
    for (Token token = 0; token < static_cast<Token>(kVocabulary); ++token) {
      if (vocabulary->piece(token) == std::string_view(&c, 1)) constraint.accept(token);
    }
  }
  for (auto _ : state) {
    int allowed = 0;
    for (Token token = 0; token < static_cast<Token>(kVocabulary); ++token) {
      allowed += constraint.allows(token) ? 1 : 0;
    }
    benchmark::DoNotOptimize(allowed);
  }
}

void compile_time(benchmark::State& state) {
  state.SetLabel(kNames[state.range(0)]);
  std::size_t nodes = 0;
  for (auto _ : state) {
    const auto grammar = compile(static_cast<int>(state.range(0)));
    nodes = (*grammar)->nodes.size();
  }
  state.counters["nodes"] = static_cast<double>(nodes);
}

void vocabulary_time(benchmark::State& state) {
  const auto vocabulary = real_vocabulary();
  std::vector<std::string_view> pieces;
  for (std::size_t i = 0; i < kVocabulary; ++i) {
    pieces.push_back(vocabulary->piece(static_cast<Token>(i)));
  }
  for (auto _ : state) {
    const Vocabulary made(pieces, {0});
    benchmark::DoNotOptimize(made.size());
  }
}

BENCHMARK(cold)->DenseRange(0, kKinds - 1)->Iterations(20)->Unit(benchmark::kMillisecond);
BENCHMARK(warm)->DenseRange(0, kKinds - 1)->Iterations(20)->Unit(benchmark::kMillisecond);
BENCHMARK(every_token_asked)->Unit(benchmark::kMicrosecond);
BENCHMARK(compile_time)->DenseRange(0, kKinds - 1)->Unit(benchmark::kMicrosecond);
BENCHMARK(vocabulary_time)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace ollama::grammar

BENCHMARK_MAIN();
