#include "engine/engine.h"

#include <algorithm>
#include <condition_variable>
#include <list>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "engine/executor.h"
#include "engine/pooling.h"
#include "engine/prefixes.h"
#include "engine/stop_matcher.h"
#include "grammar/constraint.h"

namespace ollama::engine {
namespace {

using Clock = std::chrono::steady_clock;

// After this long without work, memory that is kept for more goes back to the system.
constexpr std::chrono::seconds kIdle{5};

constexpr ErrorConstant kStopped{ErrorCode::kCancelled, "the engine is shutting down"};
constexpr ErrorConstant kPromptTooLong{ErrorCode::kInvalidArgument,
                                       "the input length exceeds the context length"};
constexpr ErrorConstant kNoToken{
    ErrorCode::kUnsupported,
    "the model's vocabulary has no token that the format allows here, or the grammar is too "
    "ambiguous to find one"};
constexpr ErrorConstant kNoRoom{ErrorCode::kOutOfMemory,
                                "the KV cache has no room left for this request"};

std::int64_t nanoseconds(Clock::duration duration) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(duration).count();
}

// The grammars of the last requests at work on the model's vocabulary. The engine thread's.
class Automata {
 public:
  std::shared_ptr<grammar::Automaton> get(
      const grammar::GrammarPtr& wanted,
      const std::shared_ptr<const grammar::Vocabulary>& vocabulary) {
    const auto found = std::ranges::find(
        recent_, wanted.get(), [](const auto& automaton) { return &automaton->grammar(); });
    if (found != recent_.end()) {
      recent_.splice(recent_.begin(), recent_, found);
    } else {
      recent_.push_front(std::make_shared<grammar::Automaton>(wanted, vocabulary));
      if (recent_.size() > kKept) recent_.pop_back();
    }
    return recent_.front();
  }

 private:
  static constexpr std::size_t kKept = 8;
  std::list<std::shared_ptr<grammar::Automaton>> recent_;
};

// A text whose embedding is wanted, or a pair whose score is: then that is pooled.
struct Text {
  std::vector<Token> tokens;
  std::size_t second;  // where a pair's second text begins
  Engine::EmbedCallback done;
  Engine::Cancelled cancelled;
  Pooler pooler;
  std::optional<kvcache::Sequence> sequence;  // with a cache, once it is begun
  std::size_t evaluated = 0;
  std::size_t in_step = 0;  // tokens in the step being evaluated
};

// A request in the engine's hands.
struct Active {
  Active(Request r, std::unique_ptr<Listener> l)
      : request(std::move(r)), listener(std::move(l)), stops(std::move(request.stop)) {}

  // Prompt and answer so far; what is not yet in the sequence's cached tokens waits to be
  // evaluated.
  std::vector<Token>& text() { return request.prompt; }

  RequestId id = 0;
  Request request;
  std::unique_ptr<Listener> listener;
  std::optional<sample::Sampler> sampler;  // from its admission on
  std::optional<grammar::Constraint> constraint;
  std::optional<grammar::Preamble> preamble;  // while the constraint does not bind
  std::vector<Token> to_say;                  // before the model is asked again
  StopMatcher stops;
  tokenizer::StreamDecoder decoder;
  kvcache::Sequence sequence = 0;
  bool admitted = false;
  bool generating = false;              // the first token has been sampled
  bool text_ended = false;              // a stop string was found: no text may follow
  std::uint32_t keep = 0;               // tokens that a context shift leaves at the front
  std::uint64_t budget = 0;             // tokens that may still be generated
  std::size_t in_step = 0;              // tokens in the step being evaluated
  std::ptrdiff_t logits = -1;           // index of its row in the step's logits
  std::vector<Token> unreported;        // generated since the listener last heard
  std::string piece;                    // scratch
  std::vector<TokenLogprobs> logprobs;  // where asked for: of tokens whose text has not been shown
  std::uint64_t decoded = 0;            // bytes of text so far
  std::uint64_t shown = 0;              // of these, told to the listener
  Stats stats;
  Clock::time_point started;
  Clock::time_point first_token;
};

class EngineImpl final : public Engine {
 public:
  explicit EngineImpl(std::unique_ptr<Executor> executor, std::uint32_t parallel)
      : executor_(std::move(executor)),
        prefixes_(executor_->cache()),
        parallel_(parallel),
        thread_([this](const std::stop_token& stop) { run(stop); }) {}

  ~EngineImpl() override {
    thread_.request_stop();
    wake_.notify_all();
    thread_.join();
  }

  const ModelInfo& info() const override { return executor_->info(); }
  const tokenizer::Tokenizer& tokenizer() const override { return executor_->tokenizer(); }

  Result<RequestId> submit(Request request, std::unique_ptr<Listener> listener) override {
    if (info().is_embedding) {
      return fail(ErrorCode::kUnsupported, "the model {}",
                  info().ranks ? "ranks texts and gives none" : "gives embeddings, no text");
    }
    OLLAMA_TRY(sample::validate(request.sampling, info().vocab_size));
    OLLAMA_TRY(StopMatcher::validate(request.stop));
    OLLAMA_TRY(fit(request));
    if (request.grammar) {
      // A tenth of a second for a large vocabulary, which steps shall not wait for.
      std::call_once(vocabulary_once_,
                     [this] { vocabulary_ = grammar::Vocabulary::make(executor_->tokenizer()); });
    }
    // Made before the lock, which the engine's thread takes in every step.
    ActiveList made;
    made.push_back(std::make_unique<Active>(std::move(request), std::move(listener)));
    const std::scoped_lock lock(mutex_);
    const RequestId id = ++last_id_;
    made.front()->id = id;
    inbox_.splice(inbox_.end(), made);
    wake_.notify_all();
    return id;
  }

  void cancel(RequestId id) override {
    const std::scoped_lock lock(mutex_);
    cancelled_.push_back(id);
    wake_.notify_all();
  }

  Result<> embed(std::vector<Token> tokens, EmbedCallback done, Cancelled cancelled) override {
    if (info().ranks) {
      return fail(ErrorCode::kUnsupported, "the model ranks texts: it has no embeddings to give");
    }
    const std::size_t size = tokens.size();
    return queue(std::move(tokens), size, std::move(done), std::move(cancelled));
  }

  Result<> rank(tokenizer::Pair pair, RankCallback done, Cancelled cancelled) override {
    if (!info().ranks) {
      return fail(ErrorCode::kUnsupported, "the model has no classifier to rank texts with");
    }
    return queue(
        std::move(pair.tokens), pair.second,
        [done = std::move(done)](Result<std::vector<float>> labels) {
          done(labels ? Result<float>(labels->front()) : std::unexpected(labels.error()));
        },
        std::move(cancelled));
  }

 private:
  using ActiveList = std::list<std::unique_ptr<Active>>;

  Result<> queue(std::vector<Token> tokens, std::size_t second, EmbedCallback done,
                 Cancelled cancelled) {
    if (tokens.empty()) return fail(ErrorCode::kInvalidArgument, "the text has no tokens");
    if (tokens.size() > info().context) return fail(kPromptTooLong);
    OLLAMA_TRY(executor_->check(tokens));
    std::list<Text> made;
    made.push_back({.tokens = std::move(tokens),
                    .second = second,
                    .done = std::move(done),
                    .cancelled = std::move(cancelled),
                    .pooler = Pooler(executor_->pooling(), executor_->width(!info().ranks)),
                    .sequence = {}});
    const std::scoped_lock lock(mutex_);
    text_inbox_.splice(text_inbox_.end(), made);
    wake_.notify_all();
    return {};
  }

  // Checks the prompt and cuts it to the context. The caller's thread.
  Result<> fit(Request& request) const {
    std::vector<Token>& prompt = request.prompt;
    if (prompt.empty()) return fail(ErrorCode::kInvalidArgument, "the prompt has no tokens");
    OLLAMA_TRY(executor_->check(prompt));
    const std::size_t context = info().context;
    if (prompt.size() > context) {
      if (!request.truncate) return fail(kPromptTooLong);
      const std::size_t keep = kept_tokens(request);
      log::warn("truncating a prompt of {} tokens to the context of {}, keeping the first {}",
                prompt.size(), context, keep);
      prompt.erase(prompt.begin() + static_cast<std::ptrdiff_t>(keep),
                   prompt.end() - static_cast<std::ptrdiff_t>(context - keep));
    }
    return {};
  }

  // At least half of the context stays for what moves.
  std::size_t kept_tokens(const Request& request) const {
    const std::size_t wanted =
        request.num_keep < 0 ? request.prompt.size() : static_cast<std::size_t>(request.num_keep);
    return std::min({wanted, request.prompt.size(), std::size_t{info().context} / 2});
  }

  void run(const std::stop_token& stop) {
    while (receive(stop)) {
      admit();
      if (!texts_.empty()) embed_step();
      if (active_.empty()) continue;
      gather();
      step();
    }
    for (ActiveList* list : {&active_, &waiting_}) {
      for (const auto& active : *list) active->listener->failed(Error(kStopped));
      list->clear();
    }
    const std::scoped_lock lock(mutex_);
    for (const auto& active : inbox_) active->listener->failed(Error(kStopped));
    inbox_.clear();
    texts_.splice(texts_.end(), text_inbox_);
    for (const Text& text : texts_) text.done(std::unexpected(Error(kStopped)));
    texts_.clear();
  }

  // Takes what other threads left; sleeps while there is nothing to do. False: time to stop.
  bool receive(const std::stop_token& stop) {
    {
      std::unique_lock lock(mutex_);
      const auto has_news = [&] {
        return !inbox_.empty() || !cancelled_.empty() || !text_inbox_.empty();
      };
      if (active_.empty() && waiting_.empty() && texts_.empty() &&
          !wake_.wait_for(lock, stop, kIdle, has_news) && !stop.stop_requested()) {
        executor_->trim();
        wake_.wait(lock, stop, has_news);
      }
      if (stop.stop_requested()) return false;
      waiting_.splice(waiting_.end(), inbox_);
      texts_.splice(texts_.end(), text_inbox_);
      std::swap(cancelled_, cancelled_now_);
    }
    for (const RequestId id : cancelled_now_) {
      for (ActiveList* list : {&active_, &waiting_}) {
        const auto found = std::ranges::find(*list, id, [](const auto& a) { return a->id; });
        if (found != list->end()) finish(*list, found, DoneReason::kCancelled);
      }
    }
    cancelled_now_.clear();
    return true;
  }

  // Longer than a step: takes a sequence's share of the cells while it is evaluated.
  bool is_long(const Text& text) const {
    return executor_->cache() != nullptr && text.tokens.size() > executor_->max_batch();
  }
  // A long text that waits is next.
  std::size_t slots_taken() const {
    const bool long_text = !texts_.empty() && is_long(texts_.front());
    return active_.size() + (long_text ? 1 : 0);
  }

  // Gives waiting requests a sequence while there is one for them.
  void admit() {
    while (slots_taken() < parallel_ && !waiting_.empty()) {
      Active& a = *waiting_.front();
      a.started = Clock::now();
      a.stats.prompt_tokens = static_cast<std::uint32_t>(a.text().size());
      a.keep = static_cast<std::uint32_t>(kept_tokens(a.request));
      a.budget = budget(a.request);
      if (a.request.num_predict == 0) {
        a.listener->begun(a.stats, a.text());
        finish(waiting_, waiting_.begin(), DoneReason::kLength);
        continue;
      }
      const Prefixes::Claim claim = prefixes_.claim(a.text(), a.request.reuse_prefix);
      a.sequence = claim.sequence;
      a.admitted = true;
      a.stats.cached_tokens = claim.cached;
      // No growing while it generates.
      const std::size_t most =
          std::min<std::uint64_t>(a.text().size() + a.budget, info().context) + 1;
      a.text().reserve(most);
      a.unreported.reserve(64);
      a.piece.reserve(256);
      prefixes_.tokens(a.sequence).reserve(most);
      a.sampler.emplace(
          sample::within(a.request.sampling, info().context), info().vocab_size,
          [&tokenizer = executor_->tokenizer()](Token token) { return tokenizer.piece(token); });
      for (const Token token : a.text()) a.sampler->accept(token);
      if (a.request.grammar) {
        a.constraint.emplace(automata_.get(a.request.grammar, vocabulary_));
        if (a.request.preamble) a.preamble.emplace(std::move(*a.request.preamble));
      }
      a.listener->begun(a.stats, a.text());
      active_.splice(active_.end(), waiting_, waiting_.begin());
    }
  }

  std::uint64_t budget(const Request& request) const {
    const std::uint64_t context = info().context;
    if (request.num_predict >= 0) return static_cast<std::uint64_t>(request.num_predict);
    if (request.num_predict == -2) {
      return context > request.prompt.size() ? context - request.prompt.size() : 1;
    }
    return 10 * context;  // a guard against endless answers
  }

  // Evaluates the texts that fit into one step, in their order; of a long one a part.
  void embed_step() {
    drop_cancelled_texts();
    if (texts_.empty()) return;
    Text& first = texts_.front();
    if (is_long(first) && !first.sequence && active_.size() >= parallel_) return;
    gather_texts();
    if (batch_.size() == 0) return;
    Result<std::span<float>> states = run_step();
    if (!states && states.error().code() == ErrorCode::kOutOfMemory && !active_.empty()) {
      release_texts();  // again when those have made room
      return;
    }
    const std::size_t width = executor_->width(batch_.states);
    std::size_t row = 0;
    while (!texts_.empty() && texts_.front().in_step > 0) {
      Text& text = texts_.front();
      if (states) {
        for (std::size_t i = 0; i < text.in_step; ++i) {
          if (!text.pooler.wants(text.evaluated + i, text.tokens.size())) continue;
          text.pooler.add(states->subspan(row++ * width, width));
        }
        text.evaluated += std::exchange(text.in_step, 0);
        if (text.evaluated < text.tokens.size()) return;
      }
      if (text.sequence) prefixes_.release(*text.sequence, false);
      text.done(states ? Result<std::vector<float>>(text.pooler.result())
                       : std::unexpected(states.error()));
      texts_.pop_front();
    }
  }

  // Those that come next and nobody waits for; others have their turn later.
  void drop_cancelled_texts() {
    while (!texts_.empty()) {
      Text& text = texts_.front();
      if (!text.cancelled || !text.cancelled->load()) return;
      if (text.sequence) prefixes_.release(*text.sequence, false);
      text.done(fail(ErrorCode::kCancelled, "nobody waits for the text"));
      texts_.pop_front();
    }
  }

  void gather_texts() {
    batch_.clear();
    batch_.states = !info().ranks;
    // A claim always finds a name: active requests hold the others.
    const std::size_t names = kvcache::kMaxSequences - active_.size();
    std::size_t count = 0;
    kvcache::Sequence next = 0;
    for (Text& text : texts_) {
      const std::size_t most = executor_->max_batch();
      const std::size_t room = most - std::min(batch_.size(), most);
      const std::size_t left = text.tokens.size() - text.evaluated;
      const bool whole = left <= room;
      if (count++ == names || (!whole && batch_.size() > 0)) break;
      text.in_step = executor_->cache() == nullptr ? left : std::min(left, room);
      if (executor_->cache() != nullptr && !text.sequence) {
        text.sequence = prefixes_.claim(text.tokens, /*reuse=*/false).sequence;
      }
      const kvcache::Sequence sequence = text.sequence.value_or(next++);
      for (std::size_t i = text.evaluated; i < text.evaluated + text.in_step; ++i) {
        batch_.add(text.tokens[i], static_cast<kvcache::Position>(i), sequence,
                   text.pooler.wants(i, text.tokens.size()), i < text.second ? 0 : 1);
      }
    }
  }

  // Names and cells of texts that wait again.
  void release_texts() {
    for (Text& text : texts_) {
      text.in_step = 0;
      if (!text.sequence || text.evaluated > 0) continue;
      prefixes_.release(*text.sequence, false);
      text.sequence.reset();
    }
  }

  // Runs the batch, with fewer idle prefixes where cells are short.
  Result<std::span<float>> run_step() {
    Result<std::span<float>> results = executor_->run(batch_);
    while (!results && results.error().code() == ErrorCode::kOutOfMemory &&
           prefixes_.drop_oldest()) {
      results = executor_->run(batch_);
    }
    return results;
  }

  // Fills the step's batch: first a token of every sequence that generates, then prompts, taking
  // turns.
  void gather() {
    batch_.clear();
    std::size_t room = executor_->max_batch();
    for (const bool generating : {true, false}) {
      for (const auto& entry : active_) {
        Active& a = *entry;
        const std::vector<Token>& cached = prefixes_.tokens(a.sequence);
        const std::size_t pending = a.text().size() - cached.size();
        if ((a.generating && pending == 1) != generating) continue;
        a.in_step = std::min(pending, room);
        a.logits = -1;
        room -= a.in_step;
        for (std::size_t i = 0; i < a.in_step; ++i) {
          const std::size_t position = cached.size() + i;
          const bool wanted = position + 1 == a.text().size();
          if (wanted) a.logits = static_cast<std::ptrdiff_t>(batch_.outputs.size());
          batch_.add(a.text()[position], static_cast<kvcache::Position>(position), a.sequence,
                     wanted);
        }
      }
    }
    // Whoever got the prompts' share last goes to the end of the line.
    const auto turn = std::ranges::find_if(
        active_, [](const auto& a) { return a->in_step > 0 && !a->generating; });
    if (turn != active_.end() && active_.size() > 1) active_.splice(active_.end(), active_, turn);
  }

  void step() {
    const Result<std::span<float>> logits = run_step();
    if (!logits) {
      const Error error =
          logits.error().message() == kvcache::kCacheFull.message ? Error(kNoRoom) : logits.error();
      log::error("a step failed: {}", error.message());
      for (const auto& a : active_) {
        prefixes_.release(a->sequence, false);
        a->listener->failed(error);
      }
      active_.clear();
      return;
    }
    const std::size_t vocab = info().vocab_size;
    for (auto it = active_.begin(); it != active_.end();) {
      Active& a = **it;
      const auto current = it++;
      std::vector<Token>& cached = prefixes_.tokens(a.sequence);
      const auto begin = a.text().begin() + static_cast<std::ptrdiff_t>(cached.size());
      cached.insert(cached.end(), begin, begin + static_cast<std::ptrdiff_t>(a.in_step));
      if (a.logits < 0 || a.in_step == 0) continue;
      advance(current, logits->subspan(static_cast<std::size_t>(a.logits) * vocab, vocab));
    }
  }

  // A model that begins a new text has ended this one.
  bool is_end(Token token) const {
    const tokenizer::Tokenizer& tok = executor_->tokenizer();
    return tok.is_end(token) || token == tok.special().bos;
  }

  // Who chose a token: the model, a grammar with it, or neither.
  enum class Choice : std::uint8_t { kFree, kBound, kSaid };

  std::pair<Token, Choice> choose(Active& a, std::span<float> logits) {
    if (!a.constraint) return {a.sampler->sample(logits), Choice::kFree};
    if (!a.preamble) return {a.sampler->sample(logits, *a.constraint), Choice::kBound};
    const tokenizer::Tokenizer& tok = executor_->tokenizer();
    Choice choice = Choice::kSaid;
    if (a.to_say.empty()) {
      const Token token = a.sampler->sample(logits);
      const auto verdict = a.preamble->judge(tok.piece(token, true), is_end(token));
      if (verdict == grammar::Preamble::Verdict::kTake) {
        if (is_end(token)) return {token, Choice::kFree};
        choice = Choice::kFree;
        a.to_say.push_back(token);
      } else if (verdict == grammar::Preamble::Verdict::kSay) {
        a.to_say = tok.encode(a.preamble->to_say(), {.add_special = false, .parse_special = true});
      }
      // Nothing: the grammar binds, or the vocabulary has no words for what must be said.
      if (a.to_say.empty()) {
        a.preamble.reset();
        return {a.sampler->sample_again(logits, *a.constraint), Choice::kBound};
      }
    }
    const Token token = a.to_say.front();
    a.to_say.erase(a.to_say.begin());
    a.preamble->take(tok.piece(token, true));
    if (a.preamble->over()) {
      a.preamble.reset();
      a.to_say.clear();
    }
    return {token, choice};
  }

  // Chooses the next token of a sequence and says what becomes of it.
  void advance(ActiveList::iterator it, std::span<float> logits) {
    Active& a = **it;
    const tokenizer::Tokenizer& tok = executor_->tokenizer();
    if (!a.generating) {
      a.generating = true;
      a.first_token = Clock::now();
      a.stats.prompt_ns = nanoseconds(a.first_token - a.started);
    }
    const auto [token, choice] = choose(a, logits);
    if (token == tokenizer::kNoToken) {
      // A vocabulary without an end token, or one that cannot say it.
      if (a.constraint->can_stop()) {
        finish(active_, it, DoneReason::kStop);
      } else {
        abandon(it, Error(kNoToken));
      }
      return;
    }
    a.sampler->accept(token);
    ++a.stats.generated_tokens;
    const bool obeys_end = !a.request.ignore_end || a.constraint;
    if (is_end(token) && obeys_end && choice != Choice::kSaid) {
      finish(active_, it, DoneReason::kStop);
      return;
    }
    if (choice == Choice::kBound) a.constraint->accept(token);
    a.text().push_back(token);
    a.unreported.push_back(token);
    if (choice != Choice::kSaid) note_logprobs(a);
    a.piece.clear();
    a.decoder.push(tok.piece(token, a.request.control_text), a.piece);
    a.decoded += a.piece.size();
    bool stopped = false;
    const std::string_view shown = a.stops.push(a.piece, stopped);
    if (!shown.empty()) report(a, shown);
    if (stopped) {
      a.text_ended = true;
      finish(active_, it, DoneReason::kStop);
      return;
    }
    if (--a.budget == 0) {
      finish(active_, it, DoneReason::kLength);
      return;
    }
    if (a.text().size() > info().context) {
      if (!a.request.shift) {
        finish(active_, it, DoneReason::kLength);
        return;
      }
      shift(a);
    }
  }

  // Drops the older half of what is not kept. The rest moves to its new positions in the cache, or
  // is evaluated again where that cannot be.
  void shift(Active& a) {
    std::vector<Token>& text = a.text();
    const std::size_t dropped = std::max<std::size_t>(1, (text.size() - a.keep) / 2);
    const auto from = text.begin() + static_cast<std::ptrdiff_t>(a.keep);
    text.erase(from, from + static_cast<std::ptrdiff_t>(dropped));
    if (move(a, dropped)) {
      log::debug("context shift: kept {}, dropped {} tokens", a.keep, dropped);
      return;
    }
    std::vector<Token>& cached = prefixes_.tokens(a.sequence);
    const auto resumed = executor_->cache()->resume_point(
        a.sequence, static_cast<kvcache::Position>(std::min<std::size_t>(a.keep, cached.size())));
    executor_->cache()->remove(a.sequence, resumed, kvcache::kNoEnd);
    cached.resize(static_cast<std::size_t>(resumed));
    log::debug("context shift: kept {}, dropped {} tokens, evaluating the rest again", a.keep,
               dropped);
  }

  // Takes the `dropped` tokens after the kept ones out of the cache and closes the gap. False: not
  // possible, and nothing after the kept ones can be relied upon.
  bool move(Active& a, std::size_t dropped) {
    kvcache::Cache& cache = *executor_->cache();
    std::vector<Token>& cached = prefixes_.tokens(a.sequence);
    const auto begin = static_cast<kvcache::Position>(a.keep);
    const auto gap = static_cast<kvcache::Position>(dropped);
    const auto end = static_cast<kvcache::Position>(cached.size());
    // Windowed layers need all that the next token sees.
    if (begin + gap > end || cache.resume_point(a.sequence, end) != end) return false;
    cache.remove(a.sequence, begin, begin + gap);
    const Result<> moved = executor_->move(a.sequence, begin + gap, -gap);
    if (!moved || cache.resume_point(a.sequence, end - gap) != end - gap) {
      cache.remove(a.sequence, begin, kvcache::kNoEnd);
      return false;
    }
    cached.erase(cached.begin() + begin, cached.begin() + begin + gap);
    return true;
  }

  static void note_logprobs(Active& a) {
    const std::span<const sample::TokenLogprob> entries = a.sampler->logprobs();
    if (entries.empty()) return;
    a.logprobs.push_back({.chosen = entries.front(),
                          .best = {entries.begin() + 1, entries.end()},
                          .begin = a.decoded});
  }

  // How many of the tokens with logprobs begin in the first `bytes` of the answer.
  static std::ptrdiff_t begun(const Active& a, std::uint64_t bytes) {
    return std::ranges::lower_bound(a.logprobs, bytes, {}, &TokenLogprobs::begin) -
           a.logprobs.begin();
  }

  // Of tokens that a stop string cuts off, where `rest` bytes before it are still to be shown.
  static void drop_logprobs(Active& a, std::size_t rest) {
    const std::ptrdiff_t count = begun(a, a.shown + rest);
    a.logprobs.erase(a.logprobs.begin() + count, a.logprobs.end());
  }

  static void report(Active& a, std::string_view text, bool last = false) {
    a.shown += text.size();
    if (!a.logprobs.empty()) report_logprobs(a, last ? std::ssize(a.logprobs) : begun(a, a.shown));
    a.listener->text(text, a.unreported);
    a.unreported.clear();
  }

  static void report_logprobs(Active& a, std::ptrdiff_t count) {
    if (count == 0) return;
    a.listener->logprobs(std::span(a.logprobs).first(static_cast<std::size_t>(count)));
    a.logprobs.erase(a.logprobs.begin(), a.logprobs.begin() + count);
  }

  void abandon(ActiveList::iterator it, const Error& error) {
    prefixes_.release((*it)->sequence, (*it)->request.reuse_prefix);
    const std::unique_ptr<Active> abandoned = std::move(*it);
    active_.erase(it);
    abandoned->listener->failed(error);
  }

  void finish(ActiveList& list, ActiveList::iterator it, DoneReason reason) {
    Active& a = **it;
    if (a.generating) {
      a.stats.generate_ns = nanoseconds(Clock::now() - a.first_token);
      std::string rest;
      if (!a.text_ended) {
        a.piece.clear();
        a.decoder.flush(a.piece);
        rest = a.stops.push(a.piece, a.text_ended);
        if (!a.text_ended) rest += a.stops.flush();
      }
      if (a.text_ended) {
        a.stats.stopped_by = a.stops.found();
        drop_logprobs(a, rest.size());
      }
      if (!rest.empty() || !a.unreported.empty() || !a.logprobs.empty()) report(a, rest, true);
    }
    if (a.admitted) prefixes_.release(a.sequence, a.request.reuse_prefix);
    const std::unique_ptr<Active> done = std::move(*it);
    list.erase(it);
    done->listener->done(reason, done->stats);
  }

  std::unique_ptr<Executor> executor_;  // the engine thread's, but for what never changes
  Prefixes prefixes_;
  const std::uint32_t parallel_;
  std::once_flag vocabulary_once_;
  std::shared_ptr<const grammar::Vocabulary> vocabulary_;  // set before a request is queued
  Automata automata_;
  StepBatch batch_;
  ActiveList active_;      // have a sequence; the engine thread's
  ActiveList waiting_;     // will get one, in this order; the engine thread's
  std::list<Text> texts_;  // the engine thread's
  std::vector<RequestId> cancelled_now_;

  std::mutex mutex_;  // guards what follows
  std::condition_variable_any wake_;
  ActiveList inbox_;
  std::list<Text> text_inbox_;
  std::vector<RequestId> cancelled_;
  RequestId last_id_ = 0;

  std::jthread thread_;  // last: it uses all of the above
};

}  // namespace

Result<std::unique_ptr<Engine>> Engine::load(const std::filesystem::path& path,
                                             const LoadOptions& options, const Progress& progress) {
  OLLAMA_ASSIGN(auto executor, Executor::load(path, options, progress));
  return std::make_unique<EngineImpl>(std::move(executor), options.parallel);
}

}  // namespace ollama::engine
