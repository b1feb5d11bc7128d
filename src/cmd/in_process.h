// Running the engine inside the command line's own process.
#pragma once

#include <cstdint>

namespace ollama::cmd {

// OpenMP reads its settings before main() begins. The first call starts the program again, with the
// environment that a runner has; the call in the new program returns. To be called before anything
// is read or printed. `threads`: of the kernels; 0 leaves it to the engine.
void prepare_in_process(std::uint32_t threads);

}  // namespace ollama::cmd
