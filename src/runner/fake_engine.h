// An engine for tests: its tokens are bytes, and it answers by saying the prompt again, one byte a
// step, in upper case; what stands behind a "=" that begins the prompt, as it is.
#pragma once

#include <sys/prctl.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cmath>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "engine/engine.h"
#include "runner/child.h"
#include "runner/process.h"

namespace ollama::runner {

class FakeTokenizer final : public tokenizer::Tokenizer {
 public:
  static constexpr tokenizer::Token kBos = 256;

  FakeTokenizer() {
    special_.bos = kBos;
    special_.add_bos = true;
    for (int i = 0; i < 256; ++i) bytes_.push_back(static_cast<char>(i));
  }
  std::vector<tokenizer::Token> encode(std::string_view text,
                                       tokenizer::EncodeOptions options) const override {
    std::vector<tokenizer::Token> tokens;
    if (options.add_special) tokens.push_back(kBos);
    for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
    return tokens;
  }
  std::string_view piece(tokenizer::Token token, bool special) const override {
    if (token == kBos) return special ? "<s>" : "";
    if (token < 0 || token > 255) return {};
    return std::string_view(bytes_).substr(static_cast<std::size_t>(token), 1);
  }
  std::size_t vocab_size() const override { return 257; }
  const tokenizer::SpecialTokens& special() const override { return special_; }
  bool is_end(tokenizer::Token) const override { return false; }
  bool is_control(tokenizer::Token token) const override { return token == kBos; }
  bool adds_leading_blank() const override { return false; }

 private:
  tokenizer::SpecialTokens special_;
  std::string bytes_;
};

class FakeEngine final : public engine::Engine {
 public:
  FakeEngine(const engine::LoadOptions& options, bool ranks) : thread_([this] { run(); }) {
    info_.ranks = ranks;
    info_.is_embedding = ranks;
    info_.architecture = "fake";
    info_.context = options.context == 0 ? 128 : options.context;
    info_.vocab_size = 257;
    info_.embedding_length = 2;
    info_.weight_bytes = 1000;
    info_.cache_bytes = 10;
  }
  ~FakeEngine() override {
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
    }
    wake_.notify_one();
    thread_.join();
  }

  const engine::ModelInfo& info() const override { return info_; }
  const tokenizer::Tokenizer& tokenizer() const override { return tokenizer_; }

  Result<engine::RequestId> submit(engine::Request request,
                                   std::unique_ptr<engine::Listener> listener) override {
    if (request.sampling.temperature > 100) {
      return fail(ErrorCode::kInvalidArgument, "temperature must be at most 100");
    }
    engine::RequestId id = 0;
    {
      const std::lock_guard lock(mutex_);
      id = ++last_id_;
      work_.push_back({.id = id, .request = std::move(request), .listener = std::move(listener)});
    }
    wake_.notify_one();
    return id;
  }
  void cancel(engine::RequestId id) override {
    const std::lock_guard lock(mutex_);
    cancelled_.insert(id);
  }
  Result<> embed(std::vector<engine::Token> tokens, EmbedCallback done,
                 Cancelled /*cancelled*/) override {
    {
      const std::lock_guard lock(mutex_);
      Work work;
      work.request.prompt = std::move(tokens);
      work.embed = std::move(done);
      work_.push_back(std::move(work));
    }
    wake_.notify_one();
    return {};
  }

  // The score is where the second text begins.
  Result<> rank(tokenizer::Pair pair, RankCallback done, Cancelled cancelled) override {
    return embed(
        std::move(pair.tokens),
        [second = static_cast<float>(pair.second), done = std::move(done)](const auto&) {
          done(second);
        },
        std::move(cancelled));
  }

 private:
  struct Work {
    engine::RequestId id = 0;
    engine::Request request;
    std::unique_ptr<engine::Listener> listener = {};
    EmbedCallback embed = {};
    std::size_t position = 0;
    engine::Stats stats = {};
    bool begun = false;
    bool cancelled = false;
  };

  void run() {
    std::unique_lock lock(mutex_);
    while (true) {
      wake_.wait(lock, [this] { return closing_ || !work_.empty(); });
      if (closing_) {
        for (Work& work : work_) {
          if (work.listener) work.listener->done(engine::DoneReason::kCancelled, work.stats);
        }
        return;
      }
      Work work = std::move(work_.front());
      work_.pop_front();
      work.cancelled = cancelled_.erase(work.id) > 0;
      lock.unlock();
      const bool ended = step(work);
      lock.lock();
      if (!ended) work_.push_back(std::move(work));
    }
  }

  // Says one byte of the prompt; "!" in a prompt ends the process as a failed assertion would, "~"
  // is repeated until somebody cancels. A text with "?" has an embedding that is no number.
  bool step(Work& work) {
    const auto& prompt = work.request.prompt;
    if (work.embed) {
      const bool broken = std::ranges::contains(prompt, engine::Token{'?'});
      const float first = broken ? std::nanf("") : static_cast<float>(prompt.size());
      work.embed(std::vector<float>{first, 3});
      return true;
    }
    work.stats.prompt_tokens = static_cast<std::uint32_t>(prompt.size());
    if (!std::exchange(work.begun, true)) {
      const std::size_t kept = std::min<std::size_t>(prompt.size(), info_.context);
      work.listener->begun(work.stats, std::span(prompt).first(kept));
    }
    if (work.cancelled) {
      work.listener->done(engine::DoneReason::kCancelled, work.stats);
      return true;
    }
    if (work.position == prompt.size() ||
        (work.request.num_predict >= 0 &&
         work.stats.generated_tokens == static_cast<std::uint32_t>(work.request.num_predict))) {
      work.listener->done(
          work.position == prompt.size() ? engine::DoneReason::kStop : engine::DoneReason::kLength,
          work.stats);
      return true;
    }
    const engine::Token token = prompt[work.position];
    if (token == '!') {
      std::fputs("fake.cpp:1: GGML_ASSERT(false) failed\n", stderr);
      std::fflush(stderr);
      std::abort();
    }
    if (token == '~') {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    } else {
      ++work.position;
    }
    const bool verbatim = prompt.size() > 1 && prompt[1] == '=';
    if (token == FakeTokenizer::kBos || (verbatim && work.position == 2)) return false;
    ++work.stats.generated_tokens;
    work.stats.generate_ns += 1000;
    const int said = verbatim ? token : std::toupper(static_cast<int>(token));
    const std::string text(1, static_cast<char>(said));
    tell_logprobs(work, static_cast<unsigned char>(text.front()));
    work.listener->text(text, std::span(&token, 1));
    return false;
  }

  // Each token has the logprob -1 less a quarter for each seed above a multiple of four, its
  // alternatives (itself, then "a", "b", ...) -1, -2, -3, ...
  static void tell_logprobs(Work& work, engine::Token token) {
    if (work.request.sampling.logprobs < 0) return;
    const auto seed = std::max<std::int64_t>(work.request.sampling.seed, 0);
    engine::TokenLogprobs told{.chosen = {token, -1.0F - 0.25F * static_cast<float>(seed % 4)},
                               .best = {},
                               .begin = work.stats.generated_tokens - 1};
    for (std::int32_t i = 0; i < work.request.sampling.logprobs; ++i) {
      told.best.push_back({i == 0 ? token : 'a' + i - 1, -1.0F - static_cast<float>(i)});
    }
    work.listener->logprobs(std::span(&told, 1));
  }

  engine::ModelInfo info_;
  FakeTokenizer tokenizer_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Work> work_;
  std::set<engine::RequestId> cancelled_;
  engine::RequestId last_id_ = 0;
  bool closing_ = false;
  std::thread thread_;
};

// "missing" does not exist; "slow" loads until it is cancelled; everything else loads, "ranker" as
// a model that ranks.
inline Result<std::unique_ptr<engine::Engine>> load_fake_engine(const std::filesystem::path& path,
                                                                const engine::LoadOptions& options,
                                                                const engine::Progress& progress) {
  if (path == "missing") return fail(ErrorCode::kNotFound, "no such file");
  if (path == "assert") {
    std::fputs("fake.cpp:2: GGML_ASSERT(loading) failed\n", stderr);
    std::fflush(stderr);
    std::abort();
  }
  do {
    for (const float fraction : {0.0F, 0.5F, 1.0F}) {
      if (!progress(fraction)) return fail(ErrorCode::kCancelled, "cancelled");
    }
    if (path == "slow") std::this_thread::sleep_for(std::chrono::milliseconds(5));
  } while (path == "slow");
  return std::make_unique<FakeEngine>(options, path == "ranker");
}

// For a test's main(): the exit code where the test started itself as the child of a runner.
inline std::optional<int> serve_as_fake_child(int argc, char** argv) {
  if (argc < 2 || std::string_view(argv[1]) != "--runner-child") return std::nullopt;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const rlimit no_core{.rlim_cur = 0, .rlim_max = 0};
  setrlimit(RLIMIT_CORE, &no_core);
  return serve_requests(kChildSocket, load_fake_engine);
}

}  // namespace ollama::runner
