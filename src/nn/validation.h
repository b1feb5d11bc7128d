// How often layers check the shapes of what they are given: OLLAMA_VALIDATION.
#pragma once

#include <cstdint>

namespace ollama::envconfig {
enum class Validation : std::uint8_t;
}  // namespace ollama::envconfig

namespace ollama::nn {

enum class Validation : std::uint8_t {
  kAlways,  // at every call
  kOnce,    // at the first call of each combination of shapes
  kOff,
};

// The variable's value as a mode.
Validation validation_of(envconfig::Validation value);

}  // namespace ollama::nn
