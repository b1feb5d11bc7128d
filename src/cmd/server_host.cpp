#include "api/client.h"
#include "cmd/model_host.h"

namespace ollama::cmd {
namespace {

class ServerHost final : public ModelHost {
 public:
  explicit ServerHost(api::Client& client) : client_(client) {}

  Result<api::ShowResponse> show(const api::ShowRequest& request) override {
    return client_.show(request);
  }
  Result<> load(const api::GenerateRequest& request) override {
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
};

}  // namespace

std::unique_ptr<ModelHost> server_host(api::Client& client) {
  return std::make_unique<ServerHost>(client);
}

}  // namespace ollama::cmd
