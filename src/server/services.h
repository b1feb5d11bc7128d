// What the routes of all API families stand on: the store, the scheduler, a place for work that
// waits for a disk, and the steps from a request to an answer.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <exception>
#include <expected>
#include <memory>
#include <optional>
#include <string>
#include <variant>

#include "envconfig/config.h"
#include "runner/runner.h"
#include "sched/scheduler.h"
#include "server/http.h"
#include "server/mailbox.h"
#include "server/metrics.h"
#include "server/router.h"
#include "server/transfer_threads.h"
#include "store/store.h"

namespace ollama::store {
class Transfers;
}

namespace ollama::server {

// Threads for blocking work, started when there is some.
class Blocking {
 public:
  explicit Blocking(boost::asio::any_io_executor loop, std::size_t threads = 2)
      : loop_(std::move(loop)), threads_(threads) {}

  // Runs `work` on another thread and continues here with its result, or with what it throws. What
  // it refers to must live as long as it runs, which a coroutine's own variables do.
  template <typename Work>
  Task<std::invoke_result_t<Work&>> run(Work work) {
    using Outcome = std::expected<std::invoke_result_t<Work&>, std::exception_ptr>;
    auto box = std::make_shared<Mailbox<Outcome>>(loop_);
    // Made here: the other thread has nobody to tell that memory is short.
    auto outcome = std::make_shared<Outcome>(std::unexpect);
    boost::asio::post(pool(), [this, box, outcome, work = std::move(work)]() mutable {
      try {
        outcome->emplace(work());
      } catch (...) {
        outcome->error() = std::current_exception();
      }
      boost::asio::post(loop_, [box, outcome] { box->push(std::move(*outcome)); });
    });
    Outcome ended = co_await box->pop();
    if (!ended) std::rethrow_exception(ended.error());
    co_return std::move(*ended);
  }
  // Runs `work` on another thread; whatever it refers to it must own. What it throws is logged.
  void start(std::function<void()> work) { boost::asio::post(pool(), guarded(std::move(work))); }
  const boost::asio::any_io_executor& loop() const { return loop_; }
  // Waits for what is running.
  void join() {
    if (pool_) pool_->join();
  }

 private:
  boost::asio::thread_pool& pool() {
    if (!pool_) pool_.emplace(threads_);
    return *pool_;
  }
  boost::asio::any_io_executor loop_;
  std::size_t threads_;
  std::optional<boost::asio::thread_pool> pool_;
};

struct Services {
  const envconfig::Config& config;
  store::Store& store;
  sched::Scheduler& scheduler;
  runner::RunnerFactory& runners;  // for questions that no loaded model answers
  Blocking& blocking;
  Metrics& metrics;
  Blocking& making;   // of models, which may take minutes: nothing else waits behind it
  Blocking& reading;  // of what any request may need: models' names, long bodies
  store::Transfers& transfers;
  TransferThreads& transfer_threads;
};

// What an answer cost, as Ollama tells it.
api::Metrics metrics_of(const runner::Done& done, std::chrono::steady_clock::time_point start,
                        std::chrono::steady_clock::time_point loaded);

// The client went away, or the server is going.
struct Gone {};

// What is to be answered, put together from the request's and the model's options.
api::Options merged_options(const store::Model& model, const api::Options& requested);
sched::Model to_load(const Services& services, const store::Model& model,
                     const api::Options& options);

// The model, loaded; Gone when nobody waits for it any more.
Task<std::variant<sched::Lease, Error, Gone>> acquire(Services& services, Exchange& exchange,
                                                      sched::Request request);

// The events of one answer. The answer is cancelled when the client goes, or with the object.
class Answer {
 public:
  using Event = std::variant<runner::Begun, runner::Piece, runner::Done, Error, Gone>;

  // `lease` outlives the Answer.
  Answer(Exchange& exchange, const sched::Lease& lease, runner::Generate generate,
         const boost::asio::any_io_executor& loop);
  Answer(const Answer&) = delete;
  Answer& operator=(const Answer&) = delete;
  ~Answer();

  // Begun, where it is wanted; pieces, then one of the others.
  Task<Event> next();
  // Whether next() would not wait.
  bool ready() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
  runner::Runner& runner_;
  runner::Id id_ = 0;
};

// The status and text that a runner's error is told with.
api::StatusError answer_error(const Error& error);

// ---- Routes, a family each
class Inference;
std::vector<Route> native_routes(Services& services, Inference& inference);
std::vector<Route> openai_routes(Services& services, Inference& inference);
std::vector<Route> anthropic_routes(Services& services, Inference& inference);
std::vector<Route> extra_routes(Services& services, Inference& inference);
std::vector<Route> transfer_routes(Services& services);

}  // namespace ollama::server
