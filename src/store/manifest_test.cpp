#include "store/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <format>

namespace ollama::store {
namespace {

using testing::HasSubstr;

const std::string kHexA(64, 'a');

std::string layer(std::string_view digest, std::string_view size,
                  std::string_view type = kModelLayer) {
  return std::format(R"({{"mediaType":"{}","digest":"{}","size":{}}})", type, digest, size);
}

std::string manifest(std::string_view config, std::string_view layers,
                     std::string_view version = "2") {
  return std::format(R"({{"schemaVersion":{},"mediaType":"{}","config":{},"layers":{}}})", version,
                     kManifestType, config, layers);
}

std::string error_of(std::string_view text) {
  const auto parsed = parse_manifest(text);
  if (parsed) return "(no error)";
  EXPECT_EQ(parsed.error().code(), ErrorCode::kCorrupt);
  return std::string(parsed.error().message());
}

const std::string kGood = layer("sha256:" + kHexA, "7");

// The bytes that Ollama writes: it computes a model's digest from them.
TEST(Manifest, IsWrittenAsOllamaWritesIt) {
  const std::string text = manifest(layer("sha256:" + kHexA, "3", kConfigType),
                                    "[" + layer("sha256:" + kHexA, "7") + "]") +
                           "\n";
  const auto parsed = parse_manifest(text);
  ASSERT_TRUE(parsed) << parsed.error().message();
  EXPECT_EQ(parsed->total_size(), 10U);
  ASSERT_NE(parsed->find(kModelLayer), nullptr);
  EXPECT_EQ(parsed->find(kSystemLayer), nullptr);
  EXPECT_EQ(to_text(*parsed), text);
}

TEST(Manifest, UnknownTypesAndFieldsAreKept) {
  const auto parsed = parse_manifest(
      manifest(kGood, "[" + layer("sha256-" + kHexA, "1", "application/vnd.ollama.image.tensor") +
                          R"(,{"mediaType":"x","digest":"sha256:)" + kHexA +
                          R"(","size":0,"from":"base","annotations":{}}])"));
  ASSERT_TRUE(parsed) << parsed.error().message();
  ASSERT_EQ(parsed->layers.size(), 2U);
  EXPECT_EQ(parsed->layers[1].from, "base");
}

TEST(Manifest, HostileOnesAreErrors) {
  EXPECT_THAT(error_of(""), HasSubstr("JSON"));
  EXPECT_THAT(error_of("not json"), HasSubstr("JSON"));
  EXPECT_THAT(error_of("[]"), HasSubstr("not a JSON object"));
  EXPECT_THAT(error_of("{}"), HasSubstr("schemaVersion"));
  EXPECT_THAT(error_of(manifest(kGood, "[]", "1")), HasSubstr("schemaVersion"));
  EXPECT_THAT(error_of(manifest(kGood, "[]", "\"2\"")), HasSubstr("schemaVersion"));
  EXPECT_THAT(error_of(R"({"schemaVersion":2,"layers":[]})"), HasSubstr("no config"));
  EXPECT_THAT(error_of(manifest("[]", "[]")), HasSubstr("config"));
  EXPECT_THAT(error_of(manifest(kGood, "{}")), HasSubstr("not an array"));
  EXPECT_THAT(error_of(manifest(kGood, "[3]")), HasSubstr("layer 0"));
  for (const char* size :
       {"-1", "1.5", "\"7\"", "null", "18446744073709551615", "9223372036854775807"}) {
    EXPECT_THAT(error_of(manifest(kGood, "[" + layer("sha256:" + kHexA, size) + "]")),
                HasSubstr("layer 0 has no valid size"))
        << size;
  }
  for (const std::string& digest :
       {std::string(), std::string(kHexA), std::string("sha256:../../etc/passwd"),
        "sha256:" + kHexA + "a", "sha512:" + kHexA}) {
    EXPECT_THAT(error_of(manifest(kGood, "[" + layer(digest, "7") + "]")),
                HasSubstr("layer 0: invalid digest"))
        << digest;
  }
  std::string many = "[" + kGood;
  for (int i = 1; i < 10'000; ++i) many += "," + kGood;
  EXPECT_THAT(error_of(manifest(kGood, many + "]")), HasSubstr("10000 layers"));
}

TEST(Config, RoundTrips) {
  ModelConfig config;
  config.model_format = "gguf";
  config.model_family = "llama";
  config.model_families = {"llama", "clip"};
  config.model_type = "1.2B";
  config.file_type = "Q4_K_M";
  config.renderer = "r";
  config.parser = "p";
  config.requires_version = "0.14.0";
  const std::string text =
      to_text(config, {Layer{std::string(kModelLayer), digest_of("x"), 1, {}}});
  EXPECT_THAT(text, HasSubstr(R"("rootfs":{"type":"layers","diff_ids":["sha256:)"));
  const auto back = parse_config(text);
  ASSERT_TRUE(back) << back.error().message();
  EXPECT_EQ(*back, config);
}

TEST(Config, HostileOnesAreErrors) {
  for (const char* text : {"", "[]", R"({"model_family":3})", R"({"model_families":[3]})"}) {
    const auto config = parse_config(text);
    ASSERT_FALSE(config) << text;
    EXPECT_EQ(config.error().code(), ErrorCode::kCorrupt);
  }
  EXPECT_TRUE(parse_config("{\"model_families\":null}"));
}

TEST(Manifest, ArbitraryBytesNeverBreakTheParser) {
  ASSERT_TRUE(rc::check([](const std::string& bytes) {
    (void)parse_manifest(bytes);
    (void)parse_config(bytes);
  }));
}

}  // namespace
}  // namespace ollama::store
