#include "store/name.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "store/digest.h"

namespace ollama::store {
namespace {

TEST(Name, MissingPartsAreFilled) {
  struct Case {
    const char* text;
    const char* full;
    const char* display;
  };
  for (const Case& c : std::initializer_list<Case>{
           {"llama3", "registry.ollama.ai/library/llama3:latest", "llama3:latest"},
           {"llama3:8b", "registry.ollama.ai/library/llama3:8b", "llama3:8b"},
           {"me/Model:Q4_K_M", "registry.ollama.ai/me/Model:Q4_K_M", "me/Model:Q4_K_M"},
           {"hf.co/a/b", "hf.co/a/b:latest", "hf.co/a/b:latest"},
           {"localhost:5000/a/b", "localhost:5000/a/b:latest", "localhost:5000/a/b:latest"},
           {"localhost:5000/a/b:c", "localhost:5000/a/b:c", "localhost:5000/a/b:c"},
           {"https://hf.co/a/b:c", "hf.co/a/b:c", "hf.co/a/b:c"},
           {"Registry.Ollama.AI/library/x", "Registry.Ollama.AI/library/x:latest", "x:latest"},
           {"_a-b.c", "registry.ollama.ai/library/_a-b.c:latest", "_a-b.c:latest"},
       }) {
    const auto name = Name::parse(c.text);
    ASSERT_TRUE(name) << c.text;
    EXPECT_EQ(name->full(), c.full);
    EXPECT_EQ(name->display(), c.display);
    EXPECT_EQ(Name::parse_path(name->path())->full(), c.full);
  }
}

TEST(Name, BadNamesAreRefused) {
  for (const std::string& text : {std::string(),
                                  std::string("."),
                                  std::string(".."),
                                  std::string("../x"),
                                  std::string("../../etc/passwd"),
                                  std::string("a/../b"),
                                  std::string("a/b/../c"),
                                  std::string("x:.."),
                                  std::string("x:"),
                                  std::string(":x"),
                                  std::string("/x"),
                                  std::string("/etc/passwd"),
                                  std::string("a//b"),
                                  std::string("a/b/c/d"),
                                  std::string("a/b/"),
                                  std::string("-x"),
                                  std::string(".x"),
                                  std::string("a.b/c"),
                                  std::string("x y"),
                                  std::string("x\0y", 3),
                                  std::string("x\ny"),
                                  std::string("x\\y"),
                                  std::string("x:y:z"),
                                  std::string("é"),
                                  std::string("x@sha256"),
                                  std::string(81, 'a'),
                                  "x:" + std::string(81, 'a'),
                                  std::string(81, 'a') + "/x",
                                  std::string(351, 'a') + "/a/x",
                                  std::string("x\x1b[2J")}) {
    const auto name = Name::parse(text);
    EXPECT_FALSE(name) << text;
    if (!name) {
      EXPECT_TRUE(name.error().message().starts_with("invalid model name")) << text;
      EXPECT_EQ(name.error().message().find('\x1b'), std::string_view::npos);
    }
  }
  EXPECT_TRUE(Name::parse(std::string(80, 'a')));
  EXPECT_TRUE(Name::parse(std::string(350, 'a') + "/a/x"));
}

TEST(Name, PathsMustHaveFourParts) {
  for (const char* path : {"", "a", "a/b/c", "a/b/c/d/e", "../b/c/d", "a/b/c/..", "a/b.c/c/d",
                           "/a/b/c", "a/b/c/.DS_Store"}) {
    EXPECT_FALSE(Name::parse_path(path)) << path;
  }
}

TEST(Name, CaseIsKeptAndIgnored) {
  EXPECT_EQ(Name::parse("Mistral")->model(), "Mistral");
  EXPECT_TRUE(Name::parse("Mistral")->same_as(*Name::parse("mistral:LATEST")));
  EXPECT_FALSE(Name::parse("Mistral")->same_as(*Name::parse("mistral:7b")));
}

// Whatever a request says, the path of a name that was accepted stays inside the folder.
TEST(Name, NoNameLeavesItsFolder) {
  const auto text = rc::gen::container<std::string>(
      rc::gen::element('a', '.', '/', ':', '-', '_', '\\', '\0', ' ', 'Z'));
  ASSERT_TRUE(rc::check([&] {
    const auto name = Name::parse(*text);
    if (!name) return;
    const auto path = name->path();
    RC_ASSERT(path.is_relative());
    RC_ASSERT(path.lexically_normal() == path);
    RC_ASSERT(std::distance(path.begin(), path.end()) == 4);
    RC_ASSERT(Name::parse(name->full())->full() == name->full());
    RC_ASSERT(Name::parse(name->display())->same_as(*name));
  }));
}

TEST(Digest, OnlySha256) {
  const std::string hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
  EXPECT_EQ(digest_of("").hex(), hex);
  EXPECT_EQ(Digest::parse("sha256:" + hex)->file_name(), "sha256-" + hex);
  EXPECT_EQ(Digest::parse("sha256-" + hex)->text(), "sha256:" + hex);
  std::string upper = hex;
  upper[0] = 'E';
  EXPECT_EQ(Digest::parse("sha256:" + upper)->hex(), hex);
  for (const std::string& text :
       {std::string(), hex, "sha256:" + hex.substr(1), "sha256:" + hex + "0", "sha512:" + hex,
        "SHA256:" + hex, "sha256:../" + hex.substr(3), "sha256:g" + hex.substr(1),
        "sha256:" + std::string(64, '/'), "sha256:" + hex.substr(0, 63) + std::string(1, '\0')}) {
    EXPECT_FALSE(Digest::parse(text)) << text;
  }
}

}  // namespace
}  // namespace ollama::store
