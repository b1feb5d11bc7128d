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
    may_have_local_gpus_ = may_have_local_gpus_ || !device.is_remote();
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

void Scheduler::pump() {
  if (std::exchange(pump_again_, true); pumping_) return;
  pumping_ = true;
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
      // What has just been given back may not be free yet.
      if (recovery_) continue;
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
    // done.
    Entry* victim = nullptr;
    for (const EntryPtr& entry : entries_) {
      if (entry->state != Entry::State::kReady || entry->draining) continue;
      const auto rank = [](const Entry& e) { return std::pair(e.users > 0, e.last_used); };
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
  if (cpu_only_.contains(entry->model.key)) load.options.gpu_layers = 0;
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
  cpu_only_.erase(entry->model.key);
  erase(*entry);
  std::vector<Granted> refused;
  std::erase_if(waiting_, [&](Waiting& waiting) {
    const bool mine = waiting.request.model.key == entry->model.key &&
                      waiting.request.model.options == entry->model.options;
    if (mine) refused.push_back(std::move(waiting.granted));
    return mine;
  });
  for (const Granted& granted : refused) granted(std::unexpected(error));
  pump();
}

// A driver may end the process instead of refusing: what needs none is left.
void Scheduler::died_loading(const EntryPtr& entry, const Error& error) {
  const bool by_gpu = gpus_ != 0U && entry->model.options.gpu_layers != 0;
  if (by_gpu && cpu_only_.insert(entry->model.key).second) {
    log::warn("loading {}: {}; trying again on the CPU", entry->model.name, error.message());
    erase(*entry);
    pump();
  } else {
    load_failed(entry, error);
  }
}

void Scheduler::exited(const EntryPtr& entry, const Error& error) {
  if (entry->state == Entry::State::kLoading) {
    died_loading(entry, error);
  } else {
    if (entry->state == Entry::State::kStopping) log::info("unloaded {}", entry->model.name);
    erase(*entry);
    crowded_.clear();
    cpu_only_.erase(entry->model.key);
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
  Recovery recovery{
      .expected = {}, .end = after(now_(), kRecovery), .next_check = now_(), .asking = {}};
  for (const auto& part : entry.info.devices) {
    const auto capacity = capacity_.find(part.name);
    if (!part.gpu || part.bytes == 0 || capacity == capacity_.end()) continue;
    // Of what comes back a quarter may be the driver's to keep, or somebody else's by now.
    const std::uint64_t gone = used_on(part.name) + part.bytes / 4;
    recovery.expected[part.name] = capacity->second - std::min(capacity->second, gone);
  }
  if (recovery.expected.empty()) return;
  recovery_ = std::move(recovery);
  ask_devices();
}

void Scheduler::ask_devices() {
  auto runner = factory_.start();
  if (!runner) {
    recovery_.reset();
    return;
  }
  recovery_->asking = std::move(*runner);
  recovery_->next_check = TimePoint::max();  // when it has answered
  recovery_->asking->list_devices(options_.devices,
                                  [this](const Result<std::vector<ml::Device>>& devices) {
                                    devices_listed(devices);
                                    if (!recovery_) pump();
                                    if (deadline_changed_) deadline_changed_();
                                  });
}

void Scheduler::devices_listed(const Result<std::vector<ml::Device>>& devices) {
  if (!recovery_) return;
  bool recovered = true;
  const bool over = now_() >= recovery_->end;
  for (const auto& [name, expected] : recovery_->expected) {
    const auto* found = [&]() -> const ml::Device* {
      if (!devices) return nullptr;
      const auto at = std::ranges::find(*devices, name, &ml::Device::name);
      return at == devices->end() ? nullptr : &*at;
    }();
    if (found == nullptr) continue;  // gone, and with it what was promised of it
    if (found->free_bytes >= expected) continue;
    recovered = false;
    if (!over) continue;
    log::warn("{}: {} free where {} were expected after unloading", name,
              human_bytes_binary(found->free_bytes), human_bytes_binary(expected));
    capacity_[name] = found->free_bytes + used_on(name);
  }
  if (recovered || over) {
    recovery_.reset();
  } else {
    recovery_->next_check = after(now_(), kRecoveryCheck);
  }
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
  if (recovery_ && recovery_->next_check <= now) {
    ask_devices();
  } else if (recovery_ && recovery_->end <= now) {
    recovery_.reset();  // a process that hangs tells nothing
  }
  const std::vector<EntryPtr> entries = entries_;
  for (const EntryPtr& entry : entries) {
    if (entry->state == Entry::State::kReady && entry->users == 0 && entry->expires <= now) {
      stop(*entry);
    } else if (entry->state == Entry::State::kLoading && entry->load_deadline <= now) {
      load_failed(entry, Error(ErrorCode::kTimeout,
                               std::format("timed out waiting for the model to load at {:.0f} %; "
                                           "OLLAMA_LOAD_TIMEOUT allows longer",
                                           100 * entry->progress)));
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
