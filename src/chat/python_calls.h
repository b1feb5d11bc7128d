// Internal to chat: calls of tools as Python writes them, [f(a=1, b="x"), g()].
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/types.h"

namespace ollama::chat {

// Reads from the beginning of a text. What gives nullopt is none, or where rest() has come to an
// end, not all of it.
class PythonReader {
 public:
  explicit PythonReader(std::string_view text) : rest_(text) {}

  // With brackets around them; where `bare` ones will do as well, also without.
  std::optional<std::vector<api::ToolCall>> calls(bool bare = false);
  // A list, a dictionary, a text, a number.
  std::optional<api::Json> value() { return value(0); }
  std::string_view rest() const { return rest_; }

 private:
  std::optional<api::ToolCall> call();
  std::string word();
  std::optional<api::Json> value(int depth);
  std::optional<api::Json> number();
  bool at_string() const;
  std::optional<std::string> strings();
  bool string(std::string& out);
  void escape(std::string& out);
  std::optional<char32_t> code(std::size_t digits);
  std::optional<api::Json> list(int depth);
  std::optional<api::Json> dictionary(int depth);
  void skip();
  // After blanks, and with those behind it.
  bool take(char c);

  std::string_view rest_;
};

}  // namespace ollama::chat
