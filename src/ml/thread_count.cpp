#include "ml/thread_count.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "base/units.h"
#include "ml/control_group.h"

namespace ollama::ml {
namespace {

namespace fs = std::filesystem;

// The first line of a small file of the kernel's; empty when it cannot be read.
std::string read_line(const fs::path& path) {
  std::string line;
  std::ifstream file(path);
  std::getline(file, line);
  return line;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(separator, at), text.size());
    parts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

// "0-3,8" as {0, 1, 2, 3, 8}; what cannot be read is left out.
std::vector<int> parse_cpu_list(std::string_view text) {
  constexpr int kMostCpus = 1 << 16;
  std::vector<int> cpus;
  for (const std::string_view part : split(text, ',')) {
    const std::size_t dash = part.find('-');
    const auto first = parse_number<int>(part.substr(0, dash));
    const auto last =
        dash == std::string_view::npos ? first : parse_number<int>(part.substr(dash + 1));
    if (!first || !last || *first < 0 || *last >= kMostCpus) continue;
    for (int cpu = *first; cpu <= *last; ++cpu) cpus.push_back(cpu);
  }
  return cpus;
}

// The lower of two limits, of which 0 means none.
double lower_limit(double a, double b) { return a == 0 || b == 0 ? a + b : std::min(a, b); }

double ratio(std::optional<double> quota, std::optional<double> period) {
  return quota && period && *quota > 0 && *period > 0 ? *quota / *period : 0;
}

// "150000 100000" or "max 100000".
double read_quota_v2(const fs::path& folder) {
  const std::string line = read_line(folder / "cpu.max");
  const auto parts = split(line, ' ');
  if (parts.size() != 2) return 0;
  return ratio(parse_number<double>(parts[0]), parse_number<double>(parts[1]));
}
double read_quota_v1(const fs::path& folder) {
  return ratio(parse_number<double>(read_line(folder / "cpu.cfs_quota_us")),
               parse_number<double>(read_line(folder / "cpu.cfs_period_us")));
}

// The lowest limit from a group up to the mount.
template <typename Read>
double lowest_quota(const fs::path& mount, const std::string& path, Read read) {
  double limit = 0;
  for (const fs::path& folder : group_folders(mount, path)) {
    limit = lower_limit(limit, read(folder));
  }
  return limit;
}

double read_quota(const fs::path& root) {
  const fs::path mounts = root / "sys/fs/cgroup";
  double limit = 0;
  std::ifstream groups(root / "proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    // hierarchy:controllers:path; version 2 has number 0 and no controllers.
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (controllers.empty()) {
      limit = lower_limit(limit, lowest_quota(mounts, path, read_quota_v2));
      limit = lower_limit(limit, lowest_quota(mounts / "unified", path, read_quota_v2));
    } else if (std::ranges::contains(split(controllers, ','), "cpu")) {
      limit = lower_limit(limit, lowest_quota(mounts / controllers, path, read_quota_v1));
      if (controllers != "cpu") {
        limit = lower_limit(limit, lowest_quota(mounts / "cpu", path, read_quota_v1));
      }
    }
  }
  return limit;
}

// How many different values `key` has over those of `cpus` that `wanted` picks.
template <typename Wanted>
std::uint32_t count_cores(const std::vector<Cpu>& cpus, Wanted wanted) {
  std::vector<int> cores;
  for (const Cpu& cpu : cpus) {
    if (wanted(cpu)) cores.push_back(cpu.core);
  }
  std::ranges::sort(cores);
  const auto repeated = std::ranges::unique(cores);
  return static_cast<std::uint32_t>(cores.size() - repeated.size());
}

// What a core does in a microsecond, and what it costs that threads meet. Measured on a Zen 3
// server with GGML's CPU backend and libgomp, threads spinning: products of q8_0 matrices with one
// vector and with 64, in graphs of 1, 10 and 100 nodes. Only the order of magnitude matters: it
// places the size of work from which on a further thread pays.
constexpr double kCoreBytes = 15'000;
constexpr double kCoreFlops = 40'000;
constexpr double kWake = 6.0;  // once, for the team to begin
constexpr double kMeet = 1.2;  // after every operation
constexpr double kMeetPerThread = 0.25;

// Few cores fill a memory bus with plain copies.
constexpr std::uint32_t kCopyThreads = 4;

}  // namespace

CpuTopology CpuTopology::read() {
  std::vector<int> affinity;
  // The mask's size is not known beforehand on machines with more CPUs than cpu_set_t has bits.
  for (int cpus = CPU_SETSIZE; cpus <= 1 << 16; cpus *= 2) {
    const std::size_t bytes = CPU_ALLOC_SIZE(cpus);
    const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> set(
        CPU_ALLOC(static_cast<std::size_t>(cpus)), [](cpu_set_t* mask) { CPU_FREE(mask); });
    if (set == nullptr) break;
    if (sched_getaffinity(0, bytes, set.get()) != 0) continue;
    for (int id = 0; id < cpus; ++id) {
      if (CPU_ISSET_S(static_cast<std::size_t>(id), bytes, set.get())) affinity.push_back(id);
    }
    break;
  }
  return read("/", affinity);
}

CpuTopology CpuTopology::read(const fs::path& root, std::span<const int> affinity) {
  const fs::path devices = root / "sys/devices";
  const auto folder = [&](int id) { return devices / std::format("system/cpu/cpu{}", id); };
  CpuTopology topology;
  topology.quota = read_quota(root);

  // Intel's hybrids list their slow cores; elsewhere cores have a relative capacity.
  const std::vector<int> slow = parse_cpu_list(read_line(devices / "cpu_atom/cpus"));
  std::vector<double> capacities;
  double top_capacity = 0;
  for (const int id : affinity) {
    const double capacity =
        parse_number<double>(read_line(folder(id) / "cpu_capacity")).value_or(0);
    capacities.push_back(capacity);
    top_capacity = std::max(top_capacity, capacity);
  }
  for (std::size_t i = 0; i < affinity.size(); ++i) {
    const int id = affinity[i];
    std::vector<int> siblings = parse_cpu_list(read_line(folder(id) / "topology/core_cpus_list"));
    if (siblings.empty()) {  // older kernels
      siblings = parse_cpu_list(read_line(folder(id) / "topology/thread_siblings_list"));
    }
    Cpu cpu{.id = id, .core = id};
    if (!siblings.empty()) cpu.core = std::ranges::min(siblings);
    cpu.efficiency = std::ranges::contains(slow, id) ||
                     (capacities[i] > 0 && capacities[i] < 0.6 * top_capacity);
    topology.cpus.push_back(cpu);
  }
  return topology;
}

std::uint32_t CpuTopology::physical() const {
  return count_cores(cpus, [](const Cpu&) { return true; });
}

std::uint32_t CpuTopology::performance() const {
  const std::uint32_t fast = count_cores(cpus, [](const Cpu& cpu) { return !cpu.efficiency; });
  return fast != 0 ? fast : physical();
}

std::uint32_t CpuTopology::usable() const {
  std::uint32_t count = std::max(1U, performance());
  // Rounded down: a throttled thread stops all that wait for it, and their spinning is charged too.
  if (quota > 0 && quota < count) count = std::max(1U, static_cast<std::uint32_t>(quota));
  return count;
}

std::uint32_t optimal_thread_count(OpKind op, std::uint64_t bytes, std::uint64_t flops,
                                   const CpuTopology& topology, std::uint32_t operations) {
  const double work =
      std::max(static_cast<double>(bytes) / kCoreBytes, static_cast<double>(flops) / kCoreFlops);
  const auto duration = [&](std::uint32_t threads) {
    if (threads == 1) return work;
    return work / threads + kWake + operations * (kMeet + kMeetPerThread * threads);
  };
  std::uint32_t most = topology.usable();
  if (op == OpKind::kCopy) most = std::min(most, kCopyThreads);
  double best = duration(1);
  for (std::uint32_t threads = 2; threads <= most; ++threads) {
    best = std::min(best, duration(threads));
  }
  // The fewest threads that are as good: the others are free for something else.
  std::uint32_t threads = 1;
  while (duration(threads) > 1.01 * best) ++threads;
  return threads;
}

}  // namespace ollama::ml
