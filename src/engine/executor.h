// Evaluates steps: a model on its backend with its cache, and the graphs that are kept between
// steps. Used by one thread.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "engine/engine.h"
#include "kvcache/cache.h"
#include "memory/plan.h"
#include "ml/backend.h"
#include "model/model.h"
#include "tokenizer/tokenizer.h"

namespace ollama::engine {

// The tokens of one step, in the order that they were added. Buffers are reused from step to step.
struct StepBatch {
  std::vector<Token> tokens;
  std::vector<kvcache::Position> positions;
  std::vector<kvcache::Sequence> sequences;
  std::vector<std::int32_t> segments;  // 0 or 1: which text of a pair that is ranked
  std::vector<std::int32_t> outputs;   // indices of tokens whose results are wanted
  bool states = false;                 // results: states before the output matrix, not logits

  void clear();
  void add(Token token, kvcache::Position position, kvcache::Sequence sequence, bool output,
           std::int32_t segment = 0);
  std::size_t size() const { return tokens.size(); }
};

// What a model's evaluation cost since it was loaded.
struct Counters {
  std::uint64_t steps = 0;
  std::uint64_t graph_builds = 0;      // steps whose graph could not be used again
  std::uint64_t attention_probes = 0;  // questions about fused attention that reached the backend
  ml::BackendCounters backend;
  ml::PoolCounters pool;
};

class Executor {
 public:
  // The cache tells kvcache::kMaxSequences sequences apart and holds options.parallel contexts.
  static Result<std::unique_ptr<Executor>> load(const std::filesystem::path& path,
                                                const LoadOptions& options,
                                                const Progress& progress);
  ~Executor();

  // Evaluates the batch, whose tokens are ids of the vocabulary. Gives the results of
  // batch.outputs, [width(batch.states), outputs], valid until the next call; they may be changed
  // in place. On an error the cache is as it was before. Without a cache a batch must hold its
  // texts whole. Errors: kvcache::kCacheFull, those of ml::Context.
  Result<std::span<float>> run(const StepBatch& batch);

  // What the graphs of a model placed so would take at most on each of the plan's devices, in
  // bytes; nothing is loaded. Errors: kOutOfMemory where one of them cannot hold its part of the
  // cache whatever is free there; `unfit` is then its index.
  static Result<std::vector<std::uint64_t>> measure(std::shared_ptr<const gguf::File> file,
                                                    const LoadOptions& options,
                                                    const memory::Plan& plan,
                                                    std::optional<std::size_t>& unfit);

  // Moves what a sequence holds from position `begin` on by `delta` (see kvcache::Cache::move).
  // Errors: kUnsupported where the model's keys cannot be turned, those of Cache::move.
  Result<> move(kvcache::Sequence sequence, kvcache::Position begin, kvcache::Position delta);

  Counters counters() const;
  // What graphs have taken so far on each of the backend's devices.
  std::vector<std::uint64_t> graph_bytes() const;
  // Gives memory that is kept for the next steps back to the system.
  void trim() { backend_->trim(); }
  // Hands the named results of graphs that are built from now on to `observer`; slow.
  void observe(ml::Observer observer) { observer_ = std::move(observer); }

  // Null for models that see each text at once (is_embedding).
  kvcache::Cache* cache() { return cache_.get(); }
  model::Pooling pooling() const { return model_->config().pooling; }
  // Of a result: embedding_length for states, else the vocabulary, or a classifier's labels.
  std::size_t width(bool states) const {
    return states ? info_.embedding_length : static_cast<std::size_t>(model_->output_width());
  }
  const tokenizer::Tokenizer& tokenizer() const { return *tokenizer_; }
  const ModelInfo& info() const { return info_; }
  std::uint32_t max_batch() const { return max_batch_; }
  // kInvalidArgument for a token that is no id of the vocabulary.
  Result<> check(std::span<const Token> tokens) const;

 private:
  // A graph that is kept while steps of the same shapes follow one another.
  struct Graph {
    std::unique_ptr<ml::Context> context;
    std::uint64_t tokens = 0;  // 0: nothing built yet
    std::uint64_t outputs = 0;
    bool states = false;
    std::uint64_t cache_key = 0;
    ml::Tensor token_input;
    ml::Tensor position_input;
    ml::Tensor output_input;
    ml::Tensor mask_input;     // without a cache
    ml::Tensor segment_input;  // of models that read it
    std::vector<kvcache::Inputs> cache_inputs;
    ml::Tensor results;
  };

  Executor(std::shared_ptr<const gguf::File> file, const LoadOptions& options);
  // Backend, weights, model and cache. Errors: kOutOfMemory; then shortage() may say of which
  // device.
  Result<> assemble(const LoadOptions& options, const memory::Plan& plan, ml::Purpose purpose,
                    const Progress& progress);
  // The largest graphs that steps can need: what they take, and taking it.
  Result<std::vector<std::uint64_t>> measure_graphs();
  Result<> reserve_graphs();
  template <typename Visit>
  Result<> for_each_largest(const Visit& visit);
  void fill_info(const memory::Plan& plan);
  // Adds a step's forward pass to the graph's context, which is empty.
  Result<> describe(Graph& graph, std::uint64_t tokens, std::uint64_t outputs, bool states);
  Result<> build(Graph& graph, std::uint64_t tokens, std::uint64_t outputs, bool states);
  Result<Graph*> graph_of(ml::Phase phase);
  std::uint64_t cache_key() const { return cache_ ? cache_->shape_key() : 0; }
  Result<std::span<float>> evaluate(Graph& graph, const StepBatch& batch,
                                    std::span<const std::int32_t> outputs);

  // In the order that they are built on one another.
  std::shared_ptr<const gguf::File> file_;
  std::unique_ptr<tokenizer::Tokenizer> tokenizer_;
  std::unique_ptr<ml::Backend> backend_;
  std::unique_ptr<ml::Weights> weights_;
  std::unique_ptr<model::Model> model_;
  std::unique_ptr<kvcache::Cache> cache_;
  nn::AttentionSupport attention_;
  Graph prefill_;
  Graph decode_;
  const Graph* last_ = nullptr;  // evaluated the step before
  std::unique_ptr<ml::Context> moves_;
  ml::Observer observer_;
  std::uint64_t steps_ = 0;
  std::uint64_t graph_builds_ = 0;
  std::vector<float> results_;
  std::vector<std::byte> mask_;
  std::vector<ml::Upload> uploads_;
  ModelInfo info_;
  std::uint32_t max_batch_ = 0;
  std::uint32_t decode_tokens_ = 1;  // steps of up to this many tokens use decode_
};

}  // namespace ollama::engine
