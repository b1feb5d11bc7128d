#include <condition_variable>
#include <mutex>
#include <thread>

#include "api/client.h"
#include "cmd/connect.h"
#include "cmd/model_host.h"
#include "store/name.h"

namespace ollama::cmd {
namespace {

// As the server's list has it.
std::string shown_name(const std::string& model) {
  const auto name = store::Name::parse(model);
  return name ? name->display() : model;
}

class ServerHost final : public ModelHost {
 public:
  ServerHost(api::Client& client, const envconfig::Config& config)
      : client_(client), config_(config) {}

  Result<api::ShowResponse> show(const api::ShowRequest& request) override {
    return client_.show(request);
  }
  Result<> load(const api::GenerateRequest& request, const LoadProgress& progress) override {
    const Watch watch(config_, shown_name(request.model), progress);
    return client_.generate(request, [](const api::GenerateResponse&) { return true; });
  }
  Result<> generate(const api::GenerateRequest& request, std::stop_token stop,
                    const std::function<bool(const api::GenerateResponse&)>& callback) override {
    const Stopping stopping(client_, std::move(stop));
    return client_.generate(request, callback);
  }
  Result<> chat(const api::ChatRequest& request, std::stop_token stop,
                const std::function<bool(const api::ChatResponse&)>& callback) override {
    const Stopping stopping(client_, std::move(stop));
    return client_.chat(request, callback);
  }
  Result<> create(const api::CreateRequest& request) override {
    return client_.create_model(request, [](const api::ProgressResponse&) { return true; });
  }
  Result<api::EmbedResponse> embed(const api::EmbedRequest& request) override {
    return client_.embed(request);
  }

 private:
  // Asks the server, over a connection of its own, how far it has loaded a model.
  class Watch {
   public:
    Watch(const envconfig::Config& config, std::string model, LoadProgress progress) {
      if (!progress) return;
      thread_ = std::jthread([&config, model = std::move(model),
                              progress = std::move(progress)](const std::stop_token& stop) {
        // Most models are loaded before the first question.
        if (!pause(stop, std::chrono::milliseconds(400))) return;
        auto client = connect(config);
        if (!client) return;
        client->set_stop_token(stop);
        do {
          const auto running = client->running();
          if (!running) return;
          for (const api::ProcessModel& each : running->models) {
            if (each.loading >= 1 || each.name != model) continue;
            const auto done =
                static_cast<std::uint64_t>(static_cast<double>(each.size) * each.loading);
            progress(done, each.size);
          }
        } while (pause(stop, std::chrono::milliseconds(200)));
      });
    }

   private:
    // False: it is over.
    static bool pause(const std::stop_token& stop, std::chrono::milliseconds time) {
      std::mutex mutex;
      std::condition_variable_any over;
      std::unique_lock lock(mutex);
      over.wait_for(lock, stop, time, [&] { return stop.stop_requested(); });
      return !stop.stop_requested();
    }

    std::jthread thread_;
  };

  // A stop is for one call.
  class Stopping {
   public:
    Stopping(api::Client& client, std::stop_token stop) : client_(client) {
      client_.set_stop_token(std::move(stop));
    }
    ~Stopping() { client_.set_stop_token({}); }
    Stopping(const Stopping&) = delete;
    Stopping& operator=(const Stopping&) = delete;

   private:
    api::Client& client_;
  };

  api::Client& client_;
  const envconfig::Config& config_;
};

}  // namespace

std::unique_ptr<ModelHost> server_host(api::Client& client, const envconfig::Config& config) {
  return std::make_unique<ServerHost>(client, config);
}

}  // namespace ollama::cmd
