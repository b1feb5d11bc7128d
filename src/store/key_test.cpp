#include "store/key.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <sys/stat.h>

#include <cstdlib>
#include <fstream>
#include <thread>

#include "api/types.h"

namespace ollama::store {
namespace {

namespace fs = std::filesystem;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

class KeyTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "key-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { fs::remove_all(folder_); }
  static std::string text_of(const fs::path& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  static mode_t mode_of(const fs::path& path) {
    struct stat info{};
    EXPECT_EQ(::stat(path.c_str(), &info), 0) << path;
    return info.st_mode & 07777U;
  }
  fs::path folder_;
};

// Made by ssh-keygen (OpenSSH 9.2), for this test only.
constexpr std::string_view kPrivate = R"(-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
QyNTUxOQAAACACjqdwIFKGjPIBLpeXDfXeqa2MEm83neg3oWr5rWjofQAAAIi2SH+Qtkh/
kAAAAAtzc2gtZWQyNTUxOQAAACACjqdwIFKGjPIBLpeXDfXeqa2MEm83neg3oWr5rWjofQ
AAAECkZSkiOWIZ+0kNXK1JlHABy1W+R1+Fwo0OUaoCM/mP7AKOp3AgUoaM8gEul5cN9d6p
rYwSbzed6DehavmtaOh9AAAABHRlc3QB
-----END OPENSSH PRIVATE KEY-----
)";
constexpr std::string_view kPublic =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAKOp3AgUoaM8gEul5cN9d6prYwSbzed6DehavmtaOh9";

// Fails when a user's key from Ollama is not understood.
TEST_F(KeyTest, ReadsWhatSshKeygenWrites) {
  const auto key = Key::parse(kPrivate);
  ASSERT_TRUE(key) << key.error().message();
  EXPECT_EQ(key->public_text(), kPublic);
}

// Fails when ssh-keygen or Ollama could not read what this program wrote.
TEST_F(KeyTest, WritesWhatItReads) {
  const auto key = Key::generate();
  ASSERT_TRUE(key);
  const std::string text = key->private_text();
  EXPECT_THAT(text, StartsWith("-----BEGIN OPENSSH PRIVATE KEY-----\n"));
  EXPECT_THAT(text, EndsWith("\n-----END OPENSSH PRIVATE KEY-----\n"));
  const auto again = Key::parse(text);
  ASSERT_TRUE(again) << again.error().message();
  EXPECT_EQ(again->public_text(), key->public_text());
  EXPECT_NE(Key::generate()->public_text(), key->public_text());
}

TEST_F(KeyTest, SshKeygenReadsIt) {
  // NOLINTBEGIN(cert-env33-c): the test's own words
  if (std::system("command -v ssh-keygen >/dev/null") != 0) GTEST_SKIP() << "no ssh-keygen";
  const auto key = Key::load_or_create(folder_);
  ASSERT_TRUE(key);
  const std::string command = "ssh-keygen -y -f '" + (folder_ / "id_ed25519").string() + "' >'" +
                              (folder_ / "out").string() + "'";
  ASSERT_EQ(std::system(command.c_str()), 0);
  // NOLINTEND(cert-env33-c)
  EXPECT_THAT(text_of(folder_ / "out"), StartsWith(key->public_text()));
}

TEST_F(KeyTest, IsMadeOnceAndKept) {
  const fs::path home = folder_ / "home" / ".ollama";
  const auto first = Key::load_or_create(home);
  ASSERT_TRUE(first) << first.error().message();
  EXPECT_EQ(mode_of(home / "id_ed25519"), 0600U);
  EXPECT_EQ(mode_of(home / "id_ed25519.pub"), 0644U);
  EXPECT_EQ(text_of(home / "id_ed25519.pub"), first->public_text() + "\n");
  const auto second = Key::load_or_create(home);
  ASSERT_TRUE(second);
  EXPECT_EQ(second->public_text(), first->public_text());
  EXPECT_EQ(std::distance(fs::directory_iterator(home), {}), 2) << "something is left behind";
}

// Fails when two servers that start together use two keys.
TEST_F(KeyTest, ThoseWhoMakeItTogetherGetTheSame) {
  std::vector<std::string> seen(8);
  {
    std::vector<std::jthread> threads;
    for (std::string& text : seen) {
      threads.emplace_back([&] {
        const auto key = Key::load_or_create(folder_);
        text = key ? key->public_text() : std::string(key.error().message());
      });
    }
  }
  for (const std::string& text : seen) EXPECT_EQ(text, seen.front());
}

// Fails when the registry would not accept the signature.
TEST_F(KeyTest, SignsSoThatThePublicKeyVerifies) {
  const auto key = Key::parse(kPrivate);
  ASSERT_TRUE(key);
  const auto authorization = key->authorization("GET,https://x/token,abc");
  ASSERT_TRUE(authorization);
  const auto colon = authorization->find(':');
  ASSERT_EQ("ssh-ed25519 " + authorization->substr(0, colon), kPublic);
  const auto blob = api::decode_base64(authorization->substr(0, colon));
  const auto signature = api::decode_base64(authorization->substr(colon + 1));
  ASSERT_TRUE(blob && signature);
  ASSERT_EQ(signature->size(), 64U);
  const std::string raw = blob->substr(blob->size() - 32);
  EVP_PKEY* pair = EVP_PKEY_new_raw_public_key(
      EVP_PKEY_ED25519, nullptr, reinterpret_cast<const unsigned char*>(raw.data()), raw.size());
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  const std::string text = "GET,https://x/token,abc";
  EXPECT_EQ(EVP_DigestVerifyInit(context, nullptr, nullptr, nullptr, pair), 1);
  EXPECT_EQ(EVP_DigestVerify(context, reinterpret_cast<const unsigned char*>(signature->data()),
                             signature->size(), reinterpret_cast<const unsigned char*>(text.data()),
                             text.size()),
            1);
  EVP_MD_CTX_free(context);
  EVP_PKEY_free(pair);
}

TEST_F(KeyTest, DamagedKeysSayWhichFile) {
  const std::string whole(kPrivate);
  for (std::size_t cut = 0; cut < whole.size(); cut += 7) {
    EXPECT_FALSE(Key::parse(whole.substr(0, cut))) << cut;
    std::string changed = whole;
    changed[cut] = changed[cut] == 'A' ? 'B' : 'A';
    (void)Key::parse(changed);  // whatever it says, it must not crash
  }
  std::ofstream(folder_ / "id_ed25519") << "-----BEGIN RSA PRIVATE KEY-----\n";
  const auto key = Key::load_or_create(folder_);
  ASSERT_FALSE(key);
  EXPECT_EQ(key.error().code(), ErrorCode::kCorrupt);
  EXPECT_THAT(std::string(key.error().message()), HasSubstr("id_ed25519"));
}

}  // namespace
}  // namespace ollama::store
