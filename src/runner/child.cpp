#include "runner/child.h"

#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <deque>
#include <mutex>
#include <ranges>
#include <thread>

#include "base/log.h"
#include "base/unique_fd.h"
#include "chat/images.h"
#include "chat/prompt.h"
#include "chat/turns.h"
#include "grammar/grammar.h"
#include "runner/frame.h"
#include "runner/outbox.h"
#include "runner/protocol.h"
#include "runner/ranking.h"

namespace ollama::runner {

namespace {

// For each token of a context: a conversation with more of them is taken for too long untried.
constexpr std::size_t kTriedBytes = 16;

// Which of the server's requests the engine works on.
class ActiveRequests {
 public:
  void begin(Id id) {
    const std::lock_guard lock(mutex_);
    active_.emplace(id, std::nullopt);
  }
  void submitted(Id id, engine::RequestId engine_id) {
    const std::lock_guard lock(mutex_);
    if (const auto found = active_.find(id); found != active_.end()) found->second = engine_id;
  }
  void end(Id id) {
    const std::lock_guard lock(mutex_);
    active_.erase(id);
  }
  std::optional<engine::RequestId> find(Id id) {
    const std::lock_guard lock(mutex_);
    const auto found = active_.find(id);
    return found == active_.end() ? std::nullopt : found->second;
  }

 private:
  std::mutex mutex_;
  std::unordered_map<Id, std::optional<engine::RequestId>> active_;
};

// The grammars of the last formats, by their text.
class Grammars {
 public:
  // Null where nothing is asked for. Errors: those of grammar::compile_format.
  Result<grammar::GrammarPtr> get(const std::string& format) {
    if (format.empty()) return nullptr;
    if (format.size() > kMaxFormat) {
      return fail(ErrorCode::kInvalidArgument, "invalid format: it is larger than {} KiB",
                  kMaxFormat >> 10);
    }
    const auto found = std::ranges::find(recent_, format, &Entry::first);
    if (found != recent_.end()) {
      std::rotate(recent_.begin(), found, found + 1);
    } else {
      OLLAMA_ASSIGN(const api::Json json, api::parse_json(format));
      OLLAMA_ASSIGN(auto compiled, grammar::compile_format(json));
      if (recent_.size() == kKept) recent_.pop_back();
      recent_.emplace(recent_.begin(), format, std::move(compiled));
    }
    return recent_.front().second;
  }

 private:
  using Entry = std::pair<std::string, grammar::GrammarPtr>;
  static constexpr std::size_t kMaxFormat = 1U << 20;
  static constexpr std::size_t kKept = 16;
  std::vector<Entry> recent_;
};

// Tokens of an answer that is taken apart, until it shows whether they are of its text.
class UndecidedLogprobs {
 public:
  // `begin`: where in the answer the token's text begins.
  void add(api::Logprob logprob, std::size_t begin) {
    waiting_.emplace_back(begin, std::move(logprob));
  }
  // Text was in `ranges`; `undecided` bytes at the end of the `fed` ones may still be anything.
  // Gives the text's tokens to `out`, and forgets those of the rest.
  void decide(std::span<const chat::AnswerRange> ranges, std::size_t fed, std::size_t undecided,
              std::vector<api::Logprob>& out) {
    ranges_.insert(ranges_.end(), ranges.begin(), ranges.end());
    while (!waiting_.empty()) {
      auto& [begin, logprob] = waiting_.front();
      // A token may be no more than a part of a character, whose text comes with a later one.
      const std::size_t end = std::max(waiting_.size() > 1 ? waiting_[1].first : fed, begin + 1);
      if (end > fed - undecided) return;
      while (!ranges_.empty() && ranges_.front().end <= begin) ranges_.pop_front();
      if (!ranges_.empty() && ranges_.front().begin < end) out.push_back(std::move(logprob));
      waiting_.pop_front();
    }
  }

 private:
  std::deque<std::pair<std::size_t, api::Logprob>> waiting_;
  std::deque<chat::AnswerRange> ranges_;
};

class Forwarder final : public engine::Listener {
 public:
  // What of the answer is told beside its text.
  struct Telling {
    bool begun = false;
    bool context = false;
    bool text_logprobs = false;  // with a parser
  };
  Forwarder(Id id, Outbox& outbox, ActiveRequests& active, engine::Engine& engine, Telling telling,
            std::optional<chat::AnswerParser> parser)
      : id_(id),
        outbox_(outbox),
        active_(active),
        engine_(engine),
        telling_(telling),
        parser_(std::move(parser)) {}

  void begun(const engine::Stats& stats, std::span<const Token> prompt) override {
    if (telling_.context) context_.assign(prompt.begin(), prompt.end());
    if (!telling_.begun) return;
    outbox_.send(Begun{
        .id = id_, .prompt_tokens = stats.prompt_tokens, .cached_tokens = stats.cached_tokens});
  }
  void text(std::string_view piece, std::span<const Token> tokens) override {
    if (telling_.context) context_.insert(context_.end(), tokens.begin(), tokens.end());
    const auto count = static_cast<std::uint32_t>(tokens.size());
    unsent_tokens_ += count;
    if (piece.empty()) {
      unsaid_tokens_ += count;
      return;
    }
    if (!parser_) {
      send({.text = std::string(piece), .thinking = {}, .calls = {}, .ranges = {}});
      return;
    }
    fed_ += piece.size();
    const bool thought = parser_->thinking();
    chat::AnswerPiece told = parser_->feed(piece);
    unsaid_tokens_ += count;
    if (thought || parser_->thinking()) {
      thinking_tokens_ += std::exchange(unsaid_tokens_, 0);
    } else if (!told.empty()) {
      unsaid_tokens_ = 0;
    }
    if (telling_.text_logprobs) {
      undecided_.decide(told.ranges, fed_, parser_->undecided(), unsent_logprobs_);
    }
    send(std::move(told));
  }
  void logprobs(std::span<const engine::TokenLogprobs> tokens) override {
    for (const auto& [chosen, best, begin] : tokens) {
      api::Logprob told;
      static_cast<api::TokenLogprob&>(told) = described(chosen);
      told.top.reserve(best.size());
      for (const sample::TokenLogprob& other : best) told.top.push_back(described(other));
      if (telling_.text_logprobs) {
        undecided_.add(std::move(told), begin);
      } else {
        unsent_logprobs_.push_back(std::move(told));
      }
    }
  }
  void done(engine::DoneReason reason, const engine::Stats& stats) override {
    chat::AnswerPiece rest;
    if (parser_) rest = parser_->finish();
    if (telling_.text_logprobs) undecided_.decide(rest.ranges, fed_, 0, unsent_logprobs_);
    if (!rest.empty() || !unsent_logprobs_.empty()) send(std::move(rest), true);
    active_.end(id_);
    if (lagging_) {
      outbox_.send(Failed{.id = id_,
                          .code = ErrorCode::kUnavailable,
                          .message = "the answer was not read and has been cancelled"});
      return;
    }
    outbox_.send(Done{.id = id_,
                      .reason = reason,
                      .stats = stats,
                      .context = std::move(context_),
                      .thinking_tokens = thinking_tokens_});
  }
  void failed(const Error& error) override {
    active_.end(id_);
    outbox_.send(Failed{.id = id_, .code = error.code(), .message = std::string(error.message())});
  }

 private:
  // The token's text, made whole where its bytes are a part of a character.
  api::TokenLogprob described(const sample::TokenLogprob& token) const {
    const std::string_view piece = engine_.tokenizer().piece(token.token, true);
    api::TokenLogprob told{.token = {}, .logprob = static_cast<double>(token.logprob), .bytes = {}};
    tokenizer::StreamDecoder decoder;
    decoder.push(piece, told.token);
    decoder.flush(told.token);
    for (const char byte : piece) told.bytes.push_back(static_cast<unsigned char>(byte));
    return told;
  }

  // Pieces without anything are kept to go with the next one, but for the last.
  void send(chat::AnswerPiece piece, bool last = false) {
    if ((piece.empty() && !last) || lagging_) return;
    if (outbox_.send(Piece{.id = id_,
                           .text = std::move(piece.text),
                           .thinking = std::move(piece.thinking),
                           .calls = std::move(piece.calls),
                           .tokens = unsent_tokens_,
                           .logprobs = std::exchange(unsent_logprobs_, {})},
                     false)) {
      unsent_tokens_ = 0;
      return;
    }
    lagging_ = true;
    if (const auto engine_id = active_.find(id_)) engine_.cancel(*engine_id);
  }

  Id id_;
  Outbox& outbox_;
  ActiveRequests& active_;
  engine::Engine& engine_;
  Telling telling_;
  std::vector<Token> context_;  // the prompt as it was evaluated, and the answer
  std::optional<chat::AnswerParser> parser_;
  std::uint32_t unsent_tokens_ = 0;
  std::uint32_t thinking_tokens_ = 0;
  std::uint32_t unsaid_tokens_ = 0;  // of what may become a thought, or text
  std::vector<api::Logprob> unsent_logprobs_;
  std::size_t fed_ = 0;  // bytes of the answer that the parser has
  UndecidedLogprobs undecided_;
  bool lagging_ = false;
};

class Server {
 public:
  Server(int fd, const EngineLoader& loader) : fd_(fd), loader_(loader), outbox_(fd) {}
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  ~Server() {
    cancel_load_ = true;
    if (load_thread_.joinable()) load_thread_.join();
    engine_.reset();  // before the outbox that its listeners write to
  }

  int run() {
    FrameReader reader;
    while (true) {
      const auto room = reader.prepare();
      const ssize_t received = ::recv(fd_, room.data(), room.size(), 0);
      if (received < 0 && errno == EINTR) continue;
      if (received <= 0) return 0;  // the server is gone, or wants this one gone
      reader.commit(static_cast<std::size_t>(received));
      while (true) {
        auto payload = reader.next();
        if (payload && !*payload) break;
        auto message = payload ? decode_to_runner(**payload) : fail(std::move(payload));
        if (!message) {
          log::error("{}", message.error().message());
          return 1;
        }
        if (std::holds_alternative<Shutdown>(*message)) return 0;
        std::visit([this](auto& value) { handle(value); }, *message);
      }
    }
  }

 private:
  void handle(Shutdown& /*message*/) {}

  // What takes its time, in a thread of its own; one such thing in a runner's life.
  template <typename Work>
  void begin(Work work) {
    if (load_thread_.joinable()) {
      refuse_load(Error(ErrorCode::kAlreadyExists, "this runner has been given work already"));
      return;
    }
    load_thread_ = std::thread(std::move(work));
  }
  void refuse_load(const Error& error) {
    outbox_.send(LoadFailed{.code = error.code(), .message = std::string(error.message())});
  }

  // `Message` has the value alone.
  template <typename Message, typename Value>
  void answer(Result<Value> value) {
    if (value) {
      outbox_.send(Message{std::move(*value)});
    } else {
      refuse_load(value.error());
    }
  }

  void handle(Explain& message) {
    begin([this, load = std::move(message.load)] {
      answer<Explained>(engine::explain_plan(load.path, load.options));
    });
  }

  void handle(ListDevices& message) {
    begin([this, options = std::move(message.options)] {
      answer<Devices>(ml::list_devices(options));
    });
  }

  void handle(Load& message) {
    begin([this, load = std::move(message)] {
      float reported = -1;
      auto engine = loader_(load.path, load.options, [&](float fraction) {
        if (fraction - reported >= 0.01F) {
          reported = fraction;
          outbox_.send(Progress{.fraction = fraction});
        }
        return !cancel_load_.load();
      });
      if (!engine) {
        refuse_load(engine.error());
        return;
      }
      const engine::ModelInfo info = (*engine)->info();
      {
        const std::lock_guard lock(engine_mutex_);
        engine_ = std::move(*engine);
      }
      outbox_.send(Ready{.info = info});
    });
  }

  // Null, after an answer, before the model is there.
  engine::Engine* engine_for(Id id) {
    const std::lock_guard lock(engine_mutex_);
    if (!engine_) refuse(id, Error(ErrorCode::kUnavailable, "no model has been loaded yet"));
    return engine_.get();
  }
  void refuse(Id id, const Error& error) {
    outbox_.send(Failed{.id = id, .code = error.code(), .message = std::string(error.message())});
  }

  void handle(Generate& message) {
    engine::Engine* engine = engine_for(message.id);
    if (engine == nullptr) return;
    auto prompt = prompt_of(*engine, message);
    if (!prompt) {
      refuse(message.id, prompt.error());
      return;
    }
    if (message.render_only) {
      outbox_.send(
          Text{.id = message.id, .text = std::move(prompt->text), .images = prompt->images});
      return;
    }
    auto grammar = grammars_.get(message.format);
    if (!grammar) {
      refuse(message.id, grammar.error());
      return;
    }
    engine::Request request;
    request.prompt = std::move(prompt->tokens);
    request.grammar = std::move(*grammar);
    request.sampling = message.sampling;
    request.num_predict = message.num_predict;
    request.num_keep = message.num_keep;
    request.shift = message.shift;
    request.truncate = message.truncate;
    request.ignore_end = message.ignore_end;
    request.stop = std::move(message.stop);
    std::optional<chat::AnswerParser> parser;
    if (message.take_apart) {
      const chat::AnswerFormat format =
          message.plain_calls ? chat::AnswerFormat()
                              : prompts(*engine).answer_format(message.template_text,
                                                               message.renderer, message.parser);
      parser.emplace(parser_of(message, format, prompt->text));
      if (request.grammar && !message.plain_calls) {
        request.preamble = preamble_of(
            chat::before_text(format, thinks(message, format, prompt->text), prompt->text),
            message.tools.is_array() && !message.tools.get_array().empty());
      }
      request.control_text = format.marks_are_tokens();
    }
    const Forwarder::Telling telling{.begun = message.want_begun,
                                     .context = message.want_context,
                                     .text_logprobs = message.text_logprobs && message.take_apart};
    active_.begin(message.id);
    auto submitted = engine->submit(
        std::move(request), std::make_unique<Forwarder>(message.id, outbox_, active_, *engine,
                                                        telling, std::move(parser)));
    if (submitted) {
      active_.submitted(message.id, *submitted);
    } else {
      active_.end(message.id);
      refuse(message.id, submitted.error());
    }
  }

  // A conversation's prompts and answers are of one model: what is known of it is kept.
  chat::PromptRenderer& prompts(const engine::Engine& engine) {
    if (!prompts_) {
      const tokenizer::Tokenizer& tokenizer = engine.tokenizer();
      const tokenizer::SpecialTokens& special = tokenizer.special();
      const auto text_of = [&](Token token) {
        return token == tokenizer::kNoToken ? std::string()
                                            : std::string(tokenizer.piece(token, true));
      };
      prompts_.emplace(chat::PromptRenderer::Model{.architecture = engine.info().architecture,
                                                   .jinja = engine.info().chat_template,
                                                   .tokens = {.bos = text_of(special.bos),
                                                              .eos = text_of(special.eos),
                                                              .adds_bos = special.add_bos}});
    }
    return *prompts_;
  }

  static chat::AnswerParser parser_of(const Generate& message, const chat::AnswerFormat& format,
                                      std::string_view prompt) {
    chat::AnswerParser::Options options;
    if (const auto* tools = message.tools.if_array()) {
      for (const api::Json& tool : *tools) {
        const auto name = tool.try_at_pointer("/function/name");
        if (name && name->is_string()) options.tools.emplace_back(name->get_string());
      }
    }
    options.definitions = message.tools;
    options.ranges = message.text_logprobs;
    options.thinking = thinks(message, format, prompt);
    options.inside_thinking = chat::opens_thinking(format, prompt);
    return {format, std::move(options)};
  }
  // Some models think whatever is asked of them: their prompts always open it.
  static bool thinks(const Generate& message, const chat::AnswerFormat& format,
                     std::string_view prompt) {
    return (message.think && message.think->enabled) || chat::opens_thinking(format, prompt);
  }

  // `calls`: the answer may be nothing but calls of tools.
  static std::optional<grammar::Preamble::Options> preamble_of(
      std::optional<chat::BeforeText> before, bool calls) {
    if (!before) return std::nullopt;
    return grammar::Preamble::Options{.open = std::move(before->open),
                                      .close = std::move(before->marks),
                                      .ending = std::move(before->ending),
                                      .may_end = calls,
                                      .begun = before->begun};
  }

  struct Prompt {
    std::string text;
    std::vector<Token> tokens;
    std::uint32_t images = 0;

    bool fits(std::size_t context) const {
      return tokens.size() + chat::kImageTokens * images < context;
    }
  };

  Result<Prompt> prompt_of(const engine::Engine& engine, Generate& message) {
    const tokenizer::Tokenizer& tokenizer = engine.tokenizer();
    Prompt prompt;
    if (!message.tokens.empty()) {
      for (const Token token : message.tokens) {
        if (token < 0 || static_cast<std::size_t>(token) >= tokenizer.vocab_size()) {
          return fail(ErrorCode::kInvalidArgument, "token {} is outside the vocabulary of {}",
                      token, tokenizer.vocab_size());
        }
      }
      prompt.tokens = std::move(message.tokens);
      return prompt;
    }
    for (const Token token : message.context) {
      if (token < 0 || static_cast<std::size_t>(token) >= tokenizer.vocab_size()) {
        return fail(ErrorCode::kInvalidArgument,
                    "context: {} is not a token of this model; send back the context of an answer "
                    "of the same model",
                    token);
      }
    }
    if (message.raw) {
      prompt.text = std::move(message.prompt);
      prompt.tokens = encode_prompt(tokenizer, prompt.text, {});
      return prompt;
    }
    const chat::Turns turns(message.messages);
    const bool whole = !message.truncate || turns.count() <= turns.fewest();
    const std::size_t context = engine.info().context;
    // Most conversations fit. One that cannot is not rendered to find out.
    std::size_t bytes = 0;
    for (const api::Message& one : message.messages) bytes += one.content.size();
    if (whole || bytes <= kTriedBytes * context) {
      OLLAMA_ASSIGN(prompt, prompt_with(engine, message, message.messages));
      if (whole || prompt.fits(context)) return prompt;
    }
    // Too long. As many turns as fit are looked for from the newest one on, so that no more is
    // rendered than twice what fits. What a template does not take does not fit.
    OLLAMA_ASSIGN(prompt, prompt_with(engine, message, turns.newest(turns.fewest())));
    std::size_t fits = turns.fewest();
    std::size_t too_many = turns.count();
    while (too_many - fits > 1) {
      const std::size_t tried =
          std::min(std::max<std::size_t>(2 * fits, 1), fits + (too_many - fits) / 2);
      auto longer = prompt_with(engine, message, turns.newest(tried));
      if (longer && longer->fits(context)) {
        prompt = std::move(*longer);
        fits = tried;
      } else {
        too_many = tried;
      }
    }
    return prompt;
  }

  // With these of the message's conversation.
  Result<Prompt> prompt_with(const engine::Engine& engine, const Generate& message,
                             const std::vector<api::Message>& kept) {
    Prompt prompt;
    for (const api::Message& one : kept) {
      prompt.images += static_cast<std::uint32_t>(one.images.size());
    }
    OLLAMA_ASSIGN(prompt.text, prompts(engine).render({.chat = {.messages = kept,
                                                                .tools = &message.tools,
                                                                .think = message.think,
                                                                .prompt = message.prompt,
                                                                .suffix = message.suffix},
                                                       .template_text = message.template_text,
                                                       .renderer = message.renderer}));
    prompt.tokens = encode_prompt(engine.tokenizer(), prompt.text, message.context);
    return prompt;
  }

  static std::vector<Token> encode_prompt(const tokenizer::Tokenizer& tokenizer,
                                          std::string_view text, std::span<const Token> before) {
    std::vector<Token> tokens =
        tokenizer.encode(text, {.add_special = before.empty(), .parse_special = true});
    // A template that begins with BOS in words should not make two of them.
    const Token bos = tokenizer.special().bos;
    if (bos != tokenizer::kNoToken && tokens.size() >= 2 && tokens[0] == bos && tokens[1] == bos) {
      tokens.erase(tokens.begin());
    }
    tokens.insert(tokens.begin(), before.begin(), before.end());
    return tokens;
  }

  void handle(Cancel& message) {
    const auto engine_id = active_.find(message.id);
    const std::lock_guard lock(engine_mutex_);
    if (engine_ && engine_id) engine_->cancel(*engine_id);
    if (const auto found = texts_.find(message.id); found != texts_.end()) {
      if (const auto cancelled = found->second.lock()) *cancelled = true;
    }
  }

  // What a Cancel of texts sets.
  std::shared_ptr<std::atomic<bool>> cancelled_of(Id id) {
    if (texts_.size() >= most_texts_) {
      std::erase_if(texts_, [](const auto& entry) { return entry.second.expired(); });
      most_texts_ = 2 * texts_.size() + kFewTexts;
    }
    auto cancelled = std::make_shared<std::atomic<bool>>(false);
    texts_[id] = cancelled;
    return cancelled;
  }

  void handle(Embed& message) {
    engine::Engine* engine = engine_for(message.id);
    if (engine == nullptr) return;
    std::vector<Token> tokens = std::move(message.tokens);
    if (tokens.empty()) {
      tokens =
          engine->tokenizer().encode(message.text, {.add_special = true, .parse_special = false});
    }
    const std::size_t limit = engine->info().context;
    if (tokens.size() > limit) {
      if (!message.truncate) {
        refuse(message.id,
               Error(ErrorCode::kInvalidArgument, "the input length exceeds the context length"));
        return;
      }
      const Token last = tokens.back();  // a closing token, where the model has one
      tokens.resize(limit);
      if (engine->tokenizer().is_control(last) && limit > 0) tokens.back() = last;
    }
    const auto count = static_cast<std::uint32_t>(tokens.size());
    auto queued = engine->embed(
        std::move(tokens),
        [this, id = message.id, count](Result<std::vector<float>> values) {
          if (!values) {
            refuse(id, values.error());
          } else {
            outbox_.send(Embedded{.id = id, .values = std::move(*values), .tokens = count});
          }
        },
        cancelled_of(message.id));
    if (!queued) refuse(message.id, queued.error());
  }

  void handle(Rank& message) {
    engine::Engine* engine = engine_for(message.id);
    if (engine == nullptr) return;
    auto pairs = tokenizer::encode_pairs(engine->tokenizer(), message.query, message.documents,
                                         engine->info().context);
    if (!pairs) {
      refuse(message.id, pairs.error());
      return;
    }
    std::size_t count = 0;
    for (const tokenizer::Pair& pair : *pairs) count += pair.tokens.size();
    const auto ranking = std::make_shared<Ranking>(
        pairs->size(), [this, id = message.id, count](Result<std::vector<float>> scores) {
          if (!scores) {
            refuse(id, scores.error());
          } else {
            outbox_.send(Embedded{.id = id,
                                  .values = std::move(*scores),
                                  .tokens = static_cast<std::uint32_t>(count)});
          }
        });
    const auto cancelled = cancelled_of(message.id);
    for (std::size_t i = 0; i < pairs->size(); ++i) {
      const auto settle = [ranking, i](Result<float> score) {
        ranking->settle(i, std::move(score));
      };
      const auto queued = engine->rank(std::move((*pairs)[i]), settle, cancelled);
      if (!queued) settle(std::unexpected(queued.error()));
    }
  }

  void handle(Tokenize& message) {
    if (engine::Engine* engine = engine_for(message.id)) {
      outbox_.send(Tokens{.id = message.id,
                          .tokens = engine->tokenizer().encode(
                              message.text, {.add_special = message.add_special,
                                             .parse_special = message.parse_special})});
    }
  }
  void handle(Detokenize& message) {
    if (engine::Engine* engine = engine_for(message.id)) {
      outbox_.send(
          Text{.id = message.id, .text = engine->tokenizer().decode(message.tokens, true)});
    }
  }

  int fd_;
  const EngineLoader& loader_;
  ActiveRequests active_;
  Grammars grammars_;
  Outbox outbox_;
  std::mutex engine_mutex_;  // of the pointer, which is set once
  std::unique_ptr<engine::Engine> engine_;
  static constexpr std::size_t kFewTexts = 64;
  // Texts and pairs that the engine may still have; the reading thread's.
  std::unordered_map<Id, std::weak_ptr<std::atomic<bool>>> texts_;
  std::size_t most_texts_ = kFewTexts;
  std::optional<chat::PromptRenderer> prompts_;  // from the first prompt on
  std::atomic<bool> cancel_load_ = false;
  std::thread load_thread_;
};

}  // namespace

int serve_requests(int fd, const EngineLoader& loader) {
  const UniqueFd owned(fd);
  return Server(fd, loader).run();
}

}  // namespace ollama::runner
