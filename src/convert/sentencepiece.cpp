#include "convert/sentencepiece.h"

#include <cmath>

#include "convert/protobuf.h"

namespace ollama::convert {
namespace {

using Field = ProtobufReader::Field;

// Numbers of the fields, and values, in sentencepiece_model.proto.
constexpr std::uint32_t kPieces = 1, kTrainer = 2, kNormalizer = 3;
constexpr std::uint32_t kPieceText = 1, kPieceScore = 2, kPieceType = 3;
constexpr std::uint32_t kTrainerModelType = 3;
constexpr std::uint32_t kNormalizerDummyPrefix = 3;
constexpr std::uint64_t kUnigram = 1, kBpe = 2;

std::unexpected<Error> no_model() {
  return fail(ErrorCode::kCorrupt, "tokenizer.model is no SentencePiece model");
}

Result<> add_piece(std::string_view data, Vocabulary& vocabulary) {
  ProtobufReader reader(data);
  std::string text;
  float score = 0;
  std::uint64_t type = static_cast<std::uint64_t>(TokenType::kNormal);
  while (const auto field = reader.next()) {
    if (field->number == kPieceText && field->is_bytes) text = field->bytes;
    if (field->number == kPieceScore) score = field->as_float();
    if (field->number == kPieceType) type = field->integer;
  }
  // The types' numbers are the model file's.
  if (reader.failed() || type < 1 || type > 6) return no_model();
  vocabulary.set(vocabulary.size(), std::move(text), static_cast<TokenType>(type),
                 std::isfinite(score) ? score : 0.0F);
  return {};
}

// The last value of a number in a message, or `fallback`.
Result<std::uint64_t> find_integer(std::string_view message, std::uint32_t number,
                                   std::uint64_t fallback) {
  ProtobufReader reader(message);
  while (const auto field = reader.next()) {
    if (field->number == number && !field->is_bytes) fallback = field->integer;
  }
  if (reader.failed()) return no_model();
  return fallback;
}

}  // namespace

Result<Vocabulary> parse_sentencepiece(std::string_view data, std::size_t rows) {
  Vocabulary vocabulary{.model = "llama", .pre = "default", .add_space_prefix = true};
  std::uint64_t kind = kUnigram;
  ProtobufReader reader(data);
  while (const auto field = reader.next()) {
    if (!field->is_bytes) continue;
    if (field->number == kPieces && vocabulary.size() < rows) {
      OLLAMA_TRY(add_piece(field->bytes, vocabulary));
    } else if (field->number == kTrainer) {
      OLLAMA_ASSIGN(kind, find_integer(field->bytes, kTrainerModelType, kind));
    } else if (field->number == kNormalizer) {
      OLLAMA_ASSIGN(const std::uint64_t prefix,
                    find_integer(field->bytes, kNormalizerDummyPrefix, 1));
      vocabulary.add_space_prefix = prefix != 0;
    }
  }
  if (reader.failed() || vocabulary.size() == 0) return no_model();
  if (kind != kBpe) {
    return fail(
        ErrorCode::kUnsupported,
        "tokenizer.model is a SentencePiece model of kind {}: only BPE (2) can be converted", kind);
  }
  return vocabulary;
}

}  // namespace ollama::convert
