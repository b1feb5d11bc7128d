// How many threads serve a piece of work best. More is not better: memory-bound work stops gaining
// once the memory bus is full, hyper-threads share one core's arithmetic, efficiency cores make the
// others wait where all threads meet, and waking threads costs more than a small operation takes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

namespace ollama::ml {

enum class OpKind : std::uint8_t {
  kDecode,       // matrix times few vectors: bound by reading the weights
  kPrefill,      // matrix times many vectors: bound by arithmetic
  kAttention,    // over a chunk of a prompt: bound by arithmetic
  kElementwise,  // norms, activations, additions: bound by memory
  kCopy,         // bound by memory
};

struct Cpu {
  int id = 0;
  int core = 0;             // the first of the CPUs that share this one's core
  bool efficiency = false;  // a slow core of a machine that has fast ones
};

// The CPUs that this process may use. A value: tests make them up.
struct CpuTopology {
  std::vector<Cpu> cpus;  // of the affinity mask, by id
  double quota = 0.0;     // CPUs' worth of time that the cgroups allow; 0: no limit

  // What the calling thread may use now. Never fails: without /sys every CPU is a core of its own.
  static CpuTopology read();
  // The same from files under `root` ("/" is this machine) for the CPUs in `affinity`.
  static CpuTopology read(const std::filesystem::path& root, std::span<const int> affinity);

  // CPUs, cores and fast cores of the affinity mask (all cores where none is an efficiency core).
  std::uint32_t logical() const { return static_cast<std::uint32_t>(cpus.size()); }
  std::uint32_t physical() const;
  std::uint32_t performance() const;
  // Threads that can run at once without being throttled: fast cores, bounded by the quota. At
  // least 1.
  std::uint32_t usable() const;
};

// Threads for work that reads and writes `bytes` of memory and does `flops` floating-point
// operations in `operations` steps, after each of which all threads meet (nodes of a graph). From 1
// to usable().
std::uint32_t optimal_thread_count(OpKind op, std::uint64_t bytes, std::uint64_t flops,
                                   const CpuTopology& topology, std::uint32_t operations = 1);

}  // namespace ollama::ml
