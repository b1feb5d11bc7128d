// The engine: one loaded model, its cache, and the loop that evaluates many sequences at once. It
// knows tokens and text, not messages, templates or HTTP.
//
// One thread of the engine's own evaluates steps and owns all device state; every public call may
// come from any thread and talks to it through a queue. Listeners are called on the engine's thread
// and must not block.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "api/types.h"
#include "base/error.h"
#include "base/units.h"
#include "grammar/grammar.h"
#include "grammar/preamble.h"
#include "ml/backend.h"
#include "nn/validation.h"
#include "sample/sampler.h"
#include "tokenizer/tokenizer.h"

namespace ollama::envconfig {
struct Config;
}  // namespace ollama::envconfig

namespace ollama::engine {

using tokenizer::Token;

struct LoadOptions {
  std::uint32_t context = 0;     // tokens per sequence; 0: the model's own, at most 16,384
  std::uint32_t batch = 512;     // tokens evaluated in one step, at most
  std::uint32_t parallel = 1;    // sequences served at once, 1 to 64
  std::int32_t gpu_layers = -1;  // see memory::Limits, as for the next five
  std::int32_t main_gpu = -1;
  bool spread = false;
  std::uint64_t vram_min_free = 457 * kMiB;
  std::uint64_t gpu_overhead = 0;
  bool whole = false;
  ml::DeviceOptions devices;
  std::uint32_t threads = 0;  // 0: ml::optimal_thread_count decides
  ml::DType kv_type = ml::DType::kF16;
  ml::FlashAttention flash_attention = ml::FlashAttention::kAuto;
  ml::BackendKind backend = ml::BackendKind::kGgml;
  ml::CpuKernels kernels = ml::CpuKernels::kAuto;
  bool use_mmap = true;
  nn::Validation validation = nn::Validation::kOnce;

  bool operator==(const LoadOptions&) const = default;
};

// What the environment says; what a request or model may choose stays at its default.
LoadOptions load_options_of(const envconfig::Config& config);

enum class DoneReason : std::uint8_t { kStop, kLength, kCancelled };

struct Stats {
  std::uint32_t prompt_tokens = 0;  // of the request, cached ones included
  std::uint32_t cached_tokens = 0;  // taken from the cache instead of evaluated
  std::uint32_t generated_tokens = 0;
  std::int64_t prompt_ns = 0;
  std::int64_t generate_ns = 0;
  std::string stopped_by;  // the stop string that ended the answer, if one did
};

using RequestId = std::uint64_t;

// What a model thought of a token that it said: see sample::Sampler::logprobs.
struct TokenLogprobs {
  sample::TokenLogprob chosen;
  std::vector<sample::TokenLogprob> best;
  std::uint64_t begin = 0;  // where in the answer its text begins, in bytes
};

// What becomes of one request. Exactly one of done and failed is called, last.
class Listener {
 public:
  virtual ~Listener() = default;
  // First, and before the prompt is evaluated: its tokens, cut to the context, those of the cache
  // counted in `stats`. Not called where the request is cancelled while it waits.
  virtual void begun(const Stats& /*stats*/, std::span<const Token> /*prompt*/) {}
  // The next piece of the answer: complete UTF-8 characters, stop strings and end tokens removed.
  // `tokens` are those generated since the last call (their text may still be held back).
  virtual void text(std::string_view piece, std::span<const Token> tokens) = 0;
  // With sampling.logprobs: before text(), of the tokens whose text begins in its piece, in their
  // order. Tokens that a stop string cuts off are not told.
  virtual void logprobs(std::span<const TokenLogprobs> /*tokens*/) {}
  virtual void done(DoneReason reason, const Stats& stats) = 0;
  virtual void failed(const Error& error) = 0;
};

struct Request {
  std::vector<Token> prompt;  // at least one token; longer than the context: see `truncate`
  sample::Options sampling;
  std::int32_t num_predict =
      -1;  // -1: until an end token, at most ten contexts; -2: until the context is full
  std::int32_t num_keep = 4;  // tokens kept at the front on a context shift; -1: the whole prompt
  bool shift = true;     // go on past the context by dropping old tokens; else end with kLength
  bool truncate = true;  // cut the middle out of a prompt that is too long; else kInvalidArgument
  bool control_text = false;      // control tokens are text too, but for those that end the answer
  bool ignore_end = false;        // end tokens do not end the answer (benchmarks)
  bool reuse_prefix = true;       // false: evaluate the whole prompt (benchmarks)
  std::vector<std::string> stop;  // the answer ends before any of these; see StopMatcher::validate
  // What the answer keeps to; null: nothing. It ends with kStop where it is whole and the model
  // ends it, or where nothing more may be said. Requests with one grammar share what is found out
  // of it.
  grammar::GrammarPtr grammar;
  // What may come before that, free of it.
  std::optional<grammar::Preamble::Options> preamble;
};

struct ModelInfo {
  std::string architecture;
  std::uint32_t context = 0;        // per sequence, as loaded
  std::uint32_t train_context = 0;  // the model's own limit
  std::uint32_t embedding_length = 0;
  std::uint32_t layers = 0;
  std::size_t vocab_size = 0;
  bool is_embedding = false;  // has no logits (bert)
  bool ranks = false;         // scores pairs of texts: gives no embeddings either
  std::uint64_t weight_bytes = 0;
  std::uint64_t cache_bytes = 0;
  std::uint64_t graph_bytes = 0;
  std::uint64_t device_bytes = 0;  // of all of these, on GPUs
  std::uint32_t gpu_layers = 0;    // placed on GPUs, the output counted as one
  // What of these each device holds, GPUs first.
  struct OnDevice {
    std::string name;
    std::uint64_t bytes = 0;
    bool gpu = false;
    std::string remote;  // host:port of the server that lends it
  };
  std::vector<OnDevice> devices;
  std::string chat_template;  // the file's own, in Jinja; known in the runner only
};

// Reports loading, 0 to 1; returning false cancels it.
using Progress = std::function<bool(float)>;

// Where the model would be loaded with these options, and why. Errors: those of Engine::load.
Result<api::MemoryPlan> explain_plan(const std::filesystem::path& path, const LoadOptions& options);

class Engine {
 public:
  // Loads the model file. Errors: those of gguf::File::open, kUnsupported (architecture), kCorrupt
  // (missing tensors), kOutOfMemory, kCancelled.
  static Result<std::unique_ptr<Engine>> load(const std::filesystem::path& path,
                                              const LoadOptions& options,
                                              const Progress& progress = {});
  virtual ~Engine() = default;  // cancels what is running and waits for the step in flight

  virtual const ModelInfo& info() const = 0;
  virtual const tokenizer::Tokenizer& tokenizer() const = 0;

  // Queues a request. Errors: kInvalidArgument (options, prompt), kUnsupported (embedding model).
  virtual Result<RequestId> submit(Request request, std::unique_ptr<Listener> listener) = 0;
  // Ends a request within one step; its listener hears done(kCancelled). Unknown ids are ignored.
  virtual void cancel(RequestId id) = 0;

  // The pooled, unnormalised embedding of one text, [embedding_length]; `done` is called once, on
  // the engine's thread. Texts queued together are evaluated together. Errors: kInvalidArgument (no
  // tokens, or more than the context), kUnsupported (a model that ranks); to `done` kCancelled,
  // where `cancelled`, which may be null, became true before the text's turn came.
  using Cancelled = std::shared_ptr<const std::atomic<bool>>;
  using EmbedCallback = std::function<void(Result<std::vector<float>>)>;
  virtual Result<> embed(std::vector<Token> tokens, EmbedCallback done, Cancelled cancelled) = 0;

  // The score that the model's classifier gives a pair of texts (the first of its labels, as it
  // is: larger is better, in no fixed range), as for embed(). Errors: kInvalidArgument,
  // kUnsupported (a model that does not rank).
  using RankCallback = std::function<void(Result<float>)>;
  virtual Result<> rank(tokenizer::Pair pair, RankCallback done, Cancelled cancelled) = 0;
};

}  // namespace ollama::engine
