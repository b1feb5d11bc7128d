// Creating models that are converted or quantised on the way, by a converter that is made up.
#include "store/workshop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <format>
#include <fstream>

#include "gguf/writer.h"

namespace ollama::store {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

void write_model(const fs::path& path, std::uint32_t file_type) {
  gguf::Writer writer;
  writer.set_string("general.architecture", "llama");
  writer.set_u32("general.file_type", file_type);
  const auto index =
      writer.add_tensor("token_embd.weight", GGML_TYPE_F16, std::array<std::int64_t, 2>{32, 2});
  ASSERT_TRUE(index);
  ASSERT_TRUE(writer.begin(path));
  ASSERT_TRUE(writer.write(*index, 0, std::vector<std::byte>(128)));
  ASSERT_TRUE(writer.finish());
}

// Writes a small model of the wanted mix; or does what a test tells it to.
class FakeConverter final : public Converter {
 public:
  Result<> convert(const Conversion& conversion, const ConversionProgress& progress) override {
    seen.push_back(conversion);
    if (leaves_partial) std::ofstream(conversion.output.string() + ".1234.partial") << "part";
    if (!progress(50, 100)) return fail(ErrorCode::kCancelled, "cancelled");
    if (error) return std::unexpected(*error);
    const std::string mix = conversion.mix.empty() ? "F16" : conversion.mix;
    write_model(conversion.output, gguf::find_quant_mix(mix)->file_type);
    return {};
  }

  std::vector<Conversion> seen;
  std::optional<Error> error;
  bool leaves_partial = false;
};

class WorkshopTest : public testing::Test {
 protected:
  WorkshopTest()
      : folder_(fs::path(testing::TempDir()) /
                std::format("workshop_{}_{}", ::getpid(),
                            testing::UnitTest::GetInstance()->current_test_info()->name())) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~WorkshopTest() override { fs::remove_all(folder_); }

  api::File blob(const std::string& name, const fs::path& file) {
    return {.name = name, .digest = store_.import_file(file).value().text()};
  }
  api::File blob_of(const std::string& name, std::string_view text) {
    std::ofstream(folder_ / name) << text;
    return blob(name, folder_ / name);
  }
  // A model "base" of F16 weights.
  void make_base() {
    write_model(folder_ / "base.gguf", 1);
    api::CreateRequest request;
    request.model = "base";
    request.files = {blob("base.gguf", folder_ / "base.gguf")};
    request.system = "be brief";
    ASSERT_TRUE(store_.create(request));
  }
  api::CreateRequest quantised(const std::string& type) const {
    api::CreateRequest request;
    request.model = "small";
    request.from = "base";
    request.quantize = type;
    return request;
  }
  Result<> create(const api::CreateRequest& request) {
    return store_.create(request, [this](const api::ProgressResponse& response) {
      statuses_.push_back(response.status);
      return response.status != cancel_at_ || response.completed == 0;
    });
  }
  std::vector<std::string> temporaries() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(models_ / "blobs")) {
      const std::string name = entry.path().filename().string();
      if (name.starts_with('.')) names.push_back(name);
    }
    return names;
  }

  fs::path folder_;
  fs::path models_ = folder_ / "models";
  std::shared_ptr<FakeConverter> converter_ = std::make_shared<FakeConverter>();
  Store store_{Store::Options{.models = models_, .converter = converter_}};
  std::vector<std::string> statuses_;
  std::string cancel_at_ = "(never)";
};

TEST_F(WorkshopTest, AQuantisedModelHasItsOwnWeightsAndTheOthersTexts) {
  make_base();
  const auto created = create(quantised("q4_K_M"));
  ASSERT_TRUE(created) << created.error().message();
  const Model base = store_.resolve("base").value();
  const Model small = store_.resolve("small").value();
  ASSERT_EQ(converter_->seen.size(), 1U);
  EXPECT_EQ(converter_->seen[0].model, base.weights);
  EXPECT_EQ(converter_->seen[0].mix, "Q4_K_M");
  EXPECT_NE(small.weights, base.weights);
  EXPECT_EQ(small.config.file_type, "Q4_K_M");
  EXPECT_EQ(small.system, "be brief");
  EXPECT_EQ(digest_of_file(small.weights)->file_name(), small.weights.filename());
  EXPECT_THAT(statuses_,
              ElementsAre(StartsWith("using existing layer"), StartsWith("using existing layer"),
                          "quantizing F16 model to Q4_K_M", "quantizing F16 model to Q4_K_M",
                          "verifying conversion", StartsWith("creating new layer sha256:"),
                          StartsWith("creating new layer sha256:"), "writing manifest", "success"));
  EXPECT_THAT(temporaries(), IsEmpty());

  // Again: its blob is there.
  statuses_.clear();
  ASSERT_TRUE(create(quantised("Q4_K_M")));
  EXPECT_EQ(store_.resolve("small")->weights, small.weights);
  EXPECT_THAT(temporaries(), IsEmpty());
}

TEST_F(WorkshopTest, AnUnknownTypeIsRefusedWithThoseThatThereAre) {
  make_base();
  const auto created = create(quantised("q9_Z"));
  ASSERT_FALSE(created);
  EXPECT_EQ(created.error().code(), ErrorCode::kInvalidArgument);
  EXPECT_THAT(std::string(created.error().message()),
              testing::AllOf(HasSubstr("'q9_Z'"), HasSubstr("Q4_K_M"), HasSubstr("Q8_0")));
  EXPECT_THAT(statuses_, IsEmpty()) << "it must be refused before anything is said";
  EXPECT_THAT(converter_->seen, IsEmpty());
}

TEST_F(WorkshopTest, WeightsOfTheWantedTypeStay) {
  make_base();
  ASSERT_TRUE(create(quantised("f16")));
  EXPECT_THAT(converter_->seen, IsEmpty());
  EXPECT_EQ(store_.resolve("small")->weights, store_.resolve("base")->weights);
}

TEST_F(WorkshopTest, ACheckpointIsConvertedAndThenQuantised) {
  api::CreateRequest request;
  request.model = "new";
  request.files = {blob_of("config.json", "{}"), blob_of("model.safetensors", "weights")};
  ASSERT_TRUE(create(request));
  ASSERT_EQ(converter_->seen.size(), 1U);
  ASSERT_EQ(converter_->seen[0].checkpoint.size(), 2U);
  EXPECT_EQ(converter_->seen[0].checkpoint[1].name, "model.safetensors");
  EXPECT_EQ(converter_->seen[0].checkpoint[1].path.filename(),
            Digest::parse(request.files[1].digest)->file_name());
  EXPECT_THAT(statuses_, Contains("converting model"));
  EXPECT_EQ(store_.resolve("new")->config.file_type, "F16");

  request.quantize = "q8_0";
  ASSERT_TRUE(create(request));
  ASSERT_EQ(converter_->seen.size(), 3U);
  EXPECT_EQ(converter_->seen[2].model, converter_->seen[1].output);
  EXPECT_EQ(store_.resolve("new")->config.file_type, "Q8_0");
  EXPECT_THAT(temporaries(), IsEmpty());
}

TEST_F(WorkshopTest, AFailureLeavesNothing) {
  make_base();
  converter_->error = Error(ErrorCode::kUnavailable, "it died");
  converter_->leaves_partial = true;
  const auto created = create(quantised("q4_0"));
  ASSERT_FALSE(created);
  EXPECT_EQ(created.error().message(), "it died");
  EXPECT_FALSE(store_.resolve("small"));
  EXPECT_THAT(temporaries(), IsEmpty());
}

TEST_F(WorkshopTest, CancellingLeavesNothing) {
  make_base();
  converter_->leaves_partial = true;
  cancel_at_ = "quantizing F16 model to Q4_0";
  const auto created = create(quantised("q4_0"));
  ASSERT_FALSE(created);
  EXPECT_EQ(created.error().code(), ErrorCode::kCancelled);
  EXPECT_FALSE(store_.resolve("small"));
  EXPECT_THAT(temporaries(), IsEmpty());
}

TEST_F(WorkshopTest, WithoutAConverterItIsUnsupported) {
  make_base();
  Store plain(Store::Options{.models = models_});
  const auto created = plain.create(quantised("q4_0"));
  ASSERT_FALSE(created);
  EXPECT_EQ(created.error().code(), ErrorCode::kUnsupported);
}

TEST_F(WorkshopTest, PruningTakesWorkFoldersThatACrashLeft) {
  const fs::path blobs = models_ / "blobs";
  const auto used = WorkFolder::create(blobs);
  ASSERT_TRUE(used);
  std::ofstream(used->path() / "quantised") << "in the making";
  const fs::path left = blobs / ".tmp-work-abcdef";
  fs::create_directories(left);
  std::ofstream(left / "quantised.1234.partial") << "left behind";
  const auto freed = store_.prune();
  ASSERT_TRUE(freed);
  EXPECT_EQ(*freed, 11U);
  EXPECT_FALSE(fs::exists(left));
  EXPECT_TRUE(fs::exists(used->path() / "quantised"));
}

}  // namespace
}  // namespace ollama::store
