#include <algorithm>
#include <filesystem>
#include <fstream>

#include "base/units.h"
#include "ml/control_group.h"
#include "ml/device.h"

namespace ollama::ml {
namespace {

namespace fs = std::filesystem;

// A file that holds one number; nullopt for "max" and where there is none.
std::optional<std::uint64_t> read_number(const fs::path& path) {
  std::ifstream in(path);
  std::string word;
  if (!(in >> word)) return std::nullopt;
  return parse_number<std::uint64_t>(word);
}

// A figure of /proc/meminfo, in bytes.
std::uint64_t read_meminfo(std::string_view name) {
  std::ifstream in("/proc/meminfo");
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with(name) || line[name.size()] != ':') continue;
    const std::size_t digit = line.find_first_of("0123456789");
    if (digit == std::string::npos) return 0;
    const std::string_view digits =
        std::string_view(line).substr(digit, line.find(' ', digit) - digit);
    return parse_number<std::uint64_t>(digits).value_or(0) * kKiB;
  }
  return 0;
}

// Lowers `memory` to what one control group (version 2) leaves. Pages of files that it counts can
// be given back.
void limit_by_group(const fs::path& group, SystemMemory& memory) {
  const auto limit = read_number(group / "memory.max");
  if (!limit) return;
  std::uint64_t used = read_number(group / "memory.current").value_or(0);
  std::ifstream stat(group / "memory.stat");
  std::string name;
  for (std::uint64_t value = 0; stat >> name >> value;) {
    if (name == "inactive_file" || name == "active_file") used -= std::min(used, value);
  }
  memory.total = std::min(memory.total, *limit);
  memory.available = std::min(memory.available, *limit - std::min(*limit, used));
}

}  // namespace

SystemMemory system_memory() {
  SystemMemory memory{.total = read_meminfo("MemTotal"), .available = read_meminfo("MemAvailable")};
  const fs::path mount = "/sys/fs/cgroup";
  std::ifstream groups("/proc/self/cgroup");
  std::string group;
  for (std::string line; std::getline(groups, line);) {
    if (line.starts_with("0::")) group = line.substr(3);
  }
  for (const fs::path& folder : group_folders(mount, group)) limit_by_group(folder, memory);
  return memory;
}

}  // namespace ollama::ml
