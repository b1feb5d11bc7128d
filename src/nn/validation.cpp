#include "nn/validation.h"

#include "envconfig/config.h"

namespace ollama::nn {

Validation validation_of(envconfig::Validation value) {
  switch (value) {
    case envconfig::Validation::kAlways:
      return Validation::kAlways;
    case envconfig::Validation::kOnce:
      return Validation::kOnce;
    case envconfig::Validation::kOff:
      return Validation::kOff;
  }
  return Validation::kOnce;
}

}  // namespace ollama::nn
