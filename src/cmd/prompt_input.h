// Makes messages and commands of the lines typed at the prompt: """ blocks, pasted text, and lines
// that begin with a slash.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace ollama::cmd {

class PromptInput {
 public:
  enum class Kind : std::uint8_t {
    kNothing,  // an empty line
    kMore,     // the text goes on in the next line
    kMessage,  // for the model
    kSystem,   // a system message's text is complete
    kCommand,  // begins with a slash
  };
  struct Event {
    Kind kind = Kind::kNothing;
    std::string text;
    bool operator==(const Event&) const = default;
  };

  // The next line, without its end. `pasting`: it comes from a paste that goes on after it; such
  // lines are text, never commands, and wait for one that is typed.
  Event add(std::string_view line, bool pasting = false);

  // `/set system` and what follows it: at once, or as a block when it begins with """.
  Event begin_system(std::string_view text);

  // Text is waiting for its end: for """, or, after a paste, for Enter.
  bool continues() const { return in_block() || !text_.empty(); }
  bool in_block() const { return block_ != Block::kNone; }
  // Ctrl-C: forgets what was typed so far.
  void reset();

 private:
  enum class Block : std::uint8_t { kNone, kMessage, kSystem };
  Event begin_block(Block block, std::string_view line);
  Event finish(Kind kind);

  Block block_ = Block::kNone;
  std::string text_;
};

}  // namespace ollama::cmd
