// Wraps text at blanks while it arrives, on a terminal. Words are shown as soon as their first
// letters are there: one that turns out not to fit is taken back and written on the next line.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace ollama::cmd {

class WordWrap {
 public:
  // What to write to the terminal for the next piece of text. `columns` is the terminal's width
  // now; 0 leaves the lines as they are. Control characters are dropped, a character that is not
  // complete yet is kept for the next call.
  std::string add(std::string_view text, std::size_t columns);

 private:
  void put(std::string_view bytes, char32_t code_point, std::size_t width, std::size_t limit,
           std::string& out);

  std::size_t line_ = 0;  // columns used of the current line
  std::string word_;      // what has been written of the current word
  std::size_t word_width_ = 0;
  std::string unfinished_;  // the first bytes of a character
};

}  // namespace ollama::cmd
