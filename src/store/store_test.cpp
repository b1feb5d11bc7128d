#include "store/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <format>
#include <fstream>
#include <random>
#include <sstream>
#include <thread>

#include "gguf/writer.h"
#include "store/files.h"
#include "store/fixture.h"
#include "store/modelfile.h"

namespace ollama::store {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::UnorderedElementsAre;

using fixture::code_of;
using fixture::message_of;
using fixture::read;
using fixture::write;

class StoreTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) /
              std::format("store_{}_{}", ::getpid(),
                          testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(folder_);
    models_ = folder_ / "models";
    store_ = std::make_unique<Store>(
        Store::Options{models_, fs::path(OLLAMA_SOURCE_DIR) / "models", true});
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path make_gguf(const std::string& name, std::uint32_t seed = 0,
                     std::string_view architecture = "llama", std::string_view type = "") {
    fixture::make_gguf(folder_ / name, seed, architecture, type);
    return folder_ / name;
  }

  // A request to create `name` from a model file.
  api::CreateRequest request_from(const fs::path& file, const std::string& name) {
    const auto digest = store_->import_file(file);
    EXPECT_TRUE(digest) << message_of(digest);
    api::CreateRequest request;
    request.model = name;
    request.files = {{file.filename().string(), digest->text()}};
    return request;
  }
  void create(const std::string& name, std::uint32_t seed = 0, const std::string& system = "") {
    api::CreateRequest request = request_from(make_gguf("m.gguf", seed), name);
    request.system = system;
    const auto result = store_->create(request);
    ASSERT_TRUE(result) << message_of(result);
  }

  std::vector<std::string> listed() {
    std::vector<std::string> names;
    const auto list = store_->list().value();
    for (const auto& model : list.models) names.push_back(model.name);
    return names;
  }
  std::vector<std::string> blobs() {
    std::vector<std::string> names;
    if (!fs::exists(models_ / "blobs")) return names;
    for (const auto& entry : fs::directory_iterator(models_ / "blobs")) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  }
  fs::path manifest_of(const std::string& model, const std::string& tag = "latest") {
    return models_ / "manifests" / "registry.ollama.ai" / "library" / model / tag;
  }

  fs::path folder_;
  fs::path models_;
  std::unique_ptr<Store> store_;
};

// ---- the bundled model -------------------------------------------------------------------------

TEST_F(StoreTest, TheBundledModelNeedsNoSetUp) {
  const auto model = store_->resolve("stories260k");
  ASSERT_TRUE(model) << message_of(model);
  EXPECT_TRUE(model->bundled);
  EXPECT_EQ(model->template_text, "{{ .Prompt }}");
  EXPECT_EQ(model->options.temperature, 0.0F);
  EXPECT_EQ(model->options.num_predict, 256);
  EXPECT_EQ(model->config.model_family, "llama");
  EXPECT_EQ(model->config.file_type, "F16");
  EXPECT_EQ(model->digest, digest_of(read(model->weights)).hex());
  EXPECT_TRUE(store_->resolve("Stories260K:latest"));
  EXPECT_FALSE(store_->resolve("stories260k:other"));
  EXPECT_THAT(listed(), ElementsAre("stories260k:latest"));
  EXPECT_FALSE(fs::exists(models_)) << "reading must not write";

  api::ShowRequest request;
  request.model = "stories260k";
  const auto show = store_->show(request);
  ASSERT_TRUE(show) << message_of(show);
  EXPECT_EQ(show->details.parameter_size, "260K");
  EXPECT_EQ(show->model_info.at("llama.context_length").as_int64(), 512);
  EXPECT_THAT(show->capabilities, ElementsAre("completion"));
}

TEST_F(StoreTest, TheBundledModelCannotBeRemoved) {
  const auto result = store_->remove("stories260k");
  EXPECT_EQ(code_of(result), ErrorCode::kInvalidArgument);
  EXPECT_THAT(message_of(result), HasSubstr("cannot be removed"));
}

TEST_F(StoreTest, AUsersModelShadowsTheBundledOne) {
  create("stories260k");
  EXPECT_FALSE(store_->resolve("stories260k")->bundled);
  EXPECT_THAT(listed(), ElementsAre("stories260k:latest"));
  ASSERT_TRUE(store_->remove("stories260k"));
  EXPECT_TRUE(store_->resolve("stories260k")->bundled);
}

TEST_F(StoreTest, TheBundledModelCanBeCopiedAndBuiltUpon) {
  ASSERT_TRUE(store_->copy("stories260k", "mine"));
  const auto copy = store_->resolve("mine");
  ASSERT_TRUE(copy) << message_of(copy);
  EXPECT_FALSE(copy->bundled);
  EXPECT_EQ(copy->template_text, "{{ .Prompt }}");
  EXPECT_EQ(copy->options.num_predict, 256);
  EXPECT_EQ(read(copy->weights), read(store_->resolve("stories260k")->weights));

  api::CreateRequest request;
  request.model = "hot";
  request.from = "stories260k";
  request.parameters = {{"temperature", 0.7}};
  ASSERT_TRUE(store_->create(request));
  const auto hot = store_->resolve("hot");
  ASSERT_TRUE(hot) << message_of(hot);
  EXPECT_EQ(hot->options.temperature, 0.7F);
  EXPECT_EQ(hot->options.num_predict, 256);
  EXPECT_EQ(hot->parent_model, "stories260k:latest");
}

TEST_F(StoreTest, WithoutItsFileTheBundledModelIsNotThere) {
  const Store bare({models_, folder_ / "nowhere", true});
  EXPECT_EQ(message_of(bare.resolve("stories260k")), "model 'stories260k' not found");
  EXPECT_THAT(bare.list()->models, IsEmpty());
  const Store none({models_, {}, true});
  EXPECT_EQ(code_of(none.resolve("stories260k")), ErrorCode::kNotFound);
}

// ---- what is remembered ------------------------------------------------------------------------

TEST_F(StoreTest, AModelIsRememberedWhileItIsTheSame) {
  create("m", 1, "one");
  EXPECT_FALSE(store_->recall("m")) << "nobody has asked for it";
  ASSERT_TRUE(store_->resolve("m"));
  const auto remembered = store_->recall("m:latest");
  ASSERT_TRUE(remembered);
  EXPECT_EQ(remembered->system, "one");
  EXPECT_EQ(remembered->digest, store_->resolve("m")->digest);
  EXPECT_FALSE(store_->recall("none"));
  EXPECT_FALSE(store_->recall("../m"));

  create("m", 1, "two");
  EXPECT_FALSE(store_->recall("m")) << "its manifest is another";
  ASSERT_TRUE(store_->resolve("m"));
  EXPECT_EQ(store_->recall("m")->system, "two");
  fs::remove(store_->resolve("m")->weights);
  EXPECT_FALSE(store_->recall("m")) << "its weights are gone";

  create("n", 2);
  ASSERT_TRUE(store_->resolve("n"));
  ASSERT_TRUE(store_->recall("n"));
  ASSERT_TRUE(store_->remove("n"));
  EXPECT_FALSE(store_->recall("n")) << "it is removed";
}

// ---- creating ----------------------------------------------------------------------------------

TEST_F(StoreTest, CreateWritesOllamasLayout) {
  const fs::path file = make_gguf("m.gguf");
  api::CreateRequest request = request_from(file, "m:tag");
  request.template_text = "T {{ .Prompt }}";
  request.system = "S";
  request.license = {"L"};
  request.parameters = {{"top_k", 5}, {"stop", {"<|end|>"}}};
  api::Message message;
  message.role = "user";
  message.content = "hi";
  request.messages = {message};
  request.requires_version = "0.14.0";
  std::vector<std::string> statuses;
  const auto result = store_->create(request, [&](const api::ProgressResponse& progress) {
    statuses.push_back(progress.status);
    return true;
  });
  ASSERT_TRUE(result) << message_of(result);
  EXPECT_EQ(statuses.front(), "parsing GGUF");
  EXPECT_THAT(statuses, Contains("using existing layer " + digest_of(read(file)).text()));
  EXPECT_THAT(statuses, Contains("creating new layer " + digest_of("S").text()));
  EXPECT_EQ(statuses[statuses.size() - 2], "writing manifest");
  EXPECT_EQ(statuses.back(), "success");

  // The parameters' bytes are those of Ollama, so that equal models share the blob.
  const std::string params = "{\"stop\":[\"\\u003c|end|\\u003e\"],\"top_k\":5}\n";
  const auto manifest = parse_manifest(read(manifest_of("m", "tag")));
  ASSERT_TRUE(manifest) << message_of(manifest);
  std::vector<std::pair<std::string, std::string>> layers;
  for (const Layer& layer : manifest->layers) {
    layers.emplace_back(layer.media_type, layer.digest.text());
    EXPECT_EQ(fs::file_size(models_ / "blobs" / layer.digest.file_name()), layer.size);
    EXPECT_EQ(digest_of(read(models_ / "blobs" / layer.digest.file_name())), layer.digest);
  }
  EXPECT_THAT(
      layers,
      ElementsAre(std::pair(std::string(kModelLayer), digest_of(read(file)).text()),
                  std::pair(std::string(kTemplateLayer), digest_of("T {{ .Prompt }}").text()),
                  std::pair(std::string(kSystemLayer), digest_of("S").text()),
                  std::pair(std::string(kLicenseLayer), digest_of("L").text()),
                  std::pair(std::string(kParamsLayer), digest_of(params).text()),
                  std::pair(std::string(kMessagesLayer),
                            digest_of("[{\"role\":\"user\",\"content\":\"hi\"}]\n").text())));
  EXPECT_EQ(manifest->config.media_type, kConfigType);

  const auto model = store_->resolve("m:tag");
  ASSERT_TRUE(model) << message_of(model);
  EXPECT_EQ(model->weights, models_ / "blobs" / digest_of(read(file)).file_name());
  EXPECT_EQ(model->template_text, "T {{ .Prompt }}");
  EXPECT_EQ(model->system, "S");
  EXPECT_THAT(model->license, ElementsAre("L"));
  EXPECT_EQ(model->options.top_k, 5);
  ASSERT_EQ(model->messages.size(), 1U);
  EXPECT_EQ(model->messages[0].content, "hi");
  EXPECT_EQ(model->config.requires_version, "0.14.0");
  EXPECT_EQ(model->config.model_format, "gguf");
  EXPECT_THAT(model->config.model_families, ElementsAre("llama"));
  EXPECT_EQ(model->digest, digest_of(read(manifest_of("m", "tag"))).hex());
  EXPECT_EQ(model->size, manifest->total_size());
}

TEST_F(StoreTest, CreateFromAModelKeepsWhatIsNotReplaced) {
  api::CreateRequest base = request_from(make_gguf("m.gguf"), "base");
  base.template_text = "T";
  base.system = "old";
  base.parameters = {{"top_k", 5}, {"seed", 1}};
  ASSERT_TRUE(store_->create(base));
  api::CreateRequest request;
  request.model = "derived";
  request.from = "base";
  request.system = "new";
  request.parameters = {{"seed", 2}};
  ASSERT_TRUE(store_->create(request));
  const auto model = store_->resolve("derived");
  ASSERT_TRUE(model);
  EXPECT_EQ(model->template_text, "T");
  EXPECT_EQ(model->system, "new");
  EXPECT_EQ(model->options.top_k, 5);
  EXPECT_EQ(model->options.seed, 2);
  EXPECT_EQ(model->parent_model, "base:latest");
  EXPECT_EQ(store_->resolve("base")->system, "old");
}

TEST_F(StoreTest, CreateRefusesBadRequests) {
  api::CreateRequest good = request_from(make_gguf("m.gguf"), "m");
  const auto refused = [&](auto&& change) {
    api::CreateRequest request = good;
    change(request);
    const auto result = store_->create(request);
    EXPECT_FALSE(result);
    EXPECT_FALSE(fs::exists(manifest_of("m"))) << "a refused model must not appear";
    return message_of(result);
  };
  EXPECT_THAT(refused([](auto& r) { r.model = "../evil"; }), HasSubstr("invalid model name"));
  EXPECT_THAT(refused([](auto& r) { r.files.clear(); }), HasSubstr("neither"));
  EXPECT_THAT(refused([](auto& r) { r.files[0].digest = "sha256:../../etc/passwd"; }),
              HasSubstr("invalid digest"));
  EXPECT_THAT(refused([](auto& r) { r.files[0].digest = digest_of("no").text(); }),
              HasSubstr("not found"));
  EXPECT_THAT(refused([](auto& r) { r.files.push_back(r.files[0]); }), HasSubstr("one file"));
  for (const char* path : {"/etc/passwd", "../m.gguf", "a/../../m.gguf", "", ".", "a/",
                           "C:\\m.gguf", "a//b.gguf", "./m.gguf"}) {
    EXPECT_THAT(refused([&](auto& r) { r.files[0].name = path; }),
                HasSubstr("file path must be relative"))
        << path;
  }
  EXPECT_THAT(refused([](auto& r) { r.files[0].name = std::string("a\0b", 3); }),
              HasSubstr("file path must be relative"));
  EXPECT_THAT(refused([](auto& r) { r.adapters = {{"../a", "sha256:x"}}; }), HasSubstr("relative"));
  EXPECT_THAT(refused([](auto& r) { r.draft_files = {{"../a", "sha256:x"}}; }),
              HasSubstr("relative"));
  EXPECT_THAT(refused([](auto& r) { r.files.resize(1025, {"a", "b"}); }), HasSubstr("too many"));
  EXPECT_THAT(refused([](auto& r) { r.requires_version = "soon"; }), HasSubstr("0.14.0"));
  EXPECT_THAT(refused([](auto& r) { r.from = "missing"; }), HasSubstr("model 'missing' not found"));
  EXPECT_THAT(refused([](auto& r) { r.parameters = {{"top_k", "x"}}; }),
              HasSubstr("option \"top_k\" must be of type integer"));
  EXPECT_THAT(refused([](auto& r) { r.quantize = "q4"; }), HasSubstr("supported types are"));
  EXPECT_THAT(refused([](auto& r) { r.system = std::string(std::size_t{17} << 20, 'x'); }),
              HasSubstr("too many"));
  const auto text = store_->import_file([&] {
    write(folder_ / "model.bin", "not a gguf file");
    return folder_ / "model.bin";
  }());
  ASSERT_TRUE(text);
  EXPECT_THAT(refused([&](auto& r) { r.files[0] = {"model.bin", text->text()}; }),
              HasSubstr("model.bin: only GGUF"));
  const auto adapter = store_->import_file(make_gguf("a.gguf", 9, "llama", "adapter"));
  ASSERT_TRUE(adapter);
  EXPECT_THAT(refused([&](auto& r) { r.files[0] = {"a.gguf", adapter->text()}; }),
              HasSubstr("weights"));
}

TEST_F(StoreTest, ProjectorsAndAdaptersAreKnownByTheirMetadata) {
  api::CreateRequest request = request_from(make_gguf("m.gguf"), "m");
  const auto projector = store_->import_file(make_gguf("p.gguf", 1, "clip"));
  const auto adapter = store_->import_file(make_gguf("a.gguf", 2, "llama", "adapter"));
  request.files.insert(request.files.begin(), {"p.gguf", projector->text()});
  request.adapters = {{"a.gguf", adapter->text()}};
  ASSERT_TRUE(store_->create(request));
  const auto model = store_->resolve("m");
  ASSERT_TRUE(model) << message_of(model);
  EXPECT_EQ(model->projectors.size(), 1U);
  EXPECT_EQ(model->adapters.size(), 1U);
  EXPECT_THAT(model->config.model_families, ElementsAre("llama", "clip"));
  EXPECT_THAT(store_->facts(*model)->capabilities, ElementsAre("completion", "vision"));
}

TEST_F(StoreTest, DraftModelsAreKept) {
  api::CreateRequest request = request_from(make_gguf("m.gguf"), "m");
  const auto draft = store_->import_file(make_gguf("d.gguf", 1, "qwen3"));
  request.draft_files = {{"d.gguf", draft->text()}};
  ASSERT_TRUE(store_->create(request));
  const auto model = store_->resolve("m");
  ASSERT_TRUE(model) << message_of(model);
  EXPECT_EQ(model->draft, models_ / "blobs" / draft->file_name());
  EXPECT_EQ(model->config.model_family, "llama") << "the draft's family is not the model's";
  EXPECT_EQ(api::to_string(model->config.others),
            R"({"draft":{"model_format":"gguf","architecture":"qwen3"}})");
  EXPECT_THAT(store_->show({.model = "m"})->modelfile,
              HasSubstr("\nDRAFT " + model->draft.string()));
  // What is built upon it has it too, until it gets another.
  ASSERT_TRUE(store_->create({.model = "n", .from = "m"}));
  EXPECT_EQ(store_->resolve("n")->draft, model->draft);
  const auto other = store_->import_file(make_gguf("o.gguf", 2));
  ASSERT_TRUE(
      store_->create({.model = "n", .from = "m", .draft_files = {{"o.gguf", other->text()}}}));
  EXPECT_EQ(store_->resolve("n")->draft, models_ / "blobs" / other->file_name());
}

TEST_F(StoreTest, ACancelledCreateLeavesNoModel) {
  const api::CreateRequest request = request_from(make_gguf("m.gguf"), "m");
  const auto result = store_->create(request, [](const api::ProgressResponse& progress) {
    return progress.status != "writing manifest";
  });
  EXPECT_EQ(code_of(result), ErrorCode::kCancelled);
  EXPECT_FALSE(fs::exists(manifest_of("m")));
}

TEST_F(StoreTest, ReplacingAModelDropsWhatOnlyItUsed) {
  create("m", 1, "first");
  create("other", 1, "shared");
  create("m", 2, "second");
  EXPECT_THAT(blobs(), Not(Contains(digest_of("first").file_name())));
  EXPECT_THAT(blobs(), Contains(digest_of("second").file_name()));
  EXPECT_TRUE(store_->resolve("other")) << "the old weights are still other's";

  const Store keeping({models_, {}, false});
  EXPECT_TRUE(store_->resolve("m"));
}

// ---- listing, copying, removing ----------------------------------------------------------------

TEST_F(StoreTest, ListIsSortedAndLeavesOutDamagedModels) {
  create("b");
  create("a");
  create("broken");
  write(manifest_of("broken"), "{");
  write(manifest_of("nameless", "..tag"), "{}");
  write(models_ / "manifests" / ".DS_Store", "x");
  const auto names = listed();
  EXPECT_THAT(names, UnorderedElementsAre("a:latest", "b:latest", "stories260k:latest"));
  const auto models = store_->list()->models;
  EXPECT_TRUE(std::ranges::is_sorted(models, std::greater_equal<>(), &api::ListModel::modified_at));
  for (const auto& model : models) EXPECT_EQ(model.digest.size(), 64U);
}

TEST_F(StoreTest, CopiesShareBlobs) {
  create("m", 1, "S");
  const auto before = blobs();
  ASSERT_TRUE(store_->copy("m", "hf.co/someone/Copy:q4"));
  EXPECT_EQ(blobs().size(), before.size());
  EXPECT_THAT(listed(), Contains("hf.co/someone/Copy:q4"));
  EXPECT_TRUE(store_->copy("m", "m"));
  EXPECT_EQ(message_of(store_->copy("none", "x")), "model 'none' not found");
  create("torn", 2, "T");
  const auto weights = store_->resolve("torn")->weights;
  fs::rename(weights, models_ / "away");
  const std::string torn =
      std::format("model 'torn:latest': blob {} not found; pull or create the model again",
                  "sha256:" + weights.filename().string().substr(7));
  EXPECT_EQ(message_of(store_->copy("torn", "x")), torn);
  EXPECT_EQ(message_of(store_->resolve("torn")), torn);
  ASSERT_TRUE(store_->remove("torn"));
  fs::remove(models_ / "away");
  EXPECT_THAT(message_of(store_->copy("m", "a/../b")), HasSubstr("invalid model name"));

  ASSERT_TRUE(store_->remove("m"));
  const auto copy = store_->resolve("hf.co/someone/copy:Q4");
  ASSERT_TRUE(copy) << "its blobs went with the original: " << message_of(copy);
  EXPECT_EQ(copy->system, "S");
  ASSERT_TRUE(store_->remove("hf.co/someone/Copy:q4"));
  EXPECT_THAT(blobs(), IsEmpty());
  EXPECT_THAT(fs::exists(models_ / "manifests" / "hf.co"), false) << "empty folders stay behind";
}

TEST_F(StoreTest, RemoveKeepsBlobsThatADamagedManifestNames) {
  create("m", 1);
  create("broken", 1);
  std::string text = read(manifest_of("broken"));
  write(manifest_of("broken"), text.substr(0, text.size() - 5));
  const auto weights = store_->resolve("m")->weights;
  ASSERT_TRUE(store_->remove("m"));
  EXPECT_TRUE(fs::exists(weights));
  EXPECT_TRUE(store_->remove("broken")) << "damaged models must be removable";
}

TEST_F(StoreTest, RemoveSaysWhatIsMissing) {
  EXPECT_EQ(message_of(store_->remove("none")), "model 'none' not found");
  EXPECT_EQ(code_of(store_->remove("..")), ErrorCode::kInvalidArgument);
}

TEST_F(StoreTest, NamesAreFoundInAnyCase) {
  create("Mistral");
  EXPECT_EQ(store_->resolve("mistral")->name.display(), "Mistral:latest");
  create("MISTRAL", 3);
  EXPECT_THAT(listed(), UnorderedElementsAre("Mistral:latest", "stories260k:latest"));
}

// ---- show --------------------------------------------------------------------------------------

TEST_F(StoreTest, ShowTellsAllThereIs) {
  api::CreateRequest base = request_from(make_gguf("m.gguf"), "m");
  base.template_text = "{{ if .Tools }}x{{ end }}{{ .Suffix }}{{ .IsThinkSet }}";
  base.system = "two\nlines";
  base.license = {"A", "B"};
  base.parameters = {{"temperature", 0.7}, {"stop", {"x", "y"}}};
  ASSERT_TRUE(store_->create(base));
  api::ShowRequest request;
  request.model = "m";
  const auto show = store_->show(request);
  ASSERT_TRUE(show) << message_of(show);
  EXPECT_EQ(show->license, "A\nB");
  EXPECT_EQ(show->parameters,
            "stop                           \"x\"\nstop                           \"y\"\n"
            "temperature                    0.7");
  EXPECT_THAT(show->capabilities, ElementsAre("completion", "tools", "insert", "thinking"));
  EXPECT_EQ(show->model_info.at("general.parameter_count").to_number<int>(), 64);
  EXPECT_TRUE(show->model_info.at("tokenizer.ggml.tokens").as_array().empty());
  ASSERT_EQ(show->tensors.size(), 1U);
  EXPECT_EQ(show->tensors[0].type, "F16");
  EXPECT_THAT(show->tensors[0].shape, ElementsAre(32U, 2U));
  EXPECT_EQ(show->details.family, "llama");
  // The Modelfile makes the same model again.
  const auto modelfile = parse_modelfile(show->modelfile);
  ASSERT_TRUE(modelfile) << message_of(modelfile);
  const auto plan = plan_create(*modelfile, "/");
  ASSERT_TRUE(plan) << message_of(plan);
  EXPECT_THAT(plan->model_files, ElementsAre(store_->resolve("m")->weights));
  EXPECT_EQ(plan->request.system, "two\nlines");
  EXPECT_EQ(plan->request.license, base.license);
  EXPECT_EQ(api::to_string(plan->request.parameters), R"({"stop":["x","y"],"temperature":0.7})");

  request.verbose = true;
  EXPECT_EQ(store_->show(request)->model_info.at("tokenizer.ggml.tokens").as_array().size(), 6U);
  request.model = "none";
  EXPECT_EQ(message_of(store_->show(request)), "model 'none' not found");
}

// What a Modelfile says of a model, in one text.
std::string said_by(const CreatePlan& plan) {
  api::CreateRequest request = plan.request;
  request.from.clear();
  api::JsonObject sorted;
  std::vector<std::string> keys;
  for (const auto& [key, value] : request.parameters) keys.emplace_back(key);
  std::ranges::sort(keys);
  for (const std::string& key : keys) sorted.emplace(key, request.parameters.at(key));
  request.parameters = sorted;
  return api::to_string(api::to_json(request));
}

// Whatever a Modelfile says, the one that show prints says it too.
TEST_F(StoreTest, ShowsModelfileMakesTheSameModelAgain) {
  const fs::path file = make_gguf("m.gguf");
  const std::vector<std::string> pieces = {"SYSTEM ",
                                           "TEMPLATE ",
                                           "LICENSE ",
                                           "MESSAGE user ",
                                           "MESSAGE assistant ",
                                           "\"",
                                           "\"\"\"",
                                           "\n",
                                           "\r\n",
                                           "  ",
                                           "x",
                                           "{{ .Prompt }}",
                                           "PARAMETER stop ",
                                           "é日🦙",
                                           "#",
                                           "a b",
                                           "<|end|>&",
                                           "PARAMETER top_k 7",
                                           "\nSYSTEM x\n",
                                           "PARAMETER temperature 0.25\n",
                                           "RENDERER ",
                                           "PARSER ",
                                           "REQUIRES 0.14.0\n",
                                           "\t",
                                           "\\",
                                           "PARAMETER num_ctx 4096\n",
                                           "PARAMETER use_mmap false\n"};
  std::mt19937 random(11);  // NOLINT: repeatable
  int made = 0;
  for (int i = 0; i < 400 && made < 40; ++i) {
    std::string text = "FROM ./m.gguf\n";
    for (std::size_t n = random() % 24; n > 0; --n) text += pieces[random() % pieces.size()];
    SCOPED_TRACE(text);
    const auto modelfile = parse_modelfile(text);
    if (!modelfile) continue;
    const auto plan = plan_create(*modelfile, folder_);
    if (!plan) continue;
    ++made;
    api::CreateRequest request = request_from(file, "m");
    const std::string model = request.model;
    const auto files = request.files;
    request = plan->request;
    request.model = model;
    request.from.clear();
    request.files = files;
    const auto created = store_->create(request);
    ASSERT_TRUE(created) << message_of(created);
    const auto shown = store_->show({.model = "m"});
    ASSERT_TRUE(shown) << message_of(shown);
    const auto again = parse_modelfile(shown->modelfile);
    ASSERT_TRUE(again) << message_of(again) << shown->modelfile;
    const auto same = plan_create(*again, "/");
    ASSERT_TRUE(same) << message_of(same);
    EXPECT_EQ(said_by(*same), said_by(*plan));
    EXPECT_THAT(same->model_files, ElementsAre(store_->resolve("m")->weights));
  }
  EXPECT_EQ(made, 40);
}

TEST_F(StoreTest, ModelsThatGiveNoTextAreKnown) {
  const auto capabilities = [&](std::optional<std::uint32_t> pooling, std::string_view tensor) {
    gguf::Writer writer;
    writer.set_string("general.architecture", "bert");
    if (pooling) writer.set_u32("bert.pooling_type", *pooling);
    const std::array<std::int64_t, 1> shape{32};
    const auto index = writer.add_tensor(tensor, GGML_TYPE_F32, shape);
    fs::create_directories(folder_);
    EXPECT_TRUE(writer.begin(folder_ / "e.gguf"));
    EXPECT_TRUE(writer.write(*index, 0, std::vector<std::byte>(128)));
    EXPECT_TRUE(writer.finish());
    EXPECT_TRUE(store_->create(request_from(folder_ / "e.gguf", "e")));
    return store_->facts(*store_->resolve("e"))->capabilities;
  };
  EXPECT_THAT(capabilities(1, "x"), ElementsAre("embedding"));
  EXPECT_THAT(capabilities(4, "x"), ElementsAre("rerank"));
  EXPECT_THAT(capabilities(std::nullopt, "cls.output.weight"), ElementsAre("rerank"));
  EXPECT_THAT(capabilities(1, "cls.weight"), ElementsAre("embedding"));
}

// ---- hostile folders ---------------------------------------------------------------------------

TEST_F(StoreTest, DamagedModelsAreErrorsThatNameThem) {
  create("m", 1, "S");
  const std::string good = read(manifest_of("m"));
  const auto broken_by = [&](std::string_view text) {
    write(manifest_of("m"), text);
    const auto model = store_->resolve("m");
    EXPECT_FALSE(model) << text.substr(0, 100);
    EXPECT_THAT(message_of(model), HasSubstr("m:latest"));
    return message_of(model);
  };
  EXPECT_THAT(broken_by("not json"), HasSubstr("JSON"));
  EXPECT_THAT(broken_by("{\"schemaVersion\":1}"), HasSubstr("schemaVersion"));
  EXPECT_THAT(broken_by(std::string(std::size_t{5} << 20, ' ')), HasSubstr("too many"));
  std::string text = good;
  text.replace(text.find(digest_of("S").hex()), 64, digest_of("gone").hex());
  EXPECT_THAT(broken_by(text), HasSubstr("not found"));
  text = good;
  while (text.contains("image.model")) text.replace(text.find("image.model"), 11, "image.tensor");
  EXPECT_THAT(broken_by(text), HasSubstr("no GGUF weights"));
  fs::remove(manifest_of("m"));
  ASSERT_EQ(::mkfifo(manifest_of("m").c_str(), 0600), 0);
  EXPECT_FALSE(store_->resolve("m")) << "a pipe must not hang the server";
}

TEST_F(StoreTest, UnknownLayersAreIgnored) {
  create("m", 1, "S");
  std::string text = read(manifest_of("m"));
  text.replace(text.find("image.system"), 12, "image.sparkle");
  write(manifest_of("m"), text);
  const auto model = store_->resolve("m");
  ASSERT_TRUE(model) << message_of(model);
  EXPECT_EQ(model->system, "");
}

TEST_F(StoreTest, UnreadableParametersDoNotKeepAModelFromLoading) {
  create("m");
  auto manifest = *store_->read_manifest(*Name::parse("m"));
  const auto with_params = [&](const std::string& text) {
    std::istringstream stream(text);
    EXPECT_TRUE(store_->write_blob(digest_of(text).text(), stream));
    auto changed = manifest;
    changed.layers.push_back({std::string(kParamsLayer), digest_of(text), text.size(), {}});
    EXPECT_TRUE(store_->write_manifest(*Name::parse("m"), changed));
    return store_->resolve("m");
  };
  const auto model = with_params(R"({"top_k":"many","min_p":0.1,"mirostat":2})");
  ASSERT_TRUE(model) << message_of(model);
  EXPECT_EQ(model->options.top_k, std::nullopt);
  EXPECT_EQ(model->options.min_p, 0.1F);
  EXPECT_THAT(message_of(with_params("[1]")), HasSubstr("parameters are damaged"));
}

TEST_F(StoreTest, LinksMayNotLeadOutOfTheFolder) {
  create("m", 1, "S");
  const fs::path blob = models_ / "blobs" / digest_of("S").file_name();
  write(folder_ / "secret", "S");
  fs::remove(blob);
  fs::create_symlink(folder_ / "secret", blob);
  const auto model = store_->resolve("m");
  EXPECT_EQ(code_of(model), ErrorCode::kPermission);
  EXPECT_EQ(store_->has_blob(digest_of("S").text()), false);

  fs::remove(blob);
  write(models_ / "blobs" / "kept", "S");
  fs::create_symlink("kept", blob);
  EXPECT_TRUE(store_->resolve("m")) << "a link inside the folder is fine";
  fs::remove(blob);
  fs::create_directory(blob);
  EXPECT_EQ(code_of(store_->resolve("m")), ErrorCode::kCorrupt);
}

TEST_F(StoreTest, TheBlobsFolderItselfMayBeALink) {
  fs::create_directories(folder_ / "elsewhere");
  fs::create_directories(models_);
  fs::create_directory_symlink(folder_ / "elsewhere", models_ / "blobs");
  create("m");
  EXPECT_TRUE(store_->resolve("m"));
}

// ---- blobs -------------------------------------------------------------------------------------

TEST_F(StoreTest, BlobsAppearOnlyWhenTheyAreRight) {
  const std::string digest = digest_of("hello").text();
  EXPECT_EQ(store_->has_blob(digest), false);
  std::istringstream wrong("goodbye");
  const auto refused = store_->write_blob(digest, wrong);
  EXPECT_EQ(code_of(refused), ErrorCode::kInvalidArgument);
  EXPECT_THAT(message_of(refused), HasSubstr("digest mismatch"));
  EXPECT_THAT(blobs(), IsEmpty()) << "wrong bytes stay behind";

  std::istringstream right("hello");
  EXPECT_EQ(store_->write_blob(digest, right), true);
  EXPECT_EQ(store_->has_blob(digest), true);
  std::istringstream again("hello");
  EXPECT_EQ(store_->write_blob(digest, again), false);
  EXPECT_EQ(read(*store_->blob_path(digest_of("hello"))), "hello");
  EXPECT_FALSE(store_->has_blob("sha256:xyz"));
  EXPECT_FALSE(store_->has_blob("../../etc/passwd"));
}

TEST_F(StoreTest, AnUnfinishedBlobIsGone) {
  {
    auto writer = store_->begin_blob();
    ASSERT_TRUE(writer) << message_of(writer);
    ASSERT_TRUE(writer->append("half"));
    EXPECT_EQ(writer->size(), 4U);
    for (const std::string& name : blobs()) EXPECT_EQ(name.front(), '.');
  }
  EXPECT_THAT(blobs(), IsEmpty());
}

TEST_F(StoreTest, ImportedFilesAreCopies) {
  write(folder_ / "f", std::string(3'000'000, 'x'));
  std::uint64_t completed = 0;
  const auto digest = store_->import_file(folder_ / "f", [&](const api::ProgressResponse& p) {
    completed = p.completed;
    return true;
  });
  ASSERT_TRUE(digest) << message_of(digest);
  EXPECT_EQ(completed, 3'000'000U);
  write(folder_ / "f", "changed");
  EXPECT_EQ(digest_of(read(*store_->blob_path(*digest))), *digest);
  EXPECT_EQ(code_of(store_->import_file(folder_ / "none")), ErrorCode::kNotFound);
  EXPECT_FALSE(store_->import_file(folder_));
  EXPECT_EQ(code_of(store_->import_file(folder_ / "f", [](const auto&) { return false; })),
            ErrorCode::kCancelled);
  EXPECT_EQ(blobs().size(), 1U) << "a cancelled import stays behind";
}

// The folder may be a running Ollama's, which downloads blobs before it writes their manifest.
TEST_F(StoreTest, PruneRemovesWhatNothingHasUsedForAnHour) {
  create("m", 1, "S");
  const auto add = [&](std::string_view text, int hours) {
    std::istringstream stream{std::string(text)};
    ASSERT_TRUE(store_->write_blob(digest_of(text).text(), stream));
    fixture::age(models_ / "blobs" / digest_of(text).file_name(), std::chrono::hours(hours));
  };
  for (const std::string& used : blobs()) {
    fixture::age(models_ / "blobs" / used, std::chrono::hours(1000));
  }
  auto expected = blobs();
  add("old", 2);
  add("young", 0);
  expected.push_back(digest_of("young").file_name());
  for (const char* strange : {"sha256-partial", "README", "sha256-1234567"}) {
    write(models_ / "blobs" / strange, "x");
    fixture::age(models_ / "blobs" / strange, std::chrono::hours(1000));
    expected.emplace_back(strange);
  }
  fs::create_directories(models_ / "blobs" / digest_of("a folder").file_name());
  expected.push_back(digest_of("a folder").file_name());
  EXPECT_EQ(store_->prune().value(), 3U);
  EXPECT_THAT(blobs(), testing::UnorderedElementsAreArray(expected));
  EXPECT_TRUE(store_->resolve("m"));
  const auto empty = Store({folder_ / "nothing", {}, true}).prune();
  EXPECT_EQ(empty.value(), 0U);
  EXPECT_FALSE(fs::exists(folder_ / "nothing")) << "a start must not make the folder";
}

TEST_F(StoreTest, PruneRemovesWhatDeadWritersLeft) {
  write(models_ / "blobs" / ".tmp-dead", "xxx");
  write(models_ / "manifests" / "h" / "n" / "m" / ".tmp-dead", "xxx");
  auto living = TemporaryFile::create(models_ / "blobs");
  ASSERT_TRUE(living);
  ASSERT_TRUE(living->write(std::as_bytes(std::span("half", 4))));
  EXPECT_TRUE(store_->prune());
  EXPECT_EQ(blobs().size(), 1U) << "what a dead writer left stays, or a living one's file goes";
  EXPECT_FALSE(fs::exists(models_ / "manifests" / "h" / "n" / "m" / ".tmp-dead"));
  EXPECT_TRUE(living->publish(models_ / "blobs" / "done"));
}

// Ollama goes on with a broken download, and keeps the blobs that it has of an unfinished model.
TEST_F(StoreTest, PruneLeavesDownloadsAlone) {
  const fs::path blobs_folder = models_ / "blobs";
  const fs::path complete = blobs_folder / digest_of("complete").file_name();
  const fs::path partial = blobs_folder / (digest_of("rest").file_name() + "-partial");
  const fs::path part = blobs_folder / (digest_of("rest").file_name() + "-partial-3");
  for (const fs::path& path : {complete, partial, part}) write(path, "x");
  fixture::age(complete, std::chrono::hours(5));
  fixture::age(part, std::chrono::hours(5));
  EXPECT_EQ(store_->prune().value(), 0U) << "a download goes on: all of it is wanted";
  fixture::age(partial, std::chrono::hours(2));
  EXPECT_EQ(store_->prune().value(), 1U) << "nobody downloads: the unused blob goes";
  EXPECT_FALSE(fs::exists(complete));
  EXPECT_TRUE(fs::exists(partial));
  fixture::age(part, std::chrono::hours(24 * 8));
  EXPECT_EQ(store_->prune().value(), 0U) << "this part is done, others of it are not";
  fixture::age(partial, std::chrono::hours(24 * 8));
  EXPECT_EQ(store_->prune().value(), 2U) << "a week later nobody goes on with it";
}

TEST_F(StoreTest, AManifestThatCannotBeReadStopsPruning) {
  create("m", 1, "S");
  const std::string good = read(manifest_of("m"));
  for (const std::string& used : blobs()) {
    fixture::age(models_ / "blobs" / used, std::chrono::hours(2));
  }
  const auto expect_stopped = [&](std::string_view why) {
    const auto before = blobs();
    const auto pruned = store_->prune();
    EXPECT_FALSE(pruned) << why;
    EXPECT_THAT(message_of(pruned), HasSubstr("manifests"));
    EXPECT_EQ(blobs(), before);
  };
  write(manifest_of("m"), "");
  expect_stopped("a crash emptied it");
  write(manifest_of("m"), good.substr(0, good.size() / 2));
  expect_stopped("a crash cut it off");
  write(manifest_of("m"), good);
  fs::create_directories(manifest_of("other").parent_path());
  fs::create_symlink("nowhere", manifest_of("other"));
  expect_stopped("its disk is not mounted");
  fs::remove_all(manifest_of("other").parent_path());
  write(folder_ / "outside" / "latest", good);
  fs::create_directory_symlink(folder_ / "outside", manifest_of("other").parent_path());
  expect_stopped("it lies elsewhere");
  fs::remove(manifest_of("other").parent_path());
  fs::create_directory_symlink("..", manifest_of("other").parent_path());
  expect_stopped("folders in circles");
  fs::remove(manifest_of("other").parent_path());
  write(models_ / "manifests" / ".DS_Store", "no manifest");
  EXPECT_TRUE(store_->prune());
  EXPECT_TRUE(store_->resolve("m"));
}

// While one server makes a model, another takes away the last model that has its blobs.
TEST_F(StoreTest, BlobsStayWhileAnotherServerMakesAModelOfThem) {
  create("base", 1, "text");
  Store other({models_, {}, true});
  api::CreateRequest request;
  request.model = "derived";
  request.from = "base";
  const auto created = store_->create(request, [&](const api::ProgressResponse& progress) {
    if (progress.status == "writing manifest") {
      EXPECT_TRUE(other.remove("base"));
      for (const std::string& blob : blobs()) {
        if (Digest::parse(blob)) fixture::age(models_ / "blobs" / blob, std::chrono::hours(2));
      }
      EXPECT_TRUE(other.prune());
    }
    return true;
  });
  ASSERT_TRUE(created) << message_of(created);
  const auto model = store_->resolve("derived");
  ASSERT_TRUE(model) << message_of(model);
  EXPECT_EQ(model->system, "text");
  ASSERT_TRUE(other.remove("derived"));
  EXPECT_THAT(blobs(), IsEmpty()) << "a pin outlives its model";
}

// A pull pins what it has not got yet, and writes the manifest as it came.
TEST_F(StoreTest, PulledModels) {
  const std::string weights = read(make_gguf("m.gguf"));
  const std::string config = R"({"model_format":"gguf"})";
  const Manifest manifest{{std::string(kConfigType), digest_of(config), config.size(), {}, {}},
                          {{std::string(kModelLayer), digest_of(weights), weights.size(), {}, {}}}};
  const std::string text = "  " + to_text(manifest);
  const Name name = Name::parse("pulled").value();
  Store other({models_, {}, true});
  {
    const auto pins = store_->pin({manifest.config, manifest.layers[0]});
    EXPECT_EQ(code_of(store_->write_manifest(name, manifest, text)), ErrorCode::kNotFound)
        << "a manifest without its blobs";
    for (const std::string& bytes : {weights, config}) {
      std::istringstream stream(bytes);
      ASSERT_TRUE(store_->write_blob(digest_of(bytes).text(), stream));
      fixture::age(models_ / "blobs" / digest_of(bytes).file_name(), std::chrono::hours(2));
    }
    EXPECT_TRUE(other.prune());
    ASSERT_TRUE(store_->write_manifest(name, manifest, text));
  }
  EXPECT_EQ(store_->manifest_text(name).value(), text);
  EXPECT_EQ(store_->resolve("pulled")->digest, digest_of(text).hex());
  EXPECT_EQ(code_of(store_->manifest_text(Name::parse("none").value())), ErrorCode::kNotFound);
}

TEST_F(StoreTest, ReplacingAModelByItselfDropsWhatItNoLongerUses) {
  create("m", 1, "first");
  api::CreateRequest request;
  request.model = "m";
  request.from = "m";
  request.system = "second";
  ASSERT_TRUE(store_->create(request));
  EXPECT_THAT(blobs(), Not(Contains(digest_of("first").file_name())));
  EXPECT_EQ(store_->resolve("m")->system, "second");
}

// A blob that lost its bytes to a power cut under another program is made again.
TEST_F(StoreTest, ADamagedTextIsWrittenAgain) {
  create("m", 1, "S");
  write(models_ / "blobs" / digest_of("S").file_name(), "");
  create("m", 1, "S");
  EXPECT_EQ(store_->resolve("m")->system, "S");
}

TEST_F(StoreTest, OneDigestFromSeveralUploadsAtOnce) {
  const std::string bytes(3'000'000, 'x');
  const std::string digest = digest_of(bytes).text();
  std::atomic<int> failures = 0;
  {
    std::vector<std::jthread> uploads;
    for (int i = 0; i < 4; ++i) {
      uploads.emplace_back([&] {
        std::istringstream stream(bytes);
        if (!store_->write_blob(digest, stream)) ++failures;
      });
    }
  }
  EXPECT_EQ(failures, 0);
  EXPECT_THAT(blobs(), ElementsAre(digest_of(bytes).file_name()));
  EXPECT_EQ(read(models_ / "blobs" / digest_of(bytes).file_name()), bytes);
}

// A full disk, as far as this process can have one.
TEST_F(StoreTest, ABlobThatDoesNotFitLeavesNothing) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = 100'000;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string bytes(200'000, 'x');
  std::istringstream stream(bytes);
  const auto written = store_->write_blob(digest_of(bytes).text(), stream);
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(code_of(written), ErrorCode::kIo);
  EXPECT_THAT(blobs(), IsEmpty());
}

// ---- links that lead out of the folder
// -----------------------------------------------------------

TEST_F(StoreTest, NothingOutsideIsReadOrChangedThroughLinks) {
  create("m", 1, "S");
  const std::string manifest = read(manifest_of("m"));
  const fs::path outside = folder_ / "outside";
  write(outside / "latest", manifest);
  write(outside / "other", "precious");
  const fs::path library = manifest_of("m").parent_path().parent_path();
  fs::create_directory_symlink(outside, library / "evil");
  fs::create_directories(library / "link");
  fs::create_symlink(outside / "latest", library / "link" / "latest");
  const auto untouched = [&] {
    return read(outside / "latest") == manifest && read(outside / "other") == "precious" &&
           std::distance(fs::directory_iterator(outside), {}) == 2;
  };

  for (const char* name : {"evil", "link"}) {
    EXPECT_EQ(code_of(store_->resolve(name)), ErrorCode::kPermission) << name;
    EXPECT_THAT(message_of(store_->resolve(name)), HasSubstr("leads out of"));
    EXPECT_EQ(code_of(store_->copy(name, "copy")), ErrorCode::kPermission) << name;
  }
  EXPECT_THAT(listed(), UnorderedElementsAre("m:latest", "stories260k:latest"));
  for (const char* name : {"evil", "evil:new", "evil:other"}) {
    EXPECT_EQ(code_of(store_->copy("m", name)), ErrorCode::kPermission) << name;
    const auto made = store_->create(request_from(make_gguf("m.gguf", 1), name));
    EXPECT_EQ(code_of(made), ErrorCode::kPermission) << name;
    EXPECT_TRUE(untouched()) << name;
  }
  EXPECT_EQ(code_of(store_->remove("evil")), ErrorCode::kPermission);
  EXPECT_TRUE(untouched());
  // The link itself is ours to take away, and to replace.
  ASSERT_TRUE(store_->remove("link")) << "what it leads to stays";
  EXPECT_FALSE(fs::exists(library / "link"));
  fs::create_directories(library / "link");
  fs::create_symlink(outside / "latest", library / "link" / "latest");
  ASSERT_TRUE(store_->copy("m", "link"));
  EXPECT_FALSE(fs::is_symlink(library / "link" / "latest"));
  EXPECT_TRUE(untouched());
}

TEST_F(StoreTest, AReadOnlyFolderIsAnError) {
  if (::geteuid() == 0) {
    // Root may write anywhere; a file in the place of the folder stops it too.
    write(models_, "a file");
  } else {
    fs::create_directories(models_);
    fs::permissions(models_, fs::perms::owner_read | fs::perms::owner_exec);
  }
  EXPECT_FALSE(store_->begin_blob());
  EXPECT_FALSE(store_->copy("stories260k", "x"));
  EXPECT_TRUE(store_->resolve("stories260k")) << "reading still works";
  if (::geteuid() != 0) fs::permissions(models_, fs::perms::owner_all);
}

// Models that share weights come and go at once: none of those that are there may miss a blob.
TEST_F(StoreTest, CreatingAndRemovingAtOnceKeepsModelsWhole) {
  const api::CreateRequest base = request_from(make_gguf("m.gguf"), "base");
  ASSERT_TRUE(store_->create(base));
  std::atomic<int> failures = 0;
  const auto work = [&](const std::string& name) {
    for (int i = 0; i < 25; ++i) {
      api::CreateRequest request;
      request.model = name;
      request.from = "base";
      request.system = "shared";
      if (!store_->create(request) || !store_->resolve(name) || !store_->remove(name)) ++failures;
    }
  };
  {
    const std::jthread one(work, "one");
    const std::jthread two(work, "two");
    const std::jthread three(work, "three");
  }
  EXPECT_EQ(failures, 0);
  EXPECT_TRUE(store_->resolve("base"));
}

TEST_F(StoreTest, TheBundledFolderIsBesideTheExecutable) {
  const fs::path folder = Store::default_bundled_directory();
  EXPECT_TRUE(folder.is_absolute());
  EXPECT_TRUE(folder.string().ends_with("/share/ollama.cpp/models")) << folder;
}

}  // namespace
}  // namespace ollama::store
