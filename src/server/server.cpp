#include "server/server.h"

#include <sys/resource.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <csignal>

#include "base/log.h"
#include "base/units.h"
#include "runner/conversion.h"
#include "runner/process_runner.h"
#include "server/inference.h"
#include "store/transfer.h"

namespace ollama::server {

namespace asio = boost::asio;
using asio::ip::tcp;
using SystemError = boost::system::error_code;

namespace {

constexpr std::size_t kModelsMadeAtOnce = 8;

sched::Options sched_options(const envconfig::Config& config) {
  return {.max_loaded = config.max_loaded_models,
          .max_queue = config.max_queue,
          .parallel = config.num_parallel,
          .keep_alive = config.keep_alive,
          .load_timeout = config.load_timeout,
          .devices = ml::device_options_of(config)};
}

// As many descriptors as the system lets this process have: a connection is one.
void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
}

// What Go calls the errors of bind.
std::string bind_error(const SystemError& error) {
  if (error == asio::error::address_in_use) return "address already in use";
  if (error == asio::error::access_denied) return "permission denied";
  if (error.value() == EADDRNOTAVAIL) return "cannot assign requested address";
  return error.message();
}

Result<tcp::acceptor> open_acceptor(asio::io_context& loop, const envconfig::Host& host) {
  SystemError error;
  std::vector<asio::ip::address> addresses;
  if (const auto address = asio::ip::make_address(host.name, error); !error) {
    addresses.push_back(address);
  } else {
    tcp::resolver resolver(loop);
    for (const auto& entry : resolver.resolve(host.name, "", error)) {
      addresses.push_back(entry.endpoint().address());
    }
    if (error || addresses.empty()) {
      return fail(ErrorCode::kUnavailable, "listen tcp: lookup {}: {}", host.name,
                  error ? error.message() : "no such host");
    }
    // As Go does: IPv4 first where a name has both.
    std::ranges::stable_sort(addresses, {}, [](const auto& a) { return a.is_v4() ? 0 : 1; });
  }
  const tcp::endpoint endpoint(addresses.front(), host.port);
  tcp::acceptor acceptor(loop);
  const auto step = [&](std::string_view what) -> Result<> {
    if (!error) return {};
    return fail(ErrorCode::kUnavailable, "listen tcp {}: {}: {}", host.address(), what,
                bind_error(error));
  };
  acceptor.open(endpoint.protocol(), error);
  OLLAMA_TRY(step("socket"));
  acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  // Go listens on both families when it is given all of IPv6's addresses.
  if (endpoint.address().is_v6() && endpoint.address().is_unspecified()) {
    acceptor.set_option(asio::ip::v6_only(false), error);
  }
  acceptor.bind(endpoint, error);
  OLLAMA_TRY(step("bind"));
  acceptor.listen(1024, error);
  OLLAMA_TRY(step("listen"));
  return acceptor;
}

}  // namespace

struct Server::State {
  explicit State(Settings given)
      : settings(std::move(given)),
        factory(settings.make_factory ? settings.make_factory(loop)
                                      : std::make_unique<runner::ProcessRunnerFactory>(
                                            loop, runner::runner_command())),
        store(settings.store),
        scheduler(sched_options(settings.config), *factory,
                  [] { return sched::TimePoint(std::chrono::steady_clock::now()); }),
        blocking(loop.get_executor()),
        making(loop.get_executor(), kModelsMadeAtOnce),
        reading(loop.get_executor()),
        transfers(store, store::Transfers::options_of(settings.config)),
        services{.config = settings.config,
                 .store = store,
                 .scheduler = scheduler,
                 .runners = *factory,
                 .blocking = blocking,
                 .metrics = metrics,
                 .making = making,
                 .reading = reading,
                 .transfers = transfers,
                 .transfer_threads = transfer_threads},
        inference(services),
        acceptor(loop),
        deadline(loop),
        signals(loop) {
    connections.router.add(native_routes(services, inference));
    connections.router.add(openai_routes(services, inference));
    connections.router.add(anthropic_routes(services, inference));
    connections.router.add(extra_routes(services, inference));
    connections.answered = [this](std::string_view route, int status, Metrics::Seconds took) {
      metrics.answered(route, status, took);
    };
    connections.router.add(transfer_routes(services));
    connections.access.origins = settings.config.origins;
    connections.limits = settings.limits;
    connections.api_keys = settings.config.api_keys;
    scheduler.on_deadline_change([this] { arm_deadline(); });
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    transfer_threads.join();  // before what their work refers to
    blocking.join();
    making.join();
    reading.join();
    // Requests that were being answered end before what they use; they have been told to.
    loop.restart();
    for (int i = 0; i < 100 && !connections.open.empty(); ++i) {
      close_connections(connections, false);
      loop.run_one_for(std::chrono::milliseconds(50));
    }
  }

  // ---- Connections

  asio::awaitable<void> accept() {
    while (acceptor.is_open()) {
      auto [error, socket] = co_await acceptor.async_accept(asio::as_tuple(asio::use_awaitable));
      if (error == asio::error::operation_aborted) co_return;
      if (error) {
        // Out of descriptors, most likely: they come back when connections close.
        log::warn("accept: {}", error.message());
        asio::steady_timer pause(loop, std::chrono::milliseconds(100));
        co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
        continue;
      }
      if (connections.open.size() >= connections.limits.connections) {
        log::warn("more than {} connections: one is refused", connections.limits.connections);
        continue;
      }
      serve_connection(std::move(socket), connections);
    }
  }

  // ---- Devices

  // A process of its own lists them: a broken driver may end it, and so does a remote server that
  // is lost meanwhile.
  void list_devices(ml::DeviceOptions options) {
    auto started = factory->start();
    if (!started) return log::warn("listing the devices: {}", started.error().message());
    listing = std::move(*started);
    listing->list_devices(options, [this, options](
                                       const Result<std::vector<ml::Device>>& devices) mutable {
      listing.reset();
      if (!devices && !options.rpc_servers.empty()) {
        log::warn("listing the devices: {}", devices.error().message());
        options.rpc_servers.clear();
        return list_devices(std::move(options));
      }
      if (!devices) {
        return log::warn(
            "listing the devices: {}; models are loaded on "
            "the CPU where loading them on a GPU fails",
            devices.error().message());
      }
      for (const ml::Device& device : *devices) {
        log::info("device {} library={} id={} total={} free={}: {}", device.name, device.library,
                  device.id.empty() ? "-" : device.id, human_bytes_binary(device.total_bytes),
                  human_bytes_binary(device.free_bytes), device.description);
      }
      scheduler.use(*devices);
    });
  }

  // ---- The scheduler's clock

  void arm_deadline() {
    const auto next = scheduler.next_deadline();
    if (next == armed) return;
    armed = next;
    deadline.cancel();
    if (!next) return;
    deadline.expires_at(std::chrono::time_point_cast<std::chrono::steady_clock::duration>(*next));
    deadline.async_wait([this](SystemError error) {
      if (error) return;
      armed.reset();
      scheduler.tick();
      arm_deadline();
    });
  }

  // ---- The end

  void shutdown() {
    if (std::exchange(stopping, true)) return;
    listing.reset();
    SystemError ignored;
    acceptor.close(ignored);
    close_connections(connections, true);
    // Answers in progress end with their runners; when those are gone, so is everything else.
    scheduler.shutdown([this] {
      asio::post(loop, [this] {
        close_connections(connections, false);
        deadline.cancel();
        // From here a signal ends the process: threads that are waited for below may hang.
        signals.cancel();
        signals.clear();
        work.reset();
        // Connections that linger, or wait for a disk, are not waited for.
        asio::post(loop, [this] { loop.stop(); });
      });
    });
  }
  void wait_for_signals() {
    signals.add(SIGINT);
    signals.add(SIGTERM);
    signals.async_wait([this](SystemError error, int number) {
      if (error) return;
      log::info("shutting down on {}", sigdescr_np(number));
      shutdown();
      // A second one does not wait for anybody.
      signals.async_wait([](SystemError again, int second) {
        if (!again) std::_Exit(128 + second);
      });
    });
  }

  Settings settings;
  ConnectionContext connections;  // outlives the loop's coroutines
  asio::io_context loop{1};
  std::unique_ptr<runner::RunnerFactory> factory;
  store::Store store;
  sched::Scheduler scheduler;
  std::unique_ptr<runner::Runner> listing;  // the process that lists the devices
  Blocking blocking;
  Metrics metrics;
  Blocking making;
  Blocking reading;
  store::Transfers transfers;
  TransferThreads transfer_threads;
  Services services;
  Inference inference;
  tcp::acceptor acceptor;
  asio::steady_timer deadline;
  asio::signal_set signals;
  std::optional<sched::TimePoint> armed;
  std::optional<asio::executor_work_guard<asio::io_context::executor_type>> work;
  bool stopping = false;
};

Server::Server(std::unique_ptr<State> state) : state_(std::move(state)) {}
Server::Server(Server&&) noexcept = default;
Server& Server::operator=(Server&&) noexcept = default;
Server::~Server() = default;

Result<Server> Server::listen(Settings settings) {
  auto state = std::make_unique<State>(std::move(settings));
  OLLAMA_ASSIGN(state->acceptor, open_acceptor(state->loop, state->settings.config.host));
  SystemError ignored;
  state->connections.access.check_host =
      state->acceptor.local_endpoint(ignored).address().is_loopback();
  return Server(std::move(state));
}

std::uint16_t Server::port() const {
  SystemError ignored;
  return state_->acceptor.local_endpoint(ignored).port();
}

void Server::run() {
  State& state = *state_;
  state.work.emplace(asio::make_work_guard(state.loop));
  if (state.settings.handle_signals) state.wait_for_signals();
  state.list_devices(ml::device_options_of(state.settings.config));
  asio::co_spawn(state.loop, state.accept(), asio::detached);
  state.loop.run();
}

void Server::stop() {
  asio::post(state_->loop, [state = state_.get()] { state->shutdown(); });
}

Result<> serve(const envconfig::Config& config) {
  std::signal(SIGPIPE, SIG_IGN);
  raise_descriptor_limit();
  const store::Store::Options store{.models = config.models,
                                    .bundled = store::Store::default_bundled_directory(),
                                    .prune = !config.no_prune,
                                    .converter = std::make_shared<runner::ProcessConverter>()};
  OLLAMA_ASSIGN(auto server, Server::listen({.config = config,
                                             .store = store,
                                             .make_factory = {},
                                             .limits = {},
                                             .handle_signals = true}));
  // Only once the address is ours: a start that fails changes nothing. Requests wait until run().
  if (!config.no_prune) {
    if (const auto freed = store::Store(store).prune(); !freed) {
      log::warn("removing unused blobs: {}", freed.error().message());
    } else if (*freed > 0) {
      log::info("removed unused blobs: {} bytes", *freed);
    }
  }
  std::string settings;
  for (const auto& [name, value] : config.values()) settings += std::format(" {}={}", name, value);
  log::info("server config:{}", settings);
  log::info("Listening on {} (version {})", config.host.address(), api::kApiLevel);
  server.run();
  return {};
}

}  // namespace ollama::server
