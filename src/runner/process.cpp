#include "runner/process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <csignal>

extern char** environ;  // NOLINT(readability-redundant-declaration): not every libc declares it

namespace ollama::runner {

namespace {

bool sets(const std::string& entry, std::string_view name) {
  return entry.size() > name.size() && entry.starts_with(name) && entry[name.size()] == '=';
}

// posix_spawn's descriptions of what to do, freed with their scope.
struct FileActions {
  FileActions() { posix_spawn_file_actions_init(&value); }
  FileActions(const FileActions&) = delete;
  FileActions& operator=(const FileActions&) = delete;
  ~FileActions() { posix_spawn_file_actions_destroy(&value); }
  posix_spawn_file_actions_t value;
};
struct Attributes {
  Attributes() { posix_spawnattr_init(&value); }
  Attributes(const Attributes&) = delete;
  Attributes& operator=(const Attributes&) = delete;
  ~Attributes() { posix_spawnattr_destroy(&value); }
  posix_spawnattr_t value;
};

std::vector<char*> pointers(const std::vector<std::string>& strings) {
  std::vector<char*> result;
  result.reserve(strings.size() + 1);
  for (const std::string& string : strings) result.push_back(const_cast<char*>(string.c_str()));
  result.push_back(nullptr);
  return result;
}

// A descriptor above those that the child's own are moved to, so that no move overwrites another.
Result<UniqueFd> above_child_fds(UniqueFd fd) {
  if (fd.get() > kChildSocket) return fd;
  UniqueFd moved(fcntl(fd.get(), F_DUPFD_CLOEXEC, kChildSocket + 1));
  if (!moved) return fail_errno("fcntl", errno);
  return moved;
}

}  // namespace

std::vector<std::string> runner_environment(std::uint32_t threads,
                                            const std::vector<std::string>& base) {
  std::vector<std::string> result;
  for (const std::string& entry : base) {
    if (!sets(entry, "GGML_BACKEND_PATH")) result.push_back(entry);
  }
  const auto set_default = [&](std::string_view name, std::string_view value) {
    const bool given = std::ranges::any_of(result, [&](const auto& e) { return sets(e, name); });
    if (!given) result.push_back(std::format("{}={}", name, value));
  };
  if (threads > 0) set_default("OMP_NUM_THREADS", std::to_string(threads));
  // Threads that meet again within a step should not sleep in between; between steps they should
  // not burn a core. GOMP_SPINCOUNT bounds the spinning, so the wait policy itself stays at its
  // default.
  set_default("GOMP_SPINCOUNT", "100000");
  set_default("OMP_DYNAMIC", "false");
  // The kernels choose their own number of threads; binding would put several runners on one core.
  set_default("OMP_PROC_BIND", "false");
  return result;
}

std::vector<std::string> runner_environment(std::uint32_t threads) {
  std::vector<std::string> base;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    base.emplace_back(*entry);
  }
  return runner_environment(threads, base);
}

Command runner_command() {
  Command command;
  command.arguments = {"ollama", "runner", "--fd", std::to_string(kChildSocket)};
  command.environment = runner_environment(0);
  return command;
}

std::string ExitStatus::describe() const {
  if (signal == 0) return std::format("exit status {}", code);
  const char* name = sigdescr_np(signal);
  return name != nullptr ? std::format("signal {}: {}", signal, name)
                         : std::format("signal {}", signal);
}

Result<Process> Process::start(const Command& command) {
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0) {
    return fail_errno("socketpair", errno);
  }
  UniqueFd ours(sockets[0]);
  UniqueFd theirs(sockets[1]);
  int pipes[2];
  if (pipe2(pipes, O_CLOEXEC) != 0) return fail_errno("pipe", errno);
  UniqueFd errors_read(pipes[0]);
  UniqueFd errors_write(pipes[1]);
  OLLAMA_ASSIGN(theirs, above_child_fds(std::move(theirs)));
  OLLAMA_ASSIGN(errors_write, above_child_fds(std::move(errors_write)));

  FileActions actions;
  posix_spawn_file_actions_addopen(&actions.value, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions.value, errors_write.get(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions.value, errors_write.get(), STDERR_FILENO);
  posix_spawn_file_actions_adddup2(&actions.value, theirs.get(), kChildSocket);
  posix_spawn_file_actions_addclosefrom_np(&actions.value, kChildSocket + 1);

  Attributes attributes;
  sigset_t none;
  sigemptyset(&none);
  sigset_t all;
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes.value, &none);
  posix_spawnattr_setsigdefault(&attributes.value, &all);
  posix_spawnattr_setpgroup(&attributes.value, 0);
  posix_spawnattr_setflags(&attributes.value,
                           POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);

  Process process;
  const std::vector<char*> arguments = pointers(command.arguments);
  const std::vector<char*> environment = pointers(command.environment);
  if (const int error = posix_spawn(&process.pid_, command.executable.c_str(), &actions.value,
                                    &attributes.value, arguments.data(), environment.data());
      error != 0) {
    process.pid_ = -1;
    return fail_errno(std::format("cannot start {}", command.executable.string()), error);
  }
  process.pidfd_.reset(static_cast<int>(syscall(SYS_pidfd_open, process.pid_, 0)));
  if (!process.pidfd_) {
    const int error = errno;
    return fail_errno("pidfd_open", error);  // the destructor ends the child
  }
  fcntl(process.pidfd_.get(), F_SETFD, FD_CLOEXEC);
  process.socket_ = std::move(ours);
  process.errors_ = std::move(errors_read);
  return process;
}

Process& Process::operator=(Process&& other) noexcept {
  if (this != &other) {
    kill_and_reap();
    pid_ = std::exchange(other.pid_, -1);
    pidfd_ = std::move(other.pidfd_);
    socket_ = std::move(other.socket_);
    errors_ = std::move(other.errors_);
    status_ = std::exchange(other.status_, std::nullopt);
  }
  return *this;
}

Process::~Process() { kill_and_reap(); }

void Process::kill_and_reap() {
  if (pid_ < 0 || status_) return;
  ::kill(pid_, SIGKILL);
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
}

void Process::signal(int number) const {
  if (pid_ > 0 && !status_) ::kill(pid_, number);
}

std::optional<ExitStatus> Process::try_wait() {
  if (status_ || pid_ < 0) return status_;
  int status = 0;
  const pid_t waited = waitpid(pid_, &status, WNOHANG);
  if (waited == 0 || (waited < 0 && errno == EINTR)) return std::nullopt;
  ExitStatus result;
  if (waited == pid_ && WIFSIGNALED(status)) {
    result.signal = WTERMSIG(status);
  } else if (waited == pid_) {
    result.code = WEXITSTATUS(status);
  }
  status_ = result;
  return status_;
}

}  // namespace ollama::runner
