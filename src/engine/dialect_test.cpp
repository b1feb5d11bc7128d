// Model files in Ollama's own dialects, derived from the fixtures by renaming: each must open as
// the file it was derived from, and give that file's logits.
#include <gmock/gmock.h>
#include <stdlib.h>

#include "engine/draft.h"
#include "engine/fixture.h"
#include "tokenizer/tokenizer.h"

namespace ollama::engine {
namespace {

using fixture::Draft;
using fixture::text;
using fixture::Way;
using ::testing::HasSubstr;

const std::vector<Way> kDialectWays{
    {.name = "ggml"},
    {.name = "ggml_chunked", .chunk = 3, .flash = ml::FlashAttention::kOff},
    {.name = "reference", .backend = ml::BackendKind::kReference},
};

constexpr std::string_view kPreTokenizer = "tokenizer.ggml.pre";

class DialectTest : public testing::Test {
 protected:
  DialectTest() {
    std::string name = (std::filesystem::temp_directory_path() / "dialect-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
  }
  ~DialectTest() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path write(const Draft& draft, std::string_view name) const {
    const auto path = folder_ / std::format("{}.gguf", name);
    draft.write(path);
    return path;
  }

  // Both files say the same to those who read them: keys, tensors and (but for MXFP4, whose order
  // shows when it is loaded) bytes.
  static void expect_same_file(const std::filesystem::path& ours,
                               const std::filesystem::path& theirs) {
    const auto a = gguf::File::open(ours);
    const auto b = gguf::File::open(theirs);
    ASSERT_TRUE(a) << a.error().message();
    ASSERT_TRUE(b) << b.error().message();
    for (const auto& [key, value] : a->metadata()) {
      ASSERT_NE(b->find(key), nullptr) << key;
      EXPECT_TRUE(*b->find(key) == value) << key;
      EXPECT_EQ(b->value_type(key), a->value_type(key)) << key;
    }
    EXPECT_EQ(b->metadata().size(), a->metadata().size());
    for (const gguf::TensorInfo& tensor : a->tensors()) {
      const gguf::TensorInfo* other = b->find_tensor(tensor.name);
      ASSERT_NE(other, nullptr) << tensor.name;
      EXPECT_EQ(other->shape, tensor.shape) << tensor.name;
      EXPECT_EQ(other->type, tensor.type) << tensor.name;
      if (other->ollama_mxfp4) continue;
      EXPECT_TRUE(std::ranges::equal(*b->data(*other), *a->data(tensor))) << tensor.name;
    }
    EXPECT_EQ(b->tensors().size(), a->tensors().size());
  }

  // Exactly the same, because the same is computed.
  static void expect_same_logits(const std::filesystem::path& ours,
                                 const std::filesystem::path& theirs, std::string_view fixture) {
    const auto tokens = fixture::expectation(fixture).at("tokens");
    for (const Way& way : kDialectWays) {
      const auto a = fixture::run(ours, way, tokens);
      const auto b = fixture::run(theirs, way, tokens);
      ASSERT_TRUE(a) << way.name << ": " << a.error().message();
      ASSERT_TRUE(b) << way.name << ": " << b.error().message();
      EXPECT_EQ(b->last_logits, a->last_logits) << way.name;
      EXPECT_EQ(b->top5, a->top5) << way.name;
      EXPECT_EQ(b->greedy, a->greedy) << way.name;
    }
  }

  // Runs as llama.cpp runs the fixture.
  static void expect_fixture(const std::filesystem::path& theirs, std::string_view fixture) {
    for (const Way& way : kDialectWays) {
      SCOPED_TRACE(way.name);
      fixture::expect_matches(theirs, fixture, way);
    }
  }

  std::filesystem::path folder_;
};

// What Ollama's own converter made of gpt-oss.
Draft gpt_oss_in_dialect() {
  Draft draft(fixture::model("gpt-oss"));
  draft.set_architecture("gptoss");
  draft.rename_tensors("attn_output", "attn_out");
  draft.rename_tensors("attn_sinks.weight", "attn_sinks");
  draft.rename_tensors("post_attention_norm", "ffn_norm");
  draft.remove("gptoss.expert_feed_forward_length");
  draft.remove("gptoss.rope.scaling.type");
  return draft;
}

Draft gpt_oss_in_ours() {
  Draft draft(fixture::model("gpt-oss"));
  draft.set(kPreTokenizer, text("gpt-4o"));
  return draft;
}

// The experts, which GGML may have a layout of its own for, and the embeddings, which it has not.
bool is_in_mxfp4(const Draft::Tensor& tensor) {
  return tensor.name.ends_with("_exps.weight") || tensor.name == "token_embd.weight";
}

// Fails when gpt-oss models pulled with Ollama do not load, or answer something else.
TEST_F(DialectTest, GptOss) {
  const auto theirs = write(gpt_oss_in_dialect(), "theirs");
  expect_same_file(write(gpt_oss_in_ours(), "ours"), theirs);
  expect_fixture(theirs, "gpt-oss");
}

// As the experts of the published gpt-oss files are stored. Fails when a backend computes with
// shuffled weights.
TEST_F(DialectTest, GptOssInOllamasMxfp4) {
  Draft ours = gpt_oss_in_ours();
  Draft theirs = gpt_oss_in_dialect();
  constexpr std::size_t kBlock = 17;
  for (std::size_t t = 0; t < ours.tensors().size(); ++t) {
    Draft::Tensor& tensor = ours.tensors()[t];
    if (!is_in_mxfp4(tensor)) continue;
    const std::int64_t width = tensor.shape[0];
    const auto rows = static_cast<std::int64_t>(tensor.floats().size()) / width;
    std::vector<std::byte> blocks(ggml_row_size(GGML_TYPE_MXFP4, width * rows));
    ASSERT_EQ(ggml_quantize_chunk(GGML_TYPE_MXFP4, tensor.floats().data(), blocks.data(), 0, rows,
                                  width, nullptr),
              blocks.size());
    tensor.type = GGML_TYPE_MXFP4;
    tensor.bytes = blocks;
    // From elements i and i + 16 in byte i to elements 2i and 2i + 1.
    for (std::size_t block = 0; block < blocks.size(); block += kBlock) {
      const auto nibble = [from = &tensor.bytes[block + 1]](std::size_t i) {
        return i < 16 ? from[i] & std::byte{0x0F} : from[i - 16] >> 4;
      };
      for (std::size_t i = 0; i < 16; ++i) {
        blocks[block + 1 + i] = nibble(2 * i) | (nibble(2 * i + 1) << 4);
      }
    }
    ASSERT_TRUE(is_in_mxfp4(theirs.tensors()[t]));
    theirs.tensors()[t].type = GGML_TYPE_MXFP4;
    theirs.tensors()[t].bytes = std::move(blocks);
    theirs.tensors()[t].ollama_mxfp4 = true;
  }
  const auto path = write(theirs, "theirs");
  const auto file = gguf::File::open(path);
  ASSERT_TRUE(file) << file.error().message();
  ASSERT_TRUE(file->find_tensor("blk.1.ffn_down_exps.weight")->ollama_mxfp4);
  const auto twin = write(ours, "ours");
  expect_same_file(twin, path);
  expect_same_logits(twin, path, "gpt-oss");
}

// Fails when vectors in 16 bits, which GGML does not compute with, end the process or are misread.
TEST_F(DialectTest, GptOssWithVectorsInBf16) {
  Draft ours = gpt_oss_in_ours();
  Draft theirs = gpt_oss_in_dialect();
  std::size_t count = 0;
  for (std::size_t t = 0; t < ours.tensors().size(); ++t) {
    Draft::Tensor& tensor = ours.tensors()[t];
    if (!tensor.name.ends_with(".bias") && !tensor.name.contains("norm")) continue;
    ++count;
    std::vector<ggml_bf16_t> halves(tensor.floats().size());
    ggml_fp32_to_bf16_row_ref(tensor.floats().data(), halves.data(), std::ssize(halves));
    ggml_bf16_to_fp32_row(halves.data(), tensor.floats().data(), std::ssize(halves));
    const auto bytes = std::as_bytes(std::span(halves));
    theirs.tensors()[t].type = GGML_TYPE_BF16;
    if (tensor.shape.size() == 1) theirs.tensors()[t].shape.push_back(1);  // says the same
    theirs.tensors()[t].bytes.assign(bytes.begin(), bytes.end());
  }
  EXPECT_EQ(count, 2U * (8 + 2) + 1) << "biases and norms";
  expect_same_logits(write(ours, "ours"), write(theirs, "theirs"), "gpt-oss");
}

// Fails when the text part of gemma3 models pulled with Ollama does not answer as before.
TEST_F(DialectTest, Gemma3) {
  Draft ours(fixture::model("gemma3"));
  Draft theirs = ours;
  ours.set("gemma3.rope.freq_base_swa", 1e4);
  theirs.remove("gemma3.attention.layer_norm_rms_epsilon");
  theirs.remove("gemma3.rope.freq_base");
  theirs.resize_vocabulary(515);
  theirs.add_tensors({"v.blk.0.attn_k.weight", "mm.mm_input_projection.weight"});
  const auto path = write(theirs, "theirs");
  expect_same_file(write(ours, "ours"), path);
  expect_fixture(path, "gemma3");
}

// The keys' other names, and the scaling that files of a long context take for granted. Fails when
// positions are turned by the wrong angles.
TEST_F(DialectTest, Gemma3Rope) {
  Draft ours(fixture::model("gemma3"));
  ours.set("gemma3.context_length", std::int64_t{131072});
  ours.set("gemma3.rope.freq_base", 5e5);
  ours.set("gemma3.rope.freq_base_swa", 2e3);
  ours.set("gemma3.rope.scaling.type", text("linear"));
  ours.set("gemma3.rope.scaling.factor", 8.0);
  Draft theirs = ours;
  theirs.rename_key("gemma3.rope.freq_base", "gemma3.rope.global.freq_base");
  theirs.rename_key("gemma3.rope.freq_base_swa", "gemma3.rope.local.freq_base");
  theirs.remove("gemma3.rope.scaling.type");
  theirs.remove("gemma3.rope.scaling.factor");
  theirs.add_tensors({"v.patch_embd.weight"});
  const auto twin = write(ours, "ours");
  const auto path = write(theirs, "theirs");
  expect_same_file(twin, path);
  expect_same_logits(twin, path, "gemma3");
}

// Fails when a hostile file gets GGML to add in a type that it cannot add in, which ends the
// process.
TEST_F(DialectTest, VectorsInOllamasMxfp4AreRefused) {
  Draft draft = gpt_oss_in_dialect();
  const auto norm = std::ranges::find(draft.tensors(), "output_norm.weight", &Draft::Tensor::name);
  ASSERT_NE(norm, draft.tensors().end());
  norm->type = GGML_TYPE_MXFP4;
  norm->bytes.resize(2 * 17);
  norm->ollama_mxfp4 = true;
  const auto result = evaluate(write(draft, "hostile"), {.tokens = {1}});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::kUnsupported);
  EXPECT_THAT(text(result.error().message()), HasSubstr("output_norm.weight"));
}

// What no model here runs yet must at least open as llama.cpp's file of it would.
TEST_F(DialectTest, EmbeddingGemma) {
  Draft ours(fixture::model("gemma3"));
  ours.set("gemma3.rope.freq_base_swa", 1e4);
  ours.set_architecture("gemma-embedding");
  ours.set("gemma-embedding.attention.causal", false);
  ours.set("gemma-embedding.pooling_type", std::int64_t{1});
  ours.add_tensors({"dense_2.weight", "dense_3.weight"});
  Draft theirs(fixture::model("gemma3"));
  theirs.rename_tensors("output_norm", "norm");
  theirs.add_tensors({"dense.0.weight", "dense.1.weight"});
  const auto path = write(theirs, "theirs");
  expect_same_file(write(ours, "ours"), path);
  const auto result = evaluate(path, {.tokens = {1}});
  ASSERT_FALSE(result);
  EXPECT_THAT(text(result.error().message()), HasSubstr("'gemma-embedding' is not supported"));
}

// Fails when a Llama 3 of before its pre-tokenizer had a name splits words in other places or does
// not know the end of its turn.
TEST_F(DialectTest, EarlyLlama3) {
  constexpr Token kEndOfText = 128001, kEndOfTurn = 128009;
  Draft ours(fixture::model("llama3"));
  Draft words(std::filesystem::path(OLLAMA_TEST_DATA) / "tokenizers/gpt-2.gguf");
  for (Draft* draft : {&ours, &words}) {
    draft->resize_vocabulary(128256);
    draft->set("tokenizer.ggml.eos_token_id", std::int64_t{kEndOfText});
  }
  words.set_architecture("llama");
  Draft theirs = ours;
  ours.set(kPreTokenizer, text("llama-bpe"));
  ours.set("tokenizer.ggml.eot_token_id", std::int64_t{kEndOfTurn});
  const auto twin = write(ours, "ours");
  expect_same_file(twin, write(theirs, "theirs"));
  expect_fixture(folder_ / "theirs.gguf", "llama3");
  theirs.remove(kPreTokenizer);
  expect_same_file(twin, write(theirs, "nameless"));

  const auto data = fixture::read_json(std::filesystem::path(OLLAMA_TEST_DATA) /
                                       "tokenizers/pre-tokenizers.json");
  words.set(kPreTokenizer, text("default"));
  const auto file = gguf::File::open(write(words, "words"));
  ASSERT_TRUE(file) << file.error().message();
  const auto tokenizer = tokenizer::load(*file);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message();
  EXPECT_TRUE((*tokenizer)->is_end(kEndOfText));
  EXPECT_TRUE((*tokenizer)->is_end(kEndOfTurn));
  const auto& texts = data.at("texts").as_array();
  const auto& expected = data.at("tokens").at("llama-bpe").as_array();
  ASSERT_EQ(texts.size(), expected.size());
  for (std::size_t i = 0; i < texts.size(); ++i) {
    EXPECT_EQ((*tokenizer)->encode(std::string_view(texts[i].as_string())),
              boost::json::value_to<std::vector<Token>>(expected[i]))
        << "text " << i;
  }
}

TEST_F(DialectTest, Lfm2) {
  Draft ours(fixture::model("llama"));
  ours.set_architecture("lfm2");
  Draft theirs = ours;
  ours.set(kPreTokenizer, text("lfm2"));
  ours.rename_tensors("output_norm", "token_embd_norm");
  theirs.set("lfm2.feed_forward_length", std::int64_t{99});
  expect_same_file(write(ours, "ours"), write(theirs, "theirs"));
}

// Fails when the picture, sound or look-ahead part of a model gets in the way of its text.
TEST_F(DialectTest, ModelsOfMoreThanText) {
  for (const std::string_view architecture :
       {"mistral3", "llama4", "qwen35", "qwen35moe", "qwen3vl", "qwen3vlmoe"}) {
    SCOPED_TRACE(architecture);
    Draft ours(fixture::model("qwen3"));
    ours.set_architecture(architecture);
    Draft theirs = ours;
    theirs.add_tensors({"v.patch_embd.weight", "mm.1.weight", "mtp.fc.weight", "a.conv.weight"});
    expect_same_file(write(ours, "ours"), write(theirs, "theirs"));
  }
  Draft ours(fixture::model("qwen2"));
  ours.set_architecture("qwen2vl");
  Draft theirs(fixture::model("qwen2"));
  theirs.set_architecture("qwen25vl");
  theirs.add_tensors({"v.patch_embd.weight", "mm.1.weight"});
  expect_same_file(write(ours, "ours"), write(theirs, "theirs"));
}

// Fails when tensors that a model does not ask for change what it answers, or stop it.
TEST_F(DialectTest, UnknownTensorsDisturbNoTextModel) {
  for (const std::string_view name : {"llama", "qwen3", "gpt-oss", "deepseek2"}) {
    SCOPED_TRACE(name);
    Draft draft(fixture::model(name));
    draft.add_tensors({"v.patch_embd.weight", "v.blk.0.attn_q.weight", "v.blk.0.attn_q.bias",
                       "mm.1.weight", "mtp.layers.0.embed_tokens.weight"});
    expect_fixture(write(draft, name), name);
  }
}

}  // namespace
}  // namespace ollama::engine
