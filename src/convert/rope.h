// Internal to convert: how positions are rotated, from a configuration to the keys and the tensors
// that say so in a model file.
#pragma once

#include <string>
#include <vector>

#include "convert/config.h"

namespace ollama::convert {

struct Rope {
  double base = 10000;
  double local_base = 10000;  // of layers with a window, where they have one of their own
  std::string scaling;        // "linear", "yarn" or none
  double factor = 0;
  double attention_factor = 0;  // 0: left to the reader
  std::int64_t original_context = 0;
  double beta_fast = 0;  // 0: left to the reader
  double beta_slow = 0;
  // By which angles are divided, for each pair of dimensions.
  std::vector<float> factors;        // Llama 3
  std::vector<float> long_factors;   // LongRoPE
  std::vector<float> short_factors;  // LongRoPE, within the original context
};

// What a family does.
struct RopeRules {
  double default_base = 10000;
  double default_local_base = 10000;
  bool llama3 = false;    // takes Llama 3's factors
  bool longrope = false;  // takes LongRoPE's
};

// Reads "rope_theta", "rope_scaling" and their later form, "rope_parameters", for heads of which
// `dimensions` are rotated. Kinds of scaling that the family cannot express are kept as an error in
// `config`.
Rope read_rope(Config& config, const RopeRules& rules, std::int64_t dimensions,
               std::int64_t context);

// Llama 3.1's factors for each pair of `dimensions`.
std::vector<float> llama3_factors(double base, std::int64_t dimensions, double factor, double low,
                                  double high, double original_context);

}  // namespace ollama::convert
