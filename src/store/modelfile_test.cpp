#include "store/modelfile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <fstream>

namespace ollama::store {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::vector<Command> commands_of(std::string_view text) {
  const auto modelfile = parse_modelfile(text);
  if (!modelfile) ADD_FAILURE() << text << ": " << modelfile.error().message();
  return modelfile ? modelfile->commands : std::vector<Command>();
}

std::string modelfile_error(std::string_view text) {
  const auto modelfile = parse_modelfile(text);
  return modelfile ? "(no error)" : std::string(modelfile.error().message());
}

TEST(Modelfile, ReadsEveryCommand) {
  EXPECT_THAT(
      commands_of("# a comment\n"
                  "FROM llama3\n"
                  "\n"
                  "  parameter temperature 0.7\n"
                  "PARAMETER stop <|im_end|>\n"
                  "TEMPLATE {{ .Prompt }}\n"
                  "SYSTEM You are   kind. # not a comment\n"
                  "ADAPTER ./a.gguf\n"
                  "LICENSE MIT\n"
                  "MESSAGE user Hello there\n"
                  "RENDERER qwen3\n"
                  "PARSER qwen3\n"
                  "REQUIRES 0.14.0"),
      ElementsAre(Command{"from", "", "llama3"}, Command{"parameter", "temperature", "0.7"},
                  Command{"parameter", "stop", "<|im_end|>"},
                  Command{"template", "", "{{ .Prompt }}"},
                  Command{"system", "", "You are   kind. # not a comment"},
                  Command{"adapter", "", "./a.gguf"}, Command{"license", "", "MIT"},
                  Command{"message", "user", "Hello there"}, Command{"renderer", "", "qwen3"},
                  Command{"parser", "", "qwen3"}, Command{"requires", "", "0.14.0"}));
}

TEST(Modelfile, Quotes) {
  EXPECT_THAT(
      commands_of("FROM \"a b\"\nSYSTEM \"\"\"\nline 1\n\"quoted\"\nline 3\"\"\"\n"
                  "TEMPLATE \"\"\"one line\"\"\"\n"
                  "MESSAGE user \"two\nlines\"\nLICENSE say \"hi\"\n"),
      ElementsAre(Command{"from", "", "a b"}, Command{"system", "", "\nline 1\n\"quoted\"\nline 3"},
                  Command{"template", "", "one line"}, Command{"message", "user", "two\nlines"},
                  Command{"license", "", "say \"hi\""}));
  EXPECT_THAT(commands_of("FROM a\nSYSTEM \"\"\nTEMPLATE \"\"\"\"\"\"\n"),
              ElementsAre(Command{"from", "", "a"}, Command{"system", "", ""},
                          Command{"template", "", ""}));
}

TEST(Modelfile, LineEndsOfWindowsAndMarks) {
  EXPECT_THAT(commands_of("\xef\xbb\xbf"
                          "FROM a\r\nSYSTEM \"\"\"x\r\ny\"\"\"\r\nLICENSE z\r\n"),
              ElementsAre(Command{"from", "", "a"}, Command{"system", "", "x\r\ny"},
                          Command{"license", "", "z"}));
}

TEST(Modelfile, ErrorsNameTheLine) {
  EXPECT_EQ(modelfile_error(""), "no FROM line");
  EXPECT_EQ(modelfile_error("# nothing\n"), "no FROM line");
  EXPECT_EQ(modelfile_error("SYSTEM x\n"), "no FROM line");
  EXPECT_THAT(modelfile_error("FROM a\n\nFROB x\n"), HasSubstr("(line 3): command must be one of"));
  EXPECT_THAT(modelfile_error("FROM a\nPARAMETER\n"), HasSubstr("(line 2)"));
  EXPECT_THAT(modelfile_error("FROM a\nPARAMETER top_k\n"), HasSubstr("(line 2)"));
  EXPECT_THAT(modelfile_error("FROM a\nPARAMETER top_k  \n"), HasSubstr("(line 2)"));
  EXPECT_THAT(modelfile_error("FROM a\nPARAMETER top-k 1\n"), HasSubstr("(line 2)"));
  EXPECT_THAT(modelfile_error("FROM\n"), HasSubstr("(line 1)"));
  EXPECT_THAT(modelfile_error("FROM \n"), HasSubstr("(line 1)"));
  EXPECT_THAT(modelfile_error("FROM"), HasSubstr("(line 1)"));
  EXPECT_THAT(modelfile_error("FR0M a\n"), HasSubstr("(line 1)"));
  EXPECT_THAT(modelfile_error("FROM a\nMESSAGE robot hi\n"),
              HasSubstr("(line 2): message role must be"));
  EXPECT_THAT(modelfile_error("FROM a\r\n\r\nSYSTEM \"\"\"x\n\ny\n"),
              HasSubstr("(line 3): the quotes that begin here are never closed"));
  EXPECT_THAT(modelfile_error("FROM a\nSYSTEM \"x\n"), HasSubstr("(line 2)"));
}

std::string utf16(std::u16string_view text, bool big_endian) {
  std::string bytes(big_endian ? "\xfe\xff" : "\xff\xfe");
  for (const char16_t unit : text) {
    const auto high = static_cast<char>(unit >> 8U);
    const auto low = static_cast<char>(unit & 0xFFU);
    bytes += big_endian ? high : low;
    bytes += big_endian ? low : high;
  }
  return bytes;
}

// As Notepad and PowerShell save files.
TEST(Modelfile, Utf16) {
  for (const bool big_endian : {false, true}) {
    EXPECT_THAT(commands_of(utf16(u"FROM a\r\nSYSTEM é 日 🦙\r\n", big_endian)),
                ElementsAre(Command{"from", "", "a"}, Command{"system", "", "é 日 🦙"}));
    // Halves of characters.
    EXPECT_THAT(
        commands_of(utf16(std::u16string(u"FROM a\nSYSTEM x") + char16_t{0xD83E}, big_endian) +
                    "z"),
        ElementsAre(Command{"from", "", "a"}, Command{"system", "", "x\uFFFD\uFFFD"}));
    EXPECT_THAT(modelfile_error(utf16(u"FROM a\n\nFROB x\n", big_endian)), HasSubstr("(line 3)"));
    EXPECT_EQ(modelfile_error(utf16(u"", big_endian)), "no FROM line");
  }
}

TEST(Modelfile, Versions) {
  for (const char* good : {"0.14.0", "0.14", "1", "1.0.0-rc1", "1.2.3-rc.1+build.5", "10.20.30"}) {
    EXPECT_EQ(parse_version(good).value(), good);
    EXPECT_EQ(parse_version(std::string("v") + good).value(), good);
  }
  for (const char* bad : {"", "v", "x", "1.", "1..2", "01.2.3", "1.2.3.4", "1.2-rc1", "1.2.3-",
                          " 1", "1.2.3 ", "-1", "1.2.3+", "99999999999.0.0", "vv1"}) {
    EXPECT_EQ(parse_version(bad).error().code(), ErrorCode::kInvalidArgument) << bad;
  }
}

// What show prints, create must read as the same model.
TEST(Modelfile, WhatWasReadIsWrittenAndReadTheSame) {
  const auto piece = rc::gen::element<std::string>("FROM a\n", "SYSTEM ", "PARAMETER stop ",
                                                   "\"\"\"", "\"", "\n", "\r\n", " ", "\t", "x",
                                                   "#", "LICENSE ", "MESSAGE user ", "é", "\x01");
  ASSERT_TRUE(rc::check([&] {
    const auto pieces = *rc::gen::container<std::vector<std::string>>(piece);
    std::string text = "FROM a\n";
    for (const std::string& part : pieces) text += part;
    const auto first = parse_modelfile(text);
    if (!first) {
      RC_ASSERT(first.error().code() == ErrorCode::kInvalidArgument);
      return;
    }
    const auto again = parse_modelfile(to_text(*first));
    RC_ASSERT(again.has_value());
    RC_ASSERT(again->commands == first->commands);
  }));
}

TEST(Modelfile, ArbitraryBytesNeverBreakTheParser) {
  ASSERT_TRUE(rc::check([](const std::string& bytes) { (void)parse_modelfile(bytes); }));
}

// Reading must be linear: this would take hours otherwise.
TEST(Modelfile, LongQuotesOfLineEnds) {
  const std::string ends(4'000'000, '\n');
  EXPECT_EQ(commands_of("FROM a\nSYSTEM \"\"\"\"" + ends + "\"\"\"").back().value, "\"" + ends);
  EXPECT_THAT(modelfile_error("FROM a\nSYSTEM \"\"\"" + ends), HasSubstr("(line 2)"));
}

TEST(Modelfile, VersionsCompareByNumbers) {
  EXPECT_TRUE(is_newer("0.100.0", "0.33.0"));
  EXPECT_TRUE(is_newer("v1", "0.33.0"));
  EXPECT_TRUE(is_newer("0.33.1-rc1", "0.33.0"));
  for (const char* version : {"0.33.0", "0.33", "0.9.9", "0.33.0-rc1", "0", "soon", ""}) {
    EXPECT_FALSE(is_newer(version, "0.33.0")) << version;
  }
}

class PlanTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        std::filesystem::path(testing::TempDir()) /
        ("plan_" + std::string(testing::UnitTest::GetInstance()->current_test_info()->name()));
    std::filesystem::create_directories(folder_);
    std::ofstream(folder_ / "m.gguf") << "x";
    std::ofstream(folder_ / "plain") << "x";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  Result<CreatePlan> plan(std::string_view text) {
    return plan_create(Modelfile{commands_of(text)}, folder_, folder_);
  }

  std::filesystem::path folder_;
};

TEST_F(PlanTest, FilesAndNames) {
  EXPECT_THAT(plan("FROM ./m.gguf\n")->model_files, ElementsAre(folder_ / "./m.gguf"));
  EXPECT_THAT(plan("FROM m.gguf\n")->model_files, ElementsAre(folder_ / "m.gguf"));
  EXPECT_THAT(plan("FROM plain\n")->model_files, ElementsAre(folder_ / "plain"));
  EXPECT_THAT(plan("FROM ~/m.gguf\n")->model_files, ElementsAre(folder_ / "m.gguf"));
  EXPECT_EQ(plan("FROM llama3:8b\n")->request.from, "llama3:8b");
  EXPECT_THAT(plan("FROM llama3:8b\n")->model_files, IsEmpty());
  EXPECT_THAT(plan("FROM a\nADAPTER m.gguf\n")->adapter_files, ElementsAre(folder_ / "m.gguf"));
  EXPECT_THAT(plan("FROM a\nDRAFT m.gguf\n")->draft_files, ElementsAre(folder_ / "m.gguf"));
}

// A folder of any name where it holds a checkpoint; else only where it cannot be a model's name.
TEST_F(PlanTest, Folders) {
  std::filesystem::create_directories(folder_ / "checkpoint");
  std::filesystem::create_directories(folder_ / "empty");
  std::ofstream(folder_ / "checkpoint" / "config.json") << "{}";
  EXPECT_EQ(plan("FROM checkpoint\n")->model_folder, folder_ / "checkpoint");
  EXPECT_EQ(plan("FROM ./checkpoint\n")->model_folder, folder_ / "./checkpoint");
  EXPECT_EQ(plan("FROM .\n")->model_folder, folder_ / ".");
  EXPECT_EQ(plan("FROM empty\n")->model_folder, "");
  EXPECT_EQ(plan("FROM empty\n")->request.from, "empty");
}

TEST_F(PlanTest, MissingFilesNameTheLine) {
  for (const char* text : {"\nFROM ./other.gguf\n", "\nFROM other.gguf\n", "\nFROM /no/such/file\n",
                           "\nFROM ./none\n"}) {
    const auto result = plan(text);
    ASSERT_FALSE(result) << text;
    EXPECT_THAT(std::string(result.error().message()), HasSubstr("(line 2)"));
  }
  EXPECT_FALSE(plan("FROM a\nADAPTER ./none.gguf\n"));
  EXPECT_FALSE(plan("FROM a\nDRAFT ./none.gguf\n"));
  EXPECT_THAT(std::string(plan("FROM a\n\nREQUIRES soon\n").error().message()),
              HasSubstr("(line 3): requires must be a version"));
}

TEST_F(PlanTest, TextsAndParameters) {
  const auto result = plan(
      "FROM a\nPARAMETER temperature 0.5\nPARAMETER stop a\nPARAMETER stop b\nPARAMETER mirostat "
      "1\n"
      "PARAMETER temperature 0.7\nLICENSE one\nLICENSE two\nMESSAGE system s\nMESSAGE assistant t\n"
      "TEMPLATE t\nSYSTEM y\nREQUIRES 0.1.0\n");
  ASSERT_TRUE(result) << result.error().message();
  EXPECT_EQ(api::to_string(result->request.parameters), R"({"temperature":0.7,"stop":["a","b"]})");
  EXPECT_THAT(result->request.license, ElementsAre("one", "two"));
  ASSERT_EQ(result->request.messages.size(), 2U);
  EXPECT_EQ(result->request.messages[1].content, "t");
  EXPECT_EQ(result->request.template_text, "t");
  EXPECT_EQ(result->request.system, "y");
  EXPECT_EQ(result->request.requires_version, "0.1.0");
}

// All that Ollama's documentation and its options have.
TEST_F(PlanTest, EveryParameterOfOllamas) {
  const auto result = plan(
      "FROM a\nPARAMETER num_ctx 4096\nPARAMETER num_batch 16\nPARAMETER num_gpu -1\n"
      "PARAMETER main_gpu 1\nPARAMETER use_mmap false\nPARAMETER num_thread 2\n"
      "PARAMETER draft_num_predict 4\nPARAMETER num_keep 5\nPARAMETER seed 42\n"
      "PARAMETER num_predict -2\nPARAMETER top_k 3\nPARAMETER top_p 0.9\nPARAMETER min_p 0.05\n"
      "PARAMETER typical_p 0.7\nPARAMETER repeat_last_n -1\nPARAMETER temperature 0\n"
      "PARAMETER repeat_penalty 1.1\nPARAMETER presence_penalty 1.5\n"
      "PARAMETER frequency_penalty 1\nPARAMETER stop \"AI assistant:\"\n"
      // Of models that were made years ago.
      "PARAMETER mirostat_tau 5.0\nPARAMETER mirostat_eta 0.1\nPARAMETER tfs_z 1\n"
      "PARAMETER penalize_newline true\nPARAMETER low_vram true\nPARAMETER f16_kv true\n"
      "PARAMETER logits_all true\nPARAMETER vocab_only true\nPARAMETER use_mlock true\n"
      "PARAMETER numa true\n");
  ASSERT_TRUE(result) << result.error().message();
  EXPECT_EQ(api::to_string(result->request.parameters),
            R"({"num_ctx":4096,"num_batch":16,"num_gpu":-1,"main_gpu":1,"use_mmap":false,)"
            R"("num_thread":2,"draft_num_predict":4,"num_keep":5,"seed":42,"num_predict":-2,)"
            R"("top_k":3,"top_p":0.9,"min_p":0.05,"typical_p":0.7,"repeat_last_n":-1,)"
            R"("temperature":0,"repeat_penalty":1.1,"presence_penalty":1.5,)"
            R"("frequency_penalty":1,"stop":["AI assistant:"]})");
  EXPECT_TRUE(api::parse_options(result->request.parameters));
}

TEST_F(PlanTest, BadParametersNameTheLine) {
  const auto unknown = plan("FROM a\n\nPARAMETER frob 1\n");
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().message(), "(line 3): unknown parameter 'frob'");
  const auto bad = plan("FROM a\nPARAMETER top_k many\n");
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().message(), "(line 2): invalid int value [many]");
}

}  // namespace
}  // namespace ollama::store
