#include "gguf/dialect.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ollama::gguf {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Header make_header(std::string_view architecture, std::vector<std::pair<std::string, Value>> values,
                   std::vector<std::string> tensors) {
  Header header;
  header.metadata["general.architecture"] = std::string(architecture);
  header.types["general.architecture"] = {.type = GGUF_TYPE_STRING};
  for (auto& [key, value] : values) {
    header.types[key] = {};
    header.metadata[key] = std::move(value);
  }
  for (std::string& name : tensors) {
    TensorInfo tensor;
    tensor.name = std::move(name);
    tensor.shape = {8, 16, 1, 1};
    tensor.n_dims = 2;
    header.tensors.push_back(std::move(tensor));
  }
  return header;
}

std::vector<std::string> names(const Header& header) {
  std::vector<std::string> names;
  for (const TensorInfo& tensor : header.tensors) names.push_back(tensor.name);
  return names;
}

std::vector<std::string> keys(const Metadata& metadata) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : metadata) keys.push_back(key);
  return keys;
}

std::string text(std::string_view value) { return std::string(value); }

// Fails when Ollama's gpt-oss files no longer look like llama.cpp's.
TEST(Dialect, GptOss) {
  Header header = make_header(
      "gptoss", {{"gptoss.block_count", std::int64_t{24}}, {"tokenizer.ggml.pre", text("default")}},
      {"blk.0.attn_out.weight", "blk.0.attn_out.bias", "blk.0.attn_sinks", "blk.0.ffn_norm.weight",
       "blk.0.ffn_gate_exps.weight", "blk.0.attn_norm.weight"});
  ASSERT_TRUE(translate_dialect(header));
  EXPECT_THAT(names(header),
              ElementsAre("blk.0.attn_output.weight", "blk.0.attn_output.bias",
                          "blk.0.attn_sinks.weight", "blk.0.post_attention_norm.weight",
                          "blk.0.ffn_gate_exps.weight", "blk.0.attn_norm.weight"));
  EXPECT_EQ(header.metadata["general.architecture"], Value(text("gpt-oss")));
  EXPECT_EQ(header.metadata["gpt-oss.block_count"], Value(std::int64_t{24}));
  EXPECT_EQ(header.metadata["gpt-oss.expert_feed_forward_length"], Value(std::int64_t{16}));
  EXPECT_EQ(header.metadata["gpt-oss.rope.scaling.type"], Value(text("yarn")));
  EXPECT_EQ(header.metadata["tokenizer.ggml.pre"], Value(text("gpt-4o")));
  EXPECT_FALSE(header.metadata.contains("gptoss.block_count"));

  // What the file says already stays.
  header = make_header("gptoss",
                       {{"gptoss.rope.scaling.type", text("none")},
                        {"gptoss.expert_feed_forward_length", std::int64_t{5}}},
                       {"blk.0.attn_sinks.weight", "blk.0.ffn_gate_exps.weight"});
  ASSERT_TRUE(translate_dialect(header));
  EXPECT_EQ(header.metadata["gpt-oss.rope.scaling.type"], Value(text("none")));
  EXPECT_EQ(header.metadata["gpt-oss.expert_feed_forward_length"], Value(std::int64_t{5}));
  EXPECT_THAT(names(header), ElementsAre("blk.0.attn_sinks.weight", "blk.0.ffn_gate_exps.weight"));
}

// Fails when the text part of Ollama's gemma3 files is not what llama.cpp's are.
TEST(Dialect, Gemma3) {
  const auto strings = [](std::size_t count) {
    return Array(std::vector<std::string>(count, "t"));
  };
  Header header = make_header(
      "gemma3",
      {{"gemma3.rope.global.freq_base", 2e6},
       {"gemma3.context_length", std::int64_t{131072}},
       {"tokenizer.ggml.tokens", strings(17)},
       {"tokenizer.ggml.scores", Array(std::vector<double>(17))},
       {"tokenizer.ggml.token_type", Array(std::vector<std::int64_t>(16))}},
      {"token_embd.weight", "v.blk.0.attn_k.weight", "mm.input.weight", "blk.0.attn_v.weight"});
  ASSERT_TRUE(translate_dialect(header));
  EXPECT_THAT(names(header), ElementsAre("token_embd.weight", "blk.0.attn_v.weight"));
  EXPECT_EQ(header.metadata["gemma3.rope.freq_base"], Value(2e6));
  EXPECT_EQ(header.metadata["gemma3.rope.freq_base_swa"], Value(1e4));
  EXPECT_FLOAT_EQ(static_cast<float>(
                      std::get<double>(header.metadata["gemma3.attention.layer_norm_rms_epsilon"])),
                  1e-6F);
  EXPECT_EQ(header.metadata["gemma3.rope.scaling.type"], Value(text("linear")));
  EXPECT_EQ(header.metadata["gemma3.rope.scaling.factor"], Value(8.0));
  EXPECT_EQ(header.metadata["tokenizer.ggml.tokens"], Value(strings(16)));
  EXPECT_EQ(header.metadata["tokenizer.ggml.scores"], Value(Array(std::vector<double>(16))));
  EXPECT_EQ(keys(header.metadata).size(), header.types.size());

  // Short contexts are not scaled, nor are those that say how.
  header = make_header("gemma3", {{"gemma3.context_length", std::int64_t{32768}}}, {});
  ASSERT_TRUE(translate_dialect(header));
  EXPECT_FALSE(header.metadata.contains("gemma3.rope.scaling.type"));
  EXPECT_EQ(header.metadata["gemma3.rope.freq_base"], Value(1e6));
  header = make_header(
      "gemma3",
      {{"gemma3.context_length", std::int64_t{131072}}, {"gemma3.rope.scaling.factor", 4.0}}, {});
  ASSERT_TRUE(translate_dialect(header));
  EXPECT_FALSE(header.metadata.contains("gemma3.rope.scaling.type"));
}

TEST(Dialect, EmbeddingGemma) {
  Header header = make_header("gemma3", {{"gemma3.block_count", std::int64_t{24}}},
                              {"token_embd.weight", "dense.0.weight", "dense.1.weight",
                               "norm.weight", "blk.0.attn_norm.weight"});
  ASSERT_TRUE(translate_dialect(header));
  EXPECT_THAT(names(header), ElementsAre("token_embd.weight", "dense_2.weight", "dense_3.weight",
                                         "output_norm.weight", "blk.0.attn_norm.weight"));
  EXPECT_EQ(header.metadata["general.architecture"], Value(text("gemma-embedding")));
  EXPECT_EQ(header.metadata["gemma-embedding.block_count"], Value(std::int64_t{24}));
  EXPECT_EQ(header.metadata["gemma-embedding.attention.causal"], Value(false));
  EXPECT_EQ(header.metadata["gemma-embedding.pooling_type"], Value(std::int64_t{1}));
  EXPECT_TRUE(header.metadata.contains("gemma-embedding.rope.freq_base_swa"));
}

// Fails when an early Llama 3 file is tokenized as something else, or its turns do not end.
TEST(Dialect, EarlyLlama3) {
  const auto make = [](std::size_t tokens, std::optional<std::string> pre) {
    Header header = make_header("llama",
                                {{"tokenizer.ggml.tokens", Array(std::vector<std::string>(tokens))},
                                 {"tokenizer.ggml.eos_token_id", std::int64_t{128001}}},
                                {});
    if (pre) header.metadata["tokenizer.ggml.pre"] = *pre;
    EXPECT_TRUE(translate_dialect(header));
    return header.metadata;
  };
  for (const auto& pre : {std::optional<std::string>(), std::optional<std::string>("default")}) {
    Metadata metadata = make(128256, pre);
    EXPECT_EQ(metadata["tokenizer.ggml.pre"], Value(text("llama-bpe")));
    EXPECT_EQ(metadata["tokenizer.ggml.eot_token_id"], Value(std::int64_t{128009}));
    EXPECT_EQ(metadata["tokenizer.ggml.eos_token_id"], Value(std::int64_t{128001}));
  }
  EXPECT_FALSE(make(128256, "smaug-bpe").contains("tokenizer.ggml.eot_token_id"));
  EXPECT_FALSE(make(128255, "default").contains("tokenizer.ggml.eot_token_id"));
}

TEST(Dialect, Lfm2) {
  Header header = make_header("lfm2", {{"lfm2.feed_forward_length", std::int64_t{99}}},
                              {"output_norm.weight", "blk.0.ffn_gate.weight"});
  ASSERT_TRUE(translate_dialect(header));
  EXPECT_THAT(names(header), ElementsAre("token_embd_norm.weight", "blk.0.ffn_gate.weight"));
  EXPECT_EQ(header.metadata["lfm2.feed_forward_length"], Value(std::int64_t{16}));
  EXPECT_EQ(header.metadata["tokenizer.ggml.pre"], Value(text("lfm2")));
}

TEST(Dialect, DropsWhatIsNotText) {
  for (const std::string_view architecture : {"mistral3", "llama4", "qwen35", "qwen3vl"}) {
    Header header = make_header(architecture, {},
                                {"v.patch_embd.weight", "mm.1.weight", "mtp.fc.weight",
                                 "a.conv.weight", "output.weight", "blk.0.attn_v.weight"});
    ASSERT_TRUE(translate_dialect(header));
    EXPECT_THAT(names(header), ElementsAre("output.weight", "blk.0.attn_v.weight")) << architecture;
  }
  Header header = make_header("qwen25vl", {{"qwen25vl.block_count", std::int64_t{2}}},
                              {"v.a", "output.weight"});
  ASSERT_TRUE(translate_dialect(header));
  EXPECT_THAT(keys(header.metadata), ElementsAre("general.architecture", "qwen2vl.block_count"));
  EXPECT_THAT(names(header), ElementsAre("output.weight"));
}

// Fails when files that follow llama.cpp are touched.
TEST(Dialect, LeavesOthersAlone) {
  for (const std::string_view architecture : {"llama", "gemma3", "gpt-oss", "clip", "lfm2", ""}) {
    const Header before =
        make_header(architecture,
                    {{"gemma3.attention.layer_norm_rms_epsilon", 1e-6},
                     {"tokenizer.ggml.pre", text("default")}},
                    {"blk.0.attn_out.weight", "norm.weight", "token_embd.weight"});
    Header after = before;
    ASSERT_TRUE(translate_dialect(after));
    EXPECT_EQ(after.metadata, before.metadata) << architecture;
    EXPECT_EQ(names(after), names(before)) << architecture;
  }
  // Their vision part is the model.
  Header clip = make_header("clip", {}, {"v.patch_embd.weight", "mm.1.weight"});
  ASSERT_TRUE(translate_dialect(clip));
  EXPECT_EQ(clip.tensors.size(), 2U);
}

// Fails when a file that says a thing in both dialects is taken half and half.
TEST(Dialect, RefusesTwoTensorsOfOneMeaning) {
  Header header = make_header("gptoss", {}, {"blk.0.attn_out.weight", "blk.0.attn_output.weight"});
  const auto translated = translate_dialect(header);
  ASSERT_FALSE(translated);
  EXPECT_THAT(std::string(translated.error().message()),
              HasSubstr("blk.0.attn_output.weight: two tensors mean the same"));
  header = make_header("gptoss", {}, {"blk.0.ffn_norm." + std::string(48, 'x')});
  EXPECT_FALSE(translate_dialect(header)) << "the new name is too long";

  header = make_header("gemma3",
                       {{"gemma3.rope.global.freq_base", 1.0}, {"gemma3.rope.freq_base", 2.0}}, {});
  ASSERT_TRUE(translate_dialect(header));
  EXPECT_EQ(header.metadata["gemma3.rope.freq_base"], Value(2.0)) << "llama.cpp's own key wins";
}

// Fails when the experts of Ollama's gpt-oss files compute with shuffled weights.
TEST(Dialect, ReordersMxfp4) {
  constexpr std::size_t kBlocks = 2;
  std::vector<std::byte> theirs, ggml;
  for (std::size_t block = 0; block < kBlocks; ++block) {
    const auto element = [block](std::size_t i) {
      return static_cast<std::byte>((7 * i + i / 16 + block) % 16);
    };
    theirs.push_back(static_cast<std::byte>(120 + block));
    ggml.push_back(static_cast<std::byte>(120 + block));
    for (std::size_t i = 0; i < 16; ++i) {
      theirs.push_back(element(2 * i) | (element(2 * i + 1) << 4));
      ggml.push_back(element(i) | (element(i + 16) << 4));
    }
  }
  std::vector<std::byte> apart(theirs.size());
  reorder_mxfp4(theirs, apart);
  EXPECT_EQ(apart, ggml);
  reorder_mxfp4(theirs, theirs);
  EXPECT_EQ(theirs, ggml) << "in place";
}

TEST(Dialect, SurvivesWrongTypes) {
  for (const std::string_view architecture : {"gptoss", "gemma3", "llama", "lfm2", "qwen25vl"}) {
    Header header = make_header(architecture,
                                {{"tokenizer.ggml.tokens", std::int64_t{1}},
                                 {"tokenizer.ggml.pre", 1.0},
                                 {"tokenizer.ggml.eos_token_id", text("x")},
                                 {"gemma3.context_length", text("x")},
                                 {"tokenizer.ggml.scores", true}},
                                {"output_norm.weight", "token_embd.weight", "dense.0.weight"});
    EXPECT_TRUE(translate_dialect(header)) << architecture;
  }
  Header header;
  header.metadata["general.architecture"] = std::int64_t{1};
  EXPECT_TRUE(translate_dialect(header));
}

}  // namespace
}  // namespace ollama::gguf
