#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <format>
#include <limits>
#include <memory>
#include <mutex>
#include <random>

#include "cmd/bench.h"
#include "gguf/file.h"
#include "ml/thread_count.h"

namespace ollama::cmd {
namespace {

using Clock = std::chrono::steady_clock;
using engine::Token;

// Waits until every request of one round has ended.
class Round {
 public:
  explicit Round(std::size_t streams) : stats_(streams), left_(streams) {}

  void end(std::size_t stream, Result<engine::Stats> stats) {
    const std::scoped_lock lock(mutex_);
    if (stats) {
      stats_[stream] = *stats;
    } else if (!error_) {
      error_ = stats.error();
    }
    end_ = Clock::now();
    if (--left_ == 0) done_.notify_all();
  }

  Result<std::vector<engine::Stats>> wait() {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return left_ == 0; });
    if (error_) return std::unexpected(*error_);
    return stats_;
  }
  // Of the last stream; after wait().
  Clock::time_point end_time() const { return end_; }

 private:
  std::mutex mutex_;
  std::condition_variable done_;
  std::vector<engine::Stats> stats_;
  std::size_t left_;
  std::optional<Error> error_;
  Clock::time_point end_;
};

class StreamListener final : public engine::Listener {
 public:
  StreamListener(std::shared_ptr<Round> round, std::size_t stream)
      : round_(std::move(round)), stream_(stream) {}
  void text(std::string_view /*piece*/, std::span<const Token> /*tokens*/) override {}
  void done(engine::DoneReason /*reason*/, const engine::Stats& stats) override {
    round_->end(stream_, stats);
  }
  void failed(const Error& error) override { round_->end(stream_, std::unexpected(error)); }

 private:
  std::shared_ptr<Round> round_;
  std::size_t stream_;
};

struct Measured {
  std::vector<engine::Stats> stats;
  double seconds = 0;
};

class Bench {
 public:
  Bench(const BenchOptions& options, engine::Engine& engine)
      : options_(options), engine_(engine), random_(options.seed) {
    const tokenizer::Tokenizer& tokenizer = engine.tokenizer();
    for (std::size_t id = 0; id < tokenizer.vocab_size(); ++id) {
      const auto token = static_cast<Token>(id);
      if (!tokenizer.is_control(token) && !tokenizer.is_end(token)) words_.push_back(token);
    }
    for (std::uint32_t i = 0; i < options.parallel; ++i) depths_.push_back(words(options.depth));
  }

  Result<> check() const {
    if (words_.empty()) return fail(ErrorCode::kCorrupt, "the model's vocabulary is empty");
    return {};
  }

  // Prompt tokens a second, all streams together.
  Result<double> prompt_rate() {
    OLLAMA_TRY(fill());
    std::vector<std::vector<Token>> prompts = depths_;
    for (auto& prompt : prompts) std::ranges::copy(words(options_.n_prompt), back(prompt));
    OLLAMA_ASSIGN(const Measured measured, submit(std::move(prompts), 1));
    std::uint64_t tokens = 0;
    for (const engine::Stats& stats : measured.stats) {
      tokens += stats.prompt_tokens - stats.cached_tokens;
    }
    OLLAMA_TRY(check_depth(measured));
    return static_cast<double>(tokens) / measured.seconds;
  }

  // Generated tokens a second, all streams together.
  Result<double> generation_rate() {
    OLLAMA_TRY(fill());
    std::vector<std::vector<Token>> prompts = depths_;
    for (auto& prompt : prompts) {
      if (prompt.empty()) prompt = words(1);
    }
    // The first token comes from the prompt's logits: that is no step of generation.
    OLLAMA_ASSIGN(const Measured measured, submit(std::move(prompts), options_.n_gen + 1));
    double rate = 0;
    for (const engine::Stats& stats : measured.stats) {
      if (stats.generated_tokens != options_.n_gen + 1 || stats.generate_ns <= 0) {
        return fail(ErrorCode::kInternal, "generated {} tokens instead of {}",
                    stats.generated_tokens, options_.n_gen + 1);
      }
      rate += options_.n_gen * 1e9 / static_cast<double>(stats.generate_ns);
    }
    return rate;
  }

 private:
  static std::back_insert_iterator<std::vector<Token>> back(std::vector<Token>& tokens) {
    return std::back_inserter(tokens);
  }

  std::vector<Token> words(std::uint32_t count) {
    std::uniform_int_distribution<std::size_t> choose(0, words_.size() - 1);
    std::vector<Token> tokens(count);
    for (Token& token : tokens) token = words_[choose(random_)];
    return tokens;
  }

  // Brings the depth into the cache; what is there already costs next to nothing.
  Result<> fill() {
    if (options_.depth == 0) return {};
    OLLAMA_TRY(submit(depths_, 1));
    return {};
  }

  Result<> check_depth(const Measured& measured) const {
    for (const engine::Stats& stats : measured.stats) {
      if (options_.depth > 0 && stats.cached_tokens + 1 < options_.depth) {
        return fail(ErrorCode::kInternal, "only {} of {} tokens of the depth stayed in the cache",
                    stats.cached_tokens, options_.depth);
      }
    }
    return {};
  }

  // One request a stream, all at once.
  Result<Measured> submit(std::vector<std::vector<Token>> prompts, std::uint32_t predict) {
    auto round = std::make_shared<Round>(prompts.size());
    const Clock::time_point begin = Clock::now();
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      engine::Request request;
      request.prompt = std::move(prompts[i]);
      request.sampling = greedy();
      request.num_predict = static_cast<std::int32_t>(predict);
      request.shift = false;
      request.truncate = false;
      request.ignore_end = true;
      request.reuse_prefix = options_.depth > 0;
      const auto id =
          engine_.submit(std::move(request), std::make_unique<StreamListener>(round, i));
      if (!id) round->end(i, std::unexpected(id.error()));
    }
    Measured measured;
    OLLAMA_ASSIGN(measured.stats, round->wait());
    measured.seconds = std::chrono::duration<double>(round->end_time() - begin).count();
    return measured;
  }

  // Choosing a token is not what is measured.
  static sample::Options greedy() {
    sample::Options sampling;
    sampling.temperature = 0;
    sampling.repeat_penalty = 1;
    return sampling;
  }

  const BenchOptions& options_;
  engine::Engine& engine_;
  std::mt19937_64 random_;
  std::vector<Token> words_;
  std::vector<std::vector<Token>> depths_;  // a prompt a stream
};

// An engine that takes part.
struct Contender {
  ml::CpuKernels kernels;
  ml::FlashAttention flash_attention;
  double load_seconds = 0;
  std::unique_ptr<engine::Engine> engine;
  std::optional<Bench> bench;
  std::optional<Rates> rates;  // of the phase measured last
};

// With GGML's kernels either form of attention may be the faster one.
std::vector<Contender> contenders(const BenchOptions& options) {
  std::vector<Contender> result;
  for (const ml::CpuKernels kernels : options.kernels) {
    if (kernels == ml::CpuKernels::kGgml &&
        options.load.flash_attention == ml::FlashAttention::kAuto) {
      result.push_back({.kernels = kernels, .flash_attention = ml::FlashAttention::kOn});
      result.push_back({.kernels = kernels, .flash_attention = ml::FlashAttention::kOff});
    } else {
      result.push_back({.kernels = kernels, .flash_attention = options.load.flash_attention});
    }
  }
  return result;
}

// Measures a phase with every contender: a warm-up, then repetitions in turns.
template <typename Measure>
Result<> measure_all(const BenchOptions& options, std::vector<Contender>& all,
                     std::string_view phase, const std::function<void(std::string_view)>& progress,
                     const Measure& measure) {
  std::vector<std::vector<double>> rates(all.size());
  for (std::uint32_t i = 0; i <= options.repetitions; ++i) {
    for (std::size_t c = 0; c < all.size(); ++c) {
      progress(i == 0 ? std::format("{}: warming up", phase)
                      : std::format("{}: {} of {}", phase, i, options.repetitions));
      OLLAMA_ASSIGN(const double rate, measure(*all[c].bench));
      if (i > 0) rates[c].push_back(rate);
    }
  }
  for (std::size_t c = 0; c < all.size(); ++c) all[c].rates = summarize(std::move(rates[c]));
  return {};
}

// What the faster of these kernels' contenders reached.
Phase best_of(const std::vector<Contender>& all, ml::CpuKernels kernels) {
  const Contender* best = nullptr;
  for (const Contender& contender : all) {
    if (contender.kernels != kernels) continue;
    if (best == nullptr || contender.rates->median > best->rates->median) best = &contender;
  }
  return {.rates = *best->rates, .flash_attention = best->flash_attention};
}

}  // namespace

Rates summarize(std::vector<double> rates) {
  std::ranges::sort(rates);
  const std::size_t middle = rates.size() / 2;
  const double median =
      rates.size() % 2 == 1 ? rates[middle] : (rates[middle - 1] + rates[middle]) / 2;
  return {.median = median, .min = rates.front(), .max = rates.back()};
}

Result<std::vector<BenchResult>> run_bench(const BenchOptions& options,
                                           const std::function<void(std::string_view)>& progress) {
  OLLAMA_ASSIGN(const gguf::File file, gguf::File::open(options.path));
  const std::uint32_t fresh = std::max(options.n_prompt, options.n_gen) + 2;
  const std::uint32_t limit =
      file.u32(".context_length").value_or(std::numeric_limits<std::uint32_t>::max());
  if (options.depth + fresh > limit) {
    return fail(ErrorCode::kInvalidArgument,
                "the model's context of {} tokens is too small for {} tokens: lower -p, -n or -d",
                limit, options.depth + fresh);
  }
  engine::LoadOptions load = options.load;
  load.parallel = options.parallel;
  // With a depth, what earlier repetitions left in the cache must not push it out.
  load.context = std::min(limit, options.depth + (options.depth > 0 ? 2 : 1) * fresh);
  std::vector<Contender> all = contenders(options);
  for (Contender& contender : all) {
    progress("loading");
    load.kernels = contender.kernels;
    load.flash_attention = contender.flash_attention;
    const Clock::time_point begin = Clock::now();
    OLLAMA_ASSIGN(contender.engine, engine::Engine::load(options.path, load));
    contender.load_seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    contender.bench.emplace(options, *contender.engine);
    OLLAMA_TRY(contender.bench->check());
  }

  std::vector<BenchResult> results;
  for (const ml::CpuKernels kernels : options.kernels) {
    const auto first = std::ranges::find(all, kernels, &Contender::kernels);
    results.push_back(
        {.kernels = kernels,
         .type = gguf::file_type_name(file),
         .gpu_layers = first->engine->info().gpu_layers,
         .threads = load.threads > 0 ? load.threads : ml::CpuTopology::read().usable(),
         .load_seconds = first->load_seconds});
  }
  if (options.n_prompt > 0) {
    OLLAMA_TRY(measure_all(options, all, "prompt", progress,
                           [](Bench& bench) { return bench.prompt_rate(); }));
    for (BenchResult& result : results) result.prompt = best_of(all, result.kernels);
  }
  if (options.n_gen > 0) {
    OLLAMA_TRY(measure_all(options, all, "generation", progress,
                           [](Bench& bench) { return bench.generation_rate(); }));
    for (BenchResult& result : results) result.generation = best_of(all, result.kernels);
  }
  return results;
}

std::string_view kernels_name(ml::CpuKernels kernels) {
  return kernels == ml::CpuKernels::kGgml ? "ggml" : "native";
}

api::JsonObject bench_json(const BenchOptions& options, const BenchResult& result) {
  const auto number = [](const std::optional<Phase>& phase, double Rates::* field) {
    return phase ? api::Json(phase->rates.*field) : api::Json(nullptr);
  };
  return {{"kernels", kernels_name(result.kernels)},
          {"model", options.model},
          {"type", result.type},
          {"gpu_layers", result.gpu_layers},
          {"threads", result.threads},
          {"load_seconds", result.load_seconds},
          {"n_prompt", options.n_prompt},
          {"n_gen", options.n_gen},
          {"depth", options.depth},
          {"parallel", options.parallel},
          {"pp_tok_s", number(result.prompt, &Rates::median)},
          {"tg_tok_s", number(result.generation, &Rates::median)},
          {"pp_min", number(result.prompt, &Rates::min)},
          {"pp_max", number(result.prompt, &Rates::max)},
          {"tg_min", number(result.generation, &Rates::min)},
          {"tg_max", number(result.generation, &Rates::max)}};
}

}  // namespace ollama::cmd
