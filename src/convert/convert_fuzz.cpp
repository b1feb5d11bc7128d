// Reads arbitrary bytes as each of the formats of a checkpoint: a safetensors header, a
// SentencePiece model, a tokenizer.json. The first byte chooses.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/log.h"
#include "convert/protobuf.h"
#include "convert/safetensors.h"
#include "convert/sentencepiece.h"
#include "convert/vocabulary.h"

namespace {

using namespace ollama;
using namespace ollama::convert;

constexpr std::size_t kRows = 300;

void require(bool condition) {
  if (!condition) std::abort();
}

void read_safetensors(std::string_view file) {
  const auto prefix = file.substr(0, kSafetensorsPrefix);
  const auto size = safetensors_header_size(prefix, file.size());
  if (!size) return;
  const auto tensors = parse_safetensors(file.substr(kSafetensorsPrefix, *size), file.size());
  if (!tensors) return;
  for (const StoredTensor& tensor : *tensors) {
    require(tensor.size <= file.size() && tensor.offset <= file.size() - tensor.size);
  }
}

void check(const Result<Vocabulary>& vocabulary) {
  if (!vocabulary) return;
  require(vocabulary->size() > 0 && vocabulary->size() <= kRows);
  require(vocabulary->types.size() == vocabulary->size());
  require(vocabulary->scores.size() == vocabulary->size());
}

void read_protobuf(std::string_view data) {
  ProtobufReader reader(data);
  std::size_t fields = 0;
  while (reader.next()) require(++fields <= data.size());
}

void read_tokenizer_json(std::string_view text) {
  const auto json = api::parse_json(text);
  const auto* object = json ? json->if_object() : nullptr;
  if (object == nullptr) return;
  const TokenizerKind kind = kind_of(*object);
  if (kind == TokenizerKind::kNone || kind == TokenizerKind::kOther) return;
  auto vocabulary = parse_tokenizer_json(*object, kind, kRows);
  check(vocabulary);
  if (!vocabulary) return;
  add_added_tokens({.tokenizer = *object}, kRows, *vocabulary);
  check(vocabulary);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  log::set_level(log::Level::kOff);
  if (size == 0) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 3) {
    case 0:
      read_safetensors(input);
      break;
    case 1:
      read_protobuf(input);
      check(parse_sentencepiece(input, kRows));
      break;
    default:
      read_tokenizer_json(input);
  }
  return 0;
}
