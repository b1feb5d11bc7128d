// What an answer may say before the text that a grammar binds: a model's thinking.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ollama::grammar {

class Preamble {
 public:
  struct Options {
    std::string open;                // begins it: an answer that begins otherwise has none
    std::vector<std::string> close;  // at least one, none empty: it ends behind the last of these,
                                     // which come one after the other
    std::string ending;  // holds all of `close`: to be said where the model would end inside
    bool may_end =
        false;  // the answer may end inside, as with a call of a tool; then nothing is said
    bool begun = false;  // it has been begun by the prompt
  };
  explicit Preamble(Options options);

  // What becomes of a token that a model chose freely.
  enum class Verdict : std::uint8_t {
    kTake,  // it is said
    kSay,   // to_say() is said in its place, and taken
    kBind,  // there is no preamble, or no more: the choice is the grammar's
  };
  // `ends`: the token ends the answer.
  Verdict judge(std::string_view piece, bool ends);
  std::string_view to_say() const {
    return where_ == Where::kBefore ? options_.open : options_.ending;
  }
  // The text of a token that was said.
  void take(std::string_view piece);
  // Whether the grammar binds what comes next.
  bool over() const { return where_ == Where::kOver; }

 private:
  enum class Where : std::uint8_t { kBefore, kInside, kBehind, kOver };

  struct Found {
    std::size_t marks = 0;  // of the closing marks
    std::size_t end = 0;    // of the last of them, in the text
  };
  Found find_marks(std::string_view text) const;
  bool closes_and_goes_on(std::string_view piece);
  Verdict say();

  Options options_;
  Where where_ = Where::kBefore;
  std::optional<Where> said_in_;
  std::size_t next_mark_ = 0;  // that has not come yet
  std::string tail_;           // text in which it may have begun
};

}  // namespace ollama::grammar
