// What is printed: wrapped answers, tables, times, progress, models.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "cmd/human_time.h"
#include "cmd/progress.h"
#include "cmd/show_info.h"
#include "cmd/summary.h"
#include "cmd/table.h"
#include "cmd/terminal.h"
#include "cmd/word_wrap.h"

namespace ollama::cmd {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// ---- Width

TEST(Width, CountsColumnsNotBytes) {
  EXPECT_EQ(display_width("abc"), 3U);
  EXPECT_EQ(display_width("äöü"), 3U);
  EXPECT_EQ(display_width("日本"), 4U);
  EXPECT_EQ(display_width("e\u0301"), 1U) << "a combining accent takes no column";
  EXPECT_EQ(display_width("\xff"), 1U) << "invalid bytes count as a replacement character";
  EXPECT_EQ(fit_width("日本語", 5), "日本");
}

TEST(Width, FindsUnfinishedCharacters) {
  EXPECT_EQ(unfinished_bytes("abc"), 0U);
  EXPECT_EQ(unfinished_bytes("é"), 0U);
  EXPECT_EQ(unfinished_bytes("a\xc3"), 1U);
  EXPECT_EQ(unfinished_bytes("\xe6\x97"), 2U);
  EXPECT_EQ(unfinished_bytes("\xf0\x9f\x98"), 3U);
  EXPECT_EQ(unfinished_bytes("\x80\x80\x80"), 0U) << "stray bytes will never be a character";
}

// ---- Word wrap

// As much of a terminal as WordWrap uses.
std::vector<std::string> on_terminal(std::string_view output) {
  std::vector<std::vector<std::string>> lines(1);  // cells; the second of a wide one is empty
  std::size_t column = 0;
  while (!output.empty()) {
    if (output.starts_with("\x1b[")) {
      std::size_t end = output.find_first_of("DK");
      if (output[end] == 'D') {
        column -= static_cast<std::size_t>(std::stoul(std::string(output.substr(2, end - 2))));
      } else {
        lines.back().resize(column);
      }
      output.remove_prefix(end + 1);
      continue;
    }
    const Character character = take_character(output);
    if (character.code_point == U'\n') {
      lines.emplace_back();
      column = 0;
    } else if (character.width == 0) {
      if (column > 0) lines.back()[column - 1] += character.bytes;
    } else {
      lines.back().resize(column);
      lines.back().emplace_back(character.bytes);
      lines.back().resize(column + character.width);
      column += character.width;
    }
  }
  std::vector<std::string> result;
  for (const auto& line : lines) {
    std::string& text = result.emplace_back();
    for (const std::string& cell : line) text += cell;
  }
  return result;
}

std::vector<std::string> wrapped(std::string_view text, std::size_t columns,
                                 std::size_t piece = 1) {
  WordWrap wrap;
  std::string output;
  for (std::size_t i = 0; i < text.size(); i += piece) {
    output += wrap.add(text.substr(i, piece), columns);
  }
  return on_terminal(output);
}

TEST(WordWrap, BreaksLinesAtBlanks) {
  EXPECT_THAT(wrapped("the quick brown fox jumps", 12),
              ElementsAre("the quick ", "brown fox ", "jumps"));
}

TEST(WordWrap, KeepsTheTextsOwnLines) {
  EXPECT_THAT(wrapped("one\ntwo\n\nthree", 20), ElementsAre("one", "two", "", "three"));
}

TEST(WordWrap, BreaksAWordThatIsLongerThanALine) {
  EXPECT_THAT(wrapped("abcdefghijklmnopqrstuvwxyz", 11),
              ElementsAre("abcdefghij", "klmnopqrst", "uvwxyz"));
}

TEST(WordWrap, WideCharactersNeverHangOverTheEdge) {
  EXPECT_THAT(wrapped("日本語日本語", 10), ElementsAre("日本語日", "本語"));
}

TEST(WordWrap, LeavesLinesAloneWithoutAWidth) {
  EXPECT_THAT(wrapped("the quick brown fox jumps", 0), ElementsAre("the quick brown fox jumps"));
}

// An answer must not be able to drive the terminal: no titles, no cursor keys, no clipboard.
TEST(WordWrap, DropsControlCharacters) {
  WordWrap wrap;
  EXPECT_EQ(wrap.add("a\x1b]0;title\x07 b\r\n\xc2\x9b"
                     "31m\x7f",
                     0),
            "a]0;title b\n31m");
}

RC_GTEST_PROP(WordWrap, NoLineIsTooWideAndNoWordIsLost, ()) {
  const auto words = *rc::gen::container<std::vector<std::string>>(
      rc::gen::element<std::string>("a", "to", "word", "longer", "überlänge", "日本", "😀",
                                    "supercalifragilistic", "e\u0301te\u0301", "\n", " "));
  const std::size_t columns = *rc::gen::inRange<std::size_t>(10, 40);
  const std::size_t piece = *rc::gen::inRange<std::size_t>(1, 5);
  std::string text;
  for (const std::string& word : words) text += word + " ";
  std::string expected;
  for (const char c : text) {
    if (c != ' ' && c != '\n') expected += c;
  }
  std::string shown;
  for (const std::string& line : wrapped(text, columns, piece)) {
    RC_ASSERT(display_width(line) < columns);
    for (const char c : line) {
      if (c != ' ') shown += c;
    }
  }
  RC_ASSERT(shown == expected);
}

// ---- Tables

TEST(Table, PadsLikeOllama) {
  EXPECT_EQ(format_table({"NAME", "ID", "SIZE", "MODIFIED"},
                         {{"model1", "sha256:abc12", "1.0 KB", "24 hours ago"},
                          {"model2", "sha256:def45", "2.0 KB", "2 days ago"}}),
            "NAME      ID              SIZE      MODIFIED     \n"
            "model1    sha256:abc12    1.0 KB    24 hours ago    \n"
            "model2    sha256:def45    2.0 KB    2 days ago      \n");
}

TEST(Table, PadsByColumns) {
  EXPECT_EQ(format_table({"A", "B"}, {{"日本", "x"}, {"abc", "y"}}),
            "A       B \n日本    x    \nabc     y    \n");
}

TEST(Table, WrapsLongCellsAtBlanks) {
  EXPECT_EQ(format_table({}, {{"", "aaa bbb ccc", "x"}}, {.max_cell = 7}),
            "    aaa bbb    x    \n    ccc             \n");
  EXPECT_EQ(format_table({}, {{"unbreakable"}}, {.max_cell = 4}), "unbreakable    \n");
}

// ---- Times

TEST(HumanTime, SaysItAsPeopleDo) {
  EXPECT_EQ(human_duration(std::chrono::milliseconds(300)), "Less than a second");
  EXPECT_EQ(human_duration(seconds(1)), "1 second");
  EXPECT_EQ(human_duration(seconds(59)), "59 seconds");
  EXPECT_EQ(human_duration(seconds(60)), "About a minute");
  EXPECT_EQ(human_duration(minutes(4)), "4 minutes");
  EXPECT_EQ(human_duration(minutes(60)), "About an hour");
  EXPECT_EQ(human_duration(hours(24)), "24 hours");
  EXPECT_EQ(human_duration(hours(48)), "2 days");
  EXPECT_EQ(human_duration(hours(24 * 14)), "2 weeks");
  EXPECT_EQ(human_duration(hours(24 * 61)), "2 months");
  EXPECT_EQ(human_duration(hours(24 * 365 * 3)), "3 years");
}

TEST(HumanTime, IsRelative) {
  const api::Time now = api::Time(hours(24 * 365 * 56));
  EXPECT_EQ(human_time(now + minutes(5), now, "Never"), "5 minutes from now");
  EXPECT_EQ(human_time(now - hours(24 * 14), now, "Never"), "2 weeks ago");
  EXPECT_EQ(human_time({}, now, "Never"), "Never");
  EXPECT_EQ(human_time(api::Time::max(), now, "Never"), "Forever");
}

// ---- Progress

TEST(Progress, BarFitsTheTerminal) {
  const BarState state{.message = "pulling 6a0746a1ec1a:",
                       .completed = 2'100'000'000,
                       .total = 4'700'000'000,
                       .bytes_per_second = 35'000'000};
  for (const std::size_t columns : {20U, 60U, 80U, 200U}) {
    EXPECT_LE(display_width(format_bar(state, columns)), columns);
  }
  const std::string bar = format_bar(state, 100);
  EXPECT_EQ(display_width(bar), 100U);
  EXPECT_THAT(bar, HasSubstr("pulling 6a0746a1ec1a:  44% ▕"));
  EXPECT_THAT(bar, HasSubstr("2.1 GB/4.7 GB"));
  EXPECT_THAT(bar, HasSubstr("1m14s"));
}

TEST(Progress, BarSurvivesWhatServersSay) {
  EXPECT_THAT(format_bar({.message = "x", .completed = 5, .total = 0}, 80), HasSubstr("0%"));
  EXPECT_THAT(format_bar({.message = "x", .completed = 9, .total = 3}, 80), HasSubstr("100%"));
}

// ---- Timings and models

TEST(Summary, AlignsAndLeavesOutWhatIsZero) {
  api::Metrics metrics;
  metrics.total_duration = std::chrono::milliseconds(1500);
  metrics.eval_count = 100;
  metrics.eval_duration = seconds(2);
  EXPECT_EQ(format_summary(metrics),
            "total duration:       1.5s\n"
            "eval count:           100 token(s)\n"
            "eval duration:        2s\n"
            "eval rate:            50.00 tokens/s\n");
}

TEST(ShowInfo, PrintsBoxesLikeOllama) {
  api::ShowResponse model;
  model.model_info = {{"general.architecture", "llama"},
                      {"general.parameter_count", 7'000'000'000},
                      {"llama.context_length", 131072},
                      {"llama.embedding_length", 1000000}};
  model.details.quantization_level = "Q4_K_M";
  model.capabilities = {"completion"};
  model.parameters = "stop    \"<|end|>\"\ntemperature    0.7";
  model.license = "\n MIT License\n\n Copyright\n third line\n";
  EXPECT_EQ(format_model(model, false),
            "  Model\n"
            "    architecture        llama      \n"
            "    parameters          7B         \n"
            "    context length      131072     \n"
            "    embedding length    1000000    \n"
            "    quantization        Q4_K_M     \n"
            "\n"
            "  Capabilities\n"
            "    completion    \n"
            "\n"
            "  Parameters\n"
            "    stop           \"<|end|>\"    \n"
            "    temperature    0.7          \n"
            "\n"
            "  License\n"
            "    MIT License    \n"
            "    Copyright      \n"
            "    ...            \n"
            "\n");
}

TEST(ShowInfo, VerboseShortensArrays) {
  api::ShowResponse model;
  model.model_info = {{"general.architecture", "llama"},
                      {"tokenizer.ggml.scores", {0.5, 1, 2, 3, 4, 5, 6}}};
  model.tensors = {{.name = "output.weight", .type = "Q6_K", .shape = {64, 512}}};
  const std::string text = format_model(model, true);
  EXPECT_THAT(text, HasSubstr("[0.5 1 2 ...+4 more]"));
  EXPECT_THAT(text, HasSubstr("output.weight    Q6_K    [64 512]"));
}

// A server may leave out, or send in other types, anything.
TEST(ShowInfo, PrintsWhatThereIs) {
  api::ShowResponse model;
  model.model_info = {{"general.architecture", 3}, {"general.parameter_count", "many"}};
  model.details.family = "llama";
  model.details.parameter_size = "1B";
  EXPECT_THAT(format_model(model, true), HasSubstr("parameters      1B"));
}

}  // namespace
}  // namespace ollama::cmd
