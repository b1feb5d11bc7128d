// Model files that say other things than their tensors: each must be refused with an error that
// names what is wrong, and none may end the process.
#include <gmock/gmock.h>

#include "engine/draft.h"
#include "engine/fixture.h"

namespace ollama::engine {
namespace {

using fixture::Draft;
using ::testing::AllOf;
using ::testing::HasSubstr;

class BrokenModel : public testing::TestWithParam<ml::BackendKind> {
 protected:
  BrokenModel() {
    std::string pattern = (std::filesystem::temp_directory_path() / "broken.XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~BrokenModel() override { std::filesystem::remove_all(folder_); }

  // What evaluating the changed model says.
  std::string error_of(Draft& draft) {
    const auto path = folder_ / "model.gguf";
    draft.write(path);
    const auto result = evaluate(path, {.tokens = {1, 2, 3}, .backend = GetParam()});
    return result ? "(no error)" : std::string(result.error().message());
  }
  static Draft::Tensor& tensor(Draft& draft, std::string_view name) {
    return *std::ranges::find(draft.tensors(), name, &Draft::Tensor::name);
  }

 private:
  std::filesystem::path folder_;
};

INSTANTIATE_TEST_SUITE_P(Backends, BrokenModel,
                         testing::Values(ml::BackendKind::kGgml, ml::BackendKind::kReference),
                         [](const auto& info) {
                           return info.param == ml::BackendKind::kGgml ? "ggml" : "reference";
                         });

TEST_P(BrokenModel, AnUnknownArchitectureIsNamed) {
  Draft draft(fixture::model("llama"));
  draft.set_architecture("nonesuch");
  EXPECT_THAT(error_of(draft), HasSubstr("architecture 'nonesuch' is not supported"));
}

TEST_P(BrokenModel, AMissingTensorIsNamed) {
  for (const std::string_view name :
       {"blk.1.ffn_up.weight", "blk.0.attn_k.weight", "token_embd.weight", "output_norm.weight"}) {
    Draft draft(fixture::model("llama"));
    std::erase_if(draft.tensors(), [&](const auto& t) { return t.name == name; });
    EXPECT_THAT(error_of(draft), HasSubstr(std::format("tensor {} is missing", name)));
  }
}

TEST_P(BrokenModel, ATensorOfAnotherShapeIsNamed) {
  Draft draft(fixture::model("llama"));
  Draft::Tensor& weight = tensor(draft, "blk.0.attn_q.weight");
  weight.shape[1] /= 2;
  weight.bytes.resize(weight.bytes.size() / 2);
  EXPECT_THAT(error_of(draft), HasSubstr("tensor blk.0.attn_q.weight has shape ["));
}

// GGML would end the process.
TEST_P(BrokenModel, ATensorOfATypeThatWeightsCannotHaveIsNamed) {
  for (const std::string_view name : {"blk.0.attn_q.weight", "blk.1.attn_norm.weight",
                                      "token_embd.weight", "output_norm.weight"}) {
    for (const ggml_type type : {GGML_TYPE_I32, GGML_TYPE_I8, GGML_TYPE_F64}) {
      Draft draft(fixture::model("llama"));
      Draft::Tensor& weight = tensor(draft, name);
      weight.type = type;
      weight.bytes.resize(weight.bytes.size() / sizeof(float) * ggml_type_size(type));
      EXPECT_THAT(error_of(draft), AllOf(HasSubstr(name), HasSubstr(ggml_type_name(type))));
    }
  }
}

TEST_P(BrokenModel, NumbersThatDoNotFitAreNamed) {
  const auto with = [&](std::string_view key, std::int64_t value) {
    Draft draft(fixture::model("llama"));
    draft.set(key, value);
    return error_of(draft);
  };
  EXPECT_THAT(with("llama.attention.head_count", 0), HasSubstr("llama.attention.head_count is 0"));
  EXPECT_THAT(with("llama.attention.head_count_kv", 3), HasSubstr("no multiple of 3 key heads"));
  EXPECT_THAT(with("llama.block_count", 5000), HasSubstr("llama.block_count is 5000"));
  EXPECT_THAT(with("llama.block_count", 40), HasSubstr("is missing"));
  EXPECT_THAT(with("llama.rope.dimension_count", 7), HasSubstr("rope.dimension_count is odd"));
  Draft draft(fixture::model("llama"));
  draft.remove("llama.embedding_length");
  EXPECT_THAT(error_of(draft), HasSubstr("missing key llama.embedding_length"));
}

}  // namespace
}  // namespace ollama::engine
