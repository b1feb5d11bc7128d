// The interactive prompt: one line at a time, with editing, history and bracketed paste, by
// libedit.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "cmd/history.h"

namespace ollama::cmd {

class LineEditor {
 public:
  enum class Kind : std::uint8_t {
    kLine,
    kInterrupt,  // Ctrl-C
    kEdit,       // Ctrl-G: the text is to be finished in an editor
    kEnd,        // Ctrl-D, or the terminal is gone
  };
  struct Input {
    Kind kind = Kind::kEnd;
    std::string text;      // UTF-8, without the line's end
    bool pasting = false;  // the rest of a paste follows
  };

  // Reads from standard input and draws on standard output, which must be a terminal. The entries
  // of `history` can be recalled; lines that are read are not added.
  explicit LineEditor(const History& history);
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  // The placeholder is shown in grey while the line is empty and the terminal wide enough.
  Input read(std::string_view prompt, std::string_view placeholder);
  // Makes a line available to be recalled.
  void remember(std::string_view line);
  // The next line begins with this text, which has no line breaks.
  void prefill(std::string_view text);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ollama::cmd
