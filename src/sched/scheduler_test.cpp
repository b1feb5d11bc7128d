#include "sched/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <random>

namespace ollama::sched {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;

// A runner whose loading, failing and ending the test decides.
class FakeRunner final : public runner::Runner {
 public:
  explicit FakeRunner(std::vector<FakeRunner*>& alive) : alive_(alive) { alive_.push_back(this); }
  FakeRunner(const FakeRunner&) = delete;
  FakeRunner& operator=(const FakeRunner&) = delete;
  ~FakeRunner() override { std::erase(alive_, this); }

  void load(const runner::Load& load, runner::LoadEvents events) override {
    path = load.path;
    options = load.options;
    load_events = std::move(events);
  }
  void explain(const runner::Load&, std::function<void(Result<api::MemoryPlan>)>) override {}
  void list_devices(const ml::DeviceOptions&,
                    std::function<void(Result<std::vector<ml::Device>>)> done) override {
    listed = std::move(done);
  }
  runner::Id generate(runner::Generate, std::shared_ptr<runner::GenerateListener>) override {
    return 0;
  }
  void cancel(runner::Id) override {}
  void render(runner::Generate, std::function<void(Result<runner::Text>)>) override {}
  runner::Id embed(runner::Embed, std::function<void(Result<runner::Embedded>)>) override {
    return 0;
  }
  runner::Id rank(runner::Rank, std::function<void(Result<runner::Embedded>)>) override {
    return 0;
  }
  void tokenize(runner::Tokenize,
                std::function<void(Result<std::vector<runner::Token>>)>) override {}
  void detokenize(runner::Detokenize, std::function<void(Result<std::string>)>) override {}
  void on_exit(std::function<void(const Error&)> callback) override { exit = std::move(callback); }
  void stop() override { stopping = true; }
  int pid() const override { return 1; }

  // `vram`: bytes of it on the device "GPU0".
  void finish_loading(std::uint64_t vram = 0, const std::string& remote = {}) {
    const auto done = std::exchange(load_events.done, nullptr);
    engine::ModelInfo info;
    info.device_bytes = vram;
    if (vram > 0) info.devices = {{.name = "GPU0", .bytes = vram, .gpu = true, .remote = {}}};
    if (!remote.empty()) {
      info.devices.push_back({.name = "RPC0", .bytes = 1, .gpu = true, .remote = remote});
    }
    done(info);
  }
  // Answers what was asked of the devices. Destroys this.
  void list(std::vector<ml::Device> devices) {
    const auto done = std::exchange(listed, nullptr);
    done(std::move(devices));
  }
  void fail_loading(const Error& error) {
    const auto done = std::exchange(load_events.done, nullptr);
    done(std::unexpected(error));
  }
  // May destroy this.
  void end() {
    const auto callback = std::exchange(exit, nullptr);
    callback(Error(ErrorCode::kUnavailable, "gone"));
  }

  std::string path;
  engine::LoadOptions options;
  std::function<void(Result<std::vector<ml::Device>>)> listed;
  runner::LoadEvents load_events;
  std::function<void(const Error&)> exit;
  bool stopping = false;

 private:
  std::vector<FakeRunner*>& alive_;
};

class FakeFactory final : public runner::RunnerFactory {
 public:
  Result<std::unique_ptr<runner::Runner>> start() override {
    if (refuse) return fail(ErrorCode::kIo, "no process");
    ++started;
    return std::make_unique<FakeRunner>(alive);
  }
  std::vector<FakeRunner*> alive;
  int started = 0;
  bool refuse = false;
};

class SchedulerTest : public testing::Test {
 protected:
  void make(Options options) {
    scheduler_ = std::make_unique<Scheduler>(options, factory_, [this] { return now_; });
    scheduler_->use({});  // no GPU
  }
  struct Client {
    std::optional<Lease> lease;
    std::optional<Error> error;
    Scheduler::Ticket ticket = 0;
  };
  std::unique_ptr<Client> ask(const std::string& key, std::optional<Duration> keep_alive = {},
                              std::uint32_t context = 0) {
    auto client = std::make_unique<Client>();
    Request request;
    request.model.key = request.model.name = request.model.path = key;
    request.model.options.context = context;
    request.model.options.devices.rpc_servers = lenders_;
    request.keep_alive = keep_alive;
    client->ticket =
        scheduler_->acquire(std::move(request), [raw = client.get()](Result<Lease> lease) {
          if (lease) {
            raw->lease.emplace(std::move(*lease));
          } else {
            raw->error = lease.error();
          }
        });
    return client;
  }
  FakeRunner& runner(std::string_view path) {
    const auto found = std::ranges::find_if(factory_.alive, [&](FakeRunner* each) {
      return each->path == path && !each->stopping && each->exit;
    });
    EXPECT_NE(found, factory_.alive.end()) << path;
    return **found;
  }
  // Ends every runner that was told to stop.
  void end_stopped() {
    while (true) {
      const auto found = std::ranges::find_if(
          factory_.alive, [](FakeRunner* each) { return each->stopping && each->exit; });
      if (found == factory_.alive.end()) return;
      (*found)->end();
    }
  }
  std::vector<std::string> running() {
    std::vector<std::string> names;
    for (const FakeRunner* each : factory_.alive) names.push_back(each->path);
    return names;
  }
  // A loaded model without users.
  void load_idle(const std::string& key, std::optional<Duration> keep_alive = {}) {
    const auto client = ask(key, keep_alive);
    runner(key).finish_loading();
    ASSERT_TRUE(client->lease);
  }
  void advance(Duration duration) {
    now_ += duration;
    scheduler_->tick();
  }

  // The one that lists devices; nullptr when nobody asks.
  FakeRunner* asking() {
    const auto found =
        std::ranges::find_if(factory_.alive, [](FakeRunner* each) { return bool(each->listed); });
    return found == factory_.alive.end() ? nullptr : *found;
  }

  std::vector<std::string> lenders_;  // OLLAMA_RPC_SERVERS
  TimePoint now_{1h};
  FakeFactory factory_;
  std::unique_ptr<Scheduler> scheduler_;
};

// Two requests for one model must not load it twice.
TEST_F(SchedulerTest, SharesARunner) {
  make({});
  const auto one = ask("a");
  const auto two = ask("a");
  EXPECT_FALSE(one->lease);
  runner("a").finish_loading();
  EXPECT_TRUE(one->lease && two->lease);
  const auto three = ask("a");
  EXPECT_TRUE(three->lease);
  EXPECT_EQ(factory_.started, 1);
  EXPECT_EQ(scheduler_->loaded().at(0).users, 3U);
}

// Keep-alive counts from the last use, never during one.
TEST_F(SchedulerTest, KeepAliveUnloads) {
  make({.keep_alive = 5min});
  auto client = ask("a");
  runner("a").finish_loading();
  advance(1h);
  EXPECT_FALSE(runner("a").stopping);
  client.reset();
  EXPECT_EQ(scheduler_->next_deadline(), now_ + 5min);
  advance(5min - 1ns);
  EXPECT_FALSE(factory_.alive.at(0)->stopping);
  advance(1ns);
  EXPECT_TRUE(factory_.alive.at(0)->stopping);
  end_stopped();
  EXPECT_TRUE(factory_.alive.empty());
  EXPECT_FALSE(scheduler_->next_deadline());
}

TEST_F(SchedulerTest, KeepAliveOfARequest) {
  make({.keep_alive = 5min});
  load_idle("zero", 0ns);
  EXPECT_TRUE(factory_.alive.at(0)->stopping);
  end_stopped();
  load_idle("forever", -1ns);
  EXPECT_FALSE(scheduler_->next_deadline());
  advance(24h * 365);
  EXPECT_THAT(running(), ElementsAre("forever"));
  EXPECT_EQ(scheduler_->loaded().at(0).expires_in, std::nullopt);
  load_idle("minute", 1min);
  EXPECT_EQ(scheduler_->loaded().at(1).expires_in, 1min);
  // A later request without one leaves the model's as it is.
  ask("minute");
  EXPECT_EQ(scheduler_->loaded().at(1).expires_in, 1min);
}

// The idle model unused longest goes, not the first loaded and not one in use.
TEST_F(SchedulerTest, EvictsTheLeastRecentlyUsed) {
  make({.max_loaded = 3});
  const auto busy = ask("busy");
  runner("busy").finish_loading();
  now_ += 1s;
  load_idle("old");
  now_ += 1s;
  load_idle("new");
  now_ += 1s;
  ask("old");  // used again
  now_ += 1s;
  const auto client = ask("next");
  EXPECT_TRUE(factory_.alive.at(2)->stopping);  // "new"
  EXPECT_EQ(factory_.started, 3);               // memory is not promised before it is free
  end_stopped();
  EXPECT_THAT(running(), ElementsAre("busy", "old", "next"));
  runner("next").finish_loading();
  EXPECT_TRUE(client->lease);
}

// With everything in use, the oldest finishes its answers and goes; others wait and nobody starves.
TEST_F(SchedulerTest, DrainsABusyModelForOthers) {
  make({.max_loaded = 1});
  auto first = ask("a");
  runner("a").finish_loading();
  const auto other = ask("b");
  const auto again = ask("a");  // came after b, so b goes first
  EXPECT_FALSE(again->lease);
  EXPECT_FALSE(runner("a").stopping);
  first.reset();
  EXPECT_TRUE(factory_.alive.at(0)->stopping);
  end_stopped();
  runner("b").finish_loading();
  EXPECT_TRUE(other->lease);
  EXPECT_FALSE(again->lease);
  other->lease.reset();
  end_stopped();
  runner("a").finish_loading();
  EXPECT_TRUE(again->lease);
}

// One waiting model makes one place, however many requests want it.
TEST_F(SchedulerTest, MakesNoMoreRoomThanNeeded) {
  make({.max_loaded = 3});
  load_idle("a");
  load_idle("b");
  load_idle("c");
  const auto one = ask("d");
  const auto two = ask("d");
  EXPECT_EQ(std::ranges::count_if(factory_.alive, [](auto* each) { return each->stopping; }), 1);
}

// Other options mean another load, after the users of the present one.
TEST_F(SchedulerTest, ReloadsForOtherOptions) {
  make({});
  auto small = ask("a", {}, 1024);
  runner("a").finish_loading();
  const auto large = ask("a", {}, 4096);
  EXPECT_FALSE(large->lease);
  EXPECT_EQ(factory_.started, 1);
  small.reset();
  end_stopped();
  EXPECT_EQ(factory_.started, 2);
  runner("a").finish_loading();
  EXPECT_TRUE(large->lease);
}

TEST_F(SchedulerTest, QueueIsBounded) {
  make({.max_loaded = 1, .max_queue = 2, .parallel = 1});
  const auto working = ask("a");
  runner("a").finish_loading();
  const auto second = ask("a");  // waits for its turn in the engine
  const auto third = ask("b");   // waits for room
  const auto fourth = ask("a");
  ASSERT_TRUE(fourth->error);
  EXPECT_EQ(fourth->error->message(),
            "server busy, please try again.  maximum pending requests exceeded");
  EXPECT_EQ(fourth->error->code(), ErrorCode::kUnavailable);
  second->lease.reset();
  const auto fifth = ask("b");
  EXPECT_FALSE(fifth->error);
}

// A client that leaves the queue must not be served, nor block others.
TEST_F(SchedulerTest, AbandonedRequestsAreForgotten) {
  make({.max_queue = 1});
  const auto one = ask("a");
  scheduler_->abandon(one->ticket);
  const auto two = ask("a");
  EXPECT_FALSE(two->error);
  runner("a").finish_loading();
  EXPECT_FALSE(one->lease);
  EXPECT_TRUE(two->lease);
}

TEST_F(SchedulerTest, LoadFailureReachesAllWhoWait) {
  make({});
  const auto one = ask("a");
  const auto two = ask("a");
  runner("a").fail_loading(Error(ErrorCode::kCorrupt, "bad file"));
  ASSERT_TRUE(one->error && two->error);
  EXPECT_EQ(two->error->message(), "bad file");
  EXPECT_TRUE(factory_.alive.empty());
  factory_.refuse = true;
  EXPECT_EQ(ask("a")->error->code(), ErrorCode::kIo);
  factory_.refuse = false;
  const auto three = ask("a");
  factory_.alive.at(0)->end();  // dies while it loads
  EXPECT_TRUE(three->error);
}

// Slow is fine, stalled is not: progress puts the time-out off.
TEST_F(SchedulerTest, StalledLoadsTimeOut) {
  make({.load_timeout = 1min});
  const auto client = ask("a");
  for (int i = 1; i <= 5; ++i) {
    advance(59s);
    ASSERT_FALSE(client->error);
    runner("a").load_events.progress(static_cast<float>(i) / 10);
  }
  advance(30s);
  runner("a").load_events.progress(0.5F);  // no progress at all
  advance(30s);
  ASSERT_TRUE(client->error);
  EXPECT_EQ(client->error->code(), ErrorCode::kTimeout);
  // What it took is free only when it is gone.
  const auto next = ask("a");
  EXPECT_EQ(factory_.started, 1);
  end_stopped();
  EXPECT_EQ(factory_.started, 2);
}

// Nobody waits any more for the place that a busy model was to make: it stays.
TEST_F(SchedulerTest, AModelThatMadeRoomForNobodyStays) {
  make({.max_loaded = 1});
  auto user = ask("a");
  runner("a").finish_loading();
  const auto other = ask("b");
  scheduler_->abandon(other->ticket);
  user.reset();
  EXPECT_FALSE(runner("a").stopping);
  EXPECT_EQ(factory_.started, 1);
}

TEST_F(SchedulerTest, ADeadRunnerIsReplaced) {
  make({});
  const auto client = ask("a");
  runner("a").finish_loading();
  runner("a").end();
  EXPECT_TRUE(scheduler_->loaded().empty());
  const auto next = ask("a");
  EXPECT_EQ(factory_.started, 2);
  runner("a").finish_loading();
  EXPECT_TRUE(next->lease);
  client->lease.reset();  // of the dead one
  EXPECT_EQ(scheduler_->loaded().at(0).users, 1U);
}

TEST_F(SchedulerTest, UnloadWaitsForUsers) {
  make({});
  auto client = ask("a");
  runner("a").finish_loading();
  EXPECT_TRUE(scheduler_->unload("a"));
  EXPECT_FALSE(scheduler_->unload("b"));
  EXPECT_FALSE(factory_.alive.at(0)->stopping);
  client.reset();
  EXPECT_TRUE(factory_.alive.at(0)->stopping);
}

TEST_F(SchedulerTest, ShutdownRefusesAndStops) {
  make({});
  const auto user = ask("a");
  runner("a").finish_loading();
  const auto waiting = ask("b");
  bool done = false;
  scheduler_->shutdown([&] { done = true; });
  EXPECT_TRUE(waiting->error);
  EXPECT_TRUE(ask("c")->error);
  EXPECT_FALSE(done);
  end_stopped();
  EXPECT_TRUE(done);
}

// A lease may be destroyed after the scheduler, as it is when the server is torn down.
TEST_F(SchedulerTest, LeasesMayOutliveTheScheduler) {
  make({});
  auto client = ask("a");
  runner("a").finish_loading();
  scheduler_.reset();
  client.reset();
  EXPECT_TRUE(factory_.alive.empty());
}

// Whatever happens in whatever order: never too many processes, never a lease on a dead runner
// granted twice, and everybody is answered in the end.
TEST_F(SchedulerTest, RandomLives) {
  for (std::uint32_t seed = 0; seed < 200; ++seed) {
    std::mt19937 random(seed);
    make({.max_loaded = 2, .max_queue = 1000, .keep_alive = 3s, .load_timeout = 10s});
    std::vector<std::unique_ptr<Client>> clients;
    const auto pick = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
    for (int step = 0; step < 200; ++step) {
      switch (pick(8)) {
        case 0:
        case 1:
          clients.push_back(
              ask(std::string(1, static_cast<char>('a' + pick(4))), {}, pick(5) == 0 ? 7U : 0U));
          break;
        case 2:
          if (!clients.empty()) {
            auto& client = clients[pick(clients.size())];
            if (client->lease) client->lease.reset();
          }
          break;
        case 3:
          for (FakeRunner* each : factory_.alive) {
            if (each->load_events.done && !each->stopping && each->exit) {
              each->finish_loading();
              break;
            }
          }
          break;
        case 4:
          end_stopped();
          break;
        case 5:
          advance(1s);
          break;
        case 6:
          if (!factory_.alive.empty() && pick(4) == 0) {
            FakeRunner* each = factory_.alive[pick(factory_.alive.size())];
            if (each->exit) each->end();
          }
          break;
        default:
          scheduler_->unload(std::string(1, static_cast<char>('a' + pick(4))));
      }
      ASSERT_LE(scheduler_->loaded().size(), 2U);
    }
    // Everybody leaves when served; then all must have been.
    for (int round = 0; round < 1000; ++round) {
      for (const auto& client : clients) client->lease.reset();
      end_stopped();
      for (FakeRunner* each : factory_.alive) {
        if (each->load_events.done && !each->stopping && each->exit) {
          each->finish_loading();
          break;
        }
      }
    }
    EXPECT_EQ(scheduler_->waiting(), 0U) << "seed " << seed;
    clients.clear();
    scheduler_.reset();
    ASSERT_TRUE(factory_.alive.empty());
  }
}

// ---- Memory

std::vector<ml::Device> one_gpu(std::uint64_t free) {
  return {{.name = "GPU0", .kind = ml::DeviceKind::kGpu, .total_bytes = 1000, .free_bytes = free},
          {.name = "CPU", .total_bytes = 1000, .free_bytes = 1000}};
}
const Error kNoRoomLeft(ErrorCode::kNoRoom, "no room beside the others");

// Three for each GPU, three without one, and what the user says before both.
TEST_F(SchedulerTest, LoadsThreeModelsForEachGpu) {
  for (const auto& [gpus, max, expected] : {std::tuple(0, 0U, 3U), std::tuple(1, 0U, 3U),
                                            std::tuple(2, 0U, 6U), std::tuple(2, 2U, 2U)}) {
    make({.max_loaded = max});
    const std::vector<ml::Device> devices(static_cast<std::size_t>(gpus), one_gpu(1000)[0]);
    scheduler_->use(devices);
    std::vector<std::unique_ptr<Client>> clients;
    for (int i = 0; i < 8; ++i) clients.push_back(ask(std::to_string(i)));
    for (int i = 0; i < static_cast<int>(expected); ++i) {
      runner(std::to_string(i)).finish_loading();
    }
    EXPECT_EQ(scheduler_->loaded().size(), expected) << gpus << " GPUs, max " << max;
    clients.clear();
    scheduler_.reset();
    ASSERT_TRUE(factory_.alive.empty());
  }
}

// What one takes is known only when it is loaded: the next plans with what is left then. Models
// that use no GPU wait for nobody.
TEST_F(SchedulerTest, LoadsOntoGpusOneAfterTheOther) {
  make({});
  scheduler_->use(one_gpu(1000));
  const auto first = ask("a");
  const auto second = ask("b");
  auto cpu = std::make_unique<Client>();
  Request request;
  request.model.key = request.model.path = "cpu";
  request.model.options.gpu_layers = 0;
  scheduler_->acquire(std::move(request), [&](Result<Lease> lease) {
    if (lease) cpu->lease.emplace(std::move(*lease));
  });
  EXPECT_THAT(running(), ElementsAre("a", "cpu"));
  runner("a").finish_loading(100);
  EXPECT_THAT(running(), ElementsAre("a", "cpu", "b"));
}

// Room on a GPU is not made by a model that has nothing there, however long it was unused.
TEST_F(SchedulerTest, MakesRoomOnTheGpu) {
  make({});
  scheduler_->use(one_gpu(1000));
  load_idle("cpu");
  advance(1s);
  {
    const auto client = ask("gpu");
    runner("gpu").finish_loading(800);
  }
  advance(1s);
  const auto client = ask("new");
  runner("new").fail_loading(kNoRoomLeft);
  EXPECT_FALSE(runner("cpu").stopping);
  EXPECT_TRUE(std::ranges::any_of(
      factory_.alive, [](auto* each) { return each->path == "gpu" && each->stopping; }));
}

// The first model may take less than all of it needs; beside others it is all or nothing.
TEST_F(SchedulerTest, AsksForWholeModelsBesideOthers) {
  make({});
  load_idle("a");
  EXPECT_FALSE(runner("a").options.whole);
  const auto client = ask("b");
  EXPECT_TRUE(runner("b").options.whole);
}

// A model that does not fit beside the others takes the place of the one unused longest, and is
// tried again beside what is left, until it is alone.
TEST_F(SchedulerTest, MakesRoomForAModelThatDoesNotFit) {
  make({});
  load_idle("a");
  advance(1s);
  load_idle("b");
  advance(1s);
  const auto client = ask("c");
  runner("c").fail_loading(kNoRoomLeft);
  EXPECT_FALSE(client->error) << "it only has to wait";
  EXPECT_THAT(running(), testing::UnorderedElementsAre("a", "b"));
  EXPECT_EQ(std::ranges::count_if(factory_.alive, [](auto* each) { return each->stopping; }), 1);
  end_stopped();
  EXPECT_TRUE(runner("c").options.whole) << "b is still there";
  runner("c").fail_loading(kNoRoomLeft);
  end_stopped();
  EXPECT_THAT(running(), ElementsAre("c"));
  EXPECT_FALSE(runner("c").options.whole) << "now it is alone and takes what there is";
  runner("c").finish_loading();
  EXPECT_TRUE(client->lease);
}

// Nobody's answer is broken off to make room.
TEST_F(SchedulerTest, ACrowdedModelWaitsForTheUsersOfOthers) {
  make({});
  auto busy = ask("a");
  runner("a").finish_loading();
  const auto client = ask("b");
  runner("b").fail_loading(kNoRoomLeft);
  EXPECT_FALSE(client->error);
  EXPECT_FALSE(runner("a").stopping);
  busy.reset();  // its lease goes
  end_stopped();
  EXPECT_THAT(running(), ElementsAre("b"));
  EXPECT_FALSE(runner("b").options.whole);
}

// The others may leave while it looks for room beside them: alone it may take less than all.
TEST_F(SchedulerTest, NoRoomBesideOthersThatLeftIsNoError) {
  make({});
  load_idle("a", 1s);
  const auto client = ask("b");
  EXPECT_TRUE(runner("b").options.whole);
  advance(2s);
  end_stopped();
  runner("b").fail_loading(kNoRoomLeft);
  EXPECT_FALSE(client->error);
  EXPECT_FALSE(runner("b").options.whole);
  runner("b").finish_loading();
  EXPECT_TRUE(client->lease);
}

// Alone, there is nobody to wait for.
TEST_F(SchedulerTest, NoRoomAloneIsAnError) {
  make({});
  const auto client = ask("a");
  runner("a").fail_loading(kNoRoomLeft);
  ASSERT_TRUE(client->error);
  EXPECT_EQ(client->error->message(), kNoRoomLeft.message());
}

// What a model had on a GPU is promised again only when the GPU says that it is free.
TEST_F(SchedulerTest, LoadsOnlyIntoMemoryThatIsFreeAgain) {
  make({.max_loaded = 1});
  scheduler_->use(one_gpu(1000));
  {
    const auto first = ask("a", Duration::zero());
    runner("a").finish_loading(800);
    ASSERT_TRUE(first->lease);
  }
  end_stopped();
  const auto client = ask("b");
  ASSERT_EQ(factory_.alive.size(), 1U) << "a process that lists the devices, and no other";
  asking()->list(one_gpu(300));
  EXPECT_TRUE(running().empty()) << "not loaded yet";
  advance(kRecoveryCheck);
  asking()->list(one_gpu(790));
  advance(kRecoveryCheck);
  asking()->list(one_gpu(810));  // three quarters of the 800 are back
  EXPECT_THAT(running(), ElementsAre("b"));
  runner("b").finish_loading();
  EXPECT_TRUE(client->lease);
}

// Memory that does not come back is somebody else's now: nobody waits for ever, and the next
// unloading does not expect it.
TEST_F(SchedulerTest, DoesNotWaitForeverForMemory) {
  make({.max_loaded = 1});
  scheduler_->use(one_gpu(1000));
  for (int round = 0; round < 2; ++round) {
    {
      const auto first = ask("a", Duration::zero());
      runner("a").finish_loading(400);
      ASSERT_TRUE(first->lease);
    }
    end_stopped();
    const auto client = ask("b", Duration::zero());
    if (round == 0) {
      const TimePoint begin = now_;
      while (FakeRunner* each = asking()) {
        each->list(one_gpu(500));
        ASSERT_LE(now_ - begin, kRecovery);
        ASSERT_TRUE(scheduler_->next_deadline());
        advance(*scheduler_->next_deadline() - now_);
      }
      EXPECT_EQ(now_ - begin, kRecovery);
    } else {
      asking()->list(one_gpu(500));
      EXPECT_EQ(asking(), nullptr) << "500 is what there is";
    }
    runner("b").finish_loading();
    ASSERT_TRUE(client->lease) << "round " << round;
    client->lease.reset();
    end_stopped();
  }
}

// Two models leave one after the other: what both had must be free, not what the second had.
TEST_F(SchedulerTest, WaitsForAllThatWasGivenBack) {
  make({});
  scheduler_->use(one_gpu(1000));
  for (const char* key : {"a", "b"}) {
    const auto client = ask(key);
    runner(key).finish_loading(400);
  }
  scheduler_->unload("a");
  end_stopped();
  scheduler_->unload("b");
  end_stopped();
  const auto client = ask("c");
  asking()->list(one_gpu(600));  // one of them is back
  EXPECT_TRUE(running().empty());
  advance(kRecoveryCheck);
  asking()->list(one_gpu(950));
  EXPECT_THAT(running(), ElementsAre("c"));
}

// What a model takes while it loads is not what another has failed to give back.
TEST_F(SchedulerTest, JudgesNoMemoryWhileAModelLoads) {
  make({});
  scheduler_->use(one_gpu(1000));
  {
    const auto client = ask("a");
    runner("a").finish_loading(400);
  }
  const auto loading = ask("b");
  scheduler_->unload("a");
  end_stopped();
  const auto client = ask("c");
  EXPECT_EQ(asking(), nullptr);
  advance(2 * kRecovery);
  runner("b").finish_loading(400);
  ASSERT_NE(asking(), nullptr);
  asking()->list(one_gpu(550));  // 1000 less b's 400, but for what is a's or b's driver's
  EXPECT_EQ(runner("c").path, "c");
}

// A process that hangs while it lists devices holds nobody up for longer.
TEST_F(SchedulerTest, AHangingDriverDoesNotStopLoading) {
  make({.max_loaded = 1});
  scheduler_->use(one_gpu(1000));
  {
    const auto first = ask("a", Duration::zero());
    runner("a").finish_loading(800);
  }
  end_stopped();
  const auto client = ask("b");
  EXPECT_THAT(running(), ElementsAre(""));
  EXPECT_EQ(scheduler_->next_deadline(), now_ + kRecovery);
  advance(kRecovery);
  EXPECT_THAT(running(), ElementsAre("b"));
}

// ---- Remote servers

// Each serves one program at a time: those that a loaded model has are not asked again.
TEST_F(SchedulerTest, LeavesRemoteServersInUseAlone) {
  make({});
  lenders_ = {"one:1", "two:2"};
  const auto first = ask("a");
  const auto second = ask("b");
  EXPECT_THAT(running(), ElementsAre("a")) << "both would ask the same servers at once";
  EXPECT_THAT(runner("a").options.devices.rpc_servers, ElementsAre("one:1", "two:2"));
  runner("a").finish_loading(0, "two:2");
  EXPECT_THAT(scheduler_->remote_in_use(), ElementsAre("two:2"));
  EXPECT_THAT(runner("b").options.devices.rpc_servers, ElementsAre("one:1"));
}

// A server that is lost while a model loads is left out by the next try, which sees what answers;
// if that dies too, all are left out. A GPU of this machine is used as long as it is not to blame.
TEST_F(SchedulerTest, GoesOnWithoutRemoteServersThatAreLost) {
  make({});
  scheduler_->use(one_gpu(1000));
  lenders_ = {"one:1"};
  const auto client = ask("a");
  runner("a").end();
  EXPECT_THAT(runner("a").options.devices.rpc_servers, ElementsAre("one:1"));
  runner("a").end();
  EXPECT_TRUE(runner("a").options.devices.rpc_servers.empty());
  EXPECT_EQ(runner("a").options.gpu_layers, -1);
  runner("a").end();
  EXPECT_EQ(runner("a").options.gpu_layers, 0);
  EXPECT_FALSE(client->error);
  runner("a").finish_loading();
  EXPECT_TRUE(client->lease);
}

// One that falls silent in the middle of a load costs a time-out, and not the answer.
TEST_F(SchedulerTest, GoesOnWithoutRemoteServersThatFallSilent) {
  make({.load_timeout = 1min});
  lenders_ = {"one:1"};
  const auto client = ask("a");
  advance(1min);
  EXPECT_FALSE(client->error);
  end_stopped();
  EXPECT_TRUE(runner("a").options.devices.rpc_servers.empty());
  advance(1min);
  ASSERT_TRUE(client->error) << "now nothing else is to blame";
  EXPECT_EQ(client->error->code(), ErrorCode::kTimeout);
  end_stopped();
  const auto again = ask("a");
  EXPECT_THAT(runner("a").options.devices.rpc_servers, ElementsAre("one:1"));
}

// A driver that ends the process while a model is loaded leaves the CPU; a second death is an
// error.
TEST_F(SchedulerTest, LoadsOnTheCpuWhereLoadingOnAGpuDies) {
  make({});
  scheduler_->use(one_gpu(1000));
  const auto client = ask("a");
  EXPECT_EQ(runner("a").options.gpu_layers, -1);
  runner("a").end();
  EXPECT_FALSE(client->error);
  EXPECT_EQ(runner("a").options.gpu_layers, 0);
  runner("a").end();
  ASSERT_TRUE(client->error);
  const auto again = ask("a");
  EXPECT_EQ(runner("a").options.gpu_layers, -1) << "the driver may be well again";
  runner("a").end();
  runner("a").finish_loading();
  EXPECT_TRUE(again->lease);
}

// Where no GPU was found none is looked for at every load; those of other machines may come back.
TEST_F(SchedulerTest, LoadsNoLibrariesOfGpusWithoutGpus) {
  make({});
  const auto client = ask("a");
  EXPECT_EQ(runner("a").options.devices.library, "cpu");
  std::vector<ml::Device> devices = one_gpu(1000);
  devices[0].library = "rpc";
  scheduler_->use(devices);
  const auto other = ask("b");
  EXPECT_EQ(runner("b").options.devices.library, "cpu");
  runner("a").finish_loading();
  runner("b").finish_loading();
  scheduler_->use(one_gpu(1000));
  const auto third = ask("c");
  EXPECT_EQ(runner("c").options.devices.library, "");
}

// Without a GPU there is nothing else to try.
TEST_F(SchedulerTest, ADeathOnTheCpuIsAnErrorAtOnce) {
  make({});
  const auto client = ask("a");
  runner("a").end();
  EXPECT_TRUE(client->error);
}

}  // namespace
}  // namespace ollama::sched
