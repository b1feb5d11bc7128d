// For tests: a registry on loopback that keeps what it is given in memory, and that a test can make
// behave badly, request by request.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <format>
#include <functional>
#include <list>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/loopback.h"
#include "base/unique_fd.h"
#include "base/units.h"
#include "store/digest.h"
#include "store/manifest.h"

namespace ollama::store {

class FakeRegistry {
 public:
  struct Call {
    std::string method;
    std::string path;   // without the query
    std::string query;  // without '?'
    std::string head;   // request line and headers
    std::string body;
    int connection = -1;
    const std::atomic<bool>* closing = nullptr;

    // In small letters or as curl writes it; empty when missing.
    std::string header(std::string_view name) const {
      const auto at = head.find(std::format("\r\n{}: ", name));
      if (at == std::string::npos) return {};
      const auto begin = at + name.size() + 4;
      return head.substr(begin, head.find("\r\n", begin) - begin);
    }
    bool is_blob() const { return method == "GET" && path.contains("/blobs/sha256:"); }
    // False when the client is gone.
    bool send(std::string_view bytes) const {
      while (!bytes.empty()) {
        const ssize_t sent = ::send(connection, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (sent <= 0) return false;
        bytes.remove_prefix(static_cast<std::size_t>(sent));
      }
      return true;
    }
    void answer(std::string_view status, std::string_view text = {},
                std::string_view headers = {}) const {
      send(
          std::format("HTTP/1.1 {}\r\nContent-Length: {}\r\n{}\r\n", status, text.size(), headers));
      if (method != "HEAD") send(text);
    }
    // Until the client leaves or the test ends.
    void hold() const {
      char byte = 0;
      while (!*closing && ::recv(connection, &byte, 1, 0) > 0) {
      }
    }
  };
  enum class Then { kAnswered, kClose, kGoOn };  // kGoOn: as a registry should
  using Hook = std::function<Then(const Call&)>;

  FakeRegistry() {
    Loopback loopback = listen_on_loopback();
    listener_ = std::move(loopback.socket);
    port_ = loopback.port;
    accepting_ = std::jthread([this] { accept(); });
  }
  ~FakeRegistry() {
    closing_ = true;
    ::shutdown(listener_.get(), SHUT_RDWR);
    accepting_.join();
    for (Connection& connection : connections_) ::shutdown(connection.fd.get(), SHUT_RDWR);
    connections_.clear();  // joins
  }

  std::string origin() const { return std::format("http://127.0.0.1:{}", port_); }
  std::string host() const { return std::format("127.0.0.1:{}", port_); }

  // ---- What it holds
  Layer add_blob(std::string_view media_type, std::string bytes) {
    const Digest digest = digest_of(bytes);
    Layer layer{std::string(media_type), digest, bytes.size(), {}};
    const std::lock_guard lock(mutex_);
    blobs[digest.text()] = std::move(bytes);
    return layer;
  }
  // A model of these weights; returns its manifest.
  Manifest add_model(const std::string& name_and_tag, std::string weights) {
    Manifest manifest{add_blob(kConfigType, R"({"model_format":"gguf","model_family":"llama"})"),
                      {add_blob(kModelLayer, std::move(weights))}};
    const std::lock_guard lock(mutex_);
    manifests[name_and_tag] = to_text(manifest);
    return manifest;
  }
  // While it serves.
  void set_manifest(const std::string& name_and_tag, std::string text) {
    const std::lock_guard lock(mutex_);
    manifests[name_and_tag] = std::move(text);
  }
  void clear_manifests() {
    const std::lock_guard lock(mutex_);
    manifests.clear();
  }
  std::map<std::string, std::string> blobs;      // by digest
  std::map<std::string, std::string> manifests;  // by "namespace/model:tag"

  // ---- How it behaves; may be set while it serves
  class Slot {
   public:
    Slot& operator=(Hook hook) {
      const std::lock_guard lock(mutex_);
      hook_ = std::move(hook);
      return *this;
    }
    Hook get() {
      const std::lock_guard lock(mutex_);
      return hook_;
    }

   private:
    std::mutex mutex_;
    Hook hook_;
  };
  Slot hook;
  // Waits until no request is being answered, so that what a hook refers to may go.
  void settle() {
    std::unique_lock lock(mutex_);
    called_.wait(lock, [&] { return answering_ == 0; });
  }
  // ---- What it was asked
  std::vector<Call> calls() {
    const std::lock_guard lock(mutex_);
    return calls_;
  }
  std::size_t count(const std::function<bool(const Call&)>& which) {
    const std::lock_guard lock(mutex_);
    return static_cast<std::size_t>(std::ranges::count_if(calls_, which));
  }
  // Once no request is being answered: a client can have it all before it is counted.
  std::uint64_t blob_bytes_sent() {
    settle();
    return blob_bytes_sent_;
  }
  // Waits until that many requests for blobs have come.
  void wait_for_blob_calls(std::size_t wanted) {
    std::unique_lock lock(mutex_);
    called_.wait(lock, [&] {
      return static_cast<std::size_t>(std::ranges::count_if(calls_, &Call::is_blob)) >= wanted;
    });
  }

  // As if a chunk had come, and been answered.
  void append_to_upload(std::string_view bytes) {
    const std::lock_guard lock(mutex_);
    uploads_.back() += bytes;
  }
  // Answers a request for a blob as it should be.
  void serve_blob(const Call& call, const std::string& bytes) {
    std::size_t begin = 0;
    std::size_t end = bytes.size();
    const std::string range = call.header("Range");
    std::string head = "HTTP/1.1 200 OK\r\n";
    if (range.starts_with("bytes=")) {
      begin = std::stoul(range.substr(6));
      end = std::min(end, std::stoul(range.substr(range.find('-') + 1)) + 1);
      if (begin >= bytes.size()) return call.answer("416 Range Not Satisfiable");
      head = std::format("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {}-{}/{}\r\n", begin,
                         end - 1, bytes.size());
    }
    call.send(head + std::format("Content-Length: {}\r\n\r\n", end - begin));
    if (call.method == "HEAD") return;
    call.send(std::string_view(bytes).substr(begin, end - begin));
    blob_bytes_sent_ += end - begin;
  }

 private:
  struct Connection {
    UniqueFd fd;
    std::jthread thread;
  };

  void accept() {
    while (true) {
      UniqueFd fd(::accept(listener_.get(), nullptr, nullptr));
      if (!fd) return;
      Connection& connection = connections_.emplace_back();
      connection.fd = std::move(fd);
      connection.thread = std::jthread([this, fd = connection.fd.get()] {
        while (serve(fd)) {
        }
        ::shutdown(fd, SHUT_RDWR);
      });
    }
  }

  static bool read_call(int fd, Call& call) {
    std::string text;
    std::size_t wanted = std::string::npos;
    while (text.size() < wanted) {
      char buffer[16384];
      // One request after another: what is read is never the next one's.
      const std::size_t most = wanted == std::string::npos ? 1 : wanted - text.size();
      const ssize_t count = ::recv(fd, buffer, std::min(most, sizeof buffer), 0);
      if (count <= 0) return false;
      text.append(buffer, static_cast<std::size_t>(count));
      if (wanted != std::string::npos || !text.ends_with("\r\n\r\n")) continue;
      call.head = text;
      wanted = text.size();
      if (const auto length = call.header("Content-Length"); !length.empty()) {
        wanted += std::stoul(length);
      }
    }
    call.body = text.substr(call.head.size());
    call.method = call.head.substr(0, call.head.find(' '));
    const auto begin = call.method.size() + 1;
    call.path = call.head.substr(begin, call.head.find(' ', begin) - begin);
    if (const auto mark = call.path.find('?'); mark != std::string::npos) {
      call.query = call.path.substr(mark + 1);
      call.path.resize(mark);
    }
    return true;
  }

  bool serve(int fd) {
    Call call;
    call.connection = fd;
    call.closing = &closing_;
    if (!read_call(fd, call)) return false;
    {
      const std::lock_guard lock(mutex_);
      calls_.push_back(call);
      calls_.back().body.clear();
      ++answering_;
    }
    called_.notify_all();
    Then then = Then::kGoOn;
    if (const Hook now = hook.get()) then = now(call);
    if (then == Then::kGoOn) behave(call);
    {
      const std::lock_guard lock(mutex_);
      --answering_;
    }
    called_.notify_all();
    return then != Then::kClose;
  }

  void behave(const Call& call) {
    if (!call.path.starts_with("/v2/")) return call.answer("404 Not Found");
    const std::string rest = call.path.substr(4);
    if (const auto at = rest.find("/manifests/"); at != std::string::npos) {
      return manifest(call, rest.substr(0, at) + ":" + rest.substr(at + 11));
    }
    if (rest.contains("/blobs/uploads/")) return upload(call);
    std::string bytes;
    if (const auto at = rest.find("/blobs/"); at != std::string::npos) {
      const std::lock_guard lock(mutex_);
      const auto found = blobs.find(rest.substr(at + 7));
      if (found == blobs.end()) return call.answer("404 Not Found", "{}");
      bytes = found->second;
    }
    serve_blob(call, bytes);
  }

  void manifest(const Call& call, const std::string& name) {
    const std::lock_guard lock(mutex_);
    if (call.method == "PUT") {
      manifests[name] = call.body;
      return call.answer("201 Created");
    }
    const auto found = manifests.find(name);
    if (found == manifests.end()) return call.answer("404 Not Found", "{}");
    call.answer("200 OK", found->second);
  }

  void upload(const Call& call) {
    const std::lock_guard lock(mutex_);
    const auto location = [&] {
      return std::format("Location: {}/v2/x/blobs/uploads/{}?state=1\r\nRange: 0-{}\r\n", "",
                         uploads_.size() - 1,
                         uploads_.back().empty() ? 0 : uploads_.back().size() - 1);
    };
    if (call.method == "POST") {
      uploads_.emplace_back();
      return call.answer("202 Accepted", {}, location());
    }
    if (uploads_.empty()) return call.answer("404 Not Found");
    if (call.method == "PATCH") {
      uploads_.back() += call.body;
      return call.answer("202 Accepted", {}, location());
    }
    if (call.method == "GET") return call.answer("204 No Content", {}, location());
    const Digest digest = digest_of(uploads_.back());
    if (!call.query.contains("digest=sha256%3A" + digest.hex())) {
      return call.answer("400 Bad Request", R"({"errors":[{"code":"DIGEST_INVALID"}]})");
    }
    blobs[digest.text()] = uploads_.back();
    call.answer("201 Created");
  }

  UniqueFd listener_;
  std::uint16_t port_ = 0;
  std::atomic<bool> closing_ = false;
  std::mutex mutex_;
  std::condition_variable called_;
  std::vector<Call> calls_;
  int answering_ = 0;
  std::vector<std::string> uploads_;
  std::atomic<std::uint64_t> blob_bytes_sent_ = 0;
  std::list<Connection> connections_;
  std::jthread accepting_;
};

}  // namespace ollama::store
