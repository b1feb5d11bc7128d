#include "cmd/word_wrap.h"

#include <format>

#include "cmd/terminal.h"

namespace ollama::cmd {
namespace {
constexpr std::size_t kNarrowest = 10;  // below it, wrapping only makes things worse
constexpr std::size_t kTabStop = 8;
}  // namespace

std::string WordWrap::add(std::string_view text, std::size_t columns) {
  std::string joined;
  if (!unfinished_.empty()) {
    joined = unfinished_ + std::string(text);
    unfinished_.clear();
    text = joined;
  }
  const std::size_t held = unfinished_bytes(text);
  unfinished_ = text.substr(text.size() - held);
  text.remove_suffix(held);

  // The last column stays free: terminals differ in where the cursor is after a character there.
  const std::size_t limit = columns < kNarrowest ? 0 : columns - 1;
  std::string out;
  out.reserve(text.size() + 16);
  while (!text.empty()) {
    const Character character = take_character(text);
    if (!is_printable(character.code_point)) continue;
    const bool invalid = character.code_point == U'�' && character.bytes.size() == 1;
    put(invalid ? "�" : character.bytes, character.code_point, character.width, limit, out);
  }
  return out;
}

void WordWrap::put(std::string_view bytes, char32_t code_point, std::size_t width,
                   std::size_t limit, std::string& out) {
  const auto forget_word = [this] {
    word_.clear();
    word_width_ = 0;
  };
  if (code_point == U'\n') {
    out += '\n';
    line_ = 0;
    forget_word();
    return;
  }
  const bool blank = code_point == U' ' || code_point == U'\t';
  if (code_point == U'\t') width = kTabStop - line_ % kTabStop;

  if (limit != 0 && line_ + width > limit) {
    if (blank) {  // the line break stands for it
      out += '\n';
      line_ = 0;
      forget_word();
      return;
    }
    if (word_width_ > 0 && word_width_ < line_ && word_width_ + width <= limit) {
      out += std::format("\x1b[{}D{}\n{}", word_width_, kClearToEnd, word_);
      line_ = word_width_;
    } else {  // one word that is longer than a line, or text without blanks
      out += '\n';
      line_ = 0;
      forget_word();
    }
  }
  out += bytes;
  line_ += width;
  if (blank || width >= 2) {  // a line may end after a wide (East Asian) character
    forget_word();
  } else {
    word_ += bytes;
    word_width_ += width;
  }
}

}  // namespace ollama::cmd
