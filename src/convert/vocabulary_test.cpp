// Tokenizers: vocabularies of real models, written in the forms that checkpoints have them in and
// converted, must give llama.cpp's tokens.
#include "convert/vocabulary.h"

#include <gmock/gmock.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <iterator>
#include <sstream>
#include <unordered_set>

#include "convert/protobuf.h"
#include "convert/sentencepiece.h"
#include "convert/test_checkpoint.h"
#include "tokenizer/tokenizer.h"

namespace ollama::convert {
namespace {

using ::testing::ElementsAre;
using testing::Folder;
using ::testing::HasSubstr;
using testing::Tokens;
using tokenizer::Token;
using tokenizer::Tokenizer;

const std::filesystem::path kData = std::filesystem::path(OLLAMA_TEST_DATA) / "tokenizers";

std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

// The folder's tokenizer, as a model file without weights.
Result<gguf::File> convert_tokenizer(const Folder& folder, std::size_t rows) {
  if (!std::filesystem::exists(folder / "config.json")) folder.write("config.json", "{}");
  std::vector<NamedFile> files;
  for (const std::string& name : folder.names()) files.push_back({name, folder / name});
  OLLAMA_ASSIGN(const Source source, Source::create(files));
  OLLAMA_ASSIGN(const Config config, Config::read(source));
  OLLAMA_ASSIGN(const TokenizerFiles tokenizer, TokenizerFiles::read(source));
  OLLAMA_ASSIGN(const Vocabulary vocabulary, read_vocabulary(source, tokenizer, rows));
  gguf::Writer writer;
  writer.set_string("general.architecture", "llama");
  OLLAMA_TRY(write_vocabulary(writer, vocabulary, source, tokenizer, config));
  OLLAMA_TRY(writer.begin(folder / "vocabulary.gguf"));
  OLLAMA_TRY(writer.finish());
  return gguf::File::open(folder / "vocabulary.gguf");
}

// Encodes the texts that belong to a vocabulary, and compares with what llama.cpp makes of them.
void expect_fixture(const Folder& folder, const std::string& name, std::size_t rows) {
  const auto file = convert_tokenizer(folder, rows);
  ASSERT_TRUE(file) << file.error().message();
  const auto tokenizer = tokenizer::load(*file);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message();
  constexpr std::string_view kEnd = "\n__ggml_vocab_test__\n";
  const std::string texts = read_file(kData / (name + ".inp"));
  std::istringstream expected(read_file(kData / (name + ".out")));
  std::size_t count = 0;
  std::string line;
  for (std::size_t at = 0; at < texts.size() && std::getline(expected, line); ++count) {
    const std::size_t end = std::min(texts.find(kEnd, at), texts.size());
    std::istringstream numbers(line);
    const std::vector<Token> tokens(std::istream_iterator<Token>(numbers), {});
    const std::string text = texts.substr(at, end - at);
    EXPECT_EQ((*tokenizer)->encode(text), tokens) << "text " << count << ": " << text;
    at = end + kEnd.size();
  }
  EXPECT_GT(count, 40U);
}

// Fails when SentencePiece's own files are misread.
TEST(SentencePiece, GivesLlamasTokens) {
  const Tokens tokens(testing::open_model(kData / "llama-spm.gguf"));
  const Folder folder;
  folder.write("tokenizer.model", testing::sentencepiece_model(tokens));
  expect_fixture(folder, "llama-spm", tokens.texts.size());
  const auto file = testing::open_model(folder / "vocabulary.gguf");
  const Tokens converted(file);
  EXPECT_EQ(converted.texts, tokens.texts);
  EXPECT_EQ(converted.scores, tokens.scores);
  EXPECT_EQ(converted.types, tokens.types);
  EXPECT_EQ(file.boolean("tokenizer.ggml.add_space_prefix"), true);
  EXPECT_EQ(file.boolean("tokenizer.ggml.add_bos_token"), true);
}

// All ways to merge two tokens into a third, best result first, as Hugging Face makes them of
// SentencePiece's scores.
boost::json::array merges_of(const Tokens& tokens) {
  std::unordered_map<std::string_view, std::size_t> ids;
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < tokens.texts.size(); ++i) {
    if (tokens.types[i] != 1) continue;
    ids.emplace(tokens.texts[i], i);
    order.push_back(i);
  }
  std::ranges::stable_sort(order, std::greater{}, [&](std::size_t i) { return tokens.scores[i]; });
  boost::json::array merges;
  for (const std::size_t i : order) {
    const std::string_view text = tokens.texts[i];
    for (std::size_t cut = 1; cut < text.size(); ++cut) {
      const auto left = text.substr(0, cut), right = text.substr(cut);
      if (ids.contains(left) && ids.contains(right)) {
        merges.push_back(boost::json::array{left, right});
      }
    }
  }
  return merges;
}

boost::json::object ids_of(const Tokens& tokens) {
  boost::json::object vocabulary;
  for (std::size_t i = 0; i < tokens.texts.size(); ++i) vocabulary[tokens.texts[i]] = i;
  return vocabulary;
}

boost::json::object byte_fallback_json(const Tokens& tokens) {
  const auto normalizers = boost::json::parse(
      R"([{"type": "Prepend", "prepend": "▁"},
          {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}])");
  return {{"added_tokens", testing::added_tokens(tokens)},
          {"normalizer", {{"type", "Sequence"}, {"normalizers", normalizers}}},
          {"pre_tokenizer", nullptr},
          {"model",
           {{"type", "BPE"},
            {"unk_token", "<unk>"},
            {"byte_fallback", true},
            {"vocab", ids_of(tokens)},
            {"merges", merges_of(tokens)}}}};
}

// Fails when ranks of merges do not become scores that merge in the same order.
TEST(ByteFallback, GivesLlamasTokens) {
  const Tokens tokens(testing::open_model(kData / "llama-spm.gguf"));
  const Folder folder;
  folder.write_json("tokenizer.json", byte_fallback_json(tokens));
  expect_fixture(folder, "llama-spm", tokens.texts.size());
  const Tokens converted(testing::open_model(folder / "vocabulary.gguf"));
  EXPECT_EQ(converted.texts, tokens.texts);
  EXPECT_EQ(converted.types, tokens.types);
}

// Fails when the vocabularies that get no blank in front get one.
TEST(ByteFallback, KnowsWhetherABlankGoesInFront) {
  const Tokens tokens(testing::open_model(kData / "../arch/llama.gguf"));
  const auto adds = [&](std::string_view stage, std::string_view json) {
    const Folder folder;
    auto tokenizer = byte_fallback_json(tokens);
    tokenizer["normalizer"] = nullptr;
    tokenizer[stage] = boost::json::parse(json);
    folder.write_json("tokenizer.json", tokenizer);
    const auto file = convert_tokenizer(folder, 512);
    return file ? file->boolean("tokenizer.ggml.add_space_prefix") : std::nullopt;
  };
  EXPECT_EQ(adds("pre_tokenizer", R"({"type": "Metaspace", "prepend_scheme": "first"})"), true);
  EXPECT_EQ(adds("pre_tokenizer", R"({"type": "Metaspace", "prepend_scheme": "never"})"), false);
  EXPECT_EQ(adds("pre_tokenizer", R"({"type": "Metaspace", "add_prefix_space": false})"), false);
  // As Gemma has it.
  EXPECT_EQ(
      adds("normalizer", R"({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})"),
      false);
}

TEST(WordPiece, GivesBertsTokens) {
  const Tokens tokens(testing::open_model(kData / "bert-bge.gguf"));
  {
    const Folder folder;
    folder.write_json("tokenizer.json", testing::wordpiece_json(tokens));
    expect_fixture(folder, "bert-bge", tokens.texts.size());
    const auto file = testing::open_model(folder / "vocabulary.gguf");
    EXPECT_EQ(Tokens(file).texts, tokens.texts);
    EXPECT_EQ(Tokens(file).types, tokens.types);
    EXPECT_EQ(file.boolean("tokenizer.ggml.normalizer.lowercase"), true);
    EXPECT_EQ(file.u32("tokenizer.ggml.cls_token_id"), 101U);
    EXPECT_EQ(file.u32("tokenizer.ggml.seperator_token_id"), 102U);
  }
  // The older form, a token a line.
  std::vector<std::string> lines(tokens.texts.size());
  const auto json = testing::wordpiece_json(tokens);
  for (const auto& [text, id] : json.at("model").at("vocab").as_object()) {
    lines[id.to_number<std::size_t>()] = text;
  }
  std::string list;
  for (const std::string& line : lines) list += line + "\n";
  const Folder folder;
  folder.write("vocab.txt", list);
  expect_fixture(folder, "bert-bge", tokens.texts.size());
  EXPECT_EQ(Tokens(testing::open_model(folder / "vocabulary.gguf")).texts, tokens.texts);
}

// ---- byte-level BPE ----

constexpr std::string_view kBytes =
    R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false})";
constexpr std::string_view kGpt2 = R"({"type": "ByteLevel", "add_prefix_space": false})";
constexpr std::string_view kDigitsGpt2 =
    R"({"type": "Digits", "individual_digits": true},
       {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true})";

std::string split(std::string_view regex) {
  return std::format(R"({{"type": "Split", "pattern": {{"Regex": {}}},
                          "behavior": "Isolated", "invert": false}},)",
                     boost::json::serialize(boost::json::value(regex)));
}

const std::string kDeepseekCased = split("\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿ]+");
const std::string kDeepseekCjk = split("[一-龥ࠀ-一가-\uD7FF]+");

// As published, by the name that llama.cpp has for it.
std::string steps_of(std::string_view pre) {
  const auto numbers = [](std::string_view count) {
    return split(std::format(
               R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{})"
               R"(| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
               count)) +
           std::string(kBytes);
  };
  const auto cased = [](std::string_view contraction, std::string_view count) {
    constexpr std::string_view kUpper = R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])";
    constexpr std::string_view kLower = R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])";
    constexpr std::string_view kOther = R"([^\r\n\p{L}\p{N}]?)";
    return split(std::format(
               R"({0}{1}*{2}+{3}|{0}{1}+{2}*{3}|\p{{N}}{4}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*)"
               R"(|\s*[\r\n]+|\s+(?!\S)|\s+)",
               kOther, kUpper, kLower, contraction, count)) +
           std::string(kBytes);
  };
  if (pre == "llama-bpe" || pre == "glm4") return numbers("{1,3}");
  if (pre == "qwen2") return numbers("");
  if (pre == "tekken") return cased("", "");
  if (pre == "gpt-4o") return cased("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "{1,3}");
  if (pre == "gpt-2") return std::string(kGpt2);
  if (pre == "deepseek-v3") {
    // With the characters \r and \n themselves, as its file has them.
    return split(R"(\p{N}{1,3})") + split("[一-龥぀-ゟ゠-ヿ]+") +
           split(
               "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?"
               "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+") +
           std::string(kBytes);
  }
  if (pre == "deepseek-llm") {
    return split("[\r\n]") + kDeepseekCased + split("\\s?[!-/:-~！-／：-～‘-‟　-。]+") +
           split("\\s+$") + kDeepseekCjk + R"({"type": "Digits", "individual_digits": true},)" +
           std::string(kBytes);
  }
  if (pre == "falcon") {
    return R"({"type": "Punctuation", "behavior": "Contiguous"},)" + std::string(kGpt2) +
           R"(,{"type": "Digits", "individual_digits": false},)" +
           split("[0-9][0-9][0-9]").substr(0, split("[0-9][0-9][0-9]").size() - 1);
  }
  return std::string(kDigitsGpt2);  // starcoder, smollm, command-r
}

boost::json::object byte_level_json(const Tokens& tokens, const std::string& steps) {
  boost::json::object vocabulary;
  for (std::size_t i = 0; i < tokens.texts.size(); ++i) {
    if (!tokens.texts[i].starts_with("[PAD")) vocabulary[tokens.texts[i]] = i;
  }
  return {{"added_tokens", testing::added_tokens(tokens)},
          {"normalizer", nullptr},
          {"pre_tokenizer",
           {{"type", "Sequence"}, {"pretokenizers", boost::json::parse("[" + steps + "]")}}},
          {"model",
           {{"type", "BPE"},
            {"vocab", std::move(vocabulary)},
            {"merges", boost::json::value_from(tokens.merges)}}}};
}

class ByteLevel : public ::testing::TestWithParam<const char*> {};

TEST_P(ByteLevel, GivesLlamaCppsTokens) {
  const std::string name = GetParam();
  const Tokens tokens(testing::open_model(kData / (name + ".gguf")));
  const Folder folder;
  folder.write_json("tokenizer.json", byte_level_json(tokens, steps_of(name)));
  expect_fixture(folder, name, tokens.texts.size());
}

INSTANTIATE_TEST_SUITE_P(Vocabularies, ByteLevel,
                         ::testing::Values("gpt-2", "falcon", "deepseek-llm", "starcoder"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

// Fails when a pre-tokenizer is taken for another one that cuts elsewhere.
TEST(Pretokenizer, IsKnownByItsSteps) {
  const Tokens tokens(testing::open_model(kData / "gpt-2.gguf"));
  const auto data = boost::json::parse(read_file(kData / "pre-tokenizers.json"));
  const auto& texts = data.at("texts").as_array();
  for (const auto& [pre, expected] : data.at("tokens").as_object()) {
    SCOPED_TRACE(pre);
    const Folder folder;
    auto json = byte_level_json(tokens, steps_of(pre));
    json["model"].as_object()["ignore_merges"] = pre == "llama-bpe" || pre == "tekken";
    folder.write_json("tokenizer.json", json);
    const auto file = convert_tokenizer(folder, tokens.texts.size());
    ASSERT_TRUE(file) << file.error().message();
    const auto tokenizer = tokenizer::load(*file);
    ASSERT_TRUE(tokenizer) << tokenizer.error().message();
    for (std::size_t i = 0; i < texts.size(); ++i) {
      EXPECT_EQ((*tokenizer)->encode(std::string_view(texts[i].as_string())),
                boost::json::value_to<std::vector<Token>>(expected.at(i)))
          << "text " << i;
    }
  }
}

// Fails when texts would be cut in silence otherwise than the model was trained.
TEST(Pretokenizer, UnknownStepsAreRefusedAndNamed) {
  const Tokens tokens(testing::open_model(kData / "gpt-2.gguf"));
  const auto error = [&](const std::string& steps) {
    const Folder folder;
    folder.write_json("tokenizer.json", byte_level_json(tokens, steps));
    const auto file = convert_tokenizer(folder, tokens.texts.size());
    if (file) return std::string("converted");
    EXPECT_EQ(file.error().code(), ErrorCode::kUnsupported);
    return std::string(file.error().message());
  };
  EXPECT_THAT(error(split("[aeiou]+") + std::string(kBytes)), HasSubstr("split [aeiou]+, then"));
  EXPECT_THAT(error(R"({"type": "Whitespace"},)" + std::string(kBytes)), HasSubstr("Whitespace"));
  EXPECT_THAT(error(R"({"type": "ByteLevel", "add_prefix_space": true})"), HasSubstr("blank"));
  EXPECT_THAT(
      error(R"({"type": "Split", "pattern": {"Regex": "x"}, "behavior": "MergedWithNext"},)" +
            std::string(kBytes)),
      HasSubstr("MergedWithNext"));
}

// ---- tokens with a role ----

Folder& with_small_vocabulary(Folder& folder) {
  boost::json::object vocabulary;
  for (int i = 0; i < 5; ++i) vocabulary[std::string(1, static_cast<char>('a' + i))] = i;
  folder.write_json(
      "tokenizer.json",
      {{"added_tokens",
        {{{"id", 5}, {"content", "<|begin|>"}, {"special", true}},
         {{"id", 6}, {"content", "<|end|>"}, {"special", true}},
         {{"id", 7}, {"content", "<think>"}, {"special", false}},
         {{"id", 8}, {"content", "<|unmarked|>"}, {"special", false}},
         {{"id", 99}, {"content", "beyond"}, {"special", true}}}},
       {"pre_tokenizer", boost::json::parse(kGpt2)},
       {"post_processor",
        boost::json::parse(R"({"type": "Sequence", "processors": [{"type": "ByteLevel"},
            {"type": "TemplateProcessing", "single":
              [{"SpecialToken": {"id": "<|begin|>"}}, {"Sequence": {"id": "A"}}]}]})")},
       {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", boost::json::array{"a b"}}}}});
  return folder;
}

// Fails when tokens that users must not be able to write, or see, become text.
TEST(SpecialTokens, TypesAndRoles) {
  Folder folder;
  with_small_vocabulary(folder);
  folder.write("tokenizer_config.json",
               R"({"bos_token": {"content": "<|begin|>"}, "eos_token": "<|end|>",
                   "pad_token": null, "unk_token": "nobody",
                   "added_tokens_decoder": {"9": {"content": "<|late|>", "special": true}}})");
  folder.write("config.json", R"({"eos_token_id": [6, 9, 700], "pad_token_id": 8})");
  folder.write("generation_config.json", R"({"eos_token_id": 7})");
  const auto file = convert_tokenizer(folder, 12);
  ASSERT_TRUE(file) << file.error().message();
  const Tokens tokens(*file);
  EXPECT_THAT(tokens.texts, ElementsAre("a", "b", "c", "d", "e", "<|begin|>", "<|end|>", "<think>",
                                        "<|unmarked|>", "<|late|>", "[PAD10]", "[PAD11]"));
  EXPECT_THAT(tokens.types, ElementsAre(1, 1, 1, 1, 1, 3, 3, 4, 3, 3, 5, 5));
  EXPECT_EQ(file->u32("tokenizer.ggml.bos_token_id"), 5U);
  EXPECT_EQ(file->u32("tokenizer.ggml.eos_token_id"), 6U);
  EXPECT_EQ(file->u32("tokenizer.ggml.padding_token_id"), 8U) << "by number where no text says";
  EXPECT_EQ(file->find("tokenizer.ggml.unknown_token_id"), nullptr);
  EXPECT_THAT(file->i32s("tokenizer.ggml.eos_token_ids"), ElementsAre(6, 9, 7));
  EXPECT_EQ(file->boolean("tokenizer.ggml.add_bos_token"), true) << "from the template";
  EXPECT_EQ(file->boolean("tokenizer.ggml.add_eos_token"), false);
}

TEST(SpecialTokens, TheConfigurationGoesBeforeTheTemplate) {
  Folder folder;
  with_small_vocabulary(folder);
  folder.write("tokenizer_config.json", R"({"add_bos_token": false, "add_eos_token": true})");
  const auto file = convert_tokenizer(folder, 12);
  ASSERT_TRUE(file) << file.error().message();
  EXPECT_EQ(file->boolean("tokenizer.ggml.add_bos_token"), false);
  EXPECT_EQ(file->boolean("tokenizer.ggml.add_eos_token"), true);
}

// Gemma's runs of blanks. Fails when they are looked for in texts as the symbols they never are.
TEST(SpecialTokens, AddedRunsOfBlanksAreBlanks) {
  Tokens tokens(testing::open_model(kData / "../arch/llama.gguf"));
  tokens.texts[300] = "▁▁▁";
  tokens.types[300] = 4;
  const Folder folder;
  folder.write("tokenizer.model", testing::sentencepiece_model(tokens, false));
  folder.write("added_tokens.json", R"({"<extra>": 301})");
  const auto file = convert_tokenizer(folder, 512);
  ASSERT_TRUE(file) << file.error().message();
  const Tokens converted(*file);
  EXPECT_EQ(converted.texts[300], "   ");
  EXPECT_EQ(converted.texts[301], "<extra>");
  EXPECT_EQ(converted.types[301], 4);
  EXPECT_EQ(file->boolean("tokenizer.ggml.add_space_prefix"), false);
}

// Fails when the model is asked in another form than it was trained with.
TEST(ChatTemplate, FromEachOfItsPlaces) {
  const auto convert =
      [](std::initializer_list<std::pair<std::string_view, std::string_view>> all) {
        Folder folder;
        with_small_vocabulary(folder);
        for (const auto& [name, text] : all) folder.write(name, text);
        auto file = convert_tokenizer(folder, 9);
        if (!file) throw std::runtime_error(std::string(file.error().message()));
        return std::move(*file);
      };
  constexpr std::string_view kKey = "tokenizer.chat_template";
  constexpr std::string_view kInConfig = R"({"chat_template": "in config"})";
  EXPECT_EQ(convert({{"tokenizer_config.json", kInConfig}}).string(kKey), "in config");
  EXPECT_EQ(convert({{"tokenizer_config.json", kInConfig}, {"chat_template.jinja", "a file"}})
                .string(kKey),
            "a file");
  EXPECT_EQ(convert({{"chat_template.json", R"({"chat_template": "json"})"}}).string(kKey), "json");
  const auto several = convert({{"tokenizer_config.json",
                                 R"({"chat_template": [{"name": "default", "template": "plain"},
                                                       {"name": "tool_use", "template": "tools"},
                                                       {"name": "../x", "template": "no"}, 7]})"}});
  EXPECT_EQ(several.string(kKey), "plain");
  EXPECT_EQ(several.string("tokenizer.chat_template.tool_use"), "tools");
  EXPECT_THAT(several.strings("tokenizer.chat_templates"), ElementsAre("tool_use"));
  EXPECT_EQ(convert({}).find(kKey), nullptr);
}

// Fails when XLM-RoBERTa's vocabularies, scores or rules of normalisation are misread.
TEST(Unigram, GivesLlamaCppsTokens) {
  const auto original = testing::open_model(kData / "unigram.gguf");
  const Tokens tokens(original);
  const std::size_t rows = tokens.texts.size();
  auto json = testing::unigram_json(original);
  const Folder folder;
  folder.write_json("tokenizer.json", json);
  expect_fixture(folder, "unigram", rows);
  const auto file = testing::open_model(folder / "vocabulary.gguf");
  for (const auto& [key, value] : original.metadata()) {
    if (key == "general.architecture") continue;
    const gguf::Value* found = file.find(key);
    ASSERT_NE(found, nullptr) << key;
    EXPECT_TRUE(*found == value) << key;
    EXPECT_EQ(file.value_type(key)->element, original.value_type(key)->element) << key;
  }

  // The older form, and more embeddings than tokens.
  json["pre_tokenizer"] = boost::json::parse(R"({"type": "Sequence", "pretokenizers": [
      {"type": "WhitespaceSplit"},
      {"type": "Metaspace", "replacement": "▁", "add_prefix_space": true}]})");
  json["normalizer"] = json.at("normalizer").at("normalizers").at(0);
  json.erase("post_processor");
  folder.write_json("tokenizer.json", json);
  expect_fixture(folder, "unigram", rows + 2);
  const auto padded = testing::open_model(folder / "vocabulary.gguf");
  const Tokens more(padded);
  ASSERT_EQ(more.texts.size(), rows + 2);
  EXPECT_EQ(more.types.back(), 5);
  EXPECT_EQ(more.scores.back(), -10000);
  for (const char* key : {"add_space_prefix", "remove_extra_whitespaces", "add_bos_token",
                          "add_eos_token", "add_sep_token"}) {
    EXPECT_EQ(padded.boolean(std::format("tokenizer.ggml.{}", key)), true) << key;
  }

  // Neither: blanks stay as they are.
  json["pre_tokenizer"] = boost::json::parse(R"({"type": "Metaspace", "prepend_scheme": "never"})");
  json["post_processor"] = boost::json::parse(R"({"type": "TemplateProcessing",
      "single": [{"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "</s>"}}],
      "pair": [{"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "</s>"}},
               {"Sequence": {"id": "B"}}, {"SpecialToken": {"id": "</s>"}}]})");
  folder.write_json("tokenizer.json", json);
  const auto plain = convert_tokenizer(folder, rows);
  ASSERT_TRUE(plain) << plain.error().message();
  for (const char* key :
       {"add_space_prefix", "remove_extra_whitespaces", "add_bos_token", "add_sep_token"}) {
    EXPECT_EQ(plain->boolean(std::format("tokenizer.ggml.{}", key)), false) << key;
  }
  EXPECT_EQ(plain->boolean("tokenizer.ggml.add_eos_token"), true);
}

// ---- hostile ones ----

std::string error_of(std::string_view name, std::string_view content) {
  const Folder folder;
  folder.write(name, content);
  const auto file = convert_tokenizer(folder, 100);
  return file ? "converted" : std::string(file.error().message());
}

TEST(HostileTokenizer, EachIsRefusedWithAReason) {
  EXPECT_THAT(error_of("other.txt", ""), HasSubstr("there is no tokenizer"));
  EXPECT_THAT(error_of("tokenizer.json", "{"), HasSubstr("tokenizer.json: invalid JSON"));
  EXPECT_THAT(error_of("tokenizer.json", "[]"), HasSubstr("expected a JSON object"));
  EXPECT_THAT(error_of("tokenizer.json", std::string(100000, '[')), HasSubstr("invalid JSON"));
  EXPECT_THAT(error_of("tokenizer.json", R"({"model": {"type": "WordLevel"}})"),
              HasSubstr("cannot be converted"));
  const auto unigram = [](std::string_view more, std::string_view normalizer = "null") {
    return std::format(R"({{"normalizer": {}, "model": {{"type": "Unigram", {}}}}})", normalizer,
                       more);
  };
  EXPECT_EQ(error_of("tokenizer.json", unigram(R"("vocab": [["a", -1], ["b", -2.5]])")),
            "converted");
  EXPECT_THAT(error_of("tokenizer.json", unigram(R"("unk_id": 3)")), HasSubstr("model.vocab"));
  EXPECT_THAT(error_of("tokenizer.json", unigram(R"("vocab": {"a": 1})")), HasSubstr("be a list"));
  EXPECT_THAT(error_of("tokenizer.json", unigram(R"("vocab": [])")), HasSubstr("no tokens"));
  for (const std::string_view entry : {"7", "[]", R"(["a"])", R"([1, 2])", R"(["a", "b"])"}) {
    EXPECT_THAT(error_of("tokenizer.json", unigram(std::format(R"("vocab": [{}])", entry))),
                HasSubstr("texts with scores"))
        << entry;
  }
  EXPECT_THAT(error_of("tokenizer.json", unigram(R"("vocab": [["a", 1]], "byte_fallback": true)")),
              HasSubstr("byte_fallback"));
  const auto normalized = [&](std::string_view normalizer) {
    return error_of("tokenizer.json", unigram(R"("vocab": [["a", -1]])", normalizer));
  };
  EXPECT_THAT(normalized(R"({"type": "NFKC"})"), HasSubstr("normalizer NFKC"));
  EXPECT_THAT(normalized(R"({"type": "Replace", "pattern": {"String": "a"}, "content": "b"})"),
              HasSubstr("normalizer Replace"));
  EXPECT_THAT(normalized(R"({"type": "Precompiled", "precompiled_charsmap": "?"})"),
              HasSubstr("no base64"));
  const auto bpe = [](std::string_view vocabulary, std::string_view merges) {
    return std::format(R"({{"pre_tokenizer": {}, "model":
                            {{"type": "BPE", "vocab": {}, "merges": {}}}}})",
                       kGpt2, vocabulary, merges);
  };
  EXPECT_THAT(error_of("tokenizer.json", bpe("[]", "[]")), HasSubstr("model.vocab"));
  EXPECT_THAT(error_of("tokenizer.json", bpe("{}", "[]")), HasSubstr("no tokens"));
  EXPECT_THAT(error_of("tokenizer.json", bpe(R"({"a": -1})", "[]")), HasSubstr("ids from 0"));
  EXPECT_THAT(error_of("tokenizer.json", bpe(R"({"a": 0.5})", "[]")), HasSubstr("ids from 0"));
  EXPECT_THAT(error_of("tokenizer.json", bpe(R"({"a": 1, "b": 1})", "[]")), HasSubstr("id 1"));
  EXPECT_THAT(error_of("tokenizer.json", bpe(R"({"a": 1})", "{}")), HasSubstr("model.merges"));
  EXPECT_THAT(error_of("tokenizer.json", bpe(R"({"a": 1})", R"(["ab"])")), HasSubstr("pairs"));
  EXPECT_THAT(error_of("tokenizer.json", bpe(R"({"a": 1})", R"([["a", 7]])")), HasSubstr("pairs"));
  EXPECT_EQ(error_of("tokenizer.json", bpe(R"({"a": 1, "b": 9000000000000})", "[]")), "converted");
  EXPECT_THAT(error_of("vocab.txt", ""), HasSubstr("vocab.txt is empty"));
  EXPECT_THAT(error_of("tokenizer.model", ""), HasSubstr("no SentencePiece model"));
  EXPECT_THAT(error_of("tokenizer.model", "IQ== 0\nIg== 1\n"), HasSubstr("no SentencePiece model"));
  const std::string piece = testing::proto_bytes(1, testing::proto_bytes(1, "a"));
  EXPECT_THAT(error_of("tokenizer.model", piece), HasSubstr("kind 1")) << "unigram by default";
  const std::string bad_type = testing::proto_bytes(1, testing::proto_integer(3, 77));
  EXPECT_THAT(error_of("tokenizer.model", bad_type), HasSubstr("no SentencePiece model"));
}

// Fails when a length that is not there is believed: every cut of a good file is refused, or is a
// shorter good file.
TEST(HostileTokenizer, CutOffSentencePiece) {
  const std::string model =
      testing::sentencepiece_model(Tokens(testing::open_model(kData / "../arch/llama.gguf")));
  ASSERT_TRUE(parse_sentencepiece(model, 512));
  for (std::size_t size = 0; size < model.size(); ++size) {
    EXPECT_FALSE(parse_sentencepiece(std::string_view(model).substr(0, size), 512).has_value() &&
                 size < model.size() - 20)
        << size;
  }
}

RC_GTEST_PROP(Protobuf, ReadsWhatWasWritten,
              (const std::vector<std::uint64_t>& integers, const std::vector<std::string>& texts)) {
  std::string data;
  for (const std::uint64_t value : integers) data += testing::proto_integer(5, value);
  for (const std::string& text : texts) data += testing::proto_bytes(1000, text);
  ProtobufReader reader(data);
  for (const std::uint64_t value : integers) {
    const auto field = reader.next();
    RC_ASSERT(field && field->number == 5 && !field->is_bytes && field->integer == value);
  }
  for (const std::string& text : texts) {
    const auto field = reader.next();
    RC_ASSERT(field && field->number == 1000 && field->is_bytes && field->bytes == text);
  }
  RC_ASSERT(!reader.next() && !reader.failed());
}

RC_GTEST_PROP(Protobuf, EndsWhateverTheBytes, (const std::string& data)) {
  ProtobufReader reader(data);
  std::size_t fields = 0;
  while (reader.next()) ++fields;
  RC_ASSERT(fields <= data.size());
  RC_ASSERT(reader.failed() || !reader.next());
}

}  // namespace
}  // namespace ollama::convert
