#include "store/download.h"

#include <algorithm>
#include <format>
#include <vector>

#include "base/log.h"
#include "base/units.h"

namespace ollama::store {
namespace fs = std::filesystem;
namespace {

constexpr auto kTick = std::chrono::milliseconds(100);
constexpr std::uint64_t kProgress = 64 * kKiB;  // of an attempt: it was not in vain
constexpr std::uint64_t kHashStep = 64 * kMiB;
constexpr ErrorConstant kNoRanges{ErrorCode::kUnsupported, "the registry does not serve ranges"};

bool is_no_ranges(const Error& error) {
  return error.code() == kNoRanges.code && error.message() == kNoRanges.message;
}

// What a part's answer must be, so that its bytes are those that were asked for.
struct Wanted {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;   // one past the last
  std::uint64_t size = 0;  // of the blob
  bool whole() const { return begin == 0 && end == size; }
};

std::unexpected<Error> wrong_size(std::uint64_t wanted, std::string_view got) {
  return fail(ErrorCode::kCorrupt, "the registry's blob has {} bytes, and its manifest says {}",
              got, wanted);
}

Result<> check_answer(const HttpAnswer& answer, const Wanted& wanted) {
  if (answer.status == 200) {
    const std::string_view length = answer.header("content-length");
    const bool fits = parse_number<std::uint64_t>(length) == wanted.size;
    if (wanted.whole()) {
      if (fits || length.empty()) return {};
      return wrong_size(wanted.size, length.substr(0, 20));
    }
    // The whole blob, or something between us and the registry that answers in its place.
    if (fits) return fail(kNoRanges);
    return fail(ErrorCode::kUnavailable, "the answer is neither the range nor the blob");
  }
  if (answer.status != 206) {
    return fail(ErrorCode::kCorrupt, "the registry answers with status {}", answer.status);
  }
  // "bytes 0-99/1000"
  std::string_view range = answer.header("content-range");
  const auto dash = range.find('-');
  const auto slash = range.find('/');
  if (!range.starts_with("bytes ") || dash == std::string_view::npos ||
      slash == std::string_view::npos || slash < dash ||
      parse_number<std::uint64_t>(range.substr(6, dash - 6)) != wanted.begin) {
    return fail(ErrorCode::kCorrupt, "the registry answers with another range than was asked for");
  }
  const std::string_view total = range.substr(slash + 1);
  if (total != "*" && parse_number<std::uint64_t>(total) != wanted.size) {
    return wrong_size(wanted.size, total.substr(0, 20));
  }
  return {};
}

}  // namespace

std::string Download::direct_url() const {
  const std::lock_guard lock(mutex_);
  return direct_url_;
}

void Download::set_direct_url(std::string url) {
  const std::lock_guard lock(mutex_);
  direct_url_ = std::move(url);
}

bool Download::is_there() const {
  std::error_code error;
  const fs::path path = blobs_ / digest_.file_name();
  return fs::is_regular_file(path, error) && fs::file_size(path, error) == size_ && !error;
}

// Null when the blob is there by now.
Result<std::unique_ptr<Partial>> Download::open(const std::stop_token& stop) {
  bool waiting = false;
  while (!is_there()) {
    OLLAMA_ASSIGN(auto partial, Partial::open(blobs_, digest_, size_, options_.part_size));
    if (partial) return partial;
    if (!std::exchange(waiting, true)) {
      log::info("{}: another process downloads it, which is waited for", digest_.text());
    }
    if (!sleep_for(kTick, stop)) return fail(ErrorCode::kCancelled, "context canceled");
  }
  return nullptr;
}

Result<> Download::run(const std::stop_token& stop) {
  while (true) {
    OLLAMA_ASSIGN(const auto partial, open(stop));
    if (!partial || is_there()) {
      if (partial) partial->remove();
      completed_ = size_;
      return {};
    }
    completed_ = partial->completed();
    log::info("downloading {} in {} part(s), {} of {} are there", digest_.hex().substr(0, 12),
              partial->parts().size(), human_bytes(completed_), human_bytes(size_));
    auto fetched = fetch(*partial, stop);
    if (!fetched) {
      // Room that a full disk needs, and files that say nothing, are not kept.
      const bool full = fetched.error().code() == ErrorCode::kIo;
      if (full || hopeless_ || partial->completed() == 0) partial->remove();
      return fetched;
    }
    const bool resumed = partial->resumed();
    auto published = partial->publish();
    if (published || published.error().code() != ErrorCode::kCorrupt || !resumed) return published;
    // Bytes of an earlier process, perhaps lost in a power cut: once more, all of them.
    log::warn("{}: the resumed download is damaged; it begins again", digest_.text());
  }
}

Result<> Download::fetch(Partial& partial, const std::stop_token& stop) {
  auto fetched = fetch_parts(partial, stop);
  if (fetched || !is_no_ranges(fetched.error())) return fetched;
  log::info("{}: {}; it is downloaded in one piece", digest_.text(), kNoRanges.message);
  ranges_ = false;
  OLLAMA_TRY(partial.restart_whole());
  completed_ = 0;
  return fetch_parts(partial, stop);
}

// The threads that download a blob's parts.
struct Download::Crew {
  std::stop_source stop;
  std::atomic<std::size_t> next = 0;  // the part that is to be begun
  std::mutex mutex;
  std::condition_variable changed;
  std::size_t working = 0;
  Result<> result;  // the first error

  void leave(Result<> end) {
    const std::lock_guard lock(mutex);
    if (!end && result) {
      result = std::move(end);
      stop.request_stop();
    }
    --working;
    changed.notify_all();
  }
};

Result<> Download::fetch_parts(Partial& partial, const std::stop_token& stop) {
  const auto incomplete = std::ranges::count_if(
      partial.parts(), [](const Partial::Part& part) { return part.left() > 0; });
  Crew crew;
  const std::stop_callback pass_on(stop, [&crew] { crew.stop.request_stop(); });
  crew.working = std::min<std::size_t>(options_.streams, static_cast<std::size_t>(incomplete));
  const auto work = [&]() -> Result<> {
    OLLAMA_ASSIGN(HttpClient client, registry_->client());
    for (std::size_t i = crew.next++; i < partial.parts().size(); i = crew.next++) {
      if (partial.parts()[i].left() == 0) continue;
      OLLAMA_TRY(fetch_part(client, partial, i, crew.stop.get_token()));
    }
    return {};
  };
  std::vector<std::jthread> threads;
  for (std::size_t i = crew.working; i > 0; --i) {
    threads.emplace_back([&] { crew.leave(work()); });
  }
  // Meanwhile the digest of what is complete, so that it is known soon after the last byte.
  std::unique_lock lock(crew.mutex);
  while (crew.working > 0) {
    lock.unlock();
    // Without ranges a break begins the file anew, and the digest would be of other bytes.
    const auto hashed = ranges_ ? partial.hash(kHashStep) : Result<bool>(false);
    lock.lock();
    if (!hashed && crew.result) {
      crew.result = fail(hashed);
      crew.stop.request_stop();
    }
    if (!hashed || !*hashed) {
      crew.changed.wait_for(lock, kTick, [&] { return crew.working == 0; });
    }
  }
  lock.unlock();
  threads.clear();
  if (stop.stop_requested()) return fail(ErrorCode::kCancelled, "context canceled");
  return crew.result;
}

Result<> Download::fetch_part(HttpClient& client, Partial& partial, std::size_t index,
                              const std::stop_token& stop) {
  const Patience& patience = registry_->patience();
  Partial::Part& part = partial.parts()[index];
  for (int failures = 0;;) {
    if (!ranges_ && part.completed > 0) {
      completed_ -= part.completed;
      partial.rewind(index);
    }
    const std::uint64_t before = part.completed;
    auto result = request_rest(client, partial, index, stop);
    if (result && part.left() == 0) return {};
    if (result) result = fail(ErrorCode::kUnavailable, "the answer ended early");
    if (!is_transient(result.error().code())) return result;
    if (ranges_ && part.completed - before >= kProgress) failures = 0;
    if (++failures >= patience.attempts) {
      return fail(result.error().code(), "max retries exceeded: {}", result.error().message());
    }
    log::info("{} part {} attempt {} failed: {}", digest_.hex().substr(0, 12), index, failures,
              result.error().message());
    if (!sleep_for(pause_after(patience, failures), stop)) return result;
  }
}

// What a part lacks, in one request.
Result<> Download::request_rest(HttpClient& client, Partial& partial, std::size_t index,
                                const std::stop_token& stop) {
  Partial::Part& part = partial.parts()[index];
  const Wanted wanted{part.offset + part.completed, part.offset + part.size, size_};
  const std::string direct = direct_url();
  HttpRequest request;
  request.url = direct.empty() ? registry_->url(std::format("blobs/{}", digest_.text())) : direct;
  if (!wanted.whole()) {
    request.headers = {std::format("Range: bytes={}-{}", wanted.begin, wanted.end - 1)};
  }
  request.sink = [&](const HttpAnswer& header, std::span<const std::byte> bytes) -> Result<> {
    if (bytes.empty()) {
      auto checked = check_answer(header, wanted);
      if (!checked && checked.error().code() == ErrorCode::kCorrupt) hopeless_ = true;
      return checked;
    }
    if (bytes.size() > part.left()) {
      if (wanted.end == size_) {
        hopeless_ = true;
        return wrong_size(size_, "more");
      }
      // The next part's bytes are not this one's to write.
      bytes = bytes.first(static_cast<std::size_t>(part.left()));
      if (bytes.empty()) return fail(ErrorCode::kUnavailable, "more than was asked for");
    }
    OLLAMA_TRY(partial.write(index, bytes));
    completed_ += bytes.size();
    return {};
  };
  std::string final_url;
  const auto answer = registry_->send(client, std::move(request), stop, &final_url);
  if (part.left() == 0 && (answer || answer.error().code() == ErrorCode::kUnavailable)) return {};
  const bool elsewhere = !registry_->is_ours(final_url);
  if (answer) {
    if (elsewhere) set_direct_url(final_url);
    return {};
  }
  const ErrorCode code = answer.error().code();
  const bool refused = code == ErrorCode::kPermission || code == ErrorCode::kNotFound ||
                       code == ErrorCode::kInvalidArgument;
  if (!elsewhere || !refused) return fail(answer);
  // Addresses of storage expire: the registry knows a new one.
  set_direct_url({});
  return fail(ErrorCode::kUnavailable, "{}", answer.error().message());
}

// ---- Sharing

struct Downloads::Entry {
  Entry(std::shared_ptr<Registry> registry, fs::path blobs, const Digest& digest,
        std::uint64_t size, const DownloadOptions& options)
      : download(std::move(registry), std::move(blobs), digest, size, options) {}

  Download download;
  int waiting = 0;
  bool stopping = false;  // nobody waited for it any more
  bool done = false;
  Result<> result;
  std::jthread thread;  // the last member: it ends before the others go
};

Downloads::~Downloads() {
  std::map<Digest, std::shared_ptr<Entry>> entries;
  {
    const std::lock_guard lock(mutex_);
    entries.swap(entries_);
    for (const auto& [digest, entry] : entries) entry->thread.request_stop();
  }
  entries.clear();  // waits for them
}

// The download of this blob that can be waited for; null while another one is in the way. `mutex_`
// is held.
std::shared_ptr<Downloads::Entry> Downloads::join(const std::shared_ptr<Registry>& registry,
                                                  const Digest& digest, std::uint64_t size) {
  std::erase_if(entries_,
                [](const auto& item) { return item.second->done && item.second->waiting == 0; });
  if (const auto found = entries_.find(digest); found != entries_.end()) {
    Entry& entry = *found->second;
    const bool fits = !entry.stopping && !entry.done && entry.download.size() == size;
    return fits ? found->second : nullptr;
  }
  auto entry = std::make_shared<Entry>(registry, blobs_, digest, size, options_);
  entry->thread = std::jthread([this, entry = entry.get()](const std::stop_token& stop) {
    auto result = entry->download.run(stop);
    const std::lock_guard lock(mutex_);
    entry->result = std::move(result);
    entry->done = true;
    changed_.notify_all();
  });
  entries_.emplace(digest, entry);
  return entry;
}

Result<> Downloads::wait(Lock& lock, Entry& entry, const Tick& tick, const std::stop_token& stop) {
  Result<> result;
  ++entry.waiting;
  while (!entry.done && result) {
    changed_.wait_for(lock, stop, kTick, [&] { return entry.done; });
    if (entry.done) break;
    lock.unlock();
    result = stop.stop_requested() ? Result<>(fail(ErrorCode::kCancelled, "context canceled"))
                                   : tick(entry.download.completed());
    lock.lock();
  }
  if (--entry.waiting == 0 && !entry.done) {
    entry.stopping = true;
    entry.thread.request_stop();
  }
  changed_.notify_all();
  return result ? entry.result : result;
}

Result<> Downloads::fetch(const std::shared_ptr<Registry>& registry, const Digest& digest,
                          std::uint64_t size, const Tick& tick, const std::stop_token& stop) {
  Lock lock(mutex_);
  while (true) {
    const auto entry = join(registry, digest, size);
    if (!entry) {
      changed_.wait_for(lock, stop, kTick, [] { return false; });
      if (stop.stop_requested()) return fail(ErrorCode::kCancelled, "context canceled");
      continue;
    }
    auto result = wait(lock, *entry, tick, stop);
    if (result) return result;
    // Another registry's failure is not this one's.
    const bool theirs = entry->download.registry().origin() != registry->origin();
    if (!entry->done || !theirs) return result;
  }
}

}  // namespace ollama::store
