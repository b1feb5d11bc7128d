// Model files with random weights in the shapes of real models, for benchmarks and tests: they load
// and run like the real ones, and say nothing sensible. The same options give the same bytes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace ollama::gguf {

struct SyntheticOptions {
  std::string shape;         // one of synthetic_shapes()
  std::string type = "f16";  // a name that find_quant_mix knows, in any case
  std::filesystem::path out;
  std::uint64_t seed = 1;
};

// Called now and then with the bytes of tensor data written so far, and of all.
using SyntheticProgress = std::function<void(std::uint64_t done, std::uint64_t total)>;

// "llama-1b", "qwen3-0.6b", "tiny".
std::vector<std::string_view> synthetic_shapes();

// Writes the model file; it appears when it is complete. Errors: kInvalidArgument for an unknown
// shape or type (the message lists those there are), and those of Writer.
Result<> make_model(const SyntheticOptions& options, const SyntheticProgress& progress = {});

}  // namespace ollama::gguf
