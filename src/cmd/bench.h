// `ollama bench`: how fast a model reads and writes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/types.h"
#include "base/error.h"
#include "engine/engine.h"

namespace ollama::cmd {

struct BenchOptions {
  std::string model;           // as the user named it
  std::filesystem::path path;  // its file
  std::uint32_t n_prompt = 512;
  std::uint32_t n_gen = 64;
  std::uint32_t depth = 0;  // tokens that are in the cache before the clock starts
  std::uint32_t parallel = 1;
  std::uint32_t repetitions = 5;
  std::uint64_t seed = 1;
  std::vector<ml::CpuKernels> kernels = {ml::CpuKernels::kNative};  // to compare
  engine::LoadOptions load;
};

// Tokens a second, over the repetitions; summed over the streams.
struct Rates {
  double median = 0;
  double min = 0;
  double max = 0;
};
// The rates must not be empty.
Rates summarize(std::vector<double> rates);

// One kind of work with one kind of kernels. GGML's are measured with and without its flash
// attention where --fa leaves the choice; the faster way counts.
struct Phase {
  Rates rates;
  ml::FlashAttention flash_attention = ml::FlashAttention::kAuto;
};

struct BenchResult {
  ml::CpuKernels kernels = ml::CpuKernels::kNative;
  std::string type;              // "Q4_K_M"
  std::uint32_t gpu_layers = 0;  // on GPUs, the output counted as one
  std::uint32_t threads = 0;
  double load_seconds = 0;          // until the model could answer
  std::optional<Phase> prompt;      // without prompt tokens: none
  std::optional<Phase> generation;  // without tokens to generate: none
};

// Loads the model once for each of options.kernels, warms up, and measures in turns, so that what
// else the machine does meanwhile meets all of them. `progress` hears what is done.
Result<std::vector<BenchResult>> run_bench(const BenchOptions& options,
                                           const std::function<void(std::string_view)>& progress);

std::string_view kernels_name(ml::CpuKernels kernels);

api::JsonObject bench_json(const BenchOptions& options, const BenchResult& result);

}  // namespace ollama::cmd
