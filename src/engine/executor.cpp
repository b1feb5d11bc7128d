#include "engine/executor.h"

#include <algorithm>

#include "base/log.h"
#include "engine/placing.h"

namespace ollama::engine {
namespace {

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
  segments.clear();
  outputs.clear();
  states = false;
}

void StepBatch::add(Token token, kvcache::Position position, kvcache::Sequence sequence,
                    bool output, std::int32_t segment) {
  if (output) outputs.push_back(static_cast<std::int32_t>(tokens.size()));
  tokens.push_back(token);
  positions.push_back(position);
  sequences.push_back(sequence);
  segments.push_back(segment);
}

Executor::~Executor() = default;

Executor::Executor(std::shared_ptr<const gguf::File> file, const LoadOptions& options)
    : file_(std::move(file)), attention_(options.validation) {}

Result<std::unique_ptr<Executor>> Executor::load(const std::filesystem::path& path,
                                                 const LoadOptions& options,
                                                 const Progress& progress) {
  OLLAMA_ASSIGN(gguf::File opened, gguf::File::open(path));
  const auto file = std::make_shared<const gguf::File>(std::move(opened));
  OLLAMA_ASSIGN(auto tokenizer, tokenizer::load(*file));
  OLLAMA_ASSIGN(Placing placing, Placing::begin(file, options));
  while (true) {
    const auto begin = std::chrono::steady_clock::now();
    OLLAMA_ASSIGN(const memory::Plan plan, placing.plan());
    log::debug("planned in {} ms: {} of {} layers on GPUs",
               std::chrono::duration_cast<std::chrono::milliseconds>(
                   std::chrono::steady_clock::now() - begin)
                   .count(),
               plan.placed, plan.units);
    placing.warn_if_crowded(plan);
    std::unique_ptr<Executor> executor(new Executor(file, options));
    Result<> done = executor->assemble(options, plan, ml::Purpose::kUse, progress);
    // On GPUs all that steps will need is taken now: later it might be gone.
    if (done && plan.placed > 0) done = executor->reserve_graphs();
    if (done) {
      executor->tokenizer_ = std::move(tokenizer);
      executor->fill_info(plan);
      return executor;
    }
    if (done.error().code() != ErrorCode::kOutOfMemory || plan.placed == 0) return fail(done);
    log::warn("{}: planning again with less", done.error().message());
    placing.refused(plan, executor->backend_ ? executor->backend_->shortage() : std::nullopt);
  }
}

Result<std::vector<std::uint64_t>> Executor::measure(std::shared_ptr<const gguf::File> file,
                                                     const LoadOptions& options,
                                                     const memory::Plan& plan,
                                                     std::optional<std::size_t>& unfit) {
  Executor executor(std::move(file), options);
  const auto assembled = executor.assemble(options, plan, ml::Purpose::kMeasure, {});
  if (!assembled) {
    const auto shortage = executor.backend_ ? executor.backend_->shortage() : std::nullopt;
    if (shortage) unfit = shortage->device;
    return fail(assembled);
  }
  return executor.measure_graphs();
}

Result<> Executor::assemble(const LoadOptions& options, const memory::Plan& plan,
                            ml::Purpose purpose, const Progress& progress) {
  OLLAMA_ASSIGN(backend_,
                ml::new_backend(options.backend, {.threads = options.threads,
                                                  .flash_attention = options.flash_attention,
                                                  .kernels = options.kernels,
                                                  .use_mmap = options.use_mmap,
                                                  .gpus = plan.gpus()}));
  OLLAMA_ASSIGN(weights_, backend_->load_weights(*file_, plan.placement, purpose, progress));
  OLLAMA_ASSIGN(model_, model::new_model(*file_, *weights_));
  const model::Config& config = model_->config();
  const Sizes sizes = sizes_of(config, options);
  max_batch_ = sizes.batch;
  decode_tokens_ = options.parallel;
  info_.context = sizes.context;
  if (config.causal) {
    kvcache::CacheOptions cache = cache_options(sizes, options);
    cache.config = backend_->cache_config();
    OLLAMA_ASSIGN(cache_, kvcache::new_cache(*backend_, model_->cache_layers(), cache,
                                             plan.placement, purpose));
  }
  return {};
}

void Executor::fill_info(const memory::Plan& plan) {
  const model::Config& config = model_->config();
  info_ = {.architecture = config.architecture,
           .context = info_.context,
           .train_context = static_cast<std::uint32_t>(config.context_length),
           .embedding_length = static_cast<std::uint32_t>(config.embedding_length),
           .layers = static_cast<std::uint32_t>(config.layers),
           .vocab_size = static_cast<std::size_t>(config.vocab_size),
           .is_embedding = !config.causal,
           .ranks = config.pooling == model::Pooling::kRank,
           .weight_bytes = weights_->bytes(),
           .cache_bytes = cache_ ? cache_->bytes() : 0,
           .graph_bytes = 0,
           .device_bytes = 0,
           .gpu_layers = plan.placed,
           .devices = {},
           .chat_template = std::string(file_->string("tokenizer.chat_template").value_or(""))};
  const std::vector<std::uint64_t> weights = weights_->device_bytes();
  const std::vector<std::uint64_t> cache =
      cache_ ? cache_->device_bytes() : std::vector<std::uint64_t>(weights.size());
  for (std::size_t i = 0; i < plan.shares.size(); ++i) {
    const memory::Share& share = plan.shares[i];
    const std::uint64_t bytes = weights[i] + cache[i] + share.graph;
    info_.devices.push_back({.name = share.device.name,
                             .bytes = bytes,
                             .gpu = share.device.is_gpu(),
                             .remote = share.device.is_remote() ? share.device.id : std::string()});
    info_.graph_bytes += share.graph;
    if (share.device.is_gpu()) info_.device_bytes += bytes;
  }
}

template <typename Visit>
Result<> Executor::for_each_largest(const Visit& visit) {
  // Without a cache a text is one step.
  const std::uint32_t prompt = cache_ ? max_batch_ : std::max(max_batch_, info_.context);
  for (const auto& [phase, tokens] :
       {std::pair(ml::Phase::kPrefill, prompt), std::pair(ml::Phase::kDecode, decode_tokens_)}) {
    // Texts without a cache are prompts.
    if (!cache_ && phase == ml::Phase::kDecode) continue;
    OLLAMA_ASSIGN(Graph* const graph, graph_of(phase));
    if (cache_) cache_->begin_largest(tokens);
    // No more rows than sequences, whose last tokens they are.
    const std::uint32_t outputs = std::min(tokens, decode_tokens_);
    OLLAMA_TRY(visit(*graph, tokens, outputs));
    graph->tokens = 0;
  }
  return {};
}

Result<std::vector<std::uint64_t>> Executor::measure_graphs() {
  std::vector<std::uint64_t> total(backend_->devices().size());
  OLLAMA_TRY(
      for_each_largest([&](Graph& graph, std::uint32_t tokens, std::uint32_t outputs) -> Result<> {
        graph.context->reset();
        OLLAMA_TRY(describe(graph, tokens, outputs, false));
        OLLAMA_ASSIGN(const std::vector<std::uint64_t> sizes, graph.context->measure());
        std::ranges::transform(total, sizes, total.begin(), std::plus<>());
        return {};
      }));
  return total;
}

Result<> Executor::reserve_graphs() {
  return for_each_largest([&](Graph& graph, std::uint32_t tokens, std::uint32_t outputs) {
    return build(graph, tokens, outputs, false);
  });
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
  graph.context->reset();
  OLLAMA_TRY(describe(graph, tokens, outputs, states));
  OLLAMA_TRY(graph.context->prepare());
  graph.tokens = tokens;
  graph.outputs = outputs;
  graph.states = states;
  graph.cache_key = cache_key();
  return {};
}

Result<> Executor::describe(Graph& graph, std::uint64_t tokens, std::uint64_t outputs,
                            bool states) {
  ml::Context& ctx = *graph.context;
  const auto n = static_cast<std::int64_t>(tokens);
  graph.token_input = ctx.input(ml::DType::kI32, {n, 1, 1, 1}, "tokens");
  graph.position_input = ctx.input(ml::DType::kI32, {n, 1, 1, 1}, "positions");
  graph.output_input =
      ctx.input(ml::DType::kI32, {static_cast<std::int64_t>(outputs), 1, 1, 1}, "output_rows");
  graph.cache_inputs.clear();
  graph.mask_input = {};
  graph.segment_input = {};
  if (model_->reads_segments()) {
    graph.segment_input = ctx.input(ml::DType::kI32, {n, 1, 1, 1}, "segments");
  }
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
                   .mask = graph.mask_input,
                   .segments = graph.segment_input};
  OLLAMA_ASSIGN(const ml::Tensor results,
                states ? model_->hidden_states(step) : model_->forward(step));
  graph.results = ctx.output(results, states ? "states" : "logits");
  return {};
}

// Steps of one kind share a graph, which alternating kinds leave alone.
Result<Executor::Graph*> Executor::graph_of(ml::Phase phase) {
  Graph& graph = phase == ml::Phase::kDecode ? decode_ : prefill_;
  if (!graph.context) {
    const std::uint32_t most = phase == ml::Phase::kDecode ? decode_tokens_ : max_batch_;
    OLLAMA_ASSIGN(graph.context, backend_->new_context(phase, model_->max_nodes(), most));
    if (observer_) graph.context->observe(observer_);
  }
  return &graph;
}

Result<std::span<float>> Executor::evaluate(Graph& graph, const StepBatch& batch,
                                            std::span<const std::int32_t> outputs) {
  if (graph.tokens != batch.size() || graph.outputs != outputs.size() ||
      graph.states != batch.states || graph.cache_key != cache_key()) {
    last_ = nullptr;
    OLLAMA_TRY(build(graph, batch.size(), outputs.size(), batch.states));
  }
  uploads_.clear();
  uploads_.push_back({graph.token_input, std::as_bytes(std::span(batch.tokens))});
  uploads_.push_back({graph.position_input, std::as_bytes(std::span(batch.positions))});
  uploads_.push_back({graph.output_input, std::as_bytes(outputs)});
  if (graph.segment_input) {
    uploads_.push_back({graph.segment_input, std::as_bytes(std::span(batch.segments))});
  }
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

std::vector<std::uint64_t> Executor::graph_bytes() const {
  std::vector<std::uint64_t> total(backend_->devices().size());
  for (const Graph* graph : {&prefill_, &decode_}) {
    if (!graph->context) continue;
    std::ranges::transform(total, graph->context->allocated(), total.begin(), std::plus<>());
  }
  return total;
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
  // Texts without a cache are prompts.
  const bool decodes = cache_ && batch.size() <= decode_tokens_ && !batch.states;
  OLLAMA_ASSIGN(Graph* const graph, graph_of(decodes ? ml::Phase::kDecode : ml::Phase::kPrefill));
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
