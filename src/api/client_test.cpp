#include "api/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <format>
#include <fstream>
#include <mutex>
#include <thread>

#include "base/loopback.h"
#include "base/unique_fd.h"

namespace ollama::api {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

// Answers the connections it gets with canned bytes, one answer each, and keeps what was asked.
class CannedServer {
 public:
  // After its last answer the connection stays open until the client leaves, when `hold` is set.
  explicit CannedServer(std::vector<std::string> answers, bool hold = false)
      : answers_(std::move(answers)), hold_(hold) {
    Loopback loopback = listen_on_loopback();
    listener_ = std::move(loopback.socket);
    port_ = loopback.port;
    thread_ = std::jthread([this] { serve(); });
  }
  ~CannedServer() {
    ::shutdown(listener_.get(), SHUT_RDWR);
    thread_.join();
  }

  std::uint16_t port() const { return port_; }
  std::vector<std::string> requests() {
    const std::lock_guard lock(mutex_);
    return requests_;
  }
  // Until the client has closed the connection that is held.
  void wait_until_client_left() const { client_left_.wait(false); }
  void wait_until_answered() {
    std::unique_lock lock(mutex_);
    answered_.wait(lock, [&] { return count_ == answers_.size(); });
  }

  envconfig::Config config() const {
    envconfig::Config config;
    config.host.port = port_;
    return config;
  }
  Client client() const { return std::move(*Client::create(config())); }

 private:
  void serve() {
    for (const std::string& answer : answers_) {
      const UniqueFd connection(::accept(listener_.get(), nullptr, nullptr));
      if (!connection) return;
      std::string request;
      std::size_t wanted = std::string::npos;
      while (request.size() < wanted) {
        char buffer[4096];
        const ssize_t count = ::recv(connection.get(), buffer, sizeof buffer, 0);
        if (count <= 0) break;
        request.append(buffer, static_cast<std::size_t>(count));
        if (const auto end = request.find("\r\n\r\n"); end != std::string::npos) {
          const auto length = request.find("Content-Length: ");
          wanted = end + 4;
          if (length < end) wanted += std::stoul(request.substr(length + 16));
        }
      }
      {
        // Before the answer: whoever has that one may ask for the requests.
        const std::lock_guard lock(mutex_);
        requests_.push_back(request);
      }
      ::send(connection.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
      {
        const std::lock_guard lock(mutex_);
        ++count_;
      }
      answered_.notify_all();
      if (hold_ && &answer == &answers_.back()) {
        char byte = 0;
        client_left_ = ::recv(connection.get(), &byte, 1, 0) <= 0;
        client_left_.notify_all();
      }
    }
  }

  std::vector<std::string> answers_;
  bool hold_;
  UniqueFd listener_;
  std::uint16_t port_ = 0;
  std::mutex mutex_;
  std::condition_variable answered_;
  std::size_t count_ = 0;
  std::vector<std::string> requests_;
  std::atomic<bool> client_left_ = false;
  std::jthread thread_;
};

std::string answer(std::string_view status, std::string_view body) {
  return std::format("HTTP/1.1 {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}", status,
                     body.size(), body);
}

std::string chunked(const std::vector<std::string>& chunks, bool finished = true) {
  std::string text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
  for (const std::string& chunk : chunks)
    text += std::format("{:x}\r\n{}\r\n", chunk.size(), chunk);
  return finished ? text + "0\r\n\r\n" : text;
}

GenerateRequest generate_request() {
  GenerateRequest request;
  request.model = "m";
  request.prompt = "hi";
  return request;
}

TEST(Client, ListsModels) {
  CannedServer server({answer("200 OK", R"({"models":[{"name":"a:latest","size":7}]})")});
  const auto list = server.client().list();
  ASSERT_TRUE(list) << list.error().message();
  ASSERT_EQ(list->models.size(), 1U);
  EXPECT_EQ(list->models[0].name, "a:latest");
  EXPECT_THAT(server.requests(), ElementsAre(StartsWith("GET /api/tags HTTP/1.1\r\n")));
}

// Lines arrive cut anywhere; each must be handed on whole, once, in order.
TEST(Client, StreamsLines) {
  CannedServer server({chunked({R"({"response":"On)", "ce\"}\n{\"response\":\" upon\"}\n\n{\"resp",
                                R"(onse":"","done":true,"eval_count":2})"})});
  std::vector<std::string> pieces;
  GenerateResponse last;
  const auto result = server.client().generate(generate_request(), [&](const auto& response) {
    pieces.push_back(response.response);
    last = response;
    return true;
  });
  ASSERT_TRUE(result) << result.error().message();
  EXPECT_THAT(pieces, ElementsAre("Once", " upon", ""));
  EXPECT_TRUE(last.done);
  EXPECT_EQ(last.metrics.eval_count, 2);
  const auto requests = server.requests();
  ASSERT_EQ(requests.size(), 1U);
  EXPECT_THAT(requests[0], StartsWith("POST /api/generate HTTP/1.1\r\n"));
  EXPECT_THAT(requests[0], HasSubstr("Content-Type: application/json\r\n"));
  EXPECT_THAT(requests[0], HasSubstr(R"({"model":"m","prompt":"hi"})"));
}

TEST(Client, TheCallbackCanEndTheStream) {
  CannedServer server({chunked({"{\"response\":\"a\"}\n{\"response\":\"b\"}\n"}, false)}, true);
  int calls = 0;
  const auto result = server.client().generate(generate_request(), [&](const auto&) {
    ++calls;
    return false;
  });
  EXPECT_TRUE(result);
  EXPECT_EQ(calls, 1);
}

TEST(Client, ErrorBodiesBecomeErrors) {
  struct Case {
    const char* status;
    const char* body;
    ErrorCode code;
    const char* message;
  };
  for (const Case& c : std::initializer_list<Case>{
           {"404 Not Found", R"({"error":"model 'm' not found"})", ErrorCode::kNotFound,
            "model 'm' not found"},
           {"400 Bad Request", R"({"error":{"message":"bad","type":"x"}})",
            ErrorCode::kInvalidArgument, "bad"},
           {"503 Service Unavailable", R"({"error":"busy"})", ErrorCode::kUnavailable, "busy"},
           {"401 Unauthorized", R"({"error":"unauthorized"})", ErrorCode::kPermission,
            "unauthorized (OLLAMA_API_KEYS must have one of the server's keys first)"},
           {"401 Unauthorized", "no", ErrorCode::kPermission,
            "the server answered with status 401: no"},
           {"500 Oops", "", ErrorCode::kInternal, "the server answered with status 500"},
       }) {
    CannedServer server({answer(c.status, c.body), answer(c.status, c.body)});
    Client client = server.client();
    const auto streamed = client.generate(generate_request(), {});
    const auto plain = client.list();
    ASSERT_FALSE(streamed) << c.status;
    ASSERT_FALSE(plain) << c.status;
    EXPECT_EQ(streamed.error().code(), c.code);
    EXPECT_EQ(plain.error().code(), c.code);
    EXPECT_EQ(streamed.error().message(), c.message);
    EXPECT_EQ(plain.error().message(), c.message);
  }
}

// The status was sent before generation failed: the error comes as a line.
TEST(Client, AnErrorInTheStream) {
  CannedServer server({chunked({"{\"response\":\"a\"}\n{\"error\":\"the runner died\"}\n"})});
  std::vector<std::string> pieces;
  const auto result = server.client().generate(generate_request(), [&](const auto& response) {
    pieces.push_back(response.response);
    return true;
  });
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().message(), "the runner died");
  EXPECT_THAT(pieces, ElementsAre("a"));
}

TEST(Client, HostileAnswersAreErrors) {
  for (const std::string& bytes :
       {answer("200 OK", "{\"models\": [}"), answer("200 OK", "[]"), answer("200 OK", ""),
        answer("200 OK", R"({"models":3})"), std::string("HTTP/1.1 200 OK\r\nContent-Le"),
        std::string("\x16\x03\x01 not http\r\n\r\n"), std::string()}) {
    CannedServer server({bytes});
    EXPECT_FALSE(server.client().list()) << bytes;
  }
  CannedServer server({chunked({"{\"response\":\"a\"}\n", "{\"respo"}, false)});
  EXPECT_FALSE(server.client().generate(generate_request(), {})) << "a stream that breaks off";
}

TEST(Client, NoServerSaysHowToStartOne) {
  envconfig::Config config;
  {
    const CannedServer server({});
    config = server.config();
  }
  auto client = Client::create(config);
  ASSERT_TRUE(client);
  const auto result = client->heartbeat();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::kUnavailable);
  EXPECT_EQ(result.error().message(),
            "could not connect to ollama server, run 'ollama serve' to start it");
}

TEST(Client, AHostThatIsNoneIsAnError) {
  envconfig::Config config;
  config.host.name = "not a host";
  EXPECT_FALSE(Client::create(config)->heartbeat());
  config.host = {};
  config.host.scheme = "gopher";
  EXPECT_FALSE(Client::create(config)->heartbeat());
}

TEST(Client, HeartbeatAndVersion) {
  CannedServer server({"HTTP/1.1 200 OK\r\nContent-Length: 17\r\nConnection: close\r\n\r\n",
                       answer("200 OK", R"({"version":"0.33.0"})")});
  Client client = server.client();
  EXPECT_TRUE(client.heartbeat());
  EXPECT_EQ(client.version(), "0.33.0");
  EXPECT_THAT(server.requests(),
              ElementsAre(StartsWith("HEAD / "), StartsWith("GET /api/version")));
}

TEST(Client, StopTokensAndFlagsCancel) {
  {
    CannedServer server({chunked({"{\"response\":\"a\"}\n"}, false)}, true);
    std::stop_source source;
    Client client = server.client();
    client.set_stop_token(source.get_token());
    const std::jthread stopper([&] {
      server.wait_until_answered();
      source.request_stop();
    });
    const auto result = client.generate(generate_request(), {});
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code(), ErrorCode::kCancelled);
  }
  {
    CannedServer server({chunked({"{\"response\":\"a\"}\n"}, false)}, true);
    std::atomic<bool> flag = false;
    Client client = server.client();
    client.set_stop_flag(&flag);
    const auto result = client.generate(generate_request(), [&](const auto&) {
      flag = true;
      return true;
    });
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code(), ErrorCode::kCancelled);
    // The server learns of it: it is what stops the generation there.
    server.wait_until_client_left();
  }
}

// A proxy in the environment must not see what goes to this machine.
TEST(Client, ProxiesAreNotUsedForLoopback) {
  CannedServer server({answer("200 OK", R"({"version":"1"})")});
  envconfig::Config config = server.config();
  config.http_proxy = "http://127.0.0.1:1";
  EXPECT_EQ(Client::create(config)->version(), "1");
}

TEST(Client, ProxiesAreUsedElsewhere) {
  CannedServer server({answer("200 OK", R"({"version":"1"})")});
  envconfig::Config config;
  config.host.name = "ollama.invalid";
  config.http_proxy = server.config().host.url();
  EXPECT_EQ(Client::create(config)->version(), "1");
  EXPECT_THAT(server.requests(),
              ElementsAre(StartsWith("GET http://ollama.invalid:11434/api/version ")));
}

TEST(Client, SendsTheApiKeyAndThePath) {
  CannedServer server({answer("200 OK", R"({"version":"1"})")});
  envconfig::Config config = server.config();
  config.host.path = "base";
  config.api_keys = {"k1", "k2"};
  EXPECT_TRUE(Client::create(config)->version());
  ASSERT_EQ(server.requests().size(), 1U);
  EXPECT_THAT(server.requests()[0], StartsWith("GET /base/api/version "));
  EXPECT_THAT(server.requests()[0], HasSubstr("Authorization: Bearer k1\r\n"));
  config.api_keys = {"a\r\nX-Evil: 1"};
  EXPECT_FALSE(Client::create(config));
}

TEST(Client, Blobs) {
  const auto path = std::filesystem::path(testing::TempDir()) / "client_blob";
  const std::string bytes(300'000, 'x');
  std::ofstream(path, std::ios::binary) << bytes;
  CannedServer server({answer("404 Not Found", ""), answer("201 Created", ""), answer("200 OK", ""),
                       answer("400 Bad Request", R"({"error":"digest"})")});
  Client client = server.client();
  EXPECT_EQ(client.has_blob("sha256:1"), false);
  ProgressResponse last;
  EXPECT_TRUE(client.upload_blob("sha256:1", path, [&](const ProgressResponse& progress) {
    last = progress;
    return true;
  }));
  EXPECT_EQ(last.completed, bytes.size());
  EXPECT_EQ(last.total, bytes.size());
  EXPECT_EQ(client.has_blob("sha256:1"), true);
  const auto bad = client.upload_blob("sha256:1", path);
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().message(), "digest");
  const auto requests = server.requests();
  ASSERT_EQ(requests.size(), 4U);
  EXPECT_THAT(requests[0], StartsWith("HEAD /api/blobs/sha256:1 "));
  EXPECT_TRUE(requests[1].ends_with("\r\n\r\n" + bytes));
  std::filesystem::remove(path);
  EXPECT_FALSE(client.upload_blob("sha256:1", path)) << "a missing file";
}

TEST(Client, SimpleRequests) {
  CannedServer server({answer("200 OK", ""), answer("200 OK", ""),
                       answer("200 OK", "{\"status\":\"success\"}"),
                       answer("200 OK", R"({"embeddings":[[0.5,1]]})")});
  Client client = server.client();
  EXPECT_TRUE(client.copy({"a", "b"}));
  EXPECT_TRUE(client.remove({"a"}));
  std::vector<std::string> statuses;
  EXPECT_TRUE(client.pull({.model = "a"}, [&](const ProgressResponse& progress) {
    statuses.push_back(progress.status);
    return true;
  }));
  EXPECT_THAT(statuses, ElementsAre("success"));
  EmbedRequest embed;
  embed.model = "e";
  embed.input = {"x"};
  const auto embeddings = client.embed(embed);
  ASSERT_TRUE(embeddings);
  EXPECT_THAT(embeddings->embeddings, ElementsAre(ElementsAre(0.5F, 1.0F)));
  const auto requests = server.requests();
  EXPECT_THAT(requests[0], HasSubstr(R"({"source":"a","destination":"b"})"));
  EXPECT_THAT(requests[1], StartsWith("DELETE /api/delete "));
  EXPECT_THAT(requests[1], HasSubstr(R"({"model":"a"})"));
}

}  // namespace
}  // namespace ollama::api
