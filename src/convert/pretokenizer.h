// Internal to convert: which value of tokenizer.ggml.pre names what a tokenizer.json spells out.
#pragma once

#include <string>

#include "api/types.h"
#include "base/error.h"

namespace ollama::convert {

// `pre_tokenizer` of a byte-level vocabulary; `whole_words`: words that are tokens are not merged
// ("ignore_merges"). Errors: kUnsupported, with the steps: texts would be cut in other places than
// the model was trained with.
Result<std::string> identify_pretokenizer(const api::JsonObject* pre_tokenizer, bool whole_words);

}  // namespace ollama::convert
