// What the engine allocates while it decodes, counted at malloc on its own thread and told apart by
// caller. Replaces the program's allocation functions, so it is left out under sanitizers.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <array>
#include <condition_variable>
#include <future>
#include <mutex>
#include <new>

#include <ggml-backend.h>

#include "engine/engine.h"

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && defined(__GLIBC__)

namespace {

struct Count {
  bool counting = false;
  std::size_t calls = 0;
  std::size_t bytes = 0;
  std::array<const void*, 65536> callers{};

  void add(const void* caller, std::size_t size) {
    if (!counting) return;
    bytes += size;
    if (calls < callers.size()) callers[calls++] = caller;
  }
};
// One thread is counted; set by it.
thread_local Count* t_count = nullptr;

void count(const void* caller, std::size_t size) {
  if (t_count != nullptr) t_count->add(caller, size);
}

}  // namespace

extern "C" {
// NOLINTBEGIN(readability-identifier-naming): glibc's
void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* memory, std::size_t size);
void __libc_free(void* memory);
// NOLINTEND(readability-identifier-naming)

void* malloc(std::size_t size) {
  count(__builtin_return_address(0), size);
  return __libc_malloc(size);
}
void* calloc(std::size_t n, std::size_t size) {
  count(__builtin_return_address(0), n * size);
  return __libc_calloc(n, size);
}
void* realloc(void* memory, std::size_t size) {
  count(__builtin_return_address(0), size);
  return __libc_realloc(memory, size);
}
}

// Else all of them would be the standard library's.
void* operator new(std::size_t size) {
  count(__builtin_return_address(0), size);
  if (void* memory = __libc_malloc(size)) return memory;
  throw std::bad_alloc();
}
void* operator new[](std::size_t size) {
  count(__builtin_return_address(0), size);
  if (void* memory = __libc_malloc(size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { __libc_free(memory); }
void operator delete[](void* memory) noexcept { __libc_free(memory); }
void operator delete(void* memory, std::size_t) noexcept { __libc_free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { __libc_free(memory); }

namespace ollama::engine {
namespace {

enum class Caller : std::uint8_t { kOurs, kGgml, kOther };

Caller caller_of(const void* address) {
  Dl_info ours{};
  Dl_info theirs{};
  dladdr(reinterpret_cast<const void*>(&caller_of), &ours);
  if (dladdr(address, &theirs) == 0) return Caller::kOther;
  if (theirs.dli_fbase == ours.dli_fbase) return Caller::kOurs;
  return std::string_view(theirs.dli_fname).contains("ggml") ? Caller::kGgml : Caller::kOther;
}

// Counts from the 20th token on the engine's thread, and remembers how many calls each of the next
// hundred steps made.
class Counter final : public Listener {
 public:
  static constexpr std::size_t kWarm = 20;
  static constexpr std::size_t kSteps = 100;

  void text(std::string_view, std::span<const Token> tokens) override {
    seen_ += tokens.size();
    if (seen_ < kWarm) return;
    t_count = &count;
    count.counting = true;
    if (step < ends.size()) {
      tokens_in[step] = tokens.size();
      ends[step++] = count.calls;
    }
    if (step == ends.size()) count.counting = false;
  }
  void done(DoneReason, const Stats&) override { finish(); }
  void failed(const Error&) override { finish(); }

  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return finished_; });
  }

  Count count;
  std::array<std::size_t, kSteps + 1> ends{};       // calls before the step, for each
  std::array<std::size_t, kSteps + 1> tokens_in{};  // of the piece: steps since the last one
  std::size_t step = 0;

 private:
  void finish() {
    t_count = nullptr;
    const std::scoped_lock lock(mutex_);
    finished_ = true;
    changed_.notify_all();
  }

  std::size_t seen_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool finished_ = false;
};

// Outlives the engine's listener.
class Forward final : public Listener {
 public:
  explicit Forward(Counter& to) : to_(to) {}
  void text(std::string_view piece, std::span<const Token> tokens) override {
    to_.text(piece, tokens);
  }
  void done(DoneReason reason, const Stats& stats) override { to_.done(reason, stats); }
  void failed(const Error& error) override { to_.failed(error); }

 private:
  Counter& to_;
};

// With the default options and with everything that a sampler may do.
TEST(Allocation, WarmDecodingAllocatesNothingOfOurs) {
  sample::Options greedy;
  greedy.temperature = 0;
  sample::Options everything;
  everything.temperature = 0.9F;
  everything.min_p = 0.01F;
  everything.typical_p = 0.95F;
  everything.presence_penalty = 0.1F;
  everything.frequency_penalty = 0.1F;
  for (const sample::Options& sampling : {greedy, sample::Options{}, everything}) {
    const auto engine =
        Engine::load(std::filesystem::path(OLLAMA_TEST_DATA) / "models/stories260K-f16.gguf", {})
            .value();
    Request request;
    request.prompt = engine->tokenizer().encode("Once upon a time", {.add_special = true});
    request.sampling = sampling;
    request.num_predict = 240;
    request.ignore_end = true;
    request.stop = {"no such text"};
    const auto counter = std::make_unique<Counter>();
    ASSERT_TRUE(engine->submit(std::move(request), std::make_unique<Forward>(*counter)));
    counter->wait();
    ASSERT_EQ(counter->step, counter->ends.size()) << "too few pieces of text";

    std::array<std::size_t, 3> calls{};
    std::vector<double> ggml_by_step;
    for (std::size_t step = 1; step < counter->ends.size(); ++step) {
      std::size_t ggml = 0;
      for (std::size_t i = counter->ends[step - 1]; i < counter->ends[step]; ++i) {
        const Caller caller = caller_of(counter->count.callers[i]);
        ++calls[static_cast<std::size_t>(caller)];
        ggml += caller == Caller::kGgml ? 1 : 0;
      }
      ggml_by_step.push_back(static_cast<double>(ggml) /
                             static_cast<double>(counter->tokens_in[step]));
    }
    EXPECT_EQ(calls[static_cast<std::size_t>(Caller::kOurs)], 0U);
    EXPECT_EQ(calls[static_cast<std::size_t>(Caller::kOther)], 0U);
    EXPECT_EQ(ggml_by_step, std::vector<double>(Counter::kSteps, ggml_by_step.front()))
        << "GGML's allocations for a submission are constant";
  }
}

// Counts what the engine's thread takes from its last piece of text until another request's prompt
// begins.
class Weigher final : public Listener {
 public:
  Weigher(Count& count, std::promise<void>& over) : count_(count), over_(over) {}
  void begun(const Stats&, std::span<const Token>) override {
    count_.counting = false;
    t_count = nullptr;
  }
  void text(std::string_view, std::span<const Token>) override {
    if (count_.counting) return;
    count_.bytes = 0;
    t_count = &count_;
    count_.counting = true;
  }
  void done(DoneReason, const Stats&) override { over_.set_value(); }
  void failed(const Error&) override { over_.set_value(); }

 private:
  Count& count_;
  std::promise<void>& over_;
};

// What a request asks for does not decide what it holds, neither in the queue nor in its turn.
TEST(Allocation, LongWindowsAreBoundByTheContext) {
  LoadOptions options;
  options.context = 64;
  const auto engine =
      Engine::load(std::filesystem::path(OLLAMA_TEST_DATA) / "models/stories260K-f16.gguf", options)
          .value();
  Request request;
  request.prompt = engine->tokenizer().encode("Once upon a time", {.add_special = true});
  request.sampling.repeat_last_n = 1 << 20;
  request.sampling.repeat_penalty = 1.1F;
  request.sampling.dry_multiplier = 1;
  request.sampling.dry_penalty_last_n = 1 << 20;
  request.num_predict = 100;
  request.ignore_end = true;
  const auto count = std::make_unique<Count>();
  const auto queueing = std::make_unique<Count>();
  std::array<std::promise<void>, 2> over;
  for (std::promise<void>& each : over) {
    auto listener = std::make_unique<Weigher>(*count, each);
    t_count = queueing.get();
    queueing->counting = true;
    EXPECT_TRUE(engine->submit(request, std::move(listener)));
    queueing->counting = false;
    t_count = nullptr;
  }
  for (std::promise<void>& each : over) each.get_future().wait();
  EXPECT_LT(queueing->bytes, 16 * kKiB) << "of two requests in the queue";
  EXPECT_LT(count->bytes, 64 * kKiB) << "of one that is admitted";
  EXPECT_GT(count->bytes, 1 * kKiB) << "it must be seen";
}

// The count itself must see what it is there for.
TEST(Allocation, IsCounted) {
  Count count;
  t_count = &count;
  count.counting = true;
  auto memory = std::make_unique<int>(1);
  void* raw = malloc(10);
  t_count = nullptr;
  free(raw);
  ASSERT_EQ(count.calls, 2U);
  EXPECT_EQ(caller_of(count.callers[0]), Caller::kOurs);
  EXPECT_EQ(caller_of(count.callers[1]), Caller::kOurs);
  EXPECT_EQ(caller_of(reinterpret_cast<const void*>(&ggml_backend_dev_count)), Caller::kGgml);
}

}  // namespace
}  // namespace ollama::engine

#endif
