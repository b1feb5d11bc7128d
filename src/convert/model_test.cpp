// Whole models: each fixture as a checkpoint of Hugging Face's, converted, must be the fixture
// again.
#include <gmock/gmock.h>

#include "convert/convert.h"
#include "convert/test_checkpoint.h"
#include "engine/cross_encoder.h"
#include "engine/draft.h"
#include "engine/fixture.h"

namespace ollama::convert {
namespace {

using engine::fixture::Draft;
using testing::Folder;
using testing::HfTensor;

namespace fixture = engine::fixture;

// The fixture that a family's checkpoint is made of.
std::string fixture_of(std::string_view family) {
  return std::string(family == "mistral" ? "llama" : family == "xlm-roberta" ? "bert" : family);
}

class ModelTest : public ::testing::TestWithParam<std::string_view> {
 protected:
  std::string name_ = fixture_of(GetParam());
  Folder folder_;
  std::filesystem::path output_ = folder_ / "model.gguf";
};

gguf::File convert_and_open(const Folder& folder) {
  const auto result = to_gguf(folder.path(), folder / "model.gguf");
  EXPECT_TRUE(result) << result.error().message();
  return testing::open_model(folder / "model.gguf");
}

// Tensors of equal names, shapes, types and bytes; norms that had 1 taken away and put back may
// differ by rounding.
void expect_same_tensors(const gguf::File& ours, const gguf::File& theirs, double rounding = 1e-6) {
  EXPECT_EQ(ours.tensors().size(), theirs.tensors().size());
  for (const gguf::TensorInfo& expected : theirs.tensors()) {
    const gguf::TensorInfo* tensor = ours.find_tensor(expected.name);
    ASSERT_NE(tensor, nullptr) << expected.name;
    EXPECT_EQ(tensor->shape, expected.shape) << expected.name;
    ASSERT_EQ(tensor->type, expected.type) << expected.name;
    const auto a = *ours.data(*tensor);
    const auto b = *theirs.data(expected);
    if (!ours.architecture().starts_with("gemma") || !expected.name.contains("norm")) {
      EXPECT_TRUE(std::ranges::equal(a, b)) << expected.name;
      continue;
    }
    for (std::size_t i = 0; i < a.size(); i += sizeof(float)) {
      float x = 0, y = 0;
      std::memcpy(&x, &a[i], sizeof x);
      std::memcpy(&y, &b[i], sizeof y);
      EXPECT_NEAR(x, y, rounding) << expected.name;
    }
  }
}

// Fails when a tensor goes to the wrong place, rows are turned wrongly, or a key is missing or has
// another value: the logits would not be llama.cpp's.
TEST_P(ModelTest, GivesTheLogitsOfItsFixture) {
  const auto original = testing::open_fixture(name_);
  testing::write_checkpoint(folder_, original, GetParam());
  const auto result = to_gguf(folder_.path(), output_);
  ASSERT_TRUE(result) << result.error().message();
  const auto converted = testing::open_model(output_);
  expect_same_tensors(converted, original);
  fixture::expect_matches(output_, name_, {.name = "ggml"});

  // What the fixture says is said with the same type and value.
  for (const auto& [key, value] : original.metadata()) {
    // Names, a list that SentencePiece files do not need, and what differs by the way.
    if (key == "general.name" || key == "general.file_type" || key.ends_with("attention.scale") ||
        (key == "tokenizer.ggml.pre" && name_ == "bert")) {
      continue;
    }
    const gguf::Value* found = converted.find(key);
    ASSERT_NE(found, nullptr) << key;
    EXPECT_TRUE(*found == value) << key;
    EXPECT_EQ(converted.value_type(key), original.value_type(key)) << key;
  }
}

// The fixture with its matrices in 16 bits.
Draft in_16_bits(const std::string& name, ggml_type type) {
  Draft draft(fixture::model(name));
  for (Draft::Tensor& tensor : draft.tensors()) {
    if (tensor.type != GGML_TYPE_F32) continue;
    const std::string_view bytes(reinterpret_cast<const char*>(tensor.bytes.data()),
                                 tensor.bytes.size());
    const std::string halves =
        type == GGML_TYPE_BF16 ? testing::to_bf16(bytes) : testing::to_f16(bytes);
    const bool keeps = tensor.shape.size() > 1 && tensor.name != "position_embd.weight" &&
                       tensor.name != "token_types.weight";
    if (keeps) {
      const auto raw = std::as_bytes(std::span(halves));
      tensor.type = type;
      tensor.bytes.assign(raw.begin(), raw.end());
      continue;
    }
    const auto count = std::ssize(tensor.floats());
    if (type == GGML_TYPE_BF16) {
      ggml_bf16_to_fp32_row(reinterpret_cast<const ggml_bf16_t*>(halves.data()),
                            tensor.floats().data(), count);
    } else {
      ggml_fp16_to_fp32_row(reinterpret_cast<const ggml_fp16_t*>(halves.data()),
                            tensor.floats().data(), count);
    }
  }
  return draft;
}

// Fails when 16-bit matrices change on their way, or vectors do not become f32.
TEST_P(ModelTest, KeepsTypesOf16Bits) {
  const auto original = testing::open_fixture(name_);
  for (const ggml_type type : {GGML_TYPE_BF16, GGML_TYPE_F16}) {
    SCOPED_TRACE(ggml_type_name(type));
    testing::write_checkpoint(folder_, original, GetParam());
    auto tensors = testing::hf_tensors(original, GetParam());
    for (HfTensor& tensor : tensors) {
      if (tensor.dtype != "F32") continue;
      tensor.dtype = type == GGML_TYPE_BF16 ? "BF16" : "F16";
      tensor.bytes =
          type == GGML_TYPE_BF16 ? testing::to_bf16(tensor.bytes) : testing::to_f16(tensor.bytes);
    }
    folder_.write("model.safetensors", testing::safetensors(tensors));
    const auto result = to_gguf(folder_.path(), output_);
    ASSERT_TRUE(result) << result.error().message();
    in_16_bits(name_, type).write(folder_ / "expected.gguf");
    const auto converted = testing::open_model(output_);
    expect_same_tensors(converted, testing::open_model(folder_ / "expected.gguf"), 1e-2);
    // BERT's largest matrix is f16 in the fixture.
    EXPECT_EQ(converted.u32("general.file_type"),
              type == GGML_TYPE_BF16 && name_ != "bert" ? 32U : 1U);
  }
}

// Fails when shards are not read, or only where the index lists them in order.
TEST_P(ModelTest, ReadsShards) {
  const auto original = testing::open_fixture(name_);
  testing::write_checkpoint(folder_, original, GetParam());
  const auto tensors = testing::hf_tensors(original, GetParam());
  std::filesystem::remove(folder_ / "model.safetensors");
  std::map<std::string, std::vector<HfTensor>> shards;
  boost::json::object map;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::string file = std::format("model-0000{}-of-00003.safetensors", i % 3 + 1);
    shards[file].push_back(tensors[i]);
    map[tensors[i].name] = file;
  }
  for (const auto& [file, part] : shards) folder_.write(file, testing::safetensors(part));
  const auto without_index = to_gguf(folder_.path(), output_);
  ASSERT_TRUE(without_index) << without_index.error().message();
  expect_same_tensors(testing::open_model(output_), original);

  // What the index does not list is not read.
  folder_.write("model-other.safetensors", "no safetensors file");
  folder_.write_json("model.safetensors.index.json", {{"weight_map", map}});
  const auto result = to_gguf(folder_.path(), output_);
  ASSERT_TRUE(result) << result.error().message();
  expect_same_tensors(testing::open_model(output_), original);
}

std::vector<std::string_view> all_families() { return {families().begin(), families().end()}; }

INSTANTIATE_TEST_SUITE_P(Families, ModelTest, ::testing::ValuesIn(all_families()),
                         [](const auto& info) {
                           return fixture::test_name(std::string(info.param));
                         });

// Fails when biases stay in the order of the checkpoint while the rows they belong to do not.
TEST(Llama, TurnsBiasesWithTheirRows) {
  const auto original = testing::open_fixture("llama");
  const Folder folder;
  testing::write_checkpoint(folder, original, "llama");
  auto tensors = testing::hf_tensors(original, "llama");
  // Two key heads of 32; a value says to which row it belongs in the checkpoint.
  std::vector<float> rows(64);
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i);
  const std::string f32(reinterpret_cast<const char*>(rows.data()), rows.size() * sizeof(float));
  tensors.push_back({"model.layers.0.self_attn.k_proj.bias", "F32", {64}, f32});
  tensors.push_back({"model.layers.1.self_attn.k_proj.bias", "F16", {64}, testing::to_f16(f32)});
  tensors.push_back({"model.layers.0.self_attn.v_proj.bias", "BF16", {64}, testing::to_bf16(f32)});
  folder.write("model.safetensors", testing::safetensors(tensors));
  const auto converted = convert_and_open(folder);
  for (const std::string_view name : {"blk.0.attn_k.bias", "blk.1.attn_k.bias"}) {
    const auto* tensor = converted.find_tensor(name);
    ASSERT_NE(tensor, nullptr) << name;
    ASSERT_EQ(tensor->type, GGML_TYPE_F32);
    std::vector<float> values(64);
    std::memcpy(values.data(), converted.data(*tensor)->data(), 64 * sizeof(float));
    EXPECT_EQ(values[0], 0) << name;
    EXPECT_EQ(values[1], 16) << name;
    EXPECT_EQ(values[2], 1) << name;
    EXPECT_EQ(values[31], 31) << name;
    EXPECT_EQ(values[33], 48) << name;
  }
  const auto* unturned = converted.find_tensor("blk.0.attn_v.bias");
  ASSERT_NE(unturned, nullptr);
  EXPECT_TRUE(std::ranges::equal(*converted.data(*unturned), std::as_bytes(std::span(rows))));
}

// Gemma 3 within a model that sees, under the names that it has had. Fails when such a checkpoint
// is refused, or the wrong part of its configuration is read.
TEST(Gemma3, WithinAModelThatSees) {
  const auto original = testing::open_fixture("gemma3");
  for (const auto& [prefix, drop] :
       {std::pair<std::string_view, std::size_t>("language_model.", 0),
        std::pair<std::string_view, std::size_t>("model.language_model.", 6)}) {
    SCOPED_TRACE(prefix);
    const Folder folder;
    testing::write_checkpoint(folder, original, "gemma3");
    auto tensors = testing::hf_tensors(original, "gemma3");
    for (HfTensor& tensor : tensors) tensor.name = std::string(prefix) + tensor.name.substr(drop);
    tensors.push_back({.name = "vision_tower.patch.weight", .shape = {1}, .bytes = "1234"});
    tensors.push_back({.name = "model.multi_modal_projector.w", .shape = {1}, .bytes = "1234"});
    folder.write("model.safetensors", testing::safetensors(tensors));
    auto text = testing::hf_config(original, "gemma3");
    text.erase("architectures");
    text.erase("eos_token_id");
    folder.write_json("config.json",
                      {{"architectures", boost::json::array{"Gemma3ForConditionalGeneration"}},
                       {"model_type", "gemma3"},
                       {"hidden_size", 7},
                       {"eos_token_id", boost::json::array{2, 3}},
                       {"text_config", text}});
    const auto result = to_gguf(folder.path(), folder / "model.gguf");
    ASSERT_TRUE(result) << result.error().message();
    fixture::expect_matches(folder / "model.gguf", "gemma3", {.name = "ggml"});
    EXPECT_THAT(testing::open_model(folder / "model.gguf").i32s("tokenizer.ggml.eos_token_ids"),
                ::testing::ElementsAre(2, 3));
  }
}

// Fails when BERT's tensors are not known by the names that old and wrapping checkpoints have.
TEST(Bert, UnderOldNames) {
  const auto original = testing::open_fixture("bert");
  const Folder folder;
  testing::write_checkpoint(folder, original, "bert");
  auto tensors = testing::hf_tensors(original, "bert");
  for (HfTensor& tensor : tensors) {
    const auto rename = [&](std::string_view from, std::string_view to) {
      if (!tensor.name.ends_with(from)) return;
      tensor.name.replace(tensor.name.size() - from.size(), from.size(), to);
    };
    rename("LayerNorm.weight", "LayerNorm.gamma");
    rename("LayerNorm.bias", "LayerNorm.beta");
    tensor.name = "bert." + tensor.name;
  }
  tensors.push_back({.name = "bert.pooler.dense.weight", .shape = {1}, .bytes = "1234"});
  tensors.push_back({.name = "cls.predictions.bias", .shape = {1}, .bytes = "1234"});
  tensors.push_back({"bert.embeddings.position_ids", "I64", {1}, "12345678"});
  folder.write("model.safetensors", testing::safetensors(tensors));
  folder.write("1_Pooling/config.json", R"({"pooling_mode_cls_token": true})");
  const auto converted = convert_and_open(folder);
  expect_same_tensors(converted, original);
  EXPECT_EQ(converted.u32(".pooling_type"), 2U) << "the first token's state";
}

// Fails when the classifier lacks a layer, which changes every score.
TEST(Bert, WithAClassifier) {
  for (const std::int64_t labels : {1, 2}) {
    fixture::CrossEncoder model({.labels = labels});
    const Folder folder;
    model.draft().write(folder / "original.gguf");
    const auto original = testing::open_model(folder / "original.gguf");
    testing::write_checkpoint(folder, original, "bert");
    auto tensors = testing::hf_tensors(original, "bert");
    for (HfTensor& tensor : tensors) tensor.name = "bert." + tensor.name;
    for (const auto& [name, from] : {std::pair("bert.pooler.dense.weight", "cls.weight"),
                                     {"bert.pooler.dense.bias", "cls.bias"},
                                     {"classifier.weight", "cls.output.weight"},
                                     {"classifier.bias", "cls.output.bias"}}) {
      const Draft::Tensor& tensor = model.tensor(from);
      tensors.push_back(
          {.name = name,
           .shape = {tensor.shape.rbegin(), tensor.shape.rend()},
           .bytes = {reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size()}});
    }
    folder.write("model.safetensors", testing::safetensors(tensors));
    auto config = testing::hf_config(original, "bert");
    config["architectures"] = boost::json::array{"BertForSequenceClassification"};
    config["id2label"] = boost::json::object{{"0", "relevant"}};
    folder.write_json("config.json", config);
    const auto converted = convert_and_open(folder);
    expect_same_tensors(converted, original);
    EXPECT_TRUE(gguf::ranks_texts(converted));
    EXPECT_EQ(converted.u32(".pooling_type"), 4U);
    const auto names = converted.strings(".classifier.output_labels");
    ASSERT_EQ(std::ssize(names), labels);
    EXPECT_EQ(names[0], "relevant");
    EXPECT_EQ(names.back(), labels > 1 ? "LABEL_1" : "relevant");
    EXPECT_TRUE(engine::Engine::load(folder / "model.gguf", {}));

    // What such a model cannot do without.
    std::erase_if(tensors, [](const auto& t) { return t.name == "bert.pooler.dense.weight"; });
    folder.write("model.safetensors", testing::safetensors(tensors));
    const auto broken = to_gguf(folder.path(), folder / "broken.gguf");
    ASSERT_FALSE(broken);
    EXPECT_THAT(std::string(broken.error().message()),
                ::testing::HasSubstr("pooler.dense.weight is missing"));
  }
}

// bge-reranker-v2-m3's form. Fails when positions are those of the checkpoint, which begin later,
// or when pairs or scores are not what the model was trained on.
TEST(XlmRoberta, WithAClassifier) {
  fixture::CrossEncoder model({.segments = 1, .unigram = true});
  const Folder folder;
  model.draft().write(folder / "original.gguf");
  const auto original = testing::open_model(folder / "original.gguf");
  auto tensors = testing::hf_tensors(original, "xlm-roberta");
  for (HfTensor& tensor : tensors) {
    tensor.name = "roberta." + tensor.name;
    if (!tensor.name.contains("position_embeddings")) continue;
    tensor.bytes.insert(0, tensor.bytes.substr(0, 64 * sizeof(float)));
    ++tensor.shape[0];
  }
  tensors.push_back({"roberta.embeddings.position_ids", "I64", {1, 2}, std::string(16, '\0')});
  for (const auto& [name, from] : {std::pair("classifier.dense.weight", "cls.weight"),
                                   {"classifier.dense.bias", "cls.bias"},
                                   {"classifier.out_proj.weight", "cls.output.weight"},
                                   {"classifier.out_proj.bias", "cls.output.bias"}}) {
    const fixture::Draft::Tensor& tensor = model.tensor(from);
    tensors.push_back(
        {.name = name,
         .shape = {tensor.shape.rbegin(), tensor.shape.rend()},
         .bytes = {reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size()}});
  }
  folder.write("model.safetensors", testing::safetensors(tensors));
  folder.write_json("tokenizer.json", testing::unigram_json(original));
  auto config = testing::hf_config(original, "xlm-roberta");
  config["architectures"] = boost::json::array{"XLMRobertaForSequenceClassification"};
  config["pad_token_id"] = 1;
  config["max_position_embeddings"] = *original.u32(".context_length") + 2;
  config["type_vocab_size"] = 1;
  folder.write_json("config.json", config);
  const auto converted = convert_and_open(folder);
  expect_same_tensors(converted, original);
  EXPECT_TRUE(gguf::ranks_texts(converted));
  EXPECT_EQ(converted.architecture(), "bert");
  EXPECT_EQ(converted.u32(".context_length"), original.u32(".context_length"));
  EXPECT_EQ(converted.u32("tokenizer.ggml.token_type_count"), 1U);
  for (const auto& [key, value] : original.metadata()) {
    if (!key.starts_with("tokenizer.") || key == "tokenizer.ggml.tokens" ||
        key == "tokenizer.ggml.scores" || key == "tokenizer.ggml.token_type") {
      continue;  // those are padded to the embedding's rows here
    }
    const gguf::Value* found = converted.find(key);
    ASSERT_NE(found, nullptr) << key;
    EXPECT_TRUE(*found == value) << key;
    EXPECT_EQ(converted.value_type(key), original.value_type(key)) << key;
  }
  const auto engine = engine::Engine::load(folder / "model.gguf", {});
  ASSERT_TRUE(engine) << engine.error().message();
  const auto theirs = engine::Engine::load(folder / "original.gguf", {});
  ASSERT_TRUE(theirs) << theirs.error().message();
  const std::vector<std::string> documents{"Paris is the capital.",
                                           "Die Katze sitzt auf dem Dach."};
  const auto ours = tokenizer::encode_pairs((*engine)->tokenizer(), "a question?", documents, 512);
  const auto pairs = tokenizer::encode_pairs((*theirs)->tokenizer(), "a question?", documents, 512);
  ASSERT_TRUE(ours && pairs);
  for (std::size_t i = 0; i < documents.size(); ++i) {
    EXPECT_EQ((*ours)[i].tokens, (*pairs)[i].tokens) << documents[i];
  }

  // Positions that the padding token's id leaves none of.
  config["pad_token_id"] = 100'000;
  folder.write_json("config.json", config);
  const auto refused = to_gguf(folder.path(), folder / "refused.gguf");
  ASSERT_FALSE(refused);
  EXPECT_THAT(std::string(refused.error().message()), ::testing::HasSubstr("pad_token_id"));
}

// multilingual-e5-small's: BERT's positions and XLM-RoBERTa's vocabulary.
TEST(Bert, WithAUnigramVocabulary) {
  fixture::CrossEncoder model({.unigram = true});
  const Folder folder;
  model.encoder(0).write(folder / "original.gguf");
  const auto original = testing::open_model(folder / "original.gguf");
  testing::write_checkpoint(folder, original, "bert");
  folder.write_json("tokenizer.json", testing::unigram_json(original));
  folder.write("1_Pooling/config.json", R"({"pooling_mode_mean_tokens": true})");
  const auto converted = convert_and_open(folder);
  expect_same_tensors(converted, original);
  EXPECT_EQ(converted.string("tokenizer.ggml.model"), "t5");
  EXPECT_EQ(converted.u32(".pooling_type"), 1U);
  EXPECT_TRUE(engine::Engine::load(folder / "model.gguf", {}));
}

}  // namespace
}  // namespace ollama::convert
