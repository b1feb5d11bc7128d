// What the machine can do at best, by the instructions that the kernels use: the yardstick of
// benchmarks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace ollama::ml::kernels {

enum class Peak : std::uint8_t { kInt8, kF32 };

// Multiplies and adds in registers for some microseconds; gives the operations that were done
// (a multiplication and an addition are two).
double run_peak(Peak kind);

// Reads all of it, as wide as registers are; gives a value that depends on it.
std::uint64_t read_all(std::span<const std::byte> memory);

}  // namespace ollama::ml::kernels
