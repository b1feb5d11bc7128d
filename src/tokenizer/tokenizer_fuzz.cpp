// Encodes arbitrary bytes with small vocabularies of all kinds, and checks what must come back. The
// first byte chooses the pre-tokenizer.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <format>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.h"
#include "tokenizer/charsmap.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer/test_vocabulary.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"

namespace {

using namespace ollama;
using namespace ollama::tokenizer;

void require(bool condition) {
  if (!condition) std::abort();
}

std::vector<std::unique_ptr<Tokenizer>> make_bpe_for_all_names() {
  test::Builder builder = test::Builder::bpe();
  for (const char* text : {"th", "the", "Ġthe", "ĠĠ", "12", "123", "'s", "Ã©"}) {
    builder.token(text, 1);
  }
  for (const char* line : {"t h", "th e", "Ġ the", "Ġ Ġ", "1 2", "12 3", "' s", "Ã ©"}) {
    builder.merge(line);
  }
  builder.token("<|im_end|>", 3).token("<|x|>", 4);
  std::vector<std::unique_ptr<Tokenizer>> all;
  for (const std::string_view name : pretokenizer_names()) all.push_back(*builder.load(name));
  return all;
}

std::unique_ptr<Tokenizer> make_sentencepiece() {
  test::Builder builder;
  builder.text("tokenizer.ggml.model", "llama");
  builder.token("<unk>", 2).token("<s>", 3).token("</s>", 3);
  for (int byte = 0; byte < 256; ++byte) {
    builder.token(std::format("<0x{:02X}>", byte), 6);
  }
  float score = 0;
  for (const char* text : {"▁t", "he", "▁the", "▁▁", "t", "h", "e", "▁", "é"}) {
    builder.token(text, 1, --score);
  }
  return *builder.load("");
}

std::unique_ptr<Tokenizer> make_unigram() {
  test::Builder builder = test::Builder::unigram();
  float score = 0;
  for (const char* text : {"▁t", "he", "▁the", "▁", "t", "h", "e", "é", "th", "▁▁"}) {
    builder.token(text, 1, --score);
  }
  builder.token("<x>", 4).flag("tokenizer.ggml.add_space_prefix", true);
  return *builder.rules(test::charsmap({{"e\u0301", "é"}, {"\t", " "}, {"\u200E", ""}})).load("");
}

// Rules from a file, and a text that they are for.
void read_rules(std::string_view bytes) {
  const auto rules = Charsmap::parse(bytes);
  if (!rules) return;
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    const Charsmap::Rule rule = rules->find(bytes.substr(at));
    require(rule.length <= bytes.size() - at && rule.length <= Charsmap::kLongest);
    require(rule.length > 0 || rule.replacement.empty());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  log::set_level(log::Level::kOff);
  static const auto bpe = make_bpe_for_all_names();
  static const auto sentencepiece = make_sentencepiece();
  if (size == 0) return 0;
  const std::string text(reinterpret_cast<const char*>(data + 1), size - 1);

  const Tokenizer& by_name = *bpe[data[0] % bpe.size()];
  const utf8::CleanText clean(text);
  const std::string decoded = by_name.decode(by_name.encode(text));
  // The small vocabulary has no characters for raw BPE, which then has nothing to say.
  require(decoded == clean.bytes() || decoded.size() < clean.bytes().size());
  by_name.encode(text, {.add_special = true, .parse_special = true});

  std::string blanked;
  for (std::size_t at = 0; at < text.size();) {
    const bool blank = text.compare(at, utf8::kBlankSymbol.size(), utf8::kBlankSymbol) == 0;
    blanked += blank ? ' ' : text[at];
    at += blank ? utf8::kBlankSymbol.size() : 1;
  }
  require(sentencepiece->decode(sentencepiece->encode(text)) == blanked);

  static const auto unigram = make_unigram();
  const std::vector<Token> tokens = unigram->encode(text, {.parse_special = true});
  require(tokens == unigram->encode(text, {.parse_special = true}));
  for (const Token token : tokens) {
    require(token >= 0 && static_cast<std::size_t>(token) < unigram->vocab_size());
  }
  read_rules(text);

  StreamDecoder decoder;
  std::string streamed;
  for (const char c : text) decoder.push(std::string_view(&c, 1), streamed);
  decoder.flush(streamed);
  for (std::size_t at = 0; at < streamed.size();) {
    const utf8::Step step = utf8::scan_strict(std::string_view(streamed).substr(at));
    require(step.status == utf8::Status::kComplete);
    at += step.length;
  }
  return 0;
}
