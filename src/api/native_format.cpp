#include "api/chat_format.h"
#include "api/foreign.h"

namespace ollama::api {
namespace {

class NativeFormat final : public ChatFormat {
 public:
  std::string_view stream_type() const override { return "application/x-ndjson"; }
  std::string piece(const ChatResponse& response, std::size_t /*choice*/) override {
    return to_string(to_json(response)) + '\n';
  }
  std::string end() override { return {}; }
  std::string broken(const StatusError& error) override { return to_string(to_json(error)) + '\n'; }
  JsonObject whole(const std::vector<ChatResponse>& responses) override {
    return to_json(responses.front());
  }
};

}  // namespace

std::string new_call_id() { return foreign::new_id("call_"); }
std::string new_request_id() { return foreign::new_id("req_"); }

std::unique_ptr<ChatFormat> native_format() { return std::make_unique<NativeFormat>(); }

}  // namespace ollama::api
