// Which models are loaded, and who may use them. Requests wait in one queue; a loaded model is
// shared by those that want it with the same options; the idle model unused longest makes room; a
// model without users is unloaded when its keep-alive is over.
//
// A model is loaded beside others where all of it finds room; else the idle one unused longest goes
// first. Models that may go to a GPU are loaded one after the other, and what one gave back there
// is promised again only when the GPU says that it is free: a plan is made of memory that is
// certain.
//
// This is policy without I/O: runners come from a factory, time from a clock, and the owner calls
// tick() at next_deadline(). Everything happens on one loop (see runner/runner.h).
#pragma once

#include <chrono>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "api/types.h"
#include "base/error.h"
#include "engine/engine.h"
#include "runner/runner.h"

namespace ollama::sched {

using Duration = std::chrono::nanoseconds;
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Duration>;
using Now = std::function<TimePoint()>;

inline constexpr Duration kForever = Duration::max();

inline constexpr ErrorConstant kQueueFull{
    ErrorCode::kUnavailable, "server busy, please try again.  maximum pending requests exceeded"};
inline constexpr ErrorConstant kShuttingDown{ErrorCode::kUnavailable,
                                             "the server is shutting down"};

// Models that are loaded at once unless somebody says otherwise: for each GPU, or the CPU alone.
inline constexpr std::size_t kLoadedPerDevice = 3;
// How long a GPU may take to say that memory is free again, and how often it is asked.
inline constexpr Duration kRecovery = std::chrono::seconds(5);
inline constexpr Duration kRecoveryCheck = std::chrono::milliseconds(250);

struct Options {
  std::size_t max_loaded = 0;   // 0: kLoadedPerDevice for each GPU, once use() has told of them
  std::size_t max_queue = 512;  // requests that wait for a model or for their turn in one
  std::size_t parallel = 1;     // requests that one model works on at once
  Duration keep_alive = std::chrono::minutes(5);
  Duration load_timeout = std::chrono::minutes(5);  // without progress
  ml::DeviceOptions devices;                        // those that are asked for free memory
};

// What is to be loaded. Two requests share a runner when key and options are equal; with other
// options the model is loaded again, once its users are done.
struct Model {
  std::string key;  // the same for the same weights and adapters
  std::string path;
  engine::LoadOptions options;
  // For people and /api/ps.
  std::string name;
  std::string digest;
  api::ModelDetails details;
};

namespace internal {
struct Entry;
}
class Scheduler;

// The right to use a loaded model, until it is destroyed.
class Lease {
 public:
  Lease(Lease&&) noexcept = default;
  Lease& operator=(Lease&& other) noexcept;
  ~Lease();

  runner::Runner& runner() const;
  const engine::ModelInfo& info() const;
  const Model& model() const;

 private:
  friend class Scheduler;
  Lease(std::shared_ptr<Scheduler*> scheduler, std::shared_ptr<internal::Entry> entry)
      : scheduler_(std::move(scheduler)), entry_(std::move(entry)) {}
  void release();

  std::shared_ptr<Scheduler*> scheduler_;  // null in it when that is gone
  std::shared_ptr<internal::Entry> entry_;
};

struct Request {
  Model model;
  std::optional<Duration> keep_alive;   // from now on, for this model; negative counts as kForever
  std::function<void(float)> progress;  // of the load, 0 to 1
};

struct Loaded {
  Model model;
  engine::ModelInfo info;
  bool loading = false;
  float progress = 1;  // of the load, 0 to 1
  std::size_t users = 0;
  std::optional<Duration> expires_in;  // nullopt: never
  int pid = 0;
};

class Scheduler {
 public:
  using Ticket = std::uint64_t;
  using Granted = std::function<void(Result<Lease>)>;

  Scheduler(Options options, runner::RunnerFactory& factory, Now now);
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;
  ~Scheduler();  // ends all runners at once; waiting requests are forgotten

  // The devices there are, as the first listing says.
  void use(std::span<const ml::Device> devices);

  // Asks for a model. `granted` is called once, perhaps before this returns. Errors: kQueueFull;
  // those of loading; kTimeout; kUnavailable.
  Ticket acquire(Request request, Granted granted);
  // The request is not wanted any more; `granted` will not be called. Unknown tickets are ignored.
  void abandon(Ticket ticket);
  // Unloads the model with this key when its users are done; at once when it has none. False when
  // it is not loaded.
  bool unload(std::string_view key);
  // Sorted: what expires last comes first.
  std::vector<Loaded> loaded() const;
  std::size_t waiting() const { return waiting_.size(); }
  // Remote servers that hold parts of models: each serves one program at a time.
  std::set<std::string> remote_in_use() const;

  // When tick() is to be called, and the notice that this has changed.
  std::optional<TimePoint> next_deadline() const;
  void on_deadline_change(std::function<void()> callback) {
    deadline_changed_ = std::move(callback);
  }
  void tick();

  // Refuses what waits and what comes, and stops all runners; `done` when they are gone.
  void shutdown(std::function<void()> done);

 private:
  friend class Lease;
  using EntryPtr = std::shared_ptr<internal::Entry>;
  struct Waiting {
    Ticket ticket = 0;
    Request request;
    Granted granted;
  };

  void release(internal::Entry& entry);
  EntryPtr find(std::string_view key) const;
  std::size_t queued() const;
  bool making_room(const internal::Entry& entry) const;
  // Goes through the queue: grants, loads, makes room.
  void pump();
  void pump_once(std::vector<std::function<void()>>& calls);
  Result<> start_load(const Waiting& waiting);
  void drain(internal::Entry& entry);
  void stop(internal::Entry& entry);
  void erase(const internal::Entry& entry);
  void loading_done(const EntryPtr& entry, Result<engine::ModelInfo> result);
  void load_failed(const EntryPtr& entry, const Error& error);
  void died_loading(const EntryPtr& entry, const Error& error);
  void timed_out(const EntryPtr& entry);
  void refuse(const Model& model, const Error& error);
  bool is_waited_for(std::string_view key) const;
  void exited(const EntryPtr& entry, const Error& error);
  std::size_t max_loaded() const;
  // How a load is tried that has died too often otherwise; each attempt does without more.
  enum class Attempt : std::uint8_t { kAsAsked, kAgain, kWithoutRemote, kCpuOnly };
  Attempt attempt(std::string_view key) const;
  std::optional<Attempt> after_death(const Model& model) const;
  bool may_use_gpus(const Model& model) const;
  bool is_loading_onto_gpus() const;
  // Loaded models' part of a device, as they planned it.
  std::uint64_t used_on(std::string_view device) const;
  // Asks the GPUs that the entry was on until its memory is free, or kRecovery is over.
  void await_recovery(const internal::Entry& entry);
  void start_asking();
  void ask_devices();
  void give_up_recovery();
  // What must be free of a device before anything else is loaded.
  std::uint64_t expected_on(const std::string& device) const;
  bool is_recovered() const;
  void devices_listed(const Result<std::vector<ml::Device>>& devices);

  std::shared_ptr<Scheduler*> self_ = std::make_shared<Scheduler*>(this);  // for leases
  // Memory that was given back on GPUs and has not been seen to be free.
  struct Recovery {
    // Of what came back, bytes that may be the driver's to keep or somebody else's by now; by the
    // device's name.
    std::map<std::string, std::uint64_t, std::less<>> slack;
    std::map<std::string, std::uint64_t, std::less<>> seen;  // free, by the latest listing
    TimePoint end = TimePoint::max();                        // both: while nobody is asked
    TimePoint next_check = TimePoint::max();
    std::unique_ptr<runner::Runner> asking;  // a process that lists the devices
  };

  Options options_;
  std::optional<std::size_t> gpus_;  // once use() has told
  bool may_have_local_gpus_ = true;
  // Free of each GPU of this machine when nothing of ours is on it, as far as has been seen. Remote
  // ones need none: they answer only when what another program had is free.
  std::map<std::string, std::uint64_t, std::less<>> capacity_;
  std::optional<Recovery> recovery_;
  // Models that found no room beside the others: one of these must go first.
  std::set<std::string, std::less<>> crowded_;
  // Models whose process died while it loaded them, or said nothing: how they are tried next.
  std::map<std::string, Attempt, std::less<>> attempts_;
  runner::RunnerFactory& factory_;
  Now now_;
  std::vector<EntryPtr> entries_;
  std::list<Waiting> waiting_;
  Ticket last_ticket_ = 0;
  bool pumping_ = false;
  bool pump_again_ = false;
  bool shutting_down_ = false;
  std::function<void()> shutdown_done_;
  std::function<void()> deadline_changed_;
};

}  // namespace ollama::sched
