#include "cmd/external_editor.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <vector>

#include "base/unique_fd.h"

namespace ollama::cmd {
namespace {

// A file that is gone when this is.
struct TemporaryFile {
  std::string path;
  ~TemporaryFile() {
    if (!path.empty()) ::unlink(path.c_str());
  }
};

std::string choose_editor(std::string_view editor) {
  if (!editor.empty()) return std::string(editor);
  for (const char* name : {"VISUAL", "EDITOR"}) {
    if (const char* value = std::getenv(name); value != nullptr && *value != 0) return value;
  }
  return "vi";
}

Result<> run(const std::vector<std::string>& command) {
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  pid_t child = 0;
  const int error =
      ::posix_spawnp(&child, arguments[0], nullptr, nullptr, arguments.data(), environ);
  if (error == ENOENT) {
    return fail(ErrorCode::kNotFound,
                "editor \"{}\" not found, set OLLAMA_EDITOR to the path of your preferred editor",
                command[0]);
  }
  if (error != 0) return fail_errno(command[0], error);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return fail_errno("waitpid", errno);
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    return fail(ErrorCode::kInternal, "{} failed", command[0]);
  }
  return {};
}

}  // namespace

Result<std::string> edit_text(std::string_view text, std::string_view editor) {
  std::error_code error;
  std::string name =
      (std::filesystem::temp_directory_path(error) / "ollama-prompt-XXXXXX.txt").string();
  UniqueFd fd(::mkstemps(name.data(), 4));
  if (!fd) return fail_errno("temporary file", errno);
  const TemporaryFile file{name};
  if (::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    return fail_errno(name, errno);
  }
  fd.reset();

  std::istringstream words(choose_editor(editor));
  std::vector<std::string> command{std::istream_iterator<std::string>(words), {}};
  command.push_back(name);
  OLLAMA_TRY(run(command));

  std::ifstream saved(name, std::ios::binary);
  if (!saved) return fail(ErrorCode::kIo, "{}: cannot be read", name);
  std::string result{std::istreambuf_iterator<char>(saved), {}};
  while (result.ends_with('\n')) result.pop_back();
  return result;
}

}  // namespace ollama::cmd
