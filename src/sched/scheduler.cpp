#include "sched/scheduler.h"

#include "base/log.h"
#include "base/units.h"

namespace ollama::sched {

namespace {

TimePoint after(TimePoint now, Duration duration) {
  return duration >= TimePoint::max() - now ? TimePoint::max() : now + duration;
}

}  // namespace

namespace internal {

struct Entry {
  enum class State : std::uint8_t { kLoading, kReady, kStopping };

  Model model;
  std::unique_ptr<runner::Runner> runner;
  State state = State::kLoading;
  engine::ModelInfo info;
  std::size_t users = 0;
  bool whole = false;     // loaded wholly beside others, or not at all
  bool draining = false;  // takes no new users, and stops when the last one leaves
  Duration keep_alive{};
  TimePoint last_used{};
  TimePoint expires = TimePoint::max();        // while ready and without users
  TimePoint load_deadline = TimePoint::max();  // while loading
  float progress = 0;
};

}  // namespace internal

using internal::Entry;

// ---- Lease

Lease& Lease::operator=(Lease&& other) noexcept {
  if (this != &other) {
    release();
    scheduler_ = std::move(other.scheduler_);
    entry_ = std::move(other.entry_);
  }
  return *this;
}
Lease::~Lease() { release(); }
void Lease::release() {
  const auto entry = std::exchange(entry_, nullptr);
  if (entry && *scheduler_ != nullptr) (*scheduler_)->release(*entry);
}
runner::Runner& Lease::runner() const { return *entry_->runner; }
const Model& Lease::model() const { return entry_->model; }
const engine::ModelInfo& Lease::info() const { return entry_->info; }

// ---- Scheduler

Scheduler::Scheduler(Options options, runner::RunnerFactory& factory, Now now)
    : options_(std::move(options)), factory_(factory), now_(std::move(now)) {
  options_.max_queue = std::max<std::size_t>(options_.max_queue, 1);
}

Scheduler::~Scheduler() { *self_ = nullptr; }

std::size_t Scheduler::max_loaded() const {
  return options_.max_loaded != 0 ? options_.max_loaded
                                  : kLoadedPerDevice * std::max<std::size_t>(gpus_.value_or(0), 1);
}

void Scheduler::use(std::span<const ml::Device> devices) {
  gpus_ = 0;
  may_have_local_gpus_ = false;
  for (const ml::Device& device : devices) {
    if (!device.is_gpu()) continue;
    ++*gpus_;
    if (device.is_remote()) continue;
    may_have_local_gpus_ = true;
    capacity_[device.name] = device.free_bytes + used_on(device.name);
  }
  pump();
}

Scheduler::Ticket Scheduler::acquire(Request request, Granted granted) {
  if (shutting_down_) {
    granted(fail(kShuttingDown));
    return 0;
  }
  const EntryPtr entry = find(request.model.key);
  const bool at_once = entry && entry->state == Entry::State::kReady && !entry->draining &&
                       entry->users < options_.parallel &&
                       entry->model.options == request.model.options;
  if (!at_once && queued() >= options_.max_queue) {
    granted(fail(kQueueFull));
    return 0;
  }
  if (request.keep_alive && *request.keep_alive < Duration::zero()) request.keep_alive = kForever;
  const Ticket ticket = ++last_ticket_;
  waiting_.push_back(
      {.ticket = ticket, .request = std::move(request), .granted = std::move(granted)});
  pump();
  return ticket;
}

void Scheduler::abandon(Ticket ticket) {
  // A model that is being loaded for nobody any more stays: it was wanted a moment ago, and its
  // keep-alive ends it.
  std::erase_if(waiting_, [&](const Waiting& waiting) { return waiting.ticket == ticket; });
  std::erase_if(attempts_, [&](const auto& each) { return !is_waited_for(each.first); });
  // Whoever was to make room for it alone stays.
  for (const EntryPtr& entry : entries_) entry->draining = false;
  pump();
}

bool Scheduler::unload(std::string_view key) {
  const EntryPtr entry = find(key);
  if (!entry || entry->state == Entry::State::kStopping) return false;
  entry->keep_alive = Duration::zero();
  if (entry->users == 0) {
    stop(*entry);
    pump();
  }
  return true;
}

std::vector<Loaded> Scheduler::loaded() const {
  std::vector<Loaded> result;
  for (const EntryPtr& entry : entries_) {
    if (entry->state == Entry::State::kStopping) continue;
    Loaded loaded{.model = entry->model,
                  .info = entry->info,
                  .loading = entry->state == Entry::State::kLoading,
                  .progress = entry->state == Entry::State::kLoading ? entry->progress : 1.0F,
                  .users = entry->users,
                  .expires_in = std::nullopt,
                  .pid = entry->runner->pid()};
    if (entry->users > 0 || loaded.loading) {
      if (entry->keep_alive != kForever) loaded.expires_in = entry->keep_alive;
    } else if (entry->expires != TimePoint::max()) {
      loaded.expires_in = std::max(entry->expires - now_(), Duration::zero());
    }
    result.push_back(std::move(loaded));
  }
  std::ranges::stable_sort(result, std::ranges::greater{}, [](const Loaded& loaded) {
    return loaded.expires_in.value_or(kForever);
  });
  return result;
}

std::set<std::string> Scheduler::remote_in_use() const {
  std::set<std::string> servers;
  for (const EntryPtr& entry : entries_) {
    for (const auto& part : entry->info.devices) {
      if (!part.remote.empty()) servers.insert(part.remote);
    }
  }
  return servers;
}

Scheduler::EntryPtr Scheduler::find(std::string_view key) const {
  const auto found = std::ranges::find_if(
      entries_, [&](const EntryPtr& entry) { return entry->model.key == key; });
  return found == entries_.end() ? nullptr : *found;
}

std::size_t Scheduler::queued() const {
  std::size_t count = waiting_.size();
  for (const EntryPtr& entry : entries_) {
    if (entry->users > options_.parallel) count += entry->users - options_.parallel;
  }
  return count;
}

bool Scheduler::making_room(const Entry& entry) const {
  return entry.draining || entry.state == Entry::State::kStopping;
}

bool Scheduler::is_waited_for(std::string_view key) const {
  return std::ranges::any_of(
      waiting_, [&](const Waiting& waiting) { return waiting.request.model.key == key; });
}

void Scheduler::pump() {
  pump_again_ = true;
  if (pumping_) return;  // whoever is at it goes through the queue once more
  pumping_ = true;
  start_asking();
  // Callbacks may ask for models and give them back: they are made when the queue is consistent,
  // and then it is gone through again.
  while (std::exchange(pump_again_, false)) {
    std::vector<std::function<void()>> calls;
    pump_once(calls);
    for (const auto& call : calls) {
      pump_again_ = true;
      call();
    }
  }
  pumping_ = false;
  if (deadline_changed_) deadline_changed_();
}

void Scheduler::pump_once(std::vector<std::function<void()>>& calls) {
  std::vector<std::string_view> wanting_room;  // keys, first come first served
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    const auto current = it++;
    const Request& request = current->request;
    if (const EntryPtr entry = find(request.model.key)) {
      if (making_room(*entry)) continue;
      if (entry->model.options != request.model.options) {
        if (entry->state == Entry::State::kReady) drain(*entry);
        continue;
      }
      if (entry->state == Entry::State::kLoading) continue;
      ++entry->users;
      entry->expires = TimePoint::max();
      entry->last_used = now_();
      if (request.keep_alive) entry->keep_alive = *request.keep_alive;
      auto lease = std::make_shared<Lease>(Lease(self_, entry));
      calls.emplace_back([granted = std::move(current->granted), lease = std::move(lease)] {
        granted(std::move(*lease));
      });
      waiting_.erase(current);
      continue;
    }
    if (std::ranges::contains(wanting_room, request.model.key)) continue;
    const bool crowded = !entries_.empty() && crowded_.contains(request.model.key);
    if (!crowded && wanting_room.empty() && entries_.size() < max_loaded()) {
      // What is free on GPUs is not certain while a model takes some, or has just given it back.
      if ((recovery_ || is_loading_onto_gpus()) && may_use_gpus(request.model)) continue;
      if (auto started = start_load(*current); !started) {
        calls.emplace_back([granted = std::move(current->granted), error = started.error()] {
          granted(std::unexpected(error));
        });
        waiting_.erase(current);
      }
      continue;
    }
    wanting_room.push_back(request.model.key);
    const auto leaving = static_cast<std::size_t>(
        std::ranges::count_if(entries_, [&](const auto& entry) { return making_room(*entry); }));
    // A crowded model waits for one to leave, others for a place.
    if (crowded ? leaving > 0 : entries_.size() + wanting_room.size() <= max_loaded() + leaving) {
      continue;
    }
    // The model unused longest goes: one without users if there is one, else when its users are
    // done. Where GPUs are crowded, one that is on them.
    Entry* victim = nullptr;
    for (const EntryPtr& entry : entries_) {
      if (entry->state != Entry::State::kReady || entry->draining) continue;
      const auto rank = [&](const Entry& e) {
        const bool no_help = crowded && gpus_ != 0U && e.info.device_bytes == 0;
        return std::tuple(no_help, e.users > 0, e.last_used);
      };
      if (victim == nullptr || rank(*entry) < rank(*victim)) victim = entry.get();
    }
    if (victim != nullptr) drain(*victim);
  }
}

Result<> Scheduler::start_load(const Waiting& waiting) {
  auto runner = factory_.start();
  if (!runner) return fail(std::move(runner));
  auto entry = std::make_shared<Entry>();
  entry->model = waiting.request.model;
  entry->runner = std::move(*runner);
  entry->keep_alive = waiting.request.keep_alive.value_or(options_.keep_alive);
  entry->last_used = now_();
  entry->load_deadline = after(now_(), options_.load_timeout);
  entries_.push_back(entry);
  // The runner is owned by the entry: its callbacks must not keep the entry alive in turn.
  const std::weak_ptr<Entry> weak = entry;
  entry->runner->on_exit([this, weak](const Error& error) {
    if (const auto alive = weak.lock()) exited(alive, error);
  });
  log::info("loading {} from {}", entry->model.name, entry->model.path);
  runner::Load load{.path = entry->model.path, .options = entry->model.options};
  load.options.whole = entry->whole = entries_.size() > 1;
  const Attempt how = attempt(entry->model.key);
  std::vector<std::string>& remote = load.options.devices.rpc_servers;
  if (how >= Attempt::kWithoutRemote) remote.clear();
  if (how == Attempt::kCpuOnly) load.options.gpu_layers = 0;
  std::erase_if(remote, [held = remote_in_use()](const auto& one) { return held.contains(one); });
  // Libraries of GPUs take longer to load than a small model.
  if (!may_have_local_gpus_) load.options.devices.library = "cpu";
  entry->runner->load(
      load, {.progress =
                 [this, weak](float fraction) {
                   const auto alive = weak.lock();
                   if (!alive || alive->state != Entry::State::kLoading) return;
                   // Only progress puts the time-out off.
                   if (fraction > alive->progress) {
                     alive->progress = fraction;
                     alive->load_deadline = after(now_(), options_.load_timeout);
                   }
                   for (const Waiting& each : waiting_) {
                     if (each.request.model.key == alive->model.key && each.request.progress) {
                       each.request.progress(fraction);
                     }
                   }
                   if (deadline_changed_) deadline_changed_();
                 },
             .done =
                 [this, weak](Result<engine::ModelInfo> result) {
                   if (const auto alive = weak.lock()) loading_done(alive, std::move(result));
                 }});
  return {};
}

void Scheduler::loading_done(const EntryPtr& entry, Result<engine::ModelInfo> result) {
  if (entry->state != Entry::State::kLoading) return;
  if (!result) {
    if (result.error().code() == ErrorCode::kUnavailable) {
      died_loading(entry, result.error());
    } else {
      load_failed(entry, result.error());
    }
    return;
  }
  entry->state = Entry::State::kReady;
  entry->info = std::move(*result);
  attempts_.erase(entry->model.key);
  entry->load_deadline = TimePoint::max();
  entry->last_used = now_();
  entry->expires = after(now_(), entry->keep_alive);
  if (shutting_down_) stop(*entry);
  pump();
  // Nobody waited for it any more, and nobody wants it kept.
  if (entry->state == Entry::State::kReady && entry->users == 0 &&
      entry->keep_alive == Duration::zero()) {
    stop(*entry);
    pump();
  }
}

void Scheduler::load_failed(const EntryPtr& entry, const Error& error) {
  // The others may have left meanwhile: then it is tried again alone, which can take less.
  if (error.code() == ErrorCode::kNoRoom && entry->whole) {
    log::info("loading {}: {}", entry->model.name, error.message());
    crowded_.insert(entry->model.key);
    erase(*entry);
    pump();
    return;
  }
  log::error("loading {}: {}", entry->model.name, error.message());
  erase(*entry);
  refuse(entry->model, error);
  pump();
}

void Scheduler::refuse(const Model& model, const Error& error) {
  attempts_.erase(model.key);
  std::vector<Granted> refused;
  std::erase_if(waiting_, [&](Waiting& waiting) {
    const bool mine =
        waiting.request.model.key == model.key && waiting.request.model.options == model.options;
    if (mine) refused.push_back(std::move(waiting.granted));
    return mine;
  });
  for (const Granted& granted : refused) granted(std::unexpected(error));
}

Scheduler::Attempt Scheduler::attempt(std::string_view key) const {
  const auto found = attempts_.find(key);
  return found == attempts_.end() ? Attempt::kAsAsked : found->second;
}

// A lost remote server, or a driver that does not refuse but ends the process: what needs neither
// is left.
std::optional<Scheduler::Attempt> Scheduler::after_death(const Model& model) const {
  if (model.options.gpu_layers == 0) return std::nullopt;
  const Attempt before = attempt(model.key);
  if (!model.options.devices.rpc_servers.empty() && before < Attempt::kWithoutRemote) {
    return before == Attempt::kAsAsked ? Attempt::kAgain : Attempt::kWithoutRemote;
  }
  if (gpus_ != 0U && may_have_local_gpus_ && before < Attempt::kCpuOnly) return Attempt::kCpuOnly;
  return std::nullopt;
}

void Scheduler::died_loading(const EntryPtr& entry, const Error& error) {
  const auto next = after_death(entry->model);
  if (!next) {
    load_failed(entry, error);
    return;
  }
  erase(*entry);
  if (is_waited_for(entry->model.key)) {
    attempts_[entry->model.key] = *next;
    log::warn("loading {}: {}; trying again{}", entry->model.name, error.message(),
              *next == Attempt::kCpuOnly         ? " on the CPU"
              : *next == Attempt::kWithoutRemote ? " without OLLAMA_RPC_SERVERS"
                                                 : "");
  }
  pump();
}

void Scheduler::timed_out(const EntryPtr& entry) {
  const Error error(ErrorCode::kTimeout,
                    std::format("timed out waiting for the model to load at {:.0f} %; "
                                "OLLAMA_LOAD_TIMEOUT allows longer",
                                100 * entry->progress));
  // Nothing else is loaded before what it took is free again.
  stop(*entry);
  const auto next = after_death(entry->model);
  if (next && *next <= Attempt::kWithoutRemote && is_waited_for(entry->model.key)) {
    log::warn("loading {}: {}; trying again without OLLAMA_RPC_SERVERS", entry->model.name,
              error.message());
    attempts_[entry->model.key] = Attempt::kWithoutRemote;
    return;
  }
  log::error("loading {}: {}", entry->model.name, error.message());
  refuse(entry->model, error);
}

bool Scheduler::may_use_gpus(const Model& model) const {
  const Attempt how = attempt(model.key);
  const bool remote = !model.options.devices.rpc_servers.empty() && how < Attempt::kWithoutRemote;
  const bool local = gpus_ != 0U && may_have_local_gpus_ && how < Attempt::kCpuOnly;
  return model.options.gpu_layers != 0 && (remote || local);
}

bool Scheduler::is_loading_onto_gpus() const {
  return std::ranges::any_of(entries_, [&](const EntryPtr& entry) {
    return entry->state == Entry::State::kLoading && may_use_gpus(entry->model);
  });
}

void Scheduler::exited(const EntryPtr& entry, const Error& error) {
  if (entry->state == Entry::State::kLoading) {
    died_loading(entry, error);
  } else {
    if (entry->state == Entry::State::kStopping) log::info("unloaded {}", entry->model.name);
    erase(*entry);
    crowded_.clear();
    await_recovery(*entry);
    pump();
  }
  if (shutting_down_ && entries_.empty()) {
    if (const auto done = std::exchange(shutdown_done_, nullptr)) done();
  }
}

std::uint64_t Scheduler::used_on(std::string_view device) const {
  std::uint64_t used = 0;
  for (const EntryPtr& entry : entries_) {
    for (const auto& part : entry->info.devices) {
      if (part.name == device) used += part.bytes;
    }
  }
  return used;
}

void Scheduler::await_recovery(const Entry& entry) {
  if (shutting_down_) return;
  for (const auto& part : entry.info.devices) {
    if (!part.gpu || part.bytes == 0 || !capacity_.contains(part.name)) continue;
    if (!recovery_) recovery_ = Recovery{};
    recovery_->slack[part.name] += part.bytes / 4;
    recovery_->end = TimePoint::max();  // from now on, for all of it
  }
}

void Scheduler::start_asking() {
  // What a model takes while it loads is nowhere written: nothing follows from what is free then.
  if (!recovery_ || recovery_->end != TimePoint::max() || is_loading_onto_gpus()) return;
  recovery_->end = after(now_(), kRecovery);
  recovery_->seen.clear();
  if (!recovery_->asking) ask_devices();
}

void Scheduler::ask_devices() {
  auto runner = factory_.start();
  if (!runner) {
    log::warn("asking what is free on GPUs: {}", runner.error().message());
    recovery_.reset();
    return;
  }
  recovery_->asking = std::move(*runner);
  recovery_->next_check = TimePoint::max();  // when it has answered
  ml::DeviceOptions local = options_.devices;
  local.rpc_servers.clear();
  recovery_->asking->list_devices(local, [this](const Result<std::vector<ml::Device>>& devices) {
    devices_listed(devices);
    if (!recovery_) pump();
    if (deadline_changed_) deadline_changed_();
  });
}

void Scheduler::devices_listed(const Result<std::vector<ml::Device>>& devices) {
  if (!recovery_) return;
  recovery_->asking.reset();
  if (!devices) {
    log::warn("asking what is free on GPUs: {}", devices.error().message());
    recovery_.reset();
    return;
  }
  recovery_->seen.clear();
  for (const ml::Device& device : *devices) recovery_->seen[device.name] = device.free_bytes;
  if (is_recovered()) {
    recovery_.reset();
  } else {
    recovery_->next_check = after(now_(), kRecoveryCheck);
  }
}

std::uint64_t Scheduler::expected_on(const std::string& device) const {
  const std::uint64_t capacity = capacity_.at(device);
  return capacity - std::min(capacity, used_on(device) + recovery_->slack.at(device));
}

bool Scheduler::is_recovered() const {
  return std::ranges::all_of(recovery_->slack, [&](const auto& each) {
    const auto seen = recovery_->seen.find(each.first);
    // A device that is gone has taken along what was promised of it.
    return seen == recovery_->seen.end() || seen->second >= expected_on(each.first);
  });
}

// What did not come back is somebody else's, and is not expected again.
void Scheduler::give_up_recovery() {
  if (recovery_->seen.empty()) log::warn("no driver says what is free on GPUs after unloading");
  for (const auto& [device, slack] : recovery_->slack) {
    const auto seen = recovery_->seen.find(device);
    if (seen == recovery_->seen.end() || seen->second >= expected_on(device)) continue;
    log::warn("{}: {} free where {} were expected after unloading", device,
              human_bytes_binary(seen->second), human_bytes_binary(expected_on(device)));
    capacity_[device] = seen->second + used_on(device);
  }
  recovery_.reset();
}

void Scheduler::release(Entry& entry) {
  --entry.users;
  entry.last_used = now_();
  if (entry.users == 0 && entry.state == Entry::State::kReady) {
    if (entry.draining || entry.keep_alive <= Duration::zero()) {
      stop(entry);
    } else {
      entry.expires = after(now_(), entry.keep_alive);
    }
  }
  pump();
}

void Scheduler::drain(Entry& entry) {
  entry.draining = true;
  if (entry.users == 0) stop(entry);
}

void Scheduler::stop(Entry& entry) {
  entry.state = Entry::State::kStopping;
  entry.load_deadline = entry.expires = TimePoint::max();
  entry.runner->stop();
}

void Scheduler::erase(const Entry& entry) {
  std::erase_if(entries_, [&](const EntryPtr& each) { return each.get() == &entry; });
}

std::optional<TimePoint> Scheduler::next_deadline() const {
  TimePoint next = TimePoint::max();
  for (const EntryPtr& entry : entries_) {
    next = std::min({next, entry->expires, entry->load_deadline});
  }
  if (recovery_) next = std::min({next, recovery_->next_check, recovery_->end});
  if (next == TimePoint::max()) return std::nullopt;
  return next;
}

void Scheduler::tick() {
  const TimePoint now = now_();
  if (recovery_ && recovery_->end <= now) {
    give_up_recovery();
  } else if (recovery_ && recovery_->next_check <= now) {
    ask_devices();
  }
  const std::vector<EntryPtr> entries = entries_;
  for (const EntryPtr& entry : entries) {
    if (entry->state == Entry::State::kReady && entry->users == 0 && entry->expires <= now) {
      stop(*entry);
    } else if (entry->state == Entry::State::kLoading && entry->load_deadline <= now) {
      timed_out(entry);
    }
  }
  pump();
}

void Scheduler::shutdown(std::function<void()> done) {
  shutting_down_ = true;
  recovery_.reset();
  shutdown_done_ = std::move(done);
  auto waiting = std::exchange(waiting_, {});
  for (const Waiting& each : waiting) each.granted(fail(kShuttingDown));
  const std::vector<EntryPtr> entries = entries_;
  for (const EntryPtr& entry : entries) {
    if (entry->state != Entry::State::kStopping) stop(*entry);
  }
  if (entries_.empty()) {
    if (const auto call = std::exchange(shutdown_done_, nullptr)) call();
  }
}

}  // namespace ollama::sched
