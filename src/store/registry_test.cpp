#include "store/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "store/fake_registry.h"

namespace ollama::store {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;
using Call = FakeRegistry::Call;
using Then = FakeRegistry::Then;

constexpr auto kBrief = std::chrono::milliseconds(200);

class RegistryTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "registry-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    options_.key_folder = folder_;
    options_.http.patience = {.attempts = 3,
                              .pause = std::chrono::milliseconds(1),
                              .longest_pause = std::chrono::milliseconds(1)};
    fake_.add_model("library/m:latest", "weights");
  }
  void TearDown() override { fs::remove_all(folder_); }

  Result<std::string> manifest(const std::string& name, const std::stop_token& stop = {}) {
    Registry registry(options_, *Name::parse(name), true);
    auto client = registry.client();
    if (!client) return fail(std::move(client));
    return registry.manifest(*client, stop);
  }
  Result<std::string> manifest() { return manifest(fake_.host() + "/library/m"); }
  std::string error() {
    const auto result = manifest();
    return result ? "no error" : std::string(result.error().message());
  }
  // Asks for a token at `realm` until one comes.
  void want_token(const std::string& realm) {
    fake_.hook = [this, realm](const Call& call) {
      if (call.path == "/token") {
        call.answer("200 OK", R"({"token":"secret-token"})");
        return Then::kAnswered;
      }
      if (call.header("Authorization") == "Bearer secret-token") return Then::kGoOn;
      call.answer("401 Unauthorized", "{}",
                  std::format("WWW-Authenticate: Bearer realm=\"{}\",service=\"fake\","
                              "scope=\"repository:library/m:pull repository:x:push\"\r\n",
                              realm.empty() ? fake_.origin() + "/token" : realm));
      return Then::kAnswered;
    };
  }

  fs::path folder_;
  RegistryOptions options_;
  FakeRegistry fake_;
};

TEST_F(RegistryTest, GetsTheManifestByteForByte) {
  const auto text = manifest();
  ASSERT_TRUE(text) << text.error().message();
  EXPECT_EQ(*text, fake_.manifests["library/m:latest"]);
  const Call call = fake_.calls().at(0);
  EXPECT_EQ(call.path, "/v2/library/m/manifests/latest");
  EXPECT_EQ(call.header("Accept"), kManifestType);
  // The registry compares this version with what a model needs.
  EXPECT_THAT(call.header("User-Agent"), StartsWith("ollama/0.33"));
}

TEST_F(RegistryTest, AMissingTagIsSaidAsOllamaSaysIt) {
  EXPECT_EQ(manifest(fake_.host() + "/library/m:other").error().message(), "file does not exist");
  EXPECT_EQ(fake_.calls().size(), 1U) << "asked again for what is not there";
}

// The request for a token is signed with the user's key, over its address.
TEST_F(RegistryTest, SignsForATokenWhenChallenged) {
  want_token({});
  const auto text = manifest();
  ASSERT_TRUE(text) << text.error().message();
  const auto calls = fake_.calls();
  ASSERT_EQ(calls.size(), 3U);
  const Call& token = calls[1];
  EXPECT_EQ(token.path, "/token");
  EXPECT_THAT(token.query, AllOf(StartsWith("nonce="), HasSubstr("&service=fake&ts=")));
  EXPECT_THAT(token.query, HasSubstr("&scope=repository%3Alibrary%2Fm%3Apull"
                                     "&scope=repository%3Ax%3Apush&"));
  const auto key = Key::load_or_create(folder_);
  ASSERT_TRUE(key);
  const std::string url = fake_.origin() + token.path + "?" + token.query;
  // The digest of an empty body in hexadecimal digits, in base64.
  const auto expected = key->authorization(
      "GET," + url +
      ",ZTNiMGM0NDI5OGZjMWMxNDlhZmJmNGM4OTk2ZmI5MjQyN2FlNDFlNDY0OWI5MzRjYTQ5NTk5MWI3"
      "ODUyYjg1NQ==");
  EXPECT_EQ(token.header("Authorization"), *expected);
}

TEST_F(RegistryTest, ARegistryThatIsNeverContentIsAskedTwice) {
  fake_.hook = [this](const Call& call) {
    if (call.path == "/token") {
      call.answer("200 OK", R"({"token":"t"})");
    } else {
      call.answer("401 Unauthorized", "",
                  std::format("WWW-Authenticate: Bearer realm=\"{}/token\"\r\n", fake_.origin()));
    }
    return Then::kAnswered;
  };
  EXPECT_THAT(error(), HasSubstr("unauthorized: access denied"));
  EXPECT_EQ(fake_.calls().size(), 3U);
  fake_.settle();
}

// Fails when a registry could have a token of another one sent to it.
TEST_F(RegistryTest, TokensComeFromTheRegistryItself) {
  FakeRegistry other;
  want_token(other.origin() + "/token");
  EXPECT_THAT(error(), HasSubstr("does not match original host"));
  want_token("https://ollama.com/token");
  EXPECT_THAT(error(), HasSubstr("realm host \"ollama.com\" does not match original host"));
  EXPECT_THAT(other.calls(), IsEmpty());
}

TEST_F(RegistryTest, OtherWaysOfSigningInAreNamed) {
  fake_.hook = [](const Call& call) {
    call.answer("401 Unauthorized", "", "WWW-Authenticate: Basic realm=\"x\"\r\n");
    return Then::kAnswered;
  };
  EXPECT_THAT(error(), HasSubstr("asks for Basic"));
  fake_.settle();
}

TEST_F(RegistryTest, ABadTokenIsNotSent) {
  for (const char* token : {"", "a\\r\\nHost: b", "a b", "\\u00e9"}) {
    fake_.hook = [&](const Call& call) {
      if (call.path == "/token") {
        call.answer("200 OK", std::format(R"({{"token":"{}"}})", token));
      } else {
        call.answer("401 Unauthorized", "",
                    std::format("WWW-Authenticate: Bearer realm=\"{}/token\"\r\n", fake_.origin()));
      }
      return Then::kAnswered;
    };
    EXPECT_THAT(error(), HasSubstr("token is not understood")) << token;
  }
  fake_.settle();
}

// Fails when storage that a registry redirects to gets the registry's token.
TEST_F(RegistryTest, RedirectsDoNotCarryTheToken) {
  FakeRegistry storage;
  storage.manifests["library/m:latest"] = "{}";
  options_.origin = {};
  want_token({});
  const auto plain = fake_.hook.get();
  fake_.hook = [&](const Call& call) {
    const Then then = plain(call);
    if (then != Then::kGoOn) return then;
    call.answer("307 Temporary Redirect", "",
                std::format("Location: {}{}\r\n", storage.origin(), call.path));
    return Then::kAnswered;
  };
  const auto text = manifest();
  ASSERT_TRUE(text) << text.error().message();
  EXPECT_EQ(*text, "{}");
  ASSERT_EQ(storage.calls().size(), 1U);
  EXPECT_THAT(storage.calls()[0].head, Not(HasSubstr("uthorization")));
  fake_.settle();
}

TEST_F(RegistryTest, CirclesEnd) {
  fake_.hook = [](const Call& call) {
    call.answer("302 Found", "", std::format("Location: {}\r\n", call.path));
    return Then::kAnswered;
  };
  EXPECT_THAT(error(), HasSubstr("maximum redirects exceeded (10)"));
  EXPECT_EQ(fake_.calls().size(), 11U);
  fake_.settle();
}

TEST_F(RegistryTest, RedirectsLeadToTheWebOnly) {
  for (const char* to : {"file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1/",
                         "http://user@127.0.0.1/", "javascript:1"}) {
    fake_.hook = [&](const Call& call) {
      call.answer("302 Found", "", std::format("Location: {}\r\n", to));
      return Then::kAnswered;
    };
    EXPECT_THAT(error(), AllOf(Not(HasSubstr("no error")), Not(HasSubstr("root:")))) << to;
  }
  fake_.settle();
}

struct BadAnswer {
  const char* what;
  FakeRegistry::Hook hook;
  const char* error;
};

// Each ends with an error within the bounds, whatever the registry does.
TEST_F(RegistryTest, BadAnswers) {
  Patience& patience = options_.http.patience;
  patience.connect = patience.answer = patience.stall = kBrief;
  patience.slowest = 1024;
  const std::string huge(kMaxManifestSize + 1, ' ');
  const std::vector<BadAnswer> bad = {
      {"never answers",
       [](const Call& call) {
         call.hold();
         return Then::kClose;
       },
       "no answer for 0.2 s"},
      {"hangs up", [](const Call&) { return Then::kClose; }, "/v2/library/m/manifests/latest"},
      {"sends garbage",
       [](const Call& call) {
         call.send("\x16\x03\x01 nonsense\r\n\r\n");
         return Then::kClose;
       },
       "/v2/library/m/manifests/latest"},
      {"a header without end",
       [](const Call& call) {
         call.send("HTTP/1.1 200 OK\r\n");
         while (call.send("X-More: yes, more and more and more and more\r\n")) {
         }
         return Then::kClose;
       },
       ""},
      {"a huge manifest",
       [&](const Call& call) {
         call.answer("200 OK", huge);
         return Then::kClose;
       },
       "the answer is longer than 4194304 bytes"},
      {"a manifest without end",
       [&](const Call& call) {
         call.send("HTTP/1.1 200 OK\r\n\r\n");
         while (call.send(huge)) {
         }
         return Then::kClose;
       },
       "the answer is longer than 4194304 bytes"},
      {"a length that is not kept",
       [](const Call& call) {
         call.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{}");
         return Then::kClose;
       },
       ""},
      {"drips",
       [](const Call& call) {
         call.send("HTTP/1.1 200 OK\r\n\r\n");
         while (!*call.closing && call.send(" ")) {
           std::this_thread::sleep_for(std::chrono::milliseconds(20));
         }
         return Then::kClose;
       },
       "stalled: "},
      {"fails",
       [](const Call& call) {
         call.answer("500 Internal Server Error", "out\x1b[31m of order\n");
         return Then::kAnswered;
       },
       "500: out [31m of order"},
      {"refuses",
       [](const Call& call) {
         call.answer("412 Precondition Failed", R"({"error":"requires a newer version"})");
         return Then::kAnswered;
       },
       "412: requires a newer version"},
      {"redirects to nowhere",
       [](const Call& call) {
         call.answer("302 Found");
         return Then::kAnswered;
       },
       "redirects to nowhere"},
  };
  for (const BadAnswer& one : bad) {
    fake_.hook = one.hook;
    EXPECT_THAT(error(), AllOf(HasSubstr(one.error), Not(HasSubstr("no error")))) << one.what;
  }
  fake_.settle();
}

TEST_F(RegistryTest, ATransientFailureIsTriedAgain) {
  int failures = 0;
  fake_.hook = [&](const Call& call) {
    if (++failures > 2) return Then::kGoOn;
    call.answer("503 Service Unavailable");
    return Then::kAnswered;
  };
  EXPECT_TRUE(manifest());
  EXPECT_EQ(fake_.calls().size(), 3U);
  fake_.settle();
}

TEST_F(RegistryTest, NobodyThere) {
  options_.origin = [](const Name&) { return "http://127.0.0.1:1"; };
  EXPECT_THAT(error(), AllOf(HasSubstr("GET \"http://127.0.0.1:1/v2/library/m/manifests/latest\""),
                             HasSubstr("onnect")));
}

TEST_F(RegistryTest, AStopEndsIt) {
  options_.http.patience.answer = std::chrono::hours(1);
  std::stop_source stop;
  fake_.hook = [&](const Call& call) {
    stop.request_stop();
    call.hold();
    return Then::kClose;
  };
  const auto result = manifest(fake_.host() + "/library/m", stop.get_token());
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::kCancelled);
  fake_.settle();
}

TEST(Challenge, IsRead) {
  const auto challenge =
      parse_challenge(R"(Bearer realm="https://a/t?x=1",service="s, t",scope="a b",error=none)");
  ASSERT_TRUE(challenge);
  EXPECT_EQ(challenge->realm, "https://a/t?x=1");
  EXPECT_EQ(challenge->service, "s, t");
  EXPECT_EQ(challenge->scope, "a b");
  EXPECT_EQ(parse_challenge("bearer realm=https://a/t")->realm, "https://a/t");
  for (const char* bad : {"", "Bearer", "Bearer ", "Bearer realm", "Bearer realm=\"", "Basic a=b",
                          "Bearer =,=,=", "Bearer service=\"x\""}) {
    EXPECT_FALSE(parse_challenge(bad)) << bad;
  }
}

TEST(Origin, IsWhatTheTokenIsFor) {
  EXPECT_EQ(origin_of("HTTPS://Registry.Ollama.AI:443/v2/?x").value(),
            "https://registry.ollama.ai");
  EXPECT_EQ(origin_of("http://[::1]:5000?x").value(), "http://[::1]:5000");
  EXPECT_EQ(host_of("http://[::1]:5000"), "[::1]");
  EXPECT_EQ(host_of("https://a.b:1"), "a.b");
  for (const char* bad : {"", "a", "ftp://a", "https://", "https://a@b/", "https://a\\@b/",
                          "https://a b/", "https://a/\r\nX: y", "https:///x"}) {
    EXPECT_FALSE(origin_of(bad)) << bad;
  }
}

TEST(Origin, FamiliesShareTheirTokens) {
  const auto ours = [](const char* name, const char* url) {
    return Registry({}, *Name::parse(name), false).is_ours(url);
  };
  EXPECT_TRUE(ours("llama3", "https://registry.ollama.ai/v2/x"));
  EXPECT_TRUE(ours("llama3", "https://ollama.com/token"));
  EXPECT_TRUE(ours("hf.co/a/b:Q4_K_M", "https://huggingface.co/v2/token"));
  EXPECT_FALSE(ours("hf.co/a/b:Q4_K_M", "https://ollama.com/token"));
  EXPECT_FALSE(ours("llama3", "http://registry.ollama.ai/v2/x"));
  EXPECT_FALSE(ours("llama3", "https://registry.ollama.ai.example.com/"));
  EXPECT_FALSE(ours("localhost:5000/a/b", "https://localhost:5001/"));
}

// Names of Hugging Face's models are asked of its own registry, by https.
TEST(Origin, NamesLeadToTheirRegistry) {
  const auto url = [](const char* name, bool insecure) {
    return Registry({}, *Name::parse(name), insecure).url("manifests/x");
  };
  EXPECT_EQ(url("llama3", false), "https://registry.ollama.ai/v2/library/llama3/manifests/x");
  EXPECT_EQ(url("hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M", false),
            "https://hf.co/v2/bartowski/Llama-3.2-1B-Instruct-GGUF/manifests/x");
  EXPECT_EQ(url("huggingface.co/a/b", false), "https://huggingface.co/v2/a/b/manifests/x");
  EXPECT_EQ(url("http://localhost:5000/a/b", true), "http://localhost:5000/v2/a/b/manifests/x");
}

TEST(Location, IsRelativeOrAbsolute) {
  const auto to = [](const char* location) {
    return resolve_location("https://a/v2/x", location).value_or("none");
  };
  EXPECT_EQ(to("/v2/u?x=1"), "https://a/v2/u?x=1");
  EXPECT_EQ(to("http://b/c"), "http://b/c");
  EXPECT_EQ(to("//b/c"), "https://b/c");
  EXPECT_EQ(to("c"), "none");
  EXPECT_EQ(to("file:///etc/passwd"), "none");
}

}  // namespace
}  // namespace ollama::store
