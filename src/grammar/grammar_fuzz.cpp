// Arbitrary bytes as a request's format: a schema, a GBNF grammar or a pattern. What compiles is
// asked for masks along an answer, and what the answer ends with must be JSON where it should be.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "grammar/constraint.h"

namespace ollama::grammar {
namespace {

std::shared_ptr<const Vocabulary> byte_tokens() {
  static const auto made = [] {
    static const std::string bytes = [] {
      std::string all;
      for (int i = 0; i < 256; ++i) all.push_back(static_cast<char>(i));
      return all;
    }();
    std::vector<std::string_view> pieces;
    for (std::size_t i = 0; i < 256; ++i) pieces.push_back(std::string_view(bytes).substr(i, 1));
    for (const char* text : {"{\"", "\":", "true", "hello", "\",\"", "\xE6\x97", "12"}) {
      pieces.emplace_back(text);
    }
    pieces.emplace_back("</s>");
    return std::make_shared<const Vocabulary>(pieces, std::vector<Token>{263});
  }();
  return made;
}

Result<GrammarPtr> compile(std::string_view text) {
  if (text.empty()) return fail(ErrorCode::kInvalidArgument, "empty");
  const char kind = text.front();
  text.remove_prefix(1);
  if (kind == 'g') return compile_gbnf(text);
  if (kind == 'p') {
    return compile_schema(
        api::JsonObject{{"type", "string"}, {"pattern", boost::json::string(text)}});
  }
  OLLAMA_ASSIGN(const api::Json schema, api::parse_json(text));
  return compile_format(schema);
}

int speak(std::string_view text) {
  const auto grammar = compile(text);
  if (!grammar) return 0;
  const auto automaton = std::make_shared<Automaton>(*grammar, byte_tokens());
  Constraint constraint(automaton);
  std::uint64_t random = text.size();
  std::string answer;
  for (int step = 0; step < 64; ++step) {
    const auto mask = constraint.mask();
    if (mask.empty()) return 0;
    random = random * 6364136223846793005ULL + 1442695040888963407ULL;
    Token token = static_cast<Token>((random >> 33) % 264);
    int tries = 0;
    while (tries++ < 264 && !has_bit(mask, token)) token = (token + 1) % 264;
    const bool may = tries <= 264;
    if (!may) {
      if (constraint.accept(token)) std::abort();
      return 0;
    }
    // What has been begun can be ended, unless it became too ambiguous.
    if (!constraint.accept(token)) {
      token = constraint.first_allowed();
      if (token == tokenizer::kNoToken) return 0;
      if (!constraint.accept(token)) std::abort();
    }
    if (token == 263) {
      if (text.front() != 'g' && !answer.empty() && !api::parse_json(answer) &&
          !text.contains("::=")) {
        std::abort();
      }
      return 0;
    }
    answer += automaton->vocabulary().piece(token);
  }
  return 0;
}

}  // namespace
}  // namespace ollama::grammar

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return ollama::grammar::speak({reinterpret_cast<const char*>(data), size});
}
