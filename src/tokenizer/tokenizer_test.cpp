// The kinds of tokenizer against llama.cpp's results, special tokens, and hostile
// vocabularies.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <optional>
#include <sstream>

#include "tokenizer/charsmap.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer/test_vocabulary.h"
#include "tokenizer/tokenizer.h"

namespace ollama::tokenizer {
namespace {

using test::Builder;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const std::filesystem::path kData = std::filesystem::path(OLLAMA_TEST_DATA) / "tokenizers";

std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

std::unique_ptr<Tokenizer> load_fixture(const std::string& name, const LoadOptions& options = {}) {
  const auto file = gguf::File::open(kData / name);
  if (!file) {
    ADD_FAILURE() << file.error().message();
    return nullptr;
  }
  auto tokenizer = load(*file, options);
  if (!tokenizer) {
    ADD_FAILURE() << tokenizer.error().message();
    return nullptr;
  }
  return std::move(*tokenizer);
}

std::vector<std::string> fixture_texts(const std::string& path) {
  constexpr std::string_view kEnd = "\n__ggml_vocab_test__\n";
  const std::string all = read_file(kData / path);
  std::vector<std::string> texts;
  for (std::size_t at = 0; at < all.size();) {
    const std::size_t end = std::min(all.find(kEnd, at), all.size());
    texts.push_back(all.substr(at, end - at));
    at = end + kEnd.size();
  }
  return texts;
}

std::vector<std::vector<Token>> fixture_tokens(const std::string& path) {
  std::istringstream in(read_file(kData / path));
  std::vector<std::vector<Token>> all;
  for (std::string line; std::getline(in, line);) {
    std::istringstream numbers(line);
    all.emplace_back(std::istream_iterator<Token>(numbers), std::istream_iterator<Token>());
  }
  return all;
}

class Fixture : public testing::TestWithParam<const char*> {};

// A difference here means that prompts reach models as other tokens than they were trained on.
TEST_P(Fixture, EncodesAsLlamaCppDoes) {
  const std::string name = GetParam();
  const auto tokenizer = load_fixture(name + ".gguf");
  ASSERT_TRUE(tokenizer);
  const auto texts = fixture_texts(name + ".inp");
  const auto expected = fixture_tokens(name + ".out");
  ASSERT_GT(texts.size(), 40U);
  ASSERT_EQ(texts.size(), expected.size());
  for (std::size_t i = 0; i < texts.size(); ++i) {
    EXPECT_EQ(tokenizer->encode(texts[i]), expected[i]) << "text " << i << ": " << texts[i];
  }
}

// Text that comes back changed would be shown changed to people.
TEST_P(Fixture, DecodesToTheText) {
  const std::string name = GetParam();
  if (name == "bert-bge" || name == "unigram") GTEST_SKIP() << "it normalises";
  const auto tokenizer = load_fixture(name + ".gguf");
  ASSERT_TRUE(tokenizer);
  for (const std::string& text : fixture_texts(name + ".inp")) {
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  }
}

INSTANTIATE_TEST_SUITE_P(All, Fixture,
                         testing::Values("bert-bge", "deepseek-llm", "falcon", "gpt-2", "llama-spm",
                                         "starcoder", "unigram"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

TEST(Pretokenizer, ElevenCutAsLlamaCppDoes) {
  const auto data = boost::json::parse(read_file(kData / "pre-tokenizers.json"));
  const auto& texts = data.at("texts").as_array();
  std::size_t names = 0;
  for (const auto& [name, expected] : data.at("tokens").as_object()) {
    ++names;
    const auto tokenizer = load_fixture("gpt-2.gguf", {.pre = name});
    ASSERT_TRUE(tokenizer);
    ASSERT_EQ(texts.size(), expected.as_array().size());
    for (std::size_t i = 0; i < texts.size(); ++i) {
      const std::string_view text = texts[i].as_string();
      const auto tokens = boost::json::value_to<std::vector<Token>>(expected.at(i));
      EXPECT_EQ(tokenizer->encode(text), tokens) << name << ", text " << i << ": " << text;
    }
  }
  EXPECT_EQ(names, 11U);
}

std::vector<std::string> cut(std::string_view pre, std::string_view text) {
  const PretokenizerSpec* spec = find_pretokenizer(pre);
  if (spec == nullptr) return {"unknown"};
  const auto pretokenizer = Pretokenizer::create(spec->steps);
  if (!pretokenizer) return {std::string(pretokenizer.error().message())};
  std::vector<std::size_t> ends;
  pretokenizer->split(text, ends);
  std::vector<std::string> pieces;
  std::size_t begin = 0;
  for (const std::size_t end : ends) {
    pieces.emplace_back(text.substr(begin, end - begin));
    begin = end;
  }
  return pieces;
}

// A pattern that does not compile would make every model with it unusable.
TEST(Pretokenizer, EveryNameCutsWithoutLoss) {
  const std::string text =
      "Hello, world! I'm here; WE'LL see 1234567 things: ~x ½ über  \n\n\tdéjà 中文字符 한국어 "
      "ไทย हिन्दी 🦙 <sentinel:12>IMGIMGABZ  end \r\n";
  const auto names = pretokenizer_names();
  EXPECT_GT(names.size(), 80U);
  for (const std::string_view name : names) {
    std::string joined;
    const auto pieces = cut(name, text);
    EXPECT_GT(pieces.size(), 1U) << name;
    for (const std::string& piece : pieces) {
      EXPECT_FALSE(piece.empty()) << name;
      joined += piece;
    }
    EXPECT_EQ(joined, text) << name;
  }
}

TEST(Pretokenizer, DigitsAreGroupedAsModelsLearnedThem) {
  EXPECT_THAT(cut("llama-bpe", "1234567"), ElementsAre("123", "456", "7"));
  EXPECT_THAT(cut("qwen2", "123"), ElementsAre("1", "2", "3"));
  EXPECT_THAT(cut("superbpe", "1234567"), ElementsAre("1", "234", "567"));
  EXPECT_THAT(cut("afmoe", "1234567"), ElementsAre("1", "234", "567"));
  EXPECT_THAT(cut("tiny_aya", "12345"), ElementsAre("12", "345"));
  EXPECT_THAT(cut("default", "12345"), ElementsAre("123", "45"));
}

TEST(Pretokenizer, WordsAreCutByFamily) {
  EXPECT_THAT(cut("gpt-4o", "CamelCase don't"), ElementsAre("Camel", "Case", " don't"));
  EXPECT_THAT(cut("tekken", "CamelCase"), ElementsAre("Camel", "Case"));
  EXPECT_THAT(cut("qwen35", "हिन्दी"), ElementsAre("हिन्दी"));
  EXPECT_THAT(cut("kimi-k2", "中文abc"), ElementsAre("中文", "abc"));
  EXPECT_THAT(cut("exaone-moe", "a b c  d"), ElementsAre("a b c", " ", " d"));
  EXPECT_THAT(cut("ufakzeka", "Ankara'da"), ElementsAre("Ankara", "'da"));
  EXPECT_THAT(cut("deepseek-v3", " ~ x"), ElementsAre(" ~", " x"));
  EXPECT_THAT(cut("bloom", "Bonjour, monde"), ElementsAre("Bonjour", ",", " monde"));
  EXPECT_THAT(cut("jais-2", "a     b"), ElementsAre("a", "    ", " b"));
  EXPECT_THAT(cut("chameleon", "IMGIMGABZx"), ElementsAre("IMGIMGABZ", "x"));
  EXPECT_THAT(cut("seed-coder", "a;\n"), ElementsAre("a", ";", "\n"));
}

// U+180E is a blank to PCRE2 but not to llama.cpp.
TEST(Bpe, MongolianVowelSeparatorIsNoBlank) {
  const auto tokenizer = load_fixture("gpt-2.gguf");
  ASSERT_TRUE(tokenizer);
  const std::string text = "a \u180E";
  EXPECT_EQ(tokenizer->encode(text).size(), tokenizer->encode("a \uE000").size());
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
}

TEST(Bpe, InvalidBytesBecomeReplacementCharacters) {
  const auto tokenizer = load_fixture("gpt-2.gguf");
  ASSERT_TRUE(tokenizer);
  const auto again = [&](std::string_view text) {
    return tokenizer->decode(tokenizer->encode(text));
  };
  EXPECT_EQ(again("a\xFF z"), "a\uFFFD z");
  EXPECT_EQ(again("\xE2\x96"), "\uFFFD\uFFFD");
  EXPECT_EQ(again("\xC0\xAD"), "-");                 // overlong
  EXPECT_EQ(again("\xED\xA0\x80"), "\xED\xA0\x80");  // a surrogate
  EXPECT_EQ(again("\xF7\xBF\xBF\xBF"), "\uFFFD\uFFFD\uFFFD\uFFFD");
}

TEST(SentencePiece, InvalidBytesAreByteTokens) {
  const auto tokenizer = load_fixture("llama-spm.gguf");
  ASSERT_TRUE(tokenizer);
  EXPECT_THAT(tokenizer->encode("\xFF"), ElementsAre(29871, 0xFF + 3));
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("\xFF\xC3(")), "\xFF\xC3(");
}

TEST(WordPiece, NormalisesAsLlamaCppDoes) {
  const auto tokenizer = load_fixture("bert-bge.gguf");
  ASSERT_TRUE(tokenizer);
  const auto same = [&](std::string_view a, std::string_view b) {
    EXPECT_EQ(tokenizer->encode(a), tokenizer->encode(b)) << a << " and " << b;
  };
  same("ÜBER Café", "uber cafe");
  same("re\u0301sume\u0301", "resume");
  same("a\u200Db", "ab");  // a format character
  same(
      "a\xFF"
      "b",
      "ab");  // an invalid byte
  same("中文", " 中 文 ");
  same("x~y", "x ~ y");
  EXPECT_THAT(tokenizer->encode("hello", {.add_special = true}), ElementsAre(101, 7592, 102));
  EXPECT_THAT(tokenizer->encode("", {.add_special = true}), ElementsAre(101, 102));
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("hello world")), "hello world");
}

TEST(Unigram, NormalisesAsLlamaCppDoes) {
  const auto tokenizer = load_fixture("unigram.gguf");
  ASSERT_TRUE(tokenizer);
  const auto same = [&](std::string_view a, std::string_view b) {
    EXPECT_EQ(tokenizer->encode(a), tokenizer->encode(b)) << a << " and " << b;
  };
  same("e\u0301te\u0301", "été");
  same("\uFF21\uFB01\u2460", "Afi1");
  same("\t  a \u3000 b\n", "a b");
  same("a\u200Eb", "ab");  // a rule that writes nothing
  same(
      "a\xFF"
      "b",
      "a\uFFFDb");
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("  the  model ")), "the model");
  const auto empty = tokenizer->encode(" \n", {.add_special = true});
  EXPECT_THAT(empty, ElementsAre(0, 2));
}

// The four ways in which files treat blanks. `text` is shown with its tokens cut by '|'.
std::string cut_by(const Tokenizer& tokenizer, std::string_view text) {
  std::string cut;
  for (const Token token : tokenizer.encode(text)) {
    if (!cut.empty()) cut += '|';
    cut += tokenizer.piece(token, true);
  }
  return cut;
}
TEST(Unigram, BlanksAreTreatedAsTheFileSays) {
  const auto of = [](bool prefix, bool merge) {
    Builder builder = Builder::unigram();
    for (const char* text : {"▁", "a", "b", "▁a", "ab", "▁ab"}) builder.token(text, 1, -1);
    return builder.flag("tokenizer.ggml.add_space_prefix", prefix)
        .flag("tokenizer.ggml.remove_extra_whitespaces", merge)
        .load("");
  };
  EXPECT_EQ(cut_by(**of(true, true), "  ab  a b "), " ab| a| |b");
  EXPECT_EQ(cut_by(**of(false, true), "  ab  a b "), " ab| a| |b");
  EXPECT_EQ(cut_by(**of(true, false), "  ab  a b "), " | | ab| | a| |b| ");
  EXPECT_EQ(cut_by(**of(false, false), "  ab  a b "), " | ab| | a| |b| ");
  EXPECT_EQ(cut_by(**of(false, false), "ab"), "ab");
  EXPECT_EQ(cut_by(**of(true, false), "ab"), " ab");
  EXPECT_TRUE((*of(true, false))->adds_leading_blank());
  EXPECT_FALSE((*of(false, false))->adds_leading_blank());
  EXPECT_EQ((*of(true, true))->decode((*of(true, true))->encode("ab a")), "ab a");
}

TEST(Unigram, TheBestSumWinsNotTheLongestToken) {
  Builder builder = Builder::unigram();
  builder.token("a", 1, -2).token("ab", 1, -1).token("bcd", 1, -1.5).token("abcd", 1, -4);
  builder.token("abc", 1, -0.5).token("d", 1, -9).token("abcdabcd", 5, -3);
  const auto tokenizer = builder.load("");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message();
  EXPECT_EQ(cut_by(**tokenizer, "abcd"), "a|bcd");
  EXPECT_THAT((*tokenizer)->encode("abcdabcd"), ElementsAre(10)) << "unused, but better";
}

// Fails when a character that no token has takes others with it, or is a token for each byte.
TEST(Unigram, WhatNoTokenHasIsOneUnknown) {
  Builder builder = Builder::unigram();
  builder.token("a", 1, -1).token("▁", 1, -2).token("é", 1, -3).token("\xC3", 1, 0);
  const auto tokenizer = builder.load("");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message();
  EXPECT_THAT((*tokenizer)->encode("a\U0001F999中xaé"), ElementsAre(4, 3, 4, 6));
  EXPECT_THAT((*tokenizer)->encode("x y"), ElementsAre(3, 5, 3));
  EXPECT_THAT((*tokenizer)->encode("x<unk>y", {.parse_special = true}), ElementsAre(3, 3, 3));
  EXPECT_EQ((*tokenizer)->decode(std::vector<Token>{4, 3, 4}), "aa");
  // Without an unknown token there is nothing to say it with.
  const auto silent = Builder()
                          .text("tokenizer.ggml.model", "t5")
                          .number("tokenizer.ggml.unknown_token_id", -1)
                          .token("a", 1, -1)
                          .load("");
  ASSERT_TRUE(silent) << silent.error().message();
  EXPECT_THAT((*silent)->encode("xax"), ElementsAre(0));
}

TEST(Unigram, TokensOfManyWordsAreFound) {
  Builder builder = Builder::unigram();
  for (const char* text : {"▁", "a", "b", "▁a", "▁b"}) builder.token(text, 1, -2);
  builder.token("a▁b", 1, -1).token("▁▁▁", 1, -1).token("<x▁y>", 4);
  const auto tokenizer = builder.load("");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message();
  EXPECT_EQ(cut_by(**tokenizer, "a a b a"), "a| |a b| a");
  EXPECT_EQ(cut_by(**tokenizer, "a    b"), "a|   | b");
  EXPECT_THAT((*tokenizer)->encode("<x y>"), ElementsAre(11)) << "found behind normalisation";
}

TEST(Unigram, TheLongestRuleCounts) {
  Builder builder = Builder::unigram();
  for (const char* text : {"1", "2", "3", "x"}) builder.token(text, 1, -1);
  const auto tokenizer =
      builder.rules(test::charsmap({{"a", "1"}, {"abc", "2"}, {"é", "3x"}, {"d", ""}})).load("");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message();
  EXPECT_EQ(cut_by(**tokenizer, "aabcadxé"), "1|2|1|x|3|x");
  EXPECT_EQ(cut_by(**tokenizer, "abxab"), "1|<unk>|x|1|<unk>");
}

// A rule that leads outside, or in circles, must not take the runner with it.
TEST(Unigram, DamagedRulesAreRefused) {
  const auto error_of = [](std::string_view charsmap) {
    const auto tokenizer = Builder::unigram().token("a", 1, -1).rules(charsmap).load("");
    if (tokenizer) return std::string("loaded");
    EXPECT_EQ(tokenizer.error().code(), ErrorCode::kCorrupt);
    return std::string(tokenizer.error().message());
  };
  const std::string good = test::charsmap({{"ab", "x"}});
  EXPECT_EQ(error_of(good), "loaded");
  EXPECT_THAT(error_of(""), HasSubstr("no header"));
  EXPECT_THAT(error_of("abc"), HasSubstr("no header"));
  EXPECT_THAT(error_of(std::string(4, '\0')), HasSubstr("table is cut off"));
  EXPECT_THAT(error_of("\xFF\xFF\xFF\xFF" + good), HasSubstr("table is cut off"));
  EXPECT_THAT(error_of(good.substr(0, good.size() - 1)), HasSubstr("last text is cut off"));
  EXPECT_THAT(error_of(good.substr(0, good.size() / 2)), HasSubstr("table is cut off"));
  const auto with_unit = [&](std::size_t index, std::uint32_t unit) {
    std::string bad = good;
    for (std::size_t i = 0; i < 4; ++i) {
      bad[4 + 4 * index + i] = static_cast<char>(unit >> (8 * i));
    }
    return bad;
  };
  EXPECT_THAT(error_of(with_unit(0, 0x7FFFFC00)), HasSubstr("a state lies outside"));
  EXPECT_THAT(error_of(with_unit(256 + 'a', 0x7FFFFC00 | 'a')), HasSubstr("a state lies outside"));
  // A state of which the table lacks the last child.
  std::string narrow = good;
  narrow.erase(4 + 4 * 1023, 4);
  narrow.replace(0, 2, "\xFC\x0F");
  EXPECT_THAT(error_of(narrow), HasSubstr("a state lies outside"));
  EXPECT_THAT(error_of(with_unit(768, 0x80000002)), HasSubstr("a text lies outside"));
  EXPECT_EQ(error_of(test::charsmap({{"a", std::string(128, 'x')}})), "loaded");
  EXPECT_THAT(error_of(test::charsmap({{"a", std::string(129, 'x')}})), HasSubstr("is too long"));
  EXPECT_THAT(error_of(good + std::string(Charsmap::kLargest, '\0')), HasSubstr("is too large"));

  // "a" leads from the root to the root.
  const auto circle =
      Builder::unigram().token("a", 1, -1).rules(with_unit(256 + 'a', ('a' << 10) | 'a')).load("");
  ASSERT_TRUE(circle) << circle.error().message();
  EXPECT_EQ((*circle)->encode(std::string(200'000, 'a')).size(), 200'000U);

  const auto of_numbers = Builder::unigram()
                              .token("a", 1, -1)
                              .numbers("tokenizer.ggml.precompiled_charsmap", {1, 2, 3, 4})
                              .load("");
  ASSERT_FALSE(of_numbers);
  EXPECT_THAT(std::string(of_numbers.error().message()), HasSubstr("expected an array of bytes"));
}

TEST(Unigram, OddVocabulariesWork) {
  const std::string longest(300, 'a');
  Builder builder = Builder::unigram();
  builder.token("a", 1, -1)
      .token("a", 1, -3)  // a second time
      .token("", 1, -1)
      .token("b", 1, std::numeric_limits<float>::infinity())
      .token("c", 1, std::numeric_limits<float>::quiet_NaN())
      .token("<0x41>", 6)
      .token(longest, 1, -1);
  const auto tokenizer = builder.load("");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message();
  EXPECT_THAT((*tokenizer)->encode("abca"), ElementsAre(5, 3, 5));
  EXPECT_EQ((*tokenizer)->encode(longest).size(), 300U);
  EXPECT_EQ((*tokenizer)->piece(9), "A");
  const auto plain = Builder().text("tokenizer.ggml.model", "t5").plain_token("ab").load("");
  ASSERT_TRUE(plain) << plain.error().message();
  EXPECT_THAT((*plain)->encode("abab"), ElementsAre(0, 0));
}

TEST(Special, BosAndEosFollowTheFile) {
  const auto llama = load_fixture("llama-spm.gguf");
  ASSERT_TRUE(llama);
  EXPECT_TRUE(llama->special().add_bos);
  EXPECT_FALSE(llama->special().add_eos);
  EXPECT_THAT(llama->encode("", {.add_special = true}), ElementsAre(1));
  EXPECT_THAT(llama->encode("Hello", {.add_special = true}), ElementsAre(1, 15043));
  EXPECT_TRUE(llama->is_end(2));
  EXPECT_FALSE(llama->is_end(1));
  EXPECT_FALSE(llama->is_end(-1));
  EXPECT_FALSE(llama->is_end(1'000'000));

  const auto gpt2 = load_fixture("gpt-2.gguf");
  ASSERT_TRUE(gpt2);
  EXPECT_EQ(gpt2->encode("Hello", {.add_special = true}), gpt2->encode("Hello"));
  EXPECT_EQ(gpt2->special().eos, 50256);
  EXPECT_TRUE(gpt2->is_end(50256));
}

TEST(Special, BosIsNotDoubled) {
  const auto tokenizer = load_fixture("llama-spm.gguf");
  ASSERT_TRUE(tokenizer);
  EXPECT_THAT(tokenizer->encode("<s>Hello", {.add_special = true, .parse_special = true}),
              ElementsAre(1, 15043));
  // Without parse_special it is a text like any other.
  EXPECT_THAT(tokenizer->encode("<s>", {.add_special = true}), ElementsAre(1, 529, 29879, 29958));
}

Result<Pair> encode_pair(const Tokenizer& tokenizer, std::string_view first, std::string second,
                         std::size_t most) {
  auto pairs = encode_pairs(tokenizer, first, std::span(&second, 1), most);
  return pairs ? Result<Pair>(std::move(pairs->front())) : std::unexpected(pairs.error());
}

// Fails when a cross-encoder reads other tokens than it was trained on.
TEST(Pair, IsJoinedAsTheModelReadsIt) {
  const auto bert = load_fixture("bert-bge.gguf");
  ASSERT_TRUE(bert);
  const auto pair = encode_pair(*bert, "hello", "world world", 100);
  ASSERT_TRUE(pair);
  EXPECT_THAT(pair->tokens, ElementsAre(101, 7592, 102, 2088, 2088, 102));
  EXPECT_EQ(pair->second, 3U);
  EXPECT_THAT(encode_pair(*bert, "hello", "", 100)->tokens, ElementsAre(101, 7592, 102, 102));
  // A text does not end the other one early.
  const auto hostile = encode_pair(*bert, "hello [SEP]", "[CLS]", 100)->tokens;
  EXPECT_EQ(std::ranges::count(hostile, 101), 1);
  EXPECT_EQ(std::ranges::count(hostile, 102), 2);

  // RoBERTa: "<s> a </s></s> b </s>".
  const auto roberta = [](bool separator) {
    auto builder = test::Builder::bpe();
    builder.token("<s>", 3).token("</s>", 3);
    for (const char* key : {"eos", "seperator"}) {
      builder.number(std::format("tokenizer.ggml.{}_token_id", key), 257);
    }
    return builder.number("tokenizer.ggml.bos_token_id", 256)
        .flag("tokenizer.ggml.add_bos_token", true)
        .flag("tokenizer.ggml.add_eos_token", true)
        .flag("tokenizer.ggml.add_sep_token", separator)
        .load("gpt-2");
  };
  const auto with = roberta(true);
  ASSERT_TRUE(with) << with.error().message();
  EXPECT_THAT(encode_pair(**with, "a", "b", 100)->tokens,
              ElementsAre(256, 'a', 257, 257, 'b', 257));
  EXPECT_EQ(encode_pair(**with, "a", "b", 100)->second, 4U);
  EXPECT_THAT(encode_pair(**roberta(false), "a", "b", 100)->tokens,
              ElementsAre(256, 'a', 257, 'b', 257));
}

// Files of XLM-RoBERTa's from before there was a key for it do not say that a separator comes.
TEST(Pair, UnigramHasASeparatorUnlessTheFileSaysNo) {
  const auto of = [](std::optional<bool> separator) {
    Builder builder = Builder::unigram();
    builder.token("a", 1, -1).token("b", 1, -1);
    if (separator) builder.flag("tokenizer.ggml.add_sep_token", *separator);
    return builder.load("");
  };
  for (const std::optional<bool> separator : {std::optional<bool>(), std::optional(true)}) {
    const auto tokenizer = of(separator);
    EXPECT_THAT(encode_pair(**tokenizer, "a", "ba", 100)->tokens, ElementsAre(0, 4, 2, 2, 5, 4, 2));
    EXPECT_THAT(encode_pair(**tokenizer, "a", "ba", 6)->tokens, ElementsAre(0, 4, 2, 2, 5, 2));
  }
  EXPECT_THAT(encode_pair(**of(false), "a", "b", 100)->tokens, ElementsAre(0, 4, 2, 5, 2));
}

TEST(Pair, OnlyTheSecondTextIsCut) {
  const auto bert = load_fixture("bert-bge.gguf");
  ASSERT_TRUE(bert);
  const auto cut = [&](std::size_t most) {
    return encode_pair(*bert, "hello", "world world world", most);
  };
  EXPECT_THAT(cut(7)->tokens, ElementsAre(101, 7592, 102, 2088, 2088, 2088, 102));
  EXPECT_THAT(cut(6)->tokens, ElementsAre(101, 7592, 102, 2088, 2088, 102));
  EXPECT_THAT(cut(5)->tokens, ElementsAre(101, 7592, 102, 2088, 102));
  for (const std::size_t most : {0U, 1U, 3U, 4U}) {
    const auto none = cut(most);
    ASSERT_FALSE(none) << most;
    EXPECT_EQ(none.error().code(), ErrorCode::kInvalidArgument);
  }
  EXPECT_THAT(encode_pair(*bert, "hello", "", 4)->tokens, ElementsAre(101, 7592, 102, 102));
  const auto several = encode_pairs(*bert, "hello", std::vector<std::string>{"world", "hello"}, 9);
  ASSERT_EQ(several->size(), 2U);
  EXPECT_THAT(several->back().tokens, ElementsAre(101, 7592, 102, 7592, 102));
}

TEST(Special, PiecesOfControlTokensAreShownOnDemand) {
  const auto tokenizer = load_fixture("llama-spm.gguf");
  ASSERT_TRUE(tokenizer);
  EXPECT_EQ(tokenizer->piece(1), "");
  EXPECT_EQ(tokenizer->piece(1, true), "<s>");
  EXPECT_EQ(tokenizer->piece(15043), " Hello");
  EXPECT_EQ(tokenizer->piece(3 + 0x41), "A");
  EXPECT_EQ(tokenizer->piece(-1, true), "");
  EXPECT_EQ(tokenizer->piece(1'000'000, true), "");
  EXPECT_TRUE(tokenizer->is_control(1));
  EXPECT_EQ(tokenizer->decode(std::vector<Token>{1, 15043}), "Hello");
}

// The tokens of Builder::bpe: 256 bytes, then what a test adds.
constexpr Token kFirst = 256;

TEST(Special, UserDefinedTokensAreAlwaysFoundTheLongestFirst) {
  const auto tokenizer =
      Builder::bpe().token("<ab>", 4).token("<ab><ab>", 4).token("<ctl>", 3).load("gpt-2");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message();
  EXPECT_THAT((*tokenizer)->encode("<ab><ab><ab>"), ElementsAre(kFirst + 1, kFirst));
  EXPECT_THAT((*tokenizer)->encode("<ctl>"), testing::SizeIs(5));
  EXPECT_THAT((*tokenizer)->encode("<ctl>", {.parse_special = true}), ElementsAre(kFirst + 2));
}

TEST(Special, WellKnownNamesEndAnAnswer) {
  const auto tokenizer = Builder::bpe()
                             .token("<|im_end|>", 1)
                             .token("<|endoftext|>", 3)
                             .token("<|fim_prefix|>", 3)
                             .token("other", 3)
                             .number("tokenizer.ggml.eos_token_id", kFirst + 1)
                             .numbers("tokenizer.ggml.eos_token_ids", {kFirst + 3, 99'999})
                             .load("qwen2");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message();
  const Tokenizer& t = **tokenizer;
  EXPECT_EQ(t.special().eot, kFirst);
  EXPECT_TRUE(t.is_control(kFirst)) << "a well-known control token that the file calls normal";
  EXPECT_TRUE(t.is_end(kFirst));
  EXPECT_TRUE(t.is_end(kFirst + 1));
  EXPECT_FALSE(t.is_end(kFirst + 2));
  EXPECT_EQ(t.special().fim_prefix, kFirst + 2);
  EXPECT_TRUE(t.is_end(kFirst + 3)) << "named by eos_token_ids";
}

// gpt-oss writes <|end|> after its reasoning; to stop there would cut off the answer.
TEST(Special, HarmonyGoesOnAfterItsReasoning) {
  const auto tokenizer = Builder::bpe()
                             .token("<|end|>", 3)
                             .token("<|return|>", 3)
                             .token("<|call|>", 3)
                             .token("<|channel|>", 3)
                             .load("gpt-4o");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message();
  EXPECT_FALSE((*tokenizer)->is_end(kFirst));
  EXPECT_EQ((*tokenizer)->piece(kFirst), "<|end|>");
  EXPECT_TRUE((*tokenizer)->is_end(kFirst + 1));
  EXPECT_TRUE((*tokenizer)->is_end(kFirst + 2));
  EXPECT_EQ((*tokenizer)->piece(kFirst + 3), "<|channel|>");
}

TEST(Special, BlanksAfterPhi3TokensAreTheirs) {
  const auto tokenizer =
      Builder::bpe().token("<|user|>", 3).text("general.name", "Phi-3 mini").load("gpt-2");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message();
  EXPECT_THAT((*tokenizer)->encode("a<|user|> \n b", {.parse_special = true}),
              ElementsAre('a', kFirst, 'b'));
}

TEST(Load, UnknownKindsAreNamed) {
  for (const std::string model : {"rwkv", "plamo2", "none", ""}) {
    const auto tokenizer = Builder::bpe().text("tokenizer.ggml.model", model).load("");
    ASSERT_FALSE(tokenizer);
    EXPECT_EQ(tokenizer.error().code(), ErrorCode::kUnsupported);
    EXPECT_THAT(std::string(tokenizer.error().message()), HasSubstr("'" + model + "'"));
  }
  const auto tokenizer = Builder::bpe().text("tokenizer.ggml.pre", "not-yet").load("");
  ASSERT_FALSE(tokenizer);
  EXPECT_EQ(tokenizer.error().code(), ErrorCode::kUnsupported);
  EXPECT_THAT(std::string(tokenizer.error().message()), HasSubstr("'not-yet'"));
}

TEST(Load, EmptyVocabulariesAreCorrupt) {
  for (const std::string model : {"llama", "gpt2", "bert", "t5"}) {
    const auto tokenizer = Builder().text("tokenizer.ggml.model", model).merge("a b").load("");
    ASSERT_FALSE(tokenizer) << model;
    EXPECT_EQ(tokenizer.error().code(), ErrorCode::kCorrupt);
  }
  const auto no_merges = Builder().token("a", 1).text("tokenizer.ggml.model", "gpt2").load("");
  ASSERT_FALSE(no_merges);
  EXPECT_THAT(std::string(no_merges.error().message()), HasSubstr("merges"));
}

// Nothing that a vocabulary says may crash the runner.
TEST(Load, OddVocabulariesWork) {
  Builder odd = Builder::bpe();
  odd.token("a", 1)  // a second time
      .token("", 3)
      .token("\xFF\xFE", 1)
      .token("<0xZZ>", 6)
      .token("ab", 77)
      .merge("a b")
      .merge("a b")
      .merge("nowhere tobefound")
      .merge("nosplit")
      .merge(" ")
      .merge("")
      .merge("ab c")
      .number("tokenizer.ggml.bos_token_id", 1'000'000)
      .number("tokenizer.ggml.eos_token_id", -5)
      .flag("tokenizer.ggml.add_bos_token", true)
      .flag("tokenizer.ggml.add_eos_token", true);
  const auto tokenizer = odd.load("default");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message();
  const Tokenizer& t = **tokenizer;
  EXPECT_EQ(t.special().bos, kNoToken);
  EXPECT_FALSE(t.special().add_bos);
  EXPECT_FALSE(t.special().add_eos);
  // "abc" is merged although it is no token: its bytes are what is left.
  EXPECT_THAT(t.encode("abc", {.add_special = true}), ElementsAre(kFirst, 'b', 'c'));
  EXPECT_THAT(t.encode("ab"), ElementsAre(kFirst + 4));
  for (Token token = -2; token < static_cast<Token>(t.vocab_size()) + 2; ++token) {
    t.piece(token, true);
  }
}

TEST(Load, TypesAndScoresMayBeMissing) {
  const auto tokenizer = Builder()
                             .text("tokenizer.ggml.model", "llama")
                             .plain_token("<unk>")
                             .plain_token("<s>")
                             .plain_token("</s>")
                             .plain_token("<0x0A>")
                             .plain_token("▁")
                             .plain_token("a")
                             .plain_token("▁a")
                             .load("");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message();
  EXPECT_THAT((*tokenizer)->encode("a\n", {.add_special = true}), ElementsAre(1, 6, 3));
  EXPECT_EQ((*tokenizer)->piece(3), "\n");
  EXPECT_THAT((*tokenizer)->encode("b"), ElementsAre(4, 0)) << "no byte token: unknown";
}

TEST(Load, RawBpeWritesCharacters) {
  const auto tokenizer = Builder()
                             .text("tokenizer.ggml.model", "gemma4")
                             .token("<bos>", 3)
                             .token("a", 1)
                             .token("▁", 1)
                             .token("▁a", 1)
                             .token("\n\n", 1)
                             .token("<0xC3>", 6)
                             .token("<0xA9>", 6)
                             .merge("▁ a")
                             .number("tokenizer.ggml.bos_token_id", 0)
                             .load("");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message();
  const auto tokens = (*tokenizer)->encode("a a\n\né", {.add_special = true});
  EXPECT_THAT(tokens, ElementsAre(0, 1, 3, 4, 5, 6));
  EXPECT_EQ((*tokenizer)->decode(tokens), "a a\n\né");
}

// gpt-oss files as Ollama published them name a pre-tokenizer that is not theirs.
TEST(Load, GptOssIsCutAsGpt4oWhateverTheFileSays) {
  Builder builder = Builder::bpe();
  builder.token("lC", 1).merge("l C").text("tokenizer.ggml.pre", "gpt-2");
  const auto as_it_says = builder.load("");
  const auto gpt_oss = builder.text("general.architecture", "gptoss").load("");
  ASSERT_TRUE(as_it_says && gpt_oss);
  EXPECT_THAT((*as_it_says)->encode("lC"), ElementsAre(kFirst));
  EXPECT_THAT((*gpt_oss)->encode("lC"), ElementsAre('l', 'C'));
}

TEST(Load, OverrideReplacesThePretokenizer) {
  const auto by_file = load_fixture("gpt-2.gguf");
  const auto overridden = load_fixture("gpt-2.gguf", {.pre = "qwen2"});
  ASSERT_TRUE(by_file && overridden);
  EXPECT_NE(by_file->encode("12345"), overridden->encode("12345"));
}

// Quadratic time would be seen as a test that does not end.
TEST(Encode, MegabytesOfOneLetterAndOfNoise) {
  std::string noise;
  std::uint32_t state = 1;
  for (int i = 0; i < 1'000'000; ++i) {
    state = state * 1664525 + 1013904223;
    noise.push_back(static_cast<char>(state >> 24));
  }
  const std::string letters(1'000'000, 'a');
  const std::string blanks(1'000'000, ' ');
  const std::string digits(1'000'000, '7');
  for (const char* name : {"gpt-2.gguf", "llama-spm.gguf"}) {
    const auto tokenizer = load_fixture(name);
    ASSERT_TRUE(tokenizer);
    for (const std::string& text : {letters, blanks, digits}) {
      EXPECT_TRUE(tokenizer->decode(tokenizer->encode(text)) == text) << name;
    }
    EXPECT_GT(tokenizer->encode(noise, {.parse_special = true}).size(), 100'000U);
  }
  // The blanks are not at the end, which its patterns look for.
  const auto deepseek = load_fixture("deepseek-llm.gguf");
  ASSERT_TRUE(deepseek);
  EXPECT_TRUE(deepseek->decode(deepseek->encode(blanks + "1")) == blanks + "1");
  const auto bert = load_fixture("bert-bge.gguf");
  ASSERT_TRUE(bert);
  EXPECT_GT(bert->encode(letters).size(), 1000U);
  EXPECT_GT(bert->encode(noise).size(), 1000U);
  const auto unigram = load_fixture("unigram.gguf");
  ASSERT_TRUE(unigram);
  EXPECT_GT(unigram->encode(letters).size(), 100'000U);
  EXPECT_GT(unigram->encode(noise).size(), 100'000U);
  EXPECT_THAT(unigram->encode(blanks), IsEmpty());
  EXPECT_EQ(unigram->decode(unigram->encode(digits)), digits);
}

TEST(Stream, NeverShowsHalfACharacter) {
  StreamDecoder decoder;
  std::string out;
  decoder.push("caf\xC3", out);
  EXPECT_EQ(out, "caf");
  decoder.push("\xA9 \xF0\x9F", out);
  EXPECT_EQ(out, "café ");
  decoder.push("\xA6", out);
  EXPECT_EQ(out, "café ");
  decoder.push("\x99", out);
  EXPECT_EQ(out, "café 🦙");
  decoder.push("\xE2\x96", out);
  decoder.push("x", out);
  EXPECT_EQ(out, "café 🦙\uFFFDx");
  decoder.push("\xE2", out);
  decoder.flush(out);
  EXPECT_EQ(out, "café 🦙\uFFFDx\uFFFD");
  decoder.flush(out);
  EXPECT_EQ(out, "café 🦙\uFFFDx\uFFFD");
}

}  // namespace
}  // namespace ollama::tokenizer
