#include "ml/thread_count.h"

#include <sched.h>

namespace ollama::ml {

CpuTopology CpuTopology::read() {
  std::vector<int> affinity;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    for (int id = 0; id < CPU_SETSIZE; ++id) {
      if (CPU_ISSET(static_cast<std::size_t>(id), &set)) affinity.push_back(id);
    }
  }
  return read("/", affinity);
}

CpuTopology CpuTopology::read(const std::filesystem::path&, std::span<const int> affinity) {
  CpuTopology topology;
  for (const int id : affinity) topology.cpus.push_back({id, id, false});
  return topology;
}

std::uint32_t CpuTopology::physical() const { return logical(); }
std::uint32_t CpuTopology::performance() const { return physical(); }
std::uint32_t CpuTopology::usable() const { return std::max(1U, performance()); }

std::uint32_t optimal_thread_count(OpKind, std::uint64_t, std::uint64_t,
                                   const CpuTopology& topology, std::uint32_t) {
  return topology.usable();
}

}  // namespace ollama::ml
