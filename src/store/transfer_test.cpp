#include "store/transfer.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <sys/file.h>

#include <cstdlib>
#include <fstream>
#include <random>
#include <semaphore>

#include "store/fake_registry.h"

namespace ollama::store {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;
using Call = FakeRegistry::Call;
using Then = FakeRegistry::Then;

constexpr auto kShort = std::chrono::milliseconds(200);
constexpr std::size_t kPart = 64 << 10;

std::string random_bytes(std::size_t size, unsigned seed = 1) {
  std::mt19937 random(seed);
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  return bytes;
}

std::string text_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_text(const fs::path& path, std::string_view text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

class TransferTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "transfer-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    options_.registry.key_folder = folder_ / "home";
    options_.registry.http.patience = {.attempts = 3,
                                       .pause = std::chrono::milliseconds(1),
                                       .longest_pause = std::chrono::milliseconds(1)};
    options_.download = {.streams = 4, .part_size = {.least = kPart, .most = kPart, .parts = 16}};
    options_.upload.chunk = kPart;
    restart();
  }
  void TearDown() override {
    transfers_.reset();
    store_.reset();
    fs::remove_all(folder_);
  }
  // As another process would go on.
  void restart() {
    transfers_.reset();
    store_ = std::make_unique<Store>(Store::Options{models(), {}, options_.prune});
    transfers_ = std::make_unique<Transfers>(*store_, options_);
  }

  // For registries that do not answer.
  void be_impatient() {
    Patience& patience = options_.registry.http.patience;
    patience.connect = patience.answer = patience.stall = patience.commit = kShort;
    patience.slowest = 1024;
    restart();
  }

  fs::path models() const { return folder_ / "models"; }
  fs::path blobs() const { return models() / "blobs"; }
  std::string name(std::string_view model = "m") const {
    return std::format("{}/library/{}", fake_.host(), model);
  }
  // Everything in the blobs' folder.
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(blobs(), error)) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  }
  bool is_listed(std::string_view model = "m") const {
    return store_->manifest_text(*Name::parse(name(model))).has_value();
  }

  Result<> pull(std::string_view model = "m", const std::stop_token& stop = {}) {
    seen_.clear();
    return transfers_->pull(
        {.model = name(model), .insecure = true},
        [this](const api::ProgressResponse& progress) {
          seen_.push_back(progress);
          return true;
        },
        stop);
  }
  std::string pull_error(std::string_view model = "m") {
    const auto result = pull(model);
    return result ? "no error" : std::string(result.error().message());
  }
  Result<> push(std::string_view model = "m") {
    seen_.clear();
    return transfers_->push({.model = name(model), .insecure = true},
                            [this](const api::ProgressResponse& progress) {
                              seen_.push_back(progress);
                              return true;
                            });
  }
  // Those without a digest.
  std::vector<std::string> statuses() const {
    std::vector<std::string> result;
    for (const auto& progress : seen_) {
      if (progress.digest.empty()) result.push_back(progress.status);
    }
    return result;
  }
  // The blob of the model's weights is there and is `bytes`.
  void expect_blob(const Manifest& manifest, const std::string& bytes) {
    EXPECT_EQ(text_of(blobs() / manifest.layers[0].digest.file_name()), bytes);
  }
  // Nothing of the model can be seen, and nothing else was left.
  void expect_nothing() {
    fake_.settle();
    EXPECT_FALSE(is_listed());
    for (const std::string& file : files()) {
      EXPECT_THAT(file, AllOf(StartsWith("sha256-"), Not(HasSubstr("partial")))) << "left behind";
      EXPECT_EQ("sha256-" + digest_of(text_of(blobs() / file)).hex(), file) << "a wrong blob";
    }
  }

  fs::path folder_;
  Transfers::Options options_;
  FakeRegistry fake_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Transfers> transfers_;
  std::vector<api::ProgressResponse> seen_;
};

// ---- Pulling

TEST_F(TransferTest, PullsAModel) {
  const std::string weights = random_bytes(5 * kPart + 17);
  const Manifest manifest = fake_.add_model("library/m:latest", weights);
  const auto pulled = pull();
  ASSERT_TRUE(pulled) << pulled.error().message();
  expect_blob(manifest, weights);
  // The same bytes, so that `list` shows the registry's own digest.
  EXPECT_EQ(store_->manifest_text(*Name::parse(name())).value(),
            fake_.manifests["library/m:latest"]);
  EXPECT_EQ(files().size(), 2U) << "something is left behind";
  EXPECT_THAT(statuses(), ElementsAre("pulling manifest", "verifying sha256 digest",
                                      "writing manifest", "success"));
  const auto& layer = manifest.layers[0];
  EXPECT_THAT(
      seen_, Contains(api::ProgressResponse{.status = "pulling " + layer.digest.hex().substr(0, 12),
                                            .digest = layer.digest.text(),
                                            .total = layer.size,
                                            .completed = layer.size}));
  // Again: nothing but the manifest is asked for.
  const std::uint64_t sent = fake_.blob_bytes_sent();
  ASSERT_TRUE(pull());
  EXPECT_EQ(fake_.blob_bytes_sent(), sent);
}

TEST_F(TransferTest, PullsRangesInParallel) {
  const std::string weights = random_bytes(8 * kPart);
  const Manifest manifest = fake_.add_model("library/m:latest", weights);
  // Each answer waits for three others: fails (by its time limit) when fewer are asked for at once.
  std::atomic<int> waiting = 0;
  std::mutex mutex;
  std::condition_variable all;
  fake_.hook = [&](const Call& call) {
    if (!call.path.contains(manifest.layers[0].digest.hex())) return Then::kGoOn;
    std::unique_lock lock(mutex);
    ++waiting;
    all.notify_all();
    all.wait(lock, [&] { return waiting >= 4 || *call.closing; });
    return Then::kGoOn;
  };
  ASSERT_TRUE(pull());
  expect_blob(manifest, weights);
  EXPECT_EQ(fake_.count([](const Call& call) { return !call.header("Range").empty(); }), 8U);
  EXPECT_EQ(fake_.blob_bytes_sent(), weights.size() + manifest.config.size);
  fake_.settle();
}

TEST_F(TransferTest, GoesOnAfterABreak) {
  const std::string weights = random_bytes(4 * kPart);
  const Manifest manifest = fake_.add_model("library/m:latest", weights);
  std::atomic<int> breaks = 0;
  options_.registry.http.patience.attempts = 10;
  restart();
  fake_.hook = [&](const Call& call) {
    if (call.header("Range").empty() || ++breaks > 6) return Then::kGoOn;
    const std::size_t begin = std::stoul(call.header("Range").substr(6));
    call.send(
        std::format("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {}-{}/{}\r\n"
                    "Content-Length: {}\r\n\r\n",
                    begin, begin + 9999, weights.size(), 10000));
    call.send(std::string_view(weights).substr(begin, 1000));
    return Then::kClose;
  };
  const auto pulled = pull();
  ASSERT_TRUE(pulled) << pulled.error().message();
  expect_blob(manifest, weights);
  // What came before each break was not sent again.
  EXPECT_EQ(fake_.blob_bytes_sent() + 6 * 1000, weights.size() + manifest.config.size);
  fake_.settle();
}

TEST_F(TransferTest, AnotherProcessGoesOn) {
  const std::string weights = random_bytes(4 * kPart);
  const Manifest manifest = fake_.add_model("library/m:latest", weights);
  const std::string half = manifest.layers[0].digest.hex();
  // The later half is out of reach, as it turns out when the other one has come.
  std::atomic<std::uint64_t> come = 0;
  fake_.hook = [&](const Call& call) {
    const std::string range = call.header("Range");
    if (range.empty() || std::stoul(range.substr(6)) < 2 * kPart) return Then::kGoOn;
    for (int i = 0; i < 5000 && come < 2 * kPart; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    call.answer("503 Service Unavailable");
    return Then::kAnswered;
  };
  const auto broken = transfers_->pull({.model = name(), .insecure = true},
                                       [&](const api::ProgressResponse& progress) {
                                         come = std::max<std::uint64_t>(come, progress.completed);
                                         return true;
                                       });
  ASSERT_FALSE(broken);
  EXPECT_THAT(broken.error().message(), HasSubstr("max retries exceeded: 503"));
  EXPECT_FALSE(is_listed());
  EXPECT_FALSE(store_->has_blob(manifest.layers[0].digest.text()).value());
  EXPECT_THAT(files(), Contains("sha256-" + half + "-partial"));
  // Neither starting a server nor listing takes or shows it.
  ASSERT_TRUE(store_->prune());
  EXPECT_THAT(files(), Contains("sha256-" + half + "-partial"));
  EXPECT_THAT(store_->list().value().models, IsEmpty());

  fake_.hook = nullptr;
  restart();
  // Calls and not bytes: the broken pull's last call for the later half may not have been read yet.
  const auto calls_for_the_half_that_came = [&] {
    return fake_.count([&](const Call& call) {
      const std::string range = call.header("Range");
      return !range.empty() && std::stoul(range.substr(6)) < 2 * kPart;
    });
  };
  const std::size_t before = calls_for_the_half_that_came();
  ASSERT_TRUE(pull());
  expect_blob(manifest, weights);
  EXPECT_EQ(calls_for_the_half_that_came(), before);
  EXPECT_EQ(files().size(), 2U) << "parts are left behind";
  fake_.settle();
}

// Fails when a download that Ollama began is begun again.
TEST_F(TransferTest, GoesOnWithOllamasParts) {
  const std::string weights = random_bytes(1000);
  const Manifest manifest = fake_.add_model("library/m:latest", weights);
  const fs::path partial = blobs() / (manifest.layers[0].digest.file_name() + "-partial");
  std::string bytes = weights.substr(0, 300);
  bytes.resize(1000);
  bytes.replace(600, 400, weights.substr(600, 400));
  write_text(partial, bytes);
  write_text(partial.string() + "-0", R"({"N":0,"Offset":0,"Size":600,"Completed":300})");
  write_text(partial.string() + "-1", R"({"N":1,"Offset":600,"Size":400,"Completed":400})"
                                      "\n");
  ASSERT_TRUE(pull());
  expect_blob(manifest, weights);
  EXPECT_EQ(fake_.blob_bytes_sent(), 300 + manifest.config.size);
  EXPECT_EQ(files().size(), 2U);
}

TEST_F(TransferTest, PartsThatMakeNoSenseAreBegunAgain) {
  const std::string weights = random_bytes(1000);
  const Manifest manifest = fake_.add_model("library/m:latest", weights);
  const fs::path partial = blobs() / (manifest.layers[0].digest.file_name() + "-partial");
  for (const char* part : {"", "{", "[]", R"({"N":0,"Offset":0,"Size":1001,"Completed":0})",
                           R"({"N":0,"Offset":1,"Size":999,"Completed":0})",
                           R"({"N":0,"Offset":0,"Size":1000,"Completed":1001})",
                           R"({"N":0,"Offset":0,"Size":0,"Completed":0})",
                           R"({"N":0,"Offset":0,"Size":-1000,"Completed":-1})",
                           R"({"N":0,"Offset":0,"Size":500,"Completed":500})",
                           // Bytes that the file does not have, and bytes that are others.
                           R"({"N":0,"Offset":0,"Size":1000,"Completed":1000})",
                           R"({"N":0,"Offset":0,"Size":1000,"Completed":2})"}) {
    fs::remove_all(models());
    write_text(partial, "xyz");
    write_text(partial.string() + "-0", part);
    const auto pulled = pull();
    ASSERT_TRUE(pulled) << part << ": " << pulled.error().message();
    expect_blob(manifest, weights);
    EXPECT_EQ(files().size(), 2U) << part;
  }
}

TEST_F(TransferTest, AWrongDigestNeverBecomesVisible) {
  const std::string weights = random_bytes(3 * kPart);
  const Manifest old = fake_.add_model("library/m:latest", "the old weights");
  ASSERT_TRUE(pull());
  const Manifest manifest = fake_.add_model("library/m:latest", weights);
  fake_.blobs[manifest.layers[0].digest.text()][kPart + 5] ^= 1;
  const std::string error = pull_error();
  EXPECT_THAT(error, StartsWith("digest mismatch, file must be downloaded again: want " +
                                manifest.layers[0].digest.text()));
  EXPECT_FALSE(store_->has_blob(manifest.layers[0].digest.text()).value());
  EXPECT_THAT(files(), Not(Contains(HasSubstr("partial"))));
  // The old model is as it was.
  EXPECT_EQ(store_->read_manifest(*Name::parse(name())).value(), old);
  expect_blob(old, "the old weights");
}

TEST_F(TransferTest, SizesThatAreLiesAreErrors) {
  for (const std::uint64_t size :
       {std::uint64_t{0}, std::uint64_t{999}, std::uint64_t{1001}, std::uint64_t{5 * kPart}}) {
    fs::remove_all(models());
    Manifest manifest = fake_.add_model("library/m:latest", random_bytes(1000));
    manifest.layers[0].size = size;
    fake_.set_manifest("library/m:latest", to_text(manifest));
    EXPECT_THAT(pull_error(), testing::AnyOf(HasSubstr("has 1000 bytes, and its manifest says"),
                                             HasSubstr("416"), HasSubstr("digest mismatch")))
        << size;
    expect_nothing();
  }
}

TEST_F(TransferTest, ServersWithoutRanges) {
  const std::string weights = random_bytes(5 * kPart);
  const Manifest manifest = fake_.add_model("library/m:latest", weights);
  std::atomic<int> breaks = 0;
  fake_.hook = [&](const Call& call) {
    if (!call.is_blob()) return Then::kGoOn;
    const std::string& bytes = fake_.blobs.at(call.path.substr(call.path.rfind('/') + 1));
    call.send(std::format("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.size()));
    // Once it breaks off, with other bytes than it sends later: the digest must be of the latter.
    if (call.header("Range").empty() && bytes.size() > kPart && breaks++ == 0) {
      call.send(std::string(2 * kPart, 'x'));
      return Then::kClose;
    }
    call.send(bytes);
    return Then::kAnswered;
  };
  const auto pulled = pull();
  ASSERT_TRUE(pulled) << pulled.error().message();
  EXPECT_EQ(breaks, 2);
  expect_blob(manifest, weights);
  fake_.settle();
}

// Fails when something between here and the registry that answers in its place costs what is there.
TEST_F(TransferTest, AnAnswerThatIsNoBlobIsTriedAgain) {
  const std::string weights = random_bytes(4 * kPart);
  const Manifest manifest = fake_.add_model("library/m:latest", weights);
  options_.download.streams = 1;
  restart();
  std::atomic<int> calls = 0;
  fake_.hook = [&](const Call& call) {
    if (call.header("Range").empty()) return Then::kGoOn;
    const int at = ++calls;
    if (at != 3 && at != 4) return Then::kGoOn;
    call.answer("200 OK", "<html>Please sign in</html>");
    return Then::kAnswered;
  };
  const auto pulled = pull();
  ASSERT_TRUE(pulled) << pulled.error().message();
  expect_blob(manifest, weights);
  EXPECT_EQ(fake_.blob_bytes_sent(), weights.size() + manifest.config.size);
  fake_.settle();
}

// Each ends with an error within the bounds, and nothing is left.
TEST_F(TransferTest, BadServersOfBlobs) {
  be_impatient();
  struct Bad {
    const char* what;
    FakeRegistry::Hook hook;
    const char* error;
  };
  const auto head = [](const Call& call, std::string_view range, std::size_t length) {
    call.send(
        std::format("HTTP/1.1 206 Partial Content\r\nContent-Range: {}\r\n"
                    "Content-Length: {}\r\n\r\n",
                    range, length));
  };
  const std::vector<Bad> bad = {
      {"never answers",
       [](const Call& call) {
         call.hold();
         return Then::kClose;
       },
       "max retries exceeded: no answer"},
      {"says nothing after the header",
       [](const Call& call) {
         call.send("HTTP/1.1 200 OK\r\n\r\n");
         call.hold();
         return Then::kClose;
       },
       "max retries exceeded: stalled"},
      {"drips",
       [](const Call& call) {
         call.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
         while (!*call.closing && call.send("x")) {
           std::this_thread::sleep_for(std::chrono::milliseconds(20));
         }
         return Then::kClose;
       },
       "max retries exceeded: stalled"},
      {"hangs up", [](const Call&) { return Then::kClose; }, "max retries exceeded: "},
      {"sends garbage",
       [](const Call& call) {
         call.send("hello\r\n\r\n");
         return Then::kClose;
       },
       "max retries exceeded: "},
      {"sends nothing, well formed",
       [](const Call& call) {
         call.answer("206 Partial Content", "", "Content-Range: bytes 0-0/1000\r\n");
         return Then::kAnswered;
       },
       "max retries exceeded: the answer ended early"},
      {"too much",
       [](const Call& call) {
         call.send("HTTP/1.1 200 OK\r\n\r\n");
         while (call.send(std::string(4096, 'x'))) {
         }
         return Then::kClose;
       },
       "has more bytes, and its manifest says 1000"},
      {"another length",
       [](const Call& call) {
         call.send("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n");
         return Then::kClose;
       },
       "has 99999999999999 bytes, and its manifest says 1000"},
      {"another total",
       [&](const Call& call) {
         head(call, "bytes 0-999/1001", 1000);
         call.send(std::string(1000, 'x'));
         return Then::kAnswered;
       },
       "has 1001 bytes, and its manifest says 1000"},
      {"another range",
       [&](const Call& call) {
         head(call, "bytes 1-999/1000", 999);
         call.send(std::string(999, 'x'));
         return Then::kAnswered;
       },
       "another range"},
      {"no range",
       [&](const Call& call) {
         head(call, "pages 12", 1000);
         call.send(std::string(1000, 'x'));
         return Then::kAnswered;
       },
       "another range"},
      {"other bytes",
       [](const Call& call) {
         call.answer("200 OK", std::string(1000, 'x'));
         return Then::kAnswered;
       },
       "digest mismatch"},
      {"another status",
       [](const Call& call) {
         call.answer("204 No Content");
         return Then::kAnswered;
       },
       "status 204"},
      {"no such blob",
       [](const Call& call) {
         call.answer("404 Not Found");
         return Then::kAnswered;
       },
       "file does not exist"},
      {"circles",
       [](const Call& call) {
         call.answer("307 Temporary Redirect", "", std::format("Location: {}\r\n", call.path));
         return Then::kAnswered;
       },
       "maximum redirects exceeded"},
      {"401 for ever",
       [this](const Call& call) {
         if (call.path == "/token") {
           call.answer("200 OK", R"({"token":"t"})");
         } else {
           call.answer(
               "401 Unauthorized", "",
               std::format("WWW-Authenticate: Bearer realm=\"{}/token\"\r\n", fake_.origin()));
         }
         return Then::kAnswered;
       },
       "unauthorized: access denied"},
  };
  const Manifest manifest = fake_.add_model("library/m:latest", random_bytes(1000));
  for (const Bad& one : bad) {
    fake_.hook = [&](const Call& call) {
      const bool weights = call.path.contains(manifest.layers[0].digest.hex());
      return weights || call.path == "/token" ? one.hook(call) : Then::kGoOn;
    };
    EXPECT_THAT(pull_error(), HasSubstr(one.error)) << one.what;
    // "drips" leaves what may be good bytes.
    if (std::string_view(one.what) == "drips") fs::remove_all(models());
    expect_nothing();
  }
  fake_.settle();
}

TEST_F(TransferTest, BadManifests) {
  const std::string layer =
      R"({"mediaType":"x","digest":"sha256:)" + std::string(64, 'a') + R"(","size":1})";
  std::string many = layer;
  for (int i = 1; i < 10'000; ++i) many += "," + layer;
  const auto with = [&](std::string_view digest, std::string_view size) {
    return std::format(R"({{"schemaVersion":2,"config":{},"layers":[{{"mediaType":"m",)"
                       R"("digest":"{}","size":{}}}]}})",
                       layer, digest, size);
  };
  const std::vector<std::string> bad = {
      "",
      "nonsense",
      "[]",
      "{}",
      R"({"schemaVersion":1,"config":)" + layer + "}",
      R"({"schemaVersion":2,"layers":[]})",
      R"({"schemaVersion":2,"config":)" + layer + R"(,"layers":[)" + many + "]}",
      R"({"schemaVersion":2,"config":{"mediaType":"x","digest":"sha256:)" + std::string(64, 'a') +
          R"(","size":99999999999}})",
      with("sha256:../../../../etc/passwd", "1"),
      with("sha256:" + std::string(63, 'a') + "/", "1"),
      with("md5:" + std::string(64, 'a'), "1"),
      with("sha256:" + std::string(64, 'a'), "-1"),
      with("sha256:" + std::string(64, 'a'), "1e30"),
      with("sha256:" + std::string(64, 'a'), "9223372036854775807"),
      std::string(100'000, '['),
  };
  for (const std::string& text : bad) {
    fake_.set_manifest("library/m:latest", text);
    EXPECT_THAT(pull_error(), StartsWith("pull model manifest: ")) << text.substr(0, 200);
    EXPECT_FALSE(fs::exists(models())) << "something was written";
  }
}

TEST_F(TransferTest, NamesAndMissingTags) {
  EXPECT_EQ(pull_error("none"), "pull model manifest: file does not exist");
  const auto error = [&](const std::string& model, bool insecure) {
    const auto result = transfers_->pull({.model = model, .insecure = insecure}, {});
    return result ? std::string("no error") : std::string(result.error().message());
  };
  for (const char* bad : {"", "../x", "a/../b", "a//b", "/etc/passwd", "a:b:c", "a b"}) {
    EXPECT_EQ(error(bad, true), "invalid model name") << bad;
  }
  EXPECT_EQ(error("http://" + name(), false), "insecure protocol http");
  fake_.add_model("library/m:latest", "weights");
  EXPECT_EQ(error("http://" + name(), true), "no error");
}

// Hugging Face's names, with a registry in its place.
TEST_F(TransferTest, NamesOfHuggingFace) {
  const Manifest manifest = fake_.add_model("bartowski/Llama-3.2-1B-GGUF:Q4_K_M", "weights");
  options_.registry.origin = [this](const Name& name) {
    return name.host() == "hf.co" ? fake_.origin() : "http://127.0.0.1:1";
  };
  restart();
  const auto pulled = transfers_->pull({.model = "hf.co/bartowski/Llama-3.2-1B-GGUF:Q4_K_M"}, {});
  ASSERT_TRUE(pulled) << pulled.error().message();
  EXPECT_TRUE(fs::exists(models() / "manifests/hf.co/bartowski/Llama-3.2-1B-GGUF/Q4_K_M"));
  expect_blob(manifest, "weights");
}

TEST_F(TransferTest, StorageElsewhereIsAskedWithoutTheToken) {
  FakeRegistry storage;
  const std::string weights = random_bytes(6 * kPart);
  const Manifest manifest = fake_.add_model("library/m:latest", weights);
  std::atomic<int> served = 0;
  // Its addresses are good for two requests.
  storage.hook = [&](const Call& call) {
    if (call.query == "use=0" && ++served > 2) {
      call.answer("403 Forbidden");
    } else {
      storage.serve_blob(call, weights);
    }
    return Then::kAnswered;
  };
  std::atomic<int> redirected = 0;
  fake_.hook = [&](const Call& call) {
    if (call.path == "/token") {
      call.answer("200 OK", R"({"token":"secret-token"})");
    } else if (call.header("Authorization") != "Bearer secret-token") {
      call.answer("401 Unauthorized", "",
                  std::format("WWW-Authenticate: Bearer realm=\"{}/token\"\r\n", fake_.origin()));
    } else if (call.path.contains(manifest.layers[0].digest.hex())) {
      const int use = redirected++ < 4 ? 0 : 1;
      call.answer("307 Temporary Redirect", "",
                  std::format("Location: {}/data?use={}\r\n", storage.origin(), use));
    } else {
      return Then::kGoOn;
    }
    return Then::kAnswered;
  };
  options_.registry.http.patience.attempts = 10;
  restart();
  const auto pulled = pull();
  ASSERT_TRUE(pulled) << pulled.error().message();
  expect_blob(manifest, weights);
  for (const Call& call : storage.calls()) {
    EXPECT_THAT(call.head, Not(HasSubstr("secret-token")));
  }
  EXPECT_EQ(fake_.count([](const Call& call) { return call.path == "/token"; }), 1U);
  fake_.settle();
}

TEST_F(TransferTest, ConcurrentPullsShareADownload) {
  const std::string weights = random_bytes(4 * kPart);
  const Manifest manifest = fake_.add_model("library/m:latest", weights);
  fake_.set_manifest("library/other:latest", fake_.manifests["library/m:latest"]);
  // Nothing is served before both wait for it.
  std::atomic<int> pulling = 0;
  fake_.hook = [&](const Call& call) {
    if (call.is_blob()) {
      while (pulling < 2 && !*call.closing) std::this_thread::yield();
    }
    return Then::kGoOn;
  };
  Result<> first;
  Result<> second;
  {
    const auto run = [&](std::string_view model, Result<>& result) {
      bool counted = false;
      result = transfers_->pull({.model = name(model), .insecure = true},
                                [&](const api::ProgressResponse& progress) {
                                  if (!progress.digest.empty() && !std::exchange(counted, true)) {
                                    ++pulling;
                                  }
                                  return true;
                                });
    };
    const std::jthread a([&] { run("m", first); });
    const std::jthread b([&] { run("other", second); });
  }
  EXPECT_TRUE(first) << first.error().message();
  EXPECT_TRUE(second) << second.error().message();
  EXPECT_EQ(fake_.blob_bytes_sent(), weights.size() + manifest.config.size);
  EXPECT_TRUE(is_listed("m") && is_listed("other"));
  fake_.settle();
}

TEST_F(TransferTest, ADownloadEndsWithTheLastWhoWaits) {
  const std::string weights = random_bytes(4 * kPart);
  const Manifest manifest = fake_.add_model("library/m:latest", weights);
  options_.registry.http.patience.answer = std::chrono::hours(1);
  options_.registry.http.patience.stall = std::chrono::hours(1);
  restart();
  std::binary_semaphore client_left(0);
  std::atomic<bool> free_to_go = false;
  fake_.hook = [&](const Call& call) {
    if (call.header("Range").empty() || free_to_go) return Then::kGoOn;
    // A part's first half, then nothing until the client goes.
    const std::size_t begin = std::stoul(call.header("Range").substr(6));
    call.send(
        std::format("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {}-{}/{}\r\n"
                    "Content-Length: {}\r\n\r\n",
                    begin, begin + kPart - 1, weights.size(), kPart));
    call.send(std::string_view(weights).substr(begin, kPart / 2));
    call.hold();
    if (begin == 0) client_left.release();
    return Then::kClose;
  };
  std::stop_source first_stop;
  std::stop_source second_stop;
  std::atomic<std::uint64_t> got[2] = {0, 0};
  const auto run = [&](int which, const std::stop_token& stop) {
    const auto result = transfers_->pull(
        {.model = name(), .insecure = true},
        [&](const api::ProgressResponse& progress) {
          got[which] = progress.completed;
          return true;
        },
        stop);
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code(), ErrorCode::kCancelled);
  };
  std::jthread first([&] { run(0, first_stop.get_token()); });
  std::jthread second([&] { run(1, second_stop.get_token()); });
  while (got[0] < 2 * kPart || got[1] < 2 * kPart) std::this_thread::yield();
  first_stop.request_stop();
  first.join();
  EXPECT_FALSE(client_left.try_acquire_for(std::chrono::milliseconds(50)))
      << "ended although somebody waits";
  second_stop.request_stop();
  second.join();
  client_left.acquire();  // fails by the test's time limit

  // Whoever comes next goes on with the halves.
  free_to_go = true;
  const std::uint64_t before = fake_.blob_bytes_sent();
  const auto pulled = pull();
  ASSERT_TRUE(pulled) << pulled.error().message();
  expect_blob(manifest, weights);
  EXPECT_EQ(fake_.blob_bytes_sent() - before, 2 * kPart + manifest.config.size);
  fake_.settle();
}

TEST_F(TransferTest, AFullDiskIsSaidBeforeAnythingIsFetched) {
  const Manifest manifest = fake_.add_model("library/m:latest", random_bytes(3 * kPart));
  options_.free_space = [](const fs::path&) { return std::uint64_t{100'000}; };
  restart();
  const auto pulled = pull();
  ASSERT_FALSE(pulled);
  EXPECT_EQ(pulled.error().code(), ErrorCode::kIo);
  EXPECT_THAT(std::string(pulled.error().message()),
              AllOf(StartsWith("no space left on device: 196 KB more are needed in "),
                    HasSubstr("100 KB are free")));
  EXPECT_EQ(fake_.count([](const Call& call) { return call.is_blob(); }), 0U);
  std::error_code none;
  for (fs::recursive_directory_iterator it(models(), none), end; !none && it != end; ++it) {
    EXPECT_TRUE(it->is_directory()) << it->path();
  }
}

TEST_F(TransferTest, ANewVersionReplacesTheOld) {
  const Manifest old = fake_.add_model("library/m:latest", "old weights");
  ASSERT_TRUE(pull());
  const Manifest now = fake_.add_model("library/m:latest", "new weights");
  ASSERT_TRUE(pull());
  EXPECT_THAT(statuses(), Contains("removing unused layers"));
  EXPECT_FALSE(store_->has_blob(old.layers[0].digest.text()).value());
  expect_blob(now, "new weights");
}

TEST_F(TransferTest, WithoutPruningTheOldBlobsStay) {
  options_.prune = false;
  restart();
  const Manifest old = fake_.add_model("library/m:latest", "old weights");
  ASSERT_TRUE(pull());
  fake_.add_model("library/m:latest", "new weights");
  ASSERT_TRUE(pull());
  EXPECT_THAT(statuses(), Not(Contains("removing unused layers")));
  EXPECT_TRUE(store_->has_blob(old.layers[0].digest.text()).value());
}

// Fails when a blob that was cut short stays broken for ever.
TEST_F(TransferTest, ADamagedBlobIsFetchedAgain) {
  const Manifest manifest = fake_.add_model("library/m:latest", "weights");
  ASSERT_TRUE(pull());
  write_text(blobs() / manifest.layers[0].digest.file_name(), "wei");
  ASSERT_TRUE(pull());
  expect_blob(manifest, "weights");
}

TEST_F(TransferTest, LinksLeadNowhere) {
  const Manifest manifest = fake_.add_model("library/m:latest", random_bytes(1000));
  const fs::path outside = folder_ / "outside";
  write_text(outside, "precious");
  const fs::path partial = blobs() / (manifest.layers[0].digest.file_name() + "-partial");
  fs::create_directories(blobs());
  fs::create_symlink(outside, partial);
  EXPECT_FALSE(pull());
  EXPECT_EQ(text_of(outside), "precious");
  fs::remove(partial);
  fs::create_symlink(outside, partial.string() + "-0");
  EXPECT_TRUE(pull());
  EXPECT_EQ(text_of(outside), "precious");
}

TEST_F(TransferTest, AnotherProcessDownloadIsWaitedFor) {
  const std::string weights = random_bytes(1000);
  const Manifest manifest = fake_.add_model("library/m:latest", weights);
  const fs::path blob = blobs() / manifest.layers[0].digest.file_name();
  write_text(blob.string() + "-partial", "");
  UniqueFd theirs(::open((blob.string() + "-partial").c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(::flock(theirs.get(), LOCK_EX), 0);
  std::atomic<bool> waiting = false;
  Result<> result;
  {
    const std::jthread thread([&] {
      result = transfers_->pull({.model = name(), .insecure = true},
                                [&](const api::ProgressResponse& progress) {
                                  if (!progress.digest.empty()) waiting = true;
                                  return true;
                                });
    });
    while (!waiting) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(150));
    EXPECT_EQ(fake_.count([](const Call& call) { return call.is_blob(); }), 0U);
    // They finish.
    write_text(blob, weights);
    fs::remove(blob.string() + "-partial");
    theirs.reset();
  }
  ASSERT_TRUE(result) << result.error().message();
  expect_blob(manifest, weights);
  EXPECT_EQ(fake_.blob_bytes_sent(), manifest.config.size);
}

TEST_F(TransferTest, StaleDownloadsGo) {
  const fs::path partial = blobs() / (digest_of("x").file_name() + "-partial");
  write_text(partial, "");
  write_text(partial.string() + "-0", "");
  const fs::path fresh = blobs() / (digest_of("y").file_name() + "-partial");
  write_text(fresh, "");
  write_text(fresh.string() + "-0", "");
  write_text(blobs() / "stranger-partial", "");
  const auto old = fs::file_time_type::clock::now() - std::chrono::hours(24 * 8);
  for (const auto& entry : fs::directory_iterator(blobs())) {
    // A part's own file is as old as the part.
    if (entry.path() != fresh) fs::last_write_time(entry.path(), old);
  }
  ASSERT_TRUE(store_->prune());
  EXPECT_THAT(files(),
              testing::UnorderedElementsAre(fresh.filename().string(),
                                            fresh.filename().string() + "-0", "stranger-partial"));
}

// Whatever breaks where, the bytes that become visible are those of the digest.
TEST_F(TransferTest, BreaksAnywhereEndWell) {
  EXPECT_TRUE(rc::check([this] {
    fs::remove_all(models());
    const auto size = *rc::gen::inRange<std::size_t>(0, 3000);
    options_.download.streams = *rc::gen::inRange<std::uint32_t>(1, 5);
    options_.download.part_size = {.least = *rc::gen::inRange<std::uint64_t>(1, 2000),
                                   .most = 2000,
                                   .parts = *rc::gen::inRange<std::uint64_t>(1, 5)};
    options_.registry.http.patience.attempts = 1000;
    const auto breaks =
        *rc::gen::container<std::vector<std::size_t>>(rc::gen::inRange<std::size_t>(0, 500));
    const bool whole = *rc::gen::arbitrary<bool>();  // ranges are ignored
    const std::string weights = random_bytes(size, 7);
    const Manifest manifest = fake_.add_model("library/m:latest", weights);
    std::atomic<std::size_t> next = 0;
    fake_.hook = [&](const Call& call) {
      if (!call.path.contains(manifest.layers[0].digest.hex())) return Then::kGoOn;
      const std::string range = call.header("Range");
      const std::size_t begin = range.empty() || whole ? 0 : std::stoul(range.substr(6));
      const std::size_t end =
          range.empty() || whole ? size : std::stoul(range.substr(range.find('-') + 1)) + 1;
      std::string head = range.empty() || whole ? "HTTP/1.1 200 OK\r\n"
                                                : std::format(
                                                      "HTTP/1.1 206 Partial Content\r\n"
                                                      "Content-Range: bytes {}-{}/{}\r\n",
                                                      begin, end - 1, size);
      call.send(head + std::format("Content-Length: {}\r\n\r\n", end - begin));
      const std::size_t at = next++;
      const std::size_t count =
          at < breaks.size() ? std::min(breaks[at], end - begin) : end - begin;
      call.send(std::string_view(weights).substr(begin, count));
      return count == end - begin ? Then::kAnswered : Then::kClose;
    };
    restart();
    const auto pulled = pull();
    if (!pulled) RC_FAIL(std::string(pulled.error().message()));
    RC_ASSERT(text_of(blobs() / manifest.layers[0].digest.file_name()) == weights);
    RC_ASSERT(files().size() == 2U);
  }));
  fake_.hook = nullptr;
  fake_.settle();
}

// ---- Pushing

class PushTest : public TransferTest {
 protected:
  // A model in the store.
  Manifest make(std::string weights, const std::string& from = {}) {
    const auto add = [&](std::string_view type, std::string bytes) {
      auto writer = store_->begin_blob();
      EXPECT_TRUE(writer);
      EXPECT_TRUE(writer->append(bytes));
      return Layer{std::string(type), *writer->commit(), bytes.size(), {}};
    };
    Manifest manifest{add(kConfigType, R"({"model_format":"gguf"})"),
                      {add(kModelLayer, std::move(weights))}};
    manifest.layers[0].from = from;
    EXPECT_TRUE(store_->write_manifest(*Name::parse(name()), manifest));
    return manifest;
  }
  std::string push_error() {
    const auto result = push();
    return result ? "no error" : std::string(result.error().message());
  }
};

TEST_F(PushTest, PushesInChunksAndComesBackTheSame) {
  const std::string weights = random_bytes(3 * kPart + 5);
  const Manifest manifest = make(weights);
  const auto pushed = push();
  ASSERT_TRUE(pushed) << pushed.error().message();
  EXPECT_THAT(statuses(), ElementsAre("retrieving manifest", "pushing manifest", "success"));
  const auto& layer = manifest.layers[0];
  EXPECT_THAT(
      seen_, Contains(api::ProgressResponse{.status = "pushing " + layer.digest.hex().substr(0, 12),
                                            .digest = layer.digest.text(),
                                            .total = layer.size,
                                            .completed = layer.size}));
  EXPECT_EQ(fake_.blobs[layer.digest.text()], weights);
  EXPECT_EQ(fake_.count([](const Call& call) { return call.method == "PATCH"; }), 4U + 1U);
  const std::string text = store_->manifest_text(*Name::parse(name())).value();
  EXPECT_EQ(fake_.manifests["library/m:latest"], text);

  // Again: nothing is missing there.
  const std::size_t before = fake_.calls().size();
  ASSERT_TRUE(push());
  const auto calls = fake_.calls();
  ASSERT_EQ(calls.size() - before, 3U);
  EXPECT_EQ(calls[before].method, "HEAD");

  fs::remove_all(models());
  restart();
  ASSERT_TRUE(pull());
  EXPECT_EQ(store_->manifest_text(*Name::parse(name())).value(), text);
  expect_blob(manifest, weights);
}

TEST_F(PushTest, GoesOnWhereTheRegistryGotTo) {
  const std::string weights = random_bytes(3 * kPart);
  const Manifest manifest = make(weights);
  std::atomic<int> patches = 0;
  std::atomic<std::uint64_t> bytes = 0;
  fake_.hook = [&](const Call& call) {
    if (call.method != "PATCH") return Then::kGoOn;
    bytes += call.body.size();
    // The second one is taken, and its answer is lost.
    if (++patches != 2) return Then::kGoOn;
    fake_.append_to_upload(call.body);
    return Then::kClose;
  };
  const auto pushed = push();
  ASSERT_TRUE(pushed) << pushed.error().message();
  EXPECT_EQ(fake_.blobs[manifest.layers[0].digest.text()], weights);
  EXPECT_EQ(bytes, weights.size() + manifest.config.size) << "a chunk was sent twice";
  fake_.settle();
}

TEST_F(PushTest, SignsAndSendsTheTokenWithEachRequest) {
  const Manifest manifest = make(random_bytes(1000));
  fake_.hook = [this](const Call& call) {
    if (call.path == "/token") {
      EXPECT_THAT(call.header("Authorization"), HasSubstr(":"));
      call.answer("200 OK", R"({"token":"secret-token"})");
      return Then::kAnswered;
    }
    if (call.header("Authorization") == "Bearer secret-token") return Then::kGoOn;
    call.answer("401 Unauthorized", "",
                std::format("WWW-Authenticate: Bearer realm=\"{}/token\"\r\n", fake_.origin()));
    return Then::kAnswered;
  };
  const auto pushed = push();
  ASSERT_TRUE(pushed) << pushed.error().message();
  EXPECT_EQ(fake_.count([](const Call& call) { return call.path == "/token"; }), 1U);
  EXPECT_TRUE(fs::exists(folder_ / "home" / "id_ed25519"));
  fake_.settle();
}

// Ollama's registry has chunks sent to its storage, which must not see the token.
TEST_F(PushTest, ChunksGoToTheStorageThatTheRegistryNames) {
  FakeRegistry storage;
  const std::string weights = random_bytes(2 * kPart);
  const Manifest manifest = make(weights);
  std::string stored;
  std::string etag;
  storage.hook = [&](const Call& call) {
    EXPECT_EQ(call.method, "PUT");
    EXPECT_THAT(call.head, Not(HasSubstr("uthorization")));
    stored += call.body;
    call.answer("200 OK");
    return Then::kAnswered;
  };
  fake_.hook = [&](const Call& call) {
    if (call.method == "PATCH") {
      EXPECT_EQ(call.header("X-Redirect-Uploads"), "1");
      call.answer(
          "307 Temporary Redirect", "",
          std::format("Location: {}/part\r\nDocker-Upload-Location: /v2/x/blobs/uploads/9\r\n",
                      storage.origin()));
      return Then::kAnswered;
    }
    if (call.method == "PUT" && call.path.contains("/uploads/")) {
      EXPECT_EQ(call.path, "/v2/x/blobs/uploads/9");
      etag = call.query;
      call.answer("201 Created");
      return Then::kAnswered;
    }
    return Then::kGoOn;
  };
  const auto pushed = push();
  ASSERT_TRUE(pushed) << pushed.error().message();
  EXPECT_EQ(stored, weights + R"({"model_format":"gguf"})");
  EXPECT_THAT(etag, testing::MatchesRegex(".*&etag=[0-9a-f]+-1"));
  fake_.settle();
}

TEST_F(PushTest, BlobsOfAnotherModelAreMounted) {
  make(random_bytes(1000), fake_.host() + "/team/base:latest");
  fake_.hook = [](const Call& call) {
    if (!call.query.starts_with("mount=")) return Then::kGoOn;
    EXPECT_THAT(call.query, HasSubstr("&from=team%2Fbase"));
    call.answer("201 Created");
    return Then::kAnswered;
  };
  ASSERT_TRUE(push());
  EXPECT_EQ(fake_.count([](const Call& call) { return call.method == "PATCH"; }), 1U)
      << "only the configuration is sent";
  fake_.settle();
}

TEST_F(PushTest, BadRegistries) {
  be_impatient();
  const Manifest manifest = make(random_bytes(1000));
  struct Bad {
    const char* what;
    const char* method;
    FakeRegistry::Hook hook;
    const char* error;
  };
  const auto says = [](const char* status, const char* headers = "") {
    return [=](const Call& call) {
      call.answer(status, "", headers);
      return Then::kAnswered;
    };
  };
  const std::vector<Bad> bad = {
      {"no place", "POST", says("202 Accepted"), "does not say where the blob goes"},
      {"a strange place", "POST", says("202 Accepted", "Location: file:///etc/x\r\n"),
       "not understood"},
      {"denied", "POST", says("403 Forbidden"), "unauthorized: access denied"},
      {"too large", "PATCH", says("413 Too Large"), "413"},
      {"hangs up", "PATCH", [](const Call&) { return Then::kClose; }, "max retries exceeded"},
      {"never answers", "PATCH",
       [](const Call& call) {
         call.hold();
         return Then::kClose;
       },
       "max retries exceeded: no answer"},
      {"other bytes", "PUT", says("400 Bad"), "400"},
      {"fails at the end", "PUT", says("500 Oh"), "500"},
  };
  for (const Bad& one : bad) {
    fake_.hook = [&](const Call& call) {
      return call.method == one.method ? one.hook(call) : Then::kGoOn;
    };
    EXPECT_THAT(push_error(), HasSubstr(one.error)) << one.what;
    EXPECT_TRUE(fake_.manifests.empty());
  }
  fake_.settle();
}

TEST_F(PushTest, WhatIsNotThereIsNotPushed) {
  EXPECT_THAT(push_error(), HasSubstr("not found"));
  const Manifest manifest = make("weights");
  write_text(blobs() / manifest.layers[0].digest.file_name(), "wei");
  EXPECT_THAT(push_error(), HasSubstr("has 3 bytes, and the manifest says 7"));
  fs::remove(blobs() / manifest.layers[0].digest.file_name());
  EXPECT_THAT(push_error(), HasSubstr("not found"));
}

}  // namespace
}  // namespace ollama::store
