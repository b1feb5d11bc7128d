// Whether this machine has what the kernels are made for.
#pragma once

namespace ollama::ml::kernels {

// False: they would run emulated, slower than GGML's.
bool available();
// "AVX2", "AVX3_ZEN4", ...: the instructions that are used.
const char* instruction_set();

}  // namespace ollama::ml::kernels
