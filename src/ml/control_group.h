// Control groups, which bound what a process may use.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace ollama::ml {

// The folders of a group, as /proc/self/cgroup names it, and of all above it up to the mount.
// Inside a container the name may be the host's: then only the mount exists, which is the
// container's group.
inline std::vector<std::filesystem::path> group_folders(const std::filesystem::path& mount,
                                                        const std::string& group) {
  std::vector<std::filesystem::path> folders;
  std::filesystem::path path = std::filesystem::path(group).lexically_normal().relative_path();
  for (; !path.empty(); path = path.parent_path()) folders.push_back(mount / path);
  folders.push_back(mount);
  return folders;
}

}  // namespace ollama::ml
