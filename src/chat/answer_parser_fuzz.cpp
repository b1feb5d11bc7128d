// Arbitrary bytes as a model's answer. The first four choose how it is read: the syntax of calls
// ('0' and on), options, and the sizes of the pieces that it comes in. What comes out is the same
// however it is cut, calls only what was offered, and loses nothing that is said or thought.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

#include "chat/answer_parser.h"
#include "chat/tool_syntax.h"

namespace ollama::chat {
namespace {

using std::string_view;

constexpr std::size_t kHeader = 4;
constexpr std::size_t kSyntaxes = static_cast<std::size_t>(ToolSyntax::kNone) + 1;
constexpr std::array<std::pair<string_view, string_view>, 3> kThinkMarks{
    {{"<think>", "</think>"}, {"[THINK]", "[/THINK]"}, {"<|START_THINKING|>", "<|END_THINKING|>"}}};

void require(bool holds) {
  if (!holds) std::abort();
}

struct Reading {
  AnswerFormat format;
  AnswerParser::Options options;
  std::array<std::size_t, 2> sizes{1, 1};  // of pieces, in turn
};

Reading reading_of(string_view header) {
  const auto choice = [&](std::size_t i) {
    return static_cast<std::size_t>(static_cast<unsigned char>(header[i] - '0'));
  };
  Reading reading;
  reading.format.syntax = static_cast<ToolSyntax>(choice(0) % kSyntaxes);
  const std::size_t bits = choice(1);
  if ((bits & 1) != 0) {
    const auto& [open, close] = kThinkMarks[(bits >> 4) % kThinkMarks.size()];
    reading.format.think_open = open;
    reading.format.think_close = close;
  }
  reading.options.thinking = (bits & 2) != 0;
  reading.options.inside_thinking = (bits & 4) != 0;
  if ((bits & 8) != 0) reading.options.tools = {"f", "get_weather"};
  reading.format.calls_end_thinking = (bits & 64) != 0;
  reading.format.trims_text = (bits & 128) != 0;
  reading.options.ranges = true;
  reading.sizes = {choice(2) % 16 + 1, choice(3) % 64 + 1};
  return reading;
}

AnswerPiece parse(const Reading& reading, string_view answer,
                  const std::array<std::size_t, 2>& sizes) {
  AnswerParser parser(reading.format, reading.options);
  AnswerPiece all;
  for (std::size_t turn = 0; !answer.empty(); ++turn) {
    const string_view piece = answer.substr(0, sizes[turn % sizes.size()]);
    all.append(parser.feed(piece));
    answer.remove_prefix(piece.size());
  }
  all.append(parser.finish());
  require(parser.finish().empty());
  return all;
}

bool same(const AnswerPiece& a, const AnswerPiece& b) {
  return a.text == b.text && a.thinking == b.thinking && a.calls == b.calls;
}

std::string without_blanks(string_view text) {
  std::string result(text);
  std::erase_if(result, [](char c) { return string_view(" \t\r\n").contains(c); });
  return result;
}

// Without calls the answer ends with the text; before it there are only marks, thoughts and blanks.
void check_plain(const Reading& reading, string_view answer, const AnswerPiece& got) {
  require(answer.ends_with(got.text));
  const bool tells = reading.options.thinking && !reading.format.think_open.empty();
  if (!tells) {
    require(got.text == answer);
    return;
  }
  answer.remove_suffix(got.text.size());
  const std::string before = without_blanks(answer);
  const std::string thinking = without_blanks(got.thinking);
  const auto fits = [&](string_view open) {
    string_view rest = before;
    for (const string_view part : {open, string_view(thinking)}) {
      if (!rest.starts_with(part)) return false;
      rest.remove_prefix(part.size());
    }
    return rest.empty() || rest == reading.format.think_close;
  };
  // What the prompt has opened may be opened again.
  const bool bare = reading.options.inside_thinking || before.empty();
  require(fits(reading.format.think_open) || (bare && fits({})));
}

// What stands between the marks of gpt-oss, but for headers, is thought or said.
void check_harmony(string_view answer, const AnswerPiece& got) {
  static constexpr std::array<string_view, 7> kMarks{"<|start|>",     "<|channel|>", "<|message|>",
                                                     "<|constrain|>", "<|end|>",     "<|call|>",
                                                     "<|return|>"};
  std::string kept;
  bool header = false;
  while (!answer.empty()) {
    const auto mark =
        std::ranges::find_if(kMarks, [&](string_view each) { return answer.starts_with(each); });
    if (mark != kMarks.end()) {
      header = *mark != "<|message|>";
      answer.remove_prefix(mark->size());
    } else {
      if (!header) kept += answer.front();
      answer.remove_prefix(1);
    }
  }
  std::string told = got.text + got.thinking;
  std::ranges::sort(kept);
  std::ranges::sort(told);
  require(told == kept);
}

bool has_silent_marks(const Reading& reading, string_view answer) {
  return std::ranges::any_of(call_syntax(reading.format.syntax).silent,
                             [&](string_view mark) { return answer.contains(mark); });
}

// The text stood where it is told to have stood.
void check_ranges(string_view answer, const AnswerPiece& got) {
  std::string stood;
  std::size_t last = 0;
  for (const auto& [begin, end] : got.ranges) {
    require(last <= begin && begin < end && end <= answer.size());
    stood += answer.substr(begin, end - begin);
    last = end;
  }
  require(stood == got.text);
}

void check(string_view bytes) {
  if (bytes.size() < kHeader) return;
  const Reading reading = reading_of(bytes.substr(0, kHeader));
  const string_view answer = bytes.substr(kHeader);
  const AnswerPiece whole = parse(reading, answer, {answer.size() + 1, 1});
  require(same(whole, parse(reading, answer, reading.sizes)));
  require(same(whole, parse(reading, answer, {1, 1})));
  if (!has_silent_marks(reading, answer)) check_ranges(answer, whole);
  for (std::size_t i = 0; i < whole.calls.size(); ++i) {
    require(std::ranges::contains(reading.options.tools, whole.calls[i].name));
    require(whole.calls[i].index == static_cast<std::int32_t>(i));
  }
  if (!whole.calls.empty()) return;
  if (reading.format.syntax == ToolSyntax::kHarmony) {
    if (reading.options.thinking) check_harmony(answer, whole);
  } else if (reading.format.syntax < ToolSyntax::kHarmony && !reading.format.trims_text &&
             !reading.format.calls_end_thinking && !has_silent_marks(reading, answer)) {
    check_plain(reading, answer, whole);  // the others have marks and blanks that say nothing
  }
}

}  // namespace
}  // namespace ollama::chat

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ollama::chat::check({reinterpret_cast<const char*>(data), size});
  return 0;
}
