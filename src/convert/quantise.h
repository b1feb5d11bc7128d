// Writing a model file again with other types of weights. The source is mapped and read once, in
// pieces that several threads take, so that memory stays small whatever the size of the model; the
// bytes are those that GGML's quantisation makes of each tensor at once.
//
// Not for a server's own process: a file that is cut short while it is read raises SIGBUS, and GGML
// aborts where it meets what it does not expect.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>

#include "base/error.h"
#include "gguf/file.h"
#include "gguf/quant_mix.h"

namespace ollama::convert {

// Hears, on the calling thread, how many bytes of tensor data have been read, of how many; at least
// ten times a second or so. Returning false cancels.
using Progress = std::function<bool(std::uint64_t done, std::uint64_t total)>;

// Whether the file's weights may be quantised: F32, F16 and BF16 may. Of files that are quantised
// already too much is lost. Errors: kInvalidArgument, in Ollama's words.
Result<> check_source(const gguf::File& source);

// Writes `source` to `output` with the types of `mix` (see choose_type), the metadata as it is but
// for general.file_type, general.quantization_version and what is about parts of a split file.
// Tensors that are not quantised keep their bytes. `output` appears when it is complete.
// `threads` is at least 1.
//
// Errors: those of check_source and of gguf::Writer; kUnsupported for one part of a split file;
// kCorrupt for a weight that is no finite number, with its tensor's name; kCancelled.
Result<> quantise(const gguf::File& source, const gguf::QuantMix& mix,
                  const std::filesystem::path& output, std::uint32_t threads,
                  const Progress& progress = {});

}  // namespace ollama::convert
