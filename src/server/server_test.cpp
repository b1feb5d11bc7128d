#include "server/server.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <csignal>
#include <fstream>
#include <future>
#include <thread>

#include "engine/cross_encoder.h"
#include "runner/child.h"
#include "runner/fake_engine.h"
#include "runner/process_runner.h"
#include "server/access.h"
#include "server/inference.h"
#include "server/long_work.h"
#include "server/router.h"
#include "server/services.h"
#include "store/digest.h"
#include "store/fake_registry.h"

namespace ollama::server {
namespace {

namespace json = boost::json;
using testing::HasSubstr;
using testing::Not;

// ---- A small, blocking HTTP client

struct Answer {
  int status = 0;
  std::string head;  // status line and headers
  std::string body;
  std::string header(std::string_view name) const {
    const auto at = head.find(std::format("\r\n{}: ", name));
    if (at == std::string::npos) return {};
    const auto begin = at + name.size() + 4;
    return head.substr(begin, head.find("\r\n", begin) - begin);
  }
  json::value json() const { return json::parse(body); }
  std::string error() const { return std::string(json().at("error").as_string()); }
  std::vector<json::value> lines() const {
    std::vector<json::value> result;
    std::string_view rest = body;
    while (!rest.empty()) {
      const auto end = rest.find('\n');
      result.push_back(json::parse(json::string_view(rest.substr(0, end))));
      rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    }
    return result;
  }
};

class Client {
 public:
  explicit Client(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const timeval patience{.tv_sec = 60, .tv_usec = 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    EXPECT_EQ(::connect(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  void send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return;  // refused early; the answer says why
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
  }
  void request(std::string_view method, std::string_view path, std::string_view body = {},
               std::string_view headers = {}) {
    std::string text =
        std::format("{} {} HTTP/1.1\r\nHost: localhost\r\n{}", method, path, headers);
    if (!body.empty()) text += std::format("Content-Length: {}\r\n", body.size());
    send(text + "\r\n" + std::string(body));
  }
  Answer ask(std::string_view method, std::string_view path, std::string_view body = {},
             std::string_view headers = {}) {
    request(method, path, body, headers);
    return receive(method == "HEAD");
  }
  Answer receive(bool no_body = false) {
    Answer answer = receive_head();
    if (no_body || answer.status == 204) return answer;
    if (answer.header("Transfer-Encoding") == "chunked") {
      while (true) {
        const std::string chunk = receive_chunk();
        if (chunk.empty()) return answer;
        answer.body += chunk;
      }
    }
    const std::string length = answer.header("Content-Length");
    if (length.empty()) {
      while (more()) {
      }
      answer.body = std::exchange(buffer_, {});
      return answer;
    }
    while (buffer_.size() < std::stoul(length) && more()) {
    }
    answer.body = buffer_.substr(0, std::stoul(length));
    buffer_.erase(0, std::stoul(length));
    return answer;
  }
  Answer receive_head() {
    Answer answer;
    answer.head = take_until("\r\n\r\n");
    if (answer.head.size() > 12) answer.status = std::stoi(answer.head.substr(9, 3));
    return answer;
  }
  std::string receive_chunk() {
    const std::string size = take_until("\r\n");
    if (size.size() <= 2) return {};
    const std::size_t bytes = std::stoul(size, nullptr, 16);
    while (buffer_.size() < bytes + 2 && more()) {
    }
    std::string chunk = buffer_.substr(0, bytes);
    buffer_.erase(0, bytes + 2);
    return chunk;
  }
  // Whether the server closed the connection, with nothing more to read.
  bool closed() { return buffer_.empty() && !more(); }
  void shutdown_send() { ::shutdown(fd_.get(), SHUT_WR); }

 private:
  bool more() {
    std::array<char, 65536> bytes;
    const ssize_t got = ::recv(fd_.get(), bytes.data(), bytes.size(), 0);
    if (got <= 0) return false;
    buffer_.append(bytes.data(), static_cast<std::size_t>(got));
    return true;
  }
  std::string take_until(std::string_view end) {
    while (!buffer_.contains(end) && more()) {
    }
    const auto at = buffer_.find(end);
    if (at == std::string::npos) return std::exchange(buffer_, {});
    std::string taken = buffer_.substr(0, at + end.size());
    buffer_.erase(0, at + end.size());
    return taken;
  }

  UniqueFd fd_;
  std::string buffer_;
};

// ---- The server, with the fake engine in child processes of this executable

class ServerTest : public testing::Test {
 protected:
  void SetUp() override {
    log::set_level(log::Level::kError);
    folder_ = std::filesystem::temp_directory_path() /
              std::format("ollama-server-test-{}-{}", getpid(), counter_++);
    config_.host.port = 0;
    config_.host.name = "127.0.0.1";
    config_.models = folder_;
    config_.origins = {"http://localhost", "http://localhost:*", "app://*"};
  }
  void TearDown() override {
    stop();
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  void start() {
    auto server = Server::listen(
        {.config = config_,
         .store = {.models = folder_,
                   .bundled = OLLAMA_SOURCE_DIR "/models",
                   .prune = true,
                   .converter = converter_},
         .make_factory =
             [this](boost::asio::io_context& loop) {
               runner::Command command;
               command.arguments = {"server_test", child_};
               command.environment = runner::runner_environment(0);
               return std::make_unique<runner::ProcessRunnerFactory>(
                   loop, std::move(command),
                   runner::ProcessRunnerOptions{.patience = std::chrono::milliseconds(500)});
             },
         .limits = limits_,
         .handle_signals = handle_signals_});
    ASSERT_TRUE(server.has_value()) << server.error().message();
    server_.emplace(std::move(*server));
    port_ = server_->port();
    thread_ = std::thread([this] { server_->run(); });
  }
  void stop() {
    if (!thread_.joinable()) return;
    server_->stop();
    thread_.join();
    server_.reset();
  }
  Answer ask(std::string_view method, std::string_view path, std::string_view body = {},
             std::string_view headers = {}) {
    if (!thread_.joinable()) start();
    return Client(port_).ask(method, path, body, headers);
  }
  Client client() {
    if (!thread_.joinable()) start();
    return Client(port_);
  }
  // Asks until /api/ps has `count` models; the test hangs, and is ended, if it never has.
  void wait_for_loaded(std::size_t count) {
    while (ask("GET", "/api/ps").json().at("models").as_array().size() != count) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }

  static inline int counter_ = 0;  // NOLINT(readability-identifier-naming): a member
  std::string child_ = "--runner-child";
  envconfig::Config config_;
  Limits limits_;
  bool handle_signals_ = false;
  std::shared_ptr<store::Converter> converter_;
  std::filesystem::path folder_;
  std::optional<Server> server_;
  std::uint16_t port_ = 0;
  std::thread thread_;
};

constexpr std::string_view kPrompt = R"({"model":"stories260k","prompt":"abc","stream":false})";
// The model's own limit of 256 tokens would end it while a busy machine does something else.
constexpr std::string_view kEndless =
    R"({"model":"stories260k","prompt":"~","options":{"num_predict":-1}})";

TEST_F(ServerTest, GeneralRoutes) {
  EXPECT_EQ(ask("GET", "/").body, "Ollama is running");
  EXPECT_EQ(ask("GET", "/").header("Content-Type"), "text/plain; charset=utf-8");
  EXPECT_EQ(ask("GET", "/api/version").body, R"({"version":"0.33.0"})");
  for (const char* path : {"/", "/api/version", "/api/tags"}) {
    const Answer head = ask("HEAD", path);
    EXPECT_EQ(head.status, 200) << path;
    EXPECT_EQ(head.header("Content-Length"), std::to_string(ask("GET", path).body.size())) << path;
  }
  const json::value tags = ask("GET", "/api/tags").json();
  EXPECT_EQ(tags.at("models").at(0).at("name").as_string(), "stories260k:latest");
  EXPECT_EQ(ask("GET", "/api/ps").body, R"({"models":[]})");
}

// What gin answers where there is no route: clients tell an old server from a wrong method by it.
TEST_F(ServerTest, NoRoute) {
  const Answer missing = ask("GET", "/nothing?x=1");
  EXPECT_EQ(missing.status, 404);
  EXPECT_EQ(missing.body, "404 page not found");
  const Answer method = ask("GET", "/api/generate");
  EXPECT_EQ(method.status, 405);
  EXPECT_EQ(method.body, "405 method not allowed");
  EXPECT_EQ(method.header("Allow"), "POST");
  EXPECT_EQ(ask("GET", "/api/tags/").header("Location"), "/api/tags");
  EXPECT_EQ(ask("GET", "/api/tags/").status, 301);
  EXPECT_EQ(ask("POST", "/api/show/", "{}").status, 307);
  EXPECT_EQ(ask("GET", "/api/%zz").status, 400);
}

TEST_F(ServerTest, GenerateWhole) {
  const Answer answer = ask("POST", "/api/generate", kPrompt);
  ASSERT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(answer.header("Content-Type"), "application/json; charset=utf-8");
  const json::value body = answer.json();
  EXPECT_EQ(body.at("model").as_string(), "stories260k");
  EXPECT_EQ(body.at("response").as_string(), "ABC");
  EXPECT_TRUE(body.at("done").as_bool());
  EXPECT_EQ(body.at("done_reason").as_string(), "stop");
  EXPECT_EQ(body.at("prompt_eval_count").as_int64(), 4);
  EXPECT_EQ(body.at("eval_count").as_int64(), 3);
  EXPECT_GT(body.at("eval_duration").as_int64(), 0);
  EXPECT_GT(body.at("load_duration").as_int64(), 0);
  EXPECT_GE(body.at("total_duration").as_int64(), body.at("load_duration").as_int64());
  EXPECT_TRUE(body.at("created_at").as_string().ends_with("Z"));
  EXPECT_EQ(json::serialize(body.at("context")), "[256,97,98,99,97,98,99]");
}

TEST_F(ServerTest, GenerateStreamed) {
  const Answer answer =
      ask("POST", "/api/generate",
          R"({"model":"stories260k","prompt":"abc","options":{"num_predict":2,"stop":["x"]}})");
  EXPECT_EQ(answer.header("Content-Type"), "application/x-ndjson");
  EXPECT_EQ(answer.header("Transfer-Encoding"), "chunked");
  const auto lines = answer.lines();
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_EQ(lines[0].at("response").as_string(), "A");
  EXPECT_FALSE(lines[0].at("done").as_bool());
  EXPECT_EQ(lines[1].at("response").as_string(), "B");
  EXPECT_TRUE(lines[2].at("done").as_bool());
  EXPECT_EQ(lines[2].at("done_reason").as_string(), "length");
  EXPECT_EQ(lines[2].at("response").as_string(), "");
}

TEST_F(ServerTest, Chat) {
  const std::string messages =
      R"("messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},)"
      R"({"role":"user","content":"c"}])";
  const json::value whole =
      ask("POST", "/api/chat", R"({"model":"stories260k","stream":false,)" + messages + "}").json();
  EXPECT_EQ(whole.at("message").at("content").as_string(), "A\nB\nC");
  EXPECT_EQ(whole.at("message").at("role").as_string(), "assistant");
  EXPECT_EQ(whole.at("eval_count").as_int64(), 5);
  const auto lines =
      ask("POST", "/api/chat", R"({"model":"stories260k",)" + messages + "}").lines();
  ASSERT_EQ(lines.size(), 6U);
  EXPECT_EQ(lines[0].at("message").at("content").as_string(), "A");
  EXPECT_TRUE(lines[5].at("done").as_bool());
}

TEST_F(ServerTest, GenerateTemplatesSystemsAndContext) {
  const json::value rendered =
      ask("POST", "/api/generate",
          R"({"model":"stories260k","prompt":"p","system":"s","stream":false,)"
          R"("template":"<{{ .System }}|{{ .Prompt }}>"})")
          .json();
  EXPECT_EQ(rendered.at("response").as_string(), "<S|P>");
  const json::value raw = ask("POST", "/api/generate",
                              R"({"model":"stories260k","prompt":"x","raw":true,"stream":false})")
                              .json();
  EXPECT_EQ(raw.at("response").as_string(), "X");
  EXPECT_FALSE(raw.as_object().contains("context"));
  const json::value more =
      ask("POST", "/api/generate",
          R"({"model":"stories260k","prompt":"d","context":[256,97],"stream":false})")
          .json();
  EXPECT_EQ(more.at("response").as_string(), "AD");
  const json::value debug =
      ask("POST", "/api/generate",
          R"({"model":"stories260k","prompt":"p","template":"[{{ .Prompt }}]","_debug_render_only":true})")
          .json();
  EXPECT_EQ(debug.at("_debug_info").at("rendered_template").as_string(), "[p]");
}

// What a template uses of a request reaches it; what it does not use is refused before the model
// answers without it; where it is broken, the client hears the place.
TEST_F(ServerTest, TemplatesSayWhatAModelCanDo) {
  const std::string messages = R"("messages":[{"role":"user","content":"q"}])";
  const std::string tools =
      R"("tools":[{"type":"function","function":{"name":"f","description":"d"}}])";
  const auto chat = [&](std::string_view rest) {
    return ask("POST", "/api/chat",
               std::format(R"({{"model":"stories260k","stream":false,"_debug_render_only":true,)"
                           R"({},{}}})",
                           messages, rest));
  };
  const auto rendered = [](const Answer& answer) {
    const json::value body = answer.json();
    const json::object* info =
        body.as_object().contains("_debug_info") ? &body.at("_debug_info").as_object() : nullptr;
    return info == nullptr ? answer.body : std::string(info->at("rendered_template").as_string());
  };
  const std::string_view uses_tools =
      R"("template":"{{ range .Messages }}{{ .Content }}{{ end }}{{ range .Tools }} )"
      R"({{ .Function.Name }}{{ end }}",)";
  EXPECT_EQ(rendered(chat(std::string(uses_tools) + tools)), "q f");
  EXPECT_EQ(chat(tools).status, 400);
  EXPECT_EQ(rendered(chat(R"("think":"low","template":"{{ .Prompt }}{{ .ThinkLevel }}{{ .Think )"
                          R"(}}")")),
            "qlowtrue");
  EXPECT_EQ(
      rendered(ask("POST", "/api/generate",
                   R"({"model":"stories260k","prompt":"a","suffix":"b","_debug_render_only":true,)"
                   R"("template":"{{ .Prompt }}<GAP>{{ .Suffix }}"})")),
      "a<GAP>b");
  const Answer broken = chat(R"("template":"x\n{{ nosuch }}")");
  EXPECT_EQ(broken.status, 400);
  EXPECT_THAT(broken.error(), HasSubstr("template:2:4: "));
}

// Fails when a template is kept once its request has been answered.
TEST_F(ServerTest, RequestsTemplatesAreNotKept) {
  constexpr std::size_t kSize = 1U << 20;
  const auto bytes_in_use = [] {
    const auto info = ::mallinfo2();
    return info.uordblks + info.hblkhd;
  };
  Client one = client();
  const auto refused = [&](int number) {
    const std::string text = std::to_string(number) + std::string(kSize, 'x');
    const Answer answer = one.ask(
        "POST", "/api/generate",
        std::format(R"({{"model":"stories260k","prompt":"a","suffix":"b","template":"{}"}})",
                    text));
    EXPECT_EQ(answer.error(), R"("stories260k" does not support insert)");
  };
  refused(0);
  const std::size_t before = bytes_in_use();
  for (int i = 1; i <= 32; ++i) refused(i);
  EXPECT_LT(bytes_in_use(), before + 8 * kSize);
}

// What a prompt with images would be can be seen of any model, though none here answers one.
TEST_F(ServerTest, ImagesAreCounted) {
  const std::string_view chat =
      R"({{"model":"stories260k","stream":false,"template":"{{{{ .Prompt }}}}",{})"
      R"("messages":[{{"role":"user","content":"q","images":["AAAA","AAAA"]}}]}})";
  const json::value shown =
      ask("POST", "/api/chat",
          std::vformat(chat, std::make_format_args(R"("_debug_render_only":true,)")))
          .json();
  EXPECT_EQ(shown.at("_debug_info").at("rendered_template").as_string(), "[img-0][img-1]q");
  EXPECT_EQ(shown.at("_debug_info").at("image_count").as_int64(), 2);
  EXPECT_EQ(shown.at("message"), json::parse(R"({"role":"","content":""})"));
  EXPECT_FALSE(shown.as_object().contains("response"));
  const Answer refused = ask("POST", "/api/chat", std::vformat(chat, std::make_format_args("")));
  EXPECT_EQ(refused.status, 400);
  EXPECT_EQ(refused.error(), R"("stories260k" does not support images)");

  const json::value generated =
      ask("POST", "/api/generate",
          R"({"model":"stories260k","prompt":"see [img]","images":["AAAA"],"template":"{{ .Prompt }}",)"
          R"("_debug_render_only":true})")
          .json();
  EXPECT_EQ(generated.at("_debug_info").at("rendered_template").as_string(), "see [img-0]");
  EXPECT_EQ(generated.at("_debug_info").at("image_count").as_int64(), 1);

  const json::value raw = ask("POST", "/api/generate",
                              R"({"model":"stories260k","prompt":"p","raw":true,"images":["AAAA"],)"
                              R"("_debug_render_only":true})")
                              .json();
  EXPECT_EQ(raw.at("_debug_info").at("rendered_template").as_string(), "p");
  EXPECT_EQ(raw.at("_debug_info").at("image_count").as_int64(), 1);

  const auto count = [&](std::string_view content) {
    return ask("POST", "/v1/messages/count_tokens",
               std::format(
                   R"({{"model":"stories260k","messages":[{{"role":"user","content":[{}]}}]}})",
                   content))
        .json()
        .at("input_tokens")
        .as_int64();
  };
  const std::string_view image =
      R"({"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}},)";
  EXPECT_GE(count(std::string(image) + R"({"type":"text","text":"q"})"),
            768 + count(R"({"type":"text","text":"q"})"));
}

// Ollama's models name a renderer and a parser, and have a template that is no more than the
// prompt.
TEST_F(ServerTest, BuiltinRenderersAndParsers) {
  const auto create = [&](std::string_view model, std::string_view rest) {
    return ask("POST", "/api/create",
               std::format(R"({{"model":"{}","from":"stories260k","stream":false,)"
                           R"("template":"{{{{ .Prompt }}}}",{}}})",
                           model, rest))
        .status;
  };
  const auto chat = [&](std::string_view model, std::string_view rest) {
    return ask("POST", "/api/chat",
               std::format(R"({{"model":"{}","stream":false,"messages":[{{"role":"user",)"
                           R"("content":"q"}}]{}}})",
                           model, rest));
  };
  const auto prompt = [&](std::string_view model, std::string_view rest) {
    const Answer answer = chat(model, std::format(R"(,"_debug_render_only":true{})", rest));
    const json::value body = answer.json();
    if (!body.as_object().contains("_debug_info")) return answer.body;
    return std::string(body.at("_debug_info").at("rendered_template").as_string());
  };
  const auto capabilities = [&](std::string_view model) {
    return json::serialize(ask("POST", "/api/show", std::format(R"({{"model":"{}"}})", model))
                               .json()
                               .at("capabilities"));
  };
  constexpr std::string_view kQwen = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n";
  const std::string tools = R"(,"tools":[{"type":"function","function":{"name":"look"}}])";

  ASSERT_EQ(create("coder", R"("renderer":"qwen3-coder","parser":"qwen3-coder")"), 200);
  EXPECT_EQ(prompt("coder", ""), kQwen);
  EXPECT_EQ(prompt("coder", R"(,"template":"[{{ .Prompt }}]")"), "[q]")
      << "the request's comes first";
  EXPECT_THAT(prompt("coder", tools), HasSubstr("<name>look</name>"));
  EXPECT_EQ(capabilities("coder"), R"(["completion","tools"])");
  EXPECT_EQ(chat("coder", R"(,"think":true)").status, 400);
  const Answer answer = chat("coder", "");
  EXPECT_EQ(answer.status, 200);
  EXPECT_THAT(answer.body, HasSubstr("USER"));

  ASSERT_EQ(create("thinker", R"("renderer":"qwen3-vl-thinking","parser":"qwen3-vl-thinking")"),
            200);
  EXPECT_EQ(capabilities("thinker"), R"(["completion","tools","thinking"])");
  EXPECT_EQ(prompt("thinker", ""), std::string(kQwen) + "<think>\n");
  EXPECT_EQ(prompt("thinker", R"(,"think":false)"), kQwen);
  // The fake model tells the prompt, in capitals: all of it is thought, since the prompt opened it.
  EXPECT_THAT(chat("thinker", "").body, HasSubstr(R"("thinking":"<|IM_START|>USER)"));

  // What always thinks does so unasked, and before a format too.
  ASSERT_EQ(create("always", R"("renderer":"olmo3-think","parser":"olmo3-think")"), 200);
  EXPECT_THAT(chat("always", R"(,"think":false)").body, HasSubstr(R"("content":"","thinking":)"));
  EXPECT_THAT(chat("always", R"(,"think":false,"format":"json")").body,
              HasSubstr(R"("content":"","thinking":)"));

  // What is not known is refused when it is asked for, and not when it is made: it may be known to
  // another version.
  ASSERT_EQ(create("strange", R"("renderer":"qwen9","parser":"qwen3-coder")"), 200);
  ASSERT_EQ(create("deaf", R"("renderer":"qwen3-coder","parser":"qwen9")"), 200);
  for (const auto& [model, what] :
       {std::pair("strange", "the built-in renderer \"qwen9\" is not known; those that are: "),
        std::pair("deaf", "the built-in parser \"qwen9\" is not known; those that are: ")}) {
    const Answer refused = chat(model, "");
    EXPECT_EQ(refused.status, 400);
    EXPECT_THAT(refused.error(), HasSubstr(std::format("model '{}': {}", model, what)));
    EXPECT_EQ(ask("POST", "/api/generate",
                  std::format(R"({{"model":"{}","prompt":"q","stream":false}})", model))
                  .status,
              400);
    EXPECT_EQ(ask("POST", "/api/generate",
                  std::format(R"({{"model":"{}","prompt":"q","raw":true,"stream":false}})", model))
                  .status,
              200);
  }
}

// The texts are what clients match on.
TEST_F(ServerTest, RequestErrors) {
  struct Case {
    const char* path;
    std::string body;
    int status;
    std::string error;
  };
  for (const Case& each : std::vector<Case>{
           {"/api/generate", "", 400, "missing request body"},
           {"/api/generate", R"({"model":"nope","prompt":"x"})", 404, "model 'nope' not found"},
           {"/api/generate", R"({"prompt":"x"})", 404, "model '' not found"},
           {"/api/generate", R"({"model":"a b","prompt":"x"})", 400, "invalid model name"},
           {"/api/generate", R"({"model":"stories260k","raw":true,"system":"s","prompt":"x"})", 400,
            "raw mode does not support template, system, or context"},
           {"/api/generate", R"({"model":"stories260k","prompt":"x","suffix":"y"})", 400,
            R"("stories260k" does not support insert)"},
           {"/api/chat",
            R"({"model":"stories260k","messages":[{"role":"user","content":"x"}],)"
            R"("tools":[{"type":"function","function":{"name":"f"}}]})",
            400, R"("stories260k" does not support tools)"},
           {"/api/embed", R"({"model":"stories260k","input":"x","dimensions":-1})", 400,
            R"("dimensions" must be 1 or more, or 0 for all, not -1)"},
           {"/api/chat", "", 400, "missing request body"},
           {"/api/chat", R"({"messages":[]})", 400, "model is required"},
           {"/api/chat", R"({"model":"nope"})", 404, "model 'nope' not found"},
           {"/api/chat",
            R"({"model":"stories260k","messages":[{"role":"user","content":"x"}],"think":true})",
            400, R"("stories260k" does not support thinking)"},
           {"/api/generate", R"({"model":"stories260k","prompt":"x","format":{"enum":[]}})", 400,
            "no value can meet the schema; at #: enum has no value"},
           {"/api/chat",
            R"({"model":"stories260k","messages":[{"role":"user","content":"x"}],"format":"xml"})",
            400, R"(invalid format: "xml")"},
           {"/api/show", "{}", 400, "model is required"},
           {"/api/show", R"({"model":"nope"})", 404, "model 'nope' not found"},
           {"/api/embed", R"({"model":"nope","input":"x"})", 404,
            R"(model "nope" not found, try pulling it first)"},
           {"/api/embeddings", R"({"prompt":"x"})", 400, "model is required"},
           {"/api/copy", R"({"source":"","destination":"b"})", 400, R"(source "" is invalid)"},
           {"/api/copy", R"({"source":"nope","destination":"b"})", 404,
            R"(model "nope" not found)"},
           {"/api/create", "{}", 400, "model is required"},
           {"/api/create", R"({"model":"a","modelfile":"FROM b"})", 400,
            R"("modelfile" is no longer accepted)"},
           {"/api/create", R"({"model":"a","path":"/b"})", 400, R"("path" is no longer accepted)"},
           {"/api/create", R"({"model":"a"})", 400, "neither 'from' or 'files' was specified"},
           {"/api/create", R"({"model":"a","from":"nope"})", 404, "model 'nope' not found"},
           {"/api/create", R"({"model":"a","files":{"/etc/passwd":"sha256:0"}})", 400,
            "file path must be relative"},
           {"/api/create", R"({"model":"a","files":{"m.gguf":"sha256:../../x"}})", 400,
            "m.gguf: invalid digest"}}) {
    const Answer answer = ask("POST", each.path, each.body);
    EXPECT_EQ(answer.status, each.status) << each.path << each.body << answer.body;
    EXPECT_TRUE(answer.error().starts_with(each.error)) << each.path << each.body << answer.body;
    EXPECT_EQ(answer.header("Content-Type"), "application/json; charset=utf-8");
  }
  for (const char* body :
       {"{", "[]", "nonsense", R"({"model":1})", R"({"model":"x","stream":"yes"})",
        R"({"model":"stories260k","options":{"temperature":"hot"}})"}) {
    EXPECT_EQ(ask("POST", "/api/generate", body).status, 400) << body;
  }
  EXPECT_EQ(ask("DELETE", "/api/delete", R"({"model":"nope"})").status, 404);
  EXPECT_EQ(ask("DELETE", "/api/delete", R"({"model":""})").error(), R"(name "" is invalid)");
  // An option that the engine refuses.
  EXPECT_EQ(ask("POST", "/api/generate",
                R"({"model":"stories260k","prompt":"x","options":{"temperature":1000}})")
                .status,
            400);
}

TEST_F(ServerTest, WhatIsNotThereSaysSo) {
  for (const char* path :
       {"/api/me", "/api/signout", "/api/web_search", "/api/experimental/web_search"}) {
    const Answer answer = ask("POST", path, "{}");
    EXPECT_EQ(answer.status, 501) << path;
    EXPECT_FALSE(answer.error().empty());
  }
}

// ---- Pulling and pushing

class TransferRoutesTest : public ServerTest {
 protected:
  void SetUp() override {
    ServerTest::SetUp();
    config_.folder = folder_ / "home";
    registry_.add_model("library/m:latest", std::string(100'000, 'w'));
  }
  std::string body(std::string_view model, std::string_view more = {}) const {
    return std::format(R"({{"model":"{}/library/{}","insecure":true{}}})", registry_.host(), model,
                       more);
  }
  store::FakeRegistry registry_;
};

TEST_F(TransferRoutesTest, PullStreamsItsProgress) {
  const Answer answer = ask("POST", "/api/pull", body("m"));
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.header("Content-Type"), "application/x-ndjson");
  std::vector<std::string> statuses;
  for (const json::value& line : answer.lines()) {
    std::string status(line.at("status").as_string());
    if (statuses.empty() || statuses.back() != status) statuses.push_back(std::move(status));
  }
  const auto weights = store::digest_of(std::string(100'000, 'w')).hex().substr(0, 12);
  ASSERT_EQ(statuses.size(), 6U);
  EXPECT_EQ(statuses[0], "pulling manifest");
  EXPECT_EQ(statuses[1], "pulling " + weights);
  EXPECT_EQ(statuses[3], "verifying sha256 digest");
  EXPECT_EQ(statuses[4], "writing manifest");
  EXPECT_EQ(statuses[5], "success");
  EXPECT_EQ(answer.lines()[2].at("total").as_int64(), 100'000);
  EXPECT_THAT(ask("GET", "/api/tags").body, HasSubstr(registry_.host() + "/library/m:latest"));

  const Answer once = ask("POST", "/api/pull", body("m", R"(,"stream":false)"));
  EXPECT_EQ(once.body, R"({"status":"success"})");
  registry_.clear_manifests();
  const Answer pushed = ask("POST", "/api/push", body("m", R"(,"stream":false)"));
  EXPECT_EQ(pushed.body, R"({"status":"success"})");
  EXPECT_EQ(registry_.manifests.size(), 1U);
}

TEST_F(TransferRoutesTest, TheBundledModelIsNotPushed) {
  EXPECT_THAT(ask("POST", "/api/push", R"({"model":"stories260k","stream":false})").error(),
              HasSubstr("comes with the program and has no manifest to push: copy it"));
}

TEST_F(TransferRoutesTest, ErrorsAreOllamas) {
  const std::string here = registry_.host() + "/library/here";
  ASSERT_EQ(ask("POST", "/api/copy",
                std::format(R"({{"source":"stories260k","destination":"{}"}})", here))
                .status,
            200);
  const Answer missing = ask("POST", "/api/pull", body("none"));
  EXPECT_EQ(missing.status, 200);
  EXPECT_EQ(missing.lines().back().at("error").as_string(),
            "pull model manifest: file does not exist");
  const Answer once = ask("POST", "/api/pull", body("none", R"(,"stream":false)"));
  EXPECT_EQ(once.status, 404);
  EXPECT_EQ(once.error(), "pull model manifest: file does not exist");
  // Where no stream has begun, the status says what a client can do: Ollama's is always 500.
  EXPECT_EQ(ask("POST", "/api/push", body("none", R"(,"stream":false)")).status, 404);
  for (const auto& [said, status] :
       {std::pair("401 Unauthorized", 403), std::pair("403 Forbidden", 403),
        std::pair("400 Bad Request", 400), std::pair("404 Not Found", 404)}) {
    registry_.hook = [said](const store::FakeRegistry::Call& call) {
      call.answer(said);
      return store::FakeRegistry::Then::kAnswered;
    };
    for (const char* path : {"/api/pull", "/api/push"}) {
      const Answer refused = ask("POST", path, body("here", R"(,"stream":false)"));
      EXPECT_EQ(refused.status, status) << path << said << refused.body;
    }
  }
  for (const char* path : {"/api/pull", "/api/push"}) {
    EXPECT_EQ(ask("POST", path, "").error(), "missing request body");
    EXPECT_EQ(ask("POST", path, "{}").error(), "model is required");
    const Answer invalid = ask("POST", path, R"({"model":"../x"})");
    EXPECT_EQ(invalid.status, 400);
    EXPECT_EQ(invalid.error(), "invalid model name");
  }
  EXPECT_THAT(ask("POST", "/api/push", body("none", R"(,"stream":false)")).error(),
              HasSubstr("not found"));
}

// Fails when a download blocks the server, or goes on when its client has gone.
TEST_F(TransferRoutesTest, APullEndsWithItsClient) {
  std::atomic<bool> left = false;
  registry_.hook = [&](const store::FakeRegistry::Call& call) {
    if (!call.is_blob()) return store::FakeRegistry::Then::kGoOn;
    call.send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nwww");
    call.hold();
    left = true;
    left.notify_all();
    return store::FakeRegistry::Then::kClose;
  };
  {
    // More than there are threads for other blocking work.
    std::vector<Client> pulling;
    for (int i = 0; i < 4; ++i) {
      pulling.push_back(client());
      pulling.back().request("POST", "/api/pull", body("m"));
    }
    registry_.wait_for_blob_calls(1);
    EXPECT_EQ(ask("GET", "/api/tags").status, 200);
    EXPECT_FALSE(left);
  }
  left.wait(false);  // the test hangs, and is ended, if it never does
  // The server goes while a download is under way.
  Client last = client();
  last.request("POST", "/api/pull", body("m"));
  registry_.wait_for_blob_calls(2);
  stop();
  registry_.settle();
}

TEST_F(ServerTest, LoadAndUnload) {
  const json::value loaded = ask("POST", "/api/generate", R"({"model":"stories260k"})").json();
  EXPECT_EQ(loaded.at("done_reason").as_string(), "load");
  const json::value running = ask("GET", "/api/ps").json().at("models").at(0);
  EXPECT_EQ(running.at("name").as_string(), "stories260k:latest");
  EXPECT_EQ(running.at("size").as_int64(), 1010);
  EXPECT_GT(running.at("context_length").as_int64(), 0);
  const json::value unloaded =
      ask("POST", "/api/chat", R"({"model":"stories260k","keep_alive":0})").json();
  EXPECT_EQ(unloaded.at("done_reason").as_string(), "unload");
  wait_for_loaded(0);
}

TEST_F(ServerTest, Embeddings) {
  const json::value both =
      ask("POST", "/api/embed", R"({"model":"stories260k","input":["abc","abcdefg"]})").json();
  ASSERT_EQ(both.at("embeddings").as_array().size(), 2U);
  EXPECT_NEAR(both.at("embeddings").at(0).at(0).to_number<double>(), 0.8, 1e-6);
  EXPECT_NEAR(both.at("embeddings").at(0).at(1).to_number<double>(), 0.6, 1e-6);
  EXPECT_EQ(both.at("prompt_eval_count").as_int64(), 12);
  const json::value cut =
      ask("POST", "/api/embed", R"({"model":"stories260k","input":"abc","dimensions":1})").json();
  EXPECT_EQ(json::serialize(cut.at("embeddings")), "[[1]]");
  EXPECT_EQ(ask("POST", "/api/embed", R"({"model":"stories260k","input":"","truncate":false})")
                .json()
                .at("embeddings")
                .as_array()
                .size(),
            0U);
  const json::value old =
      ask("POST", "/api/embeddings", R"({"model":"stories260k","prompt":"abc"})").json();
  EXPECT_EQ(old.at("embedding").at(0).to_number<double>(), 4);  // not normalised
}

TEST_F(ServerTest, EmbeddingsAreNumbersAndBounded) {
  std::string many = R"("a")";
  for (int i = 0; i < 10'000; ++i) many += R"(,"a")";
  for (const char* path : {"/api/embed", "/v1/embeddings"}) {
    const Answer broken = ask("POST", path, R"({"model":"stories260k","input":["a","?"]})");
    EXPECT_EQ(broken.status, 500) << path;
    EXPECT_THAT(broken.body, HasSubstr("embedding contains NaN or Inf values")) << path;
    const Answer refused =
        ask("POST", path, std::format(R"({{"model":"stories260k","input":[{}]}})", many));
    EXPECT_EQ(refused.status, 400) << path;
    EXPECT_THAT(refused.body, HasSubstr("10001 inputs are more than 10000: send them in several"))
        << path;
  }
}

// A client that goes away must not keep a model busy: the answer is endless unless it is cancelled,
// and the model leaves only when the answer has ended.
TEST_F(ServerTest, DisconnectCancels) {
  for (const bool stream : {true, false}) {
    {
      Client gone = client();
      gone.request("POST", "/api/generate",
                   std::format(R"({{"model":"stories260k","prompt":"~","keep_alive":0,"stream":{},
                           "options":{{"num_predict":-1}}}})",
                               stream));
      if (stream) {
        EXPECT_EQ(gone.receive_head().status, 200);
        EXPECT_FALSE(gone.receive_chunk().empty());
      } else {
        wait_for_loaded(1);
      }
    }
    wait_for_loaded(0);
  }
}

// Go's server takes a half-closed connection for a closed one, and so do we.
TEST_F(ServerTest, HalfCloseCancels) {
  Client half = client();
  half.request(
      "POST", "/api/generate",
      R"({"model":"stories260k","prompt":"~","keep_alive":0,"options":{"num_predict":-1}})");
  EXPECT_FALSE((half.receive_head(), half.receive_chunk()).empty());
  half.shutdown_send();
  wait_for_loaded(0);
}

// The processes that threads of this one have started.
std::vector<pid_t> child_processes() {
  std::vector<pid_t> pids;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream children(task.path() / "children");
    for (pid_t pid = 0; children >> pid;) pids.push_back(pid);
  }
  return pids;
}

// The server survives a runner's death in the middle of an answer, and its client hears of it.
TEST_F(ServerTest, RunnerIsKilled) {
  Client streaming = client();
  streaming.request("POST", "/api/generate", kEndless);
  EXPECT_FALSE((streaming.receive_head(), streaming.receive_chunk()).empty());
  // The one that lists the devices when the server starts ends by itself.
  auto pids = child_processes();
  for (int i = 0; i < 500 && pids.size() > 1; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    pids = child_processes();
  }
  ASSERT_EQ(pids.size(), 1U);
  ::kill(pids[0], SIGKILL);
  std::string last;
  while (true) {
    std::string chunk = streaming.receive_chunk();
    if (chunk.empty()) break;
    last = std::move(chunk);
  }
  EXPECT_THAT(last, HasSubstr(R"({"error":"the model's runner process ended unexpectedly)"));
  EXPECT_EQ(ask("POST", "/api/generate", kPrompt).json().at("response").as_string(), "ABC");
}

// What an assertion in the runner said is in the error.
TEST_F(ServerTest, RunnerAborts) {
  const auto lines =
      ask("POST", "/api/generate", R"({"model":"stories260k","prompt":"ab!"})").lines();
  EXPECT_THAT(std::string(lines.back().at("error").as_string()), HasSubstr("GGML_ASSERT"));
  const Answer whole =
      ask("POST", "/api/generate", R"({"model":"stories260k","prompt":"ab!","stream":false})");
  EXPECT_EQ(whole.status, 500);
  EXPECT_THAT(whole.error(), HasSubstr("GGML_ASSERT"));
  EXPECT_EQ(ask("POST", "/api/generate", kPrompt).json().at("response").as_string(), "ABC");
}

TEST_F(ServerTest, FullQueueIs503) {
  config_.max_queue = 1;
  Client one = client();
  one.request("POST", "/api/generate", kEndless);
  EXPECT_FALSE((one.receive_head(), one.receive_chunk()).empty());
  Client two = client();
  two.request("POST", "/api/generate", kEndless);
  EXPECT_FALSE((two.receive_head(), two.receive_chunk()).empty());  // the fake takes turns
  const Answer three = ask("POST", "/api/generate", kPrompt);
  EXPECT_EQ(three.status, 503);
  EXPECT_EQ(three.error(), "server busy, please try again.  maximum pending requests exceeded");
}

TEST_F(ServerTest, SeveralClientsAtOnce) {
  start();
  std::vector<std::thread> threads;
  std::atomic<int> good = 0;
  threads.reserve(16);
  for (int i = 0; i < 16; ++i) {
    threads.emplace_back([&] {
      if (Client(port_).ask("POST", "/api/generate", kPrompt).json().at("response").as_string() ==
          "ABC") {
        ++good;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, 16);
  EXPECT_EQ(ask("GET", "/api/ps").json().at("models").as_array().size(), 1U);
}

// ---- Connections

TEST_F(ServerTest, KeepAliveAndPipelining) {
  Client one = client();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(one.ask("GET", "/").body, "Ollama is running");
  // Sent ahead, some of it while an answer is on its way: answered in order.
  one.request("POST", "/api/generate", R"({"model":"stories260k","prompt":"abc"})");
  one.request("GET", "/api/version");
  one.request("GET", "/");
  EXPECT_EQ(one.receive().lines().back().at("done").as_bool(), true);
  EXPECT_EQ(one.receive().body, R"({"version":"0.33.0"})");
  EXPECT_EQ(one.receive().body, "Ollama is running");
  const Answer last = one.ask("GET", "/", {}, "Connection: close\r\n");
  EXPECT_EQ(last.header("Connection"), "close");
  EXPECT_TRUE(one.closed());
}

TEST_F(ServerTest, Http10) {
  Client old = client();
  old.send("GET / HTTP/1.0\r\n\r\n");
  EXPECT_EQ(old.receive().body, "Ollama is running");
  EXPECT_TRUE(old.closed());
  Client stream = client();
  const std::string body = R"({"model":"stories260k","prompt":"a"})";
  stream.send(std::format("POST /api/generate HTTP/1.0\r\nContent-Length: {}\r\n\r\n{}",
                          body.size(), body));
  const Answer answer = stream.receive();
  EXPECT_EQ(answer.header("Transfer-Encoding"), "");
  EXPECT_EQ(answer.lines().size(), 2U);
}

TEST_F(ServerTest, ChunkedBodies) {
  Client good = client();
  good.send(
      "POST /api/show HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
      "3\r\n{\"m\r\n13\r\nodel\":\"stories260k\"\r\n1\r\n}\r\n0\r\n\r\n");
  EXPECT_EQ(good.receive().status, 200);
  for (const char* bad :
       {"zz\r\n{}\r\n0\r\n\r\n", "2\r\n{}x\r\n0\r\n\r\n", "-1\r\n", "fffffffffffffffff\r\n"}) {
    Client broken = client();
    broken.send("POST /api/show HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    broken.send(bad);
    EXPECT_EQ(broken.receive().status, 400) << bad;
    EXPECT_TRUE(broken.closed());
  }
}

// Requests that two servers could read differently are refused (request smuggling).
TEST_F(ServerTest, HostileHeads) {
  for (const char* head :
       {"POST / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "GET / HTTP/1.1\r\n\r\n",
        "nonsense\r\n\r\n", "GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nbad\r\n\r\n",
        "POST /api/show HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: "
        "3\r\n\r\n{}",
        "POST /api/show HTTP/1.1\r\nHost: localhost\r\nContent-Length: -2\r\n\r\n{}"}) {
    Client hostile = client();
    hostile.send(head);
    EXPECT_EQ(hostile.receive().status, 400) << head;
    EXPECT_TRUE(hostile.closed()) << head;
  }
  Client both = client();
  both.send(
      "POST /api/show HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: "
      "chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_EQ(both.receive().status, 400);
  Client large = client();
  large.send("GET / HTTP/1.1\r\nHost: localhost\r\nX: " + std::string(100'000, 'x') + "\r\n\r\n");
  EXPECT_EQ(large.receive().status, 431);
}

TEST_F(ServerTest, BodiesAreBounded) {
  limits_.body = 1000;
  const std::string body(1001, ' ');
  EXPECT_EQ(ask("POST", "/api/show", body).status, 413);
  Client chunked = client();
  chunked.send("POST /api/show HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
  chunked.send(std::format("{:x}\r\n{}\r\n0\r\n\r\n", body.size(), body));
  EXPECT_EQ(chunked.receive().status, 413);
  // A claim alone is refused before anything is sent.
  Client claim = client();
  claim.send("POST /api/show HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n");
  EXPECT_EQ(claim.receive().status, 413);
}

TEST_F(ServerTest, ContinuesWhenAsked) {
  Client careful = client();
  careful.send(
      "POST /api/show HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nExpect: "
      "100-continue\r\n\r\n");
  EXPECT_EQ(careful.receive_head().status, 100);
  careful.send("{}");
  EXPECT_EQ(careful.receive().status, 400);
}

// A client that sends its header, or nothing, for ever (slowloris) is shown out.
TEST_F(ServerTest, SlowClientsAreShownOut) {
  limits_.head = std::chrono::milliseconds(50);
  limits_.idle = std::chrono::milliseconds(100);
  limits_.body_time = std::chrono::milliseconds(50);
  Client half = client();
  half.send("GET / HTTP/1.1\r\nHost: loc");
  EXPECT_TRUE(half.closed());
  Client idle = client();
  EXPECT_TRUE(idle.closed());
  Client body = client();
  body.send("POST /api/show HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n{");
  EXPECT_TRUE(body.closed());
}

TEST_F(ServerTest, HoldsManyIdleConnections) {
  start();
  std::vector<Client> idle;
  for (int i = 0; i < 300; ++i) idle.emplace_back(port_);
  for (Client& each : idle) EXPECT_EQ(each.ask("HEAD", "/").status, 200);
  EXPECT_EQ(idle[0].ask("GET", "/").body, "Ollama is running");
}

// ---- Browsers

TEST_F(ServerTest, CrossOriginRules) {
  const Answer allowed = ask("GET", "/api/version", {}, "Origin: http://localhost:3000\r\n");
  EXPECT_EQ(allowed.status, 200);
  EXPECT_EQ(allowed.header("Access-Control-Allow-Origin"), "http://localhost:3000");
  EXPECT_EQ(allowed.header("Vary"), "Origin");
  const Answer refused = ask("GET", "/api/version", {}, "Origin: http://evil.example\r\n");
  EXPECT_EQ(refused.status, 403);
  EXPECT_EQ(refused.body, "");
  const Answer preflight = ask("OPTIONS", "/api/chat", {},
                               "Origin: app://obsidian.md\r\n"
                               "Access-Control-Request-Method: POST\r\n");
  EXPECT_EQ(preflight.status, 204);
  EXPECT_THAT(preflight.header("Access-Control-Allow-Methods"), HasSubstr("DELETE"));
  EXPECT_THAT(preflight.header("Access-Control-Allow-Headers"), HasSubstr("Authorization"));
  EXPECT_THAT(preflight.header("Access-Control-Allow-Headers"), HasSubstr("Anthropic-Version"));
  EXPECT_EQ(ask("GET", "/api/version", {}, "Origin: http://localhost\r\n").status, 200);
}

TEST_F(ServerTest, ForeignHostNamesAreRefused) {
  Client rebound = client();
  rebound.send("GET /api/tags HTTP/1.1\r\nHost: evil.example:11434\r\n\r\n");
  EXPECT_EQ(rebound.receive().status, 403);
  Client local = client();
  local.send("GET /api/version HTTP/1.1\r\nHost: 127.0.0.1:11434\r\n\r\n");
  EXPECT_EQ(local.receive().status, 200);
}

TEST(Access, Hosts) {
  for (const char* host : {"localhost", "LOCALHOST:1", "127.0.0.1", "127.1.2.3:80", "[::1]:11434",
                           "0.0.0.0", "10.1.2.3", "192.168.0.1:11434", "172.16.0.1", "pc.local",
                           "x.internal:1", "a.localhost", ""}) {
    EXPECT_TRUE(host_allowed(host)) << host;
  }
  for (const char* host : {"evil.example", "localhost.evil.example", "8.8.8.8", "172.32.0.1",
                           "192.169.0.1", "2001:db8::1", "local", "127.0.0.1.nip.io", "[::2]"}) {
    EXPECT_FALSE(host_allowed(host)) << host;
  }
}

TEST(Access, Origins) {
  EXPECT_TRUE(origin_matches("http://localhost:*", "http://localhost:3000"));
  EXPECT_FALSE(origin_matches("http://localhost:*", "http://localhost"));
  EXPECT_FALSE(origin_matches("http://localhost", "http://localhost.evil.example"));
  EXPECT_TRUE(origin_matches("https://*.example.com", "https://a.example.com"));
  EXPECT_FALSE(origin_matches("https://*.example.com", "https://example.com"));
  const Access everyone{.origins = {"*"}, .check_host = false};
  const auto verdict = everyone.judge("GET", "localhost", "http://any.example");
  EXPECT_FALSE(verdict.status);
  EXPECT_THAT(verdict.headers,
              testing::Contains(testing::Pair("Access-Control-Allow-Origin", "*")));
  // A page that the server itself answered needs no leave.
  const Access nobody{.origins = {}, .check_host = false};
  EXPECT_FALSE(nobody.judge("GET", "box:11434", "http://box:11434").status);
  EXPECT_EQ(nobody.judge("GET", "box:11434", "http://box:1").status, 403);
}

TEST_F(ServerTest, ApiKeys) {
  config_.api_keys = {"secret", "other"};
  EXPECT_EQ(ask("GET", "/api/tags").status, 401);
  EXPECT_EQ(ask("GET", "/api/tags", {}, "Authorization: Bearer secre\r\n").status, 401);
  EXPECT_EQ(ask("GET", "/api/tags", {}, "Authorization: Bearer other\r\n").status, 200);
  for (const char* header :
       {"bearer other", "BEARER   other", "Bearer \t other", "Bearer other  "}) {
    EXPECT_EQ(ask("GET", "/api/tags", {}, std::format("Authorization: {}\r\n", header)).status, 200)
        << header;
  }
  for (const char* header : {"Bearer", "Bearerother", "Basic other", "other", "Bearer other x"}) {
    EXPECT_EQ(ask("GET", "/api/tags", {}, std::format("Authorization: {}\r\n", header)).status, 401)
        << header;
  }
  EXPECT_EQ(ask("GET", "/").status, 200);
}

// ---- Other APIs' families

TEST_F(ServerTest, AnswersInEachApisShape) {
  const auto chat = ask("POST", "/v1/chat/completions",
                        R"({"model":"stories260k","messages":[{"role":"user","content":"abc"}]})");
  EXPECT_EQ(chat.json().at("object").as_string(), "chat.completion");
  EXPECT_EQ(chat.json().at_pointer("/choices/0/message/content").as_string(), "ABC");
  const auto several =
      ask("POST", "/v1/chat/completions",
          R"({"model":"stories260k","n":3,"messages":[{"role":"user","content":"abc"}]})");
  EXPECT_EQ(several.json().at("choices").as_array().size(), 3U);
  EXPECT_EQ(several.json().at_pointer("/choices/2/index").as_int64(), 2);
  const auto completion = ask("POST", "/v1/completions",
                              R"({"model":"stories260k","prompt":["abc","de"],"echo":true})");
  EXPECT_EQ(completion.json().at_pointer("/choices/0/text").as_string(), "abcABC");
  EXPECT_EQ(completion.json().at_pointer("/choices/1/text").as_string(), "deDE");
  const auto responses = ask("POST", "/v1/responses", R"({"model":"stories260k","input":"abc"})");
  EXPECT_EQ(responses.json().at_pointer("/output/0/content/0/text").as_string(), "ABC");
  const auto messages =
      ask("POST", "/v1/messages",
          R"({"model":"stories260k","max_tokens":9,"messages":[{"role":"user","content":"abc"}]})");
  EXPECT_EQ(messages.json().at_pointer("/content/0/text").as_string(), "ABC");
  EXPECT_EQ(messages.json().at("stop_reason").as_string(), "end_turn");
}

// No template and no BOS is put around them.
TEST_F(ServerTest, CompletesTokensAsTheyAre) {
  static constexpr std::string_view kBody =
      R"({{"model":"stories260k","prompt":[[97,98],[99]],"echo":{},"stream":{}}})";
  const json::value plain = ask("POST", "/v1/completions", std::format(kBody, false, false)).json();
  EXPECT_EQ(plain.at_pointer("/choices/0/text").as_string(), "AB");
  EXPECT_EQ(plain.at_pointer("/choices/1/text").as_string(), "C");
  EXPECT_EQ(plain.at_pointer("/usage/prompt_tokens").as_int64(), 3);
  const json::value echo = ask("POST", "/v1/completions", std::format(kBody, true, false)).json();
  EXPECT_EQ(echo.at_pointer("/choices/0/text").as_string(), "abAB");
  EXPECT_EQ(echo.at_pointer("/choices/1/text").as_string(), "cC");
  EXPECT_THAT(ask("POST", "/v1/completions", std::format(kBody, true, true)).body,
              HasSubstr(R"("text":"abA")"));
}

// Long bodies are read on another thread, and are refused and answered as short ones are.
TEST_F(ServerTest, ReadsLongBodies) {
  const std::string blanks(kLongBody, ' ');
  EXPECT_EQ(ask("POST", "/api/generate",
                blanks + R"({"model":"stories260k","prompt":"abc","stream":false})")
                .json()
                .at("response")
                .as_string(),
            "ABC");
  EXPECT_EQ(ask("POST", "/api/generate", blanks).error(), "missing request body");
  const Answer broken = ask("POST", "/v1/messages", blanks + "{");
  EXPECT_EQ(broken.status, 400);
  EXPECT_THAT(broken.body, HasSubstr("invalid JSON at byte"));
}

// Clients show it with their errors.
TEST_F(ServerTest, NumbersRequestsInEachApisHeader) {
  const Answer chat = ask("POST", "/v1/chat/completions", "{}");
  EXPECT_TRUE(chat.header("X-Request-Id").starts_with("req_"));
  EXPECT_NE(chat.header("X-Request-Id"), ask("GET", "/v1/models").header("X-Request-Id"));
  const Answer messages = ask("POST", "/v1/messages", "{}");
  EXPECT_TRUE(messages.header("Request-Id").starts_with("req_"));
  EXPECT_EQ(messages.json().at("request_id").as_string(), messages.header("Request-Id"));
  EXPECT_EQ(ask("GET", "/api/version").header("X-Request-Id"), "");
}

// So that a program that offers models need not ask for each.
TEST_F(ServerTest, ListsWhatModelsCanDo) {
  const json::value model = ask("GET", "/api/tags").json().at_pointer("/models/0");
  EXPECT_EQ(json::serialize(model.at("capabilities")), R"(["completion"])");
  EXPECT_EQ(model.at_pointer("/details/context_length").as_int64(), 512);
  EXPECT_EQ(model.at_pointer("/details/embedding_length").as_int64(), 64);
}

TEST_F(ServerTest, ListsModelsForAnthropicsClients) {
  const std::string version = "Anthropic-Version: 2023-06-01\r\n";
  const json::value list = ask("GET", "/v1/models", {}, version).json();
  EXPECT_EQ(list.at_pointer("/data/0/type").as_string(), "model");
  EXPECT_EQ(list.at_pointer("/data/0/display_name").as_string(), "stories260k:latest");
  EXPECT_EQ(list.at("last_id"), list.at_pointer("/data/0/id"));
  EXPECT_FALSE(list.at("has_more").as_bool());
  EXPECT_EQ(ask("GET", "/v1/models/stories260k", {}, version).json().at("id").as_string(),
            "stories260k");
  EXPECT_EQ(ask("GET", "/v1/models/none", {}, version).json().at("type").as_string(), "error");
}

TEST_F(ServerTest, StreamsInEachApisShape) {
  const auto chat =
      ask("POST", "/v1/chat/completions",
          R"({"model":"stories260k","stream":true,"messages":[{"role":"user","content":"abc"}]})");
  EXPECT_EQ(chat.header("Content-Type"), "text/event-stream");
  EXPECT_EQ(chat.header("Cache-Control"), "no-cache");
  EXPECT_TRUE(chat.body.ends_with("data: [DONE]\n\n"));
  EXPECT_THAT(chat.body, HasSubstr(R"("finish_reason":"stop")"));
  const auto messages = ask("POST", "/v1/messages",
                            R"({"model":"stories260k","max_tokens":9,"stream":true,)"
                            R"("messages":[{"role":"user","content":"abc"}]})");
  EXPECT_TRUE(messages.body.starts_with("event: message_start\n"));
  EXPECT_THAT(messages.body.substr(0, messages.body.find("\n\n")),
              HasSubstr(R"("usage":{"input_tokens":4,"output_tokens":0,)"));
  EXPECT_TRUE(
      messages.body.ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"));
  const auto responses =
      ask("POST", "/v1/responses", R"({"model":"stories260k","stream":true,"input":"abc"})");
  EXPECT_TRUE(responses.body.starts_with("event: response.created\n"));
  EXPECT_THAT(responses.body, HasSubstr("event: response.completed\n"));
  const auto completion = ask(
      "POST", "/v1/completions",
      R"({"model":"stories260k","stream":true,"prompt":["abc","de"],"stream_options":{"include_usage":true}})");
  EXPECT_THAT(completion.body, HasSubstr(R"("index":1)"));
  EXPECT_THAT(completion.body, HasSubstr(R"("choices":[],"usage":)"));
}

TEST_F(ServerTest, TellsLogprobsInEachApisShape) {
  const std::string wanted =
      R"([{"token":"A","logprob":-1,"bytes":[65],"top_logprobs":[)"
      R"({"token":"A","logprob":-1,"bytes":[65]},{"token":"a","logprob":-2,"bytes":[97]}]}])";
  for (const auto& [path, body] :
       {std::pair("/api/generate", R"("prompt":"a")"),
        std::pair("/api/chat", R"("messages":[{"role":"user","content":"a"}])")}) {
    for (const char* stream : {"false", "true"}) {
      const auto answer = ask("POST", path,
                              std::format(R"({{"model":"stories260k","stream":{},"logprobs":true,)"
                                          R"("top_logprobs":2,{}}})",
                                          stream, body));
      EXPECT_EQ(answer.lines().front().at("logprobs"), json::parse(wanted)) << answer.body;
      const auto none = ask(
          "POST", path, std::format(R"({{"model":"stories260k","stream":{},{}}})", stream, body));
      EXPECT_THAT(none.body, Not(HasSubstr("logprobs")));
    }
  }
  const std::string chat = R"({"model":"stories260k","logprobs":true,"top_logprobs":2,"stream":)";
  const std::string messages = R"(,"messages":[{"role":"user","content":"a"}]})";
  EXPECT_EQ(ask("POST", "/v1/chat/completions", chat + "false" + messages)
                .json()
                .at_pointer("/choices/0/logprobs/content"),
            json::parse(wanted));
  EXPECT_THAT(ask("POST", "/v1/chat/completions", chat + "true" + messages).body,
              HasSubstr(R"("logprobs":{"content":[{"token":"A",)"));
  const std::string completion =
      R"({"model":"stories260k","prompt":"ab","logprobs":1,"echo":true,"stream":)";
  EXPECT_EQ(ask("POST", "/v1/completions", completion + "false}")
                .json()
                .at_pointer("/choices/0/logprobs"),
            json::parse(R"({"tokens":["A","B"],"token_logprobs":[-1,-1],)"
                        R"("top_logprobs":[{"A":-1},{"B":-1}],"text_offset":[2,3]})"));
  EXPECT_THAT(ask("POST", "/v1/completions", completion + "true}").body,
              HasSubstr(R"("logprobs":{"tokens":["A")"));
}

// OpenAI's are of the content alone, Ollama's of all that the model said.
TEST_F(ServerTest, TellsLogprobsOfWhatIsThoughtToOllamasClients) {
  const std::string model =
      R"({"model":"thinker","from":"stories260k","stream":false,"template":)"
      R"("{{ range .Messages }}{{ .Content }}{{ end }}{{ if .Think }}{{ else }}<think></think>{{ end }}"})";
  ASSERT_EQ(ask("POST", "/api/create", model).status, 200);
  const std::string body = R"({"model":"thinker","stream":false,"logprobs":true,)"
                           R"("messages":[{"role":"user","content":"=<think>hm</think>yes"}]})";
  const auto tokens_of = [](const json::value& logprobs) {
    std::string text;
    for (const json::value& one : logprobs.as_array()) text += one.at("token").as_string();
    return text;
  };
  const json::value openai = ask("POST", "/v1/chat/completions", body).json();
  EXPECT_EQ(openai.at_pointer("/choices/0/message/reasoning").as_string(), "hm");
  EXPECT_EQ(tokens_of(openai.at_pointer("/choices/0/logprobs/content")), "yes");
  EXPECT_EQ(tokens_of(ask("POST", "/api/chat", body).json().at("logprobs")),
            "<think>hm</think>yes");
}

TEST_F(ServerTest, TakesTheLikeliestOfMoreCompletions) {
  // The second answer's seed makes its tokens likelier (see FakeEngine).
  const auto answer = ask("POST", "/v1/completions",
                          R"({"model":"stories260k","prompt":"ab","best_of":2,"seed":3,)"
                          R"("logprobs":0})")
                          .json();
  ASSERT_EQ(answer.at("choices").as_array().size(), 1U);
  EXPECT_EQ(answer.at_pointer("/choices/0/logprobs/token_logprobs/0").to_number<double>(), -1);
  EXPECT_EQ(answer.at_pointer("/usage/completion_tokens").to_number<int>(), 4);
  const auto plain =
      ask("POST", "/v1/completions", R"({"model":"stories260k","prompt":["ab","c"],"best_of":3})")
          .json();
  ASSERT_EQ(plain.at("choices").as_array().size(), 2U);
  EXPECT_TRUE(plain.at_pointer("/choices/1/logprobs").is_null());
  EXPECT_EQ(plain.at_pointer("/choices/1/text").as_string(), "C");
}

TEST_F(ServerTest, SeedsOfMoreAnswersStaySeeds) {
  // A token's logprob tells the seed's last two bits (see FakeEngine).
  const auto answer = ask("POST", "/v1/completions",
                          R"({"model":"stories260k","prompt":"a","n":3,)"
                          R"("seed":9223372036854775807,"logprobs":0})")
                          .json();
  std::vector<double> told;
  for (const json::value& choice : answer.at("choices").as_array()) {
    told.push_back(choice.at_pointer("/logprobs/token_logprobs/0").to_number<double>());
  }
  EXPECT_THAT(told, testing::ElementsAre(-1.75, -1, -1.25));
}

TEST_F(ServerTest, ErrorsHaveTheShapeOfTheirApi) {
  for (
      const auto& [path, body, status, expected] :
      {std::tuple("/v1/chat/completions",
                  R"({"model":"x","messages":[{"role":"user","content":"a"}]})", 404,
                  R"({"error":{"message":"model 'x' not found","type":"not_found_error")"),
       std::tuple("/v1/chat/completions", "{", 400, R"("type":"invalid_request_error")"),
       std::tuple("/v1/chat/completions", "", 400, "missing request body"),
       std::tuple("/v1/responses", R"({"model":"stories260k"})", 400, "input is required"),
       std::tuple(
           "/v1/messages", R"({"model":"stories260k","messages":[{"role":"user","content":"a"}]})",
           400, R"({"type":"error","error":{"type":"invalid_request_error","message":"max_tokens)"),
       std::tuple(
           "/v1/chat/completions",
           R"({"model":"stories260k","tool_choice":"required","messages":[{"role":"user","content":"a"}]})",
           400, "not in tools"),
       std::tuple(
           "/v1/chat/completions",
           R"({"model":"stories260k","logprobs":true,"top_logprobs":21,"messages":[{"role":"user","content":"a"}]})",
           400, "top_logprobs must be between 0 and 20"),
       std::tuple("/v1/completions",
                  R"({"model":"stories260k","prompt":"a","logit_bias":{"1":101}})", 400,
                  "numbers of -100 to 100"),
       std::tuple("/v1/completions", R"({"model":"stories260k","prompt":[97,99999]})", 400,
                  "outside the vocabulary"),
       std::tuple("/v1/completions", R"({"model":"stories260k","prompt":[[97],["a"]]})", 400,
                  "either texts or lists of tokens"),
       std::tuple("/v1/completions", R"({"model":"stories260k","prompt":[["a"],[97]]})", 400,
                  "either texts or lists of tokens"),
       std::tuple("/v1/completions", R"({"model":"stories260k","prompt":[[97],[]]})", 400,
                  "either texts or lists of tokens"),
       std::tuple("/v1/embeddings", R"({"model":"stories260k","input":[["a"],[97]]})", 400,
                  "either texts or lists of tokens"),
       std::tuple("/v1/embeddings", R"({"model":"stories260k"})", 400, "invalid input"),
       std::tuple("/tokenize", R"({"model":"stories260k"})", 400, "content is required"),
       std::tuple("/detokenize", R"({"model":"stories260k"})", 400, "tokens are required"),
       std::tuple("/detokenize", R"({"model":"stories260k","tokens":[99999]})", 400,
                  "outside the vocabulary")}) {
    const auto answer = ask("POST", path, body);
    EXPECT_EQ(answer.status, status) << path << body;
    EXPECT_THAT(answer.body, HasSubstr(expected)) << path << body;
  }
  stop();
  config_.api_keys = {"secret"};
  EXPECT_THAT(ask("GET", "/v1/models").body, HasSubstr(R"("type":"authentication_error")"));
  EXPECT_THAT(ask("POST", "/v1/messages", "{}").body, HasSubstr(R"({"type":"error")"));
  EXPECT_EQ(ask("POST", "/v1/messages", "{}", "x-api-key: secret\r\n").status, 400);
}

TEST_F(ServerTest, ListsModelsAsOpenAiDoes) {
  const auto list = ask("GET", "/v1/models").json();
  EXPECT_EQ(list.at_pointer("/data/0/id").as_string(), "stories260k:latest");
  EXPECT_EQ(ask("GET", "/v1/models/stories260k").json().at("object").as_string(), "model");
  EXPECT_EQ(ask("GET", "/v1/models/library/stories260k").json().at("owned_by").as_string(),
            "library");
  EXPECT_EQ(ask("GET", "/v1/models/none").status, 404);
}

TEST_F(ServerTest, TokenizesAndRanks) {
  const auto tokens =
      ask("POST", "/tokenize", R"({"model":"stories260k","content":"ab","add_special":true})")
          .json();
  EXPECT_EQ(json::serialize(tokens.at("tokens")), "[256,97,98]");
  EXPECT_EQ(ask("POST", "/detokenize", R"({"model":"stories260k","tokens":[97,98]})")
                .json()
                .at("content")
                .as_string(),
            "ab");
  const auto counted =
      ask("POST", "/v1/messages/count_tokens",
          R"({"model":"stories260k","messages":[{"role":"user","content":"abc"}]})");
  EXPECT_EQ(counted.body, R"({"input_tokens":4})");
  const auto ranked =
      ask("POST", "/v1/rerank",
          R"({"model":"stories260k","query":"a","documents":["a","b",{"text":"c"}],)"
          R"("top_n":2,"return_documents":true})")
          .json();
  ASSERT_EQ(ranked.at("results").as_array().size(), 2U);
  EXPECT_GE(ranked.at_pointer("/results/0/relevance_score").to_number<double>(),
            ranked.at_pointer("/results/1/relevance_score").to_number<double>());
}

TEST_F(ServerTest, RefusesWhatCannotBeRanked) {
  const auto refused = [&](std::string_view fields) {
    const auto answer =
        ask("POST", "/v1/rerank", std::format(R"({{"model":"stories260k"{}}})", fields));
    EXPECT_EQ(answer.status, 400) << fields << answer.body;
    return answer.body;
  };
  EXPECT_THAT(refused(""), HasSubstr("query is required"));
  EXPECT_THAT(refused(R"(,"query":"","documents":["a"])"), HasSubstr("query is required"));
  EXPECT_THAT(refused(R"(,"query":1,"documents":["a"])"), HasSubstr("query"));
  EXPECT_THAT(refused(R"(,"query":"a")"), HasSubstr("documents are required"));
  EXPECT_THAT(refused(R"(,"query":"a","documents":[])"), HasSubstr("documents are required"));
  for (const char* documents :
       {R"("a")", "{}", "1", "[1]", "[null]", "[[]]", "[{}]", R"([{"text":1}])", R"(["a",true])"}) {
    EXPECT_THAT(refused(std::format(R"(,"query":"a","documents":{})", documents)),
                HasSubstr("documents"));
  }
  for (const char* top_n : {"-1", "1.5e300", R"("2")", "[]"}) {
    EXPECT_THAT(refused(std::format(R"(,"query":"a","documents":["a"],"top_n":{})", top_n)),
                HasSubstr("top_n"));
  }
  for (const char* name : {"return_documents", "raw_scores"}) {
    EXPECT_THAT(refused(std::format(R"(,"query":"a","documents":["a"],"{}":"yes")", name)),
                HasSubstr(name));
  }
  std::string many = R"("a")";
  for (int i = 0; i < 10'000; ++i) many += R"(,"a")";
  EXPECT_THAT(refused(std::format(R"(,"query":"a","documents":[{}])", many)),
              HasSubstr("10001 documents are more than 10000"));
  EXPECT_EQ(ask("POST", "/v1/rerank", R"({"query":"a","documents":["a"]})").status, 400);
  EXPECT_EQ(ask("POST", "/v1/rerank", R"({"model":"none","query":"a","documents":["a"]})").status,
            404);
}

TEST_F(ServerTest, RanksAsManyAsAreAsked) {
  for (const auto& [top_n, count] : {std::pair("0", 3U), {"1", 1U}, {"3", 3U}, {"9", 3U}}) {
    const auto ranked =
        ask("POST", "/v1/rerank",
            std::format(R"({{"model":"stories260k","query":"a","documents":["a","","c"],)"
                        R"("top_n":{}}})",
                        top_n))
            .json();
    EXPECT_EQ(ranked.at("results").as_array().size(), count) << top_n;
    EXPECT_FALSE(ranked.at_pointer("/results/0").as_object().contains("document"));
  }
}

// With the engine itself in the child processes.
class CrossEncoderTest : public ServerTest {
 protected:
  explicit CrossEncoderTest(const engine::fixture::CrossEncoder::Parts& parts = {})
      : model_(parts) {}

  void SetUp() override {
    ServerTest::SetUp();
    child_ = "--engine-child";
    std::filesystem::create_directories(folder_);
    const auto path = folder_ / "model.gguf";
    model_.draft().write(path);
    std::ifstream file(path, std::ios::binary);
    const std::string weights{std::istreambuf_iterator<char>(file), {}};
    const std::string digest = store::digest_of(weights).text();
    EXPECT_EQ(ask("POST", "/api/blobs/" + digest, weights).status, 201);
    const auto created = ask(
        "POST", "/api/create",
        std::format(R"({{"model":"ranker","stream":false,"files":{{"m.gguf":"{}"}}}})", digest));
    EXPECT_EQ(created.status, 200) << created.body;
  }
  json::value rank(std::string_view fields) {
    const auto answer =
        ask("POST", "/v1/rerank",
            std::format(R"({{"model":"ranker","query":"who is this?",{}}})", fields));
    EXPECT_EQ(answer.status, 200) << answer.body;
    return answer.json();
  }

  void expect_rankings();

  engine::fixture::CrossEncoder model_;
};

void CrossEncoderTest::expect_rankings() {
  const std::vector<std::string> texts{"this is a test", "", "the world of men", "of"};
  const std::string documents =
      R"("documents":["this is a test","",{"text":"the world of men"},"of"])";
  const json::value raw = rank(documents + R"(,"raw_scores":true,"return_documents":true)");
  EXPECT_EQ(raw.at("model").as_string(), "ranker");
  EXPECT_EQ(raw.at("object").as_string(), "list");
  ASSERT_EQ(raw.at("results").as_array().size(), 4U);
  std::map<std::uint64_t, double> scores;
  for (const json::value& result : raw.at("results").as_array()) {
    const auto index = result.at("index").to_number<std::uint64_t>();
    const double score = result.at("relevance_score").to_number<double>();
    if (!scores.empty()) {
      EXPECT_LE(score, raw.at_pointer("/results/0/relevance_score").to_number<double>());
    }
    scores[index] = score;
    EXPECT_EQ(result.at_pointer("/document/text").as_string(), texts.at(index));
  }
  ASSERT_EQ(scores.size(), 4U);

  // What the classifier makes of each pair's state, by itself.
  const auto file = gguf::File::open(folder_ / "model.gguf");
  const auto tokenizer = tokenizer::load(*file);
  std::uint64_t tokens = 0;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const auto pairs =
        tokenizer::encode_pairs(**tokenizer, "who is this?", std::span(&texts[i], 1), 512);
    const tokenizer::Pair* pair = &pairs->front();
    tokens += pair->tokens.size();
    const auto path = folder_ / "encoder.gguf";
    model_.encoder(pair->second).write(path);
    const auto encoder = engine::Engine::load(path, {});
    ASSERT_TRUE(encoder) << encoder.error().message();
    std::promise<std::vector<float>> state;
    ASSERT_TRUE(
        (*encoder)->embed(pair->tokens, [&](auto got) { state.set_value(got.value()); }, {}));
    EXPECT_NEAR(scores[i], model_.score(state.get_future().get()), 1e-4) << texts[i];
  }
  EXPECT_EQ(raw.at_pointer("/usage/total_tokens").to_number<std::uint64_t>(), tokens);

  // Alone as among the others, and between 0 and 1 where nothing is said.
  EXPECT_NEAR(rank(R"("documents":["the world of men"],"raw_scores":true)")
                  .at_pointer("/results/0/relevance_score")
                  .to_number<double>(),
              scores[2], 1e-5);
  const json::value best = rank(documents + R"(,"top_n":2)");
  ASSERT_EQ(best.at("results").as_array().size(), 2U);
  for (std::size_t i = 0; i < 2; ++i) {
    const json::value& result = best.at("results").at(i);
    const auto index = result.at("index").to_number<std::uint64_t>();
    EXPECT_EQ(index, raw.at("results").at(i).at("index").to_number<std::uint64_t>());
    EXPECT_NEAR(result.at("relevance_score").to_number<double>(),
                1 / (1 + std::exp(-scores[index])), 1e-6);
  }
}

TEST_F(CrossEncoderTest, RanksDocuments) { expect_rankings(); }

// bge-reranker-v2-m3 is of this kind.
class XlmRobertaTest : public CrossEncoderTest {
 protected:
  XlmRobertaTest() : CrossEncoderTest({.segments = 1, .unigram = true}) {}
};
TEST_F(XlmRobertaTest, RanksDocuments) { expect_rankings(); }

// What a grammar leaves of a call is what the tool's schema says, whatever its values look like.
TEST_F(ServerTest, ForcedCallsAreTheToolsSchemas) {
  child_ = "--engine-child";
  const auto call = [&](std::string_view tools) {
    const Answer answer =
        ask("POST", "/api/chat",
            std::format(R"({{"model":"stories260k","stream":false,"tool_choice":"required",)"
                        R"("template":"{{{{ .Tools }}}}","tools":[{}],)"
                        R"("messages":[{{"role":"user","content":"a"}}]}})",
                        tools));
    EXPECT_EQ(answer.status, 200) << answer.body;
    const json::value body = answer.json();
    const auto function = body.try_at_pointer("/message/tool_calls/0/function");
    return function ? json::serialize(*function) : answer.body;
  };
  const std::string_view data = R"({"type":"function","function":{"name":"f","parameters":{
    "type":"object","additionalProperties":false,
    "$defs":{"one":{"const":1},"enum":{"const":{"$ref":"#"}}},
    "properties":{"a":{"const":{"$ref":"#/x"}},"b":{"enum":[{"$ref":"#/x"}]},
      "c":{"$ref":"#/$defs/one"},"default":{"$ref":"#/$defs/enum"},"$ref":{"$ref":"#/$defs/one"}},
    "required":["a","b","c","default","$ref"]}}})";
  const std::string arguments = R"({"a":{"$ref":"#/x"},"b":{"$ref":"#/x"},"c":1,)"
                                R"("default":{"$ref":"#"},"$ref":1})";
  EXPECT_THAT(call(data), HasSubstr(arguments));
  // Moved into one of several.
  const std::string both = std::format(
      R"({},{{"type":"function","function":{{"name":"f","parameters":{{"type":)"
      R"("object","properties":{{"$ref":{{"$ref":"#/properties/a"}},"a":{{"const":2}}}},)"
      R"("required":["$ref"],"additionalProperties":false}}}}}})",
      data);
  EXPECT_THAT(call(both), testing::AnyOf(HasSubstr(arguments), HasSubstr(R"({"$ref":2)")));
  call(R"({"type":"function","function":{"name":"f","parameters":null}})");  // is not refused
}

TEST_F(CrossEncoderTest, CutsDocumentsAndRefusesQueriesThatAreTooLong) {
  std::string words;
  for (int i = 0; i < 2000; ++i) words += "test ";
  const json::value ranked = rank(std::format(R"("documents":["{}","test"])", words));
  EXPECT_EQ(ranked.at("results").as_array().size(), 2U);
  EXPECT_GT(ranked.at_pointer("/usage/total_tokens").to_number<int>(), 512);
  EXPECT_LT(ranked.at_pointer("/usage/total_tokens").to_number<int>(), 540);
  const auto refused =
      ask("POST", "/v1/rerank",
          std::format(R"({{"model":"ranker","query":"{}","documents":["a","b"]}})", words));
  EXPECT_EQ(refused.status, 400) << refused.body;
  EXPECT_THAT(refused.body, HasSubstr("leave no room for a document in the context of 512"));
}

TEST_F(CrossEncoderTest, DoesNothingElse) {
  for (const auto& [path, fields, expected] :
       {std::tuple("/api/embed", R"("input":"a")", "ask /v1/rerank instead"),
        std::tuple("/api/embed", R"("input":[])", "ask /v1/rerank instead"),
        std::tuple("/api/embeddings", R"("prompt":"a")", "ask /v1/rerank instead"),
        std::tuple("/v1/embeddings", R"("input":"a")", "ask /v1/rerank instead"),
        std::tuple("/api/chat", R"("messages":[{"role":"user","content":"a"}])",
                   "does not support chat"),
        std::tuple("/v1/chat/completions", R"("messages":[{"role":"user","content":"a"}])",
                   "does not support chat"),
        std::tuple("/api/generate", R"("prompt":"a")", "does not support generate")}) {
    const auto answer = ask("POST", path, std::format(R"({{"model":"ranker",{}}})", fields));
    EXPECT_EQ(answer.status, 400) << path << answer.body;
    EXPECT_THAT(answer.body, HasSubstr(expected)) << path;
  }
  EXPECT_EQ(
      json::serialize(ask("POST", "/api/show", R"({"model":"ranker"})").json().at("capabilities")),
      R"(["rerank"])");
}

TEST_F(ServerTest, CountsForPrometheus) {
  ask("POST", "/api/generate", kPrompt);
  // However a request writes the model's name, it is one model.
  for (const char* name : {"STORIES260k", "stories260k:latest", "library/stories260k"}) {
    const auto answer = ask(
        "POST", "/api/chat",
        std::format(R"({{"model":"{}","messages":[{{"role":"user","content":"abc"}}]}})", name));
    EXPECT_EQ(answer.status, 200) << answer.body;
  }
  ask("GET", "/nowhere/at/all");
  const auto prompts = [&] {
    const std::string text = ask("GET", "/metrics").body;
    const std::string_view line = R"(ollama_prompt_tokens_total{model="stories260k:latest"} )";
    return std::stoi(text.substr(text.find(line) + line.size()));
  };
  const int before = prompts();
  ask("POST", "/api/embed", R"({"model":"stories260k","input":["ab","c"]})");
  EXPECT_EQ(prompts(), before + 5) << "two BOS and three letters";
  const auto metrics = ask("GET", "/metrics");
  EXPECT_EQ(metrics.header("Content-Type"), "text/plain; version=0.0.4; charset=utf-8");
  for (const char* line :
       {R"(ollama_http_requests_total{route="/api/generate",status="200"} 1)",
        R"(ollama_http_requests_total{route="other",status="404"} 1)",
        R"(ollama_generated_tokens_total{model="stories260k:latest"} 12)",
        R"(ollama_time_to_first_token_seconds_count{model="stories260k:latest"} 4)",
        R"(ollama_http_request_duration_seconds_bucket{route="/api/generate",le="+Inf"} 1)",
        "# TYPE ollama_queue_requests gauge"}) {
    EXPECT_THAT(metrics.body, HasSubstr(line));
  }
}

// ---- Work on other threads

TEST(Blocking, WhatWorkThrowsReachesWhoWaits) {
  log::set_level(log::Level::kError);
  boost::asio::io_context loop;
  Blocking blocking(loop.get_executor());
  std::string caught;
  int after = 0;
  boost::asio::co_spawn(
      loop,
      [&]() -> Task<> {
        try {
          co_await blocking.run([]() -> int { throw std::runtime_error("the disk is gone"); });
        } catch (const std::exception& exception) {
          caught = exception.what();
        }
        after = co_await blocking.run([] { return 5; });
      },
      boost::asio::detached);
  loop.run();
  EXPECT_EQ(caught, "the disk is gone");
  EXPECT_EQ(after, 5);
  // Nobody waits for these: they end, and the process does not.
  blocking.start([] { throw std::runtime_error("one"); });
  blocking.join();
  TransferThreads threads;
  EXPECT_TRUE(threads.start({}, [] { throw std::runtime_error("two"); }));
  threads.join();
}

// A converter that does what a test says.
struct TestConverter final : store::Converter {
  std::function<Result<>()> act;
  Result<> convert(const store::Conversion&, const store::ConversionProgress&) override {
    return act();
  }
};
constexpr std::string_view kQuantise =
    R"({"model":"small","from":"stories260k","quantize":"q8_0","stream":false})";

TEST_F(ServerTest, WorkThatThrowsIsAnError) {
  const auto converter = std::make_shared<TestConverter>();
  converter->act = []() -> Result<> { throw std::runtime_error("a bug"); };
  converter_ = converter;
  const Answer answer = ask("POST", "/api/create", kQuantise);
  EXPECT_EQ(answer.status, 500);
  EXPECT_THAT(answer.error(), HasSubstr("a bug"));
  EXPECT_EQ(ask("GET", "/").status, 200);
}

TEST(LongWork, IsNotBegunForNobody) {
  boost::asio::io_context loop;
  bool begun = false;
  const auto work =
      std::make_shared<LongWork>(loop.get_executor(), [&](const auto&, const auto&) -> Result<> {
        begun = true;
        return {};
      });
  std::stop_source(work->stop()).request_stop();
  LongWork::run(work);
  EXPECT_FALSE(begun);
}

TEST_F(ServerTest, ModelsAreMadeForSoManyAtOnce) {
  std::atomic<bool> refused = false;
  std::atomic<int> begun = 0;
  const auto converter = std::make_shared<TestConverter>();
  converter->act = [&] {
    ++begun;
    refused.wait(false);
    return fail(ErrorCode::kInvalidArgument, "that will do");
  };
  converter_ = converter;
  start();
  std::map<int, int> statuses;
  std::mutex mutex;
  {
    std::vector<std::jthread> clients;
    for (int i = 0; i < 65; ++i) {
      clients.emplace_back([&] {
        const int status = Client(port_).ask("POST", "/api/create", kQuantise).status;
        if (status != 400) refused = true;
        refused.notify_all();
        const std::lock_guard lock(mutex);
        ++statuses[status];
      });
    }
  }
  EXPECT_THAT(statuses, testing::ElementsAre(testing::Pair(400, 64), testing::Pair(503, 1)));
  EXPECT_EQ(begun, 64);
}

// ---- Router

TEST(Router, MatchesPatterns) {
  Router router;
  router.add({{.method = "GET", .pattern = "/a/:x", .handler = {}},
              {.method = "POST", .pattern = "/a/:x/b", .handler = {}}});
  EXPECT_EQ(router.match("GET", "/a/1").parameters.at("x"), "1");
  EXPECT_EQ(router.match("POST", "/a/1/b").parameters.at("x"), "1");
  EXPECT_EQ(router.match("GET", "/a/").status, 404);
  EXPECT_EQ(router.match("GET", "/a/1/2").status, 404);
  EXPECT_EQ(router.match("GET", "/a/1/b").status, 405);
  EXPECT_EQ(router.match("GET", "").status, 404);
  EXPECT_EQ(decode_path("/a%20b%2Fc").value(), "/a b/c");
  for (const char* bad : {"%", "/%2", "/%g0", "/%+1"}) EXPECT_FALSE(decode_path(bad)) << bad;
}

// ---- Models and blobs

TEST_F(ServerTest, BlobsAndModels) {
  std::ifstream file(OLLAMA_SOURCE_DIR "/models/stories260K-f16.gguf", std::ios::binary);
  const std::string weights{std::istreambuf_iterator<char>(file), {}};
  const std::string digest = store::digest_of(weights).text();
  EXPECT_EQ(ask("HEAD", "/api/blobs/" + digest).status, 404);
  EXPECT_EQ(ask("POST", "/api/blobs/" + store::digest_of("x").text(), "y").status, 400);
  EXPECT_EQ(ask("POST", "/api/blobs/nonsense", "y").status, 400);
  EXPECT_EQ(ask("POST", "/api/blobs/..%2f..%2fetc", "y").status, 404);
  EXPECT_EQ(ask("POST", "/api/blobs/" + digest, weights).status, 201);
  EXPECT_EQ(ask("HEAD", "/api/blobs/" + digest).status, 200);
  EXPECT_EQ(ask("POST", "/api/blobs/" + digest, weights).status, 200);

  const Answer created =
      ask("POST", "/api/create",
          std::format(R"({{"model":"mine","files":{{"m.gguf":"{}"}},"system":"S",)"
                      R"("template":"{{{{ .System }}}}-{{{{ .Prompt }}}}"}})",
                      digest));
  ASSERT_EQ(created.status, 200) << created.body;
  EXPECT_EQ(created.lines().back().at("status").as_string(), "success") << created.body;
  EXPECT_EQ(ask("POST", "/api/generate", R"({"model":"mine","prompt":"x","stream":false})")
                .json()
                .at("response")
                .as_string(),
            "S-X");
  EXPECT_EQ(ask("POST", "/api/show", R"({"model":"mine"})").json().at("system").as_string(), "S");
  const Answer copied = ask("POST", "/api/copy", R"({"source":"mine","destination":"yours"})");
  EXPECT_EQ(copied.status, 200);
  EXPECT_EQ(copied.body, "");
  EXPECT_EQ(ask("DELETE", "/api/delete", R"({"model":"mine"})").status, 200);
  EXPECT_EQ(ask("POST", "/api/show", R"({"model":"mine"})").status, 404);
  EXPECT_EQ(ask("POST", "/api/show", R"({"model":"yours"})").status, 200);
  const Answer failed = ask("POST", "/api/create", R"({"model":"bad","from":"nope"})");
  EXPECT_THAT(failed.body, HasSubstr("error"));
}

// Nothing that a request names is looked for outside the models' folder.
TEST_F(ServerTest, BadNamesAndDigests) {
  start();
  const std::string secret = folder_.string() + "-secret";
  std::ofstream(secret) << "s";
  for (const std::string& name :
       {std::string(".."), std::string("../x"), std::string("a/../../x"),
        std::string("/etc/passwd"), std::string("a\\u0000b"), std::string(81, 'a'),
        "a:" + std::string(81, 'b'), std::string(351, 'h') + "/a/b", std::string("a/b/c/d/e"),
        std::string("-a"), "../" + std::filesystem::path(secret).filename().string()}) {
    const std::string quoted = json::serialize(json::string(name));
    const std::string text = name.contains('\\') ? "\"a\\u0000b\"" : quoted;
    for (const auto& [method, path, body] : std::vector<std::array<std::string, 3>>{
             {"POST", "/api/show", std::format(R"({{"model":{}}})", text)},
             {"POST", "/api/create", std::format(R"({{"model":{},"from":"stories260k"}})", text)},
             {"POST", "/api/create", std::format(R"({{"model":"x","from":{}}})", text)},
             {"POST", "/api/copy",
              std::format(R"({{"source":"stories260k","destination":{}}})", text)},
             {"POST", "/api/copy", std::format(R"({{"source":{},"destination":"x"}})", text)},
             {"DELETE", "/api/delete", std::format(R"({{"model":{}}})", text)},
             {"POST", "/api/generate", std::format(R"({{"model":{},"prompt":"x"}})", text)}}) {
      const Answer answer = ask(method, path, body);
      EXPECT_EQ(answer.status, 400) << path << " " << body;
      EXPECT_FALSE(answer.error().empty());
    }
  }
  const std::string hex(64, 'a');
  for (const std::string& digest :
       {"sha256:" + hex.substr(1), "sha256:" + hex + "a", "sha512:" + hex, hex,
        "sha256:" + hex.substr(1) + "g", std::string("sha256:..%2f..%2fx"), "sha256%00" + hex}) {
    EXPECT_THAT(ask("POST", "/api/blobs/" + digest, "x").status, testing::AnyOf(400, 404))
        << digest;
    EXPECT_THAT(ask("HEAD", "/api/blobs/" + digest).status, testing::AnyOf(400, 404)) << digest;
  }
  EXPECT_FALSE(std::filesystem::exists(folder_)) << "a refused request leaves something";
  std::filesystem::remove(secret);
}

// What a hostile or damaged folder holds gets an error that names the model, and others are served.
// It is not that there is no such model.
TEST_F(ServerTest, SaysWhichPartOfAModelIsMissing) {
  ASSERT_EQ(ask("POST", "/api/copy", R"({"source":"stories260k","destination":"torn"})").status,
            200);
  for (const auto& blob : std::filesystem::directory_iterator(folder_ / "blobs")) {
    if (blob.is_regular_file() && blob.file_size() > 100'000) std::filesystem::remove(blob);
  }
  for (const auto& [path, body] : {std::pair("/api/copy", R"({"source":"torn","destination":"b"})"),
                                   std::pair("/api/generate", R"({"model":"torn","prompt":"a"})"),
                                   std::pair("/api/show", R"({"model":"torn"})")}) {
    const Answer answer = ask("POST", path, body);
    EXPECT_EQ(answer.status, 404) << path;
    EXPECT_THAT(answer.error(), testing::MatchesRegex("model 'torn:latest': blob sha256:.* not "
                                                      "found; pull or create the model again"))
        << path;
  }
}

TEST_F(ServerTest, HostileManifests) {
  start();
  ASSERT_EQ(ask("POST", "/api/copy", R"({"source":"stories260k","destination":"good"})").status,
            200);
  const auto library = folder_ / "manifests" / "registry.ollama.ai" / "library";
  std::ifstream in(library / "good" / "latest");
  const std::string good{std::istreambuf_iterator<char>(in), {}};
  const auto changed = [&](std::string_view from, std::string_view to) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    return text;
  };
  std::string many = good.substr(0, good.find("\"layers\":[") + 10);
  const std::string layer = good.substr(good.find("{\"mediaType\"", many.size()));
  for (int i = 0; i < 10'000; ++i) many += layer.substr(0, layer.find('}') + 1) + ",";
  many.back() = ']';
  many += "}";
  std::filesystem::create_directories(library / "bad");
  for (const auto& [text, why] : std::vector<std::pair<std::string, std::string>>{
           {changed("\"size\":", "\"size\":-"), "size"},
           {changed("\"schemaVersion\":2", "\"schemaVersion\":1"), "schemaVersion"},
           {many, "10000 layers"},
           {changed("image.model", "image.unknown"), "no GGUF weights"},
           {changed("sha256:", "sha256:/"), "invalid digest"},
           {std::string(std::size_t{5} << 20, '['), "too many"},
           {"", "JSON"},
           {std::string(10'000, '['), "JSON"}}) {
    std::ofstream(library / "bad" / "latest", std::ios::trunc) << text;
    const Answer shown = ask("POST", "/api/show", R"({"model":"bad"})");
    EXPECT_GE(shown.status, 400) << why;
    EXPECT_THAT(shown.error(), HasSubstr(why));
    EXPECT_THAT(shown.error(), HasSubstr("bad"));
    EXPECT_GE(ask("POST", "/api/generate", R"({"model":"bad","prompt":"x"})").status, 400) << why;
    EXPECT_GE(ask("POST", "/api/create", R"({"model":"new","from":"bad"})").status, 400) << why;
    EXPECT_THAT(ask("GET", "/api/tags").body, HasSubstr("good:latest")) << why;
    EXPECT_EQ(ask("POST", "/api/show", R"({"model":"good"})").status, 200) << why;
  }
  EXPECT_FALSE(std::filesystem::exists(library / "new"));
  EXPECT_EQ(ask("DELETE", "/api/delete", R"({"model":"bad"})").status, 200)
      << "nobody can get rid of it";
}

TEST_F(ServerTest, ListAndShowHaveOllamasShape) {
  ASSERT_EQ(ask("POST", "/api/create",
                R"({"model":"mine","from":"stories260k","system":"S","license":["A","B"],)"
                R"("parameters":{"stop":["x"],"top_k":3},"stream":false})")
                .body,
            R"({"status":"success"})");
  const auto keys = [](const json::value& value) {
    std::vector<std::string> names;
    for (const auto& [key, ignored] : value.as_object()) names.emplace_back(key);
    return names;
  };
  const json::value listed = ask("GET", "/api/tags").json().at("models").at(0);
  EXPECT_THAT(keys(listed), testing::ElementsAre("name", "model", "modified_at", "size", "digest",
                                                 "details", "capabilities"));
  EXPECT_THAT(keys(listed.at("details")),
              testing::ElementsAre("parent_model", "format", "family", "families", "parameter_size",
                                   "quantization_level", "context_length", "embedding_length"));
  const json::value shown = ask("POST", "/api/show", R"({"model":"mine"})").json();
  for (const char* key : {"license", "modelfile", "parameters", "template", "system", "details",
                          "model_info", "tensors", "capabilities", "modified_at"}) {
    EXPECT_TRUE(shown.as_object().contains(key)) << key;
  }
  EXPECT_EQ(shown.at("license").as_string(), "MIT\nA\nB");
  EXPECT_EQ(shown.at("details").at("parent_model").as_string(), "stories260k:latest");
  const auto vocabulary = [&](const char* body) {
    return ask("POST", "/api/show", body)
        .json()
        .at("model_info")
        .at("tokenizer.ggml.tokens")
        .as_array()
        .size();
  };
  EXPECT_EQ(vocabulary(R"({"model":"mine"})"), 0U);
  EXPECT_EQ(vocabulary(R"({"model":"mine","verbose":true})"), 512U);
}

// Several clients send one blob: all succeed, and it is there once.
TEST_F(ServerTest, OneBlobFromSeveralClients) {
  start();
  const std::string bytes(2'000'000, 'b');
  const std::string digest = store::digest_of(bytes).text();
  std::atomic<int> refused = 0;
  {
    std::vector<std::jthread> clients;
    for (int i = 0; i < 4; ++i) {
      clients.emplace_back([&] {
        const int status = Client(port_).ask("POST", "/api/blobs/" + digest, bytes).status;
        if (status != 200 && status != 201) ++refused;
      });
    }
  }
  EXPECT_EQ(refused, 0);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_ / "blobs"), {}), 1);
  EXPECT_EQ(
      ask("POST", "/api/blobs/" + store::digest_of("").text(), "", "Content-Length: 0\r\n").status,
      201)
      << "an empty file";
}

TEST_F(ServerTest, ABlobThatCannotFitIsRefusedBeforeItIsSent) {
  Client sender = client();
  sender.send(
      std::format("POST /api/blobs/{} HTTP/1.1\r\nHost: localhost\r\n"
                  "Content-Length: 8000000000000000\r\n\r\n",
                  store::digest_of("big").text()));
  const Answer answer = sender.receive();
  EXPECT_EQ(answer.status, 507);
  EXPECT_THAT(answer.error(), HasSubstr("does not fit"));
}

// A blob that ends early leaves nothing behind.
TEST_F(ServerTest, InterruptedBlob) {
  const std::string digest = store::digest_of("0123456789").text();
  {
    Client gone = client();
    gone.send(std::format(
        "POST /api/blobs/{} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n0123",
        digest));
  }
  EXPECT_EQ(ask("HEAD", "/api/blobs/" + digest).status, 404);
  // The server notices soon; if it never does, the test hangs and is ended.
  while (std::filesystem::exists(folder_ / "blobs") &&
         !std::filesystem::is_empty(folder_ / "blobs")) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_EQ(ask("POST", "/api/blobs/" + digest, "0123456789").status, 201);
}

// ---- The end

TEST_F(ServerTest, StopsWithAnswersInProgress) {
  Client busy = client();
  busy.request("POST", "/api/generate", kEndless);
  EXPECT_FALSE((busy.receive_head(), busy.receive_chunk()).empty());
  Client idle = client();
  EXPECT_EQ(idle.ask("GET", "/").status, 200);
  stop();
  while (!busy.receive_chunk().empty()) {
  }
  EXPECT_TRUE(idle.closed());
}

// What is waited for after the loop's end may hang: a second signal is the system's again.
TEST_F(ServerTest, ASecondSignalWaitsForNobody) {
  handle_signals_ = true;
  const auto handler_of = [](int signal) {
    struct sigaction action{};
    ::sigaction(signal, nullptr, &action);
    return action.sa_handler;
  };
  EXPECT_EQ(ask("GET", "/").status, 200);
  EXPECT_NE(handler_of(SIGINT), SIG_DFL);
  ::kill(::getpid(), SIGINT);
  thread_.join();  // run() has returned, and nothing is destroyed yet
  EXPECT_EQ(handler_of(SIGINT), SIG_DFL);
  EXPECT_EQ(handler_of(SIGTERM), SIG_DFL);
  server_.reset();
}

TEST_F(ServerTest, AddressInUse) {
  start();
  config_.host.port = port_;
  const auto second = Server::listen({.config = config_,
                                      .store = {.models = folder_, .bundled = {}, .prune = false},
                                      .make_factory = {}});
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().message(),
            std::format("listen tcp 127.0.0.1:{}: bind: address already in use", port_));
}

}  // namespace
}  // namespace ollama::server

int main(int argc, char** argv) {
  if (const auto code = ollama::runner::serve_as_fake_child(argc, argv)) return *code;
  if (argc > 1 && std::string_view(argv[1]) == "--engine-child") {
    return ollama::runner::run_child(ollama::runner::kChildSocket);
  }
  std::signal(SIGPIPE, SIG_IGN);
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
