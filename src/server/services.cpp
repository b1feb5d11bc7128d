#include "server/services.h"

#include "base/log.h"
#include "runner/options.h"

namespace ollama::server {

api::Options merged_options(const store::Model& model, const api::Options& requested) {
  return api::merge(model.options, requested);
}

sched::Model to_load(const Services& services, const store::Model& model,
                     const api::Options& options) {
  const envconfig::Config& config = services.config;
  sched::Model result;
  result.key = model.weights.string();
  for (const auto& adapter : model.adapters) result.key += std::format("\n{}", adapter.string());
  result.path = model.weights.string();
  result.name = model.name.display();
  result.digest = model.digest;
  result.details = {.parent_model = model.parent_model,
                    .format = model.config.model_format,
                    .family = model.config.model_family,
                    .families = model.config.model_families,
                    .parameter_size = model.config.model_type,
                    .quantization_level = model.config.file_type};
  result.options = engine::load_options_of(config);
  engine::LoadOptions& load = result.options;
  const auto positive = [](std::optional<std::int32_t> value, std::uint32_t fallback) {
    return value && *value > 0 ? static_cast<std::uint32_t>(*value) : fallback;
  };
  load.context = std::max(positive(options.num_ctx, config.context_length), 4U);
  load.batch = positive(options.num_batch, load.batch);
  runner::apply_options(options, load);
  return result;
}

Task<std::variant<sched::Lease, Error, Gone>> acquire(Services& services, Exchange& exchange,
                                                      sched::Request request) {
  using Outcome = std::variant<sched::Lease, Error, Gone>;
  auto box = std::make_shared<Mailbox<Outcome>>(services.blocking.loop());
  const auto ticket =
      services.scheduler.acquire(std::move(request), [box](Result<sched::Lease> lease) {
        box->push(lease ? Outcome(std::move(*lease)) : Outcome(std::move(lease).error()));
      });
  exchange.on_disconnect([box] { box->push(Gone{}); });
  Outcome outcome = co_await box->pop();
  if (std::holds_alternative<Gone>(outcome)) services.scheduler.abandon(ticket);
  co_return outcome;
}

struct Answer::State final : runner::GenerateListener {
  explicit State(const boost::asio::any_io_executor& loop) : events(loop) {}
  void begun(const runner::Begun& begun) override { events.push(begun); }
  void piece(runner::Piece piece) override { events.push(std::move(piece)); }
  void done(runner::Done done) override {
    ended = true;
    events.push(std::move(done));
  }
  void failed(const Error& error) override {
    ended = true;
    events.push(error);
  }

  Mailbox<Event> events;
  bool ended = false;
};

Answer::Answer(Exchange& exchange, const sched::Lease& lease, runner::Generate generate,
               const boost::asio::any_io_executor& loop)
    : state_(std::make_shared<State>(loop)), runner_(lease.runner()) {
  id_ = runner_.generate(std::move(generate), state_);
  exchange.on_disconnect([state = state_, &runner = runner_, id = id_] {
    if (state->ended) return;
    runner.cancel(id);  // at once, even while a write to the client hangs
    state->events.push(Gone{});
  });
}
Answer::~Answer() {
  if (!std::exchange(state_->ended, true)) runner_.cancel(id_);
}
Task<Answer::Event> Answer::next() { co_return co_await state_->events.pop(); }
bool Answer::ready() const { return !state_->events.empty(); }

api::Metrics metrics_of(const runner::Done& done, std::chrono::steady_clock::time_point start,
                        std::chrono::steady_clock::time_point loaded) {
  api::Metrics metrics = runner::metrics_of(done);
  metrics.total_duration = std::chrono::steady_clock::now() - start;
  metrics.load_duration = loaded - start;
  return metrics;
}

api::StatusError answer_error(const Error& error) {
  api::StatusError status = api::status_error(error);
  // A runner that died is the server's trouble, not a queue that is full.
  if (error.code() == ErrorCode::kUnavailable) status.status = 500;
  return status;
}

}  // namespace ollama::server
