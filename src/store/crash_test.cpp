// Processes that end in the middle of changing a models folder, and processes that change one at
// the same time: every model that is there must be whole, and nothing half done may be visible.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <mutex>
#include <random>
#include <thread>

#include "store/fixture.h"
#include "store/store.h"

namespace ollama::store {
namespace {

// What the hooks below do in this process.
struct Watch {
  std::mutex mutex;                           // of the two below: blobs are written by threads
  std::vector<std::string>* steps = nullptr;  // written down here
  int done = 0;
  int crash_before = -1;   // ends the process before this step, from 0
  bool skip_sync = false;  // a killed process loses nothing that it wrote
};
Watch& watch() {
  static Watch state;
  return state;
}

void step(const std::string& what) {
  Watch& state = watch();
  const std::lock_guard lock(state.mutex);
  if (state.steps != nullptr) state.steps->push_back(what);
  if (state.done++ == state.crash_before) ::raise(SIGKILL);
}

}  // namespace
}  // namespace ollama::store

// The steps by which a folder changes. These stand before the C library's.
extern "C" int fsync(int fd) {
  std::array<char, 4096> path{};
  const std::string link = std::format("/proc/self/fd/{}", fd);
  if (::readlink(link.c_str(), path.data(), path.size() - 1) < 0) path[0] = '\0';
  ollama::store::step(std::format("sync {}", path.data()));
  if (ollama::store::watch().skip_sync) return 0;
  return static_cast<int>(::syscall(SYS_fsync, fd));
}
extern "C" int rename(const char* from, const char* to) noexcept {
  ollama::store::step(std::format("rename {} {}", from, to));
  return static_cast<int>(::syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}
extern "C" int unlink(const char* path) noexcept {
  ollama::store::step(std::format("unlink {}", path));
  return static_cast<int>(::syscall(SYS_unlinkat, AT_FDCWD, path, 0));
}

namespace ollama::store {
namespace {

using fixture::message_of;
using testing::AnyOf;
using testing::IsEmpty;
using testing::StartsWith;
namespace fs = std::filesystem;

class CrashTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) /
              std::format("crash_{}_{}", ::getpid(),
                          testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(folder_);
    models_ = folder_ / "models";
    fixture::make_gguf(folder_ / "m.gguf");
  }
  void TearDown() override { fs::remove_all(folder_); }

  Store store() const { return Store({models_, {}, true}); }

  api::CreateRequest from_file(Store& store, const std::string& name, const std::string& system) {
    api::CreateRequest request;
    request.model = name;
    request.system = system;
    const auto digest = store.import_file(folder_ / "m.gguf");
    if (digest) request.files = {{"m.gguf", digest->text()}};
    return request;
  }

  // Runs `work` in a process of its own.
  template <typename Work>
  static pid_t start(Work&& work) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      watch().done = 0;
      watch().skip_sync = true;
      work();
      ::_exit(0);
    }
    return pid;
  }
  static int end_of(pid_t pid) {
    int status = 0;
    EXPECT_EQ(::waitpid(pid, &status, 0), pid);
    return status;
  }

  // Every manifest can be read, and its blobs are there and what they should be; nothing else is
  // in sight.
  void expect_whole() const {
    std::error_code error;
    fs::recursive_directory_iterator it(models_ / "manifests", error);
    for (; !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
      if (!it->is_regular_file() || it->path().filename().string().starts_with(".tmp-")) continue;
      const auto manifest = parse_manifest(fixture::read(it->path()));
      ASSERT_TRUE(manifest) << it->path() << ": " << message_of(manifest);
      std::vector<Layer> layers = manifest->layers;
      layers.push_back(manifest->config);
      for (const Layer& layer : layers) {
        const std::string bytes = fixture::read(models_ / "blobs" / layer.digest.file_name());
        EXPECT_EQ(digest_of(bytes), layer.digest) << it->path() << " " << layer.media_type;
        EXPECT_EQ(bytes.size(), layer.size);
      }
    }
    for (const auto& entry : fs::directory_iterator(models_ / "blobs")) {
      const std::string name = entry.path().filename().string();
      const auto digest = Digest::parse(name);
      if (digest) {
        EXPECT_EQ(digest_of(fixture::read(entry.path())), *digest) << "half a blob is visible";
      } else {
        EXPECT_THAT(name, StartsWith(".tmp-")) << "a partial file is visible";
      }
    }
  }
  std::vector<std::string> leftovers() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::recursive_directory_iterator(models_)) {
      if (entry.path().filename().string().starts_with(".tmp-")) {
        names.push_back(entry.path().string());
      }
    }
    return names;
  }

  // Everything that changes a folder: new, replaced, copied, removed.
  void change_everything() {
    Store models = store();
    if (!models.create(from_file(models, "m", "first"))) ::_exit(2);
    if (!models.create(from_file(models, "m", "second"))) ::_exit(2);
    if (!models.copy("m", "hf.co/a/n:q4")) ::_exit(2);
    if (!models.remove("m")) ::_exit(2);
    if (!models.remove("hf.co/a/n:q4")) ::_exit(2);
  }

  fs::path folder_;
  fs::path models_;
};

// A process is ended before every single step that changes the folder, once each.
TEST_F(CrashTest, ACrashAtAnyStepLeavesTheOldOrTheNewState) {
  int crash = 0;
  for (bool ended = false; !ended; ++crash) {
    SCOPED_TRACE(std::format("crash before step {}", crash));
    fs::remove_all(models_);
    const int status = end_of(start([&] {
      watch().crash_before = crash;
      change_everything();
    }));
    ended = WIFEXITED(status);
    EXPECT_TRUE(!ended || WEXITSTATUS(status) == 0);
    if (!fs::exists(models_ / "blobs")) continue;
    expect_whole();
    const Store after = store();
    if (const auto model = after.resolve("m");
        model || model.error().code() != ErrorCode::kNotFound) {
      ASSERT_TRUE(model) << message_of(model);
      EXPECT_THAT(model->system, AnyOf("first", "second"));
    }
    const auto copy = after.resolve("hf.co/a/n:q4");
    EXPECT_TRUE(!copy || copy->system == "second");
    // What the dead process left is gone with the next start, however young.
    EXPECT_TRUE(store().prune());
    EXPECT_THAT(leftovers(), IsEmpty());
    expect_whole();
    if (HasFailure()) return;
  }
  EXPECT_GT(crash, 40) << "the hooks see nothing";
}

TEST_F(CrashTest, AProcessThatIsKilledAtRandomLeavesModelsWhole) {
  std::mt19937 random(7);  // NOLINT: the moments are random enough by themselves
  fs::create_directories(models_ / "blobs");
  for (int round = 0; round < 60; ++round) {
    SCOPED_TRACE(std::format("round {}", round));
    const pid_t pid = start([&] {
      while (true) change_everything();
    });
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 20'000));
    ::kill(pid, SIGKILL);
    EXPECT_TRUE(WIFSIGNALED(end_of(pid)));
    expect_whole();
    if (HasFailure()) return;
  }
  EXPECT_TRUE(store().prune());
  EXPECT_THAT(leftovers(), IsEmpty());
}

// After a power cut, too: a name never reaches the disk before the bytes, nor a manifest before its
// blobs, and blobs do not go before the manifest that names them is gone from the disk.
TEST_F(CrashTest, EverythingIsSyncedInTheRightOrder) {
  std::vector<std::string> steps;
  watch().steps = &steps;
  change_everything();
  watch().steps = nullptr;
  std::set<std::string> synced;
  int published = 0;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    std::istringstream words(steps[i]);
    std::string what;
    std::string path;
    std::string to;
    words >> what >> path >> to;
    const std::string next = i + 1 < steps.size() ? steps[i + 1] : "";
    if (what == "sync") {
      synced.insert(path);
    } else if (what == "rename") {
      ++published;
      EXPECT_TRUE(synced.contains(path)) << to << " gets its name before its bytes are safe";
      EXPECT_EQ(next, "sync " + fs::path(to).parent_path().string()) << "the name is not safe";
    } else if (path.contains("/manifests/")) {
      EXPECT_EQ(next, "sync " + fs::path(path).parent_path().string())
          << "the manifest could come back without its blobs";
    }
  }
  EXPECT_GE(published, 6);
  for (const fs::path& made : {models_, models_ / "manifests"}) {
    EXPECT_TRUE(synced.contains(made.string())) << "folders made in " << made << " are not safe";
  }
}

// Three processes make, copy, remove and prune models that share their blobs; all blobs look old,
// so that nothing but the processes' own care keeps them.
TEST_F(CrashTest, ProcessesThatShareAFolderDoNotTakeEachOthersBlobs) {
  Store base = store();
  ASSERT_TRUE(base.create(from_file(base, "base", "base")));
  const auto work = [&](int self) {
    Store models = store();
    std::mt19937 random(static_cast<unsigned>(self));  // NOLINT: repeatable
    const auto check = [](bool ok, std::string_view what, const auto& result) {
      if (ok) return;
      std::fputs(std::format("{}: {}\n", what, message_of(result)).c_str(), stderr);
      ::_exit(3);
    };
    for (int i = 0; i < 60; ++i) {
      const std::string name = std::format("m{}", self);
      api::CreateRequest request;
      request.model = name;
      request.from = "base";
      request.system = std::format("text {}", random() % 3);
      const auto created = models.create(request, [&](const auto&) {
        for (const auto& entry : fs::directory_iterator(models_ / "blobs")) {
          std::error_code gone;
          if (Digest::parse(entry.path().filename().string())) {
            fs::last_write_time(entry.path(),
                                fs::file_time_type::clock::now() - std::chrono::hours(2), gone);
          }
        }
        return true;
      });
      check(created.has_value(), "create", created);
      const auto model = models.resolve(name);
      check(model.has_value() && model->system == request.system, "resolve", model);
      const auto copied = models.copy(name, std::format("copy{}", random() % 2));
      check(copied.has_value(), "copy", copied);
      const auto removed = models.remove(name);
      check(removed.has_value(), "remove", removed);
      const auto pruned = models.prune();
      check(pruned.has_value(), "prune", pruned);
    }
  };
  std::vector<pid_t> processes;
  for (int self = 0; self < 3; ++self) processes.push_back(start([&] { work(self); }));
  for (const pid_t pid : processes) EXPECT_EQ(end_of(pid), 0);
  expect_whole();
  EXPECT_TRUE(base.resolve("base"));
  EXPECT_THAT(leftovers(), IsEmpty());
}

}  // namespace
}  // namespace ollama::store
