// Internal to convert: tokenizer.model, a vocabulary of SentencePiece's (a ModelProto).
#pragma once

#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "convert/vocabulary.h"

namespace ollama::convert {

// Of at most `rows` tokens. Errors: kCorrupt, kUnsupported (a unigram model, which is tokenized
// otherwise).
Result<Vocabulary> parse_sentencepiece(std::string_view data, std::size_t rows);

}  // namespace ollama::convert
