#include "ml/thread_count.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <numeric>

namespace ollama::ml {
namespace {

constexpr std::uint64_t kBig = std::uint64_t{1} << 30;

// `cores` cores with `threads` hyper-threads each, numbered as Linux does: first threads first.
CpuTopology machine(int cores, int threads, int efficiency_cores = 0, double quota = 0) {
  CpuTopology topology;
  for (int thread = 0; thread < threads; ++thread) {
    for (int core = 0; core < cores; ++core) {
      topology.cpus.push_back({thread * cores + core, core, false});
    }
  }
  for (int core = 0; core < efficiency_cores; ++core) {
    const int id = cores * threads + core;
    topology.cpus.push_back({id, id, true});
  }
  topology.quota = quota;
  return topology;
}

// A folder with files as under / of a Linux machine.
class FakeRoot {
 public:
  FakeRoot() {
    std::string name = (std::filesystem::temp_directory_path() / "topologyXXXXXX").string();
    if (mkdtemp(name.data()) != nullptr) path_ = name;
  }
  ~FakeRoot() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  FakeRoot(const FakeRoot&) = delete;
  FakeRoot& operator=(const FakeRoot&) = delete;

  void file(const std::string& name, std::string_view text) const {
    std::filesystem::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name) << text << '\n';
  }
  void siblings(int cpu, std::string_view list) const {
    file(std::format("sys/devices/system/cpu/cpu{}/topology/core_cpus_list", cpu), list);
  }
  CpuTopology read(int cpus) const {
    std::vector<int> affinity(static_cast<std::size_t>(cpus));
    std::iota(affinity.begin(), affinity.end(), 0);
    return CpuTopology::read(path_, affinity);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

TEST(ThreadCount, GivesLargeWorkEveryFastCore) {
  for (const OpKind op : {OpKind::kDecode, OpKind::kPrefill, OpKind::kAttention}) {
    EXPECT_EQ(optimal_thread_count(op, kBig, 1000 * kBig, machine(2, 1)), 2U);
    EXPECT_EQ(optimal_thread_count(op, kBig, 1000 * kBig, machine(8, 2)), 8U)
        << "hyper-threads share their core's arithmetic";
    EXPECT_EQ(optimal_thread_count(op, kBig, 1000 * kBig, machine(4, 2, 8)), 4U)
        << "efficiency cores make the others wait";
  }
}

TEST(ThreadCount, StaysWithinTheQuota) {
  EXPECT_EQ(machine(8, 2, 0, 1.5).usable(), 1U) << "two threads would be throttled";
  EXPECT_EQ(machine(8, 2, 0, 4.0).usable(), 4U);
  EXPECT_EQ(machine(8, 2, 0, 0.2).usable(), 1U);
  EXPECT_EQ(machine(8, 2, 0, 64.0).usable(), 8U);
  EXPECT_EQ(optimal_thread_count(OpKind::kPrefill, kBig, 1000 * kBig, machine(8, 2, 0, 1.5)), 1U);
}

TEST(ThreadCount, UsesEfficiencyCoresWhereThereIsNothingElse) {
  EXPECT_EQ(machine(0, 0, 4).usable(), 4U);
  EXPECT_EQ(machine(0, 0).usable(), 1U);
}

// Threads that meet after operations of a microsecond only wait for one another: the smallest
// models would run several times slower with two threads than with one.
TEST(ThreadCount, GivesSmallWorkOneThread) {
  const CpuTopology topology = machine(8, 2);
  EXPECT_EQ(optimal_thread_count(OpKind::kDecode, 0, 0, topology), 1U);
  EXPECT_EQ(optimal_thread_count(OpKind::kDecode, 10'000, 20'000, topology), 1U);
  EXPECT_EQ(optimal_thread_count(OpKind::kDecode, 520'000, 520'000, topology, 100), 1U)
      << "a step of the bundled model";
  EXPECT_EQ(optimal_thread_count(OpKind::kDecode, 700 << 20, 1400 << 20, topology, 300), 8U)
      << "a step of a model of a billion weights";
  // The same work in more pieces is worth fewer threads.
  const auto whole = optimal_thread_count(OpKind::kElementwise, 2 << 20, 0, topology, 1);
  const auto pieces = optimal_thread_count(OpKind::kElementwise, 2 << 20, 0, topology, 50);
  EXPECT_GT(whole, pieces);
}

TEST(ThreadCount, CopiesNeedFewThreads) {
  EXPECT_EQ(optimal_thread_count(OpKind::kCopy, kBig, 0, machine(64, 2)), 4U);
  EXPECT_EQ(optimal_thread_count(OpKind::kCopy, kBig, 0, machine(2, 2)), 2U);
}

// A wrong count must at least never be an impossible one, nor shrink when there is more to do.
TEST(ThreadCount, IsBoundedAndGrowsWithTheWork) {
  EXPECT_TRUE(rc::check("any work on any machine", [] {
    const CpuTopology topology =
        machine(*rc::gen::inRange(0, 130), *rc::gen::inRange(1, 3), *rc::gen::inRange(0, 20),
                *rc::gen::inRange(0, 400) / 10.0);
    const auto op = *rc::gen::element(OpKind::kDecode, OpKind::kPrefill, OpKind::kAttention,
                                      OpKind::kElementwise, OpKind::kCopy);
    const auto bytes = *rc::gen::arbitrary<std::uint32_t>();
    const auto flops = *rc::gen::arbitrary<std::uint64_t>();
    const auto operations = *rc::gen::inRange(1U, 2000U);
    const auto threads = optimal_thread_count(op, bytes, flops, topology, operations);
    RC_ASSERT(threads >= 1U);
    RC_ASSERT(threads <= topology.usable());
    RC_ASSERT(topology.usable() <= std::max(1U, topology.physical()));
    RC_ASSERT(topology.quota == 0.0 || threads <= std::max(1.0, topology.quota));
    RC_ASSERT(optimal_thread_count(op, bytes / 2, flops / 2, topology, operations) <= threads);
  }));
}

TEST(CpuTopology, ReadsHyperThreads) {
  const FakeRoot root;
  for (int cpu = 0; cpu < 16; ++cpu) {
    root.siblings(cpu, std::format("{},{}", cpu % 8, cpu % 8 + 8));
  }
  const CpuTopology topology = root.read(16);
  EXPECT_EQ(topology.logical(), 16U);
  EXPECT_EQ(topology.physical(), 8U);
  EXPECT_EQ(topology.quota, 0.0);

  // Pinned to both threads of one core and one of another.
  const CpuTopology pinned = CpuTopology::read(root.path(), std::array{2, 10, 11});
  EXPECT_EQ(pinned.logical(), 3U);
  EXPECT_EQ(pinned.usable(), 2U);
}

TEST(CpuTopology, ReadsSiblingsAsRangesAndFromOlderKernels) {
  const FakeRoot root;
  root.siblings(0, "0-1");
  root.siblings(1, "0-1");
  root.file("sys/devices/system/cpu/cpu2/topology/thread_siblings_list", "2-3");
  root.file("sys/devices/system/cpu/cpu3/topology/thread_siblings_list", "2-3");
  EXPECT_EQ(root.read(4).physical(), 2U);
}

TEST(CpuTopology, RecognisesEfficiencyCores) {
  const FakeRoot intel;  // 4 fast cores with two threads each, 8 slow ones
  for (int cpu = 0; cpu < 8; ++cpu) {
    intel.siblings(cpu, std::format("{}-{}", cpu / 2 * 2, cpu / 2 * 2 + 1));
  }
  for (int cpu = 8; cpu < 16; ++cpu) intel.siblings(cpu, std::to_string(cpu));
  intel.file("sys/devices/cpu_core/cpus", "0-7");
  intel.file("sys/devices/cpu_atom/cpus", "8-15");
  EXPECT_EQ(intel.read(16).physical(), 12U);
  EXPECT_EQ(intel.read(16).performance(), 4U);

  const FakeRoot arm;
  const std::array capacities{1024, 905, 905, 380, 380, 380};
  for (std::size_t cpu = 0; cpu < capacities.size(); ++cpu) {
    arm.file(std::format("sys/devices/system/cpu/cpu{}/cpu_capacity", cpu),
             std::to_string(capacities[cpu]));
  }
  EXPECT_EQ(arm.read(6).performance(), 3U);
}

TEST(CpuTopology, ReadsTheQuotaOfVersion2) {
  const FakeRoot root;
  root.file("proc/self/cgroup", "0::/system.slice/ollama.service");
  root.file("sys/fs/cgroup/system.slice/ollama.service/cpu.max", "max 100000");
  EXPECT_EQ(root.read(8).quota, 0.0);
  root.file("sys/fs/cgroup/system.slice/ollama.service/cpu.max", "400000 100000");
  EXPECT_EQ(root.read(8).quota, 4.0);
  root.file("sys/fs/cgroup/system.slice/cpu.max", "150000 100000");
  EXPECT_EQ(root.read(8).quota, 1.5) << "a group is bounded by those above it";
}

TEST(CpuTopology, ReadsTheQuotaOfVersion1) {
  const FakeRoot root;
  root.file("proc/self/cgroup", "4:memory:/x\n2:cpu,cpuacct:/docker/abc\n1:cpuset:/");
  // In the container the host's path does not exist.
  root.file("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "250000");
  root.file("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000");
  EXPECT_EQ(root.read(8).quota, 2.5);
  root.file("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1");
  EXPECT_EQ(root.read(8).quota, 0.0);
}

TEST(CpuTopology, DoesWithoutSysAndWithNonsense) {
  const FakeRoot root;
  EXPECT_EQ(root.read(3).usable(), 3U);
  EXPECT_EQ(CpuTopology::read("/nonexistent", {}).usable(), 1U);

  root.siblings(0, "abc,-4,9-2,99999999999");
  root.siblings(1, "");
  root.file("sys/devices/cpu_atom/cpus", "0-4000000000");
  root.file("sys/devices/system/cpu/cpu1/cpu_capacity", "-1");
  root.file("proc/self/cgroup", "0::/../..\n\n:::\nnonsense\n7:cpu:");
  root.file("sys/fs/cgroup/cpu.max", "-5 0");
  root.file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "nan");
  root.file("sys/fs/cgroup/cpu/cpu.cfs_period_us", "0");
  EXPECT_EQ(root.read(3).usable(), 3U);
}

TEST(CpuTopology, KnowsThisMachine) {
  const CpuTopology topology = CpuTopology::read();
  EXPECT_GE(topology.usable(), 1U);
  EXPECT_LE(topology.usable(), topology.logical());
  EXPECT_LE(topology.logical(), static_cast<std::uint32_t>(sysconf(_SC_NPROCESSORS_CONF)));
}

}  // namespace
}  // namespace ollama::ml
