#include "tokenizer/tokenizer.h"

#include <algorithm>

#include "tokenizer/utf8.h"
#include "tokenizer/vocabulary.h"

namespace ollama::tokenizer {
namespace {

constexpr std::size_t kLlama3Vocabulary = 128256;

// The pre-tokenizer that a file means. Some published files name none, or a wrong one.
std::string_view pretokenizer_of(const gguf::File& file) {
  const std::string_view pre = file.string("tokenizer.ggml.pre").value_or("");
  const std::string_view architecture = file.architecture();
  if (architecture == "gptoss" || architecture == "gpt-oss") return "gpt-4o";
  if (!pre.empty() && pre != "default") return pre;
  if (architecture == "lfm2") return "lfm2";
  if (architecture == "llama" &&
      file.strings("tokenizer.ggml.tokens").size() == kLlama3Vocabulary) {
    return "llama-bpe";
  }
  return pre;
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> load(const gguf::File& file, const LoadOptions& options) {
  OLLAMA_ASSIGN(const std::string_view model, file.require_string("tokenizer.ggml.model"));
  if (model == "llama") return make_sentencepiece(file);
  if (model == "bert") return make_wordpiece(file);
  if (model == "t5") return make_unigram(file);
  if (model == "gpt2" || model == "gemma4") {
    if (!options.pre.empty()) return make_bpe(file, options.pre);
    return make_bpe(file, model == "gemma4" ? "gemma4" : pretokenizer_of(file));
  }
  return fail(ErrorCode::kUnsupported,
              "vocabularies of the kind '{}' (tokenizer.ggml.model) are not supported", model);
}

std::string Tokenizer::decode(std::span<const Token> tokens, bool special) const {
  std::string text;
  bool at_start = adds_leading_blank();
  for (const Token token : tokens) {
    std::string_view part = piece(token, special);
    if (part.empty()) continue;
    if (at_start && part.starts_with(' ')) part.remove_prefix(1);
    at_start = false;
    text += part;
  }
  return text;
}

Result<std::vector<Pair>> encode_pairs(const Tokenizer& tokenizer, std::string_view first,
                                       std::span<const std::string> seconds, std::size_t most) {
  const SpecialTokens& special = tokenizer.special();
  std::vector<Token> begin = tokenizer.encode(first, {.add_special = true});
  // Where a file says that a separator comes and EOS does not, it means WordPiece's only one.
  if (special.add_separator &&
      (special.add_eos || begin.empty() || begin.back() != special.separator)) {
    begin.push_back(special.separator);
  }
  const std::size_t room = most - std::min(begin.size(), most);
  std::vector<Pair> pairs;
  pairs.reserve(seconds.size());
  for (const std::string& second : seconds) {
    std::vector<Token> tokens = tokenizer.encode(second, {.add_special = true});
    if (special.add_bos && !tokens.empty() && tokens.front() == special.bos) {
      tokens.erase(tokens.begin());
    }
    if (tokens.size() > room) {
      if (room < 2) {
        return fail(ErrorCode::kInvalidArgument,
                    "{} tokens of the query leave no room for a document in the context of {}",
                    begin.size(), most);
      }
      const Token last = tokens.back();  // a closing token, where the model has one
      tokens.resize(room);
      if (tokenizer.is_control(last)) tokens.back() = last;
    }
    tokens.insert(tokens.begin(), begin.begin(), begin.end());
    pairs.push_back({.tokens = std::move(tokens), .second = begin.size()});
  }
  return pairs;
}

void StreamDecoder::push(std::string_view piece, std::string& out) {
  // Nearly always the piece is whole characters and nothing is held back.
  if (held_.empty() && utf8::ascii_prefix(piece) == piece.size()) {
    out += piece;
    return;
  }
  std::string joined;
  if (!held_.empty()) {
    joined = held_;
    joined += piece;
    piece = joined;
    held_.clear();
  }
  while (!piece.empty()) {
    const utf8::Step step = utf8::scan_strict(piece);
    if (step.status == utf8::Status::kUnfinished) {
      held_ = piece;
      return;
    }
    if (step.status == utf8::Status::kComplete) {
      out += piece.substr(0, step.length);
    } else {
      out += utf8::kReplacementText;
    }
    piece.remove_prefix(step.length);
  }
}

void StreamDecoder::flush(std::string& out) {
  if (!held_.empty()) out += utf8::kReplacementText;
  held_.clear();
}

}  // namespace ollama::tokenizer
