// Internal to convert: what config.json says of a model, and the keys that say so in a model file.
#pragma once

#include <cstdint>
#include <optional>

#include "convert/architecture.h"
#include "convert/config.h"
#include "convert/source.h"
#include "gguf/writer.h"

namespace ollama::convert {

struct Hyperparameters {
  std::int64_t layers = 0;
  std::int64_t context = 0;
  std::int64_t width = 0;
  std::int64_t inner = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head = 0;        // dimensions of a head
  std::int64_t rotated = 0;     // how many of them are rotated
  std::int64_t vocabulary = 0;  // rows of the embedding
  std::int64_t segments = 0;    // of BERT's inputs
  std::int64_t padding = 0;     // rows of the positions' embedding before the first one's
  std::int64_t labels = 0;      // of a classifier; 0: none
  double epsilon = 0;
  std::optional<bool> tied;  // output matrix and embedding are one; nullopt: not said
  Rope rope;

  // The length that a rule asks for; 0 for kNone.
  std::int64_t length(Length which) const;
};

// Errors: kCorrupt, kUnsupported; each names the key of config.json.
Result<Hyperparameters> read_hyperparameters(Config& config, const Family& family);

// Everything but the tokenizer and general.name. Errors as above.
Result<> write_metadata(gguf::Writer& writer, Config& config, const Source& source,
                        const Family& family, const Hyperparameters& hyper);

}  // namespace ollama::convert
