// Internal to convert: copies tensors from a checkpoint into the model file, piece by piece.
#pragma once

#include <span>

#include "convert/checkpoint.h"
#include "convert/convert.h"
#include "convert/plan.h"
#include "gguf/writer.h"

namespace ollama::convert {

// Move i becomes tensor i of the writer, whose header is written. Errors: kCancelled, kCorrupt,
// kIo.
Result<> transfer(const Checkpoint& checkpoint, std::span<const Move> moves, gguf::Writer& writer,
                  const Progress& progress);

}  // namespace ollama::convert
