// Making model files of other files: an interface, because that is work for another process, which
// the store knows nothing of. The files are untrusted, and what reads all of one may crash.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/error.h"

namespace ollama::store {

// A file under the name that it has in a checkpoint, which is not the name of its blob.
struct SourceFile {
  std::string name;
  std::filesystem::path path;
};

struct Conversion {
  // Either the files of a checkpoint as Hugging Face publishes them (safetensors, config.json, ...)
  std::vector<SourceFile> checkpoint;
  // or a model file whose weights are to get the types of a mix (gguf::find_quant_mix).
  std::filesystem::path model;
  std::string mix;

  std::filesystem::path output;  // the model file that is made
};

// Bytes of weights done so far, and in all; false cancels.
using ConversionProgress = std::function<bool(std::uint64_t done, std::uint64_t total)>;

class Converter {
 public:
  virtual ~Converter() = default;
  // Waits for the end of it; from any thread that lives as long. `progress` is called on it several
  // times a second. What is left beside `output` after an error is the caller's to remove. Errors:
  // those of convert::to_gguf and convert::quantise; kCancelled; kUnavailable when the process that
  // does it ends without saying why.
  virtual Result<> convert(const Conversion& conversion, const ConversionProgress& progress) = 0;
};

}  // namespace ollama::store
