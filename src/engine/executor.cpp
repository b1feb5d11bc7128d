#include "engine/executor.h"

#include <algorithm>

#include "base/log.h"
#include "memory/plan.h"

namespace ollama::engine {
namespace {

constexpr std::uint32_t kDefaultContext = 16384;
constexpr std::uint32_t kMaxLayers = 4096;  // as model::read_config bounds them

constexpr ErrorConstant kCannotTurn{ErrorCode::kUnsupported,
                                    "the model's keys cannot be moved to other positions"};

// Who sees whom without a cache: tokens of the same text. [tokens, tokens].
void write_mask(std::span<const kvcache::Sequence> texts, ml::DType type,
                std::vector<std::byte>& bytes) {
  ml::with_mask_values(type, [&]<typename T>(T visible, T hidden) {
    bytes.resize(texts.size() * texts.size() * sizeof(T));
    T* mask = reinterpret_cast<T*>(bytes.data());  // operator new's memory serves every T here
    for (const kvcache::Sequence of : texts) {
      for (const kvcache::Sequence seen : texts) *mask++ = of == seen ? visible : hidden;
    }
  });
}

}  // namespace

void StepBatch::clear() {
  tokens.clear();
  positions.clear();
  sequences.clear();
  outputs.clear();
  states = false;
}

void StepBatch::add(Token token, kvcache::Position position, kvcache::Sequence sequence,
                    bool output) {
  if (output) outputs.push_back(static_cast<std::int32_t>(tokens.size()));
  tokens.push_back(token);
  positions.push_back(position);
  sequences.push_back(sequence);
}

Executor::~Executor() = default;

Result<std::unique_ptr<Executor>> Executor::load(const std::filesystem::path& path,
                                                 const LoadOptions& options,
                                                 const Progress& progress) {
  if (options.parallel < 1 || options.parallel > kvcache::kMaxSequences) {
    return fail(ErrorCode::kInvalidArgument, "{} parallel sequences: 1 to {} are possible",
                options.parallel, kvcache::kMaxSequences);
  }
  std::unique_ptr<Executor> executor(new Executor(options.validation));
  Executor& e = *executor;
  OLLAMA_ASSIGN(e.file_, gguf::File::open(path));
  OLLAMA_ASSIGN(e.tokenizer_, tokenizer::load(*e.file_));
  OLLAMA_ASSIGN(e.backend_,
                ml::new_backend(options.backend, {.threads = options.threads,
                                                  .flash_attention = options.flash_attention,
                                                  .kernels = options.kernels,
                                                  .use_mmap = options.use_mmap}));
  // By the weights alone: what each layer caches is known once the model is bound to them.
  const std::vector<kvcache::LayerSpec> layers(
      std::min(e.file_->u32(".block_count").value_or(0), kMaxLayers));
  OLLAMA_ASSIGN(const memory::Plan plan,
                memory::fit(memory::demand(*e.file_, layers, {}), e.backend_->devices()));
  OLLAMA_ASSIGN(e.weights_, e.backend_->load_weights(*e.file_, plan.placement, progress));
  OLLAMA_ASSIGN(e.model_, model::new_model(*e.file_, *e.weights_));

  const model::Config& config = e.model_->config();
  const auto train_context = static_cast<std::uint32_t>(config.context_length);
  std::uint32_t context = options.context != 0 ? options.context : kDefaultContext;
  if (context > train_context) {
    // The default asks for as much as there is.
    if (options.context != 0 && options.context != kDefaultContext) {
      log::warn("num_ctx {} is more than the model's own limit: using {}", context, train_context);
    }
    context = train_context;
  }
  // No more than a context holds, no less than a token of every sequence.
  e.max_batch_ = std::max(std::clamp(options.batch, 1U, std::max(context, 1U)), options.parallel);
  e.decode_tokens_ = options.parallel;
  if (config.causal) {
    OLLAMA_ASSIGN(e.cache_, kvcache::new_cache(*e.backend_, e.model_->cache_layers(),
                                               {.cells = context * options.parallel,
                                                .sequences = kvcache::kMaxSequences,
                                                .parallel = options.parallel,
                                                .max_batch = e.max_batch_,
                                                .k_type = options.kv_type,
                                                .v_type = options.kv_type,
                                                .config = e.backend_->cache_config()},
                                               plan.placement));
  }
  e.info_ = {.architecture = config.architecture,
             .context = context,
             .train_context = train_context,
             .embedding_length = static_cast<std::uint32_t>(config.embedding_length),
             .layers = static_cast<std::uint32_t>(config.layers),
             .vocab_size = static_cast<std::size_t>(config.vocab_size),
             .is_embedding = !config.causal,
             .weight_bytes = e.weights_->bytes(),
             .cache_bytes = e.cache_ ? e.cache_->bytes() : 0,
             .graph_bytes = 0,
             .device_bytes = 0};
  return executor;
}

Result<> Executor::check(std::span<const Token> tokens) const {
  for (const Token token : tokens) {
    if (token < 0 || static_cast<std::size_t>(token) >= info_.vocab_size) {
      return fail(ErrorCode::kInvalidArgument, "token {} is outside the vocabulary of {}", token,
                  info_.vocab_size);
    }
  }
  return {};
}

Result<> Executor::build(Graph& graph, std::uint64_t tokens, std::uint64_t outputs, bool states) {
  graph.tokens = 0;  // nothing, should building fail
  ++graph_builds_;
  ml::Context& ctx = *graph.context;
  ctx.reset();
  const auto n = static_cast<std::int64_t>(tokens);
  graph.token_input = ctx.input(ml::DType::kI32, {n, 1, 1, 1}, "tokens");
  graph.position_input = ctx.input(ml::DType::kI32, {n, 1, 1, 1}, "positions");
  graph.output_input =
      ctx.input(ml::DType::kI32, {static_cast<std::int64_t>(outputs), 1, 1, 1}, "output_rows");
  graph.cache_inputs.clear();
  graph.mask_input = {};
  if (cache_) {
    cache_->declare_inputs(ctx, graph.cache_inputs);
  } else {
    graph.mask_input = ctx.input(backend_->cache_config().mask_dtype, {n, n, 1, 1}, "mask");
  }
  model::Step step{.ctx = ctx,
                   .attention = attention_,
                   .cache = cache_.get(),
                   .cache_inputs = graph.cache_inputs,
                   .tokens = graph.token_input,
                   .positions = graph.position_input,
                   .output_rows = graph.output_input,
                   .mask = graph.mask_input};
  OLLAMA_ASSIGN(const ml::Tensor results,
                states ? model_->hidden_states(step) : model_->forward(step));
  graph.results = ctx.output(results, states ? "states" : "logits");
  OLLAMA_TRY(ctx.prepare());
  graph.tokens = tokens;
  graph.outputs = outputs;
  graph.cache_key = cache_key();
  return {};
}

// Steps of one kind share a graph, which alternating kinds leave alone.
Result<Executor::Graph*> Executor::graph_for(const StepBatch& batch) {
  const bool decodes = batch.size() <= decode_tokens_;
  Graph& graph = batch.states ? states_ : decodes ? decode_ : prefill_;
  if (!graph.context) {
    const ml::Phase phase = decodes && !batch.states ? ml::Phase::kDecode : ml::Phase::kPrefill;
    const std::uint32_t most = phase == ml::Phase::kDecode ? decode_tokens_ : max_batch_;
    OLLAMA_ASSIGN(graph.context, backend_->new_context(phase, model_->max_nodes(), most));
    if (observer_) graph.context->observe(observer_);
  }
  return &graph;
}

Result<std::span<float>> Executor::evaluate(Graph& graph, const StepBatch& batch,
                                            std::span<const std::int32_t> outputs) {
  if (graph.tokens != batch.size() || graph.outputs != outputs.size() ||
      graph.cache_key != cache_key()) {
    last_ = nullptr;
    OLLAMA_TRY(build(graph, batch.size(), outputs.size(), batch.states));
  }
  uploads_.clear();
  uploads_.push_back({graph.token_input, std::as_bytes(std::span(batch.tokens))});
  uploads_.push_back({graph.position_input, std::as_bytes(std::span(batch.positions))});
  uploads_.push_back({graph.output_input, std::as_bytes(outputs)});
  if (cache_) {
    cache_->collect_uploads(graph.cache_inputs, last_ == &graph, uploads_);
  } else {
    write_mask(batch.sequences, graph.mask_input.dtype(), mask_);
    uploads_.push_back({graph.mask_input, mask_});
  }
  last_ = nullptr;
  OLLAMA_TRY(graph.context->upload(uploads_));
  last_ = &graph;
  OLLAMA_TRY(graph.context->compute());
  const std::size_t wanted = width(batch.states) * outputs.size();
  if (results_.size() < wanted) results_.resize(wanted);
  const std::span<float> results(results_.data(), wanted);
  OLLAMA_TRY(graph.context->download(graph.results, std::as_writable_bytes(results)));
  return results;
}

Counters Executor::counters() const {
  return {.steps = steps_,
          .graph_builds = graph_builds_,
          .attention_probes = attention_.probes(),
          .backend = backend_->counters(),
          .pool = backend_->pool_counters()};
}

Result<> Executor::move(kvcache::Sequence sequence, kvcache::Position begin,
                        kvcache::Position delta) {
  if (model_->attention(0) == nullptr) return fail(kCannotTurn);
  if (!moves_) {
    const std::size_t nodes = 64 + 16 * static_cast<std::size_t>(model_->config().layers);
    OLLAMA_ASSIGN(moves_, backend_->new_context(ml::Phase::kDecode, nodes, 1));
  }
  const auto turn = [this](ml::Context& ctx, int layer, ml::Tensor keys, ml::Tensor by) {
    return model_->attention(layer)->turn_keys(ctx, keys, by);
  };
  return cache_->move(sequence, begin, delta, turn, *moves_);
}

Result<std::span<float>> Executor::run(const StepBatch& batch) {
  ++steps_;
  OLLAMA_ASSIGN(Graph* const graph, graph_for(batch));
  if (cache_) {
    OLLAMA_TRY(cache_->begin({.positions = batch.positions, .sequences = batch.sequences}));
  }
  // A graph without outputs would end in empty tensors: one row is cheap.
  const std::int32_t last = static_cast<std::int32_t>(batch.size()) - 1;
  const std::span<const std::int32_t> outputs =
      batch.outputs.empty() ? std::span(&last, 1) : std::span<const std::int32_t>(batch.outputs);
  Result<std::span<float>> results = evaluate(*graph, batch, outputs);
  if (!results) {
    if (cache_) cache_->rollback();
    return results;
  }
  return results->first(width(batch.states) * batch.outputs.size());
}

}  // namespace ollama::engine
