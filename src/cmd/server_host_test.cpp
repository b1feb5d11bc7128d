// What a user sees while a server loads a model, with a server that stands still until it was seen.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <format>
#include <list>
#include <mutex>
#include <thread>

#include "api/client.h"
#include "base/loopback.h"
#include "base/unique_fd.h"
#include "cmd/command.h"
#include "cmd/commands.h"
#include "cmd/model_host.h"
#include "cmd/session.h"

namespace ollama::cmd {
namespace {

using testing::ContainsRegex;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr std::chrono::seconds kPatience{20};  // with what never comes

// Says of "m", as often as it is asked, that it is loaded so far; answers a request to load it when
// told to.
class LoadingServer {
 public:
  LoadingServer() {
    Loopback loopback = listen_on_loopback();
    listener_ = std::move(loopback.socket);
    config_.host.port = loopback.port;
    acceptor_ = std::jthread([this] {
      while (true) {
        UniqueFd connection(::accept(listener_.get(), nullptr, nullptr));
        if (!connection) return;
        connections_.emplace_back(
            [this, connection = std::move(connection)] { serve(connection); });
      }
    });
  }
  ~LoadingServer() {
    finish();
    ::shutdown(listener_.get(), SHUT_RDWR);
    acceptor_.join();
  }

  const envconfig::Config& config() const { return config_; }
  void set_loaded(double share) {
    const std::scoped_lock lock(mutex_);
    loaded_ = share;
  }
  // Answers the request to load.
  void finish() {
    const std::scoped_lock lock(mutex_);
    finished_ = true;
    finish_.notify_all();
  }

 private:
  void serve(const UniqueFd& connection) {
    std::string request;
    char buffer[4096];
    while (!request.contains("\r\n\r\n")) {
      const ssize_t count = ::recv(connection.get(), buffer, sizeof buffer, 0);
      if (count <= 0) return;
      request.append(buffer, static_cast<std::size_t>(count));
    }
    const std::string body = answer_to(request);
    const std::string bytes = std::format(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}", body.size(), body);
    ::send(connection.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    // What of the request was not read would reset the connection.
    ::shutdown(connection.get(), SHUT_WR);
    while (::recv(connection.get(), buffer, sizeof buffer, 0) > 0) {
    }
  }

  std::string answer_to(std::string_view request) {
    std::unique_lock lock(mutex_);
    if (request.starts_with("POST /api/show ")) return R"({"capabilities":["completion"]})";
    if (request.starts_with("GET /api/ps ")) {
      return std::format(R"({{"models":[{{"name":"other:latest","size":500,"loading":0.9}},)"
                         R"({{"name":"ready:latest","size":500}},)"
                         R"({{"name":"m:latest","size":1000,"loading":{}}}]}})",
                         loaded_);
    }
    if (request.starts_with("POST /api/generate ")) {
      finish_.wait_for(lock, 2 * kPatience, [&] { return finished_; });
      return R"({"model":"m","done":true,"done_reason":"load"})";
    }
    return {};
  }

  envconfig::Config config_;
  UniqueFd listener_;
  std::mutex mutex_;
  std::condition_variable finish_;
  double loaded_ = 0;
  bool finished_ = false;
  std::list<std::jthread> connections_;
  std::jthread acceptor_;
};

// Standard error is a terminal while this lives.
class Terminal {
 public:
  Terminal() : before_(::dup(STDERR_FILENO)) {
    int screen = -1;
    int user = -1;
    const winsize size{.ws_row = 24, .ws_col = 100, .ws_xpixel = 0, .ws_ypixel = 0};
    if (::openpty(&user, &screen, nullptr, nullptr, &size) != 0) {
      ADD_FAILURE() << "no terminal";
      return;
    }
    user_.reset(user);
    ::dup2(screen, STDERR_FILENO);
    ::close(screen);
  }
  ~Terminal() { ::dup2(before_.get(), STDERR_FILENO); }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  // Reads on until the text was shown. False: it never was.
  bool shows(std::string_view text) {
    const auto end = std::chrono::steady_clock::now() + kPatience;
    while (!shown_.contains(text)) {
      pollfd waiting{.fd = user_.get(), .events = POLLIN, .revents = 0};
      if (std::chrono::steady_clock::now() > end || ::poll(&waiting, 1, 1000) < 0) return false;
      if (waiting.revents == 0) continue;
      char buffer[4096];
      const ssize_t count = ::read(user_.get(), buffer, sizeof buffer);
      if (count <= 0) return false;
      shown_.append(buffer, static_cast<std::size_t>(count));
    }
    return true;
  }
  const std::string& shown() const { return shown_; }

 private:
  UniqueFd before_;
  UniqueFd user_;
  std::string shown_;
};

TEST(Loading, IsShownOnTheTerminal) {
  LoadingServer server;
  auto client = api::Client::create(server.config());
  ASSERT_TRUE(client);
  const auto host = server_host(*client, server.config());
  Session session{.model = "m"};
  Terminal terminal;
  Result<> loaded;
  {
    const std::jthread user([&] {
      for (const int percent : {0, 25, 50}) {
        server.set_loaded(percent / 100.0);
        EXPECT_TRUE(terminal.shows(std::format("loading model {:3}% ", percent)));
      }
      EXPECT_TRUE(terminal.shows(" 500 B/1 KB"));
      server.finish();
    });
    loaded = load_model(*host, session);
  }
  EXPECT_TRUE(loaded) << loaded.error().message();
  EXPECT_THAT(terminal.shown(), Not(HasSubstr("90%"))) << "another model";
}

TEST(Loading, EndsWithoutAQuestionWhereNobodyListens) {
  LoadingServer server;
  server.finish();
  auto client = api::Client::create(server.config());
  ASSERT_TRUE(client);
  api::GenerateRequest request;
  request.model = "m";
  EXPECT_TRUE(server_host(*client, server.config())->load(request, {}));
}

TEST(Loading, IsListedByPs) {
  LoadingServer server;
  server.set_loaded(0.42);
  const Command ps = ps_command(server.config());
  testing::internal::CaptureStdout();
  const auto code = ps.run(Arguments{});
  const std::string table = testing::internal::GetCapturedStdout();
  ASSERT_TRUE(code) << code.error().message();
  EXPECT_THAT(table, ContainsRegex("m:latest .* loading 42 % "));
  EXPECT_THAT(table, ContainsRegex("ready:latest .* 100% CPU "));
}

}  // namespace
}  // namespace ollama::cmd
