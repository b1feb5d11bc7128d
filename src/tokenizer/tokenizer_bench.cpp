// Encoding speed on text like English: sentences of words whose frequencies fall as in natural
// text. The old way is merging by looking the pairs' texts up in a map and rescanning a list.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "tokenizer/pretokenizer.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"
#include "tokenizer/vocabulary.h"

namespace {

using namespace ollama;
using namespace ollama::tokenizer;

gguf::File open(const char* name) {
  return gguf::File::open(std::filesystem::path(OLLAMA_TEST_DATA) / "tokenizers" / name).value();
}

constexpr std::string_view kCommon =
    "the of and to in a is that it was for on are as with his they at be this from have or by one "
    "had not but what all were when we there can an your which their said if do will each about "
    "how "
    "up out them then she many some so these would other into has more her two like him see time "
    "could no make than first been its who now people my made over did down only way find use may "
    "water long little very after words called just where most know get through back much before "
    "go good new write our used me man too any day same right look think also around another came "
    "come work three word must because does part even place well such here take why things help "
    "put "
    "years different away again off went old number great tell men say small every found still "
    "between name should home big give air line set own under read last never us left end along "
    "while might next sound below saw something thought both few those always looked show large "
    "often together asked house world going want school important until form food keep children "
    "feet land side without boy once animals life enough took sometimes four head above kind began "
    "almost live page got earth need far hand high year mother light parts country father let "
    "night "
    "following picture being study second eyes soon times story boys since white days ever paper "
    "hard near sentence better best across during today others however sure means knew tried told "
    "young miles sun ways thing whole hear example heard several change answer room sea against "
    "top "
    "turned learn point city play toward five using himself usually";

// Rarer words are made of syllables, so that there are many that no vocabulary has whole.
std::string make_word(std::mt19937& random) {
  static constexpr std::string_view kStarts[] = {"b",  "c",  "d",   "f",  "g",  "h",   "l",  "m",
                                                 "n",  "p",  "r",   "s",  "t",  "v",   "w",  "st",
                                                 "tr", "pr", "con", "re", "in", "com", "de", "un"};
  static constexpr std::string_view kMiddles[] = {"a",  "e",  "i",  "o",  "u",  "ea",
                                                  "ou", "er", "an", "en", "or", "al"};
  static constexpr std::string_view kEnds[] = {"",     "ing", "ed", "tion", "ly",  "ment", "s",
                                               "ness", "ity", "er", "al",   "ous", "able", "t"};
  const auto pick = [&](const auto& from) { return from[random() % std::size(from)]; };
  std::string word;
  for (auto syllables = 1 + random() % 3; syllables > 0; --syllables) {
    word += pick(kStarts);
    word += pick(kMiddles);
  }
  return word += pick(kEnds);
}

// About `size` bytes of sentences, paragraphs, numbers and quotes, the same every time. After the
// commonest words come those that gpt-2 has whole, then made-up ones.
std::string english(std::size_t size) {
  std::mt19937 random(7);
  std::vector<std::string> words;
  for (std::size_t at = 0; at < kCommon.size();) {
    const std::size_t end = std::min(kCommon.find(' ', at), kCommon.size());
    words.emplace_back(kCommon.substr(at, end - at));
    at = end + 1;
  }
  const gguf::File file = open("gpt-2.gguf");
  std::vector<std::string> known;
  for (const std::string_view token : file.strings("tokenizer.ggml.tokens")) {
    constexpr std::string_view kBlank = "Ġ";
    if (!token.starts_with(kBlank) || token.size() < kBlank.size() + 3) continue;
    const std::string_view word = token.substr(kBlank.size());
    if (std::ranges::all_of(word, [](char c) { return c >= 'a' && c <= 'z'; })) {
      known.emplace_back(word);
    }
  }
  std::ranges::shuffle(known, random);
  words.insert(words.end(), known.begin(), known.end());
  while (words.size() < known.size() + 20'000) words.push_back(make_word(random));
  std::vector<double> weights;
  for (std::size_t i = 0; i < words.size(); ++i) {
    weights.push_back(1.0 / static_cast<double>(i + 3));
  }
  std::discrete_distribution<std::size_t> zipf(weights.begin(), weights.end());
  std::string text;
  while (text.size() < size) {
    const auto length = 4 + random() % 18;
    for (std::size_t i = 0; i < length; ++i) {
      std::string word = words[zipf(random)];
      if (i == 0 || random() % 40 == 0) word[0] = static_cast<char>(std::toupper(word[0]));
      if (random() % 60 == 0) word = std::to_string(random() % 3000);
      if (random() % 50 == 0) word = "\"" + word + "\"";
      if (random() % 50 == 0) word += random() % 2 == 0 ? "'s" : "n't";
      if (i > 0) text += ' ';
      text += word;
      if (i + 1 < length && random() % 9 == 0) text += ',';
    }
    text += random() % 12 == 0 ? "?" : ".";
    text += random() % 6 == 0 ? "\n\n" : " ";
  }
  return text;
}

const std::string& text() {
  static const std::string made = english(4'000'000);
  return made;
}

void encode(benchmark::State& state, const char* name, const char* pre) {
  const auto tokenizer = load(open(name), {.pre = pre}).value();
  std::size_t tokens = 0;
  for (auto _ : state) {
    const auto result = tokenizer->encode(text());
    tokens = result.size();
    benchmark::DoNotOptimize(result.data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(text().size()));
  state.counters["bytes/token"] = static_cast<double>(text().size()) / static_cast<double>(tokens);
}
BENCHMARK_CAPTURE(encode, gpt2, "gpt-2.gguf", "");
BENCHMARK_CAPTURE(encode, gpt2_llama_bpe, "gpt-2.gguf", "llama-bpe");
BENCHMARK_CAPTURE(encode, gpt2_gpt4o, "gpt-2.gguf", "gpt-4o");
BENCHMARK_CAPTURE(encode, gpt2_default, "gpt-2.gguf", "default");
BENCHMARK_CAPTURE(encode, falcon, "falcon.gguf", "");
BENCHMARK_CAPTURE(encode, deepseek_llm, "deepseek-llm.gguf", "");
BENCHMARK_CAPTURE(encode, starcoder, "starcoder.gguf", "");
BENCHMARK_CAPTURE(encode, sentencepiece, "llama-spm.gguf", "");
BENCHMARK_CAPTURE(encode, wordpiece, "bert-bge.gguf", "");
BENCHMARK_CAPTURE(encode, unigram, "unigram.gguf", "");

// A chat turn: what a call costs besides its bytes.
void encode_short(benchmark::State& state, const char* name) {
  const auto tokenizer = load(open(name)).value();
  const std::string turn = text().substr(0, 200);
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        tokenizer->encode(turn, {.add_special = true, .parse_special = true}).data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(turn.size()));
}
BENCHMARK_CAPTURE(encode_short, gpt2, "gpt-2.gguf");
BENCHMARK_CAPTURE(encode_short, sentencepiece, "llama-spm.gguf");
BENCHMARK_CAPTURE(encode_short, wordpiece, "bert-bge.gguf");
BENCHMARK_CAPTURE(encode_short, unigram, "unigram.gguf");

// One word of a megabyte.
void encode_one_word(benchmark::State& state, const char* name) {
  const auto tokenizer = load(open(name)).value();
  const std::string word(1'000'000, 'a');
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer->encode(word).data());
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(word.size()));
}
BENCHMARK_CAPTURE(encode_one_word, gpt2, "gpt-2.gguf")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode_one_word, sentencepiece, "llama-spm.gguf")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode_one_word, unigram, "unigram.gguf")->Unit(benchmark::kMillisecond);

void split_only(benchmark::State& state) {
  const auto pretokenizer = Pretokenizer::create(find_pretokenizer("gpt-2")->steps).value();
  std::vector<std::size_t> ends;
  for (auto _ : state) {
    pretokenizer.split(text(), ends);
    benchmark::DoNotOptimize(ends.data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(text().size()));
}
BENCHMARK(split_only);

// The textbook way: strings, and a map of pairs of strings.
void encode_naively(benchmark::State& state) {
  const gguf::File file = open("gpt-2.gguf");
  std::unordered_map<std::string, int> ranks;
  for (const std::string& line : file.strings("tokenizer.ggml.merges")) {
    const std::size_t blank = line.find(' ', 1);
    const auto left = decode_byte_characters(line.substr(0, blank));
    const auto right = decode_byte_characters(line.substr(blank + 1));
    ranks.emplace(*left + '\0' + *right, static_cast<int>(ranks.size()));
  }
  std::unordered_map<std::string, Token> ids;
  for (const std::string& token : file.strings("tokenizer.ggml.tokens")) {
    if (const auto bytes = decode_byte_characters(token)) {
      ids.emplace(*bytes, static_cast<Token>(ids.size()));
    }
  }
  const auto pretokenizer = Pretokenizer::create(find_pretokenizer("gpt-2")->steps).value();
  for (auto _ : state) {
    std::vector<std::size_t> ends;
    pretokenizer.split(text(), ends);
    std::vector<Token> tokens;
    std::size_t begin = 0;
    for (const std::size_t end : ends) {
      std::vector<std::string> parts;
      for (; begin < end; ++begin) parts.emplace_back(1, text()[begin]);
      for (;;) {
        int best = std::numeric_limits<int>::max();
        std::size_t where = 0;
        for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
          const auto found = ranks.find(parts[i] + '\0' + parts[i + 1]);
          if (found != ranks.end() && found->second < best) {
            best = found->second;
            where = i;
          }
        }
        if (best == std::numeric_limits<int>::max()) break;
        parts[where] += parts[where + 1];
        parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(where) + 1);
      }
      for (const std::string& part : parts) tokens.push_back(ids.at(part));
    }
    benchmark::DoNotOptimize(tokens.data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(text().size()));
}
BENCHMARK(encode_naively)->Unit(benchmark::kMillisecond);

void load_vocabulary(benchmark::State& state, const char* name) {
  const gguf::File file = open(name);
  for (auto _ : state) benchmark::DoNotOptimize(load(file).value().get());
}
BENCHMARK_CAPTURE(load_vocabulary, gpt2, "gpt-2.gguf")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(load_vocabulary, deepseek_llm, "deepseek-llm.gguf")
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(load_vocabulary, sentencepiece, "llama-spm.gguf")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(load_vocabulary, wordpiece, "bert-bge.gguf")->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
