// A models folder that Ollama made, with files in Ollama's dialects: everything in it is there,
// runs, and stays until somebody removes it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "store/fixture.h"
#include "store/manifest.h"
#include "store/store.h"

namespace ollama::store {
namespace {

namespace fs = std::filesystem;
using fixture::message_of;
using fixture::OllamaFolder;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

class OllamaFolderTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) /
              std::format("ollama_{}_{}", ::getpid(),
                          testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(folder_);
    models_ = folder_ / "models";
    fs::create_directories(models_);
    fill();
    store_ = std::make_unique<Store>(Store::Options{models_, {}, true});
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string weights(std::string_view architecture) const {
    fixture::make_gguf(folder_ / "draft.gguf", 0, architecture);
    return fixture::read(folder_ / "draft.gguf");
  }

  static std::string config(std::string_view family, std::string_view more = "") {
    return std::format(
        R"({{"model_format":"gguf","model_family":"{0}","model_families":["{0}"],)"
        R"("model_type":"20.9B","file_type":"MXFP4"{1},"architecture":"amd64","os":"linux",)"
        R"("rootfs":{{"type":"layers","diff_ids":[]}}}})",
        family, more);
  }

  void fill() {
    const OllamaFolder ollama(models_);
    const std::string gptoss = weights("gptoss");
    const std::string gemma = weights("gemma3");
    const auto model = [&](std::string_view family, const std::string& weights,
                           std::vector<std::string> more, std::string_view config_more = "") {
      more.insert(more.begin(), ollama.layer(kModelLayer, weights, R"(,"from":"/root/x.gguf")"));
      return OllamaFolder::manifest(ollama.layer(kConfigType, config(family, config_more)), more);
    };
    ollama.add("registry.ollama.ai/library/gpt-oss/20b",
               model("gptoss", gptoss,
                     {ollama.layer(kTemplateLayer, "{{ .Prompt }}"),
                      ollama.layer(kLicenseLayer, "Apache License"),
                      ollama.layer(kParamsLayer,
                                   "{\"stop\":[\"\\u003c|end|\\u003e\"],"
                                   "\"temperature\":1}\n")}));
    ollama.add("registry.ollama.ai/someone/Gemma/latest",
               model("gemma3", gemma,
                     {ollama.layer(kSystemLayer, "Be kind."),
                      ollama.layer(kMessagesLayer, "[{\"role\":\"user\",\"content\":\"Hi\"}]\n")},
                     R"(,"renderer":"gemma","parser":"gemma","capabilities":["vision"])"));
    ollama.add("hf.co/Some-One/Model-GGUF/Q4_K_M", model("gptoss", gptoss, {}));
    linked_ = ollama.add_linked("ollama.com/library/linked/latest",
                                model("gptoss", gptoss, {ollama.layer(kSystemLayer, "L")}));
    // A model in two formats, of which one was pulled.
    const std::string child = model("gemma3", gemma, {ollama.layer(kSystemLayer, "listed")});
    ollama.blob(child);
    ollama.add_linked(
        "ollama.com/library/listed/latest",
        std::format(R"({{"schemaVersion":2,"mediaType":"{}","manifests":[)"
                    R"({{"mediaType":"{}","digest":"{}","runner":"mlx","format":"safetensors"}},)"
                    R"({{"mediaType":"{}","digest":"{}","runner":"llamacpp","format":"gguf"}}]}})",
                    kManifestListType, kManifestType, digest_of("not pulled").text(), kManifestType,
                    digest_of(child).text()));
    ollama.add("registry.ollama.ai/library/cloud/latest",
               OllamaFolder::manifest(
                   ollama.layer(kConfigType,
                                R"({"model_format":"","model_family":"","model_families":null,)"
                                R"("model_type":"","file_type":"","remote_host":"https://x",)"
                                R"("remote_model":"big"})"),
                   {}));
    ollama.add(
        "registry.ollama.ai/library/tensors/latest",
        OllamaFolder::manifest(ollama.layer(kConfigType, R"({"model_format":"safetensors"})"),
                               {ollama.layer("application/vnd.ollama.image.tensor", "t",
                                             R"(,"name":"model.embed_tokens.weight")")}));
    // As old as they may be.
    for (const auto& entry : fs::directory_iterator(models_ / "blobs")) {
      fixture::age(entry.path(), std::chrono::hours(5000));
    }
  }

  std::vector<std::string> listed() const {
    std::vector<std::string> names;
    const auto list = store_->list().value();
    for (const auto& model : list.models) names.push_back(model.name);
    return names;
  }
  std::size_t blobs() const {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(models_ / "blobs"), fs::directory_iterator()));
  }

  fs::path folder_;
  fs::path models_;
  fs::path linked_;
  std::unique_ptr<Store> store_;
};

TEST_F(OllamaFolderTest, ItsModelsAreListedAndShown) {
  EXPECT_THAT(listed(), UnorderedElementsAre("gpt-oss:20b", "someone/Gemma:latest",
                                             "hf.co/Some-One/Model-GGUF:Q4_K_M", "linked:latest",
                                             "listed:latest", "cloud:latest", "tensors:latest"));
  const auto list = store_->list().value();
  const auto entry = std::ranges::find(list.models, "gpt-oss:20b", &api::ListModel::name);
  const std::string manifest =
      fixture::read(models_ / "manifests/registry.ollama.ai/library/gpt-oss/20b");
  EXPECT_EQ(entry->digest, digest_of(manifest).hex()) << "its ID is not what Ollama shows";
  EXPECT_EQ(entry->details.family, "gptoss");
  EXPECT_EQ(entry->details.quantization_level, "MXFP4");
  EXPECT_EQ(entry->size, parse_manifest(manifest)->total_size());

  const auto shown = store_->show({.model = "gpt-oss:20b"});
  ASSERT_TRUE(shown) << message_of(shown);
  EXPECT_EQ(shown->license, "Apache License");
  EXPECT_EQ(shown->template_text, "{{ .Prompt }}");
  EXPECT_THAT(shown->parameters, HasSubstr("\"<|end|>\""));
  EXPECT_EQ(shown->details.parameter_size, "20.9B");
  const auto gemma = store_->resolve("someone/gemma");
  ASSERT_TRUE(gemma) << message_of(gemma);
  EXPECT_EQ(gemma->system, "Be kind.");
  EXPECT_EQ(gemma->config.renderer, "gemma");
  EXPECT_EQ(gemma->messages.at(0).content, "Hi");
  EXPECT_EQ(store_->resolve("listed")->system, "listed");
  EXPECT_EQ(store_->resolve("linked")->system, "L");
  EXPECT_THAT(message_of(store_->resolve("cloud")), HasSubstr("cloud"));
  EXPECT_THAT(message_of(store_->resolve("tensors")), HasSubstr("no GGUF weights"));
}

TEST_F(OllamaFolderTest, NothingOfItIsPruned) {
  EXPECT_EQ(store_->prune().value(), 0U);
  EXPECT_EQ(listed().size(), 7U);
  ASSERT_TRUE(store_->remove("gpt-oss:20b"));
  ASSERT_TRUE(store_->remove("hf.co/Some-One/Model-GGUF:Q4_K_M"));
  EXPECT_TRUE(store_->resolve("linked")) << "its weights went with those that shared them";
}

TEST_F(OllamaFolderTest, CopiesAreTheSameBytes) {
  const fs::path folder = models_ / "manifests/registry.ollama.ai/library";
  for (const auto& [name, original] :
       {std::pair("tensors", folder / "tensors" / "latest"), {"linked", linked_}}) {
    const auto copied = store_->copy(name, "copy");
    // What cannot run here can still be kept.
    ASSERT_TRUE(copied) << message_of(copied);
    EXPECT_EQ(fixture::read(folder / "copy" / "latest"), fixture::read(original));
  }
}

TEST_F(OllamaFolderTest, WhatIsMadeOfItsModelsKeepsWhatTheySay) {
  const auto made =
      store_->create({.model = "mine", .from = "someone/Gemma", .system = "Be brief."});
  ASSERT_TRUE(made) << message_of(made);
  const auto model = store_->resolve("mine");
  ASSERT_TRUE(model) << message_of(model);
  EXPECT_EQ(model->config.renderer, "gemma");
  EXPECT_EQ(api::to_string(model->config.others), R"({"capabilities":["vision"]})");
  EXPECT_EQ(model->messages.size(), 1U);
}

// A newer Ollama looks among its links first: one that stays would hide the new model.
TEST_F(OllamaFolderTest, LinkedModelsAreRemovedAndReplaced) {
  const std::size_t before = blobs();
  ASSERT_TRUE(store_->copy("gpt-oss:20b", "linked"));
  EXPECT_FALSE(fs::is_symlink(linked_)) << "Ollama would still see the old model";
  EXPECT_EQ(store_->resolve("linked")->system, "");
  EXPECT_EQ(blobs(), before - 2) << "the old manifest's blob and its text";
  ASSERT_TRUE(store_->remove("listed"));
  EXPECT_FALSE(fs::exists(models_ / "manifests-v2" / "ollama.com"));
  EXPECT_THAT(store_->resolve("listed").error().message(), HasSubstr("not found"));
  EXPECT_TRUE(store_->resolve("someone/Gemma")) << "its weights went with those that shared them";
  EXPECT_EQ(store_->prune().value(), 0U);
}

}  // namespace
}  // namespace ollama::store
